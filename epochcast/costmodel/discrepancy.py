"""What physics misses: a Gaussian process on the log scale beside coefficients that are uncertain.

    log y(x) = log physics(x; β) + δ(x) + ω(x) + ε

(Kennedy & O'Hagan 2001, "Bayesian calibration of computer models", with β linearised), where δ is
smooth with covariance s²·k(z, z'), along each axis at a length scale of its own, ω belongs to each
configuration alone with variance s²·w, and ε is measurement noise with variance s²·(λ − w). At a
configuration that was measured ω is known too, so the prediction is what was measured there, as far
as noise lets it.

    name   meaning                                                             shape
    z      log₂ of where a configuration is                                    (n, d)
    r      log y − log ŷ of the configurations fitted                          (n,)
    J      ∂ log ŷ / ∂ log β: the share of each term; a row sums to 1          (n, k)
    U, T   an orthonormal basis of J's columns, U = J T                        (n, p), (k, p)
    ℓ      length scale of δ along each axis, doublings                        (d,)
    κ      k(z, Z), plus w where z is one of Z                                 (n,)
    R      K + λI, or I (λ = 1) where residuals are not smooth                 (n, n)
    Q      R⁻¹ − R⁻¹U (UᵀR⁻¹U)⁻¹ UᵀR⁻¹                                         (n, n)

    s²            = rᵀQr / (n − p)                          restricted maximum likelihood
    correction(x) = κ R⁻¹(r − Ub) + u b                     b = (UᵀR⁻¹U)⁻¹ UᵀR⁻¹r
    var(x)        = s² (k(z, z) + w − κR⁻¹κ + c (UᵀR⁻¹U)⁻¹ c)            c = u − κR⁻¹U
    left out i    = [Qr]ᵢ / Qᵢᵢ                             without fitting again

are equations 2.41, 2.42 and 5.12 of Rasmussen & Williams 2006, "Gaussian Processes for Machine
Learning"; without a smooth part, away from the data, var = s²(w + leverage): linear regression.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import log2, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochcast.costmodel.features import Array

LENGTH_SCALES = (1.0, 2.0, 4.0)  # doublings
STRETCH, MAX_STRETCH = 2.0, 8.0  # from one trial to the next, and at the end
UNEVEN = 0.25  # log prior that is lost per squared doubling between the length scales of two axes
MAX_PASSES = 3  # over the axes: from 1 to MAX_STRETCH
NUGGETS = (0.01, 0.1, 1.0)  # λ: of the smooth part's variance
IMPROVEMENT = 0.9  # of the leave-one-out error; one in ten is noise in small samples
UNKNOWN_SD = 0.16  # constant throughput misses neighbours by 16 % on average (docs/method.md)
UNKNOWN_DOF = 3.0  # a prior worth about three rounds
UNKNOWN_LENGTH, UNKNOWN_NUGGET = 1.0, 1e-6  # neighbours are one doubling apart
MISSED_SD = 0.03  # the least that a model misses, by assumption: 2.9 % on public data
MIN_ROWS = 4  # fewer say nothing about what is missed, nor about which form is right
EXACT_SD = 1e-6  # an error below this leaves nothing to improve
SAME_POINT = 1e-12  # squared doublings between two configurations that are one
TINY = 1e-300  # variances are not divided by less
RANK_TOLERANCE = 1e-6  # singular values below this share of the largest say nothing

Matrix = tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Discrepancy:
    """A fitted discrepancy as plain numbers; see the module for the letters.

    Attributes:
        scale: s.
        dof: n − p.
        plain_sd: s without a smooth part.
        left_out_rmse: root mean square of the leave-one-out errors.
        length_scale: of k; None where residuals are not smooth.
        stretches: of the length scale along each axis; none where it is the same along all.
        own: w.
        centres: Z; none where what was missed nowhere helps anywhere.
        weights: R⁻¹(r − Ub).
        inverse: R⁻¹; empty where it is I.
        basis: T.
        cross: R⁻¹U.
        gram_inverse: (UᵀR⁻¹U)⁻¹.
        offsets: b.
    """

    scale: float
    dof: float
    plain_sd: float
    left_out_rmse: float
    length_scale: float | None = None
    stretches: tuple[float, ...] = ()
    own: float = 0.0
    centres: Matrix = ()
    weights: tuple[float, ...] = ()
    inverse: Matrix = ()
    basis: Matrix = ()
    cross: Matrix = ()
    gram_inverse: Matrix = ()
    offsets: tuple[float, ...] = ()

    def correction(self, points: Array, shares: Array) -> Array:
        """What physics is believed to miss, on the log scale, (m,).

        Args:
            points: (m, d).
            shares: (m, k).
        """
        missed = self._likeness(points) @ np.array(self.weights)
        return np.asarray(missed + self._directions(shares) @ np.array(self.offsets))

    def believed(self, outside: Array) -> Array:
        """How far a correction is believed outside the range, (m,): less and less over the length
        scale, within which what was missed changes; then not at all.

        Args:
            outside: doublings outside the fitted range along each axis, (m, d).
        """
        distances = outside / self._lengths
        return np.asarray(np.maximum(0.0, 1.0 - distances.max(axis=1, initial=0.0)))

    @property
    def _lengths(self) -> float | Array:
        """ℓ, one for all axes or one for each, (d,)."""
        return (self.length_scale or 1.0) * np.array(self.stretches or 1.0)

    def sd(self, points: Array, shares: Array) -> Array:
        """Standard deviation of what is missed still, on the log scale, (m,)."""
        likeness = self._likeness(points)
        prior = self.own + (self.length_scale is not None)
        explained = likeness @ np.array(self.inverse) if self.inverse else likeness
        variance = prior - (explained * likeness).sum(axis=1)
        u = self._directions(shares)
        if u.shape[1]:
            c = u - likeness @ np.array(self.cross) if self.cross else u
            variance = variance + ((c @ np.array(self.gram_inverse)) * c).sum(axis=1)
        return np.asarray(self.scale * np.sqrt(np.maximum(variance, 0.0)))

    def _likeness(self, points: Array) -> Array:
        """κ, (m, n)."""
        if not self.centres:
            return np.zeros((len(points), 0))
        centres = np.array(self.centres)
        alike = self.own * (_squared_distances(points, centres) < SAME_POINT)
        if self.length_scale is None:
            return np.asarray(alike)
        return np.asarray(alike + kernel(points, centres, self._lengths))

    def _directions(self, shares: Array) -> Array:
        """u, (m, p)."""
        return shares @ np.array(self.basis) if self.basis else np.zeros((len(shares), 0))


def kernel(Z: Array, C: Array, lengths: float | Array) -> Array:
    """exp(−‖(z − c)/ℓ‖² / 2) for rows z of Z (n, d) and c of C (m, d); shape (n, m).

    Args:
        Z: points, (n, d).
        C: centres, (m, d).
        lengths: ℓ, one for all axes or one for each, (d,).
    """
    return np.asarray(np.exp(-_squared_distances(Z / lengths, C / lengths) / 2))


def _squared_distances(Z: Array, C: Array) -> Array:
    return np.asarray(((Z[:, None, :] - C[None, :, :]) ** 2).sum(axis=2))


def fit_discrepancy(Z: Array, J: Array, r: Array, noise_sd: float = 0.0) -> Discrepancy:
    """Learn what physics misses.

    Args:
        Z: points, (n, d).
        J: shares of the terms, (n, k).
        r: log residuals, (n,).
        noise_sd: of r, from repeated measurements.
    """
    U, T = _orthonormal(J)
    if len(r) < MIN_ROWS or len(r) == U.shape[1]:
        return _assumed(Z, r)
    plain = _Solved(np.eye(len(r)), U, r)
    if plain.left_out_rmse <= EXACT_SD or not np.ptp(Z, axis=0).any():
        return plain.discrepancy(plain, Z, T, noise_sd)
    smooth, best = _most_likely(Z, U, r)
    if best.left_out_rmse >= IMPROVEMENT * plain.left_out_rmse:
        return plain.discrepancy(plain, Z, T, noise_sd)
    return best.discrepancy(plain, Z, T, noise_sd, smooth)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Smooth:
    """What is assumed of δ: see ``Discrepancy``; ``nugget`` is λ."""

    length_scale: float
    stretches: tuple[float, ...]
    nugget: float

    def covariance(self, Z: Array) -> Array:
        """R, (n, n)."""
        lengths = self.length_scale * np.array(self.stretches)
        return kernel(Z, Z, lengths) + self.nugget * np.eye(len(Z))

    @property
    def log_prior(self) -> float:
        """Normal in the logarithm of each stretch."""
        return -UNEVEN * sum(log2(stretch) ** 2 for stretch in self.stretches)

    def neighbours(self, axis: int) -> list[_Smooth]:
        """Longer and shorter along one axis."""
        found = []
        for factor in (1 / STRETCH, STRETCH):
            moved = list(self.stretches)
            moved[axis] *= factor
            if 1 / MAX_STRETCH <= moved[axis] <= MAX_STRETCH:
                found.append(replace(self, stretches=tuple(moved)))
        return found


def _most_likely(Z: Array, U: Array, r: Array) -> tuple[_Smooth, _Solved]:
    """The best of δ alike along all axes; then along one axis after the other, as far as it helps.

    A batch size changes what is missed more slowly than another width does. Automatic relevance
    determination (Rasmussen & Williams 2006, section 5.1), by coordinate ascent.
    """

    def best(candidates: Iterable[_Smooth]) -> tuple[_Smooth, _Solved]:
        solved = [(smooth, _Solved(smooth.covariance(Z), U, r)) for smooth in candidates]
        return max(solved, key=lambda pair: pair[1].likelihood + pair[0].log_prior)

    alike = (1.0,) * Z.shape[1]
    found = best(
        _Smooth(length_scale=length, stretches=alike, nugget=nugget)
        for length in LENGTH_SCALES
        for nugget in NUGGETS
    )
    for _ in range(MAX_PASSES if len(alike) > 1 else 0):
        before = found[0]
        for axis in range(len(alike)):
            found = best([found[0], *found[0].neighbours(axis)])
        if found[0] == before:
            break
    return found


def _orthonormal(J: Array) -> tuple[Array, Array]:
    """U (n, p) and T (k, p) with U = J T, over the directions in which J says anything."""
    left, singular, right = np.linalg.svd(J, full_matrices=False)
    p = int((singular > RANK_TOLERANCE * singular.max(initial=0.0)).sum())
    return left[:, :p], right[:p].T / singular[:p]


def _assumed(Z: Array, r: Array) -> Discrepancy:
    """With no row to spare nothing is learned: what neighbours differ by, by assumption."""
    scale = max(UNKNOWN_SD, float(np.abs(r).max(initial=0.0)))
    R = kernel(Z, Z, UNKNOWN_LENGTH) + UNKNOWN_NUGGET * np.eye(len(r))
    inverse = np.linalg.inv(R)
    return Discrepancy(
        scale=scale,
        dof=UNKNOWN_DOF,
        plain_sd=scale,
        left_out_rmse=scale,
        length_scale=UNKNOWN_LENGTH,
        centres=_rows(Z),
        weights=tuple(map(float, inverse @ r)),
        inverse=_rows(inverse),
    )


class _Solved:
    """The equations solved for one R."""

    def __init__(self, R: Array, U: Array, r: Array) -> None:
        n, p = U.shape
        self.inverse = np.linalg.inv(R)
        self.cross = self.inverse @ U
        self.gram_inverse = np.linalg.inv(U.T @ self.cross)
        self.offsets = self.gram_inverse @ self.cross.T @ r
        self.weights = self.inverse @ r - self.cross @ self.offsets
        precision = np.diag(self.inverse - self.cross @ self.gram_inverse @ self.cross.T)
        self.left_out = self.weights / np.maximum(precision, 1e-12)
        self.dof = n - p
        self.variance = max(float(r @ self.weights) / self.dof, 0.0)
        determinants = np.linalg.slogdet(R)[1] - np.linalg.slogdet(self.gram_inverse)[1]
        fit = self.dof * np.log(max(self.variance, TINY))
        self.likelihood = -0.5 * float(fit + determinants)

    @property
    def left_out_rmse(self) -> float:
        return sqrt(float(np.mean(self.left_out**2)))

    def discrepancy(
        self,
        plain: _Solved,
        Z: Array,
        T: Array,
        noise_sd: float,
        smooth: _Smooth | None = None,
    ) -> Discrepancy:
        """As numbers; of λ measurement noise explains a part."""
        variance, dof = self.variance, float(self.dof)
        if noise_sd > 0:  # what was measured is never exactly physics: a prior worth one row
            variance = (dof * variance + MISSED_SD**2) / (dof + 1)
            dof += 1
        noise = noise_sd**2 / max(variance, TINY)
        return Discrepancy(
            scale=sqrt(variance),
            dof=dof,
            plain_sd=sqrt(plain.variance),
            left_out_rmse=self.left_out_rmse,
            length_scale=smooth.length_scale if smooth else None,
            stretches=smooth.stretches if smooth else (),
            own=max(0.0, (smooth.nugget if smooth else 1.0) - noise),
            centres=_rows(Z),
            weights=tuple(map(float, self.weights)),
            inverse=_rows(self.inverse) if smooth else (),
            basis=_rows(T),
            cross=_rows(self.cross),
            gram_inverse=_rows(self.gram_inverse),
            offsets=tuple(map(float, self.offsets)),
        )


def _rows(matrix: NDArray[Any]) -> Matrix:
    return tuple(map(tuple, matrix.tolist()))
