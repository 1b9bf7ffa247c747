"""The plan's metric: which check stops the run, which is the best, and what a plan takes over."""

from __future__ import annotations

from dataclasses import replace
from math import nan

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rehearsal import make_plan

from epochcast.guard.metrics import MetricState
from epochcast.records import StopReason, StopRule

PATIENCE = StopRule(kind="patience", settings=(("checks", 2.0), ("min_delta", 0.0)))
PLAN = make_plan(rules=(PATIENCE,))


def checked(state: MetricState, *values: float) -> tuple[MetricState, StopReason | None]:
    """After a check of each value, one an epoch; why the last one stops the run."""
    reason = None
    for epoch, value in enumerate(values, start=1):
        state, reason, _ = state.check(epoch, {state.metric: value})
    return state, reason


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=9), st.sampled_from(["min", "max"]))
def test_the_best_value_is_the_first_of_its_kind(values: list[float], mode: str) -> None:
    state, _ = checked(MetricState().followed_by(replace(make_plan(), mode=mode)), *values)
    best = min(values) if mode == "min" else max(values)
    assert (state.best_value, state.best_epoch) == (best, values.index(best) + 1)
    assert state.checks == len(values)


def test_a_rule_stops_at_its_check_and_not_before() -> None:
    state = MetricState().followed_by(PLAN)
    assert checked(state, 1.0, 1.1)[1] is None
    assert checked(state, 1.0, 1.1, 1.2)[1] is StopReason.PATIENCE


def test_a_value_that_is_not_finite_is_never_the_best() -> None:
    state, reason, best = MetricState().followed_by(PLAN).check(1, {"val_loss": nan})
    assert (reason, best, state.best_value) == (StopReason.NON_FINITE, False, None)


@pytest.mark.parametrize("name", ["train_loss", "train/loss", "loss"])
def test_training_values_are_found_under_their_customary_names(name: str) -> None:
    """The quotient needs them: it would raise without."""
    rule = StopRule(kind="pq", settings=(("quotient", 1.0), ("strip", 1.0)))
    state = MetricState().followed_by(make_plan(rules=(rule,)))
    assert state.check(1, {"val_loss": 1.0, name: 0.5})[1] is None


def test_what_was_seen_counts_for_the_same_metric_and_rules_alone() -> None:
    seen, _ = checked(MetricState().followed_by(PLAN), 1.0, 1.1)
    assert seen.followed_by(PLAN) == seen
    other_rules = seen.followed_by(make_plan(rules=(replace(PATIENCE, mode="max"),)))
    assert (other_rules.best_value, other_rules.rule_states) == (1.0, ((),))
    other_metric = seen.followed_by(replace(PLAN, metric="val_acc", mode="max"))
    assert other_metric == MetricState().followed_by(replace(PLAN, metric="val_acc", mode="max"))


def test_the_share_of_improvements_to_come_is_laplaces() -> None:
    assert MetricState().improving == 1 / 2
    assert MetricState(improvements=3, checks=8).improving == 4 / 10


def test_no_rule_stops_a_run_before_its_fewest_epochs() -> None:
    rules = (
        replace(PATIENCE, settings=(("checks", 3.0), ("min_delta", 0.0))),
        StopRule(kind="target", settings=(("value", 2.0),)),
        StopRule(kind="divergence", settings=(("value", 0.5),)),
    )
    for rule in rules:
        plan = replace(make_plan(epochs=20, rules=(rule,)), min_epochs=12)
        state = MetricState().followed_by(plan)
        assert checked(state, *[1.0] * 11)[1] is None
        assert checked(state, *[1.0] * 12)[1] is not None
    nothing_helps = checked(MetricState().followed_by(plan), 1.0, nan)
    assert nothing_helps[1] is StopReason.NON_FINITE


def test_fewest_epochs_are_those_of_the_batch_that_runs() -> None:
    plan = replace(make_plan(epochs=20), min_epochs=6)
    half = replace(plan, options=(replace(plan.chosen, efficiency=0.5),))
    assert (plan.least_epochs, half.least_epochs) == (6, 12)
    assert replace(plan, min_epochs=30).least_epochs == 20
