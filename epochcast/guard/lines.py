"""The events that a guard tells, made of what it knows; nothing is decided here."""

from __future__ import annotations

from epochcast.guard.books import Books
from epochcast.guard.deciding import Situation
from epochcast.guard.timekeeping import Timekeeper
from epochcast.guard.watching import EpochSeen
from epochcast.records import (
    EpochDone,
    LimitName,
    Plan,
    Position,
    Quantiles,
    RunEnded,
    RunStarted,
    StopReason,
)

TIMED: tuple[LimitName, ...] = ("deadline", "money", "energy")


def started(plan: Plan, books: Books, time: Timekeeper, position: Position, end: int) -> RunStarted:
    """A process began to follow."""
    limits = ((name, getattr(plan.budget, name)) for name in TIMED)
    return RunStarted(
        run=books.ledger.run,
        process=books.ledger.processes,
        wall_time=time.clock.wall(),
        workload=plan.workload,
        config=plan.chosen.config,
        position=position,
        spent_seconds=time.spent(time.clock.monotonic()),
        end_epochs=end,
        confidence=plan.budget.confidence,
        metric=plan.metric,
        predicted=plan.prices,
        limits=tuple((name, limit) for name, limit in limits if limit is not None),
        planned_seconds=plan.timeline[-1].seconds if plan.timeline else None,
    )


def epoch_done(
    here: Situation, books: Books, time: Timekeeper, position: Position, epoch: EpochSeen,
    seconds: float, reason: StopReason | None,
) -> EpochDone:  # fmt: skip
    """An epoch has ended after so many seconds of training, or was cut."""
    spent = time.spent(time.clock.monotonic())
    rest = here.rest(here.done if reason is not None else here.schedule.end)
    projected = here.pace.quantiles(rest) + Quantiles.exactly(spent)
    return EpochDone(
        wall_time=time.clock.wall(),
        position=position,
        first=here.first,
        predicted=epoch.predicted or here.epoch(),
        seconds=seconds,
        ratio=here.pace.epoch.ratio,
        evaluation_seconds=epoch.evaluation,
        save_seconds=epoch.save,
        spent_seconds=spent,
        spent_money=time.money(spent),
        spent_joules=time.joules(spent),
        projected_seconds=projected,
        projected_money=time.money(projected.p50),
        end_epochs=here.schedule.end,
        on_plan_probability=here.probability(here.schedule.planned_end),
        values=tuple(epoch.values.items()),
        best=bool(epoch.values) and books.state.best_epoch == position.epoch,
        reason=reason,
    )


def ended(
    books: Books, time: Timekeeper, position: Position, end: int, reason: StopReason | None
) -> RunEnded:
    """A process stops following."""
    spent = time.spent(time.clock.monotonic())
    state, last, best = books.state, books.archive.last(), books.archive.best()
    return RunEnded(
        wall_time=time.clock.wall(),
        position=position,
        reason=reason,
        limit=time.binding if reason is StopReason.BUDGET else None,
        spent_seconds=spent,
        spent_money=time.money(spent),
        spent_joules=time.joules(spent),
        end_epochs=end,
        last_checkpoint=last[0].name if last else None,
        best_checkpoint=best[0].name if best else None,
        best_value=state.best_value,
        best_epoch=state.best_epoch,
    )
