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
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf, sqrt

import numpy as np

from epochcast.costmodel import lines
from epochcast.costmodel.discrepancy import Discrepancy
from epochcast.costmodel.features import (
    CLASS_PREFIX,
    COUNTS,
    KNOB_PREFIX,
    Array,
    Feature,
    VariableTable,
    matrix,
    names_of,
    powers_of,
)
from epochcast.costmodel.scatter import KNOWN_DOF, Scatter

WIDENING_PER_DOUBLING = 0.5  # sd_log grows so a doubling outside: less, and bends beyond are missed
TIME_SD_PER_DOUBLING = 0.05  # is added: a third of what constant throughput misses a doubling by
TIME_SD_BETWEEN = 0.03  # a doubling from each of two model sizes measured: see docs/method.md
HIDDEN_SD = 0.42  # a doubling: log 2, growth in proportion, is then the P95 beside none
EDGE_SD = 0.3  # that and no more is learned of batches right beyond those that were measured
BYTES_SD_PER_DOUBLING = 0.02  # memory beyond the tensors hardly depends on the batch
SMALLEST = 1e-300  # seconds or bytes; keeps logarithms finite
INSIDE = 1e-9  # doublings that are no distance
SPEAKS = 0.05  # weight of a form that warnings are about


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
        terms, physics, _ = self._physics(table)
        shares, missed = self._shares(table, terms, physics), self.discrepancy
        if self.is_counted:
            believed = missed.believed(np.abs(points - inside))
            correction = believed * missed.correction(points, shares)
        else:
            correction = missed.correction(inside, shares)
        return np.asarray(np.log(np.maximum(physics, SMALLEST)) + correction)

    def sds(self, table: VariableTable, points: Array) -> Array:
        """sd_m in n configurations, (n,); the arguments are those of ``log_values``."""
        terms, physics, doubtful = self._physics(table)
        shares = self._shares(table, terms, physics)
        return np.asarray(np.hypot(self.discrepancy.sd(points, shares), doubtful))

    def _shares(self, table: VariableTable, terms: Array, physics: Array) -> Array:
        """Of each term and each free power, (n, k + m)."""
        shares = shares_of(terms, physics, self.groups, self._joined_by)
        return with_powers(shares, self.features, self.free, table)

    def _physics(self, table: VariableTable) -> tuple[Array, Array, Array]:
        """Terms (n, k), what they make (n,), and how far that is doubted, (n,)."""
        terms, physics = self._joined(table)
        if not lines.goes_on(self.features):
            return terms, physics, np.zeros(len(physics))
        there, edge = self._joined(lines.at_the_edge(table))
        left = np.maximum(physics / np.maximum(edge, SMALLEST), lines.LEAST_LEFT)
        ended = left <= lines.LEAST_LEFT
        terms = np.where(ended[:, None], there * left[:, None], terms)
        return terms, np.maximum(edge * left, SMALLEST), lines.doubt(left)

    def left(self, table: VariableTable) -> float:
        """The least share of what it is at the edge of the range that straight lines leave."""
        if not lines.goes_on(self.features):
            return 1.0
        edge = self._joined(lines.at_the_edge(table))[1]
        return float((self._physics(table)[1] / np.maximum(edge, SMALLEST)).min())

    def _joined(self, table: VariableTable) -> tuple[Array, Array]:
        """Terms (n, k), and what they make (n,); a group below zero makes nothing."""
        terms = matrix(self.features, table) * np.array(self.coefficients)
        planes = np.stack([terms[:, list(g)].sum(axis=1) for g in self.groups])
        return terms, join(np.maximum(planes, 0.0), self._joined_by)

    @property
    def _joined_by(self) -> float:
        return inf if self.exponent is None else self.exponent

    @property
    def is_counted(self) -> bool:
        """Whether it knows more of a configuration than its batch size and its knobs."""
        names = names_of(self.features)
        return any(n in COUNTS or n.startswith(CLASS_PREFIX) for n in names)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lent:
    """How far rows that other variants lent are believed (pooling.py).

    Attributes:
        low, high: the range of the variant's own rows, in doublings along each axis.
        sd: for each doubling outside it.
        dof: with which that is known.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    sd: float
    dof: float

    def distances(self, points: Array) -> Array:
        """Doublings outside the variant's own range along each axis, (n, d)."""
        low, high = np.array(self.low), np.array(self.high)
        return np.asarray(np.maximum(np.maximum(low - points, points - high), 0.0))


