"""Simulated runs: what a configuration's run takes in a thousand possible worlds, and what fits.

    symbol   meaning                                                                    shape
    S        draws
    z, w     deviates of a whole run and of its epochs, standard normal                 (S,)
    E        epochs

**A run.** T(E) = once + E·training·e^(s_u·t(z) + σ·t(w)/√E) + E·beside + evals·eval + saves·save
so that var T(E) = E·σ² + E²·s_u². Both are estimates: t is Student's, for each of its own degrees
of freedom. t(w)/√E stands for the mean of E independent deviates: every E has its own variance
right, and T grows with E in every draw (σ·|t(w)|/√E is at most 2), which makes the budget monotone.
Where a plan counts optimizer steps, E is a fraction of a pass (``unit``).
Deviates are stratified (one in each of S equally likely cells) and shared by all configurations,
so that two configurations differ by what they cost and not by chance: common random numbers
(Glasserman & Yao 1992). What failures add is in ``failures``.

**What fits.** E_q = largest E with P(time + reserve ≤ deadline, money, energy, disk all hold) ≥ q.
In each draw the largest number of epochs that fits under each limit is found by bisection (time
grows with epochs); what fits under all is the smallest of them; E_q is then an order statistic. So
more budget never gives fewer epochs, higher confidence never more, and the joint probability is
never above the smallest marginal, exactly and not only on average.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from statistics import NormalDist

import numpy as np

from epochcast.costmodel.epoch import RunParts
from epochcast.costmodel.features import Array
from epochcast.costmodel.prices import Prices
from epochcast.costmodel.scatter import LOG_REACH, Amount, student_t_quantile
from epochcast.planning.cadence import Cadence, Epochs
from epochcast.planning.failures import FailureDeviates, FailureDraws, Interruptions
from epochcast.planning.limits import Meter
from epochcast.planning.request import MAX_SEARCHED_EPOCHS
from epochcast.planning.unit import InEpochs, Unit
from epochcast.records import Budget, LimitName, Quantiles
from epochcast.records.estimate import LEVELS

DRAWS = 1000
NODES = np.linspace(-4, 4, 129)  # normal scores at which Student's quantile is evaluated
STEADY = 2.0  # of σ·t(w)/√E: with more of it two epochs could take less than one
ROUNDING = 1e-9  # relative: a limit met exactly is met


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviates:
    """What all configurations share.

    Attributes:
        run, epoch, power: standard normal, shape (S,).
        failures: when they come, and what they undo.
    """

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
    failures = FailureDeviates.drawn(random, count)
    return Deviates(run=run, epoch=epoch, power=power, failures=failures)


@lru_cache(maxsize=256)
def _student_scores(dof: float) -> Array:
    normal = NormalDist()
    return np.array([student_t_quantile(normal.cdf(z), dof) for z in NODES])


def student(z: Array, dof: float) -> Array:
    """Normal scores to Student's t, quantile by quantile; interpolated between ``NODES``."""
    return np.asarray(np.interp(z, NODES, _student_scores(dof)))


def sample_amount(amount: Amount, z: Array) -> Array:
    """An amount in each draw, shape (S,)."""
    if amount.scatter.sd == 0:
        return np.full(len(z), amount.median)
    reach = student(z, amount.scatter.dof) * amount.scatter.sd
    return np.asarray(amount.median * np.exp(np.clip(reach, -LOG_REACH, LOG_REACH)))


class RunDraws:
    """The time of one configuration's runs, draw by draw; arrays of shape (S,).

    Args:
        prices: of its parts.
        shared: deviates, the same for every configuration.
        folds: runs one after another.
        interruptions: None for runs that never fail.
        unit: what runs are counted in; "epochs" below are so many of it.
    """

    def __init__(
        self,
        prices: Prices,
        shared: Deviates,
        *,
        folds: int = 1,
        interruptions: Interruptions | None = None,
        unit: Unit = InEpochs(),  # noqa: B008
    ) -> None:
        z = shared.run
        self.shared, self.unit = shared, unit
        self.folds = folds
        self.startup = sample_amount(prices.startup, z) + sample_amount(prices.build, z)
        self.first = sample_amount(prices.first, z)
        self.once = self.startup + self.first
        self.training = sample_amount(prices.training, z)
        self.loader_restart = sample_amount(prices.loader_restart, z)
        self.fixed = sample_amount(prices.fixed, z)
        self.beside = self.loader_restart + self.fixed
        self.finish = sample_amount(prices.finish, z)
        self.evaluation, self.save = (
            sample_amount(prices.evaluation, z),
            sample_amount(prices.save, z),
        )
        self.noise = prices.epoch_noise
        self.reach = self.noise * student(shared.epoch, prices.noise_dof)
        self.failures = self._failures(interruptions) if interruptions else None

    @property
    def unbroken(self) -> RunDraws:
        """The same runs, none of which fails."""
        run = copy(self)
        run.failures = None
        return run

    def _failures(self, often: Interruptions) -> FailureDraws:
        epoch = self.unit.share * (self.training + self.beside)
        epoch = epoch + often.evaluations * self.evaluation + often.saves * self.save
        return FailureDraws(often, self.shared.failures, self.once, epoch, self.folds)

    def seconds(self, last: Epochs, evaluate: Cadence, save: Cadence) -> Array:
        """Seconds of all folds, shape (S,), restarts included.

        Args:
            last: the last epoch of each run, (S,) or broadcast to it.
            evaluate: when evaluations are due up to there.
            save: when saves are due up to there.
        """
        return self.until(last, evaluate.count(last), save.count(last))

    def until(self, epochs: Epochs, evaluations: Epochs, saves: Epochs) -> Array:
        """Seconds of so many epochs, evaluations and saves in each fold, restarts included.

        Counts of shape (S,) give (S,); of shape (m, 1) they give (m, S).

        Args:
            epochs: in each fold.
            evaluations: in each fold.
            saves: in each fold.
        """
        passes = self.unit.passes(epochs)
        averaged = np.clip(self.reach / np.sqrt(np.where(passes > 0, passes, 1)), -STEADY, STEADY)
        run = RunParts(
            startup=self.startup,
            first_steps=self.first,
            full_batches=passes * self.training * np.exp(averaged),
            loader_restart=self.unit.begun(epochs) * self.loader_restart,
            fixed=self.unit.begun(epochs) * self.fixed,
            evaluation=self.evaluation,
            save=self.save,
            finish=self.finish,
        )
        return self._with_failures(self.folds * run.total(1, evaluations, saves), epochs)

    def _with_failures(self, work: Array, epochs: Epochs) -> Array:
        if self.failures is None:
            return np.asarray(work)
        if work.ndim > 1:
            rows = zip(work, epochs, strict=True)
            return np.stack([self._with_failures(*row) for row in rows])
        return np.asarray(work + self.failures.lost(work, epochs))


