"""Scatter: how far a quantity strays, on the log scale, and how well that is known.

A trial of configuration c in round r has log y_cr = μ_c + u_r + ε_cr: all configurations of a
round share what the machine and the process were like (u), the rest is their own (ε). A later run
is one more draw of both, so its run-level variance is s_u² = s_round² + s_own². With few rounds
that is itself uncertain: quantiles are Student's, with Welch–Satterthwaite degrees of freedom
(Satterthwaite 1946).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp, inf, log, sqrt
from statistics import fmean, variance

from scipy.special import stdtrit

from epochcast.records import DeviceKind, Quantiles

# Run-level scatter to assume where only one round was measured, as a standard deviation of the
# log: two rounds of CPU medians differ by 20 % in the median, and 0.20/√2 = 0.14; public A100
# logs repeat within 0.5 % (both in docs/method.md, "Assumed scatter").
ASSUMED_SD: Mapping[DeviceKind, float] = {"cpu": 0.14, "cuda": 0.01, "mps": 0.03}
LEAST_RUN_SD = 0.003  # runs of the quietest device differ by so much, equal as rounded logs may be
ASSUMED_DOF = 3.0  # a prior worth about three rounds: quantiles 1.28 times the normal's
PROCESS_SD = 0.3  # start-ups of one program on a shared machine differ so (benchmarks/epochs.py)
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
        p05, p10, p90, p95 = (self.quantile(median, p) for p in (0.05, 0.10, 0.90, 0.95))
        return Quantiles(p05=p05, p10=p10, p50=median, p90=p90, p95=p95)


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
    """

    shared: Scatter
    own: Scatter
    rounds: int

    def of_a_later_run(self) -> Scatter:
        """A later run around the mean of these rounds: its own draw, and the mean's error."""
        stretch = sqrt(1 + 1 / self.rounds)
        return Scatter(sd=self.shared.sd * stretch, dof=self.shared.dof) + self.own

    def of_steps_of_a_later_run(self) -> Scatter:
        """The same of the time of steps, which never repeats exactly."""
        found = self.of_a_later_run()
        return found if found.sd >= LEAST_RUN_SD else Scatter(sd=LEAST_RUN_SD)


def round_scatter(logs: Sequence[Mapping[int, float]], kind: DeviceKind) -> RoundScatter:
    """Run-level scatter from log values by configuration and round.

    Args:
        logs: for each configuration, round → log of its value.
        kind: of device; decides what is assumed where no configuration has two rounds.
    """
    deviations: dict[int, list[float]] = {}
    freedom = 0
    for rounds in logs:
        if len(rounds) < 2:
            continue
        mean = fmean(rounds.values())
        stretch = sqrt(len(rounds) / (len(rounds) - 1))  # a deviation from one's own mean is small
        freedom += len(rounds) - 1
        for round_, value in rounds.items():
            deviations.setdefault(round_, []).append((value - mean) * stretch)
    if not freedom:
        assumed = Scatter(sd=ASSUMED_SD[kind] / sqrt(2), dof=ASSUMED_DOF)
        return RoundScatter(shared=assumed, own=assumed, rounds=1)
    return _components(list(deviations.values()), freedom)


def round_pace(logs: Sequence[Mapping[int, float]]) -> dict[int, float]:
    """How slow each round was, as a factor whose geometric mean over rounds is 1.

    Where every configuration was in every round this changes no comparison. Where some were not, it
    keeps a slow round from looking like a slow configuration: the two-way model
    log y_cr = μ_c + u_r, fitted by alternating means (backfitting; Breiman & Friedman 1985).

    Args:
        logs: for each configuration, round → log of its value.
    """
    rounds = sorted({round_ for rounds in logs for round_ in rounds})
    pace = dict.fromkeys(rounds, 0.0)
    for _ in range(MAX_BACKFITS):
        levels = [fmean(v - pace[r] for r, v in rounds_.items()) for rounds_ in logs]
        pairs = list(zip(levels, logs, strict=True))
        new = {r: fmean(x[r] - level for level, x in pairs if r in x) for r in rounds}
        centre = fmean(new.values())
        new = {r: u - centre for r, u in new.items()}
        moved = max(abs(new[r] - pace[r]) for r in rounds)
        pace = new
        if moved < BACKFITTED:
            break
    return {r: exp(u) for r, u in pace.items()}


def _components(rounds: Sequence[Sequence[float]], freedom: int) -> RoundScatter:
    """The part shared within rounds has rounds − 1 degrees of freedom, the rest has the others."""
    everything = [d for deviations in rounds for d in deviations]
    total = fmean(d * d for d in everything)
    shared_freedom = max(1, len(rounds) - 1)
    shared = min(total, max(0.0, _shared_variance(rounds)))
    return RoundScatter(
        shared=Scatter(sd=sqrt(shared), dof=shared_freedom),
        own=Scatter(sd=sqrt(total - shared), dof=max(1, freedom - shared_freedom)),
        rounds=len(rounds),
    )


def _shared_variance(rounds: Sequence[Sequence[float]]) -> float:
    """Variance of round means beyond what averaging over configurations leaves (one-way ANOVA)."""
    within = [variance(deviations) for deviations in rounds if len(deviations) > 1]
    if not within or len(rounds) < 2:
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
    """The quantile of Student's t at probability ``p``; fewer than one degree counts as one."""
    return float(stdtrit(max(1.0, dof), p))
