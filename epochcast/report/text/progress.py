"""A sweep as it runs: a line for each trial, or a bar.

[3/12] batch_size=64 width=512: 8.16 ms a step
probing ━━━━━━━━━━━━━━━━━━ 3/12 0:00:41 batch_size=64 width=512: steady
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from epochcast.costmodel.summary import step_seconds
from epochcast.records import Device, Measurement, Warning_
from epochcast.report.text.layout import PlainConsole
from epochcast.report.text.warnings import print_warnings
from epochcast.units import format_number_of, format_seconds


@contextmanager
def shown_here(wanted: bool = True) -> Iterator[PlainProgress | None]:
    """Progress on stderr where somebody looks at it, in a terminal or a notebook; else None."""
    notebook = Console().is_jupyter
    console = PlainConsole(stderr=True, highlight=False, force_jupyter=False)
    if not (wanted and (notebook or console.is_terminal)):
        yield None
        return
    progress = BarProgress(console) if console.is_terminal else PlainProgress(console)
    try:
        yield progress
    finally:
        progress.close()


class PlainProgress:
    """One line per trial, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.total = self.count = 0

    def begin(self, trials: int | None, done: int, device: Device | None, data: str) -> None:
        """Print a line that says what is about to be measured, and on what.

        Args:
            trials, done, device, data: as of ``Observer.begin``; where ``trials`` is None, lines
                are numbered without a total.
        """
        self.total += trials or 0  # of several kinds of device each begins
        self.console.print(Text(_opening(trials, done, device, data)), soft_wrap=True)

    def phase(self, label: str, phase: str) -> None:
        return

    def finished(self, measurement: Measurement) -> None:
        self.count += 1
        of = f"/{self.total}" if self.count <= self.total else ""  # more rounds were added
        line = f"[{self.count}{of}] {_trial_line(measurement)}"
        self.console.print(Text(line), soft_wrap=True)

    def warn(self, warning: Warning_) -> None:
        print_warnings(self.console, [warning])

    def close(self) -> None:
        return


class BarProgress(PlainProgress):
    """A bar with the time left, for terminals."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._bar = Progress(
            TextColumn("probing"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task("starting", total=None)

    def begin(self, trials: int | None, done: int, device: Device | None, data: str) -> None:
        """Print the line, then start the bar below it.

        Args:
            trials, done, device, data: as of ``Observer.begin``; where ``trials`` is None, the bar
                has no end.
        """
        super().begin(trials, done, device, data)
        self._bar.update(self._task, total=self.total or None)  # None: a bar that only moves
        self._bar.start()

    def phase(self, label: str, phase: str) -> None:
        self._bar.update(self._task, description=f"{label}: {phase}")

    def finished(self, measurement: Measurement) -> None:
        self._bar.advance(self._task)
        self.count += 1
        if measurement.status != "ok":
            self.console.print(Text(_trial_line(measurement), style="red"), soft_wrap=True)

    def close(self) -> None:
        self._bar.stop()


def _opening(trials: int | None, done: int, device: Device | None, data: str) -> str:
    todo = (
        "Choosing what to measure"
        if trials is None
        else f"{format_number_of(trials, 'trial')} to make"
    )
    continued = f" ({done} more are in the store already)" if done else ""
    source = f", {data} data" if data else ""
    where = f"; on {device.label}" if device else ""
    return f"{todo}{continued}{where}{source}"


def _trial_line(m: Measurement) -> str:
    if m.status != "ok":
        return f"{m.config.label}: {m.status}: {m.message} (log: {m.log})"
    return f"{m.config.label}: {format_seconds(step_seconds(m))} a step"
