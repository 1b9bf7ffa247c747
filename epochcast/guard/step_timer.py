"""Steps, counted and timed: what every step pays for the guard, so it is kept to a few sums.

    mean ← mean + (t − mean)/8      spread ← spread + (|t − mean| − spread)/4
    bound = mean + 4·spread         never below the plan's P95, nor the slowest of late

This is the retransmission timer of TCP (Jacobson 1988, "Congestion avoidance and control"; RFC
6298): it follows a change within a few steps. Steps that are slow once in a while (a log, a flush)
stay in the bound through the slowest one of this epoch and the one before.

An epoch's first step waits until the loader has restarted, so it has a bound of its own; the first
one of a process warms up on top of that. ``StepTimer`` is the one mutable thing of a guard that
every step touches; all else of a run is an immutable state (run_state.py).
"""

from __future__ import annotations

from epochcast.records import Quantiles

GAIN, SPREAD_GAIN, SPREADS = 1 / 8, 1 / 4, 4.0  # RFC 6298, section 2


class DurationBound:
    """What the next step of one kind is not expected to exceed, in seconds.

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


class StepTimer:
    """The steps of one process.

    Args:
        epoch: seconds of one, as planned.
        steps: of an epoch, as planned.
        warm_up: seconds that the first step of a process takes on top; the P95.

    Attributes:
        step: steps of the present epoch that are done, by an earlier process or by this one.
        steady: the bound of steps that are not the first of an epoch.
        unsaved: whether no checkpoint is of this very moment.
    """

    __slots__ = (
        "_at",
        "_begins",
        "_restart",
        "_warm_up",
        "_warms_up",
        "steady",
        "step",
        "unsaved",
    )

    def __init__(self, epoch: Quantiles, steps: int, warm_up: float) -> None:
        median, upper = epoch.p50 / steps, epoch.p95 / steps
        self.steady, self._restart = DurationBound(median, upper), DurationBound(median, upper)
        self._warm_up = warm_up
        self._begins = self._warms_up = True
        self._at = 0.0
        self.step = 0
        self.unsaved = True

    def resume(self, step: int, unsaved: bool) -> None:
        """The run goes on at a step of an epoch, from a checkpoint of it or not."""
        self.step, self.unsaved = step, unsaved

    def begin_epoch(self, now: float, first: bool) -> None:
        """The next step is an epoch's first one; ``first``: in the first epoch of a process."""
        self.steady.begin_epoch()
        self._restart.begin_epoch()
        self._warms_up = first
        self.skip(now, 0)

    def skip(self, now: float, step: int) -> None:
        """The next step comes after so many, and is the first that is taken of this epoch."""
        self._at, self._begins, self.step = now, True, step

    def saw(self, now: float) -> None:
        """One more step has ended."""
        seconds = now - self._at
        self._at = now
        self.step += 1
        self.unsaved = True
        if self._begins:
            self._begins = False
            self._saw_restart(seconds)
        else:
            self.steady.saw(seconds)

    def _saw_restart(self, seconds: float) -> None:
        if self._warms_up:
            self._restart.expect(seconds - self._warm_up)
        else:
            self._restart.saw(seconds)

    def leave_out(self, seconds: float) -> None:
        """So much of the time since the last step was not the next one's."""
        self._at += seconds

    def saved(self, now: float) -> None:
        """A checkpoint of this moment was finished; the next step begins here."""
        self._at, self.unsaved = now, False

    def end_epoch(self) -> None:
        """An epoch is done."""
        self.step, self.unsaved = 0, True

    def first_bound(self, first: bool) -> float:
        """What the first step of an epoch is not expected to exceed; ``first``: of a process."""
        bound = max(self._restart.bound, self.steady.bound)
        return bound + self._warm_up if first else bound
