"""What a run must not forget: how much it used, what it learned, why it ended.

    <folder>/ledger.json                       written at least every second, whatever is saved
    <folder>/checkpoints/…/state.json          with the checkpoint that it belongs to

Time that was used stays used when a run goes back to its last checkpoint, and so does what was
learned of its pace; the patience of stop rules goes back with the weights.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import msgspec

from epochcast.errors import StoreError
from epochcast.guard.pace import Pace
from epochcast.records import SCHEMA, Mode, Position, StopReason, StopRule, from_json, to_json
from epochcast.records.files import write_atomic

KEPT_SAMPLES = 1000  # of each kind, the latest: enough to judge a prediction by

_Record = TypeVar("_Record")


class Damaged(StoreError):
    """A file is missing, cut off or overwritten: nobody wrote it like that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Seconds of what was seen, of all processes; for the outcome of the run."""

    startup: tuple[float, ...] = ()
    first_epoch: tuple[float, ...] = ()
    epoch: tuple[float, ...] = ()
    evaluation: tuple[float, ...] = ()
    save: tuple[float, ...] = ()

    def add(self, kind: str, seconds: float) -> Samples:
        """With one more."""
        kept = (*getattr(self, kind), seconds)[-KEPT_SAMPLES:]
        return replace(self, **{kind: kept})


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """A run's memory across its processes.

    Attributes:
        run: its name, made when it began.
        plan: a hash of the plan that was followed last.
        processes: that have followed it.
        began_at: seconds since 1970, UTC.
        spent_seconds: of all processes, up to the last time this was written.
        steps: done by then, some of them perhaps lost since.
        reason: why the run ended; None while it goes on.
    """

    schema: int = SCHEMA
    run: str
    workload: str
    plan: str
    processes: int
    began_at: float
    spent_seconds: float
    pace: Pace
    steps: int = 0
    samples: Samples = field(default_factory=Samples)
    reason: StopReason | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSeen:
    """A file of a checkpoint as it was saved; ``crc`` is None of one that is too large for it."""

    name: str
    size: int
    crc: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """What belongs to one checkpoint.

    Attributes:
        watch: of each stop rule, as ``planning.stopping`` keeps it.
        best_value, best_epoch: of the plan's metric; None before the first report.
        improvements, checks: reports that were the best so far, and all.
        is_best: whether this checkpoint holds the best value's weights.
        rules, metric, mode: that ``watch`` and the best value belong to.
        ledger: as it was then, should the newer one be lost.
        files: of the checkpoint, to find damage by.
    """

    schema: int = SCHEMA
    position: Position
    watch: tuple[tuple[float, ...], ...] = ()
    best_value: float | None = None
    best_epoch: int | None = None
    improvements: int = 0
    checks: int = 0
    is_best: bool = False
    rules: tuple[StopRule, ...] = ()
    metric: str = ""
    mode: Mode = "min"
    ledger: Ledger | None = None
    files: tuple[FileSeen, ...] = ()


def read_ledger(folder: Path) -> Ledger | None:
    """The ledger of a run's folder; None where there is none.

    Raises:
        Damaged: what is there is no ledger.
        StoreError: it is one of a newer epochcast.
    """
    path = folder / "ledger.json"
    return read_whole(path, Ledger) if path.exists() else None


def read_whole(path: Path, kind: type[_Record]) -> _Record:
    """A record that was written as JSON.

    Raises:
        Damaged: it is not there, or no JSON.
        StoreError: it is JSON, and no such record: of a newer epochcast, perhaps.
    """
    try:
        content = path.read_bytes()
        msgspec.json.decode(content)
    except (OSError, msgspec.DecodeError) as error:
        raise Damaged(f"cannot read {path}: {error}") from error
    try:
        return from_json(content, kind)
    except StoreError as error:
        raise StoreError(f"cannot read {path}: {error}") from error


def write_ledger(folder: Path, ledger: Ledger, durable: bool) -> None:
    """Replace the ledger, whole or not at all.

    Args:
        durable: whether it must survive a power cut, not only a kill; costs a few milliseconds.

    Raises:
        OSError: the folder cannot be written.
    """
    write_atomic(folder / "ledger.json", to_json(ledger).encode(), durable=durable)


def is_over(reason: StopReason | None, more: bool, time_left: bool) -> bool:
    """Whether a run that ended so stays ended.

    Args:
        more: whether the plan has epochs left to train: another plan may.
        time_left: whether the budget has: another allocation, or another plan, may.
    """
    goes_on = {
        None: True, StopReason.SIGNAL: True,
        StopReason.PLAN_DONE: more, StopReason.BUDGET: time_left,
    }  # fmt: skip
    return not goes_on.get(reason, False)
