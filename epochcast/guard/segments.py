"""A plan of optimizer steps as a run follows it: in equal segments, which stand for epochs.

    plan      steps    0 ──── 1,000 ──── 2,000 ──── 3,000 ─ 3,400
    followed  segments        1          2          3       4         the last one is shorter

Everything that a guard learns, forecasts and decides between two epochs it does between two
segments; what is planned happens at their ends. A stop rule's horizon is counted in them, too.
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil

from epochcast.records import EpochRange, Option, Plan, StopRule
from epochcast.records.epoch_ranges import EpochSequence, ranges_of


def in_segments(plan: Plan) -> Plan:
    """The same plan with segments for epochs; a plan of epochs as it is."""
    size = plan.segment_steps
    if size is None:
        return plan
    chosen = _option(plan.chosen, size)
    return replace(
        plan,
        samples=size * chosen.global_batch,
        min_epochs=ceil(plan.min_epochs / size),
        target_epochs=_ceil(plan.target_epochs, size),
        max_epochs=_ceil(plan.max_epochs, size),
        options=(chosen, *plan.options[1:]),
        evaluations=_ranges(plan.evaluations, size),
        saves=_ranges(plan.saves, size),
        timeline=tuple(replace(c, epoch=ceil(c.epoch / size)) for c in plan.timeline),
        stop_rules=tuple(_rule(rule, size) for rule in plan.stop_rules),
    )


def last_share(plan: Plan) -> float:
    """Steps of the last segment over those of the others; 1 where all are equal.

    Args:
        plan: in segments.
    """
    if plan.segment_steps is None:
        return 1.0
    return plan.chosen.horizon_steps / plan.segment_steps - (plan.chosen.epochs - 1)


def _ranges(steps: tuple[EpochRange, ...], size: int) -> tuple[EpochRange, ...]:
    """The segments that end at some steps; all but a run's last step are the end of whole ones."""
    if all(one.every % size == 0 for one in steps if one.last > one.first):
        return tuple(
            EpochRange(
                first=ceil(one.first / size),
                last=ceil(one.last / size),
                every=max(1, one.every // size),
            )
            for one in steps
        )
    return ranges_of(ceil(step / size) for step in EpochSequence(steps))


def _option(option: Option, size: int) -> Option:
    return replace(
        option,
        epochs=ceil(option.epochs / size),
        target_epochs=_ceil(option.target_epochs, size),
        max_epochs=_ceil(option.max_epochs, size),
        steps_per_epoch=size,
    )


def _rule(rule: StopRule, size: int) -> StopRule:
    settings = {
        name: float(ceil(value / size)) if name == "horizon" else value
        for name, value in rule.settings
    }
    return replace(rule, settings=tuple(settings.items()))


def _ceil(count: int | None, size: int) -> int | None:
    return None if count is None else ceil(count / size)
