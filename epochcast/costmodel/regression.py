"""The regression that every quantity is learned with: physics, not negative, on relative error.

name     meaning                                                     shape
X        physical features, not negative                             (n, k)
V        variables whose powers are free, positive                   (n, m)
y        seconds or bytes, positive                                  (n,)
g        groups of columns of X: what the host does, what the device does, …
T        powers of V that are in each column of X already            (k, m)
β        coefficients, not negative                                  (k,)
q        what those powers are multiplied with, not negative         (m,)
λ        prior of β: relative error that is as usual as a share of 1     (k,)
h        planes, h_g = Σ_j∈g β_j X_j Π_f V_f^(T_jf (q_f − 1))        (groups, n)
p        exponent: how the planes join

ŷ = ( Σ_g h_g^p )^(1/p)      minimising Σ (ŷᵢ/yᵢ − 1)² + Σ (λ_j β_j max_i X_ij/yᵢ)² + prior(q),
                             β, q ≥ 0

p = 1    one after the other, as a CPU works: non-negative least squares (Lawson & Hanson 1974,
         ch. 23)
p = 2…8  mostly at the same time, as an accelerator works: a soft maximum
p = ∞    the larger one, as memory peaks at one moment or another: a maximum of planes, by
         alternation (Magnani & Boyd 2009, "Convex piecewise-linear fitting")

A soft maximum and free powers are fitted by Gauss–Newton steps that keep β, q ≥ 0 (as Branch,
Coleman & Li 1999 do in scipy.optimize.least_squares). A knob with two or three
values leaves its power open; so a weak prior prefers those that the form came with (q = 1).

Two terms that rise together, as FLOPs and bytes moved do, are not told apart by a few rows: least
squares gives all to one of them. With λ both have a part (ridge regression; Hoerl & Kennard 1970,
"Biased estimation for nonorthogonal problems").

``PhysicalRegressor`` is that, as a scikit-learn estimator; ``solve`` and ``evaluate`` are what it
does, without its checks, for those who fit thousands of times (averaging.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import nnls
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from epochcast.costmodel.features import Array
from epochcast.costmodel.surface import SMALLEST, join

MAX_ALTERNATIONS = 30
MAX_STEPS, MAX_HALVINGS = 40, 6  # of Gauss–Newton; it converges in about ten
CONVERGED = 1e-7  # relative change of the squared error
PERFECT = 1e-24  # squared error of a row that rounding leaves
SLIGHT_START = 1e-3  # share of a prediction: no coefficient begins at 0, where it has no slope
POWER_SD, POWER_NOISE = 2.0, 0.01  # prior of q − 1, beside relative errors of about one percent
MAX_POWER = 4.0  # of a variable: attention over an image of side r
RIDGE = 1e-6  # of log-linear regression
TALL = 4  # rows per column from which a QR decomposition pays

Groups = Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True)
class Shape:
    """How k columns make one prediction.

    Attributes:
        groups: columns of X that belong to each group.
        exponent: p, at least 1; ``inf`` for a maximum.
        powers: T, (k, m); m is 0 where no power is free.
        ridge: λ; None where nothing is known beforehand.
    """

    groups: Groups
    exponent: float
    powers: Array
    ridge: Array | None = None

    @property
    def free(self) -> int:
        """m, how many powers are free."""
        return int(self.powers.shape[1])


class Solution(NamedTuple):
    """β (k,) and q (m,)."""

    beta: Array
    q: Array


def solve(X: Array, V: Array, y: Array, shape: Shape, start: Solution | None = None) -> Solution:
    """The coefficients and powers that fit best.

    Args:
        X: features, (n, k).
        V: variables with a free power, (n, m).
        y: (n,), positive.
        shape: how the features join.
        start: an earlier fit, of nearly the same rows; otherwise several starts are tried.
    """
    if not shape.free and (shape.exponent == 1 or len(shape.groups) == 1):
        return Solution(_relative_nnls(X, y, shape.ridge), np.zeros(0))
    if shape.exponent == inf:
        return Solution(_fit_maximum(X, y, shape), np.zeros(0))
    problem = _Problem(X, V, y, shape)
    starts = _starts(X, V, y, shape) if start is None else [start]
    fits = [problem.descend(problem.inward(s)) for s in starts]
    return problem.outward(min(fits, key=lambda fit: fit[0])[1])


def evaluate(X: Array, V: Array, solution: Solution, shape: Shape) -> Array:
    """ŷ (n,).

    Args:
        X: features, (n, k).
        V: variables with a free power, (n, m).
        solution: as ``solve`` gave it.
        shape: how the features join.
    """
    terms = X * solution.beta
    if shape.free:
        terms = terms * np.exp(np.log(V) @ ((solution.q - 1) * shape.powers).T)
    planes = np.stack([terms[:, list(g)].sum(axis=1) for g in shape.groups])
    return np.asarray(join(planes, shape.exponent))


class PhysicalRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Non-negative physics on relative error; groups of features joined by a p-norm.

    Args:
        groups: columns of X that belong to each group; None puts all into one.
        exponent: p of the module's equation, at least 1; ``inf`` for a maximum.
        powers: T of the module's equation, (k, m), where powers are free; X then has the k
            features and, after them, the m variables.

    Attributes:
        coef_: (k,) the coefficients, not negative.
        powers_: (m,) what the free powers are multiplied with.
        groups_: the groups used.
    """

    def __init__(
        self, groups: Groups | None = None, exponent: float = 1.0, powers: Any = None
    ) -> None:
        self.groups = groups
        self.exponent = exponent
        self.powers = powers

    def fit(self, X: Any, y: Any) -> PhysicalRegressor:
        """Learn from X (n, k + m) and positive y (n,).

        Raises:
            ValueError: y has values that are not positive, a column is in several groups, or
                powers are free in a maximum.
        """
        X, y = validate_data(self, X, y, y_numeric=True, dtype=np.float64)
        if np.any(y <= 0):
            raise ValueError("y must be positive: it is a duration or a size")
        k = X.shape[1] if self.powers is None else len(self.powers)
        groups = [range(k)] if self.groups is None else self.groups
        self.groups_ = [list(group) for group in groups]
        columns = [column for group in self.groups_ for column in group]
        if sorted(columns) != list(range(k)):
            raise ValueError(f"groups must divide the {k} columns, but got {groups}")
        if self.exponent == inf and self.powers is not None:
            raise ValueError("powers cannot be free in a maximum; give a finite exponent")
        self.coef_, self.powers_ = solve(X[:, :k], X[:, k:], y, self._shape())
        return self

    def predict(self, X: Any) -> Array:
        """ŷ (n,) for X (n, k + m)."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        k = len(self.coef_)
        solution = Solution(self.coef_, self.powers_)
        return evaluate(X[:, :k], X[:, k:], solution, self._shape())

    def _shape(self) -> Shape:
        k = sum(map(len, self.groups_))
        powers = np.zeros((k, 0)) if self.powers is None else np.asarray(self.powers, float)
        return Shape(self.groups_, self.exponent, powers)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.positive_only = True
        tags.regressor_tags.poor_score = True  # its target is relative error on positive features
        return tags


# -- coefficients ---------------------------------------------------------------------------------


class _Problem:
    """The least squares in unknowns θ = (β·scale, q), whose columns are of one size.

    Logs of variables are taken from their means, so that another power does not change the size of
    its terms and θ's parts hardly depend on each other.
    """

    def __init__(self, X: Array, V: Array, y: Array, shape: Shape) -> None:
        self.shape = shape
        self.k = X.shape[1]
        self._powers = shape.powers
        logs = np.log(V)
        self.means = logs.mean(axis=0)
        self.logs = logs - self.means
        relative = X / y[:, None]
        self.scale = _column_scale(relative)
        self.relative = relative / self.scale

    def inward(self, solution: Solution) -> Array:
        """θ of β and q; no coefficient at 0, where a soft maximum has no slope."""
        moved = np.exp(((solution.q - 1) * self._powers) @ self.means)
        beta = np.maximum(solution.beta * self.scale * moved, SLIGHT_START)
        return np.concatenate([beta, solution.q])

    def outward(self, theta: Array) -> Solution:
        """β and q of θ."""
        beta, q = theta[: self.k] / self.scale, theta[self.k :]
        moved = np.exp(((q - 1) * self._powers) @ self.means)
        return Solution(np.asarray(beta / moved), q)

    def descend(self, theta: Array) -> tuple[float, Array]:
        """Squared error and θ of the fit from one start."""
        error, columns, whole = self._state(theta)
        for _ in range(MAX_STEPS):
            J = self._jacobian(theta, columns, whole)
            target = _nnls(J, self._residuals(theta, whole) + J @ theta)
            for halving in range(MAX_HALVINGS):
                moved = self._inside(theta + (target - theta) / 2**halving)
                lower, *state = self._state(moved)
                if lower < error:
                    break
            else:
                break
            gained, theta, error, (columns, whole) = error - lower, moved, lower, state
            if gained <= CONVERGED * error or error < PERFECT * len(whole):
                break
        return error, theta

    def _state(self, theta: Array) -> tuple[float, Array, Array]:
        """Squared error, features at these powers over y (n, k), and ŷ/y (n,)."""
        columns = self.relative
        if self.shape.free:
            columns = columns * np.exp(self.logs @ ((theta[self.k :] - 1) * self._powers).T)
        terms = columns * theta[: self.k]
        planes = np.stack([terms[:, list(g)].sum(axis=1) for g in self.shape.groups])
        whole = join(planes, self.shape.exponent)
        residuals = self._residuals(theta, whole)
        return float(residuals @ residuals), columns, whole

    def _residuals(self, theta: Array, whole: Array) -> Array:
        """1 − ŷ/y, and then what the priors of each power and of each coefficient ask for."""
        prior = (1 - theta[self.k :]) * POWER_NOISE / POWER_SD
        parts = [1 - whole, prior]
        if self.shape.ridge is not None:
            parts.append(-self.shape.ridge * theta[: self.k])
        return np.concatenate(parts)

    def _jacobian(self, theta: Array, columns: Array, whole: Array) -> Array:
        """∂(ŷ/y)/∂θ, X_g (h_g / ŷ)^(p − 1) and the terms times logs; the priors' below it."""
        if self.shape.exponent != 1:
            columns = columns.copy()
            safe = np.maximum(whole, SMALLEST)
            for group in map(list, self.shape.groups):
                plane = columns[:, group] @ theta[group]
                columns[:, group] *= (plane / safe)[:, None] ** (self.shape.exponent - 1)
        slopes = ((columns * theta[: self.k]) @ self._powers) * self.logs
        prior = np.eye(self.shape.free, len(theta), self.k) * POWER_NOISE / POWER_SD
        rows = [np.hstack([columns, slopes]), prior]
        if self.shape.ridge is not None:
            rows.append(np.eye(self.k, len(theta)) * self.shape.ridge[:, None])
        return np.vstack(rows)

    def _inside(self, theta: Array) -> Array:
        """No variable to more than the highest power that is believed."""
        if self.shape.free:
            highest = MAX_POWER / np.maximum(np.abs(self._powers).max(axis=0), SMALLEST)
            theta[self.k :] = np.minimum(theta[self.k :], highest)
        return theta


