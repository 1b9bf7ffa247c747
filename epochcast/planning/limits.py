"""When the limits of a budget are used up, and what given seconds cost: the one place that says so.

    symbol   meaning
    s        seconds of the run itself            s₀   seconds used before it (``spent_seconds``)
    D        devices, all paid and powered        p, f price of a device's hour, fixed cost
    w        watts of one device                  k    folds, each with a k-th of the budget

    limit       used by s seconds             used up after
    deadline    s + s₀                        deadline − s₀
    money       f + p·D·(s + s₀)/3600         3600·(money − f)/(p·D) − s₀
    energy      w·D·(s + s₀)                  energy/(w·D) − s₀,  w at the confidence asked for

Pure functions of records: the planner asks them draw by draw, the guard and the pictures once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any, TypeVar

import numpy as np

from epochcast.costmodel.epoch import price_of_a_second
from epochcast.costmodel.features import Array
from epochcast.records import Budget, LimitName, Plan, Power, RunConfig

KWH = 3.6e6  # joules

Amount = TypeVar("Amount", float, Array)


def share_of_fold(budget: Budget, folds: int) -> Budget:
    """The budget of one fold: a k-th of every limit on the run, and of what was spent before it.

    Memory belongs to the device and disk to all checkpoints together: both stay.
    """
    shared = ("deadline", "money", "energy", "fixed_cost", "spent_seconds")
    amounts = {name: getattr(budget, name) for name in shared}
    parts: dict[str, Any] = {n: None if x is None else x / folds for n, x in amounts.items()}
    return replace(budget, **parts)


def at_power(budget: Budget, config: RunConfig, powers: Sequence[Power]) -> Budget:
    """The budget with what a device draws in a configuration that was measured, else as it is.

    Args:
        budget: its own power is that of any other configuration.
        config: in which the run is.
        powers: what was measured.
    """
    for power in powers:
        if _draws(power.config) == _draws(config):
            return replace(budget, watts=power.watts, watts_spread=power.spread)
    return budget


def _draws(config: RunConfig) -> RunConfig:
    """The configuration as far as it decides the power."""
    return replace(config, accumulation=1, nodes=1, drop_last=False, eval_batch_size=None)


@dataclass(frozen=True, slots=True)
class Meter:
    """What a budget charges for the seconds of a run on a number of devices.

    Attributes:
        budget: of the whole run, or ``share_of_fold`` of it.
        devices: that are paid and powered.
    """

    budget: Budget
    devices: int

    def price(self, seconds: Amount) -> Amount:
        """Money for some seconds alone; nothing where the price is not known."""
        return price_of_a_second(self.budget.price_per_hour or 0.0, self.devices) * seconds

    def money(self, seconds: Amount) -> Amount:
        """Money that a run of so many seconds has cost, with everything spent before it."""
        return self.budget.fixed_cost + self.price(seconds + self.budget.spent_seconds)

    def joules(self, seconds: Amount, watts: Amount | float | None = None) -> Amount:
        """Energy that a run of so many seconds has used, with everything used before it.

        Args:
            seconds: of the run.
            watts: of one device; default: what the budget takes it to draw.
        """
        each = self.budget.watts or 0.0 if watts is None else watts
        return each * self.devices * (seconds + self.budget.spent_seconds)

    def watts(self, deviate: Amount) -> Amount:
        """What one device draws in a run whose power deviates by so many standard deviations."""
        factor = np.maximum(1 + self.budget.watts_spread * deviate, 0.0)
        return (self.budget.watts or 0.0) * factor  # type: ignore[no-any-return]

    def binding_seconds(self) -> dict[LimitName, float]:
        """The seconds of the run after which each limit of time, money and energy is used up.

        Energy at the power that is not exceeded with the confidence asked for, and never at less
        than the usual one. A limit that time does not use up is left out.
        """
        budget, found = self.budget, dict[LimitName, float]()
        if budget.deadline is not None:
            found["deadline"] = budget.deadline
        if budget.money is not None and budget.price_per_hour:
            rate = price_of_a_second(budget.price_per_hour, self.devices)
            found["money"] = (budget.money - budget.fixed_cost) / rate
        if budget.energy is not None and budget.watts:
            deviate = max(0.0, NormalDist().inv_cdf(budget.confidence))
            found["energy"] = budget.energy / (self.watts(deviate) * self.devices)
        return {name: seconds - budget.spent_seconds for name, seconds in found.items()}


def meter_of(plan: Plan) -> Meter:
    """What the run of one fold is charged: its share of the budget, on the chosen devices."""
    return Meter(share_of_fold(plan.budget, plan.folds), plan.chosen.config.world_size)
