"""How long the next step may take: what every step pays for the guard, so it is kept to a few sums.

    mean ← mean + (t − mean)/8      spread ← spread + (|t − mean| − spread)/4
    bound = mean + 4·spread         never below the plan's P95 of a step

This is the retransmission timer of TCP (Jacobson 1988, "Congestion avoidance and control"; RFC
6298): it follows a change within a few steps and forgives single slow ones. The first step of an
epoch waits for the loader to start, and has a timer of its own.
"""

from __future__ import annotations

GAIN, SPREAD_GAIN, SPREADS = 1 / 8, 1 / 4, 4.0  # RFC 6298, section 2


class StepTimer:
    """Durations of one kind of step, in seconds.

    Args:
        median, upper: as planned; ``upper`` is its P95.
    """

    __slots__ = ("_mean", "_spread", "_upper")

    def __init__(self, median: float, upper: float) -> None:
        self._mean = median
        self._spread = (upper - median) / SPREADS
        self._upper = upper

    def saw(self, seconds: float) -> None:
        """Having seen one more."""
        error = seconds - self._mean
        self._mean += error * GAIN
        self._spread += (abs(error) - self._spread) * SPREAD_GAIN

    @property
    def mean(self) -> float:
        """About what one takes."""
        return self._mean

    @property
    def bound(self) -> float:
        """What the next one is not expected to exceed."""
        return max(self._mean + SPREADS * self._spread, self._upper)
