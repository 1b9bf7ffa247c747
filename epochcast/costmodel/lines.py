"""Knobs that no power describes: straight lines, exponentials, and values of zero and below.

    low, high   the least and the largest value x of a knob that was fitted
    rise(x)     (x − low) / (high − low)                      in [0, 1] inside the range
    fall(x)     (high − x) / (high − low)                     1 − rise
    grown(x)    16^rise, whose free powers are exponentials   b^(x − low)
    off(x)      1 where x = 0, else 0; and on(x) = 1 − off(x)

Non-negative multiples of ``rise`` and ``fall`` are all straight lines that are positive inside the
range, falling ones too, as of frozen layers: a·fall + b·rise. Beyond the range they go on, and one
that would reach zero does not: the less is left of what it was at the edge, the less is known.

    t = edge · max(line / edge, LEAST_LEFT)       sd grows with log(edge / t), from a half on

A knob that was fitted at zero or below is placed by a logarithm on either side of zero, in units of
its least size m that is not zero: sign(x)·log₂(1 + |x|/m). All others are placed by log₂ x.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import replace

import numpy as np

from epochcast.costmodel.features import (
    DOUBTED,
    KNOB_PREFIX,
    SELDOM,
    Array,
    Feature,
    Form,
    VariableTable,
    names_of,
)

RISE, FALL, GROWN, OFF, ON = "rise.", "fall.", "grown.", "off.", "on."
GROWTH = 4.0  # log₂ of what a quantity in proportion to ``grown`` grows by over the range
LEAST_LEFT = 0.1  # of a line's value at the edge of the range: less is not believed
DOUBTFUL_LEFT = 0.5  # from here on it is doubted
LEFT_SD = 0.5  # of the logarithm of what is left, beyond that
FEW_ROWS = 6  # two values of a knob at three batch sizes show no exponential, but may hide one
LEVELS_OF_A_LINE, LEVELS_OF_AN_EXPONENTIAL = 3, 4  # each one more than it goes through anyway
MOST_GROWN = 120.0  # a power of 2 of which the fourth is finite, and multiples of that

Spans = Mapping[str, tuple[float, float]]  # knob → low, high


def placed(values: Array, unit: float) -> Array:
    """Where values of an axis lie, in doublings.

    Args:
        values: of the axis.
        unit: m of the module's equation; 0 for an axis whose values are all positive.
    """
    if not unit:
        return np.asarray(np.log2(values))
    return np.asarray(np.sign(values) * np.log2(1.0 + np.abs(values) / unit))


def unit_of(values: Array) -> float:
    """m of the module's equation; 0 where all values are positive."""
    if (values > 0).all():
        return 0.0
    sizes = np.abs(values[values != 0])
    return float(sizes.min()) if sizes.size else 1.0


def with_lines(table: VariableTable, spans: Spans) -> dict[str, Array]:
    """The table, and ``rise``, ``fall``, ``grown``, ``off`` and ``on`` of each knob."""
    found = dict(table)
    for knob, (low, high) in spans.items():
        if knob in table:
            rise = (table[knob] - low) / ((high - low) or 1.0)
            found[RISE + knob], found[FALL + knob] = rise, 1.0 - rise
            found[GROWN + knob] = 2.0 ** np.clip(GROWTH * rise, -MOST_GROWN, MOST_GROWN)
            found[OFF + knob] = (table[knob] == 0).astype(float)
            found[ON + knob] = 1.0 - found[OFF + knob]
    return found


def at_the_edge(table: VariableTable) -> dict[str, Array]:
    """The same with straight lines that stop at the edges of the range."""
    return {
        name: np.clip(column, 0.0, 1.0) if name.startswith((RISE, FALL)) else column
        for name, column in table.items()
    }


def goes_on(features: Sequence[Feature]) -> bool:
    """Whether any of them is a straight line along a knob."""
    return any(name.startswith((RISE, FALL)) for feature in features for name, _ in feature)


def doubt(left: Array) -> Array:
    """Standard deviation of what is left of a line, by how much of it is left, (n,)."""
    return np.asarray(LEFT_SD * np.log(np.maximum(1.0, DOUBTFUL_LEFT / left)))


# -- forms ------------------------------------------------------------------------------------


