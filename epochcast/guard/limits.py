"""What a run may still use: every limit as the moment of this process at which it is used up.

    elapsed   seconds since this process began           spent = earlier processes + elapsed

    deadline a moment      that moment                                     however late it begins
             from now      first process's beginning + deadline            downtime counts, and
                           no later than deadline − spent                  should a clock go back
             from start    the allocation's beginning + deadline           each allocation anew
             in total      deadline − spent                                downtime does not count
    money, energy          what planning/limits.py says, − spent
    the allocation's end   as the scheduler said it                        whatever the plan says

With k folds, each of k runs may use a k-th of a budget; "deadline" above is that share.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Protocol

from epochcast.errors import UsageError
from epochcast.planning.limits import Meter, meter_of
from epochcast.records import LimitName, Plan

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
    def meter(self) -> Meter:
        """What the run's share of the budget charges for time."""
        return meter_of(self.plan)

    def money(self, spent: float) -> float | None:
        """That so many seconds cost; None without a price."""
        return None if self.plan.budget.price_per_hour is None else self.meter.money(spent)

    def joules(self, spent: float) -> float | None:
        """That so many seconds use; None where the power is not known."""
        return None if self.plan.budget.watts is None else self.meter.joules(spent)

    def limits(self) -> tuple[Limit, ...]:
        """All that are set, the first one to be used up first."""
        used_up = self.meter.binding_seconds()
        share = used_up.pop("deadline", None)
        moments = [Limit("deadline", seconds) for seconds in set(self._deadlines(share))]
        metered = [Limit(name, seconds - self.spent_before) for name, seconds in used_up.items()]
        return tuple(sorted([*moments, *metered], key=lambda limit: limit.seconds))

    def _deadlines(self, share: float | None) -> list[float]:
        """Moments at which time is used up; ``share``: seconds that this run may take in all."""
        budget, began = self.plan.budget, self.process_began
        found = []
        if budget.deadline_at is not None:
            found.append(budget.deadline_at - began)
        if share is not None and (budget.deadline_at is None or self.plan.folds > 1):
            whole = share + budget.spent_seconds / self.plan.folds
            if budget.counted_from == "total":
                found.append(share - self.spent_before)
            elif budget.counted_from == "start" and self.allocation.start is not None:
                found.append(self.allocation.start + whole - began)
            elif budget.counted_from == "start" and self.spent_before:
                found.append(whole)  # another allocation, which has just begun
            else:
                found += [self.run_began + share - began, share - self.spent_before]
        if self.allocation.end is not None:
            found.append(self.allocation.end - began)
        return found
