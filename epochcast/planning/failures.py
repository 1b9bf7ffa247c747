"""What failures cost a run, draw by draw: restarts, and work that is done again.

    symbol   meaning                                                             shape
    S, F     draws; failures looked at one by one                                (S, F)
    M, R     mean seconds between failures; seconds to restart
    s        seconds of work from one save to the next, the save included
    x        work since the last save when a failure comes, uniform on [0, s]    (S, F)

Failures come at the rate 1/M in wall-clock time, whatever is going on, and so at the same rate on
the clock of work done for the first time. Each costs what it takes to get through y = R + x
seconds without another one: y itself, and before it a geometric number G of tries that fail,

    D(y) = y + G·(M − y/(e^(y/M) − 1))     P(G = g) = (1 − p)^g·p,  p = e^(−y/M)
    E D(y) = M·(e^(y/M) − 1)

so that a segment takes M·e^(R/M)·(e^(s/M) − 1) on average, as it must (Toueg & Babaoğlu 1984).
After T seconds of work, long enough for the law of large numbers, the loss L grows at its mean
rate ρ, and away from it as a random walk does: the right mean and variance, and never a fall.

    L(w) = ρ·w + (L(T) − ρ·T)·√(w/T)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from epochcast.costmodel.features import Array

LOOKED_AT = 32.0  # mean times between failures until T
FAILURES = 64  # that many come before T once in ten million runs
HOPELESS = 30.0  # mean times between failures in one stretch: e^30 of them is never, but finite
TINY = 1e-300  # where a stretch of no length would divide by zero


@dataclass(frozen=True, slots=True, kw_only=True)
class Interruptions:
    """How often a run is interrupted, and what that costs.

    Attributes:
        mtbf_seconds: mean time between failures.
        restart_seconds: until training goes on.
        segment_seconds: of work between two saves, the save included.
        most_saves: in an uncut run, where segments must grow with it; None for any number.
    """

    mtbf_seconds: float
    restart_seconds: float = 0.0
    segment_seconds: float = 0.0
    most_saves: int | None = None

    def segments(self, uncut: Array) -> Array:
        """Of runs that saves alone cut: as long as usual, or as few saves leave them."""
        fewest = uncut / self.most_saves if self.most_saves else 0.0
        return np.asarray(np.minimum(np.maximum(self.segment_seconds, fewest), uncut))


@dataclass(frozen=True, slots=True)
class FailureDeviates:
    """What all configurations share; of shape (S, F) each.

    Attributes:
        moments: of failures, in units of the mean time between them.
        places: share of a segment that is done by then.
        luck: standard exponential; the more, the more tries fail.
    """

    moments: Array
    places: Array
    luck: Array


def failure_deviates(random: np.random.Generator, draws: int) -> FailureDeviates:
    """New ones."""
    shape = (draws, FAILURES)
    moments = random.exponential(size=shape).cumsum(axis=1)
    return FailureDeviates(moments, random.uniform(size=shape), random.exponential(size=shape))


class FailureDraws:
    """The failures of one configuration's runs."""

    def __init__(self, often: Interruptions, shared: FailureDeviates) -> None:
        self.often = often
        self.shared = shared
        self.moments = often.mtbf_seconds * shared.moments

    def lost(self, work: Array, uncut: Array) -> Array:
        """Seconds lost by runs of so much work.

        Args:
            work: seconds, saves included, of shape (S,).
            uncut: the most work that a failure can undo, saves or not: a whole fold, (S,).
        """
        end = LOOKED_AT * self.often.mtbf_seconds
        happened = np.sum(self.moments <= np.minimum(work, end)[:, None], axis=1)
        segment = self.often.segments(uncut)
        usual = np.all(segment == self.often.segment_seconds)
        costs = self._usual_costs if usual else self._costs(segment, int(happened.max()))
        lost, times = costs[np.arange(len(work)), happened], np.maximum(work / end, 1)
        grown = self._rate(segment) * end * (times - np.sqrt(times))
        return np.asarray(lost * np.sqrt(times) + grown)

    @cached_property
    def _usual_costs(self) -> Array:
        whole = np.full(len(self.moments), self.often.segment_seconds)
        return self._costs(whole, FAILURES)

    def _costs(self, segment: Array, count: int) -> Array:
        """Of the first k failures together, k = 0 … ``count``; shape (S, count + 1)."""
        mtbf, shared = self.often.mtbf_seconds, self.shared
        stretch = self.often.restart_seconds + shared.places[:, :count] * segment[:, None]
        length = np.clip(stretch / mtbf, TINY, HOPELESS)
        failed = np.floor(shared.luck[:, :count] / -np.log(-np.expm1(-length)))
        each = mtbf * (1 - length / np.expm1(length))
        total = np.cumsum(stretch + failed * each, axis=1)
        return np.concatenate([np.zeros((len(total), 1)), total], axis=1)

    def _rate(self, segment: Array) -> Array:
        """Expected seconds lost in each second of work."""
        mtbf = self.often.mtbf_seconds
        restart = np.exp(min(self.often.restart_seconds / mtbf, HOPELESS))
        length = np.clip(segment / mtbf, TINY, HOPELESS)
        return np.asarray(restart * np.expm1(length) / length - 1)
