"""What physics misses: a Gaussian process on the log scale beside coefficients that are uncertain.

    log y(x) = log physics(x; β) + δ(x) + ε      δ ~ GP(0, s²·k(z, z')),  ε ~ N(0, s²·λ)

(Kennedy & O'Hagan 2001, "Bayesian calibration of computer models", with β linearised.)

    name   meaning                                                             shape
    z      log₂ of what places a configuration                                 (n, d)
    r      log y − log ŷ of the configurations fitted                          (n,)
    J      ∂ log ŷ / ∂ log β: the share of each term; a row sums to 1          (n, k)
    U, T   an orthonormal basis of J's columns, U = J T                        (n, p), (k, p)
    R      K + λI, or I where residuals are not smooth                         (n, n)
    Q      R⁻¹ − R⁻¹U (UᵀR⁻¹U)⁻¹ UᵀR⁻¹                                         (n, n)

    s²            = rᵀQr / (n − p)                          restricted maximum likelihood
    correction(x) = k R⁻¹(r − Ub) + u b                     b = (UᵀR⁻¹U)⁻¹ UᵀR⁻¹r
    var(x)        = s² (1 + λ − kR⁻¹k + c (UᵀR⁻¹U)⁻¹ c)     c = u − kR⁻¹U
    left out i    = [Qr]ᵢ / Qᵢᵢ                             without fitting again

are equations 2.41, 2.42 and 5.12 of Rasmussen & Williams 2006, "Gaussian Processes for Machine
Learning"; without a smooth part they are those of linear regression, var = s²(1 + leverage).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochcast.costmodel.features import Array

LENGTH_SCALES = (1.0, 2.0, 4.0)  # doublings
NUGGETS = (0.01, 0.1, 1.0)  # λ: of the smooth part's variance
IMPROVEMENT = 0.9  # of the leave-one-out error; one in ten is noise in small samples
UNKNOWN_SD = 0.16  # constant throughput misses neighbours by 16 % on average (docs/method.md)
UNKNOWN_DOF = 3.0  # a prior worth about three rounds
UNKNOWN_LENGTH, UNKNOWN_NUGGET = 1.0, 1e-6  # neighbours are one doubling apart
MIN_ROWS = 4  # fewer say nothing about what is missed, nor about which form is right
EXACT_SD = 1e-6  # an error below this leaves nothing to improve
RANK_TOLERANCE = 1e-6  # singular values below this share of the largest say nothing

Rows = tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Discrepancy:
    """A fitted discrepancy as plain numbers; see the module for the letters.

    Attributes:
        scale: s.
        dof: n − p.
        noise_sd: standard deviation of r that is measurement noise and no error of the model.
        plain_sd: s without a smooth part.
        left_out_sd: root mean square of the leave-one-out errors.
        length_scale: of k; None where residuals are not smooth and nothing is corrected.
        nugget: λ.
        centres: z of the configurations fitted, where there is a smooth part.
        weights: R⁻¹(r − Ub).
        inverse: R⁻¹.
        basis: T.
        cross: R⁻¹U.
        gram_inverse: (UᵀR⁻¹U)⁻¹.
        offsets: b.
    """

    scale: float
    dof: float
    noise_sd: float = 0.0
    plain_sd: float
    left_out_sd: float
    length_scale: float | None = None
    nugget: float = 0.0
    centres: Rows = ()
    weights: tuple[float, ...] = ()
    inverse: Rows = ()
    basis: Rows = ()
    cross: Rows = ()
    gram_inverse: Rows = ()
    offsets: tuple[float, ...] = ()

    @property
    def corrects(self) -> bool:
        """Whether there is a smooth part."""
        return self.length_scale is not None

    def correction(self, places: Array, shares: Array) -> Array:
        """The smooth part on the log scale, (m,), at places (m, d) with shares (m, k)."""
        smooth = self._similarity(places) @ np.array(self.weights)
        return np.asarray(smooth + self._directions(shares) @ np.array(self.offsets))

    def sd(self, places: Array, shares: Array) -> Array:
        """Standard deviation of what is missed, on the log scale, (m,)."""
        u = self._directions(shares)
        variance = np.ones(len(u))
        if self.corrects:
            k = self._similarity(places)
            variance += self.nugget - ((k @ np.array(self.inverse)) * k).sum(axis=1)
            if u.shape[1]:
                u = u - k @ np.array(self.cross)
        if u.shape[1]:
            variance += ((u @ np.array(self.gram_inverse)) * u).sum(axis=1)
        missed = self.scale**2 * np.maximum(variance, 0.0) - self.noise_sd**2
        return np.sqrt(np.maximum(missed, 0.0))

    def _similarity(self, places: Array) -> Array:
        """k(z, Z), (m, n)."""
        assert self.length_scale is not None
        return kernel(places, np.array(self.centres), self.length_scale)

    def _directions(self, shares: Array) -> Array:
        """u, (m, p)."""
        return shares @ np.array(self.basis) if self.basis else np.zeros((len(shares), 0))


def kernel(Z: Array, C: Array, length_scale: float) -> Array:
    """exp(−‖z − c‖² / 2ℓ²) for rows z of Z (n, d) and c of C (m, d); shape (n, m)."""
    squared = ((Z[:, None, :] - C[None, :, :]) ** 2).sum(axis=2)
    return np.asarray(np.exp(-squared / (2 * length_scale**2)))


def fit_discrepancy(Z: Array, J: Array, r: Array, noise_sd: float = 0.0) -> Discrepancy:
    """Learn what physics misses.

    Args:
        Z: places, (n, d).
        J: shares of the terms, (n, k).
        r: log residuals, (n,).
        noise_sd: of r, from repeated measurements.
    """
    U, T = _orthonormal(J)
    if len(r) < MIN_ROWS or len(r) == U.shape[1]:
        return _assumed(Z, r, noise_sd)
    plain = _Solved(np.eye(len(r)), U, r)
    if plain.left_out_sd <= EXACT_SD or not np.ptp(Z, axis=0).any():
        return plain.discrepancy(plain, Z[:0], T, noise_sd)
    smooth = [
        (_Solved(kernel(Z, Z, length) + nugget * np.eye(len(r)), U, r), length, nugget)
        for length in LENGTH_SCALES
        for nugget in NUGGETS
    ]
    best, length, nugget = max(smooth, key=lambda candidate: candidate[0].likelihood)
    if best.left_out_sd >= IMPROVEMENT * plain.left_out_sd:
        return plain.discrepancy(plain, Z[:0], T, noise_sd)
    return best.discrepancy(plain, Z, T, noise_sd, length, nugget)


def _orthonormal(J: Array) -> tuple[Array, Array]:
    """U (n, p) and T (k, p) with U = J T, over the directions in which J says anything."""
    left, singular, right = np.linalg.svd(J, full_matrices=False)
    p = int((singular > RANK_TOLERANCE * singular.max(initial=0.0)).sum())
    return left[:, :p], right[:p].T / singular[:p]


def _assumed(Z: Array, r: Array, noise_sd: float) -> Discrepancy:
    """With no row to spare nothing is learned: what neighbours differ by, by assumption."""
    scale = max(UNKNOWN_SD, float(np.abs(r).max(initial=0.0)))
    R = kernel(Z, Z, UNKNOWN_LENGTH) + UNKNOWN_NUGGET * np.eye(len(r))
    inverse = np.linalg.inv(R)
    return Discrepancy(
        scale=scale,
        dof=UNKNOWN_DOF,
        noise_sd=noise_sd,
        plain_sd=scale,
        left_out_sd=scale,
        length_scale=UNKNOWN_LENGTH,
        nugget=UNKNOWN_NUGGET,
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
        fit = self.dof * np.log(max(self.variance, 1e-300))
        self.likelihood = -0.5 * float(fit + determinants)

    @property
    def left_out_sd(self) -> float:
        return sqrt(float(np.mean(self.left_out**2)))

    def discrepancy(
        self,
        plain: _Solved,
        Z: Array,
        T: Array,
        noise_sd: float,
        length: float | None = None,
        nugget: float = 0.0,
    ) -> Discrepancy:
        smooth = length is not None
        return Discrepancy(
            scale=sqrt(self.variance),
            dof=float(self.dof),
            noise_sd=noise_sd,
            plain_sd=sqrt(plain.variance),
            left_out_sd=self.left_out_sd,
            length_scale=length,
            nugget=nugget,
            centres=_rows(Z),
            weights=tuple(map(float, self.weights)) if smooth else (),
            inverse=_rows(self.inverse) if smooth else (),
            basis=_rows(T),
            cross=_rows(self.cross) if smooth else (),
            gram_inverse=_rows(self.gram_inverse),
            offsets=tuple(map(float, self.offsets)),
        )


def _rows(matrix: NDArray[Any]) -> Rows:
    return tuple(tuple(map(float, row)) for row in matrix)
