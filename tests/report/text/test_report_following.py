"""What people read of a run: no line too wide, every reason in words, nothing internal."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from math import inf, nan

import pytest
import sample_runs
import strategies
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from epochcast.guard.log import lasting_epochs
from epochcast.records import EpochDone, Notice, Position, RunEnded, StopReason, Warning_
from epochcast.report.text.following import (
    HEADING_EVERY,
    REASONS,
    STOPS,
    WIDTH,
    Narrator,
    TerminalWatcher,
    ended_line,
    summary_lines,
)
from epochcast.report.text.warnings import WARNINGS

START = sample_runs.started()
DONE = next(e for e in sample_runs.running() if isinstance(e, EpochDone) and e.best)
ENDED = sample_runs.drifting()[-1]
NOTICES = {
    "drift": ("ratio_before", "ratio_after"),
    "replanned": ("old", "new", "why"),
    "cut": ("steps", "of"),
    "resumed": ("epoch", "step", "spent"),
    "signal": ("name",),
    "save-failed": ("error",),
    "damaged-checkpoint": ("name", "error"),
    "damaged-ledger": ("error",),
    "steps-differ": ("planned", "seen"),
    "schedule-shortened": ("steps", "horizon"),
    "could-continue": ("epochs",),
    "no-report": ("metric", "epoch"),
    "not-evaluated": ("epoch",),
    "other-plan": (),
    "store-failed": ("error",),
    "evaluation-skipped": ("epoch",),
    "save-time-unknown": (),
    "unknown-event": ("kind", "line"),
}


def told(*events) -> list[str]:
    narrator = Narrator()
    return [line for event in events for line in narrator.lines(event)]


def row(done: EpochDone) -> str:
    return told(START, done)[-1]


def test_an_epoch_is_one_line_under_a_heading() -> None:
    *_, heading, line = told(START, DONE)
    assert heading == (
        "epoch  took (predicted)      ratio  time → total       money → total    on plan  "
        "val_loss  then"
    )
    assert line == (
        "2/57   54.6 s (53.4–56.6 s)  ×0.99  2m 24s → 55m 00s   $0.10 → $2.29    99 %     "
        "1.169*    go on"
    )


def test_decisions_are_words() -> None:
    assert row(replace(DONE, save_seconds=3.0)).endswith("  saved")
    stopped = row(replace(DONE, reason=StopReason.PATIENCE))
    assert stopped.endswith("  stop: no progress")
    assert "→" not in stopped  # what was spent is what it took
    cut = replace(DONE, position=Position(epoch=11, step=37, steps=1357))
    assert row(cut).startswith("12 cut")


def test_the_ratio_is_that_of_the_numbers_beside_it() -> None:
    predicted = replace(DONE.predicted, p50=55.0)
    done = replace(DONE, seconds=66.0, predicted=predicted, pace=1.01)
    assert "  ×1.20  " in row(done)
    assert done.ratio == pytest.approx(1.2)
    cut = replace(done, position=Position(epoch=11, step=37, steps=1357))
    assert cut.ratio is None  # part of an epoch, and what a whole one was to take
    assert "×" not in row(cut)


def test_what_is_not_known_has_no_column() -> None:
    free = replace(DONE, spent_money=None, projected_money=None)
    assert not any("money" in line or "$" in line for line in told(START, free)[-2:])
    assert "  –  " in row(replace(DONE, values=()))


@given(strategies.runs_started, st.lists(strategies.run_events, max_size=5), st.integers(20, 140))
def test_no_line_is_too_wide(start, events, width) -> None:
    narrator = Narrator(width)
    for event in (start, *events):
        lines = narrator.lines(event)
        assert lines
        assert all(cell_len(line) <= width and line.isprintable() for line in lines)


@given(st.floats(), st.sampled_from(("漢字" * 30, "a\nb\x1b[31m", "")), st.integers(20, 100))
def test_wild_numbers_and_names_are_no_wider(number, name, width) -> None:
    wild = replace(
        DONE,
        seconds=number,
        pace=number,
        spent_money=number,
        values=((name, number),),
        on_plan_probability=number,
        projected_money=inf,
    )
    narrator = Narrator(width)
    for event in (replace(START, metric=name), wild):
        lines = narrator.lines(event)
        assert all(cell_len(line) <= width and line.isprintable() for line in lines)


def test_long_epochs_and_much_money_fit() -> None:
    slow = replace(
        DONE,
        position=Position(epoch=104),
        end_epochs=200,
        seconds=680.0,
        save_seconds=1.0,
        predicted=sample_runs.around(690.0),
        spent_seconds=70000.0,
        spent_money=48.6,
        projected_seconds=sample_runs.around(136000.0),
        projected_money=94.4,
    )
    line = row(slow)
    assert len(line) <= WIDTH
    assert line == (
        "104/200  11m 20s (11m 09s–11m 51s)  ×0.99  19h 27m → 37h 47m  $48.60 → $94.40  99 %  "
        "1.169*  saved"
    )


def test_the_heading_comes_again() -> None:
    lines = told(*sample_runs.finished())
    places = [i for i, line in enumerate(lines) if line.startswith("epoch ")]
    assert [b - a for a, b in pairwise(places)] == [HEADING_EVERY + 1] * 2
    again = told(*sample_runs.resumed())
    assert sum(line.startswith("epoch ") for line in again) == 2  # each process has its own


def test_a_narrow_terminal_leaves_out_the_least() -> None:
    narrator = Narrator(80)
    narrator.lines(START)
    heading, line = narrator.lines(DONE)
    assert "ratio" not in heading
    assert "money" not in heading
    assert [heading.index(w) for w in ("time", "on plan")] == [
        line.index(w) for w in ("2m 24s", "99 %")
    ]


@pytest.mark.parametrize("width", [36, 40])
def test_a_terminal_too_narrow_for_a_line_gets_two(width: int) -> None:
    """What must be there is never cut; further lines are indented, as those of sentences are."""
    narrator = Narrator(width)
    told = [line for event in (START, DONE) for line in narrator.lines(event)]
    assert not any("…" in line for line in told)
    at = next(i for i, line in enumerate(told) if line.startswith("epoch  took (predicted)"))
    starts = [line[:2].isspace() for line in told[at:]]
    assert starts == [False, True, False, True]
    assert [line.startswith("  ") for line in narrator.lines(START)[:2]] == [False, True]


def test_the_opening_says_what_is_followed() -> None:
    text = " ".join(" ".join(told(START)).split())
    assert text == (
        "Following the plan of digits-mlp: 57 epochs with batch_size=32 width=512. Within 1h 00m "
        "and $3.00, with 90 % confidence. In eight cases of ten an epoch takes 53.4–56.6 s, the "
        "whole run 53m 36s–56m 55s."
    )
    assert "Process 2 follows the plan of" in told(sample_runs.started(2, 10))[0]


@pytest.mark.parametrize("code", NOTICES)
def test_every_notice_has_words(code: str) -> None:
    details = tuple((name, f"<{name}>") for name in NOTICES[code])
    notice = Notice(wall_time=0.0, position=Position(), notice=Warning_(code=code, details=details))
    text = " ".join(told(notice))
    assert code in WARNINGS
    assert text.startswith("note: ")
    assert all(f"<{name}>" in text for name in NOTICES[code])


def test_a_notice_of_a_newer_version_is_shown_as_it_is() -> None:
    for code, details in (("sheep", (("count", "3"),)), ("drift", (("factor", "3"),))):
        notice = Warning_(code=code, details=details)
        line = told(Notice(wall_time=0.0, position=Position(), notice=notice))
        assert line == [f"note: {code} ({details[0][0]}: 3)"]


@pytest.mark.parametrize("reason", [*StopReason, None])
def test_every_reason_is_said(reason: StopReason | None) -> None:
    text = ended_line(replace(ENDED, reason=reason, limit="money"), "val_loss", "SIGTERM")
    assert text.startswith("Stopped after epoch 48 of 50: ")
    assert not any(word in text for word in ("None", "{", "StopReason"))
    assert reason is None or reason in STOPS
    assert reason in REASONS


def test_the_end_names_what_binds() -> None:
    assert told(*sample_runs.drifting())[-1] == (
        "Stopped after epoch 48 of 50: more might not have fitted the deadline."
    )
    assert told(*sample_runs.resumed())[-1].endswith("it was asked to by SIGTERM.")
    cut = replace(ENDED, position=Position(epoch=11, step=1))
    assert "epoch 11 of 50 and 1 step of the next:" in ended_line(cut)


def test_a_finished_run_in_words() -> None:
    assert summary_lines(sample_runs.resumed()) == [
        "Stopped after epoch 16 of 57: it was asked to by SIGTERM.",
        "Time 32m 42s of 1h 00m; money $1.36 of $3.00; planned for 57 epochs: 53m 36s–56m 55s.",
        "An epoch took 55.1 s (median of 16); predicted: 53.4–56.6 s.",
        "An evaluation took 2 s (median of 9); predicted: 1.94–2.06 s.",
        "A save took 3 s (median of 3); predicted: 2.91–3.09 s.",
        "Best val_loss: 0.61, after epoch 16.",
        "Checkpoints: last epoch-0016, best epoch-0016.",
        "It took 2 processes; 2 epochs had to be trained again.",
    ]


def test_a_running_run_in_words() -> None:
    first, *_, best = summary_lines(sample_runs.running())
    assert first.startswith("Running, or killed: after epoch 14 of 57; last heard of at 2025-10-09")
    assert best == "Best val_loss: 0.6407, after epoch 14."
    assert summary_lines([START])[0].startswith("Running, or killed: in its first epoch")
    assert summary_lines([]) == ["Nothing has happened yet."]


def test_a_run_without_results_says_so() -> None:
    bare = replace(
        ENDED, last_checkpoint=None, best_checkpoint=None, best_value=None, best_epoch=None
    )
    lines = summary_lines([START, bare])
    assert "No checkpoint was written." in lines
    assert "No value of val_loss was reported." in lines


@given(st.lists(strategies.run_events, max_size=6))
def test_any_log_has_a_summary(events) -> None:
    assert all(summary_lines(events))


def test_only_the_last_run_of_a_log_is_summed_up() -> None:
    other = tuple(replace(e, run="r0") if hasattr(e, "run") else e for e in sample_runs.finished())
    alone = sample_runs.resumed()
    assert summary_lines((*other, *alone)) == summary_lines(alone)


def test_lost_epochs_do_not_last() -> None:
    epochs = [e.position.epoch for e in lasting_epochs(sample_runs.resumed())]
    assert epochs == list(range(1, 17))


def test_a_watcher_prints_what_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    seen: list[str] = []
    for watcher in (TerminalWatcher(seen.append), TerminalWatcher()):
        for event in sample_runs.running():
            watcher.see(event)
        watcher.close()
    assert seen == told(*sample_runs.running())
    assert capsys.readouterr() == ("", "\n".join(seen) + "\n")


def test_nan_is_shown() -> None:
    assert "nan" in row(replace(DONE, values=(("val_loss", nan),), best=False))
    assert isinstance(ENDED, RunEnded)
