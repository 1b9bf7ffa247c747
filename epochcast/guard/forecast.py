"""What the rest of a run takes, from its plan and from what was seen of it so far.

One run is slow or fast in all its parts, so quantiles of the parts add up (comonotone; Dhaene et
al. 2002), as they do in the plan. Each part is relative to its plan: a level on the log scale that
may move.

    x = log(actual/planned) of one occurrence        x = μ + ν     ν ~ N(0, σ²)     its own noise
    μ' = μ + ω                                       ω ~ N(0, W)   W = C·(1/δ − 1)  slow drift

The local-level model with a discount factor δ (West & Harrison 1997, "Bayesian Forecasting and
Dynamic Models", sections 2.5 and 6.3). Nobody knows σ before a run: trials of seconds say little of
epochs of hours. So each of ``NOISES`` has a model of its own, for each pace of the level (δ) one,
with the level's mean m and variance C, and a weight w by how well it foretold what was seen
(multi-process models, chapter 12):

    R = C/δ     Q = R + σ²     e = x − m     A = R/Q     m ← m + A·e     C ← A·σ²
    w ← w^α · N(e; 0, Q)

with the older of it slowly forgotten (α; Raftery, Kárný & Ettler 2010, "Online prediction under
model uncertainty via dynamic model averaging", Technometrics 52). Until the first one is seen a
forecast is the plan's. From then on all noises are as likely, on the log scale, whatever the plan
said of them, with a level near the plan's or, less likely, far off it; so one value says little,
and from two on the next one's P10–P90 holds about 80 %, be the noise 0.5 or 30 %.

A value that next to never happens is in doubt (chapter 11, monitoring; here the plan's noise does
count, as the centre of a Student's t with few degrees of freedom): the level may
have jumped there, or this one alone was slow. Until the next value the forecast is a mixture, with
probability π of a jump, after which the level is as uncertain as half of it. The next value says
which it was. A run in which single ones are slow once in a while is told from one that changed:

    π = (1 + jumps)/(2 + jumps + 8·singles)        the first time, either is as likely

and what single ones took on top is part of every forecast, their number being Poisson's; one that
was fast alone is noise. The first epoch of a process has its slow first steps on top and teaches
nothing about the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import erf, exp, hypot, inf, log, pi, sqrt
from statistics import NormalDist
from typing import Literal, NamedTuple

from epochcast.costmodel.scatter import LOG_REACH
from epochcast.records import Quantiles, UnitPrices
from epochcast.records.estimate import LEVELS
from epochcast.records.plan import LEAST_FACTOR, LONGEST
from epochcast.records.validation import require, require_within

# West & Harrison, section 2.4.3: 0.8 to 1 in practice, the last ten values count; and, less likely
# before any is seen, a level on its way, of which the last two say most
DISCOUNTS = ((0.9, 0.8), (0.5, 0.2))
REMEMBERED = 0.95  # α of Raftery et al.: the noise is that of the last twenty values
P95 = NormalDist().inv_cdf(0.95)
NOISE_SPREAD, NOISE_DOF = 1.0, 3.0  # of log(noise/planned): a factor of e, and far more at times
LEAST_NOISE = 0.003  # of steady epochs on an A100, relative (../docs/method.md, "Expected scatter")
NOISES = tuple(0.001 * 2**k for k in range(11))  # σ: 0.1 to 102 %
FAR_OFF, FAR_OFF_SHARE = 0.3, 0.1  # sd of a level that the plan missed, and how likely it is
UNKNOWN_SPREAD = 10.0  # of the logarithm of a duration that no plan knows
ALARM = 0.9995  # in doubt: beyond this quantile; one false alarm in a thousand values
FIRST_JUMP = log(2.0)  # of the first value seen, from the plan: noise is not known yet
LEAST_JUMP = log(1.05)  # smaller ones are left to the drift
ONCE_SINGLE = 8.0  # how much one single slow one speaks for the next to be single too
HALVINGS = 12  # of the interval in which a probability lies: known to 0.03 %
CERTAIN = 1e-4  # probabilities closer to 0 or 1 are not told apart
LEAST_WEIGHT = 1e-9  # of a noise: none is ever ruled out for good
LARGEST_SURPRISE = 700.0  # of a logarithm: floating point ends there
LARGEST = 1e6  # of a logarithm, a variance or a weight; far beyond any that was seen
NO_WEIGHT = 1e-3  # below it a forecast leaves a noise out

Part = Literal["epoch", "evaluation", "save"]


# Mixtures of normal distributions: what is forecast where one of several may be true

EXACT = 1e-7  # of a quantile, which is a logarithm
SQRT_HALF, DENSITY = sqrt(0.5), 1 / sqrt(2 * pi)  # of the standard normal distribution
STEPS = 60  # halvings alone would do: a bracket of 1e9 comes down to less than EXACT


class Normal(NamedTuple):
    """One of those that are mixed."""

    weight: float
    mean: float
    sd: float


def normalised(normals: Iterable[Normal]) -> list[Normal]:
    """With weights that add up to one."""
    kept = list(normals)
    whole = sum(normal.weight for normal in kept)
    return [normal._replace(weight=normal.weight / whole) for normal in kept]


def cumulative(mixture: Sequence[Normal], x: float) -> tuple[float, float]:
    """The probability of a value below ``x``, and its density there."""
    below = density = 0.0
    for weight, mean, sd in mixture:
        z = (x - mean) / sd
        below += weight * erf(z * SQRT_HALF)
        density += weight / sd * exp(-z * z / 2)
    return (1 + below) / 2, density * DENSITY


def quantile(mixture: Sequence[Normal], p: float) -> float:
    """The value at probability ``p``, by Newton's steps within a bracket that shrinks.

    It lies between the least and the largest of the normals' own quantiles.
    """
    z = NormalDist().inv_cdf(p)
    own = [mean + z * sd for _, mean, sd in mixture]
    low, high = min(own), max(own)
    x = sum(normal.weight * end for normal, end in zip(mixture, own, strict=True))
    for _ in range(STEPS):
        below, density = cumulative(mixture, x)
        low, high = (low, x) if below > p else (x, high)
        step = (below - p) / density if density else inf
        next_ = x - step if low < x - step < high else (low + high) / 2
        if abs(next_ - x) < EXACT:
            return next_
        x = next_
    return x


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalLevel:
    """The level, if single occurrences scatter by a certain noise and it moves at a certain pace.

    Attributes:
        weight: how likely that is.
        noise: σ² of one occurrence.
        discount: δ.
        mean, variance: m and C, of log(actual/planned).
    """

    weight: float
    noise: float
    discount: float
    mean: float
    variance: float

    def __post_init__(self) -> None:
        require_within(self, 0, LARGEST, "weight", "variance")
        require_within(self, LEAST_FACTOR, LARGEST, "noise")
        require_within(self, LEAST_FACTOR, 1, "discount")
        require_within(self, -LARGEST, LARGEST, "mean")

    def having_seen(self, value: float) -> LocalLevel:
        """After one more value; the weight is relative to those of the other models."""
        moved, error = self.variance / self.discount, value - self.mean
        spread = moved + self.noise
        gain = moved / spread
        surprise = min(error**2 / spread / 2, LARGEST_SURPRISE)
        return replace(
            self,
            weight=max(self.weight, LEAST_WEIGHT) ** REMEMBERED * exp(-surprise) / sqrt(spread),
            mean=self.mean + gain * error,
            variance=gain * self.noise,
        )

    def ahead(self, count: float) -> Normal:
        """The mean of so many to come; n steps of a random walk add W·(n + 1)(2n + 1)/(6n)."""
        drift = self.variance * (1 / self.discount - 1)
        walk = drift * (count + 1) * (2 * count + 1) / (6 * count)
        return Normal(self.weight, self.mean, sqrt(self.variance + walk + self.noise / count))


def models_of(spread: float, value: float) -> tuple[LocalLevel, ...]:
    """All models, after the first value: near the plan's level or, less likely, far off it.

    What the two say together is one normal, of the same mean and variance (Harrison & Stevens 1976,
    "Bayesian forecasting", J. R. Stat. Soc. B 38).

    Args:
        spread: standard deviation of the plan's level.
        value: the first one.
    """
    levels = ((1 - FAR_OFF_SHARE, spread), (FAR_OFF_SHARE, hypot(spread, FAR_OFF)))
    return shared_out(
        collapsed(
            LocalLevel(
                weight=share * likely, noise=noise**2, discount=discount, mean=0.0, variance=sd**2
            ).having_seen(value)
            for share, sd in levels
        )
        for discount, likely in DISCOUNTS
        for noise in NOISES
    )


def collapsed(models: Iterable[LocalLevel]) -> LocalLevel:
    """Several of the same noise as one, of the same mean and variance."""
    models = tuple(models)
    weight = sum(model.weight for model in models)
    mean = sum(model.weight * model.mean for model in models) / weight
    squares = sum(model.weight * (model.variance + (model.mean - mean) ** 2) for model in models)
    return replace(models[0], weight=weight, mean=mean, variance=squares / weight)


def shared_out(models: Iterable[LocalLevel]) -> tuple[LocalLevel, ...]:
    """With weights that add up to one."""
    models = tuple(models)
    whole = sum(model.weight for model in models)
    return tuple(replace(model, weight=model.weight / whole) for model in models)


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """What is known of one kind of duration; ``planned`` is None until a first value is seen.

    Attributes:
        planned: seconds; the level is relative to it.
        spread, noise: standard deviations of the level and of one around it, as planned.
        models: of the level, one for each noise that single ones may have; none before any is
            seen.
        seen: values that it has learned from.
        doubt: e of a last value that is in doubt; None if it was as expected.
        jumps, singles: what doubts turned out to be.
        extra: what slow single ones took on top, in all, relative to the level.
        jumped: whether the last value confirmed a jump.
    """

    planned: float | None
    spread: float = 0.0
    noise: float = LEAST_NOISE
    models: tuple[LocalLevel, ...] = ()
    seen: int = 0
    doubt: float | None = None
    jumps: int = 0
    singles: int = 0
    extra: float = 0.0
    jumped: bool = False

    def __post_init__(self) -> None:
        require_within(self, 0, LONGEST, "seen", "jumps", "singles", "extra")
        require_within(self, 0, LARGEST, "spread")
        require_within(self, LEAST_FACTOR, LARGEST, "noise")
        require_within(self, -LARGEST, LARGEST, "doubt")
        require_within(self, LEAST_FACTOR, LONGEST, "planned")
        shared = not self.models or abs(sum(model.weight for model in self.models) - 1) < 1e-6
        require(shared, "the weights of a level's models must add up to 1")

    @classmethod
    def of_plan(cls, planned: Quantiles, noise: float = 0.0) -> Level:
        """Before the run: the plan's own interval, matched at its P95.

        Args:
            planned: seconds of one; zero is unknown.
            noise: relative standard deviation of one around its run's mean.
        """
        if planned.p50 < LEAST_FACTOR:
            return cls(planned=None)
        spread = log(planned.p95 / planned.p50) / P95
        return cls(
            planned=planned.p50, spread=max(LEAST_NOISE, spread), noise=max(LEAST_NOISE, noise)
        )

    @property
    def mean(self) -> float:
        """m, over all models."""
        return sum(model.weight * model.mean for model in self.models)

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
        if seconds < LEAST_FACTOR:
            return self
        if self.planned is None:
            models = models_of(UNKNOWN_SPREAD, 0.0)
            return replace(self, planned=seconds, seen=1, models=models)
        known = replace(self, seen=self.seen + 1, jumped=False)
        value = log(seconds / self.planned)
        error = value - self.mean
        surprising = known._is_surprising(error)
        if self.doubt is not None:
            if surprising and error * self.doubt > 0:
                return known._jump(value)
            known = known._single()
        return replace(known, doubt=value - known.mean) if surprising else known._learn(value)

    def _is_surprising(self, error: float) -> bool:
        if not self.models:
            return abs(error) >= FIRST_JUMP
        if abs(error) <= LEAST_JUMP:
            return False
        steady = normalised(
            model.ahead(1.0)._replace(weight=model.weight * self._expected(model.noise))
            for model in self.models
        )
        below, _ = cumulative(steady, self.mean + error)
        return max(below, 1 - below) > ALARM

    def _expected(self, noise: float) -> float:
        """How far a noise is from the plan's: the density of Student's t, of logarithms."""
        z = log(noise / self.noise**2) / 2 / NOISE_SPREAD
        return float((1 + z**2 / NOISE_DOF) ** (-(NOISE_DOF + 1) / 2))

    def _learn(self, value: float) -> Level:
        if not self.models:
            return replace(self, models=models_of(self.spread, value))
        return replace(self, models=shared_out(m.having_seen(value) for m in self.models))

    def _jump(self, value: float) -> Level:
        """Two in a row: the level is where the second one is, and may still be on its way."""
        assert self.doubt is not None
        further = (value - self.mean - self.doubt) ** 2
        known = self.models or models_of(UNKNOWN_SPREAD, value)
        models = (replace(m, mean=value, variance=further + m.noise) for m in known)
        return replace(self, models=tuple(models), doubt=None, jumps=self.jumps + 1, jumped=True)

    def _single(self) -> Level:
        """The one in doubt was alone: slow, as others may be, or fast, which is noise."""
        assert self.doubt is not None
        sure = replace(self, doubt=None)
        if self.doubt < 0:
            return sure._learn(self.mean + self.doubt)
        return replace(
            sure, singles=self.singles + 1, extra=min(LONGEST, self.extra + exp(self.doubt) - 1)
        )

    def quantile(self, count: float, p: float) -> float:
        """Seconds of ``count`` more of them together, at probability ``p``."""
        if self.planned is None or count <= 0:
            return 0.0
        p = min(max(p, 1e-6), 1 - 1e-6)
        typical = self.planned * exp(min(quantile(self._ahead(count), p), LOG_REACH))
        return count * typical + self.planned * exp(self.mean) * self._extra(count, p)

    @property
    def _as_planned(self) -> LocalLevel:
        """Before anything was seen: the plan's own noise, and a level that does not move."""
        return LocalLevel(
            weight=1.0, noise=self.noise**2, discount=1.0, mean=0.0, variance=self.spread**2
        )

    def _ahead(self, count: float) -> list[Normal]:
        """The mean of ``count`` to come, on the log scale: in doubt, with and without a jump."""
        steady = [m for m in self.models if m.weight > NO_WEIGHT] or [self._as_planned]
        if self.doubt is None:
            return normalised(m.ahead(count) for m in steady)
        jumped = [
            replace(m, mean=m.mean + self.doubt, variance=(self.doubt / 2) ** 2) for m in steady
        ]
        chance = self.jump_probability
        return normalised(
            normal._replace(weight=share * normal.weight)
            for share, models in ((1 - chance, steady), (chance, jumped))
            for normal in (m.ahead(count) for m in models)
        )

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
        noise = hypot(prices.epoch_noise, prices.round_scatter)
        return cls(
            epoch=Level.of_plan(prices.epoch, noise),
            evaluation=Level.of_plan(prices.evaluation, noise),
            save=Level.of_plan(prices.save, noise),
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
        return Quantiles.of(self.seconds(work, p) for p in LEVELS)

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
