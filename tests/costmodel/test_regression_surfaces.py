"""Surfaces: the simplest form that is as good, exact where the truth is exact, wide outside."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epochcast.costmodel import features as f
from epochcast.costmodel.features import Form
from epochcast.costmodel.regression import fit_surface
from epochcast.costmodel.surface import Surface
from epochcast.records import from_json, to_json

LINE = ((), (("batch_size", 1.0),))
FORMS = [
    Form(name="line", groups=(LINE,)),
    Form(name="floor and line", groups=(((),), LINE), exponent=math.inf),
]
SIZES = (8, 16, 32, 64, 128, 256, 512)


def _surface(y: object, sizes: tuple[int, ...] = SIZES, noise_sd: float = 0.0) -> Surface:
    rows = [{"batch_size": float(b)} for b in sizes]
    return fit_surface(rows, y, FORMS, ["batch_size"], noise_sd)  # type: ignore[arg-type]


@given(a=st.floats(1e-5, 1), c=st.floats(1e-7, 1e-2), at=st.integers(1, 5000))
def test_a_true_line_is_chosen_and_exact_everywhere(a: float, c: float, at: int) -> None:
    surface = _surface([a + c * b for b in SIZES])
    assert surface.chosen == "line (exact)"
    assert surface.value({"batch_size": at}) == pytest.approx(a + c * at, rel=1e-6)


def test_a_kink_is_found() -> None:
    surface = _surface([max(1.0, b / 64) for b in SIZES])
    assert surface.chosen == "floor and line (exact)"
    assert surface.value({"batch_size": 24}) == pytest.approx(1.0)
    assert surface.value({"batch_size": 200}) == pytest.approx(200 / 64)


def test_a_smooth_bend_is_corrected_only_inside_the_range() -> None:
    def truth(b: float) -> float:
        return (1 + b / 50) * math.exp(0.3 * math.sin(math.log2(b)))

    surface = _surface([truth(b) for b in SIZES])
    assert "smooth correction" in surface.chosen
    assert surface.value({"batch_size": 64}) == pytest.approx(truth(64), rel=0.02)
    assert surface.value({"batch_size": 90}) == pytest.approx(truth(90), rel=0.08)


def test_noise_alone_does_not_earn_a_correction() -> None:
    random = np.random.default_rng(0)
    chosen = [
        _surface([(1 + b / 50) * math.exp(random.normal(0, 0.03)) for b in SIZES], noise_sd=0.03)
        for _ in range(40)
    ]
    assert sum("smooth" not in surface.chosen for surface in chosen) >= 20


@settings(max_examples=30)
@given(outside=st.floats(1.01, 64))
def test_intervals_widen_outside_and_say_so(outside: float) -> None:
    random = np.random.default_rng(3)
    surface = _surface([(1 + b / 50) * math.exp(random.normal(0, 0.05)) for b in SIZES])
    near, far = {"batch_size": 512.0}, {"batch_size": 512.0 * outside}
    assert surface.sd_log(far) > surface.sd_log(near) > 0
    assert surface.outside(near) == []
    assert surface.outside(far) == [("batch_size", pytest.approx(math.log2(outside)))]


def test_with_few_rows_nothing_is_claimed() -> None:
    surface = _surface([1.0, 2.0], sizes=(8, 16))
    assert "too few configurations to choose" in surface.chosen
    assert surface.left_out_rmse >= 0.16


def test_a_surface_is_plain_json() -> None:
    surface = _surface([(1 + b / 50) * (1 + 0.3 * math.sin(b)) for b in SIZES])
    assert from_json(to_json(surface), Surface) == surface


def test_polynomial_counts_are_exact_at_knobs_never_seen() -> None:
    monomials = f.knob_monomials(["size.depth", "size.width"])
    lines = monomials + f.times_batch(monomials)

    def weights(d: float, w: float) -> float:
        return 794 * w + (d - 1) * w * w + w * w  # never negative coefficients

    rows = [
        {"batch_size": float(b), "size.depth": float(d), "size.width": float(w)}
        for b in (16, 64)
        for d in (1, 2, 4)
        for w in (128, 256, 1024)
    ]
    y = [6 * r["batch_size"] * weights(r["size.depth"], r["size.width"]) for r in rows]
    axes = ["batch_size", "size.depth", "size.width"]
    surface = fit_surface(rows, y, [Form(name="polynomial", groups=(lines,))], axes)
    at = {"batch_size": 40.0, "size.depth": 3.0, "size.width": 512.0}
    assert surface.value(at) == pytest.approx(6 * 40 * weights(3, 512), rel=1e-6)


def test_two_values_of_a_knob_do_not_tell_a_line_from_a_square() -> None:
    """Weights of width w: w² to one model, 1 + w to another; three widths do tell them apart."""
    lines = f.count_forms(["size.width"])

    def counts(*widths: int) -> Surface:
        rows = [{"batch_size": b, "size.width": w} for b in (8.0, 16.0, 32.0) for w in widths]
        y = [1000 + 10 * r["size.width"] + r["batch_size"] * r["size.width"] for r in rows]
        rows = [{**r, "padded_batch": r["batch_size"]} for r in rows]
        axes = ["batch_size", "size.width"]
        return fit_surface(rows, y, lines, axes, careful=True)

    at = {"batch_size": 16.0, "padded_batch": 16.0, "size.width": 128.0}
    truth = 1000 + 10 * 128 + 16 * 128
    two, three = counts(64, 256), counts(64, 128, 256)
    assert three.value(at) == pytest.approx(truth, rel=1e-6)
    assert three.sd_log(at) == pytest.approx(0, abs=1e-6)
    assert two.value(at) == pytest.approx(truth, rel=0.1)
    assert abs(math.log(two.value(at) / truth)) < 2 * two.sd_log(at)


def test_a_model_size_that_was_not_measured_is_less_certain_however_smooth_the_others_are() -> None:
    """By so much a doubling from the nearest that was, inside the range; and exactly so."""
    rows = [
        {"batch_size": float(b), "size.width": float(w)}
        for b in (8, 32, 128)
        for w in (16, 64, 256)
    ]
    random = np.random.default_rng(0)
    y = [r["batch_size"] * r["size.width"] * float(np.exp(random.normal(0, 0.01))) for r in rows]
    scales = f.knob_monomials(["size.width"])
    forms = [Form(name="line", groups=(f.times_batch(scales) + scales,))]
    axes = ["batch_size", "size.width"]
    plain, wide = (fit_surface(rows, y, forms, axes, 0.01, sd_between=sd) for sd in (0.0, 0.03))

    def added(batch_size: float, width: float) -> float:
        at = {"batch_size": batch_size, "size.width": width}
        return math.sqrt(wide.sd_log(at) ** 2 - plain.sd_log(at) ** 2)

    assert added(64, 64) == pytest.approx(0.0, abs=1e-9)  # another batch of a size measured
    assert added(64, 128) == pytest.approx(0.03)
    assert added(64, 64 * 2**0.25) == pytest.approx(0.03 / 4)
    assert added(64, 1024) == pytest.approx(0.0, abs=1e-9)  # outside, where sd_per_doubling is
