"""What the rest of a run takes, from its plan and from what was seen of it so far.

One run is slow or fast in all its parts, so quantiles of the parts add up (comonotone; Dhaene et
al. 2002), as they do in the plan. Each part is relative to its plan: a level on the log scale that
may move.

    x = log(actual/planned) of one occurrence        x = μ + ν     ν ~ N(0, σ²)     its own noise
    μ' = μ + ω                                       ω ~ N(0, W)   W = C·(1/δ − 1)  slow drift

The local-level model with a discount factor δ and a learned variance (West & Harrison 1997,
"Bayesian Forecasting and Dynamic Models", sections 2.5, 4.5 and 6.3). With m, C the level's mean
and variance, S the estimate of σ² and n its degrees of freedom:

    R = C/δ     Q = R + S     e = x − m     A = R/Q
    n ← n + 1     S ← S·(1 + (e²/Q − 1)/n)     m ← m + A·e     C ← A·S

A value that this says next to never happens is in doubt (chapter 11, monitoring): the level may
have jumped there, or this one alone was slow. Until the next value the forecast is a mixture, with
probability π of a jump, after which the level is as uncertain as half of it. The next value says
which it was. A run in which single ones are slow once in a while is told from one that changed:

    π = (1 + jumps)/(2 + jumps + 8·singles)        the first time, either is as likely

and what single ones took on top is part of every forecast, their number being Poisson's. The first
epoch of a process has its slow first steps on top and teaches nothing about the others.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import exp, log, sqrt
from statistics import NormalDist
from typing import Literal

from epochcast.costmodel.scatter import Scatter, student_t_quantile
from epochcast.records import Quantiles, UnitPrices

DISCOUNT = 0.9  # West & Harrison, section 2.4.3: 0.8 to 1 in practice; the last ten values count
PRIOR_DOF = 5.0  # of the plan's noise: five epochs seen outweigh it
LEAST_NOISE = 0.003  # of steady epochs on an A100, relative (../docs/method.md, "Assumed scatter")
UNKNOWN_NOISE = 0.2  # of a duration that no plan knows, once seen
ALARM = 0.9995  # in doubt: beyond this quantile; one false alarm in a thousand values
LEAST_JUMP = log(1.05)  # smaller ones are left to the drift
ONCE_SINGLE = 8.0  # how much one single slow one speaks for the next to be single too
HALVINGS = 12  # of the interval in which a probability lies: known to 0.03 %
CERTAIN = 1e-4  # probabilities closer to 0 or 1 are not told apart

Part = Literal["epoch", "evaluation", "save"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """What is known of one kind of duration; ``planned`` is None until a first value is seen.

    Attributes:
        planned: seconds; the level is relative to it.
        mean, variance: m and C, of log(actual/planned).
        noise: S, the variance of one occurrence.
        dof: n.
        seen: values that it has learned from.
        doubt: e of a last value that is in doubt; None if it was as expected.
        jumps, singles: what doubts turned out to be.
        extra: what slow single ones took on top, in all, relative to the level.
        jumped: whether the last value confirmed a jump.
    """

    planned: float | None
    mean: float = 0.0
    variance: float = 0.0
    noise: float = UNKNOWN_NOISE**2
    dof: float = PRIOR_DOF
    seen: int = 0
    doubt: float | None = None
    jumps: int = 0
    singles: int = 0
    extra: float = 0.0
    jumped: bool = False

    @classmethod
    def of_plan(cls, planned: Quantiles, noise: float = 0.0) -> Level:
        """Before the run: the plan's own interval, matched at its P95.

        Args:
            planned: seconds of one; zero is unknown.
            noise: relative standard deviation of one around its run's mean.
        """
        if planned.p50 <= 0:
            return cls(planned=None)
        reach = student_t_quantile(0.95, PRIOR_DOF)
        sd = max(LEAST_NOISE, log(planned.p95 / planned.p50) / reach)
        return cls(
            planned=planned.p50, variance=sd**2, noise=max(noise, LEAST_NOISE) ** 2, dof=PRIOR_DOF
        )

    @property
    def ratio(self) -> float:
        """Actual over planned, as learned so far; a value in doubt counts by its probability."""
        return exp(self.mean + (self.doubt or 0.0) * self.jump_probability)

    @property
    def median(self) -> float:
        """Seconds of the next one; 0 while nothing is known."""
        return (self.planned or 0.0) * self.ratio

    @property
    def jump_probability(self) -> float:
        """That a value in doubt is a jump: π."""
        return (1 + self.jumps) / (2 + self.jumps + ONCE_SINGLE * self.singles)

    def update(self, seconds: float) -> Level:
        """Having seen one more."""
        if seconds <= 0:
            return self
        if self.planned is None:
            return replace(self, planned=seconds, variance=UNKNOWN_NOISE**2, seen=1)
        known = replace(self, seen=self.seen + 1, jumped=False)
        error = log(seconds / self.planned) - self.mean
        surprising = known._is_surprising(error)
        if self.doubt is None:
            return replace(known, doubt=error) if surprising else known._learn(error)
        if surprising and error * self.doubt > 0:
            return known._jump(error)
        single = known._single()
        return replace(single, doubt=error) if surprising else single._learn(error)

    def _is_surprising(self, error: float) -> bool:
        spread = self.variance / DISCOUNT + self.noise
        return abs(error) > max(LEAST_JUMP, student_t_quantile(ALARM, self.dof) * sqrt(spread))

    def _learn(self, error: float) -> Level:
        moved = self.variance / DISCOUNT
        spread, dof = moved + self.noise, self.dof + 1
        gain = moved / spread
        noise = self.noise * (1 + (error**2 / spread - 1) / dof)
        return replace(
            self, mean=self.mean + gain * error, variance=gain * noise, noise=noise, dof=dof
        )

    def _jump(self, error: float) -> Level:
        """Two in a row: the level is where the second one is, and may still be on its way."""
        assert self.doubt is not None
        variance = (error - self.doubt) ** 2 + self.noise
        return replace(
            self,
            mean=self.mean + error,
            variance=variance,
            doubt=None,
            jumps=self.jumps + 1,
            jumped=True,
        )

    def _single(self) -> Level:
        """The one in doubt was alone."""
        assert self.doubt is not None
        extra = self.extra + max(0.0, exp(self.doubt) - 1)
        return replace(self, doubt=None, singles=self.singles + 1, extra=extra)

    def quantile(self, count: float, p: float) -> float:
        """Seconds of ``count`` more of them together, at probability ``p``.

        The mean of n steps of a random walk has variance W·(n + 1)(2n + 1)/(6n). The two parts of
        a mixture are far apart, or there were no doubt: each has its own share of probabilities,
        and its own side of the middle between them.
        """
        if self.planned is None or count <= 0:
            return 0.0
        if self.doubt is None:
            return self._steady(count, p, self.mean, self.variance)
        chance, slower = self.jump_probability, self.doubt > 0
        share = 1 - chance if slower else chance  # of the lower part
        low, at = p < share, p / share if p < share else (p - share) / (1 - share)
        if low is slower:
            found = self._steady(count, at, self.mean, self.variance)
        else:
            found = self._steady(count, at, self.mean + self.doubt, (self.doubt / 2) ** 2)
        middle = self._steady(count, 0.5, self.mean + self.doubt / 2, 0.0)
        return min(found, middle) if low else max(found, middle)

    def _steady(self, count: float, p: float, mean: float, variance: float) -> float:
        p = min(max(p, 1e-6), 1 - 1e-6)
        drift = variance * (1 / DISCOUNT - 1)
        walk = drift * (count + 1) * (2 * count + 1) / (6 * count)
        sd = sqrt(variance + walk + self.noise / count)
        level = (self.planned or 0.0) * exp(mean)
        typical = Scatter(sd=sd, dof=self.dof).quantile(count * level, p)
        return typical + level * self._extra(count, p)

    def _extra(self, count: float, p: float) -> float:
        """What single slow ones add, relative to the level; the normal approximation of Poisson."""
        if not self.singles:
            return 0.0
        expected = count * self.singles / self.seen
        number = max(0.0, expected + NormalDist().inv_cdf(p) * sqrt(expected))
        return number * self.extra / self.singles


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is still to be done, or part of it.

    Attributes:
        epochs: steady ones; a part of one counts as such.
        first: whether the slow first steps of a process are to come.
    """

    epochs: float = 0.0
    evaluations: float = 0.0
    saves: float = 0.0
    first: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """The parts of a run: each as planned, moved by what was seen."""

    epoch: Level
    evaluation: Level
    save: Level
    first_steps: Quantiles

    @classmethod
    def of_plan(cls, prices: UnitPrices) -> Forecast:
        """Before the run."""
        return cls(
            epoch=Level.of_plan(prices.epoch, prices.epoch_noise),
            evaluation=Level.of_plan(prices.evaluation, prices.epoch_noise),
            save=Level.of_plan(prices.save, prices.epoch_noise),
            first_steps=prices.first_steps,
        )

    def saw(self, kind: Part, seconds: float) -> Forecast:
        """Having seen one more ``"epoch"`` (a steady one), ``"evaluation"`` or ``"save"``."""
        level: Level = getattr(self, kind)
        return replace(self, **{kind: level.update(seconds)})  # type: ignore[arg-type]

    def seconds(self, work: Work, p: float) -> float:
        """Of the work, at probability ``p``."""
        parts = (
            self.epoch.quantile(work.epochs, p),
            self.evaluation.quantile(work.evaluations, p),
            self.save.quantile(work.saves, p),
            _at(self.first_steps, p) if work.first else 0.0,
        )
        return sum(parts)

    def quantiles(self, work: Work) -> Quantiles:
        """Of the work, in seconds."""
        p05, p10, p50, p90, p95 = (self.seconds(work, p) for p in (0.05, 0.1, 0.5, 0.9, 0.95))
        return Quantiles(p05=p05, p10=p10, p50=p50, p90=p90, p95=p95)

    def probability(self, work: Work, left: float) -> float:
        """That the work takes no more than ``left`` seconds."""
        low, high = CERTAIN, 1 - CERTAIN
        if self.seconds(work, low) > left:
            return 0.0
        if self.seconds(work, high) <= left:
            return 1.0
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            fits = self.seconds(work, middle) <= left
            low, high = (middle, high) if fits else (low, middle)
        return low


def _at(quantiles: Quantiles, p: float) -> float:
    """A quantile between or beyond the known ones: the nearest on the safe side."""
    known = ((0.5, quantiles.p50), (0.9, quantiles.p90), (0.95, quantiles.p95))
    return next((value for at, value in known if p <= at), quantiles.p95)
