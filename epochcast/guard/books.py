"""What a run keeps: its ledger, the state of its checkpoints, and the checkpoints themselves."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

from epochcast.errors import UsageError
from epochcast.guard.archive import Archive
from epochcast.guard.ledger import Ledger, RunState, read_ledger, write_ledger
from epochcast.guard.pace import Pace
from epochcast.records import Plan, Position, StopReason, to_json

Write = Callable[[Path], None]


class Books:
    """The folder of one run, read at its beginning and written as it goes on.

    Args:
        folder: of the run.
        plan: that is followed.
        began: when this process began, seconds since 1970.
        owner: whether this process reads and writes the folder; of several, the first one.

    Attributes:
        ledger: across processes.
        state: of the newest checkpoint, then of the run as it goes on.
        position: of the newest checkpoint; the beginning where there is none.
        spent_before: seconds that earlier processes used.
        resumed: whether there is a checkpoint to go on from.
        another_plan: whether earlier processes followed another one.

    Raises:
        UsageError: the folder belongs to a run of another workload.
        StoreError: what is in the folder cannot be read.
    """

    def __init__(self, folder: Path, plan: Plan, began: float, owner: bool = True) -> None:
        self.folder = folder
        self.owner = owner
        self.archive = Archive(folder / "checkpoints", plan.keep)
        if owner:
            self.archive.abandon()
        newest = self.archive.last() if owner else None
        self.state = newest[1] if newest else RunState(position=Position())
        self.position = self.state.position
        self.resumed = newest is not None
        self.another_plan = False
        self.ledger = self._open(plan, began)
        self.spent_before = self.ledger.spent_seconds

    def _open(self, plan: Plan, began: float) -> Ledger:
        ledger = (read_ledger(self.folder) if self.owner else None) or self.state.ledger
        digest = hashlib.sha256(to_json(plan).encode()).hexdigest()[:12]
        if ledger is None:
            return Ledger(
                run=uuid4().hex[:12], workload=plan.workload, plan=digest, processes=1,
                began_at=began, spent_seconds=0.0, pace=Pace.of_plan(plan.prices),
            )  # fmt: skip
        if ledger.workload != plan.workload:
            raise UsageError(
                f"{self.folder} holds a run of {ledger.workload}, but the plan is for "
                f"{plan.workload}: give another folder"
            )
        self.another_plan = ledger.plan != digest
        pace = Pace.of_plan(plan.prices) if self.another_plan else ledger.pace
        return replace(ledger, processes=ledger.processes + 1, plan=digest, pace=pace)

    def learn(self, kind: str, seconds: float) -> None:
        """One more epoch, evaluation or save was seen: the forecast follows."""
        self.ledger = replace(self.ledger, pace=self.ledger.pace.saw(kind, seconds))
        self.sample(kind, seconds)

    def sample(self, kind: str, seconds: float) -> None:
        """One more was seen, of which nothing is learned for the others."""
        self.ledger = replace(self.ledger, samples=self.ledger.samples.add(kind, seconds))

    def note(
        self, spent: float, steps: int, reason: StopReason | None, durable: bool = False
    ) -> None:
        """Write down how much was used by now.

        Args:
            durable: whether it must survive a power cut, not only a kill.
        """
        self.ledger = replace(self.ledger, spent_seconds=spent, steps=steps, reason=reason)
        if not self.owner:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        write_ledger(self.folder, self.ledger, durable)

    def checked(self, epoch: int, value: float, better: bool) -> None:
        """The plan's metric was reported."""
        self.state = replace(self.state, checks=self.state.checks + 1)
        if better:
            self.state = replace(
                self.state, best_value=value, best_epoch=epoch,
                improvements=self.state.improvements + 1,
            )  # fmt: skip

    def finish_checkpoint(
        self, position: Position, watch: tuple[tuple[float, ...], ...], is_best: bool
    ) -> None:
        """Make what was written to ``archive.content`` a checkpoint."""
        self.state = replace(
            self.state, position=position, watch=watch, is_best=is_best, ledger=self.ledger
        )
        if self.owner:
            self.archive.finish(self.state)
