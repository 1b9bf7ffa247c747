"""The largest batch that fits: exact on a known truth, monotone, careful."""

from dataclasses import replace

import pytest
import truths
from hypothesis import given, settings
from hypothesis import strategies as st

from epochcast.costmodel.fitting import fit
from epochcast.errors import PredictionError

CONTEXT = 300_000_000  # truths.measure: a device takes this beyond the live tensors
EXACT = fit(truths.sweep())
NOISY = fit(truths.sweep(round_sd=0.05, trial_sd=0.02, seed=3))


def needed(batch_size: int, width: int) -> int:
    return CONTEXT + truths.footprint(batch_size, width).peak_bytes


@settings(max_examples=30)
@given(batch_size=st.integers(32, 250), width=st.sampled_from([256, 512, 1024]))
def test_inside_the_range_the_answer_is_exact(batch_size: int, width: int) -> None:
    found = EXACT.largest_batch(needed(batch_size, width) + 2000, width=width)
    assert found.limited_by == "memory"
    assert needed(found.batch_size, width) <= found.memory_bytes
    one_more = needed(found.batch_size + 2, width)
    assert one_more > found.memory_bytes or found.batch_size >= 254  # beyond, it is careful


@settings(max_examples=20)
@given(a=st.integers(320, 2000), b=st.integers(320, 2000), p=st.floats(0.5, 0.99))
def test_more_memory_never_fits_less_and_more_confidence_never_more(
    a: int, b: int, p: float
) -> None:
    less, more = sorted((a, b))
    batches = [NOISY.largest_batch(m * 10**6, width=512).batch_size for m in (less, more)]
    assert batches == sorted(batches)
    sure = NOISY.largest_batch(more * 10**6, confidence=0.99, width=512).batch_size
    assert sure <= NOISY.largest_batch(more * 10**6, confidence=p, width=512).batch_size


def test_far_outside_the_range_it_is_careful_and_says_so() -> None:
    found = EXACT.largest_batch(needed(4096, 512), width=512)
    assert 256 < found.batch_size < 4096
    assert found.extrapolated == ("batch_size",)


def test_a_batch_that_was_measured_to_fit_is_not_overlooked() -> None:
    """Memory at the 95 % quantile: 308 MB at 8, 440 MB at 40 and 308 MB at 128."""
    model = fit(truths.sweep((8, 128), (512,)))
    found = [model.largest_batch(m * 10**6).batch_size for m in (309, 320, 400, 440)]
    assert found[0] >= 128
    assert found == sorted(found)


def test_a_measured_batch_beyond_the_data_set_is_no_answer() -> None:
    model = fit([replace(m, samples=100) for m in truths.sweep((8, 128), (512,))])
    found = model.largest_batch(309 * 10**6)
    assert (found.batch_size, found.limited_by) == (100, "samples")


def test_the_data_set_may_be_the_limit() -> None:
    found = EXACT.largest_batch(2**60, width=256)
    assert (found.batch_size, found.limited_by) == (truths.SAMPLES, "samples")


@pytest.mark.parametrize(
    ("memory", "confidence", "message"),
    [(1000, 0.95, "not even a batch of one"), (2**30, 1.5, "confidence must be between")],
)
def test_what_cannot_be_answered_is_refused(memory: int, confidence: float, message: str) -> None:
    with pytest.raises(PredictionError, match=message):
        EXACT.largest_batch(memory, confidence)
