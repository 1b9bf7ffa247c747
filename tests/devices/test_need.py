"""What a device must have: quantiles, what fills it, what fits."""

from dataclasses import replace
from math import exp, inf

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sequences import CONFIG, MIB, T4, training

from epochcast.devices.cards import device_like, find_device
from epochcast.devices.need import (
    CONTEXT,
    CPU_SD,
    NOT_IN_USE,
    OUTSIDE_LEVELS,
    OUTSIDE_SD,
    OUTSIDE_SEEN,
    REPLAY_SD,
    ROUNDING,
    UNKNOWN,
    device_need,
    largest_fitting,
    needed_bytes,
    outside_bytes,
    quantile,
)
from epochcast.devices.replay import replay

NEED = device_need(training(), CONFIG)


def test_reserved_bytes_are_around_the_replay() -> None:
    plain = replay(training())
    assert NEED.reserved_bytes.p50 == pytest.approx(plain.reserved_bytes, rel=0.005)
    # the 95th percentile of the normal distribution is at 1.645 σ
    assert NEED.reserved_bytes.p95 == pytest.approx(
        plain.reserved_bytes * (1 + 1.645 * REPLAY_SD), rel=0.01
    )
    assert NEED.allocated_bytes.p50 == pytest.approx(plain.allocated_bytes, rel=0.005)


