"""Which forms a quantity takes, and how much each of them is worth.

    sum          Σ terms                     one after the other, as a CPU works
    soft floor   (hostᵖ + deviceᵖ)^(1/p)     mostly at the same time, as an accelerator works
    maximum      max(plane, plane)           memory, whose peak is at one moment or another
    …  each of them with or without a smooth correction of its log residuals (discrepancy.py)

    weight w_m ∝ prior_m / e_m²              e_m² = (error of the fit) · (leave-one-out error)

is how forecasts are combined (Bates & Granger 1969, "The combination of forecasts"). The error of
the fit alone flatters a form with many coefficients; the leave-one-out error alone is ruled by the
one corner of a small design that the others cannot foresee.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf

import numpy as np

from epochcast.costmodel.discrepancy import EXACT_SD, MIN_ROWS, fit_discrepancy
from epochcast.costmodel.features import Array, Feature, Table, matrix, tabulate
from epochcast.costmodel.regression import fit_physics, predict_physics
from epochcast.costmodel.surface import (
    TIME_SD_PER_DOUBLING,
    FittedForm,
    Surface,
    shares_of,
)

SLIGHT = 0.01  # a form that counts for less is left out
MAX_FOLDS = 24  # beyond, several rows are left out at a time
MAX_LOG_ERROR = float(np.log(100.0))  # of one left-out row; more says no more


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A candidate: groups of features, how they join, and how likely physics makes it."""

    name: str
    groups: tuple[tuple[Feature, ...], ...]
    exponent: float = 1.0
    prior: float = 1.0

    @property
    def features(self) -> tuple[Feature, ...]:
        """Those of all groups, one after another."""
        return tuple(feature for group in self.groups for feature in group)

    @property
    def columns(self) -> tuple[tuple[int, ...], ...]:
        """Positions of each group's features among ``features``."""
        ends = np.cumsum([len(group) for group in self.groups]).tolist()
        return tuple(
            tuple(range(end - len(g), end)) for g, end in zip(self.groups, ends, strict=True)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """What a quantity is fitted to.

    Attributes:
        table: variables by name, each (n,).
        y: the quantity, positive, (n,).
        axes: variables that say where a configuration is.
        noise_sd: of log y, from repeated measurements; 0 for what is counted exactly.
        sd_per_doubling, sd_between: see ``Surface``.
    """

    table: Table
    y: Array
    axes: tuple[str, ...]
    noise_sd: float = 0.0
    sd_per_doubling: float = TIME_SD_PER_DOUBLING
    sd_between: float = 0.0

    @property
    def places(self) -> Array:
        """Z: log₂ of the axes, (n, d)."""
        columns = [np.log2(self.table[axis]) for axis in self.axes]
        return np.stack(columns, axis=1) if columns else np.zeros((len(self.y), 0))


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
        noise_sd: of log y, from repeated measurements.
        sd_per_doubling, sd_between: see ``Surface``.
        careful: what a form misses is taken to be no less than its leave-one-out errors say; for
            counts, which have kinks and no noise.
    """
    table = tabulate(rows)
    known = tuple(axis for axis in axes if axis in table)
    data = Data(
        table=table,
        y=np.asarray(y, float),
        axes=known,
        noise_sd=noise_sd,
        sd_per_doubling=sd_per_doubling,
        sd_between=sd_between,
    )
    if len(y) < MIN_ROWS:
        few = f"{candidates[0].name} (too few configurations to choose)"
        return _surface([(candidates[0], 1.0, 0.0)], data, few)
    errors = [_errors(form, data) for form in candidates]
    exact = [
        form for form, (_, left_out) in zip(candidates, errors, strict=True) if left_out <= EXACT_SD
    ]
    if exact:  # and its parts that are too, which may say something else where nothing was seen
        alike = [form for form in exact if _is_part(form, exact[0])]
        why = f"{', '.join(form.name for form in alike)} (exact)"
        return _surface([(form, form.prior, 0.0) for form in alike], data, why)
    merits = [
        form.prior / max(fit * left_out, EXACT_SD**2)
        for form, (fit, left_out) in zip(candidates, errors, strict=True)
    ]
    shares = [merit / sum(merits) for merit in merits]
    kept = [
        (form, share, left_out if careful else 0.0)
        for form, share, (_, left_out) in zip(candidates, shares, errors, strict=True)
        if share > SLIGHT
    ]
    why = ", ".join(
        f"{form.name} {share:.0%} (leave-one-out error {left_out:.2%})"
        for form, share, (_, left_out) in zip(candidates, shares, errors, strict=True)
        if share > SLIGHT
    )
    return _surface(kept, data, why)


def _is_part(form: Form, whole: Form) -> bool:
    return form.exponent == whole.exponent and set(form.features) <= set(whole.features)


def _errors(form: Form, data: Data) -> tuple[float, float]:
    """Standard deviation of log y − log ŷ: of the fit, for its degrees of freedom; left out."""
    fitted = _fit(form, data, 1.0)
    return fitted.discrepancy.plain_sd, _left_out_error(form, data)


def _left_out_error(form: Form, data: Data) -> float:
    """Root mean square of log y − log ŷ, each row predicted by a fit without it.

    With many rows, several are left out at a time.
    """
    X, n = matrix(form.features, data.table), len(data.y)
    whole = fit_physics(X, data.y, form.columns, form.exponent)
    fold = np.arange(n) % min(n, MAX_FOLDS)
    errors = np.empty(n)
    for index in range(int(fold.max()) + 1):
        out = fold == index
        beta = fit_physics(X[~out], data.y[~out], form.columns, form.exponent, start=whole)
        errors[out] = _log_residuals(form, X[out], data.y[out], beta)
    return float(np.sqrt(np.mean(np.clip(errors, -MAX_LOG_ERROR, MAX_LOG_ERROR) ** 2)))


def _log_residuals(form: Form, X: Array, y: Array, beta: Array) -> Array:
    predicted = predict_physics(X, beta, form.columns, form.exponent)
    return np.asarray(np.log(y) - np.log(np.maximum(predicted, 1e-300)))


def _surface(weighed: Sequence[tuple[Form, float, float]], data: Data, why: str) -> Surface:
    """The average of forms with their weights and the least that each is taken to miss."""
    total = sum(weight for _, weight, _ in weighed)
    forms = tuple(
        _missing_at_least(_fit(form, data, weight / total), least)
        for form, weight, least in weighed
    )
    smooth = any(form.discrepancy.length_scale is not None for form in forms)
    return Surface(
        forms=forms,
        axes=data.axes,
        low=tuple(float(data.table[axis].min()) for axis in data.axes),
        high=tuple(float(data.table[axis].max()) for axis in data.axes),
        sd_per_doubling=data.sd_per_doubling,
        sd_between=data.sd_between,
        chosen=why + (", with a smooth correction" if smooth else ""),
    )


def _missing_at_least(fitted: FittedForm, least: float) -> FittedForm:
    missed = fitted.discrepancy
    factor = max(1.0, least / max(missed.left_out_sd, EXACT_SD))
    return replace(fitted, discrepancy=replace(missed, scale=missed.scale * factor))


def _fit(form: Form, data: Data, weight: float) -> FittedForm:
    X = matrix(form.features, data.table)
    beta = fit_physics(X, data.y, form.columns, form.exponent)
    predicted = predict_physics(X, beta, form.columns, form.exponent)
    shares = shares_of(X * beta, predicted, form.columns, form.exponent)
    residuals = _log_residuals(form, X, data.y, beta)
    return FittedForm(
        name=form.name,
        weight=weight,
        features=form.features,
        groups=form.columns,
        coefficients=tuple(map(float, beta)),
        exponent=None if form.exponent == inf else form.exponent,
        discrepancy=fit_discrepancy(data.places, shares, residuals, data.noise_sd),
    )
