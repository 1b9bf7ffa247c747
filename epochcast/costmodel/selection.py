"""Which form a quantity takes: candidates, leave-one-out errors, the simplest that is as good.

    sum      Xβ                            physics adds up
    floor    max(launch β₁, work β₂)       launch-bound below, work-bound above
    … each with or without a smooth correction of its log residuals

A more complex form must lower the leave-one-out error by ``IMPROVEMENT``, or it is not taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from epochcast.costmodel.features import Array, Feature, Table, matrix, tabulate, varying
from epochcast.costmodel.regression import PhysicalRegressor, ResidualSmoother
from epochcast.costmodel.surface import Correction, Surface

IMPROVEMENT = 0.9  # of the leave-one-out error; one in ten is noise in small samples
LENGTH_SCALES = (1.0, 2.0, 4.0)  # doublings
MIN_NOISE, MAX_NOISE = 1e-4, 10.0  # of a correction, relative to the residuals' variance
MIN_ROWS_FOR_CHOICE = 4  # fewer say nothing about which form is right
MAX_FOLDS = 24  # beyond, several rows are left out at a time
UNKNOWN_SD = 0.16  # constant throughput misses neighbours by 16 % on average (docs/method.md)
EXACT_SD = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A candidate: groups of features, and a length scale if residuals are corrected."""

    name: str
    groups: tuple[tuple[Feature, ...], ...]
    length_scale: float | None = None


def forms(groups: Sequence[tuple[str, tuple[tuple[Feature, ...], ...]]]) -> list[Form]:
    """Each division into groups alone, then with a correction at each length scale."""
    plain = [Form(name=name, groups=g) for name, g in groups]
    smooth = [
        Form(name=f"{form.name}, corrected", groups=form.groups, length_scale=scale)
        for form in plain
        for scale in LENGTH_SCALES
    ]
    return plain + smooth


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """What a quantity is fitted to.

    Attributes:
        table: variables by name, each (n,).
        y: the quantity, positive, (n,).
        axes: variables that say where a configuration is.
        noise_sd: of log y, from repeated measurements.
    """

    table: Table
    y: Array
    axes: tuple[str, ...]
    noise_sd: float = 0.0

    def rows(self, index: Array) -> Data:
        """A subset of the configurations."""
        table = {name: column[index] for name, column in self.table.items()}
        return Data(table=table, y=self.y[index], axes=self.axes, noise_sd=self.noise_sd)

    @property
    def places(self) -> Array:
        """Z: log₂ of the axes, (n, d)."""
        if not self.axes:
            return np.zeros((len(self.y), 1))
        return np.log2(np.stack([self.table[axis] for axis in self.axes], axis=1))


def fit_surface(
    rows: Sequence[Mapping[str, float]],
    y: Sequence[float],
    candidates: Sequence[Form],
    axes: Sequence[str],
    noise_sd: float = 0.0,
) -> Surface:
    """The surface of a quantity from its values in some configurations.

    Args:
        rows: variables of each configuration.
        y: the quantity in each, positive.
        candidates: simplest first.
        axes: variables that may place a configuration; those that do not vary are dropped.
        noise_sd: of log y, from repeated measurements.
    """
    table = tabulate(rows)
    known = [axis for axis in axes if axis in table]
    data = Data(table=table, y=np.asarray(y, float), axes=varying(table, known), noise_sd=noise_sd)
    usable = [form for form in candidates if form.length_scale is None or data.axes]
    if len(y) < MIN_ROWS_FOR_CHOICE:
        return _surface(usable[0], data, _few_errors(usable[0], data), "too few to choose")
    errors = [_left_out_errors(form, data) for form in usable]
    sizes = [_rms(e) for e in errors]
    best = _simplest_good(sizes)
    why = f"leave-one-out error {sizes[best]:.2%}; " + ", ".join(
        f"{form.name} {size:.2%}"
        for form, size in zip(usable, sizes, strict=True)
        if form.length_scale is None and form is not usable[best]
    )
    return _surface(usable[best], data, errors[best], why.rstrip("; "))


