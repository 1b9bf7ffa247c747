"""A fitted quantity over configurations, as plain numbers: evaluating it needs numpy alone.

    value(x)  = max over groups g of Σ_f∈g β_f · f(x)   ×   exp( k(z, Z) w )
    sd_log(x) = loo_sd · √( v(z) / v̄ )                   v(z) = 1 − k(z, Z) (K + λI)⁻¹ k(Z, z)

with z the log₂ of the variables named in ``axes``, v̄ the mean of v at left-out points. Without a
correction the second factor is 1 and sd_log is loo_sd everywhere inside the range; outside it
grows with the distance in doublings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import log2

import numpy as np

from epochcast.costmodel.features import Array, Feature, matrix

WIDENING_PER_DOUBLING = 1.0  # sd_log doubles one doubling outside the probed range


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """A smooth correction on the log scale; see the module's equations for the letters.

    Attributes:
        centres: Z, row by row.
        weights: w.
        inverse: (K + λI)⁻¹, row by row.
        left_out_variance: v̄.
    """

    length_scale: float
    centres: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...]
    inverse: tuple[tuple[float, ...], ...]
    left_out_variance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Surface:
    """One quantity as a function of a configuration's variables.

    Attributes:
        features: of every group, concatenated.
        groups: for each group, the positions of its features.
        coefficients: one for each entry of each group; not negative.
        axes: variables that varied between the configurations fitted.
        low, high: their range.
        loo_sd: root mean square of leave-one-out errors on the log scale.
        loo_dof: degrees of freedom behind it.
        chosen: which form was chosen, and why, for people.
    """

    features: tuple[Feature, ...]
    groups: tuple[tuple[int, ...], ...]
    coefficients: tuple[tuple[float, ...], ...]
    axes: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    correction: Correction | None = None
    loo_sd: float
    loo_dof: float
    chosen: str = ""

    def value(self, variables: Mapping[str, float]) -> float:
        """The quantity, in the unit it was fitted in."""
        terms = [_monomial(feature, variables) for feature in self.features]
        planes = (
            sum(c * terms[i] for c, i in zip(coefficients, group, strict=True))
            for group, coefficients in zip(self.groups, self.coefficients, strict=True)
        )
        return max(planes) * self._factor(variables)

    def values(self, table: Mapping[str, Array]) -> Array:
        """The quantity in n configurations, whose variables are columns; shape (n,)."""
        terms = matrix(self.features, table)
        planes = [
            terms[:, list(group)] @ np.array(coefficients)
            for group, coefficients in zip(self.groups, self.coefficients, strict=True)
        ]
        highest = np.max(planes, axis=0)
        if self.correction is None:
            return np.asarray(highest)
        Z = np.stack([np.log2(table[axis]) for axis in self.axes], axis=1)
        K = kernel(Z, np.array(self.correction.centres), self.correction.length_scale)
        return np.asarray(highest * np.exp(K @ np.array(self.correction.weights)))

    def _factor(self, variables: Mapping[str, float]) -> float:
        if self.correction is None:
            return 1.0
        return float(np.exp(self._similarity(variables) @ np.array(self.correction.weights)))

    def _similarity(self, variables: Mapping[str, float]) -> Array:
        """k(z, Z), shape (n,)."""
        if self.correction is None:
            return np.zeros(0)
        z = np.array([[log2(variables[axis]) for axis in self.axes]])
        centres = np.array(self.correction.centres)
        return np.asarray(kernel(z, centres, self.correction.length_scale)[0])

    def sd_log(self, variables: Mapping[str, float]) -> float:
        """Standard deviation of the error on the log scale, from the choice of model alone."""
        inside = self.loo_sd
        if self.correction is not None:
            k = self._similarity(variables)
            v = max(0.0, 1.0 - float(k @ np.array(self.correction.inverse) @ k))
            inside *= (v / self.correction.left_out_variance) ** 0.5
        outside = self.doublings_outside(variables)
        return max(inside, self.loo_sd * min(1.0, outside)) * (
            1.0 + WIDENING_PER_DOUBLING * outside
        )

    def doublings_outside(self, variables: Mapping[str, float]) -> float:
        """How far outside the fitted range, in doublings of the variable that is furthest out."""
        return max((d for _, d in self.outside(variables)), default=0.0)

    def outside(self, variables: Mapping[str, float]) -> list[tuple[str, float]]:
        """The variables that lie outside the fitted range, and by how many doublings."""
        distances = (
            (axis, max(log2(low / variables[axis]), log2(variables[axis] / high)))
            for axis, low, high in zip(self.axes, self.low, self.high, strict=True)
        )
        return [(axis, distance) for axis, distance in distances if distance > 1e-9]


def _monomial(feature: Feature, variables: Mapping[str, float]) -> float:
    value = 1.0
    for name, power in feature:
        value *= variables[name] ** power
    return value


def kernel(Z: Array, C: Array, length_scale: float) -> Array:
    """exp(−‖z − c‖² / 2ℓ²) for rows z of Z (n, d) and c of C (m, d); shape (n, m)."""
    squared = ((Z[:, None, :] - C[None, :, :]) ** 2).sum(axis=2)
    return np.asarray(np.exp(-squared / (2 * length_scale**2)))
