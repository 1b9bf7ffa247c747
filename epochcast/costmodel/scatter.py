"""Scatter: how far a quantity strays, on the log scale, and how well that is known.

A trial of configuration c in round r has log y_cr = μ_c + u_r + ε_cr: all configurations of a
round share what the machine and the process were like (u), the rest is their own (ε). A later run
is one more draw of both, so its run-level variance is s_u² = s_round² + s_own². With few rounds
that is itself uncertain: quantiles are Student's, with Welch–Satterthwaite degrees of freedom
(Satterthwaite 1946).

Runs that were followed say more about the next one (``Calibration``): a factor, and how wide its
interval is.

    symbol   meaning
    r_i      log(actual / predicted) of run i; earlier corrections are taken out of "predicted"
    s_i      run-level scatter that the cost model gives to run i, on the log scale
    b        what real runs have in common and probes do not show
    τ        how far runs scatter, in units of what the model says
    v_i      (s_min / s_i)²: run i beside the one predicted best;  m = Σ v_i

    r_i = b + e_i       b ~ N(0, s_min²/2)       e_i ~ N(0, τ²·s_i²/2)       τ² ~ Inv-χ²(ν₀, 1)

so that with no run at all r has the variance s² that probes give it: half of it is taken to be
shared by all runs, half to be each run's own. Given τ = 1 the posterior of b is conjugate, and
given its mean that of τ² is (Gelman et al. 2013, "Bayesian Data Analysis", sections 2.5 and 2.6):

    b̂  = Σ v_i·r_i / (1 + m)                               factor = e^b̂
    τ̂² = (ν₀ + Q) / (ν₀ + f)      Q = Σ (r_i − b̂)² / (s_i²/2)      f = n − m/(1 + m)
    a later run, predicted with scatter s:   s² ·τ̂²·½·(1 + 1/(1 + m)),   ν₀ + f degrees of freedom

f counts the runs less the effective number of parameters that b̂ uses (Hastie, Tibshirani & Friedman
2009, "The Elements of Statistical Learning", section 7.6); E Q = f if the model is right. ν₀ is
what the probes' own scatter is worth, at most ``ASSUMED_DOF`` runs, because probes say how probes
differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import acos, copysign, cos, exp, expm1, fsum, hypot, inf, log, pi, sqrt, tan
from statistics import NormalDist, fmean, variance

from epochcast.records import DeviceKind, Quantiles, Warning_
from epochcast.records.estimate import LEVELS

LEAST_RUN_SD = 0.003  # runs of the quietest device differ by so much, equal as rounded logs may be
SHARED_DOF = 1.0  # a prior worth one more round
MISFIT = 0.1  # of residuals larger than what is expected: the model's own, by assumption
GRID = 60  # standard deviations that a posterior is reckoned at
MOST_RUN_SD = 3.0  # the largest of them
ASSUMED_DOF = 3.0  # a prior worth about three rounds: quantiles 1.28 times the normal's
PROCESS_SD = 0.3  # start-ups of one program on a shared machine differ so (benchmarks/epochs.py)
SMALLEST_SD = 0.005  # public A100 logs repeat within 0.5 % (docs/method.md, "Expected scatter")
CENTRE = 1e-6  # of probability around the median, which is the median: closed forms lose digits
KNOWN_DOF = 1e9  # as good as infinitely many (which JSON cannot say)
MAX_BACKFITS, BACKFITTED = 200, 1e-9  # sweeps, and the change of a log that ends them
LOG_REACH = 50.0  # quantiles beyond a factor of exp(50) are as good as infinite


@dataclass(frozen=True, slots=True, kw_only=True)
class Scatter:
    """A standard deviation on the log scale, and how well it is known."""

    sd: float
    dof: float = KNOWN_DOF

    def __add__(self, other: Scatter) -> Scatter:
        """Of the product of two independent quantities; Welch–Satterthwaite for the freedom."""
        total = self.sd**2 + other.sd**2
        if total == 0:
            return Scatter(sd=0.0, dof=min(self.dof, other.dof))
        spread = self.sd**4 / self.dof + other.sd**4 / other.dof
        return Scatter(sd=sqrt(total), dof=min(KNOWN_DOF, total**2 / spread))

    def or_wider(self, other: Scatter) -> Scatter:
        """The one of the two whose P95 is the farther."""
        return max(self, other, key=lambda scatter: scatter.quantile(1.0, 0.95))

    def quantile(self, median: float, p: float) -> float:
        """The quantile at probability ``p`` of a quantity with this scatter around a median."""
        reach = student_t_quantile(p, self.dof) * self.sd
        return median * exp(max(-LOG_REACH, min(reach, LOG_REACH)))

    def narrowed(self, median: float, highest: float) -> Scatter:
        """The same, but with P95 at most at ``highest``, if that is above the median."""
        reach = student_t_quantile(0.95, self.dof)
        room = log(highest / median) / reach
        return replace(self, sd=min(self.sd, room)) if room > 0 else self

    def quantiles(self, median: float) -> Quantiles:
        """The usual quantiles of a quantity with this scatter around a median."""
        return Quantiles.of(self.quantile(median, p) for p in LEVELS)


NOTHING = Scatter(sd=0.0)


@dataclass(frozen=True, slots=True)
class Amount:
    """Seconds or bytes: a median, and its run-level scatter."""

    median: float = 0.0
    scatter: Scatter = NOTHING

    def quantiles(self) -> Quantiles:
        """The usual quantiles."""
        return self.scatter.quantiles(self.median)

    def quantile(self, p: float) -> float:
        """The quantile at a probability."""
        return self.scatter.quantile(self.median, p)


NO_COST = Amount()

PROCESS_PRIOR = Scatter(sd=PROCESS_SD, dof=ASSUMED_DOF)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundScatter:
    """Run-level scatter in its two parts, and from how many rounds it is known.

    Attributes:
        shared: u, of all configurations of a round alike.
        own: ε, of each trial.
        rounds: whose mean the cost model is fitted to.
        one_source: whether both parts are known from the same residuals, and no better together.
    """

    shared: Scatter
    own: Scatter
    rounds: int
    one_source: bool = False

    def among(self, expected: Expected) -> RoundScatter:
        """Both parts, as rounds and what is expected of the device together say."""
        part = expected.half
        shared, own = (
            x if x.sd <= LEAST_RUN_SD else part.given(x) for x in (self.shared, self.own)
        )
        return replace(self, shared=shared, own=own)

    def of_a_later_run(self) -> Scatter:
        """A later run around the mean of these rounds: its own draw, and the mean's error."""
        stretch = sqrt(1 + 1 / self.rounds)
        found = Scatter(sd=self.shared.sd * stretch, dof=self.shared.dof) + self.own
        return replace(found, dof=min(found.dof, self.own.dof)) if self.one_source else found

    def of_steps_of_a_later_run(self) -> Scatter:
        """The same of the time of steps, which never repeats exactly."""
        found = self.of_a_later_run()
        return found if found.sd >= LEAST_RUN_SD else Scatter(sd=LEAST_RUN_SD)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """How far runs differ, before any is seen: log σ is normal around log ``sd``, but with another
    standard deviation above it than below.

    Two runs, or the three points of a line, tell σ so badly that Student's interval is of no use
    (t is 6.3 at one degree of freedom). What σ may be at all says most then: a posterior on a
    grid, and the scaled inverse-χ² whose logarithm has the same mean and variance (Smyth 2004,
    "Linear models and empirical Bayes methods", section 6.2).

    Attributes:
        below, above: of log σ; a large one says nothing.
    """

    sd: float
    below: float
    above: float

    @property
    def half(self) -> Expected:
        """Of each of two parts that are alike."""
        return replace(self, sd=self.sd / sqrt(2))

    def given(self, found: Scatter) -> Scatter:
        """What is believed where so much was found; of no degrees of freedom what is expected."""
        low, high = log(LEAST_RUN_SD / 2), log(MOST_RUN_SD)
        logs = [low + (high - low) * i / (GRID - 1) for i in range(GRID)]
        likely = [self._log_likely(x, found) for x in logs]
        weights = [exp(x - max(likely)) for x in likely]
        mean = 2 * fsum(w * x for w, x in zip(weights, logs, strict=True)) / fsum(weights)
        squares = (w * (2 * x - mean) ** 2 for w, x in zip(weights, logs, strict=True))
        return _of_log_variance(mean, fsum(squares) / fsum(weights))

    def _log_likely(self, log_sd: float, found: Scatter) -> float:
        away = log_sd - log(self.sd)
        prior = (away / (self.above if away > 0 else self.below)) ** 2 / 2
        return -prior - found.dof * (log_sd + (found.sd / exp(log_sd)) ** 2 / 2)


