"""Surfaces: the simplest form that is as good, exact where the truth is exact, wide outside."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from epochcast.costmodel import features as f
from epochcast.costmodel.averaging import fit_surface
from epochcast.costmodel.discrepancy import SUPPORT
from epochcast.costmodel.features import Form
from epochcast.costmodel.surface import Surface
from epochcast.records import DeviceKind, from_json, make_sizes, to_json

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


# -- model sizes ---------------------------------------------------------------------------------

KNOB = "size.width"


def grid(
    seconds: Callable[[float, float], float],
    values: Sequence[float],
    batches: Sequence[float] = (32, 64, 256),
    noise: float = 0.005,
    seed: int = 0,
    kind: DeviceKind = "cuda",
) -> Surface:
    """A surface of step seconds (batch, knob) without counts, fitted with the usual forms."""
    random = np.random.default_rng(seed)
    points = [(float(b), float(v)) for v in values for b in batches]
    y = [seconds(b, v) * math.exp(random.normal(0, noise)) for b, v in points]
    rows = [at(b, v) for b, v in points]
    forms = f.time_forms([KNOB], kind, has_counts=False)
    return fit_surface(rows, y, forms, ["batch_size", KNOB], noise, sd_between=0.03)


def at(batch: float, value: float) -> dict[str, float]:
    return f.batch_variables(batch) | f.knob_variables(make_sizes({"width": value}))


def holds(surface: Surface, batch: float, value: float, truth: float) -> bool:
    """Whether the truth lies between P5 and P95."""
    where = at(batch, value)
    found = surface.scatter(where).quantiles(surface.value(where))
    return found.p05 <= truth <= found.p95


def attention_over_an_image(b: float, r: float) -> float:
    """2 ms + B·(r/16)²·2 µs + B·(r/16)⁴·40 ns."""
    return 2e-3 + b * (r / 16) ** 2 * 2e-6 + b * (r / 16) ** 4 * 4e-8


@pytest.mark.parametrize(("side", "error"), [(384, 0.02), (512, 0.06), (768, 0.15)])
def test_a_fourth_power_goes_on_beyond_the_range(side: int, error: float) -> None:
    surface = grid(attention_over_an_image, (128, 224, 384))
    truth = attention_over_an_image(128, side)
    assert surface.value(at(128, side)) == pytest.approx(truth, rel=error)
    assert holds(surface, 128, side, truth)


@pytest.mark.parametrize("power", [0.5, 1.5, 2.7, 3.0])
def test_any_power_is_found(power: float) -> None:
    def truth(b: float, w: float) -> float:
        return 2e-3 + b * 1e-4 * (w / 128) ** power

    surface = grid(truth, (64, 128, 256, 512))
    for value in (96, 1024, 2048):
        assert surface.value(at(128, value)) == pytest.approx(truth(128, value), rel=0.08)
        assert holds(surface, 128, value, truth(128, value))


@pytest.mark.parametrize("power", [-1.0, -2.0])
def test_a_knob_that_makes_it_cheaper(power: float) -> None:
    """A patch, a stride: inside the range, and beyond it on both sides."""

    def truth(b: float, p: float) -> float:
        return 3e-3 + b * 2e-3 * (p / 8) ** power

    surface = grid(truth, (8, 16, 32))
    for value in (4, 12, 64):
        assert surface.value(at(128, value)) == pytest.approx(truth(128, value), rel=0.1)
        assert holds(surface, 128, value, truth(128, value))


@settings(max_examples=25, deadline=None)
@given(
    launch=st.floats(0, 5e-3),
    powers=st.lists(st.sampled_from((0.5, 1.0, 2.0, 2.7, 4.0)), min_size=1, max_size=2),
    levels=st.sampled_from(((64, 128, 512), (64, 96, 128, 256), (100, 200, 300, 400, 500))),
    bend=st.floats(0, 0.1),
)
def test_where_times_rise_along_a_knob_predictions_never_fall(
    launch: float, powers: list[float], levels: tuple[int, ...], bend: float
) -> None:
    def truth(b: float, w: float) -> float:
        work = sum((w / 128) ** power for power in powers)
        return (launch + 1e-4 * b * work) * math.exp(bend * math.sin(3 * math.log2(w)))

    measured = [[truth(b, w) for w in levels] for b in (32, 64, 256)]
    assume(all(low < high for times in measured for low, high in pairwise(times)))
    surface = grid(truth, levels, noise=0.0)
    for batch in (32.0, 128.0, 512.0):
        edge = levels[-1]
        times = [surface.value(at(batch, w)) for w in (edge, 1.5 * edge, 2 * edge, 4 * edge)]
        assert all(low <= high * (1 + 1e-9) for low, high in pairwise(times))


def test_a_slope_that_falls_turns_the_powers_of_that_knob_alone() -> None:
    line = Form(name="line", groups=(((), (("size.a", 1.0), ("size.b", 2.0))),))
    (turned,) = f.oriented([line], {"size.b"})
    assert turned.groups == (((), (("size.a", 1.0), ("size.b", -2.0))),)


def test_widths_that_are_rounded_up_are_seen_where_they_are_measured() -> None:
    """Tensor cores work through multiples of 64: 130 costs what 192 does, and so it is said."""

    def truth(b: float, w: float) -> float:
        return 1e-3 + b * 2e-4 * (math.ceil(w / 64) * 64 / 128) ** 2

    surface = grid(truth, (72, 100, 136, 200, 264, 520))
    assert "aligned to 64" in surface.chosen
    assert surface.value(at(128, 150)) == pytest.approx(truth(128, 150), rel=0.05)


def test_between_round_sizes_a_step_may_lie() -> None:
    """Of round sizes nobody knows whether others are rounded up: less is known of those."""

    def truth(b: float, w: float) -> float:
        return 1e-3 + b * 2e-4 * (w / 128) ** 2

    surface = grid(truth, (128, 256, 512))
    on_cpu = grid(truth, (128, 256, 512), kind="cpu")
    assert surface.sd_log(at(128, 200)) > 2 * surface.sd_log(at(128, 384))
    assert on_cpu.sd_log(at(128, 200)) < surface.sd_log(at(128, 200))


def test_levels_that_do_not_foretell_each_other_widen_what_lies_beyond() -> None:
    """Two cliffs are no power, and four levels show that; the interval says so."""

    def cliff(b: float, k: float) -> float:
        return 1e-3 + b * 1e-5 * (1 if k < 4 else 4 if k < 7 else 20)

    def square(b: float, k: float) -> float:
        return 1e-3 + b * 1e-5 * k**2

    wild, tame = (grid(truth, (3, 5, 6, 7)) for truth in (cliff, square))
    assert wild.outside_sds[1] > 1.5 * tame.outside_sds[1]
    assert wild.sd_log(at(64, 9)) > 1.5 * tame.sd_log(at(64, 9))


def test_what_is_assumed_outside_is_by_the_doubling_or_by_the_step_where_that_is_less() -> None:
    """Of 224 and 256 nobody should conclude far."""
    rows = [at(float(b), float(w)) for b in (8, 16) for w in (224, 256)]
    y = [r["batch_size"] * r[KNOB] for r in rows]
    near = fit_surface(rows, y, f.time_forms([KNOB], "cpu", has_counts=False)[:1], [KNOB])
    assert near.outside_sds == pytest.approx((0.05 / math.log2(256 / 224),))


def test_many_configurations_cost_no_more_than_those_that_stand_for_them() -> None:
    random = np.random.default_rng(0)
    rows = [at(float(b), float(w)) for b in range(8, 168, 8) for w in range(64, 704, 64)]
    y = [(1 + r["batch_size"] * r[KNOB] ** 2) * math.exp(random.normal(0, 0.02)) for r in rows]
    surface = fit_surface(
        rows, y, f.time_forms([KNOB], "cpu", has_counts=False), ["batch_size", KNOB]
    )
    assert {len(form.discrepancy.centres) for form in surface.forms} == {SUPPORT}
    inside = at(100, 300)
    assert surface.value(inside) == pytest.approx(1 + 100 * 300**2, rel=0.03)


def test_what_is_one_batch_sizes_own_holds_for_the_next_one_too() -> None:
    """A step of 12 % at one batch size: the next sizes are not cheaper by as much at once."""
    y = [(1 + b / 50) * (1.12 if b == 64 else 1.0) for b in SIZES]
    surface = _surface(y)
    steps = [surface.value({"batch_size": float(b)}) for b in range(64, 74)]
    assert max(abs(b / a - 1) for a, b in pairwise(steps)) < 0.03
