"""Physics on relative error: the estimator that every quantity is learned with.

name     meaning                                                     shape
X        physical features, not negative                             (n, k)
y        seconds or bytes, positive                                  (n,)
g        groups of columns of X: what the host does, what the device does, …
β        coefficients, not negative                                  (k,)
h        planes, h_g = X_g β_g                                       (groups, n)
p        exponent: how the planes join

ŷ = ( Σ_g h_g^p )^(1/p)      minimising Σ (ŷᵢ/yᵢ − 1)²,  β ≥ 0

p = 1    one after the other: non-negative least squares (Lawson & Hanson 1974, ch. 23)
p = 2…8  mostly at the same time: a soft maximum, by bounded nonlinear least squares
         (Branch, Coleman & Li 1999, as in scipy.optimize.least_squares)
p = ∞    the larger one: a maximum of planes, by alternation (Magnani & Boyd 2009,
         "Convex piecewise-linear fitting")
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

import numpy as np
from scipy.optimize import nnls
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from epochcast.costmodel.features import Array
from epochcast.costmodel.surface import SMALLEST, join

MAX_ALTERNATIONS = 30
MAX_STEPS, MAX_HALVINGS = 40, 6  # of Gauss–Newton; it converges in about ten
CONVERGED = 1e-9  # relative change of the squared error
SLIGHT_START = 1e-3  # share of a prediction: no coefficient begins at 0, where it has no slope

Groups = Sequence[Sequence[int]]


def fit_physics(
    X: Array, y: Array, groups: Groups, exponent: float = 1.0, start: Array | None = None
) -> Array:
    """β (k,) for X (n, k), positive y (n,), and groups that divide the columns between them.

    Args:
        exponent: p; at least 1.
        start: coefficients of a similar fit, to begin a soft maximum with.
    """
    if exponent == 1 or len(groups) == 1:
        return _relative_nnls(X, y)
    if exponent == inf:
        return _fit_maximum(X, y, groups)
    relative = X / y[:, None]
    scale = _column_scale(relative)
    starts = _starts(X, y, groups) if start is None else [start]
    fits = [_soft_maximum(relative / scale, groups, exponent, s * scale) for s in starts]
    return np.asarray(min(fits, key=lambda fit: fit[0])[1] / scale)


def predict_physics(X: Array, beta: Array, groups: Groups, exponent: float) -> Array:
    """ŷ (n,)."""
    return np.asarray(join(np.stack([X[:, list(g)] @ beta[list(g)] for g in groups]), exponent))


def _soft_maximum(R: Array, groups: Groups, exponent: float, start: Array) -> tuple[float, Array]:
    """Squared error and β of the fit of ŷ/y to 1 from one start; R is X/y, columns scaled to 1."""
    beta = np.maximum(start, SLIGHT_START)
    error = _squared_error(R, beta, groups, exponent)
    for _ in range(MAX_STEPS):
        J = _jacobian(R, beta, groups, exponent)
        target, _ = nnls(J, np.ones(len(R)), maxiter=max(100, 30 * R.shape[1]))
        for halving in range(MAX_HALVINGS):
            moved = beta + (target - beta) / 2**halving
            lower = _squared_error(R, moved, groups, exponent)
            if lower < error:
                break
        if lower >= error * (1 - CONVERGED):
            break
        beta, error = moved, lower
    return error, beta


def _squared_error(R: Array, beta: Array, groups: Groups, exponent: float) -> float:
    return float(((predict_physics(R, beta, groups, exponent) - 1.0) ** 2).sum())


def _jacobian(R: Array, beta: Array, groups: Groups, exponent: float) -> Array:
    """∂ŷ/∂β, (n, k): X_g (h_g / ŷ)^(p − 1)."""
    whole = np.maximum(predict_physics(R, beta, groups, exponent), SMALLEST)
    J = R.copy()
    for group in groups:
        columns = list(group)
        J[:, columns] *= ((R[:, columns] @ beta[columns]) / whole)[:, None] ** (exponent - 1)
    return np.asarray(J)


def _starts(X: Array, y: Array, groups: Groups) -> list[Array]:
    """All in one sum; and the rows divided between the groups, at two places."""
    starts = [_relative_nnls(X, y)]
    order = np.argsort(y, kind="stable")
    for small in sorted({min(2, len(y) - 1), len(y) // 2}):
        start = np.zeros(X.shape[1])
        for group, rows in zip(groups, (order[:small], order[small:]), strict=False):
            start[list(group)] = _relative_nnls(X[rows][:, list(group)], y[rows])
        starts.append(start)
    return starts


def _fit_maximum(X: Array, y: Array, groups: Groups) -> Array:
    """Refit each group to the rows it rules, until the division of rows is stable."""
    beta = np.zeros(X.shape[1])
    for group in groups:
        beta[list(group)] = _relative_nnls(X[:, list(group)], y)
    owner = _first_division(X, beta, groups)
    for _ in range(MAX_ALTERNATIONS):
        for index, group in enumerate(groups):
            mine = owner == index
            if mine.any():
                beta[list(group)] = _relative_nnls(X[mine][:, list(group)], y[mine])
        ruled = np.argmax([X[:, list(g)] @ beta[list(g)] for g in groups], axis=0)
        if np.array_equal(ruled, owner):
            break
        owner = ruled
    return beta


def _first_division(X: Array, beta: Array, groups: Groups) -> Array:
    """Rows with the most work, by the last group's own features, go to the last group."""
    last = list(groups[-1])
    order = np.argsort(np.argsort(X[:, last] @ beta[last], kind="stable"), kind="stable")
    return np.asarray(order * len(groups) // len(X))


def _relative_nnls(X: Array, y: Array) -> Array:
    """β ≥ 0 that minimises Σ (Xβ/y − 1)², with columns scaled to one for conditioning."""
    relative = X / y[:, None]
    scale = _column_scale(relative)
    solution, _ = nnls(relative / scale, np.ones(len(y)), maxiter=max(100, 30 * X.shape[1]))
    return np.asarray(solution / scale)


def _column_scale(X: Array) -> Array:
    scale = np.abs(X).max(axis=0, initial=0.0)
    scale[scale == 0] = 1.0
    return np.asarray(scale)


class PhysicalRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Non-negative physics on relative error; groups of features joined by a p-norm.

    Args:
        groups: columns of X that belong to each group; None puts all into one.
        exponent: p of the module's equation; ``inf`` for a maximum.

    Attributes:
        coef_: (k,) the coefficients, not negative.
        groups_: the groups used.
    """

    def __init__(self, groups: Groups | None = None, exponent: float = inf) -> None:
        self.groups = groups
        self.exponent = exponent

    def fit(self, X: Any, y: Any) -> PhysicalRegressor:
        """Learn from X (n, k) and positive y (n,).

        Raises:
            ValueError: y has values that are not positive, or a column is in several groups.
        """
        X, y = validate_data(self, X, y, y_numeric=True, dtype=np.float64)
        if np.any(y <= 0):
            raise ValueError("y must be positive: it is a duration or a size")
        groups = [range(X.shape[1])] if self.groups is None else self.groups
        self.groups_ = [list(group) for group in groups]
        columns = [column for group in self.groups_ for column in group]
        if sorted(columns) != list(range(X.shape[1])):
            raise ValueError(f"groups must divide the {X.shape[1]} columns, but got {groups}")
        self.coef_ = fit_physics(X, y, self.groups_, self.exponent)
        return self

    def predict(self, X: Any) -> Array:
        """ŷ (n,) for X (n, k)."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        return predict_physics(X, self.coef_, self.groups_, self.exponent)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.positive_only = True
        tags.regressor_tags.poor_score = True  # its target is relative error on positive features
        return tags
