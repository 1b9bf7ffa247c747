"""What scripts do as often as they do it: predictions and plans of several batch sizes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from synthetic import Training

from epochcast.costmodel.fitting import fit
from epochcast.costmodel.model import CostModel
from epochcast.planning.planner import plan
from epochcast.records import Frequency, Measurement
from epochcast.scripts.observed import measurement_of


def measured(training: Training, round_: int = 0) -> Measurement:
    events = training.events()
    trial = replace(training.trial(round_), request=f"{training.batch_size:016}")
    return measurement_of({7: events}, trial)


def model_of(**costs: float) -> CostModel:
    """Of three batch sizes; a step takes 1 ms a sample."""
    trainings = [
        Training(batch_size=b, step=0.001 * b, miniature=1600 // b, **costs)  # type: ignore[arg-type]
        for b in (16, 32, 64)
    ]
    return fit([measured(training, round_) for training in trainings for round_ in (0, 1)])


def test_another_batch_size_has_other_steps_and_the_same_rest() -> None:
    model = model_of()
    terms = {t.name: t for t in model.predict(epochs=10, batch_size=40).terms}
    assert terms["training steps"].seconds.p50 == pytest.approx(64.0, rel=0.02)
    assert terms["rest of epochs"].seconds.p50 == pytest.approx(10 * 0.5)
    assert terms["evaluation"].seconds.p50 == pytest.approx(10 * 0.3)
    assert terms["checkpoints"].seconds.p50 == pytest.approx(10 * 0.25)
    assert terms["after the last epoch"].seconds.p50 == pytest.approx(0.7)
    assert terms["start-up"].seconds.p50 == pytest.approx(4.0)
    assert terms["first steps"].seconds.p50 == pytest.approx(1.5)


def test_a_question_may_ask_for_other_cadences() -> None:
    model = model_of()
    terms = {t.name: t for t in model.predict(epochs=10, eval_every=5, save_every=0).terms}
    assert terms["evaluation"].count == 2
    assert "checkpoints" not in terms


def test_what_comes_every_so_many_steps_comes_more_often_in_small_batches() -> None:
    model = model_of(evaluate_every=0, evaluate_each=20)
    counts = {
        b: {t.name: t.count for t in model.predict(epochs=10, batch_size=b).terms}["evaluation"]
        for b in (16, 64)
    }
    assert counts == {16: 10 * 400 // 20, 64: 10 * 100 // 20}


@pytest.mark.parametrize("costs", [{}, {"save_every": 2, "epochs": 4}, {"save_every": 0}])
def test_a_plan_costs_what_is_predicted_and_saves_as_the_script_does(
    costs: dict[str, float],
) -> None:
    model = model_of(**costs)
    found = plan(model, epochs=10)
    every = int(costs.get("save_every", 1))
    assert len(found.epochs_of("save")) == (10 // every if every else 0)
    assert len(found.epochs_of("evaluate")) == 10
    predicted = model.predict(epochs=10, batch_size=found.chosen.config.batch_size)
    assert found.chosen.seconds.p50 == pytest.approx(predicted.total_seconds.p50, rel=0.01)


def test_several_evaluations_of_an_epoch_are_one_of_a_plan_at_their_price() -> None:
    model = model_of(evaluate_every=0, evaluate_each=20)
    found = plan(model, epochs=10, batch_sizes=16)
    predicted = model.predict(epochs=10, batch_size=16)
    assert found.chosen.seconds.p50 == pytest.approx(predicted.total_seconds.p50, rel=0.01)


def test_a_plan_accumulates_as_the_script_does() -> None:
    found = plan(model_of(), epochs=10)
    assert {option.config.accumulation for option in found.options} == {1}


def test_how_often_is_told_by_epochs_and_by_steps() -> None:
    assert Frequency(per_epoch=1.0, per_step=0.01).times(200) == pytest.approx(3.0)
    assert Frequency().times(10**6) == 0.0


def test_a_short_trial_that_saw_no_evaluation_does_not_unsay_what_a_longer_one_saw() -> None:
    longer = measured(Training(evaluate_every=0, evaluate_each=100, save_every=3, miniature=96))
    shorter = measured(
        Training(evaluate_every=0, evaluate_each=100, save_every=3, miniature=24), round_=1
    )
    late = replace(shorter, created_at="2026-01-02T00:00:00+00:00", config=longer.config)
    assert {w.code for w in shorter.warnings} == {"no-evaluation-seen"}
    prediction = fit([longer, late]).predict(epochs=10)
    counts = {t.name: t.count for t in prediction.terms}
    assert counts["evaluation"] == 10 * 400 // 100
    assert "no-evaluation-seen" not in {w.code for w in prediction.warnings}
