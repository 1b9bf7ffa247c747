"""How a duration goes in this run, relative to its plan: a level on the log scale that may move.

    x = log(actual/planned) of one occurrence        x = μ + ν     ν ~ N(0, σ²)     its own noise
    μ' = μ + ω                                       ω ~ N(0, W)   W = C·(1/δ − 1)  slow drift

The local-level model with a discount factor δ and a learned variance (West & Harrison 1997,
"Bayesian Forecasting and Dynamic Models", sections 2.5, 4.5 and 6.3). With m, C the level's mean
and variance, S the estimate of σ² and n its degrees of freedom:

    R = C/δ     Q = R + S     e = x − m     A = R/Q
    n ← n + 1     S ← S·(1 + (e²/Q − 1)/n)     m ← m + A·e     C ← A·S

A value that this says next to never happens is a jump, and is not blamed on noise (chapter 11,
monitoring and intervention): the level moves there at once, and is as uncertain as half the jump.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import exp, log, sqrt

from epochcast.costmodel.intervals import Scatter, student_t_quantile
from epochcast.records import Quantiles

DISCOUNT = 0.9  # West & Harrison, section 2.4.3: 0.8 to 1 in practice; the last ten values count
PRIOR_DOF = 5.0  # of the plan's noise: five epochs seen outweigh it
LEAST_NOISE = 0.003  # of steady epochs on an A100, relative (../docs/method.md, "Assumed scatter")
UNKNOWN_NOISE = 0.2  # of a duration that no plan knows, once seen
ALARM = 0.9995  # a jump: beyond this quantile; one false alarm in a thousand values
LEAST_JUMP = log(1.05)  # smaller ones are left to the drift


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """What is known of one kind of duration; ``planned`` is None until a first value is seen.

    Attributes:
        planned: seconds; the level is relative to it.
        mean, variance: m and C, of log(actual/planned).
        noise: S, the variance of one occurrence.
        dof: n.
        seen: values that it has learned from.
        jumped: whether the last one was a jump.
    """

    planned: float | None
    mean: float = 0.0
    variance: float = 0.0
    noise: float = UNKNOWN_NOISE**2
    dof: float = PRIOR_DOF
    seen: int = 0
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
        """Actual over planned, as learned so far."""
        return exp(self.mean)

    @property
    def median(self) -> float:
        """Seconds of the next one; 0 while nothing is known."""
        return (self.planned or 0.0) * self.ratio

    def update(self, seconds: float) -> Level:
        """Having seen one more."""
        if seconds <= 0:
            return self
        if self.planned is None:
            variance = UNKNOWN_NOISE**2
            return replace(self, planned=seconds, variance=variance, seen=1)
        moved = self.variance / DISCOUNT
        spread = moved + self.noise
        error = log(seconds / self.planned) - self.mean
        if abs(error) > max(LEAST_JUMP, student_t_quantile(ALARM, self.dof) * sqrt(spread)):
            return replace(
                self, mean=self.mean + error, variance=(error / 2) ** 2,
                seen=self.seen + 1, jumped=True,
            )  # fmt: skip
        gain, dof = moved / spread, self.dof + 1
        noise = self.noise * (1 + (error**2 / spread - 1) / dof)
        return replace(
            self, mean=self.mean + gain * error, variance=gain * noise, noise=noise, dof=dof,
            seen=self.seen + 1, jumped=False,
        )  # fmt: skip

    def quantile(self, count: float, p: float) -> float:
        """Seconds of ``count`` more of them together, at probability ``p``.

        The mean of n steps of a random walk has variance W·(n + 1)(2n + 1)/(6n).
        """
        if self.planned is None or count <= 0:
            return 0.0
        drift = self.variance * (1 / DISCOUNT - 1)
        walk = drift * (count + 1) * (2 * count + 1) / (6 * count)
        sd = sqrt(self.variance + walk + self.noise / count)
        return Scatter(sd=sd, dof=self.dof).quantile(count * self.median, p)
