"""When to save: how often against failures, at which epoch ends, how early before a hard end.

    C   seconds that one save takes          M   mean seconds between failures
    R   seconds to restart after one         τ   seconds of work between two saves

    τ = M·(1 + W₀(−e^(−C/M − 1)))            minimises M(e^((τ+C)/M) − 1)/τ
      ≈ √(2CM) for C ≪ M                     Young 1974, CACM 17(9)

Where saves are possible at epoch ends only, expected completion is minimised over all ways of
cutting the run into segments (Toueg & Babaoğlu 1984, SIAM J. Computing 13(3)):

    T(0) = 0     T(j) = min over i < j of  T(i) + e^(R/M)·M·(e^((w_i+1 + … + w_j + C)/M) − 1)

Before a hard end, the last save begins X* seconds early (Barbut, Benoit, Herault, Robert & Vivien
2023, "When to checkpoint at the end of a fixed-length reservation?", FTXS):

    X* = argmax (R − X)·P(C ≤ X)          R here: seconds of the reservation
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import exp, log1p, sqrt

import numpy as np
from numpy.typing import NDArray

from epochcast.costmodel.features import Array

OVERHEAD_BOUND = 0.035  # of training time spent saving: CheckFreq, FAST'21, section 5
LONGEST_SEGMENT = 8.0  # times the best interval: a longer one costs more than cutting it in two
LARGEST_EXPONENT = 600.0  # e^600 seconds is never; e^710 is not a float any more
NEWTON_STEPS = 60  # it converges quadratically: fewer than ten are used
LEAD_GRID = 100  # probabilities at which a last save's duration is looked at, twice


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
    """Seconds of work between saves: the exact optimum, within what saving may cost.

    Args:
        save_seconds: that training waits for a save.
        mtbf_seconds: None never fails: saves are then as frequent as the overhead bound allows.
    """
    best = exact_interval(save_seconds, mtbf_seconds) if mtbf_seconds else 0.0
    return max(best, save_seconds / OVERHEAD_BOUND)


def save_epochs(
    epoch_seconds: Sequence[float],
    save_seconds: float,
    mtbf_seconds: float,
    restart_seconds: float = 0.0,
    shortest_seconds: float = 0.0,
) -> tuple[int, ...]:
    """The epoch ends to save at, counted from 1, that minimise the expected time to completion.

    Args:
        epoch_seconds: of each epoch, evaluation included.
        shortest_seconds: of work between two saves; the last segment may be shorter.
    """
    ends = np.concatenate(([0.0], np.cumsum(np.asarray(epoch_seconds, dtype=float))))
    window = _window(ends, save_seconds, mtbf_seconds, shortest_seconds)
    best, previous = np.zeros(len(ends)), np.zeros(len(ends), dtype=np.int64)
    for j in range(1, len(ends)):
        i = np.arange(max(0, j - window), j)
        work = ends[j] - ends[i]
        total = best[i] + _expected_seconds(work, save_seconds, mtbf_seconds, restart_seconds)
        if j < len(ends) - 1:
            total[work < shortest_seconds] = np.inf
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


def _window(ends: Array, save_seconds: float, mtbf_seconds: float, shortest_seconds: float) -> int:
    """Epochs in the longest segment worth looking at."""
    longest = LONGEST_SEGMENT * max(exact_interval(save_seconds, mtbf_seconds), shortest_seconds)
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
