"""What people should know of a run that is not as its plan has it; each said once."""

from __future__ import annotations

from collections.abc import Mapping

from epochcast.guard.books import Books
from epochcast.guard.progress import Progress
from epochcast.guard.telling import Teller
from epochcast.records import Plan
from epochcast.units import format_seconds


class Remarks:
    """Of one process, told as notices; their texts are in report/warnings.py."""

    def __init__(self, plan: Plan, books: Books, progress: Progress, teller: Teller) -> None:
        self._plan = plan
        self._books = books
        self._progress = progress
        self._teller = teller
        self._missed = False

    def of_beginning(self) -> None:
        """Where the run goes on, and by which plan."""
        if self._books.resumed:
            at, spent = self._progress, format_seconds(self._books.spent_before)
            self._teller.note("resumed", epoch=str(at.epoch), step=str(at.step), spent=spent)
        if self._books.another_plan:
            self._teller.note("other-plan")
        if self._plan.prices.save.p50 <= 0 and not self._books.resumed:
            self._teller.note("save-time-unknown")

    def of_steps(self) -> None:
        """At the end of an epoch: a run that takes other steps than planned is another run."""
        at = self._progress
        planned = (at.planned_steps, self._plan.chosen.steps_per_epoch)
        if at.whole and at.seen_steps is None and at.step not in planned:
            self._teller.note("steps-differ", planned=str(at.planned_steps), seen=str(at.step))

    def of_drift(self, before: float) -> None:
        """The pace has jumped; ``before``: actual over planned time of an epoch, until then."""
        after = self._books.ledger.pace.epoch.ratio
        self._teller.note("drift", ratio_before=f"{before:.2f}", ratio_after=f"{after:.2f}")

    def of_missing(self, values: Mapping[str, float]) -> bool:
        """Rules that are never shown a value stop nothing; whether other values were reported."""
        metric, epoch = self._plan.metric, str(self._progress.epoch)
        if metric in values or self._missed:
            return False
        self._missed = True
        if not values:
            self._teller.note("not-evaluated", epoch=epoch)
            return False
        self._teller.note("no-report", metric=metric, epoch=epoch)
        return True