def line_forms(
    forms: Sequence[Form], levels: Mapping[str, Array], falling: set[str], curved: set[str]
) -> list[Form]:
    """The forms for what was measured, those with lines and exponentials included.

    Args:
        forms: with powers of all knobs.
        levels: of each knob, ascending.
        falling: knobs along which the quantity falls.
        curved: knobs of positive values along which an exponential fits better than a power.
    """
    zeros = {knob for knob, values in levels.items() if values[0] <= 0}
    found = [form for form in forms if not _mentions_aligned(form, zeros)]
    found = [_without_powers(form, zeros, levels) for form in found]
    off = {k for k in zeros if levels[k][0] == 0 and len(levels[k]) > 2}
    if off and forms:
        found.append(_with_off(forms[0], off, zeros, levels))
    lines = {k for k in falling - zeros if len(levels[k]) >= LEVELS_OF_A_LINE}
    if lines and forms:
        found.append(_renamed(_straight(forms[0], lines), "straight", lines))
    for knob in sorted(curved - zeros):
        some = [form for form in forms if knob in form.free and not form.rounded]
        seldom = [replace(_grown(form, {knob}), prior=form.prior * SELDOM) for form in some]
        found += [_renamed(form, "exponential", {knob}) for form in seldom]
    return list({(x.groups, x.exponent, x.free): x for x in reversed(found)}.values())[::-1]


def _mentions_aligned(form: Form, knobs: set[str]) -> bool:
    names = {aligned for knob, aligned in form.rounded if knob in knobs}
    return bool(names & names_of(form.features))


def _without_powers(form: Form, zeros: set[str], levels: Mapping[str, Array]) -> Form:
    """With lines, or exponentials where powers were free, of knobs that have no logarithm."""
    shown = {knob for knob in zeros if len(levels[knob]) >= LEVELS_OF_A_LINE}
    if zeros & set(form.free):
        grown = replace(_grown(form, zeros), least=min(form.least, FEW_ROWS))
        return grown if shown >= zeros & set(form.free) else replace(grown, prior=DOUBTED)
    if not zeros & names_of(form.features):
        return form
    return _straight(form, zeros, {knob for knob in shown if levels[knob][0] == 0})


def _straight(form: Form, knobs: set[str], powers: Set[str] = frozenset()) -> Form:
    """A form with straight lines along knobs; along some of them squares stay, too."""

    def features(feature: Feature) -> list[Feature]:
        found: list[Feature] = [()]
        for name, power in feature:
            if name not in knobs:
                ways: list[Feature] = [((name, power),)]
            elif abs(power) == 1:
                ways = [((RISE + name, 1.0),), ((FALL + name, 1.0),)]
            else:
                ways = [((name, power),)] if name in powers and power > 0 else []
            found = [(*some, *way) for some in found for way in ways]
        return found

    groups = tuple(
        tuple(dict.fromkeys(new for feature in group for new in features(feature)))
        for group in form.groups
    )
    return replace(form, groups=groups)


def _grown(form: Form, knobs: set[str]) -> Form:
    """A form whose free powers of some knobs are exponentials."""

    def renamed(feature: Feature) -> Feature:
        return tuple((GROWN + n if n in knobs else n, power) for n, power in feature)

    groups = tuple(tuple(map(renamed, group)) for group in form.groups)
    free = tuple(GROWN + name if name in knobs else name for name in form.free)
    return replace(form, groups=groups, free=free)


def _with_off(form: Form, off: set[str], zeros: set[str], levels: Mapping[str, Array]) -> Form:
    """Powers of what is above zero, and a step between on and off."""
    rest = _without_powers(form, zeros - off, levels)
    steps: list[Feature] = [((step + knob, 1.0),) for knob in sorted(off) for step in (OFF, ON)]
    batches: list[Feature] = [(("batch_size", 1.0), *step) for step in steps]
    some = [feature for feature in (*batches, *steps) if _has_batch(form) or feature in steps]
    groups = (*rest.groups[:-1], (*rest.groups[-1], *some))
    return _renamed(replace(rest, groups=groups), "off", off)


def _has_batch(form: Form) -> bool:
    return "batch_size" in names_of(form.features)


def _renamed(form: Form, how: str, knobs: set[str]) -> Form:
    names = ", ".join(knob.removeprefix(KNOB_PREFIX) for knob in sorted(knobs))
    return replace(form, name=f"{form.name}, {how} in {names}")
