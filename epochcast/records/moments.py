"""When what happens in a plan: each moment of it, also those whose time it does not hold.

    timeline     ●  ●  ●     ●           ●                       ●     times that were drawn
    moments      ●  ●  ●  ●  ●  ●  ●  ●  ●  ●  ●  ●  ●  ●  ●  ●  ●     the union of all ranges

In between, each quantile is a straight line over the work done: epochs, evaluations and saves at
their median prices.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

from epochcast.records.plan import Action, Checkpoint, Plan


def moments_of(plan: Plan) -> list[int]:
    """All epochs after which something happens; a run of a million may have as many."""
    timed = (checkpoint.epoch for checkpoint in plan.timeline)
    return sorted({*plan.epochs_of("evaluate"), *plan.epochs_of("save"), *timed})


def actions_at(plan: Plan, epoch: int) -> tuple[Action, ...]:
    """What happens after an epoch."""
    known: tuple[Action, ...] = get_args(Action)
    return tuple(action for action in known if epoch in plan.epochs_of(action))


def checkpoint_at(plan: Plan, epoch: int) -> Checkpoint:
    """When an epoch is expected to be over, and what that costs; the plan has a timeline."""
    timeline = plan.timeline
    position = bisect_left(timeline, epoch, key=lambda checkpoint: checkpoint.epoch)
    before, after = timeline[max(position - 1, 0)], timeline[min(position, len(timeline) - 1)]
    if after.epoch == epoch:
        return after
    work, done, ahead = (_work(plan, e) for e in (epoch, before.epoch, after.epoch))
    share = (work - done) / (ahead - done) if ahead > done else 0.0
    money = None
    if before.money is not None and after.money is not None:
        money = (1 - share) * before.money + share * after.money
    between = Checkpoint(
        epoch=epoch,
        seconds=before.seconds.scaled(1 - share) + after.seconds.scaled(share),
        money=money,
    )
    return _with_chances(plan, between, timeline[position:])


def _work(plan: Plan, epoch: int) -> float:
    """Seconds that epochs, evaluations and saves take by the end of one, at their medians."""
    prices = plan.prices
    return (
        epoch / (plan.segment_steps or 1) * prices.epoch.p50
        + plan.epochs_of("evaluate").until(epoch) * prices.evaluation.p50
        + plan.epochs_of("save").until(epoch) * prices.save.p50
    )


def _with_chances(plan: Plan, moment: Checkpoint, later: Sequence[Checkpoint]) -> Checkpoint:
    """With what rules do there, which is nothing: where they may stop a run is in its timeline."""
    reach = next((c.reach_probability for c in later if c.reach_probability is not None), None)
    if reach is None or moment.epoch not in plan.epochs_of("decide"):
        return moment
    saved = plan.timeline[-1].seconds.p50 - moment.seconds.p50
    rates = (
        c.saved_money / c.saved_seconds
        for c in plan.timeline
        if c.saved_money is not None and c.saved_seconds
    )
    rate = next(rates, None)
    return replace(
        moment,
        reach_probability=reach,
        stop_probability=0.0,
        saved_seconds=saved,
        saved_money=None if rate is None else saved * rate,
    )
