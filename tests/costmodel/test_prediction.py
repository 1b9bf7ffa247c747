"""The epoch equation, term by term, against closed forms; and the laws it obeys."""

import json
import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import known
import numpy as np
import pytest
import truths
from hypothesis import given, settings
from hypothesis import strategies as st

from epochcast.costmodel.fitting import fit
from epochcast.costmodel.prediction import predict
from epochcast.costmodel.question import Question
from epochcast.errors import PredictionError
from epochcast.planning.limits import Meter
from epochcast.records import Budget, Estimate, Measurement, RunConfig
from epochcast.records.documents import to_builtins

MODEL = fit(truths.sweep())
NOISY = fit(truths.sweep(round_sd=0.1, trial_sd=0.05))


def _term(estimate: Estimate, name: str) -> float:
    return next((t.seconds.p50 for t in estimate.terms if t.name == name), 0.0)


def test_every_term_of_a_run_in_closed_form() -> None:
    """E = 90, B = 192, w = 768: 312 full batches and one of 96 in 60,000 samples."""
    e, b, w = 90, 192, 768
    estimate = MODEL.predict(epochs=e, batch_size=b, width=w, eval_every=2, save_every=5)
    compute, update = truths.compute_seconds(b, w), truths.update_seconds(w)
    assert estimate.steps_per_epoch == 313
    assert _term(estimate, "start-up") == pytest.approx(2.1, rel=1e-3)
    steady = truths.compute_seconds(32, 256) + truths.update_seconds(256)  # first of the process
    assert _term(estimate, "first steps") == pytest.approx(0.5 - steady, rel=1e-2)
    assert _term(estimate, "training steps") == pytest.approx(
        e * (312 * compute + 313 * update), rel=1e-3
    )
    assert _term(estimate, "last partial batches") == pytest.approx(
        e * truths.compute_seconds(96, w), rel=1e-3
    )
    assert _term(estimate, "starting epochs") == pytest.approx(e * 0.01, rel=1e-3)
    assert _term(estimate, "evaluation") == pytest.approx(
        45 * ((52 * compute + truths.compute_seconds(16, w)) / 3 + 0.02), rel=1e-3
    )
    assert _term(estimate, "checkpoints") == pytest.approx(18 * 0.05, rel=1e-3)
    assert estimate.total_seconds.p50 == pytest.approx(sum(t.seconds.p50 for t in estimate.terms))
    assert sum(t.share for t in estimate.terms) == pytest.approx(1.0)


def test_accumulation_saves_updates_and_nothing_else() -> None:
    one = MODEL.predict(epochs=1, batch_size=100, width=256)
    four = MODEL.predict(epochs=1, batch_size=100, width=256, accumulation=4)
    saved = (600 - 150) * truths.update_seconds(256)
    assert one.epoch_seconds.p50 - four.epoch_seconds.p50 == pytest.approx(saved, rel=1e-2)
    assert (one.steps_per_epoch, four.steps_per_epoch) == (600, 150)


@settings(max_examples=60)
@given(a=st.floats(0.1, 500), b=st.floats(0.1, 500), batch=st.integers(1, 2000))
def test_more_epochs_never_cost_less(a: float, b: float, batch: int) -> None:
    fewer, more = (NOISY.predict(epochs=e, batch_size=batch) for e in sorted((a, b)))
    for quantile in ("p10", "p50", "p90"):
        low = getattr(fewer.total_seconds, quantile)
        assert low <= getattr(more.total_seconds, quantile) * (1 + 1e-12)


@settings(max_examples=60)
@given(epochs=st.floats(0.01, 1e4), batch=st.integers(1, 10**5), width=st.integers(1, 10**5))
def test_every_number_is_positive_and_in_order(epochs: float, batch: int, width: int) -> None:
    e = NOISY.predict(epochs=epochs, batch_size=batch, width=width, price_per_hour=2.5)
    for q in (e.step_seconds, e.epoch_seconds, e.total_seconds, e.peak_bytes, e.device_bytes):
        assert q is not None
        assert 0 < q.p10 <= q.p50 <= q.p90 < math.inf
    assert e.cost is not None
    assert e.cost.p90 == pytest.approx(e.total_seconds.p90 / 3600 * 2.5)


def test_relative_uncertainty_shrinks_to_that_of_the_run_and_no_further() -> None:
    """var log T(E) = s_u² + σ²/E: the run's own error does not average out."""

    def width(epochs: float) -> float:
        q = _training(NOISY.predict(epochs=epochs, batch_size=64, width=512))
        return math.log(q.p90 / q.p10)

    assert width(1) * (1 + 1e-9) >= width(10) >= width(1000) * (1 - 1e-9)
    assert width(1000) > 0.5 * width(1)


def _training(estimate: Estimate):  # type: ignore[no-untyped-def]
    return next(t.seconds for t in estimate.terms if t.name == "training steps")


