"""The picture of a run: what is drawn of it, to what scale, and what is refused."""

from __future__ import annotations

import sys
from dataclasses import replace
from math import inf
from pathlib import Path

import pytest
import sample_runs
import strategies
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes

from epochcast.errors import MissingDependency, UsageError
from epochcast.records import EpochDone
from epochcast.report.plots import following as plot_following
from epochcast.report.plots.pictures import save_picture

DRIFTING = sample_runs.drifting()
MARKS = ["planned again", "drift"]


PLANNED = "planned end: epoch 57, 55m 15s"


def labels(axes: Axes) -> list[str]:
    return axes.get_legend_handles_labels()[1]


def texts(axes: Axes) -> list[str]:
    return [text.get_text().strip() for text in axes.texts]


def test_everything_is_drawn() -> None:
    times, total, metric = plot_following.draw_run(DRIFTING).axes
    assert labels(times) == ["predicted, P10–P90", "took", "first of a process", *MARKS]
    assert labels(total) == ["whole run expected, P10–P90", "spent", PLANNED]
    assert labels(metric) == ["best: 0.4732, epoch 48"]
    assert (times.get_ylabel(), total.get_ylabel(), metric.get_ylabel()) == (
        "seconds an epoch",
        "minutes since the run began",
        "val_loss",
    )
    took = next(line for line in times.lines if line.get_label() == "took")
    assert list(took.get_xdata()) == list(range(1, 49))
    assert took.get_ydata()[0] == pytest.approx(67.9)
    spent = next(line for line in total.lines if line.get_label() == "spent")
    assert spent.get_xdata()[0] == 0
    assert spent.get_ydata()[-1] * 60 == pytest.approx(DRIFTING[-1].spent_seconds)
    assert "Stopped after epoch 48 of 50" in times.get_title(loc="left")


def test_limits_and_what_happened_are_named() -> None:
    times, total, _ = plot_following.draw_run(DRIFTING).axes
    assert texts(times) == []
    marks = {line.get_label(): line for line in times.lines if line.get_label() in MARKS}
    assert list(marks) == MARKS
    assert marks["drift"].get_linestyle() != marks["planned again"].get_linestyle()
    assert texts(total) == ["deadline, 1h 00m", "money, $3.00"]
    heights = [text.get_position()[1] for text in total.texts]
    assert heights == pytest.approx([60, 72])  # $3 at $2.50 an hour


def test_a_limit_is_drawn_where_the_plan_says_that_it_is_used_up() -> None:
    fixed = (("money", 3000.0),)  # with a fixed cost, money is not proportional to time
    run = [replace(DRIFTING[0], binding_seconds=fixed), *DRIFTING[1:]]
    _, total, _ = plot_following.draw_run(run).axes
    assert [(text.get_text(), text.get_position()[1]) for text in total.texts] == [
        ("money, $3.00", 50.0)
    ]


def test_a_run_that_stopped_long_before_its_planned_end_is_not_squeezed() -> None:
    start = replace(DRIFTING[0], end_epochs=500)
    _, total, metric = plot_following.draw_run([start, *DRIFTING[1:]]).axes
    assert metric.get_xlim()[1] == pytest.approx(48 * 1.02)
    assert any(label.startswith("planned end: epoch 500, ") for label in labels(total))


def test_a_running_run_is_continued_by_dots_to_its_end() -> None:
    _, total, _ = plot_following.draw_run(sample_runs.running()).axes
    dots = next(line for line in total.lines if line.get_linestyle() == ":")
    assert list(dots.get_xdata()) == [14, 57]
    _, finished, _ = plot_following.draw_run(sample_runs.finished()).axes
    assert ":" not in {line.get_linestyle() for line in finished.lines}


def test_a_slow_first_epoch_does_not_flatten_the_others() -> None:
    times, *_ = plot_following.draw_run(sample_runs.resumed()).axes
    assert times.get_ylim()[1] < 100
    assert texts(times) == ["↑ 15m 48s"]
    took = next(line for line in times.lines if line.get_label() == "took")
    assert list(took.get_xdata()) == list(range(1, 17))  # lost epochs are drawn once


def test_without_a_metric_there_are_two_panels() -> None:
    bare = [replace(e, values=()) if isinstance(e, EpochDone) else e for e in DRIFTING]
    assert len(plot_following.draw_run(bare).axes) == 2
    assert len(plot_following.draw_run(DRIFTING[1:4]).axes) == 2  # of an unknown start


def test_what_cannot_be_drawn_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="no epoch is done"):
        plot_following.draw_run(DRIFTING[:1])
    with pytest.raises(UsageError, match=r"\.png or \.svg"):
        save_picture(plot_following.draw_run(DRIFTING), tmp_path / "run.pdf")
    with pytest.raises(UsageError, match="cannot write"):
        save_picture(plot_following.draw_run(DRIFTING), tmp_path / "absent" / "run.png")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependency, match="pip install"):
        plot_following.draw_run(DRIFTING)


@pytest.mark.parametrize(("name", "magic"), [("run.png", b"\x89PNG"), ("run.svg", b"<?xml")])
def test_pictures_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, magic: bytes
) -> None:
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)
    save_picture(plot_following.draw_run(sample_runs.running()), tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(magic)
    assert "matplotlib.pyplot" not in sys.modules


@given(strategies.runs_started, st.lists(strategies.run_events, max_size=4), strategies.epochs_done)
@settings(max_examples=25)
def test_any_log_with_an_epoch_can_be_drawn(start, events, done) -> None:
    endless = replace(done.projected_seconds, p90=inf, p95=inf)
    plot_following.draw_run([start, *events, done])
    plot_following.draw_run([start, replace(done, projected_seconds=endless)])
