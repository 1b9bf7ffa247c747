"""A dry run that counted other kernels than the device ran says nothing of what it takes."""

from dataclasses import replace

import pytest
import truths

from epochcast.costmodel.fitting import fit
from epochcast.records import Device, Footprint, Measurement, RunConfig, make_sizes

GPU = replace(truths.DEVICE, kind="cuda")
SWEEP = truths.sweep(batch_sizes=(32, 64), widths=(256, 512), rounds=1)
ASKED = {"batch_size": 64, "width": 384}


def fused(footprint: Footprint) -> Footprint:
    """As a GPU runs it: attention in one operator."""
    quarter = footprint.flops // 4
    classes = (("attention", quarter), ("matmul", footprint.flops - quarter))
    return replace(footprint, flops_by_class=classes)


def decomposed(footprint: Footprint) -> Footprint:
    """As a dry run sees the same on a CPU."""
    return replace(
        footprint,
        flops_by_class=(("matmul", footprint.flops),),
        operators=2 * footprint.operators,
        bytes_moved=2 * footprint.bytes_moved,
    )


def measured(device: Device = GPU) -> list[Measurement]:
    return [replace(m, device=device, footprint=fused(m.footprint)) for m in SWEEP]


def config(batch_size: int, width: int) -> RunConfig:
    return RunConfig(batch_size=batch_size, sizes=make_sizes({"depth": 1, "width": width}))


ELSEWHERE = truths.footprint(64, 384)
MEASURED = truths.footprint(64, 256)


@pytest.mark.parametrize(
    "dry",
    [
        {config(64, 384): decomposed(ELSEWHERE)},  # its classes tell
        {  # those of a configuration that was measured tell
            config(64, 256): replace(decomposed(MEASURED), flops_by_class=()),
            config(64, 384): replace(decomposed(ELSEWHERE), flops_by_class=()),
        },
    ],
)
def test_dry_runs_of_other_kernels_are_left_out(dry: dict[RunConfig, Footprint]) -> None:
    assert fit(measured(), dry) == fit(measured())
    assert fit(measured(truths.DEVICE), dry) != fit(measured(truths.DEVICE))


def test_those_of_the_same_kernels_are_used() -> None:
    dry = {config(64, width): fused(truths.footprint(64, width)) for width in (256, 384)}
    counted = dict(fit(measured(), dry).variants[0].counted)
    assert counted.keys() >= dry.keys()


def test_one_that_is_given_is_left_out_aloud() -> None:
    model = fit(measured())
    plain = model.predict(epochs=1, **ASKED)
    given = model.predict(epochs=1, footprint=decomposed(ELSEWHERE), **ASKED)
    assert given.step_seconds == plain.step_seconds
    assert {w.code for w in given.warnings} - {w.code for w in plain.warnings} == {"other-kernels"}
    same = model.predict(epochs=1, footprint=fused(ELSEWHERE), **ASKED)
    assert "other-kernels" not in {w.code for w in same.warnings}


def test_a_class_of_operators_that_one_configuration_lacks_is_none_there() -> None:
    """As where a knob is a number of layers with attention."""
    sweep = measured(truths.DEVICE)
    model = fit(sweep, {config(64, 384): decomposed(ELSEWHERE)})
    for batch_size in (64, 96):
        assert model.predict(epochs=1, batch_size=batch_size, width=384).step_seconds.p50 > 0
