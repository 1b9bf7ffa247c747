"""Where a sweep shows how it goes."""

from __future__ import annotations

import pytest
import rich.console
import truths

from epochcast.report.text.progress import BarProgress, PlainProgress, shown_here


def test_a_bar_in_a_terminal_and_nothing_where_nobody_looks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    with shown_here() as shown:
        assert shown is None
    monkeypatch.setenv("FORCE_COLOR", "1")
    with shown_here() as shown:
        assert type(shown) is BarProgress
    with shown_here(wanted=False) as shown:
        assert shown is None


def test_lines_in_a_notebook(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setattr(rich.console, "_is_jupyter", lambda: True)
    with shown_here() as shown:
        assert type(shown) is PlainProgress
        shown.begin(2, 0, None, "synthetic")
        shown.finished(truths.measure(32, 256))
    assert "[1/2] batch_size=32 depth=1 width=256: " in capsys.readouterr().err
