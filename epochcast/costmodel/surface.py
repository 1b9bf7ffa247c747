"""A fitted quantity over configurations, as plain numbers: evaluating it needs numpy alone.

    physics(x)  = ( Σ_g (X_g β_g)^p )^(1/p)
    log v_m(x)  = log physics(x) + correction(x)       of one form m; discrepancy.py has the
    sd_m(x)     = sd of what both miss                 equations of these two
    log v(x)    = Σ w_m log v_m(x)                     of the surface
    sd(x)²      = Σ w_m ( sd_m(x)² + (log v_m(x) − log v(x))² )

Several forms that explain the same measurements are averaged, and where they disagree the answer is
less certain: the law of total variance, as in Bayesian model averaging (Hoeting et al. 1999,
"Bayesian model averaging: a tutorial", equations 1–3). Outside the range it was fitted in, sd grows
with the distance in doublings.

A micro-step is one such surface, or two that meet (``Loading``): computing, and loading data.

    workers = 0    t = compute + loader                  one after the other, in one process
    workers ≥ 1    t = (computeᵖ + loaderᵖ)^(1/p)        meanwhile: the slower one rules
    loader(W)      = loader(W₀) · (max(1, W₀) / max(1, W))^γ

Both are measured alone: ``loader_seconds`` without computing, and computing as a step without its
wait for data. p is the one that fits the whole steps best; γ is 1 (twice the workers, half the
time) unless two numbers of workers were probed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import hypot, inf, log, log2, sqrt
from statistics import fmean

import numpy as np

from epochcast.costmodel.discrepancy import IMPROVEMENT, Discrepancy
from epochcast.costmodel.features import (
    CLASS_PREFIX,
    COUNTS,
    Array,
    Feature,
    VariableTable,
    matrix,
    powers_of,
)
from epochcast.costmodel.scatter import KNOWN_DOF, Scatter

WIDENING_PER_DOUBLING = 0.5  # sd_log grows so a doubling outside: less, and bends beyond are missed
TIME_SD_PER_DOUBLING = 0.05  # is added: a third of what constant throughput misses a doubling by
TIME_SD_BETWEEN = 0.03  # a doubling from each of two model sizes measured: see docs/method.md
BYTES_SD_PER_DOUBLING = 0.02  # memory beyond the tensors hardly depends on the batch
SMALLEST = 1e-300  # seconds or bytes; keeps logarithms finite
INSIDE = 1e-9  # doublings that are no distance
OVERLAPS = (inf, 4.0, 2.0, 1.0)
IDEAL_SCALING = 1.0

Point = tuple[Mapping[str, float], float]  # variables, and seconds of a whole micro-step


def join(planes: Array, exponent: float) -> Array:
    """( Σ_g h_g^p )^(1/p) over the first axis of planes (groups, n), not negative; (n,)."""
    if exponent == 1 or len(planes) == 1:
        return np.asarray(planes.sum(axis=0))
    highest = planes.max(axis=0)
    if exponent == inf:
        return np.asarray(highest)
    shares = planes / np.maximum(highest, SMALLEST)
    return np.asarray(highest * (shares**exponent).sum(axis=0) ** (1 / exponent))


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedForm:
    """One form with its coefficients.

    Attributes:
        name: of the form.
        weight: w, its share in the surface.
        features: of every group, concatenated.
        groups: for each group, the positions of its features.
        coefficients: one for each feature; not negative.
        exponent: p, by which the groups join; None is infinity (JSON has none).
        free: variables whose powers were fitted, and the mean of their logs.
        discrepancy: what physics misses.
    """

    name: str
    weight: float
    features: tuple[Feature, ...]
    groups: tuple[tuple[int, ...], ...]
    coefficients: tuple[float, ...]
    exponent: float | None
    free: tuple[tuple[str, float], ...] = ()
    discrepancy: Discrepancy

    def log_values(self, table: VariableTable, points: Array, inside: Array) -> Array:
        """log v_m in n configurations, (n,).

        What physics misses at the edge of the range is missed beyond it too. Where operators were
        counted, physics knows what changes there, and the correction fades.

        Args:
            table: the variables of the configurations by name, (n,) each.
            points: (n, d).
            inside: the nearest points in the fitted range, (n, d).
        """
        physics, shares = self._physics(table)
        missed = self.discrepancy
        if self.is_counted:
            believed = missed.believed(np.abs(points - inside))
            correction = believed * missed.correction(points, shares)
        else:
            correction = missed.correction(inside, shares)
        return np.asarray(np.log(np.maximum(physics, SMALLEST)) + correction)

    def sds(self, table: VariableTable, points: Array) -> Array:
        """sd_m in n configurations, (n,); the arguments are those of ``log_values``."""
        return self.discrepancy.sd(points, self._physics(table)[1])

    def _physics(self, table: VariableTable) -> tuple[Array, Array]:
        """What the features alone say, (n,), and the share of each of them, (n, k + m)."""
        terms = matrix(self.features, table) * np.array(self.coefficients)
        p = inf if self.exponent is None else self.exponent
        physics = join(np.stack([terms[:, list(g)].sum(axis=1) for g in self.groups]), p)
        shares = shares_of(terms, physics, self.groups, p)
        return physics, with_powers(shares, self.features, self.free, table)

    @property
    def is_counted(self) -> bool:
        """Whether it knows more of a configuration than its batch size and its knobs."""
        names = {name for feature in self.features for name, _ in feature}
        return any(n in COUNTS or n.startswith(CLASS_PREFIX) for n in names)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surface:
    """One quantity as a function of a configuration's variables.

    Attributes:
        forms: that are averaged; their weights sum to 1.
        axes: variables that say where a configuration is.
        low, high: their range in the configurations fitted.
        outside_sds: added to the error for each doubling outside that range, along each axis.
        sd_between: likewise for each doubling inside it from the nearest model size fitted.
        level_sds: and for each doubling from the nearest level of each axis; none where nothing
            more is known to be missed.
        levels_dof: degrees of freedom of these, where levels that were left out corrected them.
        chosen: how the forms were weighed, and why, for people.
    """

    forms: tuple[FittedForm, ...]
    axes: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    outside_sds: tuple[float, ...] = ()
    sd_between: float = 0.0
    level_sds: tuple[float, ...] = ()
    levels_dof: float = KNOWN_DOF
    chosen: str = ""

    def value(self, variables: Mapping[str, float]) -> float:
        """The quantity in one configuration, in the unit it was fitted in."""
        return float(self.values(_one_row(variables))[0])

    def values(self, table: VariableTable) -> Array:
        """The quantity in n configurations; each variable of the table is (n,)."""
        return np.asarray(np.exp(self._weights @ self._log_values(table)))

    def scatter(self, variables: Mapping[str, float]) -> Scatter:
        """Of the error in one configuration. What is added away from what was measured is an
        assumption: no degrees of freedom that the measurements lack make it wider still."""
        learned, assumed = (float(sds[0]) for sds in self._parts(_one_row(variables)))
        return Scatter(sd=learned, dof=self.dof) + Scatter(sd=assumed, dof=self.levels_dof)

    def sd_log(self, variables: Mapping[str, float]) -> float:
        """Standard deviation of the error in one configuration, on the log scale."""
        return float(self.sd_logs(_one_row(variables))[0])

    def sd_logs(self, table: VariableTable) -> Array:
        """Standard deviation of the error in n configurations, on the log scale, (n,)."""
        return np.asarray(np.hypot(*self._parts(table)))

    def learned_sds(self, table: VariableTable) -> Array:
        """The part of ``sd_logs`` that more measurements would lower elsewhere too, (n,)."""
        return self._parts(table)[0]

    def _parts(self, table: VariableTable) -> tuple[Array, Array]:
        """Standard deviation as learned, and as assumed where nothing was measured, each (n,)."""
        logs, points, weights = self._log_values(table), self.points(table), self._weights
        sds = np.stack([form.sds(table, points) for form in self.forms])
        learned = np.sqrt(weights @ (sds**2 + (logs - weights @ logs) ** 2))
        away = [self._between(table)[:, None] * self.sd_between]
        if self.outside_sds:
            away.append(np.maximum(self.distances(table), 0.0) * np.array(self.outside_sds))
        if self.level_sds:
            away.append(self._from_levels(table) * np.array(self.level_sds))
        assumed = np.linalg.norm(np.concatenate(away, axis=1), axis=1)
        return learned * (1.0 + WIDENING_PER_DOUBLING * self._outside(table)), assumed

    def _between(self, table: VariableTable) -> Array:
        """Doublings inside the fitted range from the nearest model size fitted, (n,).

        Kernels and their tiles are chosen by the model's size, so that each size misses the smooth
        curve by something of its own, which its batch sizes share and no other size tells.
        """
        knobs = [i for i, axis in enumerate(self.axes) if axis != "batch_size"]
        points = self._inside(table)[:, knobs]
        if not self.sd_between or not knobs:
            return np.zeros(len(points))
        fitted = np.unique(np.array(self.forms[0].discrepancy.centres)[:, knobs], axis=0)
        return np.asarray(np.min([np.linalg.norm(points - z, axis=1) for z in fitted], axis=0))

    def _from_levels(self, table: VariableTable) -> Array:
        """Doublings inside the fitted range from the nearest level of each axis, (n, d)."""
        points, centres = self._inside(table), np.array(self.forms[0].discrepancy.centres)
        return np.asarray(np.abs(points[:, None, :] - centres[None, :, :]).min(axis=1))

    def _inside(self, table: VariableTable) -> Array:
        """The nearest points in the fitted range, (n, d)."""
        return np.clip(self.points(table), *np.log2([self.low, self.high]))

    def _outside(self, table: VariableTable) -> Array:
        """Doublings outside the fitted range along the axis that is furthest out, (n,)."""
        return np.asarray(np.maximum(self.distances(table).max(axis=1, initial=0.0), 0.0))

    def _log_values(self, table: VariableTable) -> Array:
        """log v of each form, (forms, n)."""
        points, inside = self.points(table), self._inside(table)
        return np.stack([form.log_values(table, points, inside) for form in self.forms])

    @property
    def _weights(self) -> Array:
        return np.array([form.weight for form in self.forms])

    @property
    def is_counted(self) -> bool:
        """Whether it was learned from more than batch sizes and knobs."""
        return any(form.is_counted for form in self.forms)

    def trend(self, axis: str) -> tuple[int, float]:
        """How many values of an axis were measured, and what is added for a doubling beyond."""
        index = self.axes.index(axis)
        values = {centre[index] for centre in self.forms[0].discrepancy.centres}
        return len(values), self.outside_sds[index]

    @property
    def dof(self) -> float:
        """Degrees of freedom behind ``sd_log``."""
        return sum(form.weight * form.discrepancy.dof for form in self.forms)

    @property
    def residual(self) -> Scatter:
        """What neither physics nor its smooth correction explains of single configurations."""
        parts = [(form.weight, form.discrepancy.residual) for form in self.forms]
        sd = sqrt(sum(weight * part.sd**2 for weight, part in parts))
        return Scatter(sd=sd, dof=min(part.dof for _, part in parts))

    @property
    def left_out_rmse(self) -> float:
        """Root mean square of the leave-one-out errors on the log scale."""
        return sum(form.weight * form.discrepancy.left_out_rmse for form in self.forms)

    def points(self, table: VariableTable) -> Array:
        """Where n configurations are, (n, d)."""
        return points_of(self.axes, table)

    def distances(self, table: VariableTable) -> Array:
        """Doublings outside the fitted range along each axis, not above 0 inside it; (n, d)."""
        z = self.points(table)
        low, high = np.log2(np.array(self.low)), np.log2(np.array(self.high))
        return np.asarray(np.maximum(low - z, z - high))

    def outside(self, variables: Mapping[str, float]) -> list[tuple[str, float]]:
        """The variables that lie outside the fitted range, and by how many doublings."""
        distances = self.distances(_one_row(variables))[0]
        named = zip(self.axes, map(float, distances), strict=True)
        return [(axis, distance) for axis, distance in named if distance > INSIDE]


def points_of(axes: Sequence[str], table: VariableTable) -> Array:
    """log₂ of the axes, (n, d)."""
    columns = [np.log2(table[axis]) for axis in axes]
    n = len(next(iter(table.values())))
    return np.asarray(np.stack(columns, axis=1) if columns else np.zeros((n, 0)))


def shares_of(
    terms: Array, whole: Array, groups: tuple[tuple[int, ...], ...], exponent: float
) -> Array:
    """∂ log ŷ / ∂ log β, (n, k).

    Args:
        terms: β·X, what each feature contributes in each row, (n, k).
        whole: ŷ, the same joined, (n,).
        groups: for each group, the positions of its features among the k.
        exponent: p, by which the groups join; at infinity the highest group has all shares.
    """
    shares = terms / np.maximum(whole, SMALLEST)[:, None]
    for group in groups if exponent != 1 else ():
        columns = list(group)
        plane = shares[:, columns].sum(axis=1, keepdims=True)  # h_g / ŷ, at most 1
        ruled = plane >= 1.0 - 1e-12 if exponent == inf else plane ** (exponent - 1)
        shares[:, columns] *= ruled
    return np.asarray(shares)


def with_powers(
    shares: Array,
    features: Sequence[Feature],
    free: Sequence[tuple[str, float]],
    table: VariableTable,
) -> Array:
    """The shares, and ∂ log ŷ / ∂ log q of each free power, (n, k + m).

    Args:
        shares: (n, k).
        features: with their fitted powers.
        free: variables whose powers were fitted, and the mean of their logs.
        table: the variables, (n,) each.
    """
    powers = powers_of(features, [name for name, _ in free])
    logs = [np.log(table[name]) - mean for name, mean in free]
    more = [(shares @ column) * log for column, log in zip(powers.T, logs, strict=True)]
    return np.column_stack([shares, *more]) if more else shares


def _one_row(variables: Mapping[str, float]) -> dict[str, Array]:
    return {name: np.array([value]) for name, value in variables.items()}


# -- computing and loading ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Loading:
    """Computing alone, loading alone, and how they meet.

    Attributes:
        compute: seconds of a micro-step without update and without waiting.
        loader: seconds a batch, of the loader alone, with ``workers`` processes.
        overlap: p; None is infinity (JSON has none).
        error: root mean square error of the two together, on the log scale.
        better: whether steps left out are predicted better so than by a surface of the steps.
    """

    compute: Surface
    loader: Surface
    workers: int
    overlap: float | None
    error: float
    better: bool

    def loader_seconds(
        self, variables: Mapping[str, float], workers: int, scaling: float = IDEAL_SCALING
    ) -> float:
        """Seconds a batch of the loader alone, with another number of workers.

        Args:
            variables: of the configuration, by name.
            workers: processes that load; none takes as long as one.
            scaling: γ, what more workers help; 1 halves the time with twice the workers, 0 changes
                nothing.
        """
        factor = max(1, self.workers) / max(1, workers)
        return self.loader.value(variables) * float(factor**scaling)

    def micro_step_seconds(
        self, variables: Mapping[str, float], workers: int, scaling: float = IDEAL_SCALING
    ) -> float:
        """Seconds of a micro-step without update.

        Args:
            variables: of the configuration, by name.
            workers: processes that load meanwhile; 0 adds loading to computing.
            scaling: γ, what more workers help; 1 halves the time with twice the workers, 0 changes
                nothing.
        """
        parts = (self.compute.value(variables), self.loader_seconds(variables, workers, scaling))
        return _together(parts, 1.0 if workers == 0 else self._overlap_of_workers)

    def sd_log(self, variables: Mapping[str, float], workers: int) -> float:
        """Standard deviation of that on the log scale: the ruling part's, and one more for each
        doubling of the workers from those probed."""
        compute, loader = self.compute.value(variables), self.loader_seconds(variables, workers)
        ruling = self.compute if compute > loader else self.loader
        own = sqrt(self.error**2 + ruling.sd_log(variables) ** 2)
        distance = doublings(workers, self.workers)
        return hypot(own * (1.0 + distance), TIME_SD_PER_DOUBLING * distance)

    @property
    def _overlap_of_workers(self) -> float:
        return inf if self.overlap is None else self.overlap


def doublings(workers: int, probed: int) -> float:
    """How far two numbers of workers are apart; from none to one is a doubling too."""
    return abs(log2((workers + 1) / (probed + 1)))


def fit_loading(
    compute: Surface | None,
    loader: Surface | None,
    steps: Sequence[Point],
    *,
    direct_error: float,
    workers: int,
) -> Loading | None:
    """How computing and loading meet in the steps measured; None where one was not measured.

    Args:
        compute: seconds of a micro-step without update and without its wait for data.
        loader: seconds a batch of the loader alone.
        steps: variables and seconds of whole micro-steps without update.
        direct_error: leave-one-out error of a surface fitted to the steps themselves.
        workers: processes that loaded in all of these measurements; with 0 nothing overlaps.
    """
    if compute is None or loader is None:
        return None
    parts = [(compute.value(x), loader.value(x)) for x, _ in steps]
    candidates = OVERLAPS if workers else (1.0,)
    errors = {p: _error(parts, [t for _, t in steps], p) for p in candidates}
    overlap = min(candidates, key=lambda p: errors[p])
    without_workers = workers == 0
    return Loading(
        compute=compute,
        loader=loader,
        workers=workers,
        overlap=None if overlap == inf or without_workers else overlap,
        error=errors[overlap],
        better=len(steps) > 1
        and not without_workers
        and hypot(errors[overlap], _left_out(compute, loader, parts, overlap))
        < IMPROVEMENT * direct_error,
    )


def _left_out(
    compute: Surface, loader: Surface, parts: Sequence[tuple[float, float]], overlap: float
) -> float:
    """Leave-one-out error of the two together, from that of each: log t moves by (part / t)ᵖ times
    what the log of a part moves by."""
    terms = np.array(parts)
    shares = shares_of(terms, join(terms.T, overlap), ((0,), (1,)), overlap)
    errors = shares * np.array([compute.left_out_rmse, loader.left_out_rmse])
    return float(np.sqrt((errors**2).sum(axis=1).mean()))


def _error(parts: Sequence[tuple[float, float]], steps: Sequence[float], overlap: float) -> float:
    logs = [log(t / _together(p, overlap)) for p, t in zip(parts, steps, strict=True)]
    return sqrt(fmean(x * x for x in logs))


def _together(parts: tuple[float, float], overlap: float) -> float:
    return float(join(np.array(parts)[:, None], overlap)[0])


def worker_scaling(loadings: Sequence[Loading], variables: Mapping[str, float]) -> float:
    """γ between the fewest and the most workers probed; ideal where only one number was."""
    by_workers = {max(1, x.workers): x for x in loadings}
    few, many = min(by_workers), max(by_workers)
    if few == many:
        return IDEAL_SCALING
    ratio = by_workers[few].loader.value(variables) / by_workers[many].loader.value(variables)
    return min(IDEAL_SCALING, max(0.0, log(ratio) / log(many / few)))
