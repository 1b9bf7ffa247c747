"""Fragmentation: how far tensors need more or less than others of their size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from epochcast.costmodel.averaging import fit_surface
from epochcast.costmodel.features import beyond_peak_forms
from epochcast.costmodel.memory import FRAGMENTATION, Layer, fragmentation
from epochcast.costmodel.scatter import Scatter

MIB = 2.0**20
CONTEXT, SHARE = 1450 * MIB, 0.1
EXACTLY = Scatter(sd=0.0)
WORTH_ONE = Scatter(sd=FRAGMENTATION.sd * np.sqrt(2.0), dof=FRAGMENTATION.dof)  # and s unknown


def needed(peaks: np.ndarray, sd: float, seed: int = 0) -> np.ndarray:
    """Bytes beyond peaks whose fragmentation is normal."""
    chance = np.random.default_rng(seed).normal(0.0, sd, len(peaks))
    context = CONTEXT * (1 + np.random.default_rng(seed + 1).normal(0.0, 1e-3, len(peaks)))
    return context + (SHARE + chance) * peaks


@pytest.mark.parametrize("sd", [0.02, 0.05, 0.1])
def test_fragmentation_is_found_again_from_many_configurations(sd: float) -> None:
    peaks = np.geomspace(300 * MIB, 20_000 * MIB, 200)
    found = fragmentation(peaks, needed(peaks, sd))
    assert found.sd == pytest.approx(sd, rel=0.15)
    assert found.dof > 100


def test_without_fragmentation_a_few_configurations_bring_it_down() -> None:
    peaks = np.geomspace(300 * MIB, 20_000 * MIB, 8)
    found = fragmentation(peaks, CONTEXT + SHARE * peaks)
    assert found.sd < FRAGMENTATION.sd / 2


def test_small_tensors_beside_a_large_context_do_not_say_that_large_ones_are_certain() -> None:
    peaks = np.geomspace(0.1 * MIB, 5 * MIB, 30)
    found = fragmentation(peaks, needed(peaks, 0.0))
    assert found.sd == pytest.approx(WORTH_ONE.sd, rel=0.01)
    assert found.dof == WORTH_ONE.dof


@pytest.mark.parametrize("count", [1, 2])
def test_what_a_line_goes_through_says_nothing(count: int) -> None:
    peaks = np.geomspace(300 * MIB, 20_000 * MIB, count)
    assert fragmentation(peaks, needed(peaks, 0.2)) == WORTH_ONE


@example([(0.0, 1.0), (0.0, 1.0), (1.0, 1.0), (2.0, 2.0)], 0.5)
@given(
    st.lists(st.tuples(st.floats(0, 1e12), st.floats(1, 1e12)), min_size=1, max_size=12),
    st.floats(0.1, 10.0),
)
def test_fragmentation_is_a_share_whatever_the_unit(
    pairs: list[tuple[float, float]], unit: float
) -> None:
    peaks, beyond = zip(*pairs, strict=True)
    found = fragmentation(peaks, beyond)
    assert 0 < found.sd < np.inf
    assert found.dof >= FRAGMENTATION.dof
    scaled = fragmentation([unit * p for p in peaks], [unit * b for b in beyond])
    assert scaled.sd == pytest.approx(found.sd, rel=0.05)


def layer(broken: Scatter) -> Layer:
    """Learned from four batch sizes whose peaks are up to a gigabyte."""
    batches = [8.0, 16.0, 32.0, 64.0]
    rows = [{"batch_size": b, "peak_bytes": 16 * b * MIB} for b in batches]
    beyond = [CONTEXT + SHARE * row["peak_bytes"] for row in rows]
    surface = fit_surface(rows, beyond, beyond_peak_forms("cuda"), ["batch_size"])
    return Layer(surface=surface, beyond_peak=True, run=EXACTLY, fragmentation=broken)


def test_a_batch_that_was_not_measured_may_fragment_and_one_that_was_has_done_so() -> None:
    broken = layer(Scatter(sd=0.05))
    at = {"batch_size": 24.0}, 16 * 24 * MIB
    measured = {"batch_size": 32.0}, 16 * 32 * MIB
    wide = broken.scatter(*at, EXACTLY)
    share = at[1] / broken.value(*at)
    assert wide.sd == pytest.approx(np.log1p(share * np.expm1(0.05)), rel=1e-6)
    known = broken.scatter(*measured, EXACTLY, measured=True)
    assert known == layer(EXACTLY).scatter(*measured, EXACTLY)


def test_fragmentation_does_not_add_to_a_scatter_that_is_wider_already() -> None:
    small = {"batch_size": 1.0}, 16 * MIB
    assert layer(Scatter(sd=0.01)).scatter(*small, EXACTLY) == layer(EXACTLY).scatter(
        *small, EXACTLY
    )