def _simplest_good(sizes: Sequence[float]) -> int:
    best = 0
    for index, size in enumerate(sizes):
        if size < IMPROVEMENT * sizes[best] - EXACT_SD:
            best = index
    return best


def _few_errors(form: Form, data: Data) -> Array:
    """With hardly any rows nothing can be left out: what neighbours differ by, by assumption."""
    fitted = _Fitted(form, data)
    return np.maximum(np.abs(fitted.residuals(data)), UNKNOWN_SD if len(data.y) > 1 else 0.0)


def _rms(errors: Array) -> float:
    return float(np.sqrt(np.mean(errors**2)))


class _Fitted:
    """A form fitted to data."""

    def __init__(self, form: Form, data: Data) -> None:
        self.features = tuple(feature for group in form.groups for feature in group)
        ends = np.cumsum([len(group) for group in form.groups])
        starts = np.r_[0, ends[:-1]]
        groups = [list(range(a, b)) for a, b in zip(starts, ends, strict=True)]
        self.physics = PhysicalRegressor(groups).fit(matrix(self.features, data.table), data.y)
        self.smoother: ResidualSmoother | None = None
        residuals = self._physical_residuals(data)
        spread = float(np.mean(residuals**2))
        if form.length_scale is not None and spread > 0:
            noise = float(np.clip(data.noise_sd**2 / spread, MIN_NOISE, MAX_NOISE))
            self.smoother = ResidualSmoother(form.length_scale, noise).fit(data.places, residuals)

    def _physical_residuals(self, data: Data) -> Array:
        predicted = self.physics.predict(matrix(self.features, data.table))
        return np.asarray(np.log(data.y) - np.log(np.maximum(predicted, 1e-300)))

    def residuals(self, data: Data) -> Array:
        """log y − log ŷ, (n,)."""
        residuals = self._physical_residuals(data)
        return residuals - self.smoother.predict(data.places) if self.smoother else residuals


def _left_out_errors(form: Form, data: Data) -> Array:
    """log y − log ŷ of each row, from a fit without it; in folds when there are many rows."""
    n = len(data.y)
    fold = np.arange(n) % min(n, MAX_FOLDS)
    errors = np.empty(n)
    for index in range(int(fold.max()) + 1):
        out = fold == index
        errors[out] = _Fitted(form, data.rows(~out)).residuals(data.rows(out))
    return np.clip(errors, -np.log(100.0), np.log(100.0))


def _surface(form: Form, data: Data, errors: Array, why: str) -> Surface:
    fitted = _Fitted(form, data)
    return Surface(
        features=fitted.features,
        groups=tuple(tuple(group) for group in fitted.physics.groups_),
        coefficients=tuple(tuple(map(float, c)) for c in fitted.physics.coef_),
        axes=data.axes,
        low=tuple(float(data.table[axis].min()) for axis in data.axes),
        high=tuple(float(data.table[axis].max()) for axis in data.axes),
        correction=_correction(form, fitted.smoother),
        loo_sd=_rms(errors),
        loo_dof=float(max(1, len(data.y) - 1)),
        chosen=f"{form.name} ({why})",
    )


def _correction(form: Form, smoother: ResidualSmoother | None) -> Correction | None:
    if smoother is None or form.length_scale is None:
        return None
    left_out = float(np.mean(1.0 / np.diag(smoother.inverse_))) - smoother.noise
    return Correction(
        length_scale=form.length_scale,
        centres=tuple(tuple(map(float, row)) for row in smoother.centres_),
        weights=tuple(map(float, smoother.weights_)),
        inverse=tuple(tuple(map(float, row)) for row in smoother.inverse_),
        left_out_variance=max(left_out, 1e-6),
    )
