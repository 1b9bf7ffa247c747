"""Knobs that no power describes: falling lines, zero and below, exponentials."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import pytest

from epochcast.costmodel import lines
from epochcast.costmodel.fitting import fit
from epochcast.costmodel.model import CostModel
from epochcast.records import Estimate, Measurement

Truth = Callable[[float, float], float]
BATCHES = (32, 64, 256)
LAYERS = 12


def learned(truth: Truth, values: Sequence[float], batches: Sequence[int] = BATCHES) -> CostModel:
    random = np.random.default_rng(0)
    return fit(
        Measurement.from_epochs(
            "lines",
            batch,
            epoch_seconds=[truth(batch, k) * 50_000 / batch * math.exp(random.normal(0, 0.003))],
            samples=50_000,
            device="A100 (cuda)",
            sizes={"k": k},
            run=run,
            includes_first=False,
        )
        for k in values
        for batch in batches
        for run in (0, 1)
    )


def asked(model: CostModel, k: float, batch: int = 64) -> Estimate:
    return model.predict(epochs=1, batch_size=batch, k=k)


def codes(estimate: Estimate) -> set[str]:
    return {w.code.removesuffix("-imported") for w in estimate.warnings} - {"not-measured"}


def frozen(b: float, k: float) -> float:
    """All layers forwards; backwards those that are not frozen."""
    return 2e-3 + b * 1e-5 * (LAYERS + 2 * (LAYERS - k))


def test_rise_and_fall_share_one_and_make_every_straight_line() -> None:
    table = lines.with_lines({"size.k": np.array([-2.0, 0.0, 1.0, 4.0, 8.0])}, {"size.k": (0, 4)})
    rise, fall = table["rise.size.k"], table["fall.size.k"]
    assert rise == pytest.approx([-0.5, 0, 0.25, 1, 2])
    assert rise + fall == pytest.approx(np.ones(5))
    assert 7 * fall + 3 * rise == pytest.approx(7 - table["size.k"])
    assert table["grown.size.k"] == pytest.approx(16**rise)
    assert table["off.size.k"].tolist() == [0, 1, 0, 0, 0]
    assert table["off.size.k"] + table["on.size.k"] == pytest.approx(np.ones(5))
    edge = lines.at_the_edge(table)
    assert edge["rise.size.k"] == pytest.approx(np.clip(rise, 0, 1))


@pytest.mark.parametrize(
    ("values", "unit"), [([1.0, 4.0], 0.0), ([0.0, 0.5, 2.0], 0.5), ([-4.0, -1.0], 1.0), ([0.0], 1)]
)
def test_an_axis_has_a_logarithm_or_one_on_either_side_of_zero(
    values: list[float], unit: float
) -> None:
    assert lines.unit_of(np.array(values)) == unit
    places = lines.placed(np.array(values), unit)
    assert (np.diff(places) > 0).all()
    if unit:
        assert lines.placed(np.array([unit, -unit, 0.0]), unit) == pytest.approx([1, -1, 0])


@pytest.mark.parametrize("values", [(2, 4, 8), (2, 4, 6, 8), (0, 4, 8)])
def test_a_cost_that_falls_in_a_line_goes_on_falling_so(values: tuple[int, ...]) -> None:
    """By powers it was 40 % too high where all is frozen, and sure."""
    model = learned(frozen, values)
    for k in (1, 3, 10, LAYERS):
        told = asked(model, k).step_seconds
        assert told.p50 == pytest.approx(frozen(64, k), rel=0.05)
        assert told.p05 < frozen(64, k) < told.p95


def test_where_a_line_would_reach_nothing_little_is_known_and_that_is_said() -> None:
    def sparse(b: float, k: float) -> float:
        return 1e-3 + b * 2e-4 * max(0.05, 1 - k / 100)

    model = learned(sparse, (10, 30, 50))
    inside, far = asked(model, 40), asked(model, 99)
    assert far.step_seconds.p05 < sparse(64, 99) < far.step_seconds.p95
    assert far.step_seconds.p95 / far.step_seconds.p05 > 4
    assert "line-ends" in codes(far)
    assert not codes(inside)
    times = [asked(model, k).step_seconds.p50 for k in range(5, 205, 10)]
    assert all(a >= b > 0 for a, b in pairwise(times))


def test_off_and_on_are_two_points_of_a_line() -> None:
    def added(b: float, k: float) -> float:
        return 1e-3 + b * 1e-5 * (2 + k)

    model = learned(added, (0, 1))
    told = asked(model, 2)
    assert told.step_seconds.p50 == pytest.approx(added(64, 2), rel=0.05)
    assert told.step_seconds.p95 / told.step_seconds.p05 > 1.1
    assert codes(told) == {"extrapolation-from-zero", "few-levels"}
    for k in (0, 1):
        assert asked(model, k).step_seconds.p50 == pytest.approx(added(64, k), rel=0.01)


def test_values_below_zero_are_values() -> None:
    def shifted(b: float, k: float) -> float:
        return 1e-3 + b * 1e-5 * (9 + k)

    model = learned(shifted, (-4, 0, 4))
    for k in (-6, -2, 2, 8):
        told = asked(model, k).step_seconds
        assert told.p50 == pytest.approx(shifted(64, k), rel=0.04)
        assert told.p05 < shifted(64, k) < told.p95


def test_what_costs_a_step_once_it_is_on_is_seen() -> None:
    """Nothing at 0, then a part that is always there and one that grows."""

    def switched(b: float, k: float) -> float:
        return 1e-3 + b * 1e-5 * (5 + (10 + k if k else 0))

    model = learned(switched, (0, 4, 8, 16), (16, 32, 64, 256))
    told = asked(model, 32).step_seconds
    assert told.p50 == pytest.approx(switched(64, 32), rel=0.1)
    assert told.p05 < switched(64, 32) < told.p95


@pytest.mark.parametrize("base", [1.4, 2.0, 3.0])
def test_four_values_show_growth_by_a_factor_with_each_step(base: float) -> None:
    """By powers it was a quarter too low two steps beyond, and sure."""

    def grown(b: float, k: float) -> float:
        return 1e-3 + b * 1e-5 * base**k

    model = learned(grown, (3, 5, 6, 7))
    for k in (2, 4, 9):
        told = asked(model, k).step_seconds
        assert told.p50 == pytest.approx(grown(64, k), rel=0.06)
        assert told.p05 < grown(64, k) < told.p95


def test_a_square_is_still_a_square() -> None:
    def square(b: float, k: float) -> float:
        return 1e-3 + b * 1e-5 * k**2

    told = asked(learned(square, (3, 5, 6, 7)), 14).step_seconds
    assert told.p50 == pytest.approx(square(64, 14), rel=0.05)
