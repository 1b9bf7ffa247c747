"""How often something is done: every so many epochs, at growing rungs, or at given epochs.

A cadence counts occasions up to and including an epoch that is the run's last one, at which
everything due in the run is done once more:

    Every(2)      2, 4, 6, …, last          Rungs(1, 3)      1, 3, 9, 27, …, last
    AtMost(2, 3)  2, 4, 6, but of 30 epochs 10, 20, 30

Evaluating costs e seconds, an epoch t; with T the epoch of the best value, what evaluation and
late stopping cost together, e·T/v + (delay in epochs)·t, is smallest at

    v* = √(2·T·e/t)                patience counted in epochs: the stop is v/2 late on average
    v* = √(T·e/((p + ½)·t))        patience of p checks: the stop is (p + ½)·v late
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import sqrt
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Epochs = NDArray[np.int64]


class Cadence(Protocol):
    """When something is done in a run of so many epochs."""

    def count(self, last: Epochs) -> Epochs:
        """How often, in runs of ``last`` epochs."""
        ...

    def epochs(self, last: int) -> tuple[int, ...]:
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

    def epochs(self, last: int) -> tuple[int, ...]:
        if self.interval == 0:
            return ()
        return _with_last(range(self.interval, last + 1, self.interval), last)


@dataclass(frozen=True, slots=True)
class AtMost:
    """Every so many epochs and at the last one, but only so many times: then evenly apart."""

    interval: int
    times: int

    def count(self, last: Epochs) -> Epochs:
        return np.minimum(Every(self.interval).count(last), self.times)

    def epochs(self, last: int) -> tuple[int, ...]:
        if last <= self.interval * self.times:
            return Every(self.interval).epochs(last)
        return tuple(-(-last * k // self.times) for k in range(1, self.times + 1))


@dataclass(frozen=True, slots=True)
class Rungs:
    """At r·ηᵏ and at the last: rungs of successive halving (Jamieson & Talwalkar 2016)."""

    first: int = 1
    eta: int = 3

    def count(self, last: Epochs) -> Epochs:
        rungs = np.array(rung_epochs(self.first, self.eta, int(np.max(last, initial=0))))
        passed = np.searchsorted(rungs, last, side="right")
        return np.asarray(passed + (~np.isin(last, rungs) & (last > 0)))

    def epochs(self, last: int) -> tuple[int, ...]:
        return _with_last(rung_epochs(self.first, self.eta, last), last)


@dataclass(frozen=True, slots=True)
class At:
    """At given epochs and at the last one."""

    chosen: tuple[int, ...]

    def count(self, last: Epochs) -> Epochs:
        passed = np.searchsorted(np.array(self.chosen), last, side="right")
        return np.asarray(passed + (~np.isin(last, np.array(self.chosen)) & (last > 0)))

    def epochs(self, last: int) -> tuple[int, ...]:
        return _with_last((e for e in self.chosen if e <= last), last)


def _with_last(epochs: Iterable[int], last: int) -> tuple[int, ...]:
    return tuple(sorted({*epochs, last} - {0}))


def rung_epochs(first: int, eta: int, last: int) -> tuple[int, ...]:
    """r·ηᵏ for k = 0 … ⌊log_η(last/r)⌋."""
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
    """Epochs between evaluations, at least 1, for patience in epochs or of so many checks."""
    if epoch_seconds <= 0:
        return 1
    share = best_epoch * eval_seconds / epoch_seconds
    best = sqrt(2 * share) if patience_checks is None else sqrt(share / (patience_checks + 0.5))
    return max(1, round(best))
