"""Two answers side by side: what each run takes, and how likely one is to be the faster.

configuration, device, store ──predict──▶ Side ┐
a plan                       ──chosen───▶ Side ┴──probability_below──▶ P(A < B)
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from math import exp, log
from statistics import NormalDist

from epochcast.records import Estimate, Plan, Quantiles, Warning_
from epochcast.records.estimate import LEVELS

PARTS = 400  # equally likely ones, of each quantity: a probability is then known within 0.3 %
_SCORES = tuple(NormalDist().inv_cdf(level) for level in LEVELS)
_PARTS = tuple(NormalDist().inv_cdf((part + 0.5) / PARTS) for part in range(PARTS))


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of the runs that are compared.

    Attributes:
        asked: as it was written.
        label: of the configuration.
        device: that it is for, in words.
        length: of the run, ``"90 epochs"``.
        count: of its epochs, or steps.
        seconds: of the whole run.
        epoch_seconds: of training alone; None of a run that is counted in steps.
        device_bytes: the peak of live tensors where the device was not asked; None where unknown.
        money, energy_joules: None where unknown.
        warnings: of the prediction and of the choice of its measurements.
    """

    asked: str
    workload: str
    label: str
    device: str
    length: str
    count: float
    seconds: Quantiles
    epoch_seconds: Quantiles | None
    device_bytes: Quantiles | None
    money: Quantiles | None
    energy_joules: Quantiles | None
    warnings: tuple[Warning_, ...] = ()


def side_of_estimate(asked: str, found: Estimate, length: str) -> Side:
    """What a prediction says.

    Args:
        asked: as it was written.
        found: the prediction.
        length: of its run, in words.
    """
    return Side(
        asked=asked,
        workload=found.workload,
        label=found.config.label,
        device=found.device.label,
        length=length,
        count=found.epochs if found.steps is None else found.steps,
        seconds=found.total_seconds,
        epoch_seconds=found.epoch_seconds if found.has_epochs else None,
        device_bytes=found.device_bytes or found.peak_bytes,  # as plans have it
        money=found.cost,
        energy_joules=found.energy_joules,
        warnings=found.warnings,
    )


def side_of_plan(asked: str, plan: Plan, length: str) -> Side:
    """What a plan chose.

    Args:
        asked: as it was written.
        plan: whose chosen option is meant.
        length: of its run, in words.
    """
    chosen = plan.chosen
    return Side(
        asked=asked,
        workload=plan.workload,
        label=chosen.config.label,
        device=plan.device.label,
        length=length,
        count=chosen.epochs,
        seconds=chosen.seconds,
        epoch_seconds=plan.prices.epoch if plan.unit == "epoch" else None,
        device_bytes=chosen.device_bytes,
        money=chosen.money,
        energy_joules=chosen.energy_joules,
    )


def probability_below(a: Quantiles, b: Quantiles) -> float:
    """That ``a`` is the smaller one, where the two vary independently of each other.

    Each is taken to have its logarithm on straight lines between its quantiles, over those of a
    normal distribution, and beyond them: exact for lognormal quantities.
    """
    mine, others = _values(a), _values(b)
    above = sum(PARTS - bisect_right(others, x) for x in mine)
    equal = sum(bisect_right(others, x) - bisect_left(others, x) for x in mine)
    return (above + equal / 2) / PARTS**2


def _values(q: Quantiles) -> list[float]:
    """In the middle of each part, in order."""
    if q.p05 <= 0:
        return [q.p50] * PARTS
    logs = [log(x) for x in q.values]
    found = []
    for z in _PARTS:
        i = min(max(bisect_right(_SCORES, z) - 1, 0), len(logs) - 2)
        slope = (logs[i + 1] - logs[i]) / (_SCORES[i + 1] - _SCORES[i])
        found.append(exp(logs[i] + slope * (z - _SCORES[i])))
    return found
