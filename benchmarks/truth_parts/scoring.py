"""Predictions beside truths whose noise is known, so that coverage is a probability and no count.

A later run of a truth t takes t·exp(s·z), z standard normal. An interval [a, b] holds it with
probability Φ(log(b/t)/s) − Φ(log(a/t)/s).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import exp, expm1, log
from statistics import NormalDist, fmean, median

import numpy as np

from epochcast.records import Quantiles

FARTHEST = 30.0  # |log error| of a prediction of nothing, or of infinity


@dataclass(frozen=True, slots=True)
class Scored:
    """One prediction beside its truth.

    Attributes:
        error: log of predicted median over truth.
        width: log of P95 over P5.
        in_p10_p90, in_p05_p95, above_p90: the chance of a later run.
    """

    error: float
    width: float
    in_p10_p90: float
    in_p05_p95: float
    above_p90: float

    def packed(self) -> list[int]:
        """In ten thousandths, for a file."""
        return [round(1e4 * v) for v in (self.error, self.width)] + [
            round(1e3 * v) for v in (self.in_p10_p90, self.in_p05_p95, self.above_p90)
        ]

    @classmethod
    def unpacked(cls, numbers: Sequence[int]) -> Scored:
        """What ``packed`` wrote."""
        error, width, *chances = numbers
        return cls(error / 1e4, width / 1e4, *(chance / 1e3 for chance in chances))


def score(told: Quantiles, truth: float, run_sd: float) -> Scored:
    """Score one prediction.

    Args:
        told: the predicted quantiles.
        truth: seconds without noise.
        run_sd: standard deviation of the logarithm of a later run.
    """
    p05, p10, p50, p90, p95 = (
        _log_ratio(value, truth) for value in (told.p05, told.p10, told.p50, told.p90, told.p95)
    )
    below = [_below(value, run_sd) for value in (p05, p10, p90, p95)]
    return Scored(
        error=p50,
        width=p95 - p05,
        in_p10_p90=below[2] - below[1],
        in_p05_p95=below[3] - below[0],
        above_p90=1 - below[2],
    )


def _log_ratio(value: float, truth: float) -> float:
    if not value > 0:
        return -FARTHEST
    return max(-FARTHEST, min(FARTHEST, log(value / truth)))


def _below(log_ratio: float, run_sd: float) -> float:
    return NormalDist(0, run_sd).cdf(log_ratio)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Many predictions.

    Attributes:
        count: predictions; those refused are in none of the other figures.
        median, p90: of |predicted / true − 1|.
        bias: geometric mean of predicted / true, less 1.
        p10_p90, p05_p95: chance of a later run to lie within.
        width: median of P95 / P5.
        above_p90: chance of a later run to lie above P90: an under-estimate.
        refused: questions without an answer.
    """

    count: int
    median: float
    p90: float
    bias: float
    p10_p90: float
    p05_p95: float
    width: float
    above_p90: float
    refused: int = 0


def row(scored: Iterable[Scored], refused: int = 0) -> Row | None:
    """The scores of all of them; None of none."""
    known = list(scored)
    if not known:
        return None
    errors = [abs(expm1(s.error)) for s in known]
    return Row(
        count=len(known),
        median=median(errors),
        p90=float(np.quantile(errors, 0.9)),
        bias=expm1(fmean(s.error for s in known)),
        p10_p90=fmean(s.in_p10_p90 for s in known),
        p05_p95=fmean(s.in_p05_p95 for s in known),
        width=exp(median(s.width for s in known)),
        above_p90=fmean(s.above_p90 for s in known),
        refused=refused,
    )
