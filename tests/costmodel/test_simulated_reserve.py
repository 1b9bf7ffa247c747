"""What an allocator holds, simulated: probes learn what devices need beyond that."""

from __future__ import annotations

from dataclasses import replace

import pytest
import truths

from epochcast.costmodel.fitting import fit
from epochcast.records import Footprint, Measurement, MemoryPeaks

MIB = 2**20
CONTEXT = 1430 * MIB
WIDTH = {"depth": 1, "width": 1024}
MEASURED = (64, 256, 1024)


def footprint(batch: int) -> Footprint:
    """An allocator that fragments much more with large batches than with small ones."""
    made = replace(truths.footprint(batch, 1024), timeline=None)
    made = replace(made, step_peak_bytes=20 * made.step_peak_bytes)
    share = 0.05 if batch < 200 else 0.3
    return replace(made, reserve_bytes=round((1 + share) * made.peak_bytes))


def on_cuda(batch: int, *, simulated: bool = True) -> Measurement:
    m, made = truths.measure(batch, 1024), footprint(batch)
    reserved = made.reserve_bytes
    return replace(
        m,
        device=replace(m.device, kind="cuda", memory_bytes=24 * 2**30),
        footprint=made if simulated else replace(made, reserve_bytes=0),
        memory=MemoryPeaks(
            allocated_bytes=made.peak_bytes,
            reserved_bytes=reserved,
            device_bytes=reserved + CONTEXT,
        ),
    )


MODEL = fit([on_cuda(b) for b in MEASURED])


@pytest.mark.parametrize("batch", MEASURED)
def test_what_is_learned_is_the_context(batch: int) -> None:
    needed = MODEL.predict(1, batch, **WIDTH).device_bytes
    assert needed is not None
    assert needed.p50 == pytest.approx(footprint(batch).reserve_bytes + CONTEXT, rel=1e-3)


def test_a_batch_that_was_only_counted_is_as_good() -> None:
    needed = MODEL.predict(1, 512, **WIDTH, footprint=footprint(512)).device_bytes
    assert needed is not None
    assert needed.p50 == pytest.approx(footprint(512).reserve_bytes + CONTEXT, rel=5e-3)


def test_between_counted_batches_it_is_in_proportion_and_less_sure() -> None:
    needed = MODEL.predict(1, 128, **WIDTH).reserved_bytes
    peak = MODEL.predict(1, 128, **WIDTH).peak_bytes
    assert needed is not None
    assert peak is not None
    # halfway between 64 and 256 on a logarithmic scale: the root of 1.3 × 1.05
    assert needed.p50 == pytest.approx(peak.p50 * (1.3 * 1.05) ** 0.5, rel=5e-3)
    assert needed.p95 > 1.1 * needed.p50


def test_without_a_simulation_the_peak_is_what_it_begins_with() -> None:
    plain = fit([on_cuda(b, simulated=False) for b in MEASURED])
    layer = plain.variants[0].reserved
    assert layer is not None
    assert layer.base == "peak_bytes"
    simulated = MODEL.variants[0].reserved
    assert simulated is not None
    assert simulated.base == "reserve_bytes"


def test_evaluation_and_the_allocated_bytes_begin_with_peaks() -> None:
    variant = MODEL.variants[0]
    assert variant.allocated is not None
    assert variant.allocated.base == "peak_bytes"


def test_a_cpu_has_no_such_allocator() -> None:
    on_cpu = fit([replace(on_cuda(b), device=truths.measure(b, 1024).device) for b in MEASURED])
    layer = on_cpu.variants[0].device_bytes
    assert layer is not None
    assert layer.base == "peak_bytes"
