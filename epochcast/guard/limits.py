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

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

from epochcast.errors import UsageError
from epochcast.records import LimitName, Plan

HOUR = 3600.0
STARTS = ("EPOCHCAST_JOB_START_TIME", "SLURM_JOB_START_TIME", "COBALT_STARTTIME")
ENDS = ("EPOCHCAST_JOB_END_TIME", "SLURM_JOB_END_TIME", "COBALT_ENDTIME")


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginnings:
    """When what began; wall-clock seconds since 1970.

    Attributes:
        run: the first process of the run.
        process: this one.
        spent_before: seconds that earlier processes used.
    """

    run: float
    process: float
    spent_before: float = 0.0


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit, used up ``seconds`` after this process began."""

    name: LimitName
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What a plan's budget charges for time, and when it is used up."""

    plan: Plan
    allocation: Allocation
    beginnings: Beginnings

    @property
    def devices(self) -> int:
        """That are paid and powered."""
        return self.plan.chosen.config.world_size

    def spent(self, elapsed: float) -> float:
        """Seconds that the run used, earlier processes included."""
        return self.beginnings.spent_before + elapsed

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
        budget, begun = self.plan.budget, self.beginnings
        found = []
        if budget.deadline_at is not None:
            found.append(budget.deadline_at - begun.process)
        if budget.deadline is not None and (budget.deadline_at is None or self.plan.folds > 1):
            share = (budget.deadline - budget.spent_seconds) / self.plan.folds
            if budget.counted_from == "total":
                found.append(share - begun.spent_before)
            elif budget.counted_from == "start" and self.allocation.start is not None:
                whole = budget.deadline / self.plan.folds
                found.append(self.allocation.start + whole - begun.process)
            elif budget.counted_from == "start" and begun.spent_before:
                found.append(budget.deadline / self.plan.folds)  # another allocation, just begun
            else:
                found += [begun.run + share - begun.process, share - begun.spent_before]
        if self.allocation.end is not None:
            found.append(self.allocation.end - begun.process)
        return [Limit("deadline", seconds) for seconds in sorted(set(found))[:2]]

    def _metered(self) -> list[Limit]:
        """Money and energy, as the time that they pay for."""
        budget, folds = self.plan.budget, self.plan.folds
        used = self.beginnings.spent_before + budget.spent_seconds / folds
        found = []
        if budget.money is not None and budget.price_per_hour:
            payable = (budget.money - budget.fixed_cost) / folds / budget.price_per_hour
            found.append(Limit("money", payable * HOUR / self.devices - used))
        if budget.energy is not None and budget.watts:
            spread = NormalDist().inv_cdf(budget.confidence) * budget.watts_spread
            watts = budget.watts * self.devices * max(1.0, 1 + spread)
            found.append(Limit("energy", budget.energy / folds / watts - used))
        return found
