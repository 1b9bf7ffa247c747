"""Which form a quantity takes: candidates, leave-one-out errors, the simplest that is as good.

    sum      Xβ                            physics adds up
    floor    max(launch β₁, work β₂)       launch-bound below, work-bound above
    … each of them with or without a smooth correction of its log residuals

A more complex form must lower the leave-one-out error by ``IMPROVEMENT``, or it is not taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from epochcast.costmodel.features import Array, Feature, Table, matrix, tabulate, varying
from epochcast.costmodel.regression import fit_planes, highest_plane, smoothing_inverse
from epochcast.costmodel.surface import Correction, Surface, kernel

IMPROVEMENT = 0.9  # of the leave-one-out error; one in ten is noise in small samples
LENGTH_SCALES = (1.0, 2.0, 4.0)  # doublings
MIN_NOISE, MAX_NOISE = 1e-4, 10.0  # of a correction, relative to the residuals' variance
MIN_ROWS_FOR_CHOICE = 4  # fewer say nothing about which form is right
MAX_FOLDS = 24  # beyond, several rows are left out at a time
UNKNOWN_SD = 0.16  # constant throughput misses neighbours by 16 % on average (docs/method.md)
EXACT_SD = 1e-6  # an error below this leaves nothing to correct


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A candidate: groups of features, and a length scale if residuals are corrected."""

    name: str
    groups: tuple[tuple[Feature, ...], ...]
    length_scale: float | None = None

    @property
    def features(self) -> tuple[Feature, ...]:
        """Those of all groups, one after another."""
        return tuple(feature for group in self.groups for feature in group)

    @property
    def columns(self) -> list[list[int]]:
        """Positions of each group's features among ``features``."""
        ends = np.cumsum([len(group) for group in self.groups])
        return [
            list(range(end - len(g), end))
            for g, end in zip(self.groups, ends.tolist(), strict=True)
        ]


def corrected(form: Form) -> list[Form]:
    """The same form with a correction of its residuals, at each length scale."""
    return [
        replace(form, name=f"{form.name}, corrected", length_scale=scale) for scale in LENGTH_SCALES
    ]


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

    def design(self, form: Form) -> Array:
        """X of a form, (n, p)."""
        return matrix(form.features, self.table)

    @property
    def places(self) -> Array:
        """Z: log₂ of the axes, (n, d)."""
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
    if len(y) < MIN_ROWS_FOR_CHOICE:
        form = candidates[0]
        return _surface(form, data, _few_errors(form, data), "too few to choose")
    tried: list[tuple[Form, Array]] = []
    for candidate in candidates:
        tried.append((candidate, _left_out_errors(candidate, data)))
        if _rms(tried[-1][1]) <= EXACT_SD:
            break
    plain = tried[_simplest_good(tried)]
    smooth: list[tuple[Form, Array]] = []
    if data.axes and _rms(plain[1]) > EXACT_SD:
        better = (form for candidate in candidates for form in corrected(candidate))
        smooth = [(form, _left_out_errors(form, data)) for form in better]
    form, errors = [plain, *smooth][_simplest_good([plain, *smooth])]
    others = "".join(f"; {f.name} {_rms(e):.2%}" for f, e in tried if f is not form)
    return _surface(form, data, errors, f"leave-one-out error {_rms(errors):.2%}{others}")


def _simplest_good(tried: Sequence[tuple[Form, Array]]) -> int:
    """The position of the best; one that comes later must be better by ``IMPROVEMENT``."""
    best, sizes = 0, [_rms(errors) for _, errors in tried]
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


@dataclass(frozen=True, slots=True)
class _Smoother:
    """The parts of a fitted ``ResidualSmoother`` that a surface keeps."""

    centres: Array
    length_scale: float
    noise: float
    inverse: Array
    weights: Array

    def predict(self, places: Array) -> Array:
        return np.asarray(kernel(places, self.centres, self.length_scale) @ self.weights)


class _Fitted:
    """A form fitted to data."""

    def __init__(self, form: Form, data: Data) -> None:
        self.form = form
        self.coefficients = fit_planes(data.design(form), data.y, form.columns)
        self.smoother: _Smoother | None = None
        residuals = self._physical_residuals(data)
        spread = float(np.mean(residuals**2))
        if form.length_scale is not None and spread > 0:
            noise = float(np.clip(data.noise_sd**2 / spread, MIN_NOISE, MAX_NOISE))
            inverse = smoothing_inverse(data.places, form.length_scale, noise)
            weights = inverse @ residuals
            self.smoother = _Smoother(data.places, form.length_scale, noise, inverse, weights)

    def _physical_residuals(self, data: Data) -> Array:
        predicted = highest_plane(data.design(self.form), self.form.columns, self.coefficients)
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
        features=form.features,
        groups=tuple(tuple(group) for group in form.columns),
        coefficients=tuple(tuple(map(float, c)) for c in fitted.coefficients),
        axes=data.axes,
        low=tuple(float(data.table[axis].min()) for axis in data.axes),
        high=tuple(float(data.table[axis].max()) for axis in data.axes),
        correction=_correction(fitted.smoother),
        loo_sd=_rms(errors),
        loo_dof=float(max(1, len(data.y) - 1)),
        chosen=f"{form.name} ({why})",
    )


def _correction(smoother: _Smoother | None) -> Correction | None:
    if smoother is None:
        return None
    left_out = float(np.mean(1.0 / np.diag(smoother.inverse))) - smoother.noise
    return Correction(
        length_scale=smoother.length_scale,
        centres=tuple(tuple(map(float, row)) for row in smoother.centres),
        weights=tuple(map(float, smoother.weights)),
        inverse=tuple(tuple(map(float, row)) for row in smoother.inverse),
        left_out_variance=max(left_out, 1e-6),
    )
