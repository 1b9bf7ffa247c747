"""What a device drew while it was probed: of each configuration, and of any other.

    W_i   mean watts of a trial's steady steps, joules of a step / its seconds, by the counter
    configuration    mean of its W_i,  spread s·√(1 + 1/n)
    any other        mean over configurations,  spread √(s² + their relative variance)

s is the relative standard deviation within configurations, pooled, and never less than what the
counter and the load of a second leave. Where nothing was counted the power sensor's last reading
of each trial stands for all, without a spread.

    joules of a run  seconds · devices · watts (planning/limits.py), independent of each other
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import copysign, exp, hypot, log, sqrt
from statistics import NormalDist, fmean, median, stdev
from typing import NamedTuple

from epochcast.errors import PredictionError
from epochcast.planning.limits import Meter, at_power
from epochcast.records import Budget, Estimate, Measurement, Power, Quantiles, RunConfig, Warning_
from epochcast.records.estimate import LEVELS
from epochcast.storage.query import select
from epochcast.storage.store import Store

STEADY_SPREAD = 0.025  # seconds of one steady load on an H200: benchmarks/results/h200, energy
LEAST = 1e-300  # of a factor whose logarithm is taken
TICK_SECONDS = 0.1  # between changes of its counter: both ends of a window are off by up to one
UNKNOWN = (
    "the power of {device} was not measured; give it: --watts 300, or probe with the extra "
    "epochcast[energy] where a counter of the device may be read"
)


class MeasuredPower(NamedTuple):
    """Of one device of the kind that was probed.

    Attributes:
        watts: in a configuration that was not probed.
        spread: relative standard deviation of that from run to run.
        powers: in those that were, by the device's own counter; none where nothing was counted.
        device: its name, where it was probed.
    """

    watts: float
    spread: float
    powers: tuple[Power, ...] = ()
    device: str = ""


def measured_power(
    store: Store, workload: str | None = None, device: str | None = None
) -> MeasuredPower:
    """What the device drew while it was probed.

    Args:
        store: where the measurements are.
        workload: its name, or its target; default: the one probed last.
        device: an id, a kind, or words of a name; default: as of ``select``.

    Raises:
        PredictionError: it has neither a counter nor a sensor that could be read.
    """
    selection = select(store, workload, device)
    good = [m for m in selection.measurements if m.status == "ok"]
    found = power_of(good)
    if found is None:
        raise PredictionError(UNKNOWN.format(device=selection.newest.device.label))
    return found._replace(device=selection.newest.device.name)


def power_of(measurements: Sequence[Measurement]) -> MeasuredPower | None:
    """Of successful measurements; by the counter where any has it, else by the sensor."""
    counted: dict[RunConfig, list[Measurement]] = {}
    for m in measurements:
        if m.step_joules:
            counted.setdefault(m.config, []).append(m)
    if not counted:
        watts = [m.power_watts for m in measurements if m.power_watts]
        return MeasuredPower(median(watts), 0.0) if watts else None
    trials = [[_watts(m) for m in alike] for alike in counted.values()]
    noise = max(_pooled(trials), *(_least(m) for alike in counted.values() for m in alike))
    means = [fmean(alike) for alike in trials]
    between = stdev(means) / fmean(means) if len(means) > 1 else noise
    powers = [
        Power(config=config, watts=mean, spread=noise * sqrt(1 + 1 / len(alike)))
        for config, mean, alike in zip(counted, means, trials, strict=True)
    ]
    return MeasuredPower(fmean(means), hypot(noise, between), tuple(powers))


def with_energy(estimate: Estimate, power: MeasuredPower) -> Estimate:
    """The estimate with the joules that its devices draw together.

    Args:
        estimate: of a run.
        power: of one device; where its configuration was not counted the estimate says so.
    """
    budget = Budget(watts=power.watts, watts_spread=power.spread)
    at = at_power(budget, estimate.config, power.powers)
    if not at.watts:
        return estimate
    of_others = bool(power.powers) and at is budget
    note = (Warning_(code="power-of-others"),) if of_others else ()
    return replace(
        estimate,
        energy_joules=_joules(estimate.total_seconds, Meter(at, estimate.config.world_size)),
        warnings=(*estimate.warnings, *note),
    )


def _joules(seconds: Quantiles, meter: Meter) -> Quantiles:
    """Of a run: a quantile is as far from the median as both those of seconds and of watts are.

    Args:
        seconds: of the run.
        meter: of its devices, whose power is known.
    """
    median_watts = meter.watts(0.0)

    def quantile(level: float, taken: float) -> float:
        watts = meter.watts(NormalDist().inv_cdf(level))
        factors = (taken / seconds.p50, watts / median_watts)
        off = hypot(*(log(max(factor, LEAST)) for factor in factors))
        return meter.joules(seconds.p50) * exp(copysign(off, level - 0.5))

    return Quantiles.of(map(quantile, LEVELS, seconds.values))


def _watts(m: Measurement) -> float:
    return (m.step_joules or 0.0) / fmean(m.step_seconds)


def _pooled(trials: Sequence[Sequence[float]]) -> float:
    """Relative standard deviation within groups of trials; 0 where each has one."""
    left = [(x / fmean(alike) - 1) ** 2 for alike in trials for x in alike]
    free = len(left) - len(trials)
    return sqrt(sum(left) / free) if free else 0.0


def _least(m: Measurement) -> float:
    """What the counter's ticks and a steady load leave of one trial: a sum of two uniforms."""
    window = sum(m.step_seconds) * m.steps_per_sample
    return hypot(STEADY_SPREAD, TICK_SECONDS / sqrt(6) / window)
