"""Shared draws: what many runs would take, each the same run for every configuration and epoch.

    symbol   meaning                                                                    shape
    S        draws
    z        run-level deviate: makes everything in a run slow, in all configurations   (S,)
    w        epoch-level deviate                                                        (S,)
    E        epochs

    T(E) = fixed + E·training·e^(s_u·t(z))·e^(σ·w/√E) + E·turn + n_eval·evaluation + n_save·save

so that var T(E) = E·σ² + E²·s_u² with t(z) Student's where s_u itself is uncertain. w/√E stands
for the mean of E independent deviates: every E has its own variance right, and T grows with E in
every draw (σ ≤ ½ and |w| < 4), which makes the budget monotone. Deviates are stratified (one in
each of S equally likely cells) and shared by all configurations, so that two configurations
differ by what they cost and not by luck: common random numbers (Glasserman & Yao 1992).

Failures come at an exponential rate in wall-clock time; each costs the restart and, on average,
half of the work between two saves (Young 1974).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from statistics import NormalDist

import numpy as np

from epochcast.costmodel.features import Array
from epochcast.costmodel.intervals import LOG_REACH, student_t_quantile
from epochcast.planning.cadence import Cadence, Epochs
from epochcast.planning.pricing import Amount, Prices
from epochcast.records import Quantiles

DRAWS = 1000
NEVER = 1e12  # seconds; finite, because JSON knows no infinity
FAILURES = 64  # looked at one by one; the rate of a run with more is as good as its mean
LEVELS = (0.05, 0.1, 0.5, 0.9, 0.95)  # of ``Quantiles``
NODES = np.linspace(-4, 4, 129)  # normal scores at which Student's quantile is evaluated exactly


@dataclass(frozen=True, slots=True)
class Deviates:
    """Standard deviates that all configurations share; failures in units of the mean time."""

    run: Array
    epoch: Array
    power: Array
    failures: Array


@lru_cache(maxsize=4)
def deviates(seed: int, count: int = DRAWS) -> Deviates:
    """The same seed gives the same deviates."""
    random = np.random.default_rng(seed)
    normal = NormalDist()
    cells = np.array([normal.inv_cdf((i + 0.5) / count) for i in range(count)])
    run, epoch, power = (random.permutation(cells) for _ in range(3))
    failures = random.exponential(size=(count, FAILURES)).cumsum(axis=1)
    return Deviates(run=run, epoch=epoch, power=power, failures=failures)


@lru_cache(maxsize=256)
def _student_scores(dof: float) -> Array:
    normal = NormalDist()
    return np.array([student_t_quantile(normal.cdf(z), dof) for z in NODES])


def student(z: Array, dof: float) -> Array:
    """Normal scores to Student's, quantile by quantile; interpolated between exact nodes."""
    return np.asarray(np.interp(z, NODES, _student_scores(dof)))


def draw(amount: Amount, z: Array) -> Array:
    """An amount in each draw, shape (S,)."""
    if amount.scatter.sd == 0:
        return np.full(len(z), amount.median)
    reach = student(z, amount.scatter.dof) * amount.scatter.sd
    return np.asarray(amount.median * np.exp(np.clip(reach, -LOG_REACH, LOG_REACH)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Interruptions:
    """How often a run is interrupted, and what that costs.

    Attributes:
        mtbf_seconds: mean time between failures; None for never.
        restart_seconds: until training goes on.
        segment_seconds: of work between two saves, the save included; half of it is repeated.
    """

    mtbf_seconds: float | None = None
    restart_seconds: float = 0.0
    segment_seconds: float = 0.0


class RunDraws:
    """The time of one configuration's runs, draw by draw; arrays of shape (S,)."""

    def __init__(
        self, prices: Prices, shared: Deviates, *, folds: int = 1,
        interruptions: Interruptions | None = None,
    ) -> None:  # fmt: skip
        z = shared.run
        self.shared = shared
        self.folds = folds
        self.interruptions = interruptions or Interruptions()
        self.startup = draw(prices.startup, z) + draw(prices.build, z)
        self.first = draw(prices.first, z)
        self.once = self.startup + self.first
        self.training, self.turn = draw(prices.training, z), draw(prices.turn, z)
        self.evaluation, self.save = draw(prices.evaluation, z), draw(prices.save, z)
        self.noise = prices.epoch_noise

    def seconds(self, last: Epochs, evaluate: Cadence, save: Cadence) -> Array:
        """All folds of runs of ``last`` epochs, restarts included."""
        return self.until(last, evaluate.count(last), save.count(last))

    def until(self, epochs: Epochs, evaluations: Epochs, saves: Epochs) -> Array:
        """So many epochs, evaluations and saves in each fold, restarts included.

        Counts of shape (m, 1) give (m, S).
        """
        averaged = self.noise * self.shared.epoch / np.sqrt(np.maximum(epochs, 1))
        work = self.once + epochs * (self.training * np.exp(averaged) + self.turn)
        work = self.folds * (work + evaluations * self.evaluation + saves * self.save)
        return np.asarray(work + self._lost(work))

    def _lost(self, work: Array) -> Array:
        """Restarts and repeated work: the k-th failure happens if it comes before the end."""
        mtbf = self.interruptions.mtbf_seconds
        if mtbf is None:
            return np.zeros_like(work)
        repeated = np.minimum(self.interruptions.segment_seconds, work / self.folds) / 2
        lost = self.interruptions.restart_seconds + repeated
        possible = self._failing_work[:, self._failing_work.min(axis=0) <= np.max(work)]
        happened = (possible <= work[..., None]).sum(axis=-1)
        share = np.minimum(lost / mtbf, 1 - work / NEVER)  # above: it repeats more than it does
        mean = work * share / (1 - share)
        counted = lost * happened
        return np.asarray(np.where(happened == FAILURES, np.maximum(counted, mean), counted))

    @cached_property
    def _failing_work(self) -> Array:
        """The least work in whose time the k-th failure comes, (S, FAILURES).

        It comes at t_k if work + k·(restart + min(segment, work/folds)/2) ≥ t_k, k failures having
        come before; that is so if it holds for both parts of the minimum.
        """
        mtbf, restart = self.interruptions.mtbf_seconds, self.interruptions.restart_seconds
        before = np.arange(FAILURES)
        late = (mtbf or 0.0) * self.shared.failures - before * restart
        in_short_runs = late / (1 + before / (2 * self.folds))
        in_long_runs = late - before * self.interruptions.segment_seconds / 2
        return np.asarray(np.maximum.accumulate(np.maximum(in_short_runs, in_long_runs), axis=1))


def quantiles(samples: Array) -> Quantiles:
    """The usual quantiles of draws."""
    p05, p10, p50, p90, p95 = np.quantile(samples, LEVELS).tolist()
    return Quantiles(p05=p05, p10=p10, p50=p50, p90=p90, p95=p95)
