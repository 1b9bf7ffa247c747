"""What a followed run teaches later predictions: its plan beside what it took."""

from __future__ import annotations

from epochcast.guard.guard import Guard
from epochcast.guard.pace import Pace, Work
from epochcast.records import Quantiles, RunOutcome


def outcome_of(guard: Guard) -> RunOutcome | None:
    """The pair of predicted and actual; None where nothing was trained."""
    ledger, plan = guard.books.ledger, guard.plan
    if not guard.position.steps:
        return None
    return RunOutcome(
        run=ledger.run,
        workload=plan.workload,
        device=plan.device,
        config=plan.chosen.config,
        samples=plan.samples,
        epochs=guard.position.epoch,
        reason=guard.reason,
        predicted=plan.prices,
        total_predicted=_total(guard),
        startup_seconds=ledger.samples.startup,
        first_epoch_seconds=ledger.samples.first_epoch,
        epoch_seconds=ledger.samples.epoch,
        evaluation_seconds=ledger.samples.evaluation,
        save_seconds=ledger.samples.save,
        total_seconds=ledger.spent_seconds,
        finished_at=guard.wall_time,
    )


def _total(guard: Guard) -> Quantiles | None:
    """As planned, of what was done: so many epochs, evaluations and saves, in one process."""
    ledger, plan = guard.books.ledger, guard.plan
    if ledger.processes > 1 or guard.position.step:
        return None
    work = Work(
        epochs=guard.position.epoch,
        evaluations=len(ledger.samples.evaluation),
        saves=len(ledger.samples.save),
        first=True,
    )
    return plan.prices.startup + Pace.of_plan(plan.prices).quantiles(work)
