"""What an accelerator must have: between batches that were measured, and where tensors were not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import truths
from hypothesis import given
from hypothesis import strategies as st

from epochcast.costmodel.fitting import fit
from epochcast.costmodel.memory import FRAGMENTATION, can_identify_share
from epochcast.records import Measurement, MemoryPeaks

MIB, GIB = 2**20, 2**30
WIDTH = {"depth": 1, "width": 1024}


def on_cuda(batch: int, width: int = 1024, *, tracked: bool = True) -> Measurement:
    """A context of 1,450 MiB and a tenth more than the tensors, which weigh twenty times those
    of ``truths``."""
    m = truths.measure(batch, width)
    assert m.footprint is not None
    footprint = replace(m.footprint, step_peak_bytes=20 * m.footprint.step_peak_bytes)
    peak = footprint.peak_bytes
    return replace(
        m,
        device=replace(m.device, kind="cuda", memory_bytes=24 * GIB),
        footprint=footprint if tracked else None,
        memory=MemoryPeaks(
            allocated_bytes=round(1.01 * peak),
            reserved_bytes=round(1.1 * peak) + 2 * MIB,
            device_bytes=round(1.1 * peak) + 1450 * MIB,
        ),
    )


MEASURED = (64, 256, 1024, 4096)
MODEL = fit([on_cuda(b) for b in MEASURED])


def p95(batch: int, **changes: int) -> float:
    needed = MODEL.predict(1, batch, **WIDTH, **changes).device_bytes
    assert needed is not None
    return needed.p95


@given(st.integers(1, 4096))
def test_no_batch_needs_more_than_a_larger_one_that_was_measured(batch: int) -> None:
    """A plan once refused 1,000 where 1,024 had been measured to fit."""
    larger = min(b for b in MEASURED if b >= batch)
    assert p95(batch) <= p95(larger) * (1 + 1e-9)


def test_a_batch_beyond_those_measured_may_fragment() -> None:
    peak = MODEL.predict(1, 8192, **WIDTH)
    assert peak.device_bytes is not None
    assert peak.peak_bytes is not None
    assert p95(8192) - peak.device_bytes.p50 > 0.02 * peak.peak_bytes.p50


def test_a_batch_measured_without_accumulation_has_not_fragmented_with_it() -> None:
    whole = MODEL.predict(1, 1024, **WIDTH).device_bytes
    parts = MODEL.predict(1, 1024, **WIDTH, accumulation=4).device_bytes
    assert whole is not None
    assert parts is not None
    assert parts.p95 / parts.p50 > whole.p95 / whole.p50


def test_where_tensors_were_not_tracked_the_allocator_tells_how_it_fragments() -> None:
    """As imported runs are: they were once known to the byte wherever they were on a line."""
    model = fit([on_cuda(b, tracked=False) for b in MEASURED])
    layer = model.variants[0].device_bytes
    assert layer is not None
    assert not layer.beyond_peak
    assert 0 < layer.fragmentation.sd < FRAGMENTATION.sd
    needed = model.predict(1, 8192, **WIDTH).device_bytes
    assert needed is not None
    assert needed.p95 > 1.03 * needed.p50


def test_memory_of_a_cpu_does_not_fragment() -> None:
    layer = fit(truths.sweep()).variants[0].device_bytes
    assert layer is not None
    assert layer.fragmentation.sd == 0


def test_peaks_that_hardly_differ_tell_no_share_of_them() -> None:
    """Megabytes of noise over kilobytes of peak were once a share of 67 times the peak."""
    assert not can_identify_share([1.80 * MIB, 1.81 * MIB], [383.0 * MIB, 388.0 * MIB])
    assert not can_identify_share([], [])
    assert can_identify_share([100.0 * MIB, 900.0 * MIB], [1450.0 * MIB, 1600.0 * MIB])
    noise = iter((0, 4, 4, 5, 4, 1, 4, 4, 4, 4, 4, 4, 4, 4))
    trials = [
        replace(m, memory=MemoryPeaks(device_bytes=(383 + next(noise)) * MIB))
        for b in (1, 2, 4, 8, 16, 32, 64)
        for m in (truths.measure(b, 64, round_=r) for r in (0, 1))
    ]
    needed = fit(trials).predict(1, 1437, depth=1, width=64).device_bytes
    assert needed is not None
    assert needed.p95 == pytest.approx(needed.p50, rel=0.3)


def test_below_the_smallest_batch_the_quantile_is_as_far_as_there() -> None:
    """What is less certain there is how much less it needs."""
    smallest = MODEL.predict(1, 64, **WIDTH).device_bytes
    quarter = MODEL.predict(1, 16, **WIDTH).device_bytes
    assert smallest is not None
    assert quarter is not None
    ratio = smallest.p95 / smallest.p50
    found = MODEL.largest_batch(int(quarter.p50 * ratio) + 1, **WIDTH)
    assert found.batch_size == 16
    assert found.needed_bytes == pytest.approx(quarter.p50 * ratio)
    assert quarter.p95 > quarter.p50 * ratio * (1 + 1e-4)  # by itself it would be wider