def _starts(X: Array, V: Array, y: Array, shape: Shape) -> list[Solution]:
    """All in one sum; and the rows divided between the groups, at two places."""
    q = _slopes(X, V, y, shape)
    if shape.free:
        X = X * np.exp(np.log(V) @ ((q - 1) * shape.powers).T)
    starts = [_relative_nnls(X, y, shape.ridge)]
    order = np.argsort(y, kind="stable")
    for small in sorted({min(2, len(y) - 1), len(y) // 2}) if len(shape.groups) > 1 else ():
        start = np.zeros(X.shape[1])
        for group, rows in zip(shape.groups, (order[:small], order[small:]), strict=False):
            start[list(group)] = _fit_group(X[rows], y[rows], group, shape)
        starts.append(start)
    return [Solution(start, q) for start in starts]


def _slopes(X: Array, V: Array, y: Array, shape: Shape) -> Array:
    """q as log-linear regression of y on the variables has it, within reason, (m,)."""
    if not shape.free:
        return np.zeros(0)
    slopes = np.abs(log_slopes(V, y)[0])
    unit = np.maximum(np.abs(shape.powers).max(axis=0), SMALLEST)
    return np.asarray(np.clip(slopes / unit, 0.25, MAX_POWER / unit))


def log_slopes(V: Array, y: Array) -> tuple[Array, Array]:
    """∂ log y / ∂ log v of log-linear regression on positive variables V (n, m), and their standard
    deviations; each (m,).

    A slight ridge decides between variables that rise together: half of it each.
    """
    n, m = V.shape
    logs = np.log(V) - np.log(V).mean(axis=0)
    target = np.log(y) - np.log(y).mean()
    inverse = np.linalg.inv(logs.T @ logs + RIDGE * np.eye(m))
    slopes = inverse @ logs.T @ target
    squares = float(((target - logs @ slopes) ** 2).sum()) / max(1, n - m - 1)
    return np.asarray(slopes), np.sqrt(squares * np.diag(inverse))


def _fit_maximum(X: Array, y: Array, shape: Shape) -> Array:
    """Refit each group to the rows it rules, until the division of rows is stable."""
    beta, groups = np.zeros(X.shape[1]), shape.groups
    for group in groups:
        beta[list(group)] = _fit_group(X, y, group, shape)
    owner = _first_division(X, beta, groups)
    for _ in range(MAX_ALTERNATIONS):
        for index, group in enumerate(groups):
            mine = owner == index
            if mine.any():
                beta[list(group)] = _fit_group(X[mine], y[mine], group, shape)
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


def _fit_group(X: Array, y: Array, group: Sequence[int], shape: Shape) -> Array:
    """β of one group alone."""
    columns = list(group)
    return _relative_nnls(X[:, columns], y, None if shape.ridge is None else shape.ridge[columns])


def _relative_nnls(X: Array, y: Array, ridge: Array | None = None) -> Array:
    """β ≥ 0 that minimises Σ (Xβ/y − 1)² + Σ (λβ)², with columns scaled to one, for which β is."""
    relative = X / y[:, None]
    scale = _column_scale(relative)
    A, b = relative / scale, np.ones(len(y))
    if ridge is not None:
        A, b = np.vstack([A, np.diag(ridge)]), np.concatenate([b, np.zeros(len(ridge))])
    return np.asarray(_nnls(A, b) / scale)


def _nnls(A: Array, b: Array) -> Array:
    """x ≥ 0 that minimises ‖Ax − b‖; many rows are made few by a QR decomposition first."""
    if len(A) > TALL * A.shape[1]:
        R: Array = np.asarray(np.linalg.qr(np.column_stack([A, b]), mode="r"))
        A, b = R[:, :-1], R[:, -1]
    return np.asarray(nnls(A, b, maxiter=max(100, 30 * A.shape[1]))[0])


def _column_scale(X: Array) -> Array:
    scale = np.abs(X).max(axis=0, initial=0.0)
    scale[scale == 0] = 1.0
    return np.asarray(scale)
