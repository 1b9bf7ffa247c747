"""Peaks as maxima of lines: exact from timelines, within proven bounds from counted peaks."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import truths
from hypothesis import given
from hypothesis import strategies as st

from epochcast.costmodel.fitting import fit
from epochcast.costmodel.memory import envelopes, highest, hinge, upper_envelope
from epochcast.costmodel.model import CostModel
from epochcast.records import Footprint, Measurement, RunConfig, Timeline, make_sizes

lines = st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 10**6)), min_size=1, max_size=12)
batch_sizes = st.integers(1, 4096)
CONFIG = RunConfig(batch_size=1, sizes=make_sizes({"width": 4}))


def footprint(blocks: list[tuple[int, int]], batch_size: int, order: int = 1) -> Footprint:
    """Every third block is freed after the next one, the others at the end, in some order."""
    events: list[int] = []
    for block in range(len(blocks)):
        events.append(block + 1)
        if block % 3 == 1:
            events.append(-block)
    alive = [e for e in events if e > 0 and -e not in events]
    events += [-e for e in alive[::order]]
    end = len(blocks) - len(blocks) // 3
    timeline = Timeline(
        block_bytes=tuple(base + slope * batch_size for slope, base in blocks),
        block_kinds=("other",) * len(blocks),
        block_operators=(-1,) * len(blocks),
        block_modules=(-1,) * len(blocks),
        operators=(),
        modules=(),
        events=tuple(events),
        forward_end=0,
        step_end=end,
    )
    live = timeline.live_bytes()
    return replace(
        truths.footprint(batch_size, 4),
        step_peak_bytes=max(live[:end]),
        update_peak_bytes=max(live[end - 1 :]),
        timeline=timeline,
    )


def counted(blocks: list[tuple[int, int]], *batch_sizes: int) -> dict[RunConfig, Footprint]:
    return {
        replace(CONFIG, batch_size=b): footprint(blocks, b, order=1 if i % 2 else -1)
        for i, b in enumerate(batch_sizes)
    }


@given(lines, batch_sizes, batch_sizes, batch_sizes)
def test_two_timelines_give_the_peak_of_every_batch_size(blocks, low, high, asked) -> None:
    found = envelopes(counted(blocks, low, high))
    if low == high:
        assert found == ()
        return
    truth = footprint(blocks, asked)
    peaks = found[0].peaks(asked)
    assert peaks["step_peak_bytes"] == pytest.approx(truth.step_peak_bytes, abs=0.01)
    assert peaks["update_peak_bytes"] == pytest.approx(truth.update_peak_bytes, abs=0.01)


@given(lines, batch_sizes)
def test_lines_that_are_never_the_highest_are_left_out(some, batch_size) -> None:
    kept = upper_envelope(some)
    assert highest(kept, batch_size) == highest(some, batch_size)
    assert set(kept) <= set(some)
    assert list(kept) == sorted(kept)


BLOCKS = [(0, 1000), (8, 0), (4, 100), (16, 0)]


def test_timelines_that_tell_different_stories_give_no_lines() -> None:
    other = counted([*BLOCKS, (1, 0)], 32)
    assert envelopes({**counted(BLOCKS, 8), **other}) == ()
    assert envelopes(counted(BLOCKS, 8)) == ()


def test_a_block_that_grows_faster_than_the_batch_gives_no_lines() -> None:
    square = {replace(CONFIG, batch_size=b): footprint([(b, 0)], b) for b in (8, 16)}
    assert envelopes(square) == ()


def test_a_count_that_is_not_on_the_lines_speaks_against_them() -> None:
    found = counted(BLOCKS, 8, 16, 32)
    middle = replace(CONFIG, batch_size=16)
    assert len(envelopes(found)) == 1
    off = replace(found[middle], timeline=None, step_peak_bytes=99_999)
    assert envelopes({**found, middle: off}) == ()


@given(lines, st.sets(batch_sizes, min_size=2, max_size=6), batch_sizes)
def test_a_hinge_lies_within_what_convexity_proves(some, known, asked) -> None:
    points = {float(b): float(highest(some, b)) for b in known}
    found = hinge(points, asked)
    assert found is not None
    value, scatter = found
    truth = highest(some, asked)
    tolerance = 1e-9 * max(1.0, truth)
    if min(known) <= asked <= max(known):
        assert truth <= value * (1 + scatter.sd) + tolerance  # the chord
    elif asked > max(known):
        assert value <= truth + tolerance
    else:
        assert value <= truth + tolerance <= max(points.values()) + 2 * tolerance
    if asked in known:
        assert value == pytest.approx(truth)
        assert scatter.sd == pytest.approx(0, abs=1e-9)


@given(st.integers(1, 1000), st.integers(0, 10**6), batch_sizes)
def test_a_hinge_through_one_line_is_that_line(slope, base, asked) -> None:
    value, scatter = hinge({b: base + slope * b for b in (16.0, 32.0, 64.0)}, asked) or (0, None)
    assert value == pytest.approx(base + slope * asked)
    assert scatter is not None
    assert scatter.sd <= 0.02 * 6 + 1e-9  # two per cent for each doubling outside, to 4096 or 1


def test_a_measured_multi_layer_perceptron_beyond_its_kink() -> None:
    """Adam at 64, …, 1024: 10.58, 10.64, 10.77, 14.17, 20.99 MB; a line is 45 % too low."""
    seen = {64.0: 10.58, 128.0: 10.64, 256.0: 10.77, 512.0: 14.17}
    value, _ = hinge(seen, 1024) or (0, None)
    assert value == pytest.approx(20.99, rel=0.002)
    before, scatter = hinge({b: p for b, p in seen.items() if b < 512}, 512) or (0, None)
    assert before == pytest.approx(11.03, rel=0.002)
    assert scatter is not None


def test_peaks_that_are_no_maximum_of_lines_give_no_hinge() -> None:
    assert hinge({8.0: 100.0}, 16) is None
    assert hinge({8.0: 100.0, 16.0: 90.0}, 32) is None
    assert hinge({8.0: 100.0, 16.0: 200.0, 32.0: 250.0}, 64) is None


def test_what_grows_faster_than_the_batch_is_uncertain_beyond() -> None:
    """B²: three points, the largest asked for twice beyond."""
    value, scatter = hinge({b: b * b for b in (8.0, 16.0, 32.0)}, 64) or (0.0, None)
    assert scatter is not None
    assert value < 64**2 < scatter.quantile(value, 0.95)


def test_a_model_knows_the_peak_between_and_beyond_what_was_counted() -> None:
    """In truths.py forward and backward rule, or the update, as the batch says."""
    model = fit(truths.sweep(batch_sizes=(32, 128, 512)))
    for batch_size in (16, 100, 300, 2048):
        estimate = model.predict(epochs=1, batch_size=batch_size, width=512)
        assert estimate.peak_bytes is not None
        truth = truths.footprint(batch_size, 512).peak_bytes
        assert estimate.peak_bytes.p50 == pytest.approx(truth, rel=1e-6)


def test_a_model_is_exact_with_two_timelines() -> None:
    config = {b: replace(CONFIG, batch_size=b) for b in (8, 32, 100)}
    dry = counted(BLOCKS, 8, 32)
    measured = [
        replace(
            truths.measure(b, 4), config=config[b], footprint=replace(dry[config[b]], timeline=None)
        )
        for b in (8, 32)
    ]
    model = fit(measured, dry)
    peak = model.predict(epochs=1, batch_size=100).peak_bytes
    assert peak is not None
    assert peak.p05 == peak.p95 == footprint(BLOCKS, 100).peak_bytes


def test_gradients_that_accumulate_are_in_a_peak_that_was_probed_without_them() -> None:
    """They live through all forward passes but the first; probed with accumulation, they show."""

    def counted(accumulation: int) -> list[Measurement]:
        return [
            replace(
                m,
                config=replace(m.config, accumulation=accumulation),
                footprint=replace(truths.footprint(b, 512), gradient_bytes=10**6),
            )
            for b in (32, 64, 128, 256)
            for m in (truths.measure(b, 512),)
        ]

    def peak(model: CostModel, accumulation: int) -> float:
        found = model.predict(1, 100, accumulation=accumulation).peak_bytes
        assert found is not None
        return found.p50

    probed_without, probed_with = fit(counted(1)), fit(counted(2))
    assert peak(probed_without, 4) - peak(probed_without, 1) == pytest.approx(10**6)
    assert peak(probed_with, 4) == pytest.approx(peak(probed_without, 1))


def test_between_four_peaks_of_a_parabola_is_its_value() -> None:
    """10,000 + (B − 8)²: the middle of three equal intervals, three quarters up to the chord."""
    points = {float(b): 10_000.0 + (b - 8) ** 2 for b in (8, 16, 24, 32)}
    value, _ = hinge(points, 20) or (0.0, None)
    assert value == pytest.approx(10_144, rel=1e-12)


@pytest.mark.parametrize(
    ("points", "value", "sd"),
    [
        ({16.0: 100.0, 32.0: 148.0}, 76.0, 24.0),  # the slope of 3 may end at 16
        ({16.0: 100.0, 32.0: 132.0, 64.0: 228.0}, 84.0, 8.0),  # 2, then 3: it may change by 1 again
        ({16.0: 100.0, 32.0: 116.0, 64.0: 180.0}, 92.0, 8.0),  # 1, then 3: it is never below 0
        ({16.0: 100.0, 32.0: 200.0}, 50.0, 50.0),  # in proportion
    ],
)
def test_below_what_was_counted_the_slope_may_change_once_more(
    points: dict[float, float], value: float, sd: float
) -> None:
    found, scatter = hinge(points, 8) or (0.0, None)
    assert found == pytest.approx(value, rel=1e-12)
    assert scatter is not None
    assert scatter.sd == pytest.approx(math.hypot(sd / value, 0.02), rel=1e-12)
