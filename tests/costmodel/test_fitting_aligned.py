"""Times are learned from FLOPs as kernels work through them, where every count knows those."""

from __future__ import annotations

from dataclasses import replace

import pytest
import truths

from epochcast.costmodel.fitting import fit
from epochcast.records import Footprint, Measurement, RunConfig, make_sizes

PER_FLOP = 2e-11  # of the truth below, in which all else is constant


def whole(width: int) -> int:
    return -(-width // 8) * 8


def counted(batch: int, width: int) -> Footprint:
    """As of ``truths``, with columns in whole steps."""
    plain = truths.footprint(batch, width)
    return replace(plain, aligned_flops=6 * batch * (784 + 10) * whole(width))


def old(footprint: Footprint) -> Footprint:
    return replace(footprint, aligned_flops=0)


def seconds(batch: int, width: int) -> float:
    return 3e-4 + PER_FLOP * counted(batch, width).aligned_flops


def measured(batch: int, width: int) -> Measurement:
    footprint = counted(batch, width)
    steps = (seconds(batch, width),) * truths.STEPS
    changes = {"step_seconds": steps, "update_seconds": (), "data_wait_seconds": ()}
    return truths.measure(batch, width, footprint=footprint, **changes)


SWEEP = [measured(b, w) for b in (512, 1024, 2048) for w in (12, 16, 33)]


def stripped(m: Measurement) -> Measurement:
    assert m.footprint is not None
    return replace(m, footprint=old(m.footprint))


def sizes(width: int) -> dict[str, int]:
    return {"depth": 1, "width": width}


def test_a_width_of_twelve_costs_as_much_as_one_of_sixteen_and_is_foreseen() -> None:
    model = fit(SWEEP)
    for width in (9, 17, 40):
        asked = model.predict(1, 1024, **sizes(width), footprint=counted(1024, width))
        assert asked.step_seconds.p50 == pytest.approx(seconds(1024, width), rel=0.01)
    assert model.variants[0].work == "aligned_flops"


def test_a_count_that_does_not_know_steps_is_completed_and_not_taken_for_one_of_them() -> None:
    """A stored dry run of an older version once priced a width of 9 as if it were 9."""
    model = fit(SWEEP)
    asked = model.predict(1, 1024, **sizes(9), footprint=old(counted(1024, 9)))
    alone = model.predict(1, 1024, **sizes(9))
    assert asked.step_seconds.p50 == alone.step_seconds.p50
    assert asked.step_seconds.p90 / asked.step_seconds.p10 > 1.1  # known from a smooth curve


@pytest.mark.parametrize("where", ["one of the measurements", "a dry run beside them"])
def test_where_one_count_does_not_know_steps_none_is_used(where: str) -> None:
    config = RunConfig(batch_size=1024, sizes=make_sizes(sizes(9)))
    everywhere = fit([stripped(m) for m in SWEEP], {config: old(counted(1024, 9))})
    if where == "a dry run beside them":
        mixed = fit(SWEEP, {config: old(counted(1024, 9))})
    else:
        mixed = fit([stripped(SWEEP[0]), *SWEEP[1:]], {config: counted(1024, 9)})
    assert mixed.variants[0].work == "flops"
    same = [m.predict(1, 1024, **sizes(9)).step_seconds for m in (mixed, everywhere)]
    assert same[0] == same[1]
