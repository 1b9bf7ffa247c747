"""The regression that every quantity is learned with: physics on relative error, forms averaged.

name     meaning                                                     shape
X        physical features, not negative                             (n, k)
y        seconds or bytes, positive                                  (n,)
g        groups of columns of X: what the host does, what the device does, …
β        coefficients, not negative                                  (k,)
h        planes, h_g = X_g β_g                                       (groups, n)
p        exponent: how the planes join

ŷ = ( Σ_g h_g^p )^(1/p)      minimising Σ (ŷᵢ/yᵢ − 1)²,  β ≥ 0

p = 1    one after the other, as a CPU works: non-negative least squares (Lawson & Hanson 1974,
         ch. 23)
p = 2…8  mostly at the same time, as an accelerator works: a soft maximum, by Gauss–Newton steps
         that keep β ≥ 0 (as Branch, Coleman & Li 1999 do in scipy.optimize.least_squares)
p = ∞    the larger one, as memory peaks at one moment or another: a maximum of planes, by
         alternation (Magnani & Boyd 2009, "Convex piecewise-linear fitting")

``PhysicalRegressor`` is that, as a scikit-learn estimator. ``fit_surface`` fits one for each form
that a quantity may take, with a smooth correction of its log residuals (discrepancy.py), and weighs
them:

    weight w_m ∝ prior_m / e_m²              e_m² = (error of the fit) · (leave-one-out error)

is how forecasts are combined (Bates & Granger 1969, "The combination of forecasts"). The error of
the fit alone flatters a form with many coefficients; the leave-one-out error alone is ruled by the
one corner of a small design that the others cannot foresee.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any

import numpy as np
from scipy.optimize import nnls
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from epochcast.costmodel.discrepancy import EXACT_SD, MIN_ROWS, fit_discrepancy
from epochcast.costmodel.features import Array, Form, VariableTable, matrix, tabulate
from epochcast.costmodel.surface import (
    SMALLEST,
    TIME_SD_PER_DOUBLING,
    FittedForm,
    Surface,
    join,
    points_of,
    shares_of,
)

MAX_ALTERNATIONS = 30
MAX_STEPS, MAX_HALVINGS = 40, 6  # of Gauss–Newton; it converges in about ten
CONVERGED = 1e-9  # relative change of the squared error
SLIGHT_START = 1e-3  # share of a prediction: no coefficient begins at 0, where it has no slope
SLIGHT = 0.01  # a form that counts for less is left out
MAX_FOLDS = 24  # beyond, several rows are left out at a time
MAX_LOG_ERROR = float(np.log(100.0))  # of one left-out row; more says no more

Groups = Sequence[Sequence[int]]


class PhysicalRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Non-negative physics on relative error; groups of features joined by a p-norm.

    Args:
        groups: columns of X that belong to each group; None puts all into one.
        exponent: p of the module's equation, at least 1; ``inf`` for a maximum.

    Attributes:
        coef_: (k,) the coefficients, not negative.
        groups_: the groups used.
    """

    def __init__(self, groups: Groups | None = None, exponent: float = 1.0) -> None:
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
        self.coef_ = _coefficients(X, y, self.groups_, self.exponent)
        return self

    def predict(self, X: Any) -> Array:
        """ŷ (n,) for X (n, k)."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        return _joined(X, self.coef_, self.groups_, self.exponent)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.positive_only = True
        tags.regressor_tags.poor_score = True  # its target is relative error on positive features
        return tags


# -- coefficients ---------------------------------------------------------------------------------


def _coefficients(
    X: Array, y: Array, groups: Groups, exponent: float, start: Array | None = None
) -> Array:
    """β (k,); a soft maximum begins with ``start``, if there is one."""
    if exponent == 1 or len(groups) == 1:
        return _relative_nnls(X, y)
    if exponent == inf:
        return _fit_maximum(X, y, groups)
    relative = X / y[:, None]
    scale = _column_scale(relative)
    starts = _starts(X, y, groups) if start is None else [start]
    fits = [_soft_maximum(relative / scale, groups, exponent, s * scale) for s in starts]
    return np.asarray(min(fits, key=lambda fit: fit[0])[1] / scale)


def _joined(X: Array, beta: Array, groups: Groups, exponent: float) -> Array:
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
    return float(((_joined(R, beta, groups, exponent) - 1.0) ** 2).sum())


def _jacobian(R: Array, beta: Array, groups: Groups, exponent: float) -> Array:
    """∂ŷ/∂β, (n, k): X_g (h_g / ŷ)^(p − 1)."""
    whole = np.maximum(_joined(R, beta, groups, exponent), SMALLEST)
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


# -- surfaces -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fit:
    """A form fitted to all rows, and its leave-one-out RMSE on the log scale."""

    form: Form
    fitted: FittedForm
    left_out: float


def fit_surface(
    rows: Sequence[Mapping[str, float]],
    y: Sequence[float],
    candidates: Sequence[Form],
    axes: Sequence[str],
    noise_sd: float = 0.0,
    sd_per_doubling: float = TIME_SD_PER_DOUBLING,
    sd_between: float = 0.0,
    careful: bool = False,
) -> Surface:
    """The surface of a quantity from its values in some configurations.

    Args:
        rows: variables of each configuration.
        y: the quantity in each, positive.
        candidates: the first is used where there are too few configurations to choose.
        axes: variables that say where a configuration is.
        noise_sd: of log y, from repeated measurements; 0 for what is counted exactly.
        sd_per_doubling, sd_between: see ``Surface``.
        careful: what a form misses is taken to be no less than its leave-one-out errors say; for
            counts, which have kinks and no noise.
    """
    table, values = tabulate(rows), np.asarray(y, float)
    known = tuple(axis for axis in axes if axis in table)
    if len(values) < MIN_ROWS:
        forms = [_fit(candidates[0], table, values, known, noise_sd)[0]]
        chosen = f"{candidates[0].name} (too few configurations to choose)"
    else:
        fits = []
        for form in candidates:
            fitted, regressor = _fit(form, table, values, known, noise_sd)
            left_out = _left_out_rmse(regressor, matrix(form.features, table), values)
            fits.append(_Fit(form=form, fitted=fitted, left_out=left_out))
        forms, chosen = _weighed(fits, careful)
    smooth = any(form.discrepancy.length_scale is not None for form in forms)
    return Surface(
        forms=tuple(forms),
        axes=known,
        low=tuple(float(table[axis].min()) for axis in known),
        high=tuple(float(table[axis].max()) for axis in known),
        sd_per_doubling=sd_per_doubling,
        sd_between=sd_between,
        chosen=chosen + (", with a smooth correction" if smooth else ""),
    )


def _fit(
    form: Form, table: VariableTable, y: Array, axes: tuple[str, ...], noise_sd: float
) -> tuple[FittedForm, PhysicalRegressor]:
    """A form fitted to y (n,), alone in its surface; and the regression that it is made of."""
    X = matrix(form.features, table)
    regressor = PhysicalRegressor(form.columns, form.exponent).fit(X, y)
    predicted = regressor.predict(X)
    shares = shares_of(X * regressor.coef_, predicted, form.columns, form.exponent)
    missed = fit_discrepancy(points_of(axes, table), shares, _log_errors(y, predicted), noise_sd)
    fitted = FittedForm(
        name=form.name,
        weight=1.0,
        features=form.features,
        groups=form.columns,
        coefficients=tuple(map(float, regressor.coef_)),
        exponent=None if form.exponent == inf else form.exponent,
        discrepancy=missed,
    )
    return fitted, regressor


def _left_out_rmse(whole: PhysicalRegressor, X: Array, y: Array) -> float:
    """Root mean square of log y − log ŷ, each row predicted by a fit without it.

    A soft maximum begins with the coefficients of all rows. With many rows, several are left out
    at a time.
    """
    fold = np.arange(len(y)) % min(len(y), MAX_FOLDS)
    errors = np.empty(len(y))
    for index in range(int(fold.max()) + 1):
        out = fold == index
        beta = _coefficients(X[~out], y[~out], whole.groups_, whole.exponent, whole.coef_)
        errors[out] = _log_errors(y[out], _joined(X[out], beta, whole.groups_, whole.exponent))
    return float(np.sqrt(np.mean(np.clip(errors, -MAX_LOG_ERROR, MAX_LOG_ERROR) ** 2)))


def _log_errors(y: Array, predicted: Array) -> Array:
    return np.asarray(np.log(y) - np.log(np.maximum(predicted, SMALLEST)))


def _weighed(fits: Sequence[_Fit], careful: bool) -> tuple[list[FittedForm], str]:
    """The forms that count, with their weights; and how they were weighed, in words."""
    exact = [fit for fit in fits if fit.left_out <= EXACT_SD]
    if exact:  # and its parts that are too, which may say something else where nothing was seen
        alike = [fit for fit in exact if _is_part(fit.form, exact[0].form)]
        chosen = f"{', '.join(fit.form.name for fit in alike)} (exact)"
        return _sharing([(fit.fitted, fit.form.prior) for fit in alike]), chosen
    merits = [
        fit.form.prior / max(fit.fitted.discrepancy.plain_sd * fit.left_out, EXACT_SD**2)
        for fit in fits
    ]
    shares = [merit / sum(merits) for merit in merits]
    kept = [(fit, share) for fit, share in zip(fits, shares, strict=True) if share > SLIGHT]
    chosen = ", ".join(
        f"{fit.form.name} {share:.0%} (leave-one-out error {fit.left_out:.2%})"
        for fit, share in kept
    )
    least = [fit.left_out if careful else 0.0 for fit, _ in kept]
    forms = [_missing_at_least(k[0].fitted, x) for k, x in zip(kept, least, strict=True)]
    return _sharing(list(zip(forms, [share for _, share in kept], strict=True))), chosen


def _is_part(form: Form, whole: Form) -> bool:
    return form.exponent == whole.exponent and set(form.features) <= set(whole.features)


def _sharing(weighed: Sequence[tuple[FittedForm, float]]) -> list[FittedForm]:
    """The forms with weights in these proportions, whose sum is 1."""
    total = sum(weight for _, weight in weighed)
    return [replace(form, weight=weight / total) for form, weight in weighed]


def _missing_at_least(fitted: FittedForm, least: float) -> FittedForm:
    missed = fitted.discrepancy
    factor = max(1.0, least / max(missed.left_out_rmse, EXACT_SD))
    return replace(fitted, discrepancy=replace(missed, scale=missed.scale * factor))