def _of_log_variance(mean: float, variance: float) -> Scatter:
    """With log σ² of this mean and variance: ψ'(ν/2) is the variance, and the mean is
    log(s²·ν/2) − ψ(ν/2). Both by their asymptotic series (Abramowitz & Stegun 6.3.18 and 6.4.12),
    whose next term is fitted at ν = 1 and 2: within 1 %."""
    x = (1 + sqrt(1 + 2 * variance)) / (2 * variance) + 0.06
    return Scatter(sd=exp((mean - 1 / (2 * x) - 1 / (12 * x * x + 0.9)) / 2), dof=2 * x)


# Medians of two rounds of CPU trials differ by 20 % in the median; public A100 logs repeat within
# 0.5 %, steps of an H200 that wait for a loader by 50 % (docs/method.md, "Expected scatter").
EXPECTED: Mapping[DeviceKind, Expected] = {
    "cpu": Expected(sd=0.18, below=1.5, above=0.7),
    "cuda": Expected(sd=0.05, below=2.0, above=1.2),
    "mps": Expected(sd=0.10, below=2.0, above=1.0),
}


def expected_scatter(kind: DeviceKind, waiting: float) -> Expected:
    """Of steps of which a share waits for data, which a host makes: that share strays as it does.

    Args:
        kind: of device that computes.
        waiting: share of a step.
    """
    device, host = EXPECTED[kind], EXPECTED["cpu"]
    if kind == "cpu":
        return host
    return Expected(
        sd=hypot((1 - waiting) * device.sd, waiting * host.sd),
        below=(1 - waiting) * device.below + waiting * host.below,
        above=(1 - waiting) * device.above + waiting * host.above,
    )


