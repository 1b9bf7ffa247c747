"""The time of one run: what it has used, what is left, and what must be kept for the last save."""

from __future__ import annotations

from functools import lru_cache
from math import ceil, inf, log2

from epochcast.guard.clock import Clock
from epochcast.guard.level import Level
from epochcast.guard.limits import Account, Allocation, Beginnings
from epochcast.guard.pace import Pace
from epochcast.planning.checkpoints import final_save_lead
from epochcast.records import LimitName, Plan

LEAVE_SECONDS = 0.1  # closing the books and leaving a framework's loop: 2 to 25 ms on a busy CPU
SURE = 0.95  # of what must fit before a hard end, where the plan asks for less


class Timekeeper:
    """Of one process of a run.

    Args:
        began: when the process began, seconds since 1970; None for now.
        allocation: when the scheduler ends it.

    Attributes:
        head_start: seconds that the process had used before the guard was there.
    """

    def __init__(
        self, plan: Plan, clock: Clock, began: float | None, allocation: Allocation
    ) -> None:
        self.clock = clock
        self.zero, wall = clock.monotonic(), clock.wall()
        self.began = wall if began is None else min(began, wall)
        self.head_start = wall - self.began
        self._plan = plan
        self._allocation = allocation

    def count_from(self, run_began: float, spent_before: float) -> None:
        """Of the run: when its first process began, and what earlier ones used."""
        beginnings = Beginnings(run=run_began, process=self.began, spent_before=spent_before)
        self._account = Account(plan=self._plan, allocation=self._allocation, beginnings=beginnings)
        self._limit = next(iter(self._account.limits()), None)

    @property
    def binding(self) -> LimitName | None:
        """The limit that is used up first."""
        return self._limit.name if self._limit else None

    def left(self, now: float) -> float:
        """Seconds until the first limit is used up."""
        return inf if self._limit is None else self._limit.seconds - self._elapsed(now)

    def spent(self, now: float) -> float:
        """Seconds that the run used, earlier processes included."""
        return self._account.spent(self._elapsed(now))

    def money(self, spent: float) -> float | None:
        """That so many seconds cost; None without a price."""
        return self._account.money(spent)

    def joules(self, spent: float) -> float | None:
        """That so many seconds use; None where the power is not known."""
        return self._account.joules(spent)

    def _elapsed(self, now: float) -> float:
        """Seconds since this process began."""
        return now - self.zero + self.head_start

    def reserve(self, pace: Pace, at_risk: float) -> float:
        """Seconds before the limit at which the last save must begin, to leave in time after it.

        Args:
            at_risk: seconds of work that would be lost without it.
        """
        confidence, planned = self._plan.budget.confidence, self._plan.prices.save.p95
        upper = max(pace.save.quantile(1, max(SURE, confidence)), planned)
        if at_risk > upper and pace.save.planned is not None:
            upper = max(upper, _lead(pace.save, 2.0 ** ceil(log2(at_risk))))
        return upper + LEAVE_SECONDS

    def evaluation_bound(self, pace: Pace) -> float:
        """Seconds that an evaluation is not expected to exceed."""
        return max(pace.evaluation.quantile(1, SURE), self._plan.prices.evaluation.p95)


@lru_cache(maxsize=64)
def _lead(save: Level, at_risk: float) -> float:
    return final_save_lead(at_risk, lambda p: save.quantile(1, p))
