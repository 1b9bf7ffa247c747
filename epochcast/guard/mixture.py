"""Mixtures of normal distributions: what is forecast where one of several may be true.

A mixture is a series of ``Normal``, whose weights add up to one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import erf, exp, inf, pi, sqrt
from statistics import NormalDist
from typing import NamedTuple

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


def at(mixture: Sequence[Normal], x: float) -> tuple[float, float]:
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
        below, density = at(mixture, x)
        low, high = (low, x) if below > p else (x, high)
        step = (below - p) / density if density else inf
        next_ = x - step if low < x - step < high else (low + high) / 2
        if abs(next_ - x) < EXACT:
            return next_
        x = next_
    return x
