"""A run as it is followed: a few words at its start, a line per epoch, what happens in between.

Following the plan of digits-mlp: 57 epochs with batch_size=32 width=512. Within 1h 00m, …
epoch  took (predicted)      ratio  time → total       …                     (epoch_line.py)
12/57  55.3 s (54.1–57.2 s)  ×1.02  11m 20s → 52m 30s  …
note: epochs now take 1.45 times the planned time; before it was 1.00         (warnings.py)
Stopped after epoch 48 of 50: more might not have fitted the deadline.     (run_summary.py)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from io import StringIO
from shutil import get_terminal_size

import click
from rich.console import Console
from rich.text import Text

from epochcast.records import EpochDone, Notice, RunEnded, RunEvent, RunStarted
from epochcast.report.text.epoch_line import epoch_cells, fitted, printable
from epochcast.report.text.plan import within_text
from epochcast.report.text.run_summary import ended_line, span
from epochcast.report.text.warnings import warning_text
from epochcast.units import format_percent

WIDTH = 100
HEADING_EVERY = 20  # lines: so that a heading is in sight on most terminals


class Narrator:
    """Turns events into lines, one event after the other.

    No line is wider than ``width`` columns of a terminal, and none has a control character.
    """

    def __init__(self, width: int = WIDTH) -> None:
        self.width = width
        self._metric, self._signal, self._rows = "", "", 0

    def lines(self, event: RunEvent) -> list[str]:
        """What to print for an event."""
        if isinstance(event, EpochDone):
            return list(self._epoch_lines(event))
        if isinstance(event, RunStarted):
            self._metric, self._rows = event.metric, 0
            return self._wrapped(_opening(event))
        if isinstance(event, RunEnded):
            return self._wrapped([ended_line(event, self._metric or "the metric", self._signal)])
        if event.notice.code == "signal":
            self._signal = dict(event.notice.details).get("name", "")
        return self._wrapped([f"note: {notice_text(event)}"])

    def _epoch_lines(self, event: EpochDone) -> Iterator[str]:
        cells = epoch_cells(event, self._metric)
        if self._rows % HEADING_EVERY == 0:
            yield fitted([replace(cell, text=cell.heading) for cell in cells], self.width)
        self._rows += 1
        yield fitted(cells, self.width)

    def _wrapped(self, sentences: Sequence[str]) -> list[str]:
        console = Console(file=StringIO(), width=self.width)
        rows = [Text(printable(s)).wrap(console, self.width) for s in sentences]
        return [row.plain.rstrip() for wrapped in rows for row in wrapped]


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
    within = within_text(dict(start.limits))
    which = f"Process {start.process} follows" if start.process > 1 else "Following"
    epochs = f"{start.end_epochs:,} epoch{'s' * (start.end_epochs != 1)}"
    lines = [
        f"{which} the plan of {start.workload}: {epochs} with {start.config.label}. "
        f"{within}, with {format_percent(start.confidence)} confidence."
    ]
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
