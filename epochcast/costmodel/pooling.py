"""What variants that differ in words alone, as activation=a and activation=b, lend each other.

A variant in which a knob or the batch size has fewer than three values borrows the configurations
of those in which it has more. Their shapes are shared, the level is the borrower's own:

    borrowed y = y_lender · S(x')/S(x) · e^δ        δ = mean over own rows of log y − log S

    S        the surface of the lender
    x, x'    a configuration of the lender, with its own counts and with the borrower's

How much shapes differ is measured where several are known: slopes of the logarithm of the ratio of
two variants, by the doubling; along axes that the borrower has two values of, and between lenders.

    s² = ( ν₀·s₀² + Σ slope² ) / (ν₀ + slopes)      for each doubling from the borrower's own range
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from statistics import geometric_mean
from typing import NamedTuple

import numpy as np

from epochcast.costmodel.features import COUNTS, Array, tabulate
from epochcast.costmodel.surface import Lent, Surface

LEVELS_ENOUGH = 3  # values of an axis that show how it goes on: nothing is borrowed
SHAPE_SD, SHAPE_WORTH = 0.1, 2.0  # s₀, ν₀: twice what is assumed of a trend beyond its own range


class Known(NamedTuple):
    """Variables of configurations, and a quantity in each."""

    rows: Sequence[Mapping[str, float]]
    y: Sequence[float]


def pooled_surface(
    own: Known,
    others: Sequence[Known],
    axes: Sequence[str],
    fitted: Callable[[Known], Surface],
) -> Surface:
    """The surface of what was measured, and of what is borrowed.

    Args:
        own: what was measured of the variant.
        others: of those that may lend.
        axes: variables that say where a configuration is.
        fitted: a surface of one variant, or of what was put together of several.
    """
    lenders = [(other, fitted(other)) for other in others if _lacking(own, other, axes)]
    if not lenders:
        return fitted(own)
    slopes = [slope for _, surface in lenders for slope in _slopes(own, surface)]
    slopes += [s for (a, x), (_, y) in combinations(lenders, 2) for s in _slopes_between(a, x, y)]
    surface = fitted(_together(own, [_lent(own, *lender, axes) for lender in lenders], axes))
    points = surface.points(tabulate(own.rows))
    total = SHAPE_WORTH + len(slopes)
    variance = (SHAPE_WORTH * SHAPE_SD**2 + sum(slope**2 for slope in slopes)) / total
    low, high = (tuple(map(float, ends)) for ends in (points.min(axis=0), points.max(axis=0)))
    return replace(surface, lent=Lent(low=low, high=high, sd=float(np.sqrt(variance)), dof=total))


def shows_more(theirs: Collection[float], own: Collection[float]) -> bool:
    """Whether values of an axis say more of it than one's own do, which say too little."""
    return len(own) < min(LEVELS_ENOUGH, len(theirs))


def _lacking(own: Known, other: Known, axes: Sequence[str]) -> bool:
    levels = [[{row[axis] for row in x.rows} for axis in axes] for x in (other, own)]
    return any(map(shows_more, *levels))


def _lent(own: Known, other: Known, surface: Surface, axes: Sequence[str]) -> Known:
    """The lender's rows where the borrower has none, at the borrower's level."""
    level = float(np.mean(_ratios(own, surface)))
    known = {tuple(row[axis] for axis in axes) for row in own.rows}
    factors = _count_factors(own, other, axes)
    rows, y = [], []
    for row, value in zip(other.rows, other.y, strict=True):
        if tuple(row[axis] for axis in axes) not in known:
            counted = {**row, **{n: row[n] * factor for n, factor in factors.items() if n in row}}
            moved = surface.value(counted) / surface.value(row) if factors else 1.0
            rows.append({n: v for n, v in counted.items() if n in own.rows[0]})
            y.append(value * moved * float(np.exp(level)))
    return Known(rows, y)


def _together(own: Known, lent: Sequence[Known], axes: Sequence[str]) -> Known:
    """Own rows, and of each borrowed configuration the geometric mean over those who lend it."""
    found: dict[tuple[float, ...], tuple[Mapping[str, float], list[float]]] = {}
    for known in lent:
        for row, value in zip(known.rows, known.y, strict=True):
            found.setdefault(tuple(row[a] for a in axes), (row, []))[1].append(value)
    rows = [row for row, _ in found.values()]
    y = [geometric_mean(values) for _, values in found.values()]
    return Known([*own.rows, *rows], [*own.y, *y])


def _count_factors(own: Known, other: Known, axes: Sequence[str]) -> dict[str, float]:
    """By how much more the borrower counts, in configurations that both have."""
    theirs = {tuple(row[axis] for axis in axes): row for row in other.rows}
    pairs = [(r, theirs[k]) for r in own.rows if (k := tuple(r[a] for a in axes)) in theirs]
    names = [
        n for n in COUNTS if pairs and all(min(a.get(n, 0), b.get(n, 0)) > 0 for a, b in pairs)
    ]
    return {n: float(np.exp(np.mean([np.log(a[n] / b[n]) for a, b in pairs]))) for n in names}


def _ratios(known: Known, surface: Surface) -> Array:
    """log y − log S, (n,)."""
    return np.asarray(np.log(known.y) - np.log(surface.values(tabulate(known.rows))))


def _slopes(own: Known, surface: Surface) -> list[float]:
    """Of the logarithm of own values over the lender's, by the doubling, along each axis."""
    return _slopes_of(surface.points(tabulate(own.rows)), _ratios(own, surface))


def _slopes_between(known: Known, one: Surface, other: Surface) -> list[float]:
    """Of the logarithm of one lender's values over another's, where the first was measured."""
    return _slopes_of(one.points(tabulate(known.rows)), _ratios(known, other))


def _slopes_of(points: Array, ratios: Array) -> list[float]:
    varied = np.ptp(points, axis=0) > 0
    if not varied.any() or len(ratios) <= varied.sum():
        return []
    X = np.column_stack([np.ones(len(points)), points[:, varied]])
    return [float(slope) for slope in np.linalg.lstsq(X, ratios, rcond=None)[0][1:]]
