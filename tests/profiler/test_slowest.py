"""One measurement of several ranks: a step lasts as long as its slowest."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import CPU

from epochcast.errors import WorkloadError
from epochcast.profiler.slowest import slowest_of
from epochcast.records import Measurement, MemoryPeaks, RunConfig, Warning_

SECONDS = st.floats(1e-6, 10.0)


def rank(step, *, wait=None, device_bytes=1, **more):
    return Measurement(
        workload="w",
        config=RunConfig(batch_size=8, world_size=2),
        device=CPU,
        samples=100,
        step_seconds=tuple(step),
        data_wait_seconds=tuple(wait or [0.0] * len(step)),
        memory=MemoryPeaks(device_bytes=device_bytes),
        **more,
    )


@st.composite
def worlds(draw):
    count = draw(st.integers(1, 5))
    series = st.lists(SECONDS, min_size=count, max_size=count)
    ranks = []
    for _ in range(draw(st.integers(1, 4))):
        step = draw(series)
        shares = draw(st.lists(st.floats(0, 1), min_size=2, max_size=2))
        wait = [s * shares[0] for s in step]
        update = tuple((s - w) * shares[1] for s, w in zip(step, wait, strict=True))
        more = {"update_seconds": update, "loader_seconds": tuple(draw(series))}
        more["device_bytes"] = draw(st.integers(1, 1000))
        ranks.append(rank(step, wait=wait, **more))
    return ranks


@given(worlds())
def test_every_step_is_the_longest_and_its_parts_fit_into_it(ranks):
    one = slowest_of(ranks)
    steps = [m.step_seconds for m in ranks]
    assert one.step_seconds == tuple(map(max, zip(*steps, strict=True)))
    parts = zip(one.step_seconds, one.data_wait_seconds, one.update_seconds, strict=True)
    assert all(
        0 <= wait <= step and wait + update <= step * (1 + 1e-9) for step, wait, update in parts
    )
    assert one.memory.device_bytes == max(m.memory.device_bytes for m in ranks)
    assert one.loader_seconds in [m.loader_seconds for m in ranks]
    assert sum(one.loader_seconds) == max(sum(m.loader_seconds) for m in ranks)


def test_a_single_rank_is_itself_and_order_decides_nothing_but_what_is_the_same():
    slow = rank([2.0, 3.0], wait=[1.0, 0.0], import_seconds=5.0, save_bytes=7)
    fast = rank([1.0, 4.0], wait=[0.5, 0.5], import_seconds=6.0)
    assert slowest_of([slow]) == replace(slow, update_seconds=())
    assert slowest_of([slow, fast]) == slowest_of([fast, slow])
    both = slowest_of([fast, slow])
    assert (both.step_seconds, both.data_wait_seconds) == ((2.0, 4.0), (1.0, 0.5))
    assert (both.import_seconds, both.save_bytes) == (6.0, 7)


def test_warnings_of_any_rank_are_kept_once_and_power_is_a_mean():
    first = rank(
        [1.0], power_watts=100.0, step_joules=3.0, warnings=(Warning_(code="ranks-differ"),)
    )
    second = rank(
        [1.0], power_watts=300.0, step_joules=5.0, warnings=(Warning_(code="ranks-differ"),)
    )
    one = slowest_of([first, second])
    assert [w.code for w in one.warnings] == ["ranks-differ"]
    assert (one.power_watts, one.step_joules) == (200.0, 4.0)
    assert slowest_of([rank([1.0]), first]).power_watts == 100.0


def test_ranks_on_different_devices_are_refused():
    other = replace(CPU, name="another")
    with pytest.raises(WorkloadError, match=r"different devices.*CUDA_VISIBLE_DEVICES"):
        slowest_of([rank([1.0]), replace(rank([1.0]), device=other)])
