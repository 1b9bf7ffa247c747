"""One immutable state of a run: what happens makes the next one, and its parts add up."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rehearsal import make_plan, new_state

from epochcast.guard.run_state import KEPT_SAMPLES, CheckpointState, Ledger, Samples
from epochcast.records import Position, Quantiles, StopReason, StopRule, from_json, to_json

PLAN = make_plan()
NEW = new_state(PLAN)
PREDICTED = Quantiles.exactly(50.0)
PATIENCE = StopRule(kind="patience", settings=(("checks", 2.0), ("min_delta", 0.0)))


@given(st.floats(0, 100), st.floats(0, 100), st.floats(0, 100))
def test_training_is_what_neither_evaluates_nor_saves(
    steps: float, evaluating: float, saving: float
) -> None:
    state = NEW.begin_epoch(10.0, PREDICTED)
    state = state.evaluate_since(10 + steps).end_evaluation(10 + steps + evaluating, aside=True)
    now = 10 + steps + evaluating
    state = state.saved(now, now + saving, 1)
    assert state.epoch.training(now + saving) == pytest.approx(steps, abs=1e-9)
    assert state.epoch.evaluation == pytest.approx(evaluating, abs=1e-9)
    assert state.epoch.save == pytest.approx(saving, abs=1e-9)


def test_an_evaluation_within_an_epoch_is_part_of_it() -> None:
    state = NEW.begin_epoch(0.0, PREDICTED).evaluate_since(5.0).end_evaluation(8.0, aside=False)
    assert (state.epoch.training(20.0), state.epoch.evaluation) == (20.0, None)
    assert state.end_evaluation(30.0, aside=True) is state  # none goes on


def test_only_whole_steady_epochs_teach_the_forecast() -> None:
    first = NEW.begin_epoch(0.0, PREDICTED).end_epoch(600.0, 10)
    second = first.begin_epoch(600.0, PREDICTED)
    assert (first.ledger.samples.first_epoch, first.forecast) == ((600.0,), NEW.forecast)
    assert (first.first, second.epoch.first) == (False, False)
    resumed = second.skip(600.0, 4).end_epoch(630.0, 10)
    assert resumed.forecast == NEW.forecast
    assert resumed.epoch_steps == 10  # of the first one; a part of an epoch says nothing
    steady = second.end_epoch(655.0, 10)
    assert steady.ledger.samples.epoch == (55.0,)
    assert steady.forecast.epoch.ratio > 1


def test_positions_count_whole_epochs_and_steps() -> None:
    state = NEW.begin_epoch(0.0, PREDICTED).end_epoch(50.0, 10).begin_epoch(50.0, PREDICTED)
    assert state.position(3) == Position(epoch=1, step=3, steps=13)


def test_within_an_epoch_a_checkpoint_has_the_rules_of_its_beginning() -> None:
    """Where the run goes on from it, the epoch's check is made again."""
    state = new_state(make_plan(rules=(PATIENCE,))).begin_epoch(0.0, PREDICTED)
    checked = state.report({"val_loss": 1.0})
    assert checked.checkpoint(step=10).metrics.rule_states == ((),)
    assert checked.checkpoint(step=0).metrics.rule_states == ((1.0, 0.0),)
    assert checked.checkpoint(step=10).is_best
    assert not checked.saved(1.0, 2.0, 1).checkpoint(step=10).is_best


def test_a_verdict_stays_and_other_values_give_none() -> None:
    state = new_state(make_plan(rules=(PATIENCE,))).begin_epoch(0.0, PREDICTED)
    state = state.report({"accuracy": 0.5})
    assert (state.verdict, state.metrics.checks) == (None, 0)
    for loss in (1.0, 2.0, 3.0, 0.5):
        state = state.report({"val_loss": loss})
    assert (state.verdict, state.improved) == (StopReason.PATIENCE, True)
    assert state.epoch.values == {"accuracy": 0.5, "val_loss": 0.5}


def test_what_is_noted_is_read_again() -> None:
    noted = NEW.stopped(StopReason.BUDGET).note(spent=123.0, step=4)
    ledger = noted.ledger
    assert (ledger.spent_seconds, ledger.steps, ledger.reason) == (123.0, 4, StopReason.BUDGET)
    assert from_json(to_json(ledger), Ledger) == ledger
    kept = noted.checkpoint(step=4)
    assert from_json(to_json(kept), CheckpointState) == kept


def test_the_latest_samples_are_kept() -> None:
    samples = Samples(save=tuple(float(i) for i in range(KEPT_SAMPLES))).add("save", 0.5)
    assert (len(samples.save), samples.save[0], samples.save[-1]) == (KEPT_SAMPLES, 1.0, 0.5)


@pytest.mark.parametrize(
    ("reason", "with_epochs", "with_time"),
    [
        (None, False, False),
        (StopReason.SIGNAL, False, False),
        (StopReason.PLAN_DONE, False, True),
        (StopReason.BUDGET, True, False),
        (StopReason.PATIENCE, True, True),
    ],
)
def test_a_run_is_over_for_good_unless_more_is_left(
    reason: StopReason | None, with_epochs: bool, with_time: bool
) -> None:
    """Each reason, with epochs left but no time, and with time left but no epochs."""
    ended = replace(NEW.ledger, reason=reason)
    assert ended.is_over(epochs_left=True, time_left=False) == with_epochs
    assert ended.is_over(epochs_left=False, time_left=True) == with_time