def round_scatter(logs: Sequence[Mapping[int, float]]) -> RoundScatter | None:
    """Run-level scatter from log values by configuration and round; None where none has two.

    Args:
        logs: for each configuration, round → log of its value.
    """
    deviations: dict[int, list[float]] = {}
    freedom = repeated = 0
    for rounds in logs:
        if len(rounds) < 2:
            continue
        mean = fmean(rounds.values())
        stretch = sqrt(len(rounds) / (len(rounds) - 1))  # a deviation from one's own mean is small
        freedom, repeated = freedom + len(rounds) - 1, repeated + 1
        for round_, value in rounds.items():
            deviations.setdefault(round_, []).append((value - mean) * stretch)
    if repeated > 1:
        return _components(list(deviations.values()), freedom)
    return _of_one_configuration(list(deviations.values())) if repeated else None


def _of_one_configuration(rounds: Sequence[Sequence[float]]) -> RoundScatter:
    """Nothing tells the two parts apart: each is half."""
    squares = fmean(d * d for deviations in rounds for d in deviations)
    part = Scatter(sd=sqrt(squares / 2), dof=len(rounds) - 1)
    return RoundScatter(shared=part, own=part, rounds=len(rounds), one_source=True)


def of_one_round(expected: Expected, residual: Scatter = NOTHING) -> RoundScatter:
    """Run-level scatter where only one round was measured, from what a fit to it leaves.

    Residuals hold each trial's own part, not the shared one, and what the model misses beside it.
    Small ones bound what trials scatter; of large ones a part is taken for the model's.

    Args:
        expected: of the device, before.
        residual: of the fit, and its degrees of freedom; none where it says nothing.
    """
    likely, left = expected.half.sd**2, residual.sd**2
    told = left if left < likely else left - MISFIT * (left - likely)
    dof = 0.0 if residual is NOTHING else residual.dof
    part = expected.half.given(Scatter(sd=sqrt(told), dof=dof))
    return RoundScatter(shared=part, own=part, rounds=1, one_source=True)


def round_pace(logs: Sequence[Mapping[int, float]], run: RoundScatter) -> dict[int, float]:
    """How slow each round was, as a factor whose geometric mean over rounds is 1.

    Where every configuration was in every round this changes no comparison. Where some were not, it
    keeps a slow round from looking like a slow configuration: the two-way model
    log y_cr = μ_c + u_r + ε_cr, u_r as likely as the scatter says, fitted by alternating means
    (backfitting; Breiman & Friedman 1985). So a difference that one configuration shows is taken
    for the round's by half.

    Args:
        logs: for each configuration, round → log of its value.
        run: how far rounds and trials scatter.
    """
    rounds = sorted({round_ for rounds in logs for round_ in rounds})
    pace = dict.fromkeys(rounds, 0.0)
    some = [repeated for repeated in logs if len(repeated) > 1]
    ridge = (run.own.sd / run.shared.sd) ** 2 if run.shared.sd else 0.0
    for _ in range(MAX_BACKFITS if some else 0):
        levels = [fmean(v - pace[r] for r, v in repeated.items()) for repeated in some]
        pairs = list(zip(levels, some, strict=True))
        new = dict(pace)
        for r in rounds:
            left = [x[r] - level for level, x in pairs if r in x]
            new[r] = sum(left) / (len(left) + ridge) if left else 0.0
        centre = fmean(new.values())
        new = {r: u - centre for r, u in new.items()}
        moved = max(abs(new[r] - pace[r]) for r in rounds)
        pace = new
        if moved < BACKFITTED:
            break
    return {r: exp(u) for r, u in pace.items()}


