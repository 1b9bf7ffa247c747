"""How long the next step may take: what every step pays for the guard, so it is kept to a few sums.

    mean ← mean + (t − mean)/8      spread ← spread + (|t − mean| − spread)/4
    bound = mean + 4·spread         never below the plan's P95, nor the slowest of late

This is the retransmission timer of TCP (Jacobson 1988, "Congestion avoidance and control"; RFC
6298): it follows a change within a few steps. Steps that are slow once in a while (a log, a flush)
stay in the bound through the slowest one of this epoch and the one before.
"""

from __future__ import annotations

from epochcast.costmodel.epoch import division_of
from epochcast.records import Plan

GAIN, SPREAD_GAIN, SPREADS = 1 / 8, 1 / 4, 4.0  # RFC 6298, section 2


class StepTimer:
    """Durations of one kind of step, in seconds.

    Args:
        median, upper: as planned; ``upper`` is its P95.
    """

    __slots__ = ("_before", "_mean", "_slowest", "_spread", "_upper")

    def __init__(self, median: float, upper: float) -> None:
        self._mean = median
        self._spread = (upper - median) / SPREADS
        self._upper = upper
        self._slowest = self._before = 0.0

    def saw(self, seconds: float) -> None:
        """Having seen one more."""
        error = seconds - self._mean
        self._mean += error * GAIN
        self._spread += (abs(error) - self._spread) * SPREAD_GAIN
        if seconds > self._slowest:
            self._slowest = seconds

    def expect(self, seconds: float) -> None:
        """One may well take so long, though none was seen yet."""
        self._slowest = max(self._slowest, seconds)

    def begin_epoch(self) -> None:
        """What was slow in the epoch before the last is forgotten."""
        self._before, self._slowest = self._slowest, 0.0

    @property
    def bound(self) -> float:
        """What the next one is not expected to exceed."""
        return max(self._mean + SPREADS * self._spread, self._upper, self._slowest, self._before)


class StepTimers:
    """Of the first step of each epoch, which waits for the loader, and of those that follow.

    Args:
        median, upper: seconds of one step, as planned; ``upper`` is its P95.
        warm_up: seconds that the first step of a process takes on top; the P95.

    Attributes:
        at: when the next step began; monotonic seconds.
        steady: those that follow.
    """

    __slots__ = ("_begins", "_first", "_turn", "_warm_up", "at", "steady")

    def __init__(self, median: float, upper: float, warm_up: float) -> None:
        self.steady, self._turn = StepTimer(median, upper), StepTimer(median, upper)
        self._warm_up = warm_up
        self._begins = self._first = True
        self.at = 0.0

    @classmethod
    def of_plan(cls, plan: Plan, planned_steps: int) -> StepTimers:
        """As planned, with so many steps in an epoch."""
        epoch, steps = plan.prices.epoch, planned_steps
        return cls(epoch.p50 / steps, epoch.p95 / steps, plan.prices.first_steps.p95)

    def begin_epoch(self, now: float, first: bool) -> None:
        """The next step is an epoch's first one; ``first``: in the first epoch of a process."""
        for timer in (self.steady, self._turn):
            timer.begin_epoch()
        self._first = first
        self.skip(now)

    def skip(self, now: float) -> None:
        """The next step is the first that is taken of this epoch."""
        self.at, self._begins = now, True

    def saw(self, now: float) -> None:
        """One more step has ended."""
        seconds = now - self.at
        self.at = now
        if self._begins:
            self._begins = False
            self._saw_turn(seconds)
        else:
            self.steady.saw(seconds)

    def _saw_turn(self, seconds: float) -> None:
        """In a process's first epoch, it had to warm up too."""
        if self._first:
            self._turn.expect(seconds - self._warm_up)
        else:
            self._turn.saw(seconds)

    def first_bound(self, first: bool) -> float:
        """What the first step of an epoch is not expected to exceed; ``first``: of a process."""
        bound = max(self._turn.bound, self.steady.bound)
        return bound + self._warm_up if first else bound


def planned_steps(plan: Plan, per_update: bool) -> int:
    """Calls of ``Guard.step`` in an epoch: one for each update, or for each of its batches."""
    if per_update:
        return plan.chosen.steps_per_epoch
    return max(1, division_of(plan.samples, plan.chosen.config).micro_batches)
