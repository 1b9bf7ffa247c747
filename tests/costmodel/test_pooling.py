"""What variants that differ in words alone lend each other."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from epochcast.costmodel import features as f
from epochcast.costmodel.averaging import fit_surface
from epochcast.costmodel.fitting import fit
from epochcast.costmodel.model import CostModel
from epochcast.costmodel.pooling import SHAPE_SD, Known, pooled_surface
from epochcast.costmodel.surface import Surface
from epochcast.errors import PredictionError
from epochcast.records import Estimate, Footprint, Measurement, Warning_

AXES = ["batch_size", "size.width"]
FORMS = f.time_forms(["size.width"], "cpu", has_counts=False)[:1]
WIDTHS, BATCHES = (64, 128, 256, 512), (32, 64, 256)


def known(truth: Callable[[float, float], float], widths: Sequence[int] = WIDTHS) -> Known:
    rows = [
        {**f.batch_variables(b), **f.knob_variables((("width", w),))}
        for w in widths
        for b in BATCHES
    ]
    return Known(rows, [truth(r["batch_size"], r["size.width"]) for r in rows])


def at(b: float, w: int) -> dict[str, float]:
    return {**f.batch_variables(b), **f.knob_variables((("width", w),))}


def square(b: float, w: float) -> float:
    return 1e-3 + b * 1e-8 * w**2


def fitted(one: Known) -> Surface:
    return fit_surface(one.rows, one.y, FORMS, AXES)


def test_shapes_are_shared_and_the_level_is_ones_own() -> None:
    own = known(lambda b, w: 1.3 * square(b, w), (128,))
    surface = pooled_surface(own, [known(square)], AXES, fitted)
    for w in (64, 256, 512):
        assert surface.value(at(64, w)) == pytest.approx(1.3 * square(64, w), rel=1e-3)


def test_the_interval_grows_with_the_distance_from_ones_own_range() -> None:
    own = known(square, (128,))
    surface = pooled_surface(own, [known(square)], AXES, fitted)
    assert surface.lent is not None
    # two assumed slopes of 10 %, and one of none along the batch size
    assert surface.lent.sd == pytest.approx(SHAPE_SD * math.sqrt(2 / 3), rel=1e-3)
    sds = [surface.sd_log(at(64, w)) for w in (128, 256, 512)]
    assert sds[1] == pytest.approx(surface.lent.sd, rel=0.1)
    assert sds[2] == pytest.approx(2 * surface.lent.sd, rel=0.1)
    assert sds[0] < 0.01
    assert surface.borrowed(at(64, 256)) == ["size.width"]
    assert not surface.borrowed(at(64, 128))


def test_lenders_that_differ_widen_it() -> None:
    own = known(square, (128,))
    linear = known(lambda b, w: 1e-3 + b * 2e-6 * w)
    alike = pooled_surface(own, [known(square), known(square)], AXES, fitted).lent
    apart = pooled_surface(own, [known(square), linear], AXES, fitted).lent
    assert alike is not None
    assert apart is not None
    assert apart.sd > 3 * alike.sd


def test_nothing_is_borrowed_where_ones_own_say_enough() -> None:
    own = known(square, (64, 128, 256))
    assert pooled_surface(own, [known(square)], AXES, fitted).lent is None
    assert pooled_surface(own, [], AXES, fitted).lent is None


# -- whole models -----------------------------------------------------------------------------


def measured(
    act: str, factor: float, widths: Sequence[int], *, counted: bool = False
) -> list[Measurement]:
    random = np.random.default_rng(ord(act))
    return [
        Measurement.from_epochs(
            "pooled",
            b,
            step_seconds=[factor * square(b, w) * math.exp(random.normal(0, 0.003))],
            samples=1000,
            device="a card (cuda)",
            sizes={"act": act, "width": w},
            run=run,
            footprint=counts(factor, b, w) if counted else None,
        )
        for w in widths
        for b in BATCHES
        for run in (0, 1)
    ]


def counts(factor: float, b: int, w: int) -> Footprint:
    flops = round(1e4 * factor * b * w**2)
    return Footprint.of_counts(
        flops=flops,
        aligned_flops=flops,
        bytes_moved=1000 * b * w,
        operators=100,
        parameters=w * w,
    )


def asked(model: CostModel, act: str, w: int) -> Estimate:
    return model.predict(epochs=1, batch_size=64, act=act, width=w)


def borrowed(estimate: Estimate) -> list[Warning_]:
    return [w for w in estimate.warnings if w.code.startswith("borrowed")]


@pytest.mark.parametrize("counted", [False, True])
def test_a_width_varied_under_one_word_alone_is_answered_under_another(counted: bool) -> None:
    a, b = measured("a", 1.0, WIDTHS, counted=counted), measured("b", 1.4, (128,), counted=counted)
    model = fit([*a, *b])
    for w in (64, 256, 512):
        told = asked(model, "b", w)
        assert told.step_seconds.p50 == pytest.approx(1.4 * square(64, w), rel=0.07)
        assert told.step_seconds.p05 < 1.4 * square(64, w) < told.step_seconds.p95
        assert told.step_seconds.p95 / told.step_seconds.p05 > 1.1
        (warning,) = borrowed(told)
        assert dict(warning.details) == {"names": "width", "here": "act=b", "there": "act=a"}
    assert not borrowed(asked(model, "b", 128))
    assert not borrowed(asked(model, "a", 512))


def test_a_word_that_was_never_measured_is_refused() -> None:
    model = fit(measured("a", 1.0, WIDTHS))
    with pytest.raises(PredictionError, match="was not probed with act=c"):
        asked(model, "c", 128)
