"""How long the next step may take: what every step pays for the guard, so it is kept to a few sums.

    mean ← mean + (t − mean)/8      spread ← spread + (|t − mean| − spread)/4
    bound = mean + 4·spread         never below the plan's P95, nor the slowest of late

This is the retransmission timer of TCP (Jacobson 1988, "Congestion avoidance and control"; RFC
6298): it follows a change within a few steps. Steps that are slow once in a while (a log, a flush)
stay in the bound through the slowest one of this epoch and the one before.
"""

from __future__ import annotations

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
