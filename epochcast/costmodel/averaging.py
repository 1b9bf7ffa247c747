"""One surface from several forms that a quantity may take: fitted, weighed, averaged, checked.

    weight w_m ∝ prior_m / e_m²              e_m² = (error of the fit) · (leave-one-out error)

is how forecasts are combined (Bates & Granger 1969, "The combination of forecasts"). The error of
the fit alone flatters a form with many coefficients; the leave-one-out error alone is ruled by the
one corner of a small design that the others cannot foresee.

How far the average is to be believed away from what was measured is measured too, where there are
levels enough: levels of an axis are left out one by one, predicted by the others, and what the
interval inside the range does not explain is reckoned by the doubling from the nearest level:

    s² = ( ν₀·s₀² + Σ max(0, e² − v) / d² ) / (ν₀ + levels)

    e, v   error of the level left out, and the variance that was claimed for it (log scale)
    d      doublings from the nearest level that was kept, at least a quarter
    s₀, ν₀ what is assumed without levels, and how many of them that is worth (scaled inverse-χ²)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf

import numpy as np

from epochcast.costmodel.discrepancy import EXACT_SD, MIN_ROWS, Discrepancy, fit_discrepancy
from epochcast.costmodel.features import (
    KNOB_PREFIX,
    Array,
    Form,
    VariableTable,
    matrix,
    oriented,
    powers_of,
    raised,
    tabulate,
    usual_share,
)
from epochcast.costmodel.lines import (
    GROWN,
    LEVELS_OF_AN_EXPONENTIAL,
    RISE,
    line_forms,
    unit_of,
    with_lines,
)
from epochcast.costmodel.regression import Shape, Solution, evaluate, log_slopes, solve
from epochcast.costmodel.scatter import Scatter
from epochcast.costmodel.surface import (
    HIDDEN_SD,
    INSIDE,
    SMALLEST,
    TIME_SD_PER_DOUBLING,
    FittedForm,
    Surface,
    points_of,
    shares_of,
    with_powers,
)
from epochcast.units import format_percent

SLIGHT = 0.01  # a form that counts for less is left out, but for being unlikely beforehand
MAX_FOLDS, FEW_FOLDS, MANY_ROWS = 24, 8, 200  # beyond, several rows are left out at a time
MAX_LOG_ERROR = float(np.log(100.0))  # of one left-out row; more says no more
LEAST_SLOPE, SURE_SDS = 0.05, 2.0  # of log y over log knob: less is none, or chance
LEAST_LEVELS = 4  # of an axis, to leave one out
MAX_CHECKS, LEAST_CHECKS = 24, 3  # levels left out, of all axes; and of each one that has so many
MINOR = 0.03  # forms of less weight have no say in that
LEAST_DISTANCE = 0.25  # doublings
LEAST_STEP = 0.1  # doublings
SHOWN = 0.35  # of log y over log batch, from where on the batch shows
SPOKEN = 3.0  # times as likely
ASSUMED_LEVELS = 2.0  # ν₀


@dataclass(frozen=True, slots=True, kw_only=True)
class _Data:
    """What is fitted: the variables of n configurations, and the quantity in each."""

    table: VariableTable
    y: Array
    axes: tuple[str, ...]
    units: tuple[float, ...]
    noise_sd: float

    def __len__(self) -> int:
        return len(self.y)

    @property
    def points(self) -> Array:
        """(n, d)."""
        return points_of(self.axes, self.table, self.units)

    def along(self, axis: str) -> Array:
        """Where the configurations lie on one axis, (n,)."""
        return self.points[:, self.axes.index(axis)]

    @property
    def spans(self) -> list[str]:
        """The knobs among the axes."""
        return [axis for axis in self.axes if axis.startswith(KNOB_PREFIX)]

    def rows(self, kept: Array) -> _Data:
        """Some of the configurations."""
        table = {name: column[kept] for name, column in self.table.items()}
        return replace(self, table=table, y=self.y[kept])

    def varied(self) -> list[str]:
        """The axes that differ anywhere."""
        return [axis for axis in self.axes if np.ptp(self.table[axis]) > 0]

    def variables(self, names: Sequence[str]) -> Array:
        """Columns of the table, (n, m)."""
        return np.stack([self.table[n] for n in names], axis=1) if names else self.nothing

    @property
    def nothing(self) -> Array:
        """(n, 0)."""
        return np.zeros((len(self), 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fit:
    """A form fitted to all rows, and its leave-one-out RMSE on the log scale.

    Attributes:
        shares: J of discrepancy.py, (n, k).
        errors: log residuals, (n,).
    """

    form: Form
    solution: Solution
    fitted: FittedForm
    shares: Array
    errors: Array
    left_out: float = inf

    def with_correction(self, data: _Data, *, again: bool = False) -> _Fit:
        """The same with what is smooth in its errors.

        Args:
            data: that it was fitted to.
            again: as smooth as it is known to be already, under other noise.
        """
        like = self.fitted.discrepancy if again else None
        missed = fit_discrepancy(data.points, self.shares, self.errors, data.noise_sd, like)
        return replace(self, fitted=replace(self.fitted, discrepancy=missed))


def fit_surface(
    rows: Sequence[Mapping[str, float]],
    y: Sequence[float],
    candidates: Sequence[Form],
    axes: Sequence[str],
    noise_sd: float = 0.0,
    sd_per_doubling: float = TIME_SD_PER_DOUBLING,
    sd_between: float = 0.0,
    careful: bool = False,
    noise_of: Callable[[Scatter], float] | None = None,
) -> Surface:
    """The surface of a quantity from its values in some configurations.

    Args:
        rows: variables of each configuration.
        y: the quantity in each, positive.
        candidates: the first is used where there are too few configurations to choose.
        axes: variables that say where a configuration is.
        noise_sd: of log y, from repeated measurements; 0 for what is counted exactly.
        sd_per_doubling: what is assumed to be missed a doubling outside the range.
        sd_between: likewise inside it, from the nearest model size measured; where it is not 0
            both are corrected by levels that are left out.
        careful: what a form misses is taken to be no less than its leave-one-out errors say; for
            counts, which have kinks and no noise.
        noise_of: the noise in place of ``noise_sd``, from what that one leaves of the residuals.
    """
    table = tabulate(rows)
    known = tuple(axis for axis in axes if axis in table)
    spans = {
        axis: (float(table[axis].min()), float(table[axis].max()))
        for axis in known
        if axis.startswith(KNOB_PREFIX)
    }
    data = _Data(
        table=with_lines(table, spans),
        y=np.asarray(y, float),
        axes=known,
        units=tuple(unit_of(table[axis]) for axis in known),
        noise_sd=noise_sd,
    )
    forms = _forms(candidates, data)
    if len(data) < MIN_ROWS:
        shared = [form for form in forms if form.ridge] if len(data.varied()) > 1 else []
        some = shared or forms[:1]
        weighed = [(_fit(form, data), form.prior) for form in some]
        names = ", ".join(form.name for form in some)
        chosen = f"{names} (too few configurations to choose)"
    else:
        weighed, chosen = _weighed([_with_left_out(_fit(form, data), data) for form in forms])
    weighed = [(fit.with_correction(data), weight) for fit, weight in weighed]
    hidden_sd = HIDDEN_SD if sd_between else 0.0  # of times: bytes do not hide behind launches
    surface = Surface(
        forms=_sharing(weighed, careful),
        axes=known,
        low=tuple(float(table[axis].min()) for axis in known),
        high=tuple(float(table[axis].max()) for axis in known),
        units=data.units if any(data.units) else (),
        outside_sds=tuple(
            max(sd_per_doubling / _step(data, axis), hidden_sd * _hidden(data, axis))
            for axis in known
        ),
        sd_between=sd_between,
        chosen=chosen,
    )
    if noise_of is not None:
        data = replace(data, noise_sd=noise_of(surface.residual))
        weighed = [(fit.with_correction(data, again=True), weight) for fit, weight in weighed]
        surface = replace(surface, forms=_sharing(weighed, careful))
    smooth = any(form.discrepancy.length_scale is not None for form in surface.forms)
    if smooth:
        surface = replace(surface, chosen=chosen + ", with a smooth correction")
    return _checked(surface, weighed, data) if sd_between else surface


def _forms(candidates: Sequence[Form], data: _Data) -> list[Form]:
    """Those that the configurations can tell apart."""
    levels = {name: np.unique(data.table[name]) for name in data.axes if name in data.spans}
    falling = _falling(data)
    curved = _curved(data, levels)
    forms = line_forms(candidates, levels, falling, curved)
    able = [form for form in forms if len(data) >= form.least]
    positive = {name for name in falling if levels[name][0] > 0}
    turned = positive | {GROWN + name for name in falling}
    return [_spoken(form, data) for form in oriented(able, turned)]


def _spoken(form: Form, data: _Data) -> Form:
    """A form of sizes rounded up is likelier where some that were measured are not round."""
    if form.rounded and any(np.any(data.table[a] != data.table[b]) for a, b in form.rounded):
        return replace(form, prior=form.prior * SPOKEN)
    return form


def _step(data: _Data, axis: str) -> float:
    """Doublings between two levels of an axis, in the mean, at most one: from levels that lie close
    to each other one does not see far."""
    levels = np.unique(data.along(axis))
    if len(levels) < 2:
        return 1.0
    return float(np.clip(np.ptp(levels) / (len(levels) - 1), LEAST_STEP, 1.0))


def _hidden(data: _Data, axis: str) -> float:
    """From 0 to 1, how surely what grows with the batch does not show: the two largest take the
    same time, e.g. that of launches, and right beyond them growth in proportion may begin."""
    levels = np.unique(data.along(axis))
    if axis != "batch_size" or len(levels) < 2:
        return 0.0
    low, high = (data.rows(data.along(axis) == level) for level in levels[-2:])
    grown = float(np.log(high.y).mean() - np.log(low.y).mean())
    if len(low) != len(high):  # of other models
        return 0.0
    elasticity = grown / float(np.log(2.0) * (levels[-1] - levels[-2]))
    return min(1.0, max(0.0, 1.0 - elasticity / SHOWN))


def _falling(data: _Data) -> set[str]:
    """Knobs along which the quantity falls, beyond doubt: a larger patch makes fewer of them.

    Where two knobs rise together, as width and layers of published models do, a slope may come out
    negative for want of anything that tells them apart.
    """
    names = data.varied()
    if not set(names) & set(data.spans):
        return set()
    slopes, sds = log_slopes(2.0 ** np.column_stack([data.along(name) for name in names]), data.y)
    surely = slopes + SURE_SDS * sds
    return {
        name
        for name, slope in zip(names, surely, strict=True)
        if name.startswith(KNOB_PREFIX) and slope < -LEAST_SLOPE
    }


def _curved(data: _Data, levels: Mapping[str, Array]) -> set[str]:
    """Knobs of four values and more along which log y is straighter over the value itself than over
    its logarithm, the other axes being the same."""
    names = data.varied()
    found = set()
    for knob in names:
        if knob in levels and len(levels[knob]) >= LEVELS_OF_AN_EXPONENTIAL and levels[knob][0] > 0:
            others = [data.along(name) for name in names if name != knob]
            as_power = _squares(np.column_stack([*others, data.along(knob)]), data.y)
            if _squares(np.column_stack([*others, data.table[RISE + knob]]), data.y) < as_power:
                found.add(knob)
    return found


def _squares(X: Array, y: Array) -> float:
    """Sum of squares that linear regression of log y leaves."""
    X = np.column_stack([np.ones(len(X)), X])
    residuals = np.log(y) - X @ np.linalg.lstsq(X, np.log(y), rcond=None)[0]
    return float(residuals @ residuals)


# -- one form -----------------------------------------------------------------------------------


def _fit(form: Form, data: _Data, like: _Fit | None = None) -> _Fit:
    """A form fitted, alone in its surface.

    Args:
        form: whose free powers, of axes that vary, are fitted.
        data: n configurations.
        like: a fit of nearly the same rows: where to start, and how smooth its correction is; none
            is sought without.
    """
    X, V, shape = _problem(form, data)
    solution = solve(X, V, data.y, shape, like.solution if like else None)
    predicted = evaluate(X, V, solution, shape)
    factors = dict(zip(form.free, map(float, solution.q), strict=True))
    features = raised(form.features, factors)
    terms = matrix(features, data.table) * solution.beta
    shares = shares_of(terms, predicted, form.columns, form.exponent)
    means = tuple((name, float(np.log(data.table[name]).mean())) for name in form.free)
    shares = with_powers(shares, features, means, data.table)
    errors = _log_errors(data.y, predicted)
    missed = fit_discrepancy(
        data.points,
        shares,
        errors,
        data.noise_sd,
        like.fitted.discrepancy if like else None,
        seek=False,
    )
    fitted = FittedForm(
        name=form.name,
        weight=1.0,
        features=features,
        groups=form.columns,
        coefficients=tuple(map(float, solution.beta)),
        exponent=None if form.exponent == inf else form.exponent,
        free=means,
        discrepancy=missed,
    )
    return _Fit(form=form, solution=solution, fitted=fitted, shares=shares, errors=errors)


def _problem(form: Form, data: _Data) -> tuple[Array, Array, Shape]:
    """X, V and how the columns join."""
    powers = powers_of(form.features, form.free)
    ridge = None
    if form.ridge and len(data) > 1:  # of one row work is taken for all
        ridge = form.ridge / np.array([usual_share(feature) for feature in form.features])
    shape = Shape(form.columns, form.exponent, powers, ridge)
    return matrix(form.features, data.table), data.variables(form.free), shape


def _with_left_out(fit: _Fit, data: _Data) -> _Fit:
    """Root mean square of log y − log ŷ, each row predicted by a fit without it.

    With many rows, several are left out at a time.
    """
    X, V, shape = _problem(fit.form, data)
    most = MAX_FOLDS if len(data) <= MANY_ROWS else FEW_FOLDS
    fold = np.arange(len(data)) % min(len(data), most)
    errors = np.empty(len(data))
    for index in range(int(fold.max()) + 1):
        out = fold == index
        solution = solve(X[~out], V[~out], data.y[~out], shape, fit.solution)
        errors[out] = _log_errors(data.y[out], evaluate(X[out], V[out], solution, shape))
    rmse = float(np.sqrt(np.mean(np.clip(errors, -MAX_LOG_ERROR, MAX_LOG_ERROR) ** 2)))
    return replace(fit, left_out=rmse)


def _log_errors(y: Array, predicted: Array) -> Array:
    return np.asarray(np.log(y) - np.log(np.maximum(predicted, SMALLEST)))


# -- weights --------------------------------------------------------------------------------------


def _weighed(fits: Sequence[_Fit]) -> tuple[list[tuple[_Fit, float]], str]:
    """The forms that count, with their weights; and how they were weighed, in words."""
    exact = [fit for fit in fits if fit.left_out <= EXACT_SD]
    if exact:  # and its parts that are too, which may say something else where nothing was seen
        alike = [fit for fit in exact if _is_part(fit.form, exact[0].form)]
        chosen = f"{', '.join(fit.form.name for fit in alike)} (exact)"
        return [(fit, fit.form.prior) for fit in alike], chosen
    merits = [
        fit.form.prior / max(fit.fitted.discrepancy.plain_sd * fit.left_out, EXACT_SD**2)
        for fit in fits
    ]
    shares = [merit / sum(merits) for merit in merits]
    pairs = zip(fits, shares, strict=True)
    kept = [(fit, share) for fit, share in pairs if share > SLIGHT * min(1.0, fit.form.prior)]
    chosen = ", ".join(
        f"{fit.form.name} {format_percent(share, 0)} "
        f"(leave-one-out error {format_percent(fit.left_out, 2)})"
        for fit, share in kept
    )
    return kept, chosen


def _is_part(form: Form, whole: Form) -> bool:
    return form.exponent == whole.exponent and set(form.features) <= set(whole.features)


def _sharing(weighed: Sequence[tuple[_Fit, float]], careful: bool) -> tuple[FittedForm, ...]:
    """The fitted forms with weights in these proportions, whose sum is 1."""
    total = sum(weight for _, weight in weighed)
    return tuple(
        replace(
            fit.fitted,
            weight=weight / total,
            discrepancy=_missing_at_least(fit.fitted.discrepancy, fit.left_out)
            if careful and fit.left_out < inf
            else fit.fitted.discrepancy,
        )
        for fit, weight in weighed
    )


def _missing_at_least(missed: Discrepancy, least: float) -> Discrepancy:
    factor = max(1.0, least / max(missed.left_out_rmse, EXACT_SD))
    return replace(missed, scale=missed.scale * factor)


# -- levels left out ------------------------------------------------------------------------------


def _checked(surface: Surface, weighed: Sequence[tuple[_Fit, float]], data: _Data) -> Surface:
    """The surface, believed away from what was measured as far as its levels foretell each other.

    Of batch sizes only the largest is left out: between them nothing is added.
    """
    outside, between, levels = [], [], 0
    for axis, assumed in zip(surface.axes, surface.outside_sds, strict=True):
        found = _left_out_levels(axis, weighed, surface, data)
        levels = max(levels, len(found))
        beyond = [square for square, is_outside in found if is_outside]
        outside.append(_posterior(assumed, beyond))
        inside = [square for square, is_outside in found if not is_outside]
        more = _posterior(surface.sd_between, inside) ** 2 - surface.sd_between**2
        between.append(float(np.sqrt(max(0.0, more))))
    if not levels:
        return surface
    return replace(
        surface,
        outside_sds=tuple(outside),
        level_sds=tuple(between),
        levels_dof=ASSUMED_LEVELS + levels,
    )


def _posterior(assumed: float, squares: Sequence[float]) -> float:
    """s of the module's equation."""
    total = ASSUMED_LEVELS * assumed**2 + sum(squares)
    return float(np.sqrt(total / (ASSUMED_LEVELS + len(squares))))


