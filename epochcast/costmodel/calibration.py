"""What runs that were followed say about the next one: a factor, and how wide its interval is.

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

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import exp, fsum, hypot, sqrt

from epochcast.costmodel.scatter import ASSUMED_DOF, Amount, Scatter, student_t_quantile
from epochcast.records import Warning_

SMALLEST_SD = 0.005  # public A100 logs repeat within 0.5 % (docs/method.md, "Assumed scatter")


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
    """

    runs: int = 0
    factor: float = 1.0
    weight: float = 0.0
    squares: float = 0.0

    def scatter(self, probed: Scatter) -> Scatter:
        """The run-level scatter of a later run, from the one that probes give it."""
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
        return [Warning_(code="calibrated", details=(("runs", runs), ("parts", ", ".join(texts))))]