def quantiles(samples: Array) -> Quantiles:
    """The usual quantiles of draws."""
    return Quantiles.of(np.quantile(samples, LEVELS).tolist())


# -- what limits allow -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Spending:
    """One configuration's run with its cadences, under a budget.

    Attributes:
        devices: that are paid and powered.
        reserve_seconds: kept before the deadline for the last save.
        save_bytes: of one checkpoint; 0 if unknown.
        max_saves: that are on disk, however many are paid for; None for all that ``keep`` leaves.
        keep: checkpoints on disk at once; 0 keeps all.
    """

    run: RunDraws
    evaluate: Cadence
    save: Cadence
    budget: Budget
    devices: int = 1
    reserve_seconds: float = 0.0
    save_bytes: float = 0.0
    keep: int = 0
    max_saves: int | None = None

    def seconds(self, epochs: Epochs) -> Array:
        """Seconds of the run, shape (S,)."""
        return self.run.seconds(epochs, self.evaluate, self.save)

    @cached_property
    def meter(self) -> Meter:
        """What seconds cost."""
        return Meter(self.budget, self.devices)

    def joules(self, seconds: Array) -> Array:
        """That a run of so many seconds uses, each draw at its own power."""
        return self.meter.joules(seconds, self.meter.watts(self.run.shared.power))

    def disk_bytes(self, epochs: Epochs) -> Array:
        """For checkpoints: those kept, the one being written, and an older best one.

        The checkpoint of the best value stays until a better one comes, wherever one is evaluated.
        """
        saves = self.save.count(epochs)
        spare = 1 + (self.evaluate.count(epochs) > 0)
        held = saves if self.keep == 0 else np.minimum(saves, self.keep + spare)
        if self.max_saves is not None:
            held = np.minimum(held, self.max_saves)
        return np.asarray(self.run.folds * held * self.save_bytes)

    def limits(self) -> dict[LimitName, float]:
        """The limits that are set and depend on the epochs."""
        names: tuple[LimitName, ...] = ("deadline", "money", "energy", "disk")
        known = {name: getattr(self.budget, name) for name in names}
        return {name: limit for name, limit in known.items() if limit is not None}

    def used(self, name: LimitName, epochs: Epochs) -> Array:
        """What a run of so many epochs uses of a limit in each draw, in the limit's unit."""
        if name == "disk":
            return self.disk_bytes(epochs)
        seconds = self.seconds(epochs)
        if name == "money":
            return self.meter.money(seconds)
        if name == "energy":
            return self.joules(seconds)
        return np.asarray(seconds + self.reserve_seconds + self.budget.spent_seconds)

    def affordable(self, max_epochs: int = MAX_SEARCHED_EPOCHS) -> dict[LimitName, Epochs]:
        """The epochs that each limit allows in each draw, up to ``max_epochs``."""
        return {
            name: self._affordable(name, limit, max_epochs) for name, limit in self.limits().items()
        }

    def _affordable(self, name: LimitName, limit: float, max_epochs: int) -> Epochs:
        fits = np.zeros(len(self.run.once), dtype=np.int64)
        fails = most = np.full_like(fits, max_epochs + 1)
        if self.run.failures and name != "disk":  # they only add, and take long to count
            most = replace(self, run=self.run.unbroken)._affordable(name, limit, max_epochs)
        while np.any(fails - fits > 1):
            middle = (fits + fails) // 2
            holds = middle <= most
            if np.any(holds):
                holds &= self.used(name, middle) <= limit * (1 + ROUNDING)
            fits, fails = np.where(holds, middle, fits), np.where(holds, fails, middle)
        return np.asarray(fits)


def guaranteed(epochs: Epochs, confidence: float) -> int:
    """The most epochs that fit in a share ``confidence`` of the draws."""
    position = int(len(epochs) * (1 - confidence) + ROUNDING)
    return int(np.sort(epochs)[position])


def joint(affordable: dict[LimitName, Epochs], max_epochs: int, draws: int) -> Epochs:
    """What all limits together allow in each draw.

    Args:
        affordable: epochs that each limit allows, (S,) each; empty where nothing is limited.
        max_epochs: the most that is ever allowed, whatever the limits.
        draws: S.
    """
    everything = np.full(draws, max_epochs, dtype=np.int64)
    return np.asarray(np.minimum.reduce([everything, *affordable.values()]))


def upper_quantile(samples: Array, confidence: float) -> float:
    """The smallest value that a share ``confidence`` of the draws does not exceed."""
    return float(np.quantile(samples, confidence, method="inverted_cdf"))
