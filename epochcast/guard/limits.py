"""What a run may still use: every limit as the moment of this process at which it is used up.

    elapsed   seconds since this process began           spent = earlier processes + elapsed

    deadline a moment      that moment                                     however late it begins
             from now      first process's beginning + deadline            downtime counts, and
                           no later than deadline − spent                  should a clock go back
             from start    the allocation's beginning + deadline           each allocation anew
             in total      deadline − spent                                downtime does not count
    money                  3600·(money − fixed)/(price·devices) − spent
    energy                 joules/(watts·devices) − spent                  watts at the confidence
    the allocation's end   as the scheduler said it                        whatever the plan says

With k folds, each of k runs may use a k-th of a budget.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from statistics import NormalDist
from typing import Protocol

from epochcast.errors import UsageError
from epochcast.records import LimitName, Plan

HOUR = 3600.0
STARTS = ("EPOCHCAST_JOB_START_TIME", "SLURM_JOB_START_TIME", "COBALT_STARTTIME")
ENDS = ("EPOCHCAST_JOB_END_TIME", "SLURM_JOB_END_TIME", "COBALT_ENDTIME")


class Clock(Protocol):
    """Where time comes from; a protocol, so that tests can replay any run."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary moment; never goes back."""
        ...

    def wall(self) -> float:
        """Seconds since 1970, UTC."""
        ...


class SystemClock:
    """This machine's clocks."""

    monotonic = staticmethod(time.monotonic)
    wall = staticmethod(time.time)


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """When the scheduler began and will end this job: seconds since 1970, UTC; None if unknown."""

    start: float | None = None
    end: float | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Allocation:
        """As SLURM (sbatch(1), output environment variables) and Cobalt tell their jobs.

        Raises:
            UsageError: a variable that is set is no number.
        """
        return cls(start=_moment(environment, STARTS), end=_moment(environment, ENDS))


def _moment(environment: Mapping[str, str], names: tuple[str, ...]) -> float | None:
    for name in names:
        if environment.get(name):
            try:
                return float(environment[name])
            except ValueError:
                raise UsageError(
                    f"{name} must be seconds since 1970, but got {environment[name]!r}"
                ) from None
    return None


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit, used up ``seconds`` after this process began."""

    name: LimitName
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What a plan's budget charges for time, and when it is used up, as one process sees it.

    Attributes:
        run_began: the first process of the run, seconds since 1970.
        process_began: this one, seconds since 1970.
        process_zero: the same moment in seconds of the monotonic clock.
        spent_before: seconds that earlier processes used.
    """

    plan: Plan
    allocation: Allocation
    run_began: float
    process_began: float
    process_zero: float = 0.0
    spent_before: float = 0.0

    def spent(self, now: float) -> float:
        """Seconds that the run used by a monotonic moment, earlier processes included."""
        return self.spent_before + now - self.process_zero

    def left(self, now: float) -> float:
        """Seconds from a monotonic moment until the first limit is used up; inf without any."""
        limits = self.limits()
        return limits[0].seconds - (now - self.process_zero) if limits else inf

    @property
    def binding(self) -> LimitName | None:
        """The limit that is used up first."""
        limits = self.limits()
        return limits[0].name if limits else None

    @property
    def devices(self) -> int:
        """That are paid and powered."""
        return self.plan.chosen.config.world_size

    def money(self, spent: float) -> float | None:
        """That so many seconds cost; None without a price."""
        budget = self.plan.budget
        if budget.price_per_hour is None:
            return None
        paid = (spent + budget.spent_seconds / self.plan.folds) * self.devices / HOUR
        return budget.fixed_cost / self.plan.folds + budget.price_per_hour * paid

    def joules(self, spent: float) -> float | None:
        """That so many seconds use; None where the power is not known."""
        watts = self.plan.budget.watts
        if watts is None:
            return None
        return watts * self.devices * (spent + self.plan.budget.spent_seconds / self.plan.folds)

    def limits(self) -> tuple[Limit, ...]:
        """All that are set, the first one to be used up first."""
        found = [*self._deadlines(), *self._metered()]
        return tuple(sorted(found, key=lambda limit: limit.seconds))

    def _deadlines(self) -> list[Limit]:
        budget, folds, began = self.plan.budget, self.plan.folds, self.process_began
        found = []
        if budget.deadline_at is not None:
            found.append(budget.deadline_at - began)
        if budget.deadline is not None and (budget.deadline_at is None or folds > 1):
            share = (budget.deadline - budget.spent_seconds) / folds
            if budget.counted_from == "total":
                found.append(share - self.spent_before)
            elif budget.counted_from == "start" and self.allocation.start is not None:
                found.append(self.allocation.start + budget.deadline / folds - began)
            elif budget.counted_from == "start" and self.spent_before:
                found.append(budget.deadline / folds)  # another allocation, which has just begun
            else:
                found += [self.run_began + share - began, share - self.spent_before]
        if self.allocation.end is not None:
            found.append(self.allocation.end - began)
        return [Limit("deadline", seconds) for seconds in sorted(set(found))[:2]]

    def _metered(self) -> list[Limit]:
        """Money and energy, as the time that they pay for."""
        budget, folds = self.plan.budget, self.plan.folds
        used = self.spent_before + budget.spent_seconds / folds
        found = []
        if budget.money is not None and budget.price_per_hour:
            payable = (budget.money - budget.fixed_cost) / folds / budget.price_per_hour
            found.append(Limit("money", payable * HOUR / self.devices - used))
        if budget.energy is not None and budget.watts:
            spread = NormalDist().inv_cdf(budget.confidence) * budget.watts_spread
            watts = budget.watts * self.devices * max(1.0, 1 + spread)
            found.append(Limit("energy", budget.energy / folds / watts - used))
        return found
