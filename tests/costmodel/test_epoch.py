"""How a loader divides an epoch, and the equation of a run: closed forms, numbers and arrays."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochcast.costmodel.epoch import RunParts, divide, division_of, taken
from epochcast.records import RunConfig


@pytest.mark.parametrize(
    ("changes", "updates"),
    [({}, 391), ({"drop_last": True}, 390), ({"accumulation": 4}, 98), ({"world_size": 4}, 98)],
)
def test_an_epoch_is_divided_as_a_loader_does_it(changes: dict[str, int], updates: int) -> None:
    """50,000 samples at 128: 391 steps, 390 with drop_last, 98 with accumulation 4."""
    assert division_of(50_000, RunConfig(batch_size=128, **changes)).updates == updates  # type: ignore[arg-type]


@given(
    st.integers(1, 10**6),
    st.integers(1, 5000),
    st.integers(1, 16),
    st.integers(1, 9),
    st.booleans(),
)
def test_a_division_accounts_for_every_sample(n: int, b: int, k: int, d: int, drop: bool) -> None:
    found = divide(n, b, k, d, drop_last=drop)
    each = math.ceil(n / d)
    assert found.full * b + found.partial == (each - each % b if drop else each)
    assert found.micro_batches == (each // b if drop else math.ceil(each / b))
    assert found.updates == math.ceil(found.micro_batches / k)


@given(st.lists(st.tuples(*[st.integers(1, 5000)] * 3), min_size=1), st.booleans())
def test_arrays_are_divided_as_numbers_are(cases: list[tuple[int, int, int]], drop: bool) -> None:
    b, k, d = np.array(cases).T
    many = divide(60_000, b, k, d, drop_last=drop)
    alone = [divide(60_000, *case, drop_last=drop) for case in cases]
    for name in ("full", "partial", "updates", "micro_batches"):
        assert getattr(many, name).tolist() == [getattr(one, name) for one in alone]


def test_an_epoch_in_closed_form() -> None:
    """1,000 samples at 300 are 3 full batches and one of 100; at 2 micro-batches, 2 updates."""
    found = divide(1000, 300, 2, 1)
    assert found.full_seconds(7.0, 11.0) == 3 * 7.0 + 2 * 11.0
    assert found.partial_seconds(5.0) == 5.0
    assert divide(900, 300, 2, 1).partial_seconds(5.0) == 0.0


def test_a_run_in_closed_form_of_numbers_and_of_arrays() -> None:
    """Every term has its own prime, so that none can be missing or stand for another."""
    numbers = {
        "startup": 2.0,
        "first_steps": 3.0,
        "full_batches": 5.0,
        "partial_batch": 7.0,
        "loader_restart": 11.0,
        "evaluation": 13.0,
        "save": 17.0,
    }
    run = RunParts(**numbers)
    assert run.epoch == 5 + 7 + 11
    assert run.total(90, 45, 18) == 2 + 3 + 90 * (5 + 7 + 11) + 45 * 13 + 18 * 17
    draws = RunParts(**{name: np.array([value, 2 * value]) for name, value in numbers.items()})
    epochs = np.array([[90], [10]])
    expected = [[run.total(e, 45, 18), 2 * run.total(e, 45, 18)] for e in (90, 10)]
    assert draws.total(epochs, 45, 18).tolist() == expected


@given(
    st.integers(1, 300), st.integers(1, 90), st.integers(1, 5), st.booleans(), st.integers(1, 60)
)
def test_steps_are_counted_in_the_order_of_a_loader(
    n: int, b: int, k: int, drop: bool, steps: int
) -> None:
    """By going through the batches of one epoch after another, k for each step."""
    division = divide(n, b, k, 1, drop_last=drop)
    if not division.micro_batches:
        return
    sizes = [b] * division.full + [division.partial] * (division.partial > 0)
    epoch = [sizes[i : i + k] for i in range(0, len(sizes), k)]
    seen = [size for i in range(steps) for size in epoch[i % len(epoch)]]
    found = taken(division, k, steps)
    assert (found.full, found.full + found.partial) == (seen.count(b), len(seen))
    assert (found.updates, found.begun) == (steps, math.ceil(steps / len(epoch)))