def test_steps_are_epochs_counted_otherwise() -> None:
    by_steps = MODEL.predict(steps=3130, batch_size=192, width=768)
    by_epochs = MODEL.predict(epochs=10, batch_size=192, width=768)
    assert replace(
        by_steps, steps=None, terms=(), total_seconds=by_epochs.total_seconds
    ) == replace(by_epochs, terms=())
    assert by_steps.total_seconds.p90 == pytest.approx(by_epochs.total_seconds.p90, rel=1e-12)
    counts = [[(t.name, t.count) for t in e.terms] for e in (by_steps, by_epochs)]
    assert counts[0] == counts[1]


@pytest.mark.parametrize(
    ("epochs", "every", "count"), [(10, 1, 10), (10, 3, 4), (10, 0, 0), (0.5, 1, 1), (9, 3, 3)]
)
def test_evaluations_happen_every_so_many_epochs_and_at_the_end(
    epochs: float, every: float, count: int
) -> None:
    estimate = MODEL.predict(epochs=epochs, eval_every=every, save_every=0)
    counts = {t.name: t.count for t in estimate.terms}
    assert counts.get("evaluation", 0) == count
    assert "checkpoints" not in counts


@pytest.mark.parametrize(
    ("epochs", "every", "count"),
    [(0.3, 0.1, 3), (0.9, 0.3, 3), (2.1, 0.7, 3), (0.35, 0.1, 4), (1e4, 0.1, 100_000)],
)
def test_evaluations_within_an_epoch_are_counted_exactly(
    epochs: float, every: float, count: int
) -> None:
    """2.1 / 0.7 is more than 3 in floating point, and 0.3 / 0.1 less."""
    estimate = MODEL.predict(epochs=epochs, eval_every=every, save_every=every)
    counts = {term.name: term.count for term in estimate.terms}
    assert (counts["evaluation"], counts["checkpoints"]) == (count, count)


def test_what_is_left_open_is_as_probed_last() -> None:
    config = MODEL.predict(epochs=1).config
    assert (config.batch_size, dict(config.sizes)) == (256, {"depth": 1, "width": 1024})


def test_inside_the_range_nothing_is_extrapolated() -> None:
    assert MODEL.predict(epochs=1, batch_size=100, width=300).extrapolated == ()


def test_outside_the_range_is_flagged_and_wider() -> None:
    inside = NOISY.predict(epochs=1, batch_size=256, width=512)
    outside = NOISY.predict(epochs=1, batch_size=512, width=512)
    far = NOISY.predict(epochs=1, batch_size=4096, width=8192)
    assert outside.extrapolated == ("batch_size",)
    assert set(far.extrapolated) == {"batch_size", "width"}
    assert {w.code for w in outside.warnings} == {"extrapolation"}
    assert "far-extrapolation" in {w.code for w in far.warnings}
    ratios = [e.step_seconds.p90 / e.step_seconds.p50 for e in (inside, outside, far)]
    assert ratios == sorted(ratios)
    assert ratios[2] > ratios[0]


def test_building_a_model_far_larger_than_any_built_is_less_certain() -> None:
    """As every other term; a batch size never probed changes nothing about it."""

    def width(**asked: int) -> float:
        estimate = NOISY.predict(epochs=1, **asked)
        startup = next(t.seconds for t in estimate.terms if t.name == "start-up")
        return startup.p95 / startup.p50

    widths = [width(batch_size=64, width=w) for w in (512, 2048, 8192)]
    assert widths[0] < widths[1] < widths[2]
    assert width(batch_size=4096, width=512) == pytest.approx(widths[0])


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ({}, "either epochs or steps"),
        ({"epochs": 1, "steps": 1}, "either epochs or steps"),
        ({"epochs": 0}, "epochs must be a number above 0, and at most 1e.15"),
        ({"epochs": math.nan}, "epochs must be a number above 0, and at most 1e.15"),
        ({"epochs": math.inf}, "epochs must be a number above 0, and at most 1e.15"),
        ({"epochs": 1, "batch_size": -3}, "batch_size must be a whole number from 1 to 1e.15"),
        ({"epochs": 1, "height": 3}, "no knob 'height'; it has: depth, width"),
        ({"epochs": 1, "width": "big"}, "'width' takes positive numbers"),
        ({"epochs": 1, "width": 0}, "'width' takes positive numbers"),
        ({"epochs": 1, "price_per_hour": -1}, "price_per_hour"),
        ({"epochs": True}, "epochs must be a number above 0, and at most 1e\\+15, but got True"),
        ({"steps": True}, "steps must be a whole number from 1 to 1e\\+15, but got True"),
        ({"epochs": 1, "eval_every": -1}, "eval_every"),
    ],
)
def test_questions_that_make_no_sense_are_refused(question: dict[str, float], message: str) -> None:
    with pytest.raises(PredictionError, match=message):
        MODEL.predict(**question)  # type: ignore[arg-type]