def _left_out_levels(
    axis: str, weighed: Sequence[tuple[_Fit, float]], surface: Surface, data: _Data
) -> list[tuple[float, bool]]:
    """(e² − v) / d² of each level of an axis that is left out, and whether it lies outside."""
    z = data.along(axis)
    levels = np.unique(z)
    if len(levels) < LEAST_LEVELS:
        return []
    step = -(-len(levels) // max(LEAST_CHECKS, MAX_CHECKS // len(data.varied())))
    major = [(fit, weight) for fit, weight in weighed if weight > MINOR] or weighed
    chosen = {levels[-1]} if axis == "batch_size" else {*levels[::step], levels[-1]}
    found = []
    for level in sorted(chosen):
        kept = z != level
        part = data.rows(kept)
        if len(part) < MIN_ROWS or part.varied() != data.varied():
            continue
        forms = _sharing([(_fit(fit.form, part, fit), weight) for fit, weight in major], False)
        others = levels[levels != level]
        rest = replace(surface, forms=forms)
        held_out = data.rows(~kept)
        errors = _log_errors(held_out.y, rest.values(held_out.table))
        claimed = rest.learned_sds(held_out.table) ** 2
        square = float(np.mean(np.clip(errors, -MAX_LOG_ERROR, MAX_LOG_ERROR) ** 2 - claimed))
        distance = max(float(np.abs(others - level).min()), LEAST_DISTANCE)
        is_outside = bool(level < others.min() - INSIDE or level > others.max() + INSIDE)
        found.append((max(0.0, square) / distance**2, is_outside))
    return found
