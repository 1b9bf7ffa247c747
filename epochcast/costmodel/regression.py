"""The two estimators every quantity is learned with; both are scikit-learn estimators.

    name     meaning                                                     shape
    X        physical features, not negative                             (n, p)
    y        seconds or bytes, positive                                  (n,)
    β        coefficients, not negative                                  (p,)
    Z        log₂ of what varies between configurations                  (n, d)
    r        log y − log ŷ, what physics leaves unexplained              (n,)

``PhysicalRegressor``   ŷ = max over groups g of X_g β_g, on relative error: min Σ (ŷᵢ/yᵢ − 1)².
                        One group: non-negative least squares (Lawson & Hanson 1974, ch. 23).
                        Two groups: a floor under a slope, a maximum of planes fitted by
                        alternation (Magnani & Boyd 2009, "Convex piecewise-linear fitting").
``ResidualSmoother``    r̂(z) = k(z, Z) (K + λI)⁻¹ r, a Gaussian process with a squared-exponential
                        kernel (Rasmussen & Williams 2006, eq. 2.25): no correction far from data.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.optimize import nnls
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from epochcast.costmodel.features import Array
from epochcast.costmodel.surface import kernel

MAX_ALTERNATIONS = 30

Groups = Sequence[Sequence[int]]


def fit_planes(X: Array, y: Array, groups: Groups) -> list[Array]:
    """Coefficients of each group of columns of X (n, p), so that the largest plane meets y (n,)."""
    coefficients = [_relative_nnls(X[:, group], y) for group in groups]
    if len(groups) > 1:
        _alternate(X, y, groups, coefficients)
    return coefficients


def highest_plane(X: Array, groups: Groups, coefficients: Sequence[Array]) -> Array:
    """max over groups g of X_g β_g, (n,)."""
    return np.asarray(_planes(X, groups, coefficients).max(axis=0))


def _alternate(X: Array, y: Array, groups: Groups, coefficients: list[Array]) -> None:
    """Refit each group to the rows it rules, until the division of rows is stable."""
    owner = _first_division(X, groups, coefficients)
    for _ in range(MAX_ALTERNATIONS):
        for index, group in enumerate(groups):
            mine = owner == index
            if mine.any():
                coefficients[index] = _relative_nnls(X[mine][:, group], y[mine])
        ruled = np.argmax(_planes(X, groups, coefficients), axis=0)
        if np.array_equal(ruled, owner):
            return
        owner = ruled


def _first_division(X: Array, groups: Groups, coefficients: Sequence[Array]) -> Array:
    """Rows with the most work, by the last group's own features, go to the last group."""
    work = _planes(X, groups, coefficients)[-1]
    order = np.argsort(np.argsort(work, kind="stable"), kind="stable")
    return np.asarray(order * len(groups) // len(work))


def _planes(X: Array, groups: Groups, coefficients: Sequence[Array]) -> Array:
    return np.stack([X[:, g] @ c for g, c in zip(groups, coefficients, strict=True)])


def _relative_nnls(X: Array, y: Array) -> Array:
    """β ≥ 0 that minimises Σ (Xβ/y − 1)², with columns scaled to one for conditioning."""
    relative = X / y[:, None]
    scale = np.abs(relative).max(axis=0)
    scale[scale == 0] = 1.0
    solution, _ = nnls(relative / scale, np.ones(len(y)), maxiter=max(100, 30 * X.shape[1]))
    return np.asarray(solution / scale)


class PhysicalRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Non-negative physics on relative error; a maximum over groups of features.

    Args:
        groups: columns of X that belong to each group; None puts all into one.

    Attributes:
        coef_: the coefficients of each group, not negative.
        groups_: the groups used.
    """

    def __init__(self, groups: Groups | None = None) -> None:
        self.groups = groups

    def fit(self, X: Any, y: Any) -> PhysicalRegressor:
        """Learn from X (n, p) and positive y (n,).

        Raises:
            ValueError: y has values that are not positive.
        """
        X, y = validate_data(self, X, y, y_numeric=True, dtype=np.float64)
        if np.any(y <= 0):
            raise ValueError("y must be positive: it is a duration or a size")
        groups = [range(X.shape[1])] if self.groups is None else self.groups
        self.groups_ = [list(group) for group in groups]
        self.coef_ = fit_planes(X, y, self.groups_)
        return self

    def predict(self, X: Any) -> Array:
        """ŷ (n,) for X (n, p)."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        return highest_plane(X, self.groups_, self.coef_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.positive_only = True
        tags.regressor_tags.poor_score = True  # its target is relative error on positive features
        return tags


def smoothing_inverse(Z: Array, length_scale: float, noise: float) -> Array:
    """(K + λI)⁻¹ for centres Z (n, d), shape (n, n)."""
    return np.asarray(np.linalg.inv(kernel(Z, Z, length_scale) + noise * np.eye(len(Z))))


class ResidualSmoother(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """A smooth correction of log residuals.

    Args:
        length_scale: in doublings: how far apart two configurations still resemble each other.
        noise: variance of the residuals' noise, relative to that of the residuals.

    Attributes:
        centres_: (n, d) the Z it was fitted on.
        inverse_: (n, n) (K + λI)⁻¹.
        weights_: (n,) (K + λI)⁻¹ r.
    """

    def __init__(self, length_scale: float = 1.0, noise: float = 0.1) -> None:
        self.length_scale = length_scale
        self.noise = noise

    def fit(self, X: Any, y: Any) -> ResidualSmoother:
        """Learn residuals y (n,) at Z = X (n, d)."""
        X, y = validate_data(self, X, y, y_numeric=True, dtype=np.float64)
        self.centres_ = X
        self.inverse_ = smoothing_inverse(X, self.length_scale, self.noise)
        self.weights_ = self.inverse_ @ y
        return self

    def predict(self, X: Any) -> Array:
        """The correction (n,) at Z = X (n, d)."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        return np.asarray(kernel(X, self.centres_, self.length_scale) @ self.weights_)

    def loo_residuals(self) -> Array:
        """What each point's residual misses its prediction by, that point left out (n,).

        Rasmussen & Williams 2006, eq. 5.12: [K⁻¹r]ᵢ / [K⁻¹]ᵢᵢ.
        """
        check_is_fitted(self)
        return np.asarray(self.weights_ / np.diag(self.inverse_))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.regressor_tags.poor_score = True  # shrinks towards zero by design
        return tags