def _components(rounds: Sequence[Sequence[float]], freedom: int) -> RoundScatter:
    """The part shared within rounds has rounds − 1 degrees of freedom, the rest has the others.

    Two rounds are alike by chance now and then, which is no reason to believe that all are: a prior
    says that rounds differ as trials within them do.
    """
    everything = [d for deviations in rounds for d in deviations]
    total = fmean(d * d for d in everything)
    shared_freedom = max(1, len(rounds) - 1)
    shared = min(total, max(0.0, _shared_variance(rounds)))
    known = shared_freedom + SHARED_DOF
    raised = (shared_freedom * shared + SHARED_DOF * (total - shared)) / known
    return RoundScatter(
        shared=Scatter(
            sd=sqrt(max(shared, raised)), dof=known if raised > shared else shared_freedom
        ),
        own=Scatter(sd=sqrt(total - shared), dof=max(1, freedom - shared_freedom)),
        rounds=len(rounds),
    )


def _shared_variance(rounds: Sequence[Sequence[float]]) -> float:
    """Variance of round means beyond what averaging over configurations leaves (one-way ANOVA)."""
    within = [variance(deviations) for deviations in rounds if len(deviations) > 1]
    if not within:
        return inf
    means = [fmean(deviations) for deviations in rounds]
    per_round = fmean(len(deviations) for deviations in rounds)
    # deviations were stretched by √(R/(R−1)), so their means already have the right variance
    return fmean(m * m for m in means) - fmean(within) / per_round


def constant_scatter(errors: Sequence[float]) -> Scatter:
    """Scatter of what is paid once per process, from log deviations from process to process.

    A few processes within minutes of each other say little about next week's (the page cache is
    warm, the neighbours are the same), so ``PROCESS_PRIOR`` counts as so many further deviations:
    the scaled inverse-χ² posterior (Gelman et al. 2013, "Bayesian Data Analysis", section 2.6).
    """
    freedom = max(0, len(errors) - 1)
    total = PROCESS_PRIOR.dof + freedom
    squares = PROCESS_PRIOR.dof * PROCESS_PRIOR.sd**2 + sum(e * e for e in errors)
    return Scatter(sd=sqrt(squares / total), dof=total)


def student_t_quantile(p: float, dof: float) -> float:
    """The quantile of Student's t at probability ``p``; fewer than one degree counts as one.

    Within 0.14 % from two degrees of freedom on (Hill 1970, "Algorithm 396: Student's
    t-quantiles", Comm. ACM 13); exact at one; in between within 1 % for 0.05 ≤ p ≤ 0.95 and 4 %
    out to four standard deviations. ``scipy.special.stdtrit`` is what the tests compare with; it
    is not called here because loading it takes a quarter of the time of ``epochcast predict``.
    """
    tails = 2 * min(p, 1 - p)
    if 1 - tails < CENTRE:
        return 0.0
    upper = _hill_quantile(tails, dof) if dof >= 2 else _quantile_of_few(tails, max(1.0, dof))
    return copysign(upper, p - 0.5)


def _hill_quantile(tails: float, dof: float) -> float:
    """The positive value beyond which, on either side, lies a share ``tails``; Hill's symbols."""
    if dof >= KNOWN_DOF:
        return -NormalDist().inv_cdf(tails / 2)
    a = 1 / (dof - 0.5)
    b = 48 / a**2
    c = ((20700 * a / b - 98) * a - 16) * a + 96.36
    d = ((94.5 / (b + c) - 3) / b + 1) * sqrt(a * pi / 2) * dof
    y = (d * tails) ** (2 / dof)
    if y <= 0.05 + a:  # far out in the tails
        tail = 1 / (((dof + 6) / (dof * y) - 0.089 * d - 0.822) * (dof + 2) * 3)
        tail = ((tail + 0.5 / (dof + 4)) * y - 1) * (dof + 1) / (dof + 2)
        return sqrt(dof * (tail + 1 / y))
    x = NormalDist().inv_cdf(tails / 2)
    if dof < 5:
        c += 0.3 * (dof - 4.5) * (x + 0.6)
    c += (((0.05 * d * x - 5) * x - 7) * x - 2) * x + b
    y = x * x
    y = (((((0.4 * y + 6.3) * y + 36) * y + 94.5) / c - y - 3) / b + 1) * x
    return sqrt(dof * expm1(a * y * y))