def test_a_precision_never_probed_is_refused() -> None:
    from epochcast.costmodel.prediction import predict

    with pytest.raises(PredictionError, match=r"not probed with bf16.*fp32"):
        predict(MODEL, Question(epochs=1, precision="bf16"))


def test_a_stored_model_predicts_and_plans_without_torch_and_scikit_learn(tmp_path: Path) -> None:
    """Only ``fit`` needs scikit-learn, and only probing torch."""
    MODEL.save(tmp_path / "model.json")
    code = (
        "import sys; import epochcast as ec;"
        f"model = ec.CostModel.load({str(tmp_path / 'model.json')!r});"
        "model.predict(epochs=9, batch_size=100); model.largest_batch(2**30);"
        "loaded = set(sys.modules);"
        "ec.plan(model, ec.Budget(deadline=1e4), batch_sizes=(64,));"
        "print([m for m in ('torch', 'sklearn') if m in sys.modules], 'scipy.optimize' in loaded)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] False"


def test_a_run_that_may_not_fit_says_so() -> None:
    small = replace(MODEL, device=replace(MODEL.device, memory_bytes=320_000_000))
    asked: dict[str, Any] = {"epochs": 1, "batch_size": 256, "width": 512}
    assert {w.code for w in small.predict(**asked).warnings} == {"memory-tight"}
    assert MODEL.predict(**asked).warnings == ()


def test_what_a_question_leaves_open_does_not_hang_on_the_order_of_a_sweep() -> None:
    """It is the largest of the sweep that came last, and said to be."""
    first, last = truths.sweep((16, 512), (1024,)), truths.sweep((32, 64), (256, 512))
    for order in (last, last[::-1]):
        known = [replace(m, sweep="2026") for m in first]
        known += [
            replace(m, sweep="2027", created_at=f"2027-01-01T00:00:{i:02}+00:00")
            for i, m in enumerate(order)
        ]
        found = fit(known).predict(epochs=1)
        assert (found.config.batch_size, dict(found.config.sizes)["width"]) == (64, 512)
        (told,) = (dict(w.details) for w in found.warnings if w.code == "left-open")
        assert told == {"taken": "batch_size=64 width=512"}


def test_a_run_whose_knobs_are_unknown_is_no_reason_to_forget_those_that_were_probed() -> None:
    ran = replace(truths.measure(48, 256), created_at="2027-01-01", probe_seconds=0.0)
    ran = replace(ran, config=replace(ran.config, sizes=()), footprint=None)
    known = fit([*truths.sweep((32, 64), (256, 512)), ran])
    assert dict(known.predict(epochs=1, batch_size=48).config.sizes)["width"] == 512
    assert dict(known.predict(epochs=1, width=256).config.sizes)["width"] == 256
    with pytest.raises(PredictionError, match="has no knob 'wdith'; it has: depth, width"):
        known.predict(epochs=1, wdith=256)


def test_an_unknown_precision_is_answered_with_those_there_are() -> None:
    with pytest.raises(PredictionError, match="one of fp32, bf16, fp16, but got 'bf17'"):
        Question(epochs=1, precision="bf17")


def test_a_batch_of_more_than_all_samples_is_one_of_all_of_them() -> None:
    """Its time always was; its memory was once that of the batch asked for."""
    all_of_them = MODEL.predict(epochs=3, batch_size=500, samples=500)
    more = MODEL.predict(epochs=3, batch_size=4000, samples=500)
    assert more.config.batch_size == 500
    assert (more.total_seconds, more.device_bytes) == (
        all_of_them.total_seconds,
        all_of_them.device_bytes,
    )
    of_all_asked = MODEL.predict(  # counted of a batch that is never made
        epochs=3, batch_size=4000, samples=500, footprint=truths.footprint(4000, 1024)
    )
    assert of_all_asked.step_seconds == more.step_seconds
    notes = {w.code: dict(w.details) for w in more.warnings}
    assert notes["cut-batch"] == {"asked": "4,000", "made": "500"}
    assert "cut-batch" not in {w.code for w in all_of_them.warnings}


def test_what_was_not_probed_is_named() -> None:
    """An empty list was once what was not probed."""
    with pytest.raises(PredictionError, match="not probed with drop_last=True; probe it so"):
        predict(MODEL, Question(epochs=1, drop_last=True))


def test_an_epoch_without_a_batch_is_refused() -> None:
    dropping = fit([replace(m, config=replace(m.config, drop_last=True)) for m in truths.sweep()])
    with pytest.raises(PredictionError, match="leaves no batch in 30 samples"):
        dropping.predict(epochs=1, batch_size=64, samples=30)


DEVICES = 4
SEVERAL = [replace(m, config=replace(m.config, world_size=DEVICES)) for m in truths.sweep()]


def test_every_device_is_paid_for_alike_in_predict_and_in_a_plan() -> None:
    """Price of a device's hour × devices × hours."""
    estimate = fit(SEVERAL).predict(epochs=10, batch_size=64, price_per_hour=36.0)
    assert estimate.cost is not None
    expected = 36.0 * DEVICES / 3600 * estimate.total_seconds.p50
    assert estimate.cost.p50 == pytest.approx(expected)
    meter = Meter(Budget(price_per_hour=36.0), DEVICES)
    assert meter.price(estimate.total_seconds.p50) == pytest.approx(expected)


def test_a_batch_of_more_than_a_device_has_samples_is_cut_to_what_it_has() -> None:
    estimate = fit(SEVERAL).predict(epochs=1, batch_size=128, samples=200)
    assert estimate.config.batch_size == 200 // DEVICES
    assert "cut-batch" in {w.code for w in estimate.warnings}


def test_drop_last_speaks_of_what_a_device_has() -> None:
    dropping = [replace(m, config=replace(m.config, drop_last=True)) for m in SEVERAL]
    with pytest.raises(PredictionError, match="leaves no batch in 50 samples a device"):
        fit(dropping).predict(epochs=1, batch_size=64, samples=200)


def test_the_largest_batch_is_no_more_than_a_device_has_samples() -> None:
    found = fit([replace(m, samples=1000) for m in SEVERAL]).largest_batch(2**60)
    assert (found.batch_size, found.limited_by) == (250, "samples")


@pytest.mark.parametrize(
    ("accumulation", "steps", "seconds", "counts"),
    [
        (1, 1, 6.4, (1, 0)),  # 100 samples: a batch of 64, and one of 36 at the epoch's end
        (1, 2, 10.0, (1, 1)),
        (1, 3, 16.4, (2, 1)),
        (3, 1, 10.0, (1, 1)),  # an epoch has two micro-batches, and one update
        (3, 3, 30.0, (3, 3)),
    ],
)
def test_steps_are_priced_in_their_order(
    accumulation: int, steps: int, seconds: float, counts: tuple[int, int]
) -> None:
    """At a tenth of a second a sample: t(64) = 6.4 s, t(36) = 3.6 s."""
    model = known.model(
        setup=0.0,
        first=0.0,
        epoch=100,
        micro_step=known.per_sample(0.0, 0.1),
        configurations=(RunConfig(batch_size=64),),
    )
    found = model.predict(steps=steps, accumulation=accumulation, eval_every=0, save_every=0)
    assert found.total_seconds.p50 == pytest.approx(seconds)
    assert found.steps == steps
    by_name = {term.name: term.count for term in found.terms}
    assert (by_name["training steps"], by_name.get("last partial batches", 0)) == counts
    assert json.loads(json.dumps(to_builtins(found)))["steps"] == steps  # as predict --json writes


def _levels(seconds: Callable[[float, float], float], values: Sequence[int]) -> list[Measurement]:
    """Two rounds of three batch sizes at each value of a knob; nothing was counted."""
    random = np.random.default_rng(0)
    return [
        Measurement.from_epochs(
            "levels",
            batch,
            epoch_seconds=[seconds(batch, k) * 50_000 / batch * math.exp(random.normal(0, 0.003))],
            samples=50_000,
            device="A100 (cuda)",
            sizes={"level": k},
            run=run,
            includes_first=False,
        )
        for k in values
        for batch in (32, 64, 256)
        for run in (0, 1)
    ]


@pytest.mark.parametrize(
    ("values", "seconds", "codes"),
    [
        ((3, 5, 7), lambda b, k: 1e-3 + b * 1e-5 * 2**k, {"few-levels-imported"}),
        (
            (3, 5, 6, 7),
            lambda b, k: 1e-3 + b * 1e-5 * (5 if k > 6 else 1),
            {"levels-unforetold-imported"},
        ),
        ((3, 5, 6, 7), lambda b, k: 1e-3 + b * 1e-5 * 2**k, set()),
        ((3, 5, 6, 7), lambda b, k: 1e-3 + b * 1e-5 * k**2, set()),
    ],
)
def test_what_three_values_of_a_knob_cannot_show_and_four_do_is_said(
    values: tuple[int, ...], seconds: Callable[[float, float], float], codes: set[str]
) -> None:
    """Doubling with each level is no power, which four values show; nothing foretells a cliff."""
    model = fit(_levels(seconds, values))
    beyond, inside = (model.predict(epochs=1, batch_size=64, level=k) for k in (9, 4))
    assert {w.code for w in beyond.warnings} - {"extrapolation", "not-measured"} == codes
    assert not {w.code for w in inside.warnings} & {
        "few-levels-imported",
        "levels-unforetold-imported",
    }
