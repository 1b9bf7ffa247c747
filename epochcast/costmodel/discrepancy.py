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
    e      (1 − ‖z − z'‖/ℓ₀)₊^(⌊d/2⌋ + 1): what is each one's own holds nearby too, and no further
    K      k(Z, Z) + w·e(Z, Z), or w·e(Z, Z) where residuals are not smooth    (n, n)
    κ      the same of z and Z                                                 (n,)
    R      K + (λ − w)I                                                        (n, n)
    Q      R⁻¹ − R⁻¹U (UᵀR⁻¹U)⁻¹ UᵀR⁻¹                                         (n, n)

    s²            = rᵀQr / (n − p)                          restricted maximum likelihood
    correction(x) = κ R⁻¹(r − Ub) + u b                     b = (UᵀR⁻¹U)⁻¹ UᵀR⁻¹r
    var(x)        = s² (k(z, z) + w − κR⁻¹κ + c (UᵀR⁻¹U)⁻¹ c)            c = u − κR⁻¹U
    left out i    = [Qr]ᵢ / Qᵢᵢ                             without fitting again

are equations 2.41, 2.42 and 5.12 of Rasmussen & Williams 2006, "Gaussian Processes for Machine
Learning"; e is a covariance in d dimensions (Wendland 1995, "Piecewise polynomial, positive
definite and compactly supported radial functions of minimal degree"). Without a smooth part, away
from the data, var = s²(w + leverage): linear regression. Of many configurations those that lie
farthest from each other stand for all (``SUPPORT``), so that fitting takes no longer and a stored
model gets no larger ("subset of data", Rasmussen & Williams, section 8.3).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from math import log2, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochcast.costmodel.features import Array
from epochcast.costmodel.scatter import NOTHING, Scatter

LENGTH_SCALES = (1.0, 2.0, 4.0)  # doublings
STRETCH, MAX_STRETCH = 2.0, 8.0  # from one trial to the next, and at the end
UNEVEN = 0.25  # log prior that is lost per squared doubling between the length scales of two axes
MAX_PASSES = 3  # over the axes: from 1 to MAX_STRETCH
NUGGETS = (0.01, 0.1, 1.0)  # λ: of the smooth part's variance
IMPROVEMENT = 0.9  # of the leave-one-out error; one in ten is noise in small samples
UNKNOWN_SD = 0.16  # constant throughput misses neighbours by 16 % on average (docs/method.md)
UNKNOWN_DOF = 3.0  # a prior worth about three rounds
UNKNOWN_LENGTH, UNKNOWN_NUGGET = 1.0, 1e-6  # neighbours are one doubling apart
OWN_LENGTH = 0.35  # ℓ₀, doublings: the next batch sizes run the same kernels
SUPPORT = 100  # configurations at the most
FEW_SD, FEW_DOF = 0.05, 3.0  # what three configurations of one model miss, a prior worth three
MISSED_DOF = 1.0  # a prior worth one row
MISSED_SD = 0.03  # the least that a model misses, by assumption: 2.9 % on public data
MIN_ROWS = 4  # fewer say nothing about what is missed, nor about which form is right
EXACT_SD = 1e-6  # an error below this leaves nothing to improve
ROUNDING = 1e-10  # of λ: two rows at one point do not make R singular
TINY = 1e-300  # variances are not divided by less
RANK_TOLERANCE = 1e-6  # singular values below this share of the largest say nothing

Matrix = tuple[tuple[float, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Discrepancy:
    """A fitted discrepancy as plain numbers; see the module for the letters.

    Attributes:
        scale: s.
        dof: n − p.
        plain_sd: s without a smooth part.
        left_out_rmse: root mean square of the leave-one-out errors.
        residual: of single configurations around physics and δ, √λ·s, noise included.
        length_scale: of k; None where residuals are not smooth.
        stretches: of the length scale along each axis; none where it is the same along all.
        own: w.
        noise: λ − w.
        centres: Z; none where what was missed nowhere helps anywhere.
        weights: R⁻¹(r − Ub).
        basis: T.
        directions: U.
        gram_inverse: (UᵀR⁻¹U)⁻¹.
        offsets: b.
    """

    scale: float
    dof: float
    plain_sd: float
    left_out_rmse: float
    residual: Scatter = NOTHING
    length_scale: float | None = None
    stretches: tuple[float, ...] = ()
    own: float = 0.0
    noise: float = 0.0
    centres: Matrix = ()
    weights: tuple[float, ...] = ()
    basis: Matrix = ()
    directions: Matrix = ()
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
    def smoothness(self) -> _Smooth | None:
        """What was assumed of δ; None where residuals are not smooth."""
        if self.length_scale is None:
            return None
        stretches = self.stretches or (1.0,) * len(self.centres[0])
        nugget = self.own + self.noise
        return _Smooth(length_scale=self.length_scale, stretches=stretches, nugget=nugget)

    @property
    def _lengths(self) -> float | Array:
        """ℓ, one for all axes or one for each, (d,)."""
        return (self.length_scale or 1.0) * np.array(self.stretches or 1.0)

    def sd(self, points: Array, shares: Array) -> Array:
        """Standard deviation of what is missed still, on the log scale, (m,)."""
        likeness = self._likeness(points)
        prior = self.own + (self.length_scale is not None)
        explained = likeness @ self._inverse
        variance = prior - (explained * likeness).sum(axis=1)
        u = self._directions(shares)
        if u.shape[1]:
            c = u - explained @ np.array(self.directions)
            variance = variance + ((c @ np.array(self.gram_inverse)) * c).sum(axis=1)
        return np.asarray(self.scale * np.sqrt(np.maximum(variance, 0.0)))

    @cached_property
    def _inverse(self) -> Array:
        """R⁻¹, (n, n)."""
        if not self.centres:
            return np.zeros((0, 0))
        centres = np.array(self.centres)
        return np.asarray(
            np.linalg.inv(self._likeness(centres) + self.noise * np.eye(len(centres)))
        )

    def _likeness(self, points: Array) -> Array:
        """κ, (m, n)."""
        if not self.centres:
            return np.zeros((len(points), 0))
        centres = np.array(self.centres)
        alike = self.own * neighbourhood(points, centres)
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


def neighbourhood(Z: Array, C: Array) -> Array:
    """e, (n, m), of rows z of Z (n, d) and c of C (m, d)."""
    reach = np.maximum(0.0, 1.0 - np.sqrt(_squared_distances(Z, C)) / OWN_LENGTH)
    return np.asarray(reach ** (Z.shape[1] // 2 + 1))


def _squared_distances(Z: Array, C: Array) -> Array:
    return np.asarray(((Z[:, None, :] - C[None, :, :]) ** 2).sum(axis=2))


def fit_discrepancy(
    Z: Array,
    J: Array,
    r: Array,
    noise_sd: float = 0.0,
    like: Discrepancy | None = None,
    *,
    seek: bool = True,
) -> Discrepancy:
    """Learn what physics misses.

    Args:
        Z: points, (n, d).
        J: shares of the terms, (n, k).
        r: log residuals, (n,).
        noise_sd: of r, from repeated measurements.
        like: of nearly the same configurations: as smooth as that one is.
        seek: whether a smooth part is sought, where there is nothing like it.
    """
    if len(r) > SUPPORT:
        some = farthest(Z, SUPPORT)
        Z, J, r = Z[some], J[some], r[some]
    U, T = _orthonormal(J, r)
    if len(r) < MIN_ROWS or len(r) == U.shape[1]:
        return _assumed(Z, r, len(r) - U.shape[1])
    data = _Rows(Z=Z, U=U, T=T, r=r, noise_sd=noise_sd)
    plain = data.solved(None)
    if like is not None:
        smooth = like.smoothness
    elif not seek or plain.left_out_rmse <= EXACT_SD or not np.ptp(Z, axis=0).any():
        smooth = None
    else:
        smooth = _most_likely(data)
        better = data.solved(smooth).left_out_rmse < IMPROVEMENT * plain.left_out_rmse
        smooth = smooth if better else None
    return data.discrepancy(smooth, plain)


def farthest(Z: Array, count: int) -> Array:
    """Rows of Z (n, d) that lie far from each other, (count,): each is the farthest from those
    before (Gonzalez 1985, "Clustering to minimize the maximum intercluster distance")."""
    chosen = [int(np.argmin(Z.sum(axis=1)))]
    nearest = ((Z - Z[chosen[0]]) ** 2).sum(axis=1)
    while len(chosen) < count:
        chosen.append(int(np.argmax(nearest)))
        nearest = np.minimum(nearest, ((Z - Z[chosen[-1]]) ** 2).sum(axis=1))
    return np.array(sorted(chosen))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Smooth:
    """What is assumed of δ: see ``Discrepancy``; ``nugget`` is λ."""

    length_scale: float
    stretches: tuple[float, ...]
    nugget: float

    def covariance(self, squares: Array) -> Array:
        """k(Z, Z), (n, n), from the squared distances along each axis, (d, n, n)."""
        weights = 1.0 / (self.length_scale * np.array(self.stretches)) ** 2
        return np.asarray(np.exp(np.tensordot(weights, squares, 1) / -2))

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


def _most_likely(data: _Rows) -> _Smooth:
    """The best of δ alike along all axes; then along one axis after the other, as far as it helps.

    A batch size changes what is missed more slowly than another width does. Automatic relevance
    determination (Rasmussen & Williams 2006, section 5.1), by coordinate ascent.
    """

    def best(candidates: Iterable[_Smooth]) -> _Smooth:
        return max(candidates, key=lambda x: data.solved(x).likelihood + x.log_prior)

    alike = (1.0,) * data.Z.shape[1]
    found = best(
        _Smooth(length_scale=length, stretches=alike, nugget=nugget)
        for length in LENGTH_SCALES
        for nugget in NUGGETS
    )
    varied = [axis for axis in range(len(alike)) if np.ptp(data.Z[:, axis]) > 0]
    for _ in range(MAX_PASSES if len(varied) > 1 else 0):
        before = found
        for axis in varied:
            found = best([found, *found.neighbours(axis)])
        if found == before:
            break
    return found


def _orthonormal(J: Array, r: Array) -> tuple[Array, Array]:
    """U (n, p) and T (k, p) with U = J T, over the directions in which J says anything.

    One in which coefficients could double and change all rows together by less than what a row is
    off is not among them: it was fitted to noise, and other configurations would pay for that.
    """
    left, singular, right = np.linalg.svd(J, full_matrices=False)
    least = max(RANK_TOLERANCE * singular.max(initial=0.0), float(np.sqrt(np.mean(r**2))))
    p = int((singular > least).sum())
    return left[:, :p], right[:p].T / singular[:p]


def _assumed(Z: Array, r: Array, spare: int) -> Discrepancy:
    """With hardly a row to spare little is learned: what neighbours differ by, by assumption."""
    sd, dof = max(UNKNOWN_SD, float(np.abs(r).max(initial=0.0))), UNKNOWN_DOF
    squares, residual = float(r @ r), NOTHING
    if len(r) == MIN_ROWS - 1 and (np.ptp(Z, axis=0) > 0).sum() <= 1:
        sd, dof = sqrt((FEW_DOF * FEW_SD**2 + squares) / (FEW_DOF + spare)), FEW_DOF + spare
        residual = Scatter(sd=sqrt(squares / spare), dof=spare) if spare else NOTHING
    R = kernel(Z, Z, UNKNOWN_LENGTH) + UNKNOWN_NUGGET * np.eye(len(r))
    return Discrepancy(
        scale=sd,
        dof=dof,
        plain_sd=sd,
        left_out_rmse=sd,
        residual=residual,
        length_scale=UNKNOWN_LENGTH,
        noise=UNKNOWN_NUGGET,
        centres=_rows(Z),
        weights=tuple(map(float, np.linalg.solve(R, r))),
    )


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """What is fitted; see the module for the letters."""

    Z: Array
    U: Array
    T: Array
    r: Array
    noise_sd: float

    @cached_property
    def squares(self) -> Array:
        """Squared distances along each axis, (d, n, n)."""
        return np.asarray((self.Z.T[:, :, None] - self.Z.T[:, None, :]) ** 2)

    def solved(self, smooth: _Smooth | None, own: float = 0.0) -> _Solved:
        """The equations; all of λ is taken for noise where w, ``own``, decides nothing."""
        nugget = smooth.nugget if smooth else 1.0
        R = (nugget - own) * np.eye(len(self.r))
        if own:
            R = R + own * neighbourhood(self.Z, self.Z)
        if smooth:
            R = R + smooth.covariance(self.squares)
        return _Solved(R, self.U, self.r)

    def discrepancy(self, smooth: _Smooth | None, plain: _Solved) -> Discrepancy:
        """As numbers; of λ measurement noise explains a part, the rest is each one's own."""
        nugget = smooth.nugget if smooth else 1.0
        noise = self.noise_sd**2 / max(self._variance(self.solved(smooth))[0], TINY)
        own = max(0.0, nugget - max(noise, nugget * ROUNDING))
        found = self.solved(smooth, own)
        variance, dof = self._variance(found)
        return Discrepancy(
            scale=sqrt(variance),
            dof=dof,
            plain_sd=sqrt(plain.variance),
            left_out_rmse=found.left_out_rmse,
            residual=Scatter(sd=sqrt(nugget * found.variance), dof=float(found.dof)),
            length_scale=smooth.length_scale if smooth else None,
            stretches=smooth.stretches if smooth else (),
            own=own,
            noise=nugget - own,
            centres=_rows(self.Z),
            weights=tuple(map(float, found.weights)),
            basis=_rows(self.T),
            directions=_rows(self.U),
            gram_inverse=_rows(found.gram_inverse),
            offsets=tuple(map(float, found.offsets)),
        )

    def _variance(self, found: _Solved) -> tuple[float, float]:
        """s² and its degrees of freedom; what was measured is never exactly physics."""
        if not self.noise_sd:
            return found.variance, float(found.dof)
        dof = found.dof + MISSED_DOF
        return (found.dof * found.variance + MISSED_DOF * MISSED_SD**2) / dof, dof


class _Solved:
    """The equations solved for one R."""

    def __init__(self, R: Array, U: Array, r: Array) -> None:
        n, p = U.shape
        inverse = np.linalg.inv(R)
        cross = inverse @ U
        self.gram_inverse = np.linalg.inv(U.T @ cross)
        self.offsets = self.gram_inverse @ cross.T @ r
        self.weights = inverse @ r - cross @ self.offsets
        precision = np.diag(inverse - cross @ self.gram_inverse @ cross.T)
        self.left_out = self.weights / np.maximum(precision, 1e-12)
        self.dof = n - p
        self.variance = max(float(r @ self.weights) / self.dof, 0.0)
        determinants = np.linalg.slogdet(R)[1] - np.linalg.slogdet(self.gram_inverse)[1]
        fit = self.dof * np.log(max(self.variance, TINY))
        self.likelihood = -0.5 * float(fit + determinants)

    @property
    def left_out_rmse(self) -> float:
        """Root mean square of the leave-one-out errors."""
        return sqrt(float(np.mean(self.left_out**2)))


def _rows(matrix: NDArray[Any]) -> Matrix:
    return tuple(map(tuple, matrix.tolist()))
