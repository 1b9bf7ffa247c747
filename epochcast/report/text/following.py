"""A run as it is followed: a few words at its start, a line per epoch, what happens in between.

Following the plan of digits-mlp: 57 epochs with batch_size=32 width=512. Within 1h 00m, …
epoch  took (predicted)      ratio  time → total       money → total    on plan  val_loss  then
12/57  55.3 s (54.1–57.2 s)  ×0.99  11m 20s → 52m 30s  $0.47 → $2.18    97 %     0.412*    go on
note: epochs now take 1.45 times the planned time; before it was 1.00
Stopped after epoch 48 of 50: more might not have fitted the deadline.
Time 59m 08s of 1h 00m; money $2.46 of $3.00; planned for 57 epochs: 53.6–56.9 min.
An epoch took 56.1 s (median of 47); predicted: 53.4–56.7 s.

Predicted is P10 to P90, by what was known before the epoch; the ratio is what it took over the P50
of that. After the arrow: what the whole run will take, P50. On plan: how likely it is
that all limits hold. A star: the best value so far.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from shutil import get_terminal_size
from statistics import median

import click
from rich.cells import cell_len, chop_cells, set_cell_size

from epochcast.guard.log import ending, first_start, last_run, lasting_epochs, steady_seconds
from epochcast.records import (
    EpochDone,
    LimitName,
    Notice,
    Quantiles,
    RunEnded,
    RunEvent,
    RunStarted,
    StopReason,
)
from epochcast.report.text.layout import GAP, filled
from epochcast.report.text.plan import LIMIT_FORMS, within_text
from epochcast.report.text.terminal import printable
from epochcast.report.text.warnings import warning_text
from epochcast.units import (
    format_money,
    format_number_of,
    format_percent,
    format_seconds,
    format_span,
)

WIDTH = 100
HEADING_EVERY = 20  # lines: so that a heading is in sight on most terminals
NAME_WIDTH = 12  # of a metric in the heading; longer names are cut
STOPS = {
    StopReason.TARGET: "target reached",
    StopReason.NON_FINITE: "not finite",
    StopReason.DIVERGED: "too bad",
    StopReason.PATIENCE: "no progress",
    StopReason.FUTILE: "little hope",
    StopReason.BUDGET: "limit",
    StopReason.PLAN_DONE: "all done",
    StopReason.SIGNAL: "signal",
}
REASONS = {
    StopReason.TARGET: "{metric} has reached the target",
    StopReason.NON_FINITE: "{metric} is not a finite number",
    StopReason.DIVERGED: "{metric} is worse than the plan tolerates",
    StopReason.PATIENCE: "{metric} has stopped improving",
    StopReason.FUTILE: "{metric} is unlikely to improve by the end of the plan",
    StopReason.BUDGET: "more might not have fitted {limit}",
    StopReason.PLAN_DONE: "all planned epochs are done",
    StopReason.SIGNAL: "it was asked to{by}",
    None: "the training loop was left before the plan's end",
}
LIMITS = {
    "deadline": "the deadline",
    "money": "the money",
    "energy": "the energy",
    "disk": "the disk",
    "memory": "the memory",
    None: "the limits",
}
SPENT = {"deadline": "Time", "money": "money", "energy": "energy"}


class Narrator:
    """Turns events into lines, one event after the other.

    No line is wider than ``width`` columns of a terminal, and none has a control character.
    """

    def __init__(self, width: int = WIDTH) -> None:
        self.width = width
        self._metric, self._signal, self._rows = "", "", 0
        self._segments = False

    def lines(self, event: RunEvent) -> list[str]:
        """What to print for an event."""
        if isinstance(event, RunStarted):
            self._segments = event.segment_steps is not None
            self._metric, self._rows = event.metric, 0
            return self._wrapped(_opening(event))
        if isinstance(event, EpochDone):
            return list(self._epoch_lines(event))
        if isinstance(event, RunEnded):
            return self._wrapped([ended_line(event, self._metric or "the metric", self._signal)])
        if event.notice.code in ("signal", "signal-passed-on"):
            self._signal = dict(event.notice.details).get("name", "")
        return self._wrapped([f"note: {notice_text(event)}"])

    def _epoch_lines(self, event: EpochDone) -> Iterator[str]:
        cells = epoch_cells(event, self._metric)
        cells = [replace(cell, heading=self._said(cell.heading)) for cell in cells]
        if self._rows % HEADING_EVERY == 0:
            yield from fitted([replace(cell, text=cell.heading) for cell in cells], self.width)
        self._rows += 1
        yield from fitted(cells, self.width)

    def _wrapped(self, sentences: Sequence[str]) -> list[str]:
        texts = [printable(self._said(sentence), keep="") for sentence in sentences]
        lines = [line for text in texts for line in filled(text, self.width).split("\n")]
        return [part for line in lines for part in chop_cells(line, self.width)]

    def _said(self, text: str) -> str:
        """Before it is fitted: another word is of another width."""
        return of_segments(text) if self._segments else text


def of_segments(text: str) -> str:
    """What is said of epochs, of a run that follows a plan of steps: its epochs are segments."""
    return re.sub(
        r"(?<!-)\bepoch(s?)\b", r"segment\1", re.sub(r"\b([Aa])n epoch\b", r"\1 segment", text)
    )


class TerminalWatcher:
    """Prints what it sees, to stderr or wherever ``write`` puts a line."""

    def __init__(
        self, write: Callable[[str], object] | None = None, width: int | None = None
    ) -> None:
        self._narrator, self._write = Narrator(width or usual_width()), write or _echo

    def see(self, event: RunEvent) -> None:
        """Print an event."""
        for line in self._narrator.lines(event):
            self._write(line)

    def close(self) -> None:
        """Nothing is left to do."""


def usual_width() -> int:
    """Columns of the terminal, at most ``WIDTH``."""
    return min(WIDTH, max(20, get_terminal_size((WIDTH, 24)).columns))


def _echo(line: str) -> None:
    click.echo(line, err=True)


def _opening(start: RunStarted) -> list[str]:
    if start.watched:
        return _watched_opening(start)
    within = within_text(dict(start.limits))
    which = f"Process {start.process} follows" if start.process > 1 else "Following"
    epochs = format_number_of(start.end_epochs, "epoch")
    if start.segment_steps is not None:
        epochs += f" of {format_number_of(start.segment_steps, 'step')}"
    lines = [
        f"{which} the plan of {start.workload}: {epochs} with {start.config.label}. "
        f"{within}, with {format_percent(start.confidence)} confidence."
    ]
    whole = f", the whole run {span(start.planned_seconds)}" if start.planned_seconds else ""
    lines.append(f"In eight cases of ten an epoch takes {span(start.predicted.epoch)}{whole}.")
    return lines


def _watched_opening(start: RunStarted) -> list[str]:
    """Of a command that is watched, by a plan or without one."""
    epochs = format_number_of(start.end_epochs, "epoch") if start.end_epochs else "epochs"
    if start.segment_steps is not None:
        epochs += f" of {format_number_of(start.segment_steps, 'step')}"
    by = " by its plan" if start.predicted.epoch.p50 else ""
    limits: dict[str, float] = dict(start.limits)
    within = f" {within_text(limits)}." if limits else ""
    lines = [
        f"Watching {start.workload}{by}: {epochs} with {start.config.label}.{within} Its first "
        f"step came after {format_seconds(start.spent_seconds)}."
    ]
    if start.predicted.epoch.p50:
        whole = f", the whole run {span(start.planned_seconds)}" if start.planned_seconds else ""
        lines.append(f"In eight cases of ten an epoch takes {span(start.predicted.epoch)}{whole}.")
    return lines


def notice_text(event: Notice) -> str:
    """A notice in words; one of a newer epochcast by its code and details."""
    try:
        return warning_text(event.notice)
    except KeyError:
        details = ", ".join(f"{name}: {value}" for name, value in event.notice.details)
        return f"{event.notice.code}{f' ({details})' if details else ''}"


@dataclass(frozen=True, slots=True)
class EpochCell:
    """What stands under a heading; of cells without room the highest ``rank`` is left out first."""

    heading: str
    text: str
    width: int
    rank: int = 0

    @property
    def space(self) -> int:
        """Columns of the terminal, the gap to the next one included."""
        return max(self.width, cell_len(self.heading)) + GAP


def epoch_cells(event: EpochDone, metric: str) -> list[EpochCell]:
    """An epoch, column by column; without money where nothing is paid."""
    count = len(f"{event.end_epochs:,}")
    name = set_cell_size(metric, min(cell_len(metric), NAME_WIDTH))
    cells = [
        EpochCell("epoch", _epoch(event), 2 * count + 1),
        EpochCell("took (predicted)", _took(event), 20),
        EpochCell("ratio", _ratio(event), 5, rank=4),
        EpochCell("time → total", _time(event), 17),
        EpochCell("money → total", _money(event), 15, rank=3),
        EpochCell("on plan", _on_plan(event), 7, rank=1),
        EpochCell(name, _value(event, metric), 8, rank=2),
        EpochCell("then", _decision(event), 5),
    ]
    named = [
        replace(c, heading=printable(c.heading, keep=""), text=printable(c.text, keep=""))
        for c in cells
    ]
    return [cell for cell in named if cell.heading and cell.text]


def _epoch(event: EpochDone) -> str:
    at = event.position
    of = f"/{event.end_epochs:,}" if event.end_epochs else ""
    return f"{at.epoch + 1:,} cut" if at.step else f"{at.epoch:,}{of}"


def _took(event: EpochDone) -> str:
    predicted = f" ({span(event.predicted)})" if event.predicted.p50 else ""
    return f"{format_seconds(event.seconds)}{predicted}"


def _ratio(event: EpochDone) -> str:
    return "–" if event.ratio is None else f"×{event.ratio:.2f}"


def _time(event: EpochDone) -> str:
    spent = format_seconds(event.spent_seconds)
    if event.reason or not event.end_epochs:
        return spent
    return f"{spent} → {format_seconds(event.projected_seconds.p50)}"


def _on_plan(event: EpochDone) -> str:
    probability = event.on_plan_probability
    return "" if probability is None else format_percent(probability)


def _money(event: EpochDone) -> str:
    if event.spent_money is None:
        return ""
    spent, total = format_money(event.spent_money), event.projected_money
    return spent if event.reason or total is None else f"{spent} → {format_money(total)}"


def _value(event: EpochDone, metric: str) -> str:
    values = dict(event.values)
    return f"{values[metric]:.4g}{'*' * event.best}" if metric in values else "–"


def _decision(event: EpochDone) -> str:
    if event.reason:
        return f"stop: {STOPS[event.reason]}"
    return "go on" if event.save_seconds is None else "saved"


def fitted(cells: Sequence[EpochCell], width: int) -> list[str]:
    """Cells as a line: in their columns, else side by side, else without the least important.

    Where those that must be there are too wide, too, they go on below.
    """
    least = max(cells, key=lambda cell: cell.rank)
    fewer = [cell for cell in cells if cell is not least] if least.rank else []
    if fewer and sum(cell.space for cell in cells) - GAP > width:
        return fitted(fewer, width)
    for line in (_in_columns(cells), (" " * GAP).join(cell.text for cell in cells)):
        if cell_len(line) <= width:
            return [line]
    return fitted(fewer, width) if fewer else _below_each_other(cells, width)


def _below_each_other(cells: Sequence[EpochCell], width: int) -> list[str]:
    lines = [""]
    for cell in cells:
        longer = f"{lines[-1]}{' ' * GAP}{cell.text}" if lines[0] else cell.text
        if cell_len(longer) <= width:
            lines[-1] = longer
        else:
            room = width - GAP
            text = (
                cell.text
                if cell_len(cell.text) <= room
                else set_cell_size(cell.text, room - 1) + "…"
            )
            lines.append(" " * GAP + text)
    return [line for line in lines if line]


def _in_columns(cells: Sequence[EpochCell]) -> str:
    """Each where its column begins, or after its neighbour where that is wide."""
    line, start = "", 0
    for cell in cells:
        gap = GAP if line else 0
        line += " " * max(gap, start - cell_len(line)) + cell.text
        start += cell.space
    return line


def summary_lines(events: Sequence[RunEvent]) -> list[str]:
    """The last run of a log, finished or not, in a few sentences; a line each."""
    run = last_run(events)
    if not run:
        return ["Nothing has happened yet."]
    lines = [_state_line(run), _spent_line(run), *_part_lines(run), *_result_lines(run)]
    start = first_start(run)
    if start is not None and start.segment_steps is not None:
        lines = [of_segments(line) for line in lines]
    return [printable(line, keep="") for line in lines]


def ended_line(event: RunEnded, metric: str = "the metric", signal: str = "") -> str:
    """Why a process stopped: ``"Stopped after epoch 48 of 50: …"``.

    Args:
        event: how the process ended, and where.
        metric: its name in sentences about rules that watch it.
        signal: the one that ended the run, ``"SIGTERM"``; empty where none did.
    """
    by = f" by {signal}" if signal else ""
    limit = LIMITS[event.limit]
    if event.exit_code is not None:
        return _command_ended(event, limit, by)
    why = REASONS[event.reason].format(metric=metric, limit=limit, by=by)
    return f"Stopped after {position_text(event)}: {why}."


def _command_ended(event: RunEnded, limit: str, by: str) -> str:
    asked = {
        StopReason.BUDGET: f", as it was asked to for the sake of {limit}",
        StopReason.SIGNAL: f", ended{by}" if by else ", after a signal",
    }
    why = asked.get(event.reason, "") if event.reason else ""
    return f"The command ended after {position_text(event)}{why}, with exit code {event.exit_code}."


def position_text(event: EpochDone | RunEnded) -> str:
    """``"epoch 11 of 57 and 37 steps of the next"``."""
    steps = event.position.step
    more = f" and {steps:,} step{'s' * (steps != 1)} of the next" if steps else ""
    of = f" of {event.end_epochs:,}" if event.end_epochs else ""
    return f"epoch {event.position.epoch:,}{of}{more}"


def _state_line(run: Sequence[RunEvent]) -> str:
    end, start = ending(run), first_start(run)
    if end is not None:
        return ended_line(end, start.metric if start else "the metric", _signal(run))
    epochs = lasting_epochs(run)
    at = f"after {position_text(epochs[-1])}" if epochs else "in its first epoch"
    heard = datetime.fromtimestamp(run[-1].wall_time).astimezone()
    return f"Running, or killed: {at}; last heard of at {heard:%Y-%m-%d %H:%M:%S %Z}."


def _signal(run: Sequence[RunEvent]) -> str:
    codes = ("signal", "signal-passed-on")
    signals = [e.notice for e in run if isinstance(e, Notice) and e.notice.code in codes]
    return dict(signals[-1].details).get("name", "") if signals else ""


def _spent_line(run: Sequence[RunEvent]) -> str:
    """What was used of each limit, and what was planned."""
    start, used = first_start(run), _used(run)
    limits = dict(start.limits) if start else {}
    texts = [
        f"{SPENT[name]} {LIMIT_FORMS[name](amount)}"
        + (f" of {LIMIT_FORMS[name](limits[name])}" if name in limits else "")
        for name, amount in used.items()
    ]
    if start and start.planned_seconds:
        planned = span(start.planned_seconds)
        texts.append(f"planned for {start.end_epochs:,} epochs: {planned}")
    return f"{'; '.join(texts)}."


def _used(run: Sequence[RunEvent]) -> dict[LimitName, float]:
    """What was spent by the last event that says, by limit."""
    used: dict[LimitName, float] = {}
    for event in run:
        if not isinstance(event, Notice):
            used["deadline"] = event.spent_seconds
        if isinstance(event, EpochDone | RunEnded):
            money, joules = event.spent_money, event.spent_joules
            used |= {} if money is None else {"money": money}
            used |= {} if joules is None else {"energy": joules}
    return used


def span(quantiles: Quantiles) -> str:
    """``"54.1–57.2 s"``: P10 to P90."""
    return format_span(quantiles.p10, quantiles.p90)


def _part_lines(run: Sequence[RunEvent]) -> Iterator[str]:
    """What the parts took, and what was predicted of them."""
    start = first_start(run)
    if start is None:
        return
    prices = start.predicted
    done = [e for e in run if isinstance(e, EpochDone)]
    evaluations = [e.evaluation_seconds for e in done if e.evaluation_seconds is not None]
    saves = [e.save_seconds for e in done if e.save_seconds is not None]
    yield from _part_line("An epoch", steady_seconds(run), prices.epoch)
    yield from _part_line("An evaluation", evaluations, prices.evaluation)
    yield from _part_line("A save", saves, prices.save)


def _part_line(name: str, seconds: Sequence[float], predicted: Quantiles) -> Iterator[str]:
    if not seconds:
        return
    middle = f" (median of {len(seconds):,})" if len(seconds) > 1 else ""
    said = f"; predicted: {span(predicted)}" if predicted.p90 else ""
    yield f"{name} took {format_seconds(median(seconds))}{middle}{said}."


def _result_lines(run: Sequence[RunEvent]) -> Iterator[str]:
    start, end = first_start(run), ending(run)
    if start and start.watched:
        if end is not None and end.last_checkpoint:
            yield f"It saved {end.last_checkpoint} last."
        return
    yield _best_line(run, start.metric if start else "")
    if end is not None:
        named = {"last": end.last_checkpoint, "best": end.best_checkpoint}
        found = [f"{which} {name}" for which, name in named.items() if name]
        yield f"Checkpoints: {', '.join(found)}." if found else "No checkpoint was written."
    processes = max((e.process for e in run if isinstance(e, RunStarted)), default=1)
    lost = sum(isinstance(e, EpochDone) for e in run) - len(lasting_epochs(run))
    if processes > 1:
        again = f"; {lost:,} epoch{'s' * (lost != 1)} had to be trained again" if lost else ""
        yield f"It took {processes} processes{again}."


def _best_line(run: Sequence[RunEvent], metric: str) -> str:
    """The best value, as the end of the run has it, or as its epochs do."""
    end = ending(run)
    best = [e for e in lasting_epochs(run) if e.best]
    if end is not None and end.best_value is not None and end.best_epoch is not None:
        return f"Best {metric}: {end.best_value:.4g}, after epoch {end.best_epoch:,}."
    if best and metric in dict(best[-1].values):
        value = dict(best[-1].values)[metric]
        return f"Best {metric}: {value:.4g}, after epoch {best[-1].position.epoch:,}."
    return f"No value of {metric or 'the metric'} was reported."
