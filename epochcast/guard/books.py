"""What a run keeps: its ledger, the state of its checkpoints, and the checkpoints themselves."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

from epochcast.errors import UsageError
from epochcast.guard.archive import Archive, number_of
from epochcast.guard.heartbeat import lived_on
from epochcast.guard.ledger import Damaged, Ledger, RunState, read_ledger, write_ledger
from epochcast.guard.pace import Pace
from epochcast.guard.ranks import Ranks
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
        damage: code → details of a notice, of what could not be read and was passed over.

    Raises:
        UsageError: the folder belongs to a run of another workload.
        StoreError: what is in the folder cannot be read, and nothing older is there.
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
        self._number = number_of(newest[0]) if newest else 0
        self.resumed = newest is not None
        self.damage: list[tuple[str, dict[str, str]]] = [
            ("damaged-checkpoint", {"name": name, "error": error})
            for name, error in self.archive.damaged.items()
        ]
        self.another_plan = False
        self.ledger = self._open(plan, began)
        self.spent_before = self.ledger.spent_seconds

    def _open(self, plan: Plan, began: float) -> Ledger:
        ledger = (self._read_ledger() if self.owner else None) or self.state.ledger
        digest = hashlib.sha256(to_json(plan).encode()).hexdigest()[:12]
        if ledger is None:
            return Ledger(
                run=uuid4().hex[:12], workload=plan.workload, plan=digest, processes=1,
                began_at=began, spent_seconds=0.0, pace=Pace.of_plan(plan.prices),
            )  # fmt: skip
        lived = lived_on(self.folder) if self.owner else 0.0
        ledger = replace(ledger, spent_seconds=ledger.spent_seconds + lived)
        if ledger.workload != plan.workload:
            raise UsageError(
                f"{self.folder} holds a run of {ledger.workload}, but the plan is for "
                f"{plan.workload}: give another folder"
            )
        self.another_plan = ledger.plan != digest
        pace = Pace.of_plan(plan.prices) if self.another_plan else ledger.pace
        return replace(ledger, processes=ledger.processes + 1, plan=digest, pace=pace)

    def _read_ledger(self) -> Ledger | None:
        try:
            return read_ledger(self.folder)
        except Damaged as error:
            self.damage.append(("damaged-ledger", {"error": str(error)}))
            return None

    def checkpoint(self, ranks: Ranks) -> Path | None:
        """What to go on from, the same for all processes; None where the run begins."""
        number, steps = ranks.most([self._number, self.position.steps])
        return self.archive.saved(number, steps) if steps else None

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
        self, number: int, position: Position, watch: tuple[tuple[float, ...], ...], is_best: bool
    ) -> None:
        """Make what was written to ``archive.content`` a checkpoint."""
        self.state = replace(
            self.state, position=position, watch=watch, is_best=is_best, ledger=self.ledger
        )
        if self.owner:
            self.archive.finish(number, self.state)
