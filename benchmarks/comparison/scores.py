"""Predictions beside truths, as numbers for a table. Everything is relative and pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, median

import numpy as np

from epochcast.records import Quantiles


@dataclass(frozen=True, slots=True, kw_only=True)
class Errors:
    """Of one method over many predictions, each |predicted / measured − 1|."""

    count: int
    mean: float
    median: float
    p90: float
    max: float


def relative_error(predicted: float, measured: float) -> float:
    """|predicted / measured − 1|."""
    return abs(predicted / measured - 1)


def errors(values: Iterable[float]) -> Errors | None:
    """Their mean, median, P90 and maximum; None of none."""
    known = list(values)
    if not known:
        return None
    p90 = float(np.quantile(known, 0.9))
    return Errors(
        count=len(known), mean=fmean(known), median=median(known), p90=p90, max=max(known)
    )


def coverage(pairs: Sequence[tuple[Quantiles, float]], low: str, high: str) -> float | None:
    """The share of values inside their own interval; None of none.

    Args:
        pairs: what was predicted, and what was measured then.
        low: name of the lower quantile, e.g. ``"p10"``.
        high: name of the upper one, e.g. ``"p90"``.
    """
    if not pairs:
        return None
    return fmean(getattr(q, low) <= value <= getattr(q, high) for q, value in pairs)


def under_estimates(pairs: Sequence[tuple[Quantiles, float]]) -> float | None:
    """The share of values above their own P95."""
    return fmean(value > q.p95 for q, value in pairs) if pairs else None
