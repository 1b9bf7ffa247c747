"""When to evaluate and when to save: how often, at which epoch ends, how early before a hard end.

A cadence counts occasions up to and including an epoch that is the run's last one, at which
everything due in the run is done once more:

    Every(2)      2, 4, 6, …, last          Rungs(1, 3)      1, 3, 9, 27, …, last
    AtMost(2, 3)  2, 4, 6, but of 30 epochs 10, 20, 30

**Evaluating** costs e seconds, an epoch t; with T the epoch of the best value, what evaluation and
late stopping cost together, e·T/v + (delay in epochs)·t, is smallest at

    v* = √(2·T·e/t)                patience counted in epochs: the stop is v/2 late on average
    v* = √(T·e/((p + ½)·t))        patience of p checks: the stop is (p + ½)·v late

**Saving** costs C seconds, failures come every M seconds and a restart takes R. The best time of
work between two saves minimises M(e^((τ+C)/M) − 1)/τ: exactly τ = M·(1 + W₀(−e^(−C/M − 1))), whose
first order is Young's √(2CM) (1974, CACM 17(9)) and whose series is Daly's (2006, FGCS 22, eq. 37).
Where saves are possible at epoch ends only, expected completion is minimised over all ways of
cutting the run into segments (Toueg & Babaoğlu 1984, SIAM J. Computing 13(3)):

    T(0) = 0     T(j) = min over i < j of  T(i) + e^(R/M)·M·(e^((w_i+1 + … + w_j + C)/M) − 1)

Before a hard end, the last save begins X* seconds early (Barbut, Benoit, Herault, Robert & Vivien
2023, "When to checkpoint at the end of a fixed-length reservation?", FTXS):

    X* = argmax (A − X)·P(C ≤ X)          A: seconds of the reservation
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import ceil, exp, expm1, floor, log, log1p, sqrt
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from epochcast.costmodel.features import Array
from epochcast.records.epoch_ranges import EpochRange, EpochSequence, ranges_of

Epochs = NDArray[np.int64]

OVERHEAD_BOUND = 0.035  # of training time spent saving: CheckFreq, FAST'21, section 5
LONGEST_SEGMENT = 8.0  # times the best interval: a longer one costs more than cutting it in two
LARGEST_EXPONENT = 600.0  # e^600 seconds is never; e^710 is not a float any more
NEWTON_STEPS = 60  # it converges quadratically: fewer than ten are used
WHOLE = 1e-9  # an interval of 2 epochs, but for rounding, is one of 2 and not of 3
LEAD_GRID = 100  # probabilities at which a last save's duration is looked at, twice


class Cadence(Protocol):
    """When something is done in a run of so many epochs."""

    def count(self, last: Epochs) -> Epochs:
        """How often, in runs of ``last`` epochs."""
        ...

    def epochs(self, last: int) -> EpochSequence:
        """After which epochs, in a run of ``last``."""
        ...


@dataclass(frozen=True, slots=True)
class Every:
    """Every so many epochs and at the last one; 0 never."""

    interval: int

    def count(self, last: Epochs) -> Epochs:
        if self.interval == 0:
            return np.zeros_like(last)
        return np.asarray(-(-last // self.interval))

    def epochs(self, last: int) -> EpochSequence:
        if self.interval == 0 or last == 0:
            return EpochSequence(())
        end = EpochRange(first=last, last=last)
        if last < self.interval:
            return EpochSequence((end,))
        regular = last - last % self.interval
        due = EpochRange(first=self.interval, last=regular, every=self.interval)
        return EpochSequence((due,) if regular == last else (due, end))


@dataclass(frozen=True, slots=True)
class AtMost:
    """Every so many epochs and at the last one, but only so many times: then evenly apart.

    Attributes:
        grid: of which all but the last are multiples.
    """

    interval: int
    times: int
    grid: int = 1

    def count(self, last: Epochs) -> Epochs:
        return np.minimum(Every(self.interval).count(last), self.times)

    def epochs(self, last: int) -> EpochSequence:
        if last <= self.interval * self.times:
            return Every(self.interval).epochs(last)
        apart = (-(-last * k // (self.times * self.grid)) for k in range(1, self.times))
        return _with_last((min(n * self.grid, last) for n in apart), last)


@dataclass(frozen=True, slots=True)
class Rungs:
    """At r·ηᵏ and at the last: rungs of successive halving (Jamieson & Talwalkar 2016)."""

    first: int = 1
    eta: int = 3

    def count(self, last: Epochs) -> Epochs:
        rungs = np.array(rung_epochs(self.first, self.eta, int(np.max(last, initial=0))))
        passed = np.searchsorted(rungs, last, side="right")
        return np.asarray(passed + (~np.isin(last, rungs) & (last > 0)))

    def epochs(self, last: int) -> EpochSequence:
        return _with_last(rung_epochs(self.first, self.eta, last), last)


@dataclass(frozen=True, slots=True)
class At:
    """At given epochs and at the last one."""

    chosen: tuple[int, ...]

    def count(self, last: Epochs) -> Epochs:
        passed = np.searchsorted(np.array(self.chosen), last, side="right")
        return np.asarray(passed + (~np.isin(last, np.array(self.chosen)) & (last > 0)))

    def epochs(self, last: int) -> EpochSequence:
        return _with_last((e for e in self.chosen if e <= last), last)


def _with_last(epochs: Iterable[int], last: int) -> EpochSequence:
    return EpochSequence(ranges_of(sorted({*epochs, last} - {0})))


def rung_epochs(first: int, eta: int, last: int) -> tuple[int, ...]:
    """r·ηᵏ for k = 0 … ⌊log_η(last/r)⌋.

    Args:
        first: r, the epoch of the lowest rung; with one beyond ``last`` there is no rung.
        eta: η, how much longer each rung is than the one below, at least 2.
        last: the run's last epoch, which is a rung by chance only.
    """
    if first > last:
        return ()
    return tuple(first * eta**k for k in range(integer_log(last // first, eta) + 1))


def integer_log(value: int, base: int) -> int:
    """⌊log_base(value)⌋ by whole numbers: ``log(243, 3)`` in floating point is below 5."""
    power = 0
    while value >= base:
        value, power = value // base, power + 1
    return power


def evaluation_interval(
    best_epoch: float, eval_seconds: float, epoch_seconds: float, patience_checks: int | None = None
) -> int:
    """Epochs between evaluations, at least 1, where evaluating and late stopping cost least.

    Args:
        best_epoch: at which the metric is best.
        eval_seconds: of one evaluation.
        epoch_seconds: of one epoch.
        patience_checks: of the rule that stops the run; None for patience counted in epochs.
    """
    if epoch_seconds <= 0:
        return 1
    share = best_epoch * eval_seconds / epoch_seconds
    best = sqrt(2 * share) if patience_checks is None else sqrt(share / (patience_checks + 0.5))
    return max(1, round(best))


def exact_interval(save_seconds: float, mtbf_seconds: float) -> float:
    """M·(1 + W₀(−e^(−C/M−1))), without losing digits where C is much smaller than M.

    With x = 1 + W₀, the definition of W reads log(1−x) + x = −C/M. Newton's method starts to the
    right of its root, from where it falls monotonically onto it.
    """
    ratio = save_seconds / mtbf_seconds
    if ratio == 0:
        return 0.0
    x = min(sqrt(2 * ratio), 1 - exp(-ratio - 1))
    for _ in range(NEWTON_STEPS):
        if x >= 1 - 1e-15:  # a save so slow that failures decide alone
            return mtbf_seconds
        step = (log1p(-x) + x + ratio) * (1 - x) / x
        x += step
        if abs(step) <= 1e-15 * x:
            break
    return mtbf_seconds * x


def save_interval(save_seconds: float, mtbf_seconds: float | None = None) -> float:
    """Seconds of work between saves: where failures come, what costs least; else a bound.

    Args:
        save_seconds: that training waits for a save.
        mtbf_seconds: None never fails: saves are then as frequent as the overhead bound allows.
    """
    if mtbf_seconds is None:
        return save_seconds / OVERHEAD_BOUND
    return exact_interval(save_seconds, mtbf_seconds)


def save_period(
    epoch_seconds: float, save_seconds: float, mtbf_seconds: float | None = None
) -> int:
    """Whole epochs between saves, at least 1: within the bound, or where failures cost least.

    What a second of work costs, (e^((j·t+C)/M) − 1)/j, falls until its minimum and then rises, so
    that the best whole j is next to the best interval.

    Args:
        epoch_seconds: t, of one epoch with its share of the evaluations.
        save_seconds: C, that training waits for one save.
        mtbf_seconds: M, mean time between failures; None never fails.
    """
    epochs = save_interval(save_seconds, mtbf_seconds) / epoch_seconds
    if mtbf_seconds is None:
        return max(1, ceil(epochs - WHOLE))
    fewer, mtbf = max(1, floor(epochs)), mtbf_seconds

    def log_cost(period: int) -> float:
        length = (period * epoch_seconds + save_seconds) / mtbf
        return length + log(-expm1(-length)) - log(period)

    return min((fewer, fewer + 1), key=log_cost)


def save_epochs(
    epoch_seconds: Sequence[float],
    save_seconds: float,
    mtbf_seconds: float,
    restart_seconds: float = 0.0,
) -> tuple[int, ...]:
    """The epoch ends to save at, counted from 1, that minimise the expected time to completion.

    Args:
        epoch_seconds: of each epoch, evaluation included.
        save_seconds: that training waits for one save.
        mtbf_seconds: mean time between failures.
        restart_seconds: from a failure until training goes on.
    """
    ends = np.concatenate(([0.0], np.cumsum(np.asarray(epoch_seconds, dtype=float))))
    window = _window(ends, save_seconds, mtbf_seconds)
    best, previous = np.zeros(len(ends)), np.zeros(len(ends), dtype=np.int64)
    for j in range(1, len(ends)):
        i = np.arange(max(0, j - window), j)
        work = ends[j] - ends[i]
        total = best[i] + _expected_seconds(work, save_seconds, mtbf_seconds, restart_seconds)
        previous[j] = i[int(np.argmin(total))]
        best[j] = total.min()
    return _path(previous)


def _expected_seconds(
    work: Array, save_seconds: float, mtbf_seconds: float, restart_seconds: float
) -> Array:
    """Of segments and their saves, with failures that come at an exponential rate."""
    exponent = np.minimum((work + save_seconds) / mtbf_seconds, LARGEST_EXPONENT)
    restart = exp(min(restart_seconds / mtbf_seconds, LARGEST_EXPONENT / 6))
    return np.asarray(restart * mtbf_seconds * np.expm1(exponent))


def _window(ends: Array, save_seconds: float, mtbf_seconds: float) -> int:
    """Epochs in the longest segment worth looking at."""
    longest = LONGEST_SEGMENT * exact_interval(save_seconds, mtbf_seconds)
    shortest_epoch = float(np.diff(ends).min())
    count = len(ends)
    return count if shortest_epoch <= 0 else min(count, 2 + int(longest / shortest_epoch))


def _path(previous: NDArray[np.int64]) -> tuple[int, ...]:
    chosen, j = [], len(previous) - 1
    while j > 0:
        chosen.append(j)
        j = int(previous[j])
    return tuple(reversed(chosen))


def final_save_lead(reservation_seconds: float, save_quantile: Callable[[float], float]) -> float:
    """How long before a hard end the last save must begin: argmax (R − X)·P(C ≤ X).

    Args:
        reservation_seconds: what is lost if the save does not make it.
        save_quantile: seconds of a save at a probability; for Uniform[a, b] the answer is
            min((R + a)/2, b), and for a save that always takes the same it is that.
    """
    low, high, lead = 0.0, 1.0, 0.0
    for _ in range(2):  # the second time around the best of the first
        chances = np.linspace(low, high, LEAD_GRID + 2)
        leads = np.array([save_quantile(float(p)) for p in chances[1:-1]])
        best = int(np.argmax((reservation_seconds - leads) * chances[1:-1]))
        low, high, lead = chances[best], chances[best + 2], float(leads[best])
    return lead
