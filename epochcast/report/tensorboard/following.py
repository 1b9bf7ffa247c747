"""A followed run in TensorBoard while it goes on: an event file of each process, epoch by epoch.

    <folder>/
      events.out.tfevents.1760000000.….epochcast-run      process 1: epochs 1 … 12, killed
      events.out.tfevents.1760003600.….epochcast-run      process 2: goes on after epoch 10

The second file makes epochs 11 and 12 of the first one void (``opening`` in events.py).

    step    the epoch; for an epoch that was cut, the one that it would have been
    charts  Custom Scalars ─┬─ an epoch: actual seconds within the predicted P10–P90
                            ├─ the whole run: expected P10–P90, spent, and the deadline
                            └─ money; reported values
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from epochcast.errors import StoreError
from epochcast.records import EpochDone, LimitName, Notice, Quantiles, RunEvent, RunStarted
from epochcast.report.tensorboard import events
from epochcast.report.tensorboard.events import BoardEntry, new_stamp
from epochcast.report.text.following import notice_text

# Groups of cards, with the unit.
ACTUAL, PREDICTED = "epoch seconds/actual", "epoch seconds/predicted"
EXPECTED, SPENT, DEADLINE = "run seconds/expected", "run seconds/spent", "run seconds/deadline"
MONEY, ENERGY, PLAN, VALUES = "run money", "run joules", "plan", "reported"
Limits = Mapping[LimitName, float]


class BoardWatcher:
    """Writes what it sees as TensorBoard's scalars, and charts with the predicted bands."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._file: int | None = None
        self._limits: dict[LimitName, float] = {}

    def see(self, event: RunEvent) -> None:
        """Write one event; TensorBoard shows it with its next reload.

        Raises:
            StoreError: the folder cannot be written.
        """
        if isinstance(event, RunStarted):
            self._limits = dict(event.limits)
            self._begin(event)
            entries = [_layout(event)]
        elif isinstance(event, EpochDone):
            entries = list(_epoch_entries(event, self._limits))
        elif isinstance(event, Notice):
            entries = [_notice_entry(event)]
        else:
            return
        self._write(events.records(entries, event.wall_time))

    def close(self) -> None:
        """Close the file; another start opens another one."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _begin(self, start: RunStarted) -> None:
        self.close()
        name = f"events.out.tfevents.{new_stamp()}.{os.getpid()}.epochcast-run"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError as error:
            raise self._failed(error) from error
        self._write(events.opening(start.wall_time, start.position.epoch + 1))

    def _write(self, content: bytes) -> None:
        if self._file is None:
            return  # the start was not seen, or could not be written
        try:
            os.write(self._file, content)
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> StoreError:
        return StoreError(f"cannot write TensorBoard's folder {self.folder}: {error.strerror}")


def _layout(start: RunStarted) -> BoardEntry:
    """The charts of the Custom Scalars tab."""
    limits = dict(start.limits)
    run = [_band(EXPECTED), (SPENT, SPENT, SPENT)]
    run += [(DEADLINE, DEADLINE, DEADLINE)] if "deadline" in limits else []
    epoch = (ACTUAL, *_band(PREDICTED)[1:])
    charts = [
        events.margin_chart("an epoch: actual seconds, and predicted P10–P90", [epoch]),
        events.margin_chart("the whole run: seconds expected, spent and allowed", run),
        events.line_chart("reported values", f"{VALUES}/.*"),
    ]
    if "money" in limits:
        charts.append(events.line_chart("the whole run: money", f"{MONEY}/.*"))
    return events.layout("predicted and actual", charts)


def _band(tag: str) -> tuple[str, str, str]:
    """Tags of the middle, the lower and the upper end."""
    return f"{tag} P50", f"{tag} P10", f"{tag} P90"


def _epoch_entries(event: EpochDone, limits: Limits) -> Iterator[BoardEntry]:
    """The points of one epoch."""
    step = _step_of(event)
    for tag, (value, description) in _scalars(event, limits).items():
        if value is not None:
            yield events.scalar(tag, value, step, description)


def _step_of(event: EpochDone | Notice) -> int:
    """The epoch that was going on, or has just ended."""
    return event.position.epoch + (event.position.step > 0)


def _scalars(event: EpochDone, limits: Limits) -> dict[str, tuple[float | None, str]]:
    """Values and descriptions by tag; of an epoch that was cut no time of a whole one."""
    whole: dict[str, tuple[float | None, str]] = {}
    if not event.position.step:
        whole[ACTUAL] = (event.seconds, "What the epoch took, without evaluation and save.")
        if event.predicted.p50:
            whole |= _quantiles(PREDICTED, event.predicted, "What it was to take.")
    return {
        **whole,
        **_quantiles(EXPECTED, event.projected_seconds, "What the whole run will take."),
        SPENT: (event.spent_seconds, "Since the run began."),
        DEADLINE: (limits.get("deadline"), "What the run may take."),
        f"{MONEY}/spent": (event.spent_money, "Since the run began."),
        f"{MONEY}/expected": (event.projected_money, "Of the whole run, P50."),
        f"{MONEY}/limit": (limits.get("money"), "What the run may cost."),
        f"{ENERGY}/spent": (event.spent_joules, "Since the run began."),
        f"{ENERGY}/limit": (limits.get("energy"), "What the run may use."),
        f"{PLAN}/ratio": (event.ratio, "What the epoch took over what it was to take, P50."),
        f"{PLAN}/pace": (event.pace, "Of the run's epochs, actual over planned, as learned."),
        f"{PLAN}/on plan (%)": (_percent(event.on_plan_probability), "That all limits hold."),
        f"{PLAN}/end (epoch)": (event.end_epochs or None, "After which the run is to end."),
        **{f"{VALUES}/{name}": (value, "As reported.") for name, value in event.values},
    }


def _percent(probability: float | None) -> float | None:
    return None if probability is None else 100 * probability


def _quantiles(tag: str, q: Quantiles, text: str) -> dict[str, tuple[float | None, str]]:
    return {
        name: (value, text) for name, value in zip(_band(tag), (q.p50, q.p10, q.p90), strict=True)
    }


def _notice_entry(event: Notice) -> BoardEntry:
    """What happened, in words."""
    return events.text("notes", notice_text(event), _step_of(event))
