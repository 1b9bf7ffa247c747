"""What failures cost a run: how often it is interrupted, and what each one undoes.

    symbol   meaning                                                                    shape
    S, F     draws; failures looked at one by one
    M, R     mean seconds between failures; seconds to restart                          (S,)
    s        seconds of work from one save to the next, the save included               (S,)
    x        work since the last save when a failure comes, uniform on [0, s]           (S, F)

A slow run has long segments, and what failures cost it grows faster than they do: everything here
is of one draw, and nothing is taken at its median.

Failures come at the rate 1/M in wall-clock time, whatever is going on, and so at the same rate
on the clock of work done for the first time. Each costs what it takes to get through y = R + x
seconds without another one: y itself, and before it a geometric number G of tries that fail,

    D(y) = y + Σ t_g over G of them        P(G = g) = (1 − p)^g·p,  p = e^(−y/M)
    E t = M − y/(e^(y/M) − 1)              t exponential, but shorter than y
    E D(y) = M·(e^(y/M) − 1)

so that a segment takes M·e^(R/M)·(e^(s/M) − 1) on average, as it must (Toueg & Babaoğlu 1984). Of
the tries of one failure the last is drawn and the others take their mean.

    ├─ start ─┼──── s ────┼──── s ────┼─ rest ─┤      the work of a fold; │ is a save
      x < 0        x           x          x

A restart makes ready by itself: a failure during the start, which is up to its end, undoes none of
the work, and what is left of the start is not needed any more (x < 0). Of several folds the starts
come first, then whole segments, then what is left of each: a failure is as likely at any moment, so
that order changes nothing, and with more epochs no failure ever costs less.

After T seconds of work, long enough for the law of large numbers, the loss L grows at its mean
rate ρ, and away from it as a random walk does: the right mean and variance, and never a fall.

    L(w) = ρ·w + (L(T) − ρ·T)·√(w/T)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import inf
from typing import Any

import numpy as np

from epochcast.costmodel.epoch import Whole
from epochcast.costmodel.features import Array

LOOKED_AT = 32.0  # mean times between failures until T
FAILURES = 64  # that many come before T once in ten million runs
HOPELESS = 30.0  # mean times between failures in one stretch: e^30 of them is never, but finite
TINY = 1e-300  # where a stretch of no length would divide by zero
WHOLE = 1e-9  # relative: an epoch that is a multiple of the period but for rounding


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureDeviates:
    """What the failures of all configurations share, shape (S, F) each.

    Attributes:
        moments: in units of the mean time between them, rising.
        places: share of a segment that is done by a failure.
        tries: standard exponential, of how many tries fail after a failure.
        least: length from which one of those tries fails, in units of the mean time.
        lengths: uniform, of how long the last of those takes.
    """

    moments: Array
    places: Array
    tries: Array
    least: Array
    lengths: Array

    @classmethod
    def drawn(cls, random: np.random.Generator, count: int) -> FailureDeviates:
        """For so many draws: a Latin hypercube (McKay, Beckman & Conover 1979), whose sums over
        failures scatter less from seed to seed than those of independent deviates.
        """
        cells = np.tile((np.arange(count)[:, None] + 0.5) / count, FAILURES)
        gaps, places, tries, lengths = (random.permuted(cells, axis=0) for _ in range(4))
        return cls(
            moments=-np.log1p(-gaps).cumsum(axis=1),
            places=places,
            tries=-np.log1p(-tries),
            least=-np.log(tries),
            lengths=lengths,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Interruptions:
    """How often a run is interrupted, and between which epochs it is saved.

    Attributes:
        mtbf_seconds: mean time between failures.
        restart_seconds: until training goes on; None for another start with its first steps.
        period: epochs from one save to the next; inf never saves.
        evaluations: in each of these epochs, on average.
        max_saves: of a fold, which then are as far apart as that takes; None for any number.
        placed: the epochs that are saved after, if they are not periodic; the last one ends the
            run.
    """

    mtbf_seconds: float
    restart_seconds: float | None = None
    period: float = inf
    evaluations: float = 0.0
    max_saves: int | None = None
    placed: tuple[int, ...] = ()

    @property
    def saves(self) -> float:
        """In each epoch, on average."""
        return len(self.placed) / self.placed[-1] if self.placed else 1 / self.period


class FailureDraws:
    """The failures of one configuration's runs.

    Args:
        often: how often they come, and where saves are.
        shared: deviates, the same for every configuration.
        start: seconds until the first steady step, (S,).
        epoch: seconds of an epoch with its share of evaluations and saves, (S,).
        folds: runs one after another.
    """

    def __init__(
        self,
        often: Interruptions,
        shared: FailureDeviates,
        start: Array,
        epoch: Array,
        folds: int = 1,
    ) -> None:
        self.often = often
        self.shared = shared
        self.start = start
        self.epoch = epoch
        self.folds = folds
        self.moments = often.mtbf_seconds * shared.moments
        self.earliest = self.moments.min(axis=0)  # of all draws; most runs end before most of these
        self.cuts = np.array((0, *often.placed))
        asked = often.restart_seconds
        self.restart = start if asked is None else np.full(len(start), asked)

    def lost(self, work: Array, epochs: Whole) -> Array:
        """Seconds lost by runs of so much work, shape (S,).

        Args:
            work: seconds of all folds, saves included, (S,).
            epochs: of each fold, (S,) or one number.
        """
        end = LOOKED_AT * self.often.mtbf_seconds
        training = work / self.folds - self.start
        segment, whole = self._segments(training, epochs)
        rest = np.clip(training - whole, 0.0, segment)
        settled = self._happened(np.minimum(work, self.folds * (self.start + whole)), end)
        happened = self._happened(work, end)
        lost = self._settled(segment, settled.max())[np.arange(len(work)), settled]
        lost = lost + self._of_the_rest(rest, settled, happened)
        times = np.maximum(work / end, 1)
        rate = self._rate(np.where(whole > 0, segment, rest))
        return np.asarray(lost * np.sqrt(times) + rate * end * (times - np.sqrt(times)))

    def _segments(self, training: Array, epochs: Whole) -> tuple[Array, Array]:
        """Seconds of a segment, and of all whole ones of a fold together, (S,) each."""
        often = self.often
        if often.placed:
            done = self.cuts[np.searchsorted(self.cuts, epochs, side="right") - 1]
            longest = float(np.diff(self.cuts).max())
            return longest * self.epoch, done * self.epoch
        if often.period == inf:
            return np.full(len(training), inf), np.zeros(len(training))
        done = np.floor(epochs / often.period + WHOLE) * often.period
        segment, whole = often.period * self.epoch, done * self.epoch
        if often.max_saves is None:
            return segment, whole
        crowded = epochs > often.period * often.max_saves
        spread = np.maximum(segment, training / often.max_saves)
        return np.where(crowded, spread, segment), np.where(crowded, training, whole)

    def _happened(self, work: Array, end: float) -> Whole:
        """Failures by then, of those looked at, (S,)."""
        until = np.minimum(work, end)
        possible = int(np.searchsorted(self.earliest, until.max(), side="right"))
        return np.asarray(np.sum(self.moments[:, :possible] <= until[:, None], axis=1))

    def _settled(self, segment: Array, most: int) -> Array:
        """Lost by the first k failures, all in starts and whole segments, for every k until the
        most that is asked, (S, most + 1 or more)."""
        usual = np.array_equal(segment, self.often.period * self.epoch)
        if usual or self.often.placed:
            return self._usual
        return self._cumulative(np.broadcast_to(segment[:, None], (len(segment), most)))

    @cached_property
    def _usual(self) -> Array:
        return self._cumulative(self._usual_segments)

    @cached_property
    def _usual_segments(self) -> Array:
        """Of each failure, (S, F)."""
        if not self.often.placed:
            segment = min(self.often.period, 1e300) * self.epoch
            return np.broadcast_to(segment[:, None], self.moments.shape)
        epochs = (self.moments / self.folds - self.start[:, None]) / self.epoch[:, None]
        lengths = np.append(np.diff(self.cuts), 0)
        return lengths[np.searchsorted(self.cuts[1:], epochs, side="right")] * self.epoch[:, None]

    def _cumulative(self, segments: Array) -> Array:
        first = np.s_[:, : segments.shape[1]]
        starting = self.moments[first] <= self.folds * self.start[:, None]
        undone = self.shared.places[first] * np.where(starting, -self.start[:, None], segments)
        every = np.broadcast_to(self.restart[:, None], undone.shape)
        costs = self._costs(undone, every, first)
        total = np.cumsum(costs, axis=1)
        return np.concatenate([np.zeros((len(total), 1)), total], axis=1)

    def _of_the_rest(self, rest: Array, settled: Whole, happened: Whole) -> Array:
        """Lost by the failures after the last whole segment, (S,)."""
        draws = np.flatnonzero(happened > settled)
        lost = np.zeros(len(rest))
        if not len(draws):
            return lost
        counts = (happened - settled)[draws]
        row = np.repeat(draws, counts)
        ends = np.cumsum(counts)
        column = np.arange(ends[-1]) + np.repeat(settled[draws] - ends + counts, counts)
        undone = self.shared.places[row, column] * rest[row]
        costs = self._costs(undone, self.restart[row], (row, column))
        np.add.at(lost, row, costs)
        return lost

    def _costs(self, undone: Array, restart: Array, which: Any) -> Array:
        """Seconds that each failure costs: D(R + x).

        Args:
            undone: x, seconds of work, negative where the rest of a start is not needed any more.
            restart: R, seconds.
            which: of the shared deviates these failures have, as an index.
        """
        mtbf = self.often.mtbf_seconds
        stretch = np.maximum(restart + undone, 0.0)
        length = np.clip(stretch / mtbf, TINY, HOPELESS)
        some = np.flatnonzero(length >= self.shared.least[which])  # most get there at once
        length = length.flat[some]
        fails = -np.expm1(-length)
        failed = np.floor(self.shared.tries[which].flat[some] / -np.log(fails))
        last = -np.log1p(-self.shared.lengths[which].flat[some] * fails)
        wasted = (failed - 1) * (1 - length / np.expm1(length)) + last
        stretch.flat[some] += mtbf * np.where(failed, wasted, 0.0)
        return stretch

    def _rate(self, segment: Array) -> Array:
        """Expected seconds lost in each second of work, (S,)."""
        mtbf = self.often.mtbf_seconds
        restart = np.exp(np.minimum(self.restart / mtbf, HOPELESS))
        if not self.often.placed:
            return np.asarray(restart * _stretched(segment / mtbf) - 1)
        lengths, counts = np.unique(np.diff(self.cuts), return_counts=True)
        shares = lengths * counts / self.cuts[-1]
        each = _stretched(lengths * self.epoch[:, None] / mtbf)
        return np.asarray(restart * (each @ shares) - 1)


def _stretched(length: Array) -> Array:
    """Mean time to get through segments, relative to their own, in units of M: (e^l − 1)/l."""
    length = np.clip(length, TINY, HOPELESS)
    return np.asarray(np.expm1(length) / length)
