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

What failures add is in ``failures.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from epochcast.costmodel.epoch import RunParts
from epochcast.costmodel.features import Array
from epochcast.costmodel.scatter import LOG_REACH, student_t_quantile
from epochcast.planning.cadence import Cadence, Epochs
from epochcast.planning.failures import (
    FailureDeviates,
    FailureDraws,
    Interruptions,
    failure_deviates,
)
from epochcast.planning.pricing import Amount, Prices
from epochcast.records import Quantiles

DRAWS = 1000
LEVELS = (0.05, 0.1, 0.5, 0.9, 0.95)  # of ``Quantiles``
NODES = np.linspace(-4, 4, 129)  # normal scores at which Student's quantile is evaluated exactly


@dataclass(frozen=True, slots=True)
class Deviates:
    """Standard deviates that all configurations share."""

    run: Array
    epoch: Array
    power: Array
    failures: FailureDeviates


@lru_cache(maxsize=4)
def deviates(seed: int, count: int = DRAWS) -> Deviates:
    """The same seed gives the same deviates."""
    random = np.random.default_rng(seed)
    normal = NormalDist()
    cells = np.array([normal.inv_cdf((i + 0.5) / count) for i in range(count)])
    run, epoch, power = (random.permutation(cells) for _ in range(3))
    return Deviates(run=run, epoch=epoch, power=power, failures=failure_deviates(random, count))


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


class RunDraws:
    """The time of one configuration's runs, draw by draw; arrays of shape (S,)."""

    def __init__(
        self, prices: Prices, shared: Deviates, *, folds: int = 1,
        interruptions: Interruptions | None = None,
    ) -> None:  # fmt: skip
        z = shared.run
        self.shared = shared
        self.folds = folds
        self.failures = FailureDraws(interruptions, shared.failures) if interruptions else None
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
        run = RunParts(
            startup=self.startup,
            first_steps=self.first,
            full_batches=self.training * np.exp(averaged),
            loader_restart=self.turn,
            evaluation=self.evaluation,
            save=self.save,
        )
        return self._with_failures(self.folds * run.total(epochs, evaluations, saves))

    def _with_failures(self, work: Array) -> Array:
        if self.failures is None:
            return np.asarray(work)
        if work.ndim > 1:
            return np.stack([self._with_failures(row) for row in work])
        return np.asarray(work + self.failures.lost(work, work / self.folds))


def quantiles(samples: Array) -> Quantiles:
    """The usual quantiles of draws."""
    p05, p10, p50, p90, p95 = np.quantile(samples, LEVELS).tolist()
    return Quantiles(p05=p05, p10=p10, p50=p50, p90=p90, p95=p95)