@dataclass(frozen=True, kw_only=True)
class Surface:
    """One quantity as a function of a configuration's variables.

    Attributes:
        forms: that are averaged; their weights sum to 1.
        axes: variables that say where a configuration is.
        low, high: their range in the configurations fitted.
        units: by which those are placed that were fitted at zero or below; 0 for the others.
        outside_sds: added to the error for each doubling outside that range, along each axis.
        sd_between: likewise for each doubling inside it from the nearest model size fitted.
        level_sds: and for each doubling from the nearest level of each axis; none where nothing
            more is known to be missed.
        levels_dof: degrees of freedom of these, where levels that were left out corrected them.
        lent: how far what other variants lent is believed; None where nothing is.
        chosen: how the forms were weighed, and why, for people.
    """

    forms: tuple[FittedForm, ...]
    axes: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    units: tuple[float, ...] = ()
    outside_sds: tuple[float, ...] = ()
    sd_between: float = 0.0
    level_sds: tuple[float, ...] = ()
    levels_dof: float = KNOWN_DOF
    lent: Lent | None = None
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
        known = min(self.levels_dof, self.lent.dof) if self.lent else self.levels_dof
        return Scatter(sd=learned, dof=self.dof) + Scatter(sd=assumed, dof=known)

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
        lined = lines.with_lines(table, self.spans)
        sds = np.stack([form.sds(lined, points) for form in self.forms])
        learned = np.sqrt(weights @ (sds**2 + (logs - weights @ logs) ** 2))
        away = [self._between(table)[:, None] * self.sd_between]
        if self.outside_sds:
            away.append(np.maximum(self.distances(table), 0.0) * np.array(self.outside_sds))
        if self.level_sds:
            away.append(self._from_levels(table) * np.array(self.level_sds))
        if self.lent:
            away.append(self.lent.distances(self.points(table)) * self.lent.sd)
        assumed = np.linalg.norm(np.concatenate(away, axis=1), axis=1)
        widened = learned * (1.0 + WIDENING_PER_DOUBLING * self._outside(table))
        return np.minimum(widened, self._most_learned(table)), assumed

    def _most_learned(self, table: VariableTable) -> Array:
        """Beyond the largest batch a time may grow in proportion; no form that fits what is flat by
        a high power makes it wilder."""
        if "batch_size" not in self.axes:
            return np.full(1, inf)
        beyond = self.distances(table)
        batch = beyond[:, self.axes.index("batch_size")]
        alone = (beyond > INSIDE).sum(axis=1) == (batch > INSIDE)
        return np.where(alone & (batch > INSIDE), EDGE_SD + HIDDEN_SD * batch, inf)

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
        return np.clip(self.points(table), *self._range)

    @cached_property
    def _range(self) -> Array:
        """The least and the largest point that was fitted, (2, d)."""
        if not self.axes:
            return np.zeros((2, 0))
        ends = zip(self.axes, self.low, self.high, strict=True)
        return self.points({axis: np.array([low, high]) for axis, low, high in ends})

    def _outside(self, table: VariableTable) -> Array:
        """Doublings outside the fitted range along the axis that is furthest out, (n,)."""
        return np.asarray(np.maximum(self.distances(table).max(axis=1, initial=0.0), 0.0))

    def _log_values(self, table: VariableTable) -> Array:
        """log v of each form, (forms, n)."""
        points, inside = self.points(table), self._inside(table)
        table = lines.with_lines(table, self.spans)
        return np.stack([form.log_values(table, points, inside) for form in self.forms])

    @property
    def _weights(self) -> Array:
        return np.array([form.weight for form in self.forms])

    @property
    def spans(self) -> dict[str, tuple[float, float]]:
        """The range of each knob."""
        ends = zip(self.axes, self.low, self.high, strict=True)
        return {axis: (low, high) for axis, low, high in ends if axis.startswith(KNOB_PREFIX)}

    @property
    def is_counted(self) -> bool:
        """Whether it was learned from more than batch sizes and knobs."""
        return any(form.is_counted for form in self.forms)

    def trend(self, axis: str) -> tuple[int, float]:
        """How many values of an axis were measured, and what is added for a doubling beyond."""
        index = self.axes.index(axis)
        values = {centre[index] for centre in self.forms[0].discrepancy.centres}
        return len(values), self.outside_sds[index]

    def borrowed(self, variables: Mapping[str, float]) -> list[str]:
        """Axes along which a configuration lies where only other variants were measured."""
        if self.lent is None:
            return []
        distances = self.lent.distances(self.points(_one_row(variables)))[0]
        return [axis for axis, d in zip(self.axes, distances, strict=True) if d > INSIDE]

    def ends_from_zero(self, axis: str) -> tuple[float, float] | None:
        """The range of an axis that was fitted at zero or below; None of others."""
        units = dict(zip(self.axes, self.units, strict=False))
        return self.spans[axis] if units.get(axis) else None

    def left_of_lines(self, variables: Mapping[str, float]) -> float:
        """Share of what a quantity is at the edge of the range that straight lines leave of it."""
        table = lines.with_lines(_one_row(variables), self.spans)
        return min(form.left(table) for form in self.forms if form.weight >= SPEAKS)

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
        return points_of(self.axes, table, self.units)

    def distances(self, table: VariableTable) -> Array:
        """Doublings outside the fitted range along each axis, not above 0 inside it; (n, d)."""
        z, (low, high) = self.points(table), self._range
        return np.asarray(np.maximum(low - z, z - high))

    def outside(self, variables: Mapping[str, float]) -> list[tuple[str, float]]:
        """The variables that lie outside the fitted range, and by how many doublings."""
        distances = self.distances(_one_row(variables))[0]
        named = zip(self.axes, map(float, distances), strict=True)
        return [(axis, distance) for axis, distance in named if distance > INSIDE]


def points_of(axes: Sequence[str], table: VariableTable, units: Sequence[float] = ()) -> Array:
    """Where configurations are along the axes, in doublings, (n, d).

    Args:
        axes: names of variables.
        table: the variables, (n,) each.
        units: see ``Surface``.
    """
    pairs = zip(axes, units or (0.0,) * len(axes), strict=True)
    columns = [lines.placed(table[axis], unit) for axis, unit in pairs]
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
