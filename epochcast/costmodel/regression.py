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


class PhysicalRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Non-negative physics on relative error; a maximum over groups of features.

    Args:
        groups: columns of X that belong to each group; None puts all into one.

    Attributes:
        coef_: (p,) not negative; a column counts only within its groups.
        groups_: the groups used.
    """

    def __init__(self, groups: Sequence[Sequence[int]] | None = None) -> None:
        self.groups = groups

    def fit(self, X: Any, y: Any) -> PhysicalRegressor:
        """Learn from X (n, p) and positive y (n,).

        Raises:
            ValueError: y has values that are not positive.
        """
        X, y = validate_data(self, X, y, y_numeric=True, dtype=np.float64)
        if np.any(y <= 0):
            raise ValueError("y must be positive: it is a duration or a size")
        groups = [list(range(X.shape[1]))] if self.groups is None else self.groups
        self.groups_ = [list(group) for group in groups]
        self.coef_ = [_relative_nnls(X[:, group], y) for group in self.groups_]
        if len(self.groups_) > 1:
            self._alternate(X, y)
        return self

    def _alternate(self, X: Array, y: Array) -> None:
        """Refit each group to the rows it rules, until the division of rows is stable."""
        owner = self._first_division(X)
        for _ in range(MAX_ALTERNATIONS):
            for index, group in enumerate(self.groups_):
                mine = owner == index
                if mine.any():
                    self.coef_[index] = _relative_nnls(X[mine][:, group], y[mine])
            ruled = np.argmax(self._planes(X), axis=0)
            if np.array_equal(ruled, owner):
                return
            owner = ruled

    def _first_division(self, X: Array) -> Array:
        """Rows with the most work, by the last group's own features, go to the last group."""
        work = self._planes(X)[-1]
        order = np.argsort(np.argsort(work, kind="stable"), kind="stable")
        return np.asarray(order * len(self.groups_) // len(work))

    def _planes(self, X: Array) -> Array:
        planes = [X[:, g] @ c for g, c in zip(self.groups_, self.coef_, strict=True)]
        return np.stack(planes)

    def predict(self, X: Any) -> Array:
        """ŷ (n,) for X (n, p)."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        return np.asarray(self._planes(X).max(axis=0))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.positive_only = True
        tags.regressor_tags.poor_score = True  # its target is relative error on positive features
        return tags


def _relative_nnls(X: Array, y: Array) -> Array:
    """β ≥ 0 that minimises Σ (Xβ/y − 1)², with columns scaled to one for conditioning."""
    relative = X / y[:, None]
    scale = np.abs(relative).max(axis=0)
    scale[scale == 0] = 1.0
    solution, _ = nnls(relative / scale, np.ones(len(y)), maxiter=max(100, 30 * X.shape[1]))
    return np.asarray(solution / scale)


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
        gram = kernel(X, X, self.length_scale) + self.noise * np.eye(len(y))
        self.centres_ = X
        self.inverse_ = np.linalg.inv(gram)
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