def _quantile_of_few(tails: float, dof: float) -> float:
    """From one to two degrees: the logarithm is nearly a parabola in 1/dof, here through 1, 2 and
    4, whose quantiles have a closed form (Shaw 2006, "Sampling Student's T distribution", 3)."""
    a, x = tails * (2 - tails), 1 / dof
    one = log(tan(pi * (1 - tails) / 2))
    two = log((1 - tails) * sqrt(2 / a))
    four = log(2 * sqrt(cos(acos(sqrt(a)) / 3) / sqrt(a) - 1))
    lagrange = (
        one * (x - 1 / 2) * (x - 1 / 4) * 8 / 3,
        two * (x - 1) * (x - 1 / 4) * -8,
        four * (x - 1) * (x - 1 / 2) * 16 / 3,
    )
    return exp(sum(lagrange))


# -- what runs say beyond probes ---------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Error:
    """One run beside its prediction: r and s, on the log scale."""

    log_ratio: float
    sd: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What runs say about one part of a run; without any, nothing.

    Attributes:
        runs: n, how many.
        factor: that times predicted from probes alone are multiplied with.
        weight: m.
        squares: Q.
        elsewhere: what is unknown beside, because another device was measured.
    """

    runs: int = 0
    factor: float = 1.0
    weight: float = 0.0
    squares: float = 0.0
    elsewhere: Scatter = NOTHING

    def scatter(self, probed: Scatter) -> Scatter:
        """The run-level scatter of a later run, from the one that probes give it."""
        if self.elsewhere.sd:
            return probed + self.elsewhere
        if not self.runs:
            return probed
        known = min(probed.dof, ASSUMED_DOF)
        total = known + self.runs - self.weight / (1 + self.weight)
        common = (self.weight + 2) / (self.weight + 1) / 2
        scale = (known + self.squares) / total * common
        sure = max(probed.dof, total)
        if scale <= 1:
            return Scatter(sd=probed.sd * sqrt(scale), dof=sure)
        # more than probes could tell, however sure they were: only runs say by how much
        wider = hypot(probed.sd, sqrt(scale - 1) * max(probed.sd, SMALLEST_SD))
        share = 1 / scale
        return Scatter(sd=wider, dof=1 / (share / sure + (1 - share) / total))

    def of(self, probed: Amount) -> Amount:
        """A part of a later run, from what probes give it."""
        return Amount(self.factor * probed.median, self.scatter(probed.scatter))

    def width_change(self, probed: Scatter) -> float:
        """Width of the P10–P90 interval on the log scale, relative to what probes give it."""
        wide, before = (
            student_t_quantile(0.9, scatter.dof) * scatter.sd
            for scatter in (self.scatter(probed), probed)
        )
        return wide / before if before else 1.0


def calibration(errors: Sequence[Error]) -> Calibration:
    """What runs say about the next one; their order does not matter."""
    if not errors:
        return Calibration()
    sds = [max(error.sd, SMALLEST_SD) for error in errors]
    weights = [(min(sds) / sd) ** 2 for sd in sds]
    weight = fsum(weights)
    pulls = (v * error.log_ratio for v, error in zip(weights, errors, strict=True))
    shared = fsum(pulls) / (1 + weight)
    rests = ((e.log_ratio - shared) / sd for e, sd in zip(errors, sds, strict=True))
    return Calibration(
        runs=len(errors),
        factor=exp(shared),
        weight=weight,
        squares=2 * fsum(rest * rest for rest in rests),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrations:
    """Of each part of a run that outcomes tell apart.

    Attributes:
        epoch: a steady one, evaluation and saves excluded.
        startup: process start until the first step can begin.
        evaluation, save: one of each.
    """

    epoch: Calibration = field(default_factory=Calibration)
    startup: Calibration = field(default_factory=Calibration)
    evaluation: Calibration = field(default_factory=Calibration)
    save: Calibration = field(default_factory=Calibration)

    def notes(self, probed: Scatter) -> list[Warning_]:
        """What runs have changed, in words, where probes give an epoch such a scatter."""
        named = (
            ("epochs", self.epoch),
            ("start-up", self.startup),
            ("evaluation", self.evaluation),
            ("saves", self.save),
        )
        texts = [f"{name} × {found.factor:.3g}" for name, found in named if found.runs]
        if not texts:
            return []
        if self.epoch.runs:
            texts[0] += f" (the interval {self.epoch.width_change(probed):.2f} times as wide)"
        runs = str(max(found.runs for _, found in named))
        return [Warning_.of("calibrated", runs=runs, parts=", ".join(texts))]
