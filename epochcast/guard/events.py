"""The events of a run, made of what is known, and the bus that takes them to watchers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from epochcast.errors import StoreError
from epochcast.guard.checkpoints import CheckpointStore
from epochcast.guard.controller import Controller, Moment
from epochcast.guard.forecast import Forecast, Work
from epochcast.guard.limits import Account
from epochcast.guard.run_state import RunState
from epochcast.guard.segments import last_share
from epochcast.planning.limits import meter_of
from epochcast.records import (
    EpochDone,
    LimitName,
    Notice,
    Plan,
    Position,
    Quantiles,
    RunEnded,
    RunEvent,
    RunOutcome,
    RunStarted,
    StopReason,
    Warning_,
)

TIMED: tuple[LimitName, ...] = ("deadline", "money", "energy")


class Watcher(Protocol):
    """Who receives the events of a run: terminal, log, TensorBoard."""

    def see(self, event: RunEvent) -> None:
        """One more event."""
        ...

    def close(self) -> None:
        """No more events."""
        ...


class EventBus:
    """Takes events to watchers, and keeps them for a summary.

    Args:
        watchers: in the order in which they receive; one that fails is left out from then on.
    """

    def __init__(self, watchers: Sequence[Watcher]) -> None:
        self._watchers = list(watchers)
        self._sent: list[RunEvent] = []

    @property
    def sent(self) -> tuple[RunEvent, ...]:
        """All events so far."""
        return tuple(self._sent)

    def send(self, event: RunEvent) -> None:
        """One more event, to all."""
        self._sent.append(event)
        for watcher in list(self._watchers):
            try:
                watcher.see(event)
            except (OSError, StoreError) as error:  # a full disk must not end a training run
                self._watchers.remove(watcher)
                failed = Warning_.of("watcher-failed", error=str(error))
                self.send(Notice(wall_time=event.wall_time, position=event.position, notice=failed))

    def close(self) -> None:
        """No more events."""
        for watcher in self._watchers:
            watcher.close()


def run_started(
    plan: Plan, state: RunState, position: Position, *, spent: float, wall_time: float
) -> RunStarted:
    """A process began to follow.

    Args:
        plan: that it follows.
        state: in which the run goes on.
        position: where.
        spent: seconds, by the run so far.
        wall_time: seconds since 1970.
    """
    meter = meter_of(plan)
    limits = ((name, getattr(meter.budget, name)) for name in TIMED)
    return RunStarted(
        run=state.ledger.run,
        process=state.ledger.processes,
        wall_time=wall_time,
        workload=plan.workload,
        config=plan.chosen.config,
        position=position,
        spent_seconds=spent,
        end_epochs=state.end,
        confidence=plan.budget.confidence,
        metric=plan.metric,
        predicted=plan.prices,
        limits=tuple((name, limit) for name, limit in limits if limit is not None),
        binding_seconds=tuple(meter.binding_seconds().items()),
        planned_seconds=plan.timeline[-1].seconds if plan.timeline else None,
        segment_steps=plan.segment_steps,
    )


def epoch_done(
    controller: Controller,
    state: RunState,
    moment: Moment,
    account: Account,
    *,
    position: Position,
    seconds: float,
    wall_time: float,
) -> EpochDone:
    """An epoch has ended, or was cut.

    Args:
        controller: knows what is still to be done.
        state: after it, with the reason where the run stops here.
        moment: now.
        account: of the run.
        position: where it ended.
        seconds: that its training took.
        wall_time: seconds since 1970.
    """
    spent, epoch = account.spent(moment.now), state.epoch
    rest = controller.rest(state, state.done if state.reason is not None else state.end)
    projected = state.forecast.quantiles(rest) + Quantiles.exactly(spent)
    return EpochDone(
        wall_time=wall_time,
        position=position,
        first=epoch.first,
        predicted=epoch.predicted or state.forecast.quantiles(Work(epochs=1.0, first=epoch.first)),
        seconds=seconds,
        pace=state.forecast.epoch.ratio,
        evaluation_seconds=epoch.evaluation,
        save_seconds=epoch.save,
        spent_seconds=spent,
        spent_money=account.money(spent),
        spent_joules=account.joules(spent),
        projected_seconds=projected,
        projected_money=account.money(projected.p50),
        end_epochs=state.end,
        on_plan_probability=controller.probability(state, moment, controller.schedule.last),
        values=tuple(epoch.values.items()),
        best=bool(epoch.values) and state.metrics.best_epoch == position.epoch,
        reason=state.reason,
    )


def run_ended(
    state: RunState,
    account: Account,
    checkpoints: CheckpointStore,
    *,
    position: Position,
    now: float,
    wall_time: float,
) -> RunEnded:
    """A process stops following.

    Args:
        state: that it leaves.
        account: of the run.
        checkpoints: that it leaves.
        position: where.
        now: in seconds of the monotonic clock.
        wall_time: seconds since 1970.
    """
    spent, last, best = account.spent(now), checkpoints.last(), checkpoints.best()
    return RunEnded(
        wall_time=wall_time,
        position=position,
        reason=state.reason,
        limit=account.binding if state.reason is StopReason.BUDGET else None,
        spent_seconds=spent,
        spent_money=account.money(spent),
        spent_joules=account.joules(spent),
        end_epochs=state.end,
        last_checkpoint=last[0].name if last else None,
        best_checkpoint=best[0].name if best else None,
        best_value=state.metrics.best_value,
        best_epoch=state.metrics.best_epoch,
    )


def run_outcome(
    controller: Controller, state: RunState, position: Position, finished_at: float
) -> RunOutcome | None:
    """What a run teaches later predictions, on the plan's device; None where nothing was trained.

    Args:
        controller: of the plan that was followed.
        state: at the end.
        position: at the end.
        finished_at: seconds since 1970.
    """
    ledger, plan = state.ledger, controller.plan
    if not position.steps:
        return None
    share = controller.epoch_share(state.epoch_steps)
    return RunOutcome(
        run=ledger.run,
        workload=plan.workload,
        device=plan.device,
        config=plan.chosen.config,
        samples=plan.samples,
        segment_steps=plan.segment_steps,
        epochs=position.epoch,
        reason=state.reason,
        predicted=plan.prices,
        total_predicted=_total(plan, state, position) if share == 1 else None,
        startup_seconds=ledger.samples.startup,
        first_epoch_seconds=ledger.samples.first_epoch,
        epoch_seconds=ledger.samples.epoch,
        evaluation_seconds=ledger.samples.evaluation,
        save_seconds=ledger.samples.save,
        total_seconds=ledger.spent_seconds,
        finished_at=finished_at,
        epoch_share=share,
    )


def _total(plan: Plan, state: RunState, position: Position) -> Quantiles | None:
    """As planned, of what was done: so many epochs, evaluations and saves, in one process."""
    ledger = state.ledger
    if ledger.processes > 1 or position.step:
        return None
    whole = position.epoch == plan.chosen.epochs  # its last segment may be shorter
    work = Work(
        epochs=position.epoch - (1 - last_share(plan)) * whole,
        evaluations=len(ledger.samples.evaluation),
        saves=len(ledger.samples.save),
        first=True,
    )
    return plan.prices.startup + Forecast.of_plan(plan.prices).quantiles(work)
