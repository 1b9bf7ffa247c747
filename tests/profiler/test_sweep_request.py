"""What can be asked of a sweep, and which configurations it means."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import machine_of, request_of, swept

from epochcast.errors import UsageError
from epochcast.profiler.request import Range, batch_sizes_around


@pytest.mark.parametrize(
    "changes",
    [
        {"rounds": 0},
        {"steady_seconds": 0.0},
        {"timeout_seconds": 0.5},
        {"threads": 0},
        {"threads": 99999999999999999999},
        {"batch_sizes": (8, 0)},
        {"batch_sizes": ()},
        {"overrides": {"optimizer": "adam"}},
    ],
)
def test_requests_that_make_no_sense(changes):
    with pytest.raises(UsageError):
        request_of(**changes)


@given(st.integers(1, 4096), st.integers(1, 10**6))
def test_default_batch_sizes_fit_the_data_set(own, samples):
    sizes = batch_sizes_around(request_of(batch_sizes=None), own, samples)
    assert all(1 <= size <= samples for size in sizes)
    assert len(set(sizes)) == len(sizes)
    assert list(sizes) == sorted(sizes)
    assert (own in sizes) == (own <= samples)


@given(low=st.integers(1, 5000), more=st.integers(1, 10**6))
def test_a_range_has_its_ends_and_a_few_between(low, more):
    values = Range(low, low + more).values()
    assert values[0] == low
    assert values[-1] == low + more
    assert len(values) <= 7
    assert list(values) == sorted(set(values))
    assert all(isinstance(value, int) for value in values)


@pytest.mark.parametrize("bounds", [(0, 5), (5, 5), (9, 3), (-1, 4), (1, float("inf"))])
def test_a_range_that_is_none_is_refused(bounds):
    with pytest.raises(UsageError, match="a range needs"):
        Range(*bounds)


def test_short_ranges_are_whole_and_fractions_stay_fractions():
    assert Range(2, 5).values() == (2, 3, 4, 5)
    assert Range(128, 2048).values() == (128, 256, 512, 1024, 2048)
    assert Range(0.1, 0.8).values() == (0.1, 0.2, 0.4, 0.8)


def test_candidates_are_around_the_own_batch_size_and_hold_the_question():
    among = request_of(batch_sizes=None, until=0.1)
    assert batch_sizes_around(among, 32, 100) == (8, 16, 32, 64)
    asked = request_of(batch_sizes=None, asked={"batch_size": 50})
    assert batch_sizes_around(asked, 32, 100) == (8, 16, 32, 50, 64)


def test_data_that_makes_its_batches_is_probed_at_their_size_alone(tmp_path):
    machine = machine_of(tmp_path)
    machine.checked = replace(machine.checked, fixed_batch=True)
    measured = swept(request_of(batch_sizes=None, rounds=1), machine).measurements
    assert {m.config.batch_size for m in measured} == {machine.checked.config.batch_size}