def test_the_device_needs_what_is_reserved_and_the_context() -> None:
    context = 141_426_688  # measured on a T4
    outside = outside_bytes(T4)
    assert outside[len(outside) // 2] == context
    # five points of the normal distribution: the outer ones are at 1.28 σ
    assert outside[-1] == pytest.approx(context * exp(1.2816 * OUTSIDE_SD), rel=1e-4)
    assert outside[0] * outside[-1] == pytest.approx(context**2, rel=1e-6)
    assert NEED.device_bytes.p50 == pytest.approx(NEED.reserved_bytes.p50 + context, rel=0.01)
    assert NEED.needed_bytes == round(NEED.device_bytes.p95)
    assert needed_bytes(training()) == NEED.needed_bytes


def test_a_card_whose_context_nobody_measured_has_one_by_its_multiprocessors() -> None:
    """Measured were 3.0 to 4.9 MiB for each; an RTX 3060 has 28."""
    outside = outside_bytes(find_device("rtx-3060"))
    assert outside[0] == pytest.approx(428 / 142 * 28 * MIB * exp(-1.2816 * OUTSIDE_SD), rel=1e-4)
    assert outside[-1] == pytest.approx(641 / 132 * 28 * MIB * exp(1.2816 * OUTSIDE_SD), rel=1e-4)
    need = device_need(replace(training(), device=find_device("rtx-3060")), CONFIG)
    assert need.outside_bytes.p95 - need.outside_bytes.p05 > 0.4 * need.outside_bytes.p50


def test_handles_of_cublas_are_large_on_compute_capability_9() -> None:
    hopper = replace(find_device("h100"), name="PCIe", multiprocessors=114)
    older = replace(hopper, name="older", capability=(8, 9))
    assert outside_bytes(hopper)[0] > outside_bytes(older)[0] + 100 * MIB


def test_an_h100_has_what_was_seen_on_its_chip() -> None:
    """An H200 had 751 to 821 MiB, an H100 767 and 769."""
    outside = outside_bytes(find_device("h100"))
    assert outside == outside_bytes(find_device("h200"))
    assert outside[0] < 767 * MIB < outside[len(outside) // 2]


def test_those_of_compute_capability_10_may_be() -> None:
    b200 = find_device("b200")
    without = replace(b200, name="without", capability=(12, 0))
    assert outside_bytes(b200)[0] == outside_bytes(without)[0]
    assert outside_bytes(b200)[-1] > outside_bytes(without)[-1] + 100 * MIB


def test_a_device_of_which_only_the_memory_is_known_has_any_context() -> None:
    found = outside_bytes(find_device("24GiB"))
    assert found[0] < 116 * MIB < 641 * MIB < found[-1]
    assert len(found) == OUTSIDE_LEVELS * len(OUTSIDE_SEEN)


def test_a_device_that_is_here_has_the_context_of_its_chip() -> None:
    here = device_like("NVIDIA H100 80GB HBM3", round(79.2 * 2**30))
    assert outside_bytes(here) == outside_bytes(find_device("h100"))


def test_on_an_a100_all_contexts_that_were_seen_count() -> None:
    for name in ("a100-40gb", "a100-80gb"):
        outside = outside_bytes(find_device(name))
        assert {409 * MIB, 501 * MIB, 503 * MIB, 1429 * MIB} <= {*outside}
        assert outside[len(outside) // 2] < 550 * MIB


def test_kernels_that_are_loaded_eagerly_take_a_gigabyte_and_it_is_said() -> None:
    """An H200 had 769 MiB, and 2,101 with all that was used loaded eagerly."""
    device = find_device("h200")
    sequence = replace(training(), device=device)
    need, eager = device_need(sequence, CONFIG), device_need(sequence, CONFIG, eager=True)
    assert need.outside_bytes.p05 < 769 * MIB < need.outside_bytes.p95
    assert eager.outside_bytes.p05 < 2101 * MIB < eager.outside_bytes.p95
    assert not need.remarks
    assert "CUDA_MODULE_LOADING" in eager.remarks[0]
    assert needed_bytes(sequence, eager=True) == eager.needed_bytes


def test_what_was_counted_on_the_cpu_is_much_less_certain() -> None:
    need = device_need(replace(training(), source="cpu"), CONFIG)
    assert CPU_SD > 10 * REPLAY_SD
    assert need.reserved_bytes.p95 > 1.3 * NEED.reserved_bytes.p50


def test_unknown_bytes_widen_it() -> None:
    need = device_need(training(unknown=True), CONFIG)
    assert need.reserved_bytes.p95 - need.reserved_bytes.p05 > 40 * MIB
    unseen = need.unseen[0]
    assert (unseen.times, unseen.low_bytes, unseen.high_bytes) == (2, 0, 64 * MIB)


def test_what_fills_it_adds_up() -> None:
    """Everything in use, rounding, what is not in use, and the context are the whole."""
    plain = replay(training())
    kinds = {share.name: share.bytes for share in NEED.kinds}
    assert kinds["activations"] == 32 * MIB
    assert kinds["parameters"] == kinds["gradients"] == 8 * MIB
    assert kinds[NOT_IN_USE] == plain.reserved_bytes - plain.allocated_bytes
    assert sum(kinds.values()) == plain.reserved_bytes + kinds[CONTEXT]
    in_use = sum(kinds.values()) - kinds[CONTEXT] - kinds[NOT_IN_USE] - kinds[ROUNDING]
    assert sum(share.bytes for share in NEED.modules) == in_use
    assert sum(share.bytes for share in NEED.operators) == in_use
    assert sum(t.bytes * t.count for t in NEED.tensors) == in_use


def test_what_only_the_device_knows_is_a_row_and_no_hole() -> None:
    """The rows are the median of what the device must have, where that is more than the least."""
    need = device_need(training(unknown=True), CONFIG)
    kinds = {share.name: share.bytes for share in need.kinds}
    least = replay(training(unknown=True)).reserved_bytes
    assert kinds[UNKNOWN] == round(need.reserved_bytes.p50) - least > 10 * MIB
    whole = need.reserved_bytes.p50 + need.outside_bytes.p50
    assert sum(kinds.values()) == pytest.approx(whole, abs=2)
    assert UNKNOWN not in {share.name for share in NEED.kinds}


def test_the_largest_tensors_come_first_and_equal_ones_together() -> None:
    sizes = [t.bytes for t in NEED.tensors]
    assert sizes == sorted(sizes, reverse=True)
    assert NEED.moment.startswith("forward of step 2, at aten.")


def test_the_curve_is_the_last_step() -> None:
    curve = NEED.curve
    assert curve is not None
    assert max(sum(row) for row in curve.live) == replay(training()).allocated_bytes
    assert [name for name, _ in curve.moments] == ["batch", "forward", "backward", "update"]
    assert all(sum(row) <= held for row, held in zip(curve.live, curve.reserved, strict=True))


def test_it_fits_or_not_with_a_probability() -> None:
    tight = replace(T4, name="tight", memory_bytes=round(NEED.device_bytes.p50) + MIB)
    need = device_need(replace(training(), device=tight), CONFIG)
    assert 0.0 < need.probability < 1.0
    assert not need.fits
    assert need.retries == 0
    none = device_need(replace(training(), device=replace(tight, memory_bytes=50 * MIB)), CONFIG)
    assert (none.probability, none.retries) == (0.0, None)
    assert NEED.probability == 1.0
    assert device_need(training(), CONFIG, used_bytes=15 * 2**30).probability == 0.0


def test_more_confidence_needs_more() -> None:
    levels = [needed_bytes(training(unknown=True), None, c) for c in (0.5, 0.9, 0.95, 0.99)]
    assert levels == sorted(levels)


def test_a_quantile_is_a_value_not_below_its_level() -> None:
    values = list(range(100))
    assert [quantile(values, level) for level in (0.0, 0.5, 0.95, 1.0)] == [0, 50, 95, 99]


@given(
    answer=st.integers(0, 300),
    first=st.integers(-5, 400),
    high=st.integers(1, 300),
    power=st.sampled_from((0.3, 1.0, 3.0)),
    stair=st.sampled_from((1, 7, 300)),
    broken=st.integers(1, 600),
)
def test_the_largest_that_fits_is_found_from_any_guess(
    answer, first, high, power, stair, broken
) -> None:
    asked = []

    def needed(n: int) -> float:
        asked.append(n)
        stairs = (n - 1) // stair * stair if n <= answer else n
        return inf if n >= max(broken, answer + 1) else stairs**power

    expected = min(answer, high) or None
    assert largest_fitting(needed, answer**power, 1, high, first) == expected
    assert all(1 <= n <= high for n in asked)


def test_a_good_guess_takes_few_questions_and_a_line_hardly_more() -> None:
    asked = []

    def needed(n: int) -> float:
        asked.append(n)
        return 500.0 + n

    assert largest_fitting(needed, 1500.0, 1, 2**20, 1000) == 1000
    assert asked == [1000, 1001]
    asked.clear()
    assert largest_fitting(needed, 1500.0, 1, 2**20, 2) == 1000
    assert len(asked) <= 6
