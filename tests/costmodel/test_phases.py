"""The peak of a run is the largest of training, evaluation and saving; each by its own batch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import truths
from hypothesis import given
from hypothesis import strategies as st

from epochcast.costmodel.fitting import fit
from epochcast.costmodel.model import CostModel
from epochcast.costmodel.phases import largest
from epochcast.costmodel.prediction import largest_batch
from epochcast.costmodel.question import Question
from epochcast.costmodel.scatter import Amount, Scatter
from epochcast.errors import PredictionError
from epochcast.planning.planner import plan
from epochcast.records import Budget, Measurement, MemoryPeaks

MIB = 2**20
CONTEXT = 200 * MIB
PER_SAMPLE = 31 * MIB  # of evaluation: 384 × 384 pixels
TRAINING, SAVING = 327 * MIB, 250 * MIB


def evaluated(m: Measurement, at_once: int | None = None) -> Measurement:
    """The same, trained on small images and evaluated on large ones."""
    config = replace(m.config, eval_batch_size=at_once)
    peak = config.evaluated_at_once * PER_SAMPLE + m.footprint.static_bytes
    training = TRAINING - 100 * MIB
    footprint = replace(
        m.footprint, step_peak_bytes=training, update_peak_bytes=0, eval_peak_bytes=peak
    )
    return replace(
        m,
        config=config,
        footprint=footprint,
        memory=MemoryPeaks(device_bytes=TRAINING),
        eval_memory=MemoryPeaks(device_bytes=CONTEXT + peak),
        save_memory=MemoryPeaks(device_bytes=SAVING),
    )


def model(at_once: int | None = None) -> CostModel:
    return fit([evaluated(m, at_once) for m in truths.sweep((8, 16, 32), (256,))])


def needed(at_once: int) -> int:
    return CONTEXT + at_once * PER_SAMPLE + truths.footprint(8, 256).static_bytes


def test_the_largest_phase_decides() -> None:
    found = model().predict(epochs=1, batch_size=32)
    assert found.training_bytes
    assert found.evaluation_bytes
    assert found.saving_bytes
    assert found.device_bytes
    assert found.peak_bytes
    assert found.training_bytes.p50 == pytest.approx(TRAINING, rel=1e-6)
    assert found.evaluation_bytes.p50 == pytest.approx(needed(32), rel=1e-6)
    assert found.saving_bytes.p50 == pytest.approx(SAVING, rel=1e-6)
    assert found.device_bytes.p50 == found.evaluation_bytes.p50
    assert found.peak_bytes.p50 == pytest.approx(needed(32) - CONTEXT, rel=1e-6)


def test_a_run_that_never_evaluates_needs_no_memory_for_it() -> None:
    found = model().predict(epochs=1, batch_size=32, eval_every=0)
    assert found.evaluation_bytes is None
    assert found.device_bytes
    assert found.device_bytes.p50 == pytest.approx(TRAINING, rel=1e-6)


def test_what_fits_is_decided_by_evaluation() -> None:
    """Training takes 327 MiB, and 600 MiB have room for evaluating (600 − 200 − static)/31."""
    known, limit = model(), 600 * MIB
    found = largest_batch(known, Question(epochs=1), limit)
    assert needed(found.batch_size) <= limit < needed(found.batch_size + 3)
    free = largest_batch(known, Question(epochs=1, eval_every=0), limit)
    assert free.batch_size > 10 * found.batch_size


def test_an_evaluation_batch_that_never_fits_is_said_so() -> None:
    with pytest.raises(PredictionError, match=r"evaluation.*eval.batch.size 100"):
        largest_batch(model(100), Question(epochs=1), 600 * MIB)


def test_a_plan_keeps_to_the_memory_of_evaluation() -> None:
    chosen = plan(model(), Budget(memory=600 * MIB), epochs=2, batch_sizes=[8, 16, 32]).chosen
    assert chosen.device_bytes
    assert chosen.device_bytes.p90 <= 600 * MIB
    assert needed(chosen.config.batch_size) <= 600 * MIB


def test_an_evaluation_batch_of_its_own_costs_the_same_at_every_training_batch() -> None:
    known = model(25)
    small, large = (known.predict(epochs=1, batch_size=b) for b in (8, 32))
    assert small.evaluation_bytes
    assert large.evaluation_bytes
    assert small.evaluation_bytes.p50 == pytest.approx(needed(25), rel=1e-6)
    assert large.evaluation_bytes.p50 == pytest.approx(needed(25), rel=1e-6)


def seconds_of(at_once: int) -> float:
    return truths.compute_seconds(at_once, 256) / 3


def timed(m: Measurement) -> Measurement:
    return replace(
        m,
        config=replace(m.config, eval_batch_size=1000),
        eval_batch_seconds=(seconds_of(1000),) * 5,
    )


@pytest.mark.parametrize("batch_size", [32, 64, 256])
def test_evaluation_is_priced_at_its_own_batch_size(batch_size: int) -> None:
    """10,000 samples in ten batches of 1,000, and 0.02 s to start."""
    known = fit([timed(m) for m in truths.sweep(widths=(256,))])
    found = known.predict(epochs=1, batch_size=batch_size)
    (term,) = [term for term in found.terms if term.name == "evaluation"]
    assert term.seconds.p50 == pytest.approx(10 * seconds_of(1000) + 0.02, rel=1e-3)
    assert known.predict(epochs=1).config.eval_batch_size == 1000


@given(st.lists(st.tuples(st.floats(1, 1e9), st.floats(0, 1)), min_size=1, max_size=4))
def test_nothing_is_below_any_phase(pairs: list[tuple[float, float]]) -> None:
    amounts = [Amount(median, Scatter(sd=sd)) for median, sd in pairs]
    found = largest([*amounts, None])
    assert found is not None
    for p in (0.5, 0.95):
        assert found.quantile(p) == pytest.approx(max(a.quantile(p) for a in amounts))
    assert found.median == np.max([a.median for a in amounts])
    assert largest([None]) is None
