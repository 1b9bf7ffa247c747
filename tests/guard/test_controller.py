"""Go on, cut or stop, where to end, when to save: pure functions, by hand."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rehearsal import about, make_plan, new_state

from epochcast.guard.controller import (
    LEAVE_SECONDS,
    Controller,
    Decision,
    Moment,
    Policy,
    Schedule,
    last_that_fits,
    moved_end,
)
from epochcast.guard.run_state import Epoch, RunState
from epochcast.planning.cadence import final_save_lead
from epochcast.records import Plan, StopReason, StopRule

PATIENCE = StopRule(kind="patience", settings=(("checks", 2.0), ("min_delta", 0.0)))


def begun(plan: Plan, done: int = 0, **fields: object) -> RunState:
    """A run that has done whole epochs of ten steps, not saved for half a second."""
    state = new_state(
        plan,
        done=done,
        steps_before=10 * done,
        first=False,
        saved_at=99.5,
        has_checkpoint=True,
        epoch=Epoch(began=0.0, first=False),
    )
    return replace(state, **fields)  # type: ignore[arg-type]


def controller(plan: Plan, **policy: bool) -> Controller:
    return Controller.of_plan(plan, Policy(**policy))


def codes(decision: Decision) -> list[str]:
    return [notice.code for notice in decision.notices]


PLAN = make_plan(epochs=10, evaluation=about(4.0, 0.1), evaluate_every=2, save_every=5)
HERE = begun(PLAN, done=4)
NOW = Moment(now=100.0, left=1000.0, first_bound=5.5, step_bound=5.5)
DECIDES = controller(PLAN, keep_best=False)
RESERVE = DECIDES.reserve(HERE, NOW)


def after(left: float, state: RunState = HERE, **policy: bool) -> str:
    """What comes next: an epoch, some steps of one, or why not."""
    decides = replace(DECIDES, policy=replace(DECIDES.policy, **policy))  # type: ignore[arg-type]
    _, decision = decides.next_epoch(state, replace(NOW, left=left))
    if decision.reason is not None:
        return decision.reason.value
    return "steps" if codes(decision) == ["cut"] else "epoch"


def test_the_segment_has_the_evaluation_that_is_planned() -> None:
    assert DECIDES.segment(HERE).evaluations == 0
    assert DECIDES.segment(replace(HERE, done=5)).evaluations == 1
    rest = DECIDES.rest(HERE, 10)
    assert (rest.epochs, rest.evaluations, rest.saves) == (6, 3, 2)
    assert DECIDES.rest(HERE, 4).epochs == 0


def test_each_best_that_is_to_come_has_a_save_of_its_own() -> None:
    """Laplace: one of the three checks so far was the best, so 2/5 of those to come will be."""
    seen = replace(HERE, metrics=replace(HERE.metrics, improvements=1, checks=3))
    rest = controller(PLAN).rest(seen, 10)
    assert rest.saves == pytest.approx(2 + 2 / 5 * (3 - 2))


def test_it_goes_on_where_the_segment_fits_with_the_confidence() -> None:
    needed = HERE.forecast.seconds(DECIDES.segment(HERE), 0.9) + RESERVE
    assert after(needed + 0.01) == "epoch"
    assert after(needed - 0.01) == "steps"
    assert after(needed - 0.01, partial_epochs=False) == "budget"
    assert after(RESERVE + 5.4) == "budget"
    assert after(RESERVE + 5.6) == "steps"


def test_the_time_for_leaving_is_reserved() -> None:
    """A save of exactly 2 s that is always on time, and nothing at risk: 2 s, and the leaving."""
    plan = make_plan(save=about(2.0), epoch_noise=0.0)
    state = begun(plan, saved_at=NOW.now)
    save = state.forecast.save.quantile(1, 0.95)
    assert LEAVE_SECONDS > 0
    assert controller(plan).reserve(state, NOW) == pytest.approx(save + LEAVE_SECONDS, abs=1e-9)
    last = controller(plan).last_save_at(state, NOW)
    assert last == pytest.approx(NOW.now + NOW.left - save - LEAVE_SECONDS, abs=1e-9)


def test_more_at_risk_is_saved_earlier() -> None:
    unsure = make_plan(save=about(2.0, 0.5))
    soon, late = (begun(unsure, saved_at=saved) for saved in (NOW.now, NOW.now - 5000))
    assert controller(unsure).reserve(late, NOW) > controller(unsure).reserve(soon, NOW)


def test_no_less_is_reserved_than_pays_for_what_is_at_risk() -> None:
    """With twice as much at risk the best lead is another; what lies between has the longer one."""
    unsure = make_plan(save=about(2.0, 0.5))

    def reserved(at_risk: float) -> float:
        return controller(unsure).reserve(begun(unsure, saved_at=NOW.now - at_risk), NOW)

    save = begun(unsure).forecast.save
    half, whole = (final_save_lead(s, lambda p: save.quantile(1, p)) for s in (1024.0, 2048.0))
    assert half < whole
    assert reserved(1100.0) == reserved(2048.0) == pytest.approx(whole + LEAVE_SECONDS)


def test_it_ends_with_the_plan_and_with_a_signal() -> None:
    assert after(1000.0, replace(HERE, done=10)) == "plan-done"
    _, decision = DECIDES.next_epoch(HERE, replace(NOW, signalled=True))
    assert decision.reason is StopReason.SIGNAL


def test_a_shorter_end_that_is_reached_with_time_to_spare_moves() -> None:
    short = replace(HERE, end=4)
    for left, move, end in ((1000.0, (), 10), (130.0, (), 6), (40.0, ("cut",), 5)):
        state, decision = DECIDES.next_epoch(short, replace(NOW, left=left))
        assert (tuple(codes(decision)), state.end) == (move, end)


@given(st.floats(0, 2000), st.floats(0, 1000), st.booleans())
def test_more_time_never_means_less_training(left: float, more: float, partial: bool) -> None:
    order = ("budget", "steps", "epoch")
    less, later = (after(seconds, partial_epochs=partial) for seconds in (left, left + more))
    assert order.index(less) <= order.index(later)


def test_the_first_step_of_an_epoch_may_take_longer() -> None:
    slow = replace(NOW, first_bound=30.0, step_bound=0.5)

    def fit(room: float) -> int:
        return DECIDES.steps_that_fit(HERE, replace(slow, left=RESERVE + room))

    assert [fit(29.5), fit(30.1), fit(32.1)] == [0, 1, 5]


def test_without_any_limit_all_steps_fit() -> None:
    assert DECIDES.steps_that_fit(HERE, replace(NOW, left=float("inf"))) > 10**8


@pytest.mark.parametrize(
    ("reason", "stays"),
    [(None, False), ("signal", False), ("plan-done", False), ("budget", False), ("patience", True)],
)
def test_what_a_run_ended_for_may_not_hold_any_more(reason: str | None, stays: bool) -> None:
    """With epochs and time left, only what the metric said stays said."""
    known = None if reason is None else StopReason(reason)
    ended = replace(HERE, ledger=replace(HERE.ledger, reason=known))
    assert (DECIDES.over_already(ended, NOW) is not None) == stays


def test_a_run_without_epochs_or_time_left_stays_ended() -> None:
    done = replace(HERE, done=10, ledger=replace(HERE.ledger, reason=StopReason.PLAN_DONE))
    assert DECIDES.over_already(done, NOW) is StopReason.PLAN_DONE
    spent = replace(HERE, ledger=replace(HERE.ledger, reason=StopReason.BUDGET))
    assert DECIDES.over_already(spent, replace(NOW, left=1.0)) is StopReason.BUDGET


# ── evaluations ──────────────────────────────────────────────────────────────────────────────


def test_an_evaluation_is_made_where_it_is_planned_and_fits() -> None:
    at_sixth = replace(HERE, done=5)
    assert DECIDES.evaluation(at_sixth, NOW, planned=True) == Decision(evaluate=True)
    assert DECIDES.evaluation(HERE, NOW, planned=True) == Decision()
    assert DECIDES.evaluation(HERE, NOW, planned=False).evaluate
    bound = HERE.forecast.evaluation.quantile(1, 0.95) + RESERVE
    assert DECIDES.evaluation(at_sixth, replace(NOW, left=bound + 0.01), planned=True).evaluate
    skipped = DECIDES.evaluation(at_sixth, replace(NOW, left=bound - 0.01), planned=True)
    assert (skipped.evaluate, codes(skipped)) == (False, ["evaluation-skipped"])


# ── the end of an epoch ──────────────────────────────────────────────────────────────────────


def test_an_epoch_that_goes_as_planned_changes_nothing_but_the_count() -> None:
    state = replace(HERE, epoch=Epoch(began=50.0, first=False))
    ended, decision = DECIDES.end_epoch(state, NOW, step=10)
    assert decision == Decision(save=True)  # the fifth: as planned
    assert (ended.done, ended.steps_before, ended.end) == (5, 50, 10)
    assert ended.ledger.samples.epoch == (50.0,)


def test_the_last_epoch_ends_the_run_whatever_time_is_left() -> None:
    state = replace(HERE, done=9, epoch=Epoch(began=50.0, first=False))
    assert DECIDES.end_epoch(state, NOW, step=10)[1].reason is StopReason.PLAN_DONE
    signalled = replace(NOW, signalled=True)
    assert DECIDES.end_epoch(state, signalled, step=10)[1].reason is StopReason.SIGNAL


def test_a_rule_that_fires_at_the_last_check_is_the_reason() -> None:
    """Not the end of the plan: the live decision is that of a replay, which names the rule."""
    plan = make_plan(epochs=3, rules=(PATIENCE,))
    state = begun(plan, done=2, verdict=StopReason.PATIENCE)
    _, decision = controller(plan).end_epoch(state, NOW, step=10)
    assert decision.reason is StopReason.PATIENCE


def test_the_first_steps_of_a_process_are_expected_once() -> None:
    plan = make_plan(first=about(600.0), evaluate_every=0)
    state = begun(plan, first=True, epoch=Epoch(began=0.0))
    decides = controller(plan, keep_best=False)
    assert decides.segment(state).first
    assert decides.rest(state, 10).first
    ended, _ = decides.end_epoch(state, NOW, step=10)
    assert not decides.segment(ended).first
    assert ended.ledger.samples.first_epoch == (100.0,)
    assert ended.forecast.epoch == state.forecast.epoch


def test_a_jump_is_told_and_planned_for_at_once() -> None:
    slow = HERE
    for seconds in (50.0, 50.0, 150.0):
        slow = slow.learn("epoch", seconds)
    state = replace(slow, epoch=Epoch(began=-50.0, first=False))
    ended, decision = DECIDES.end_epoch(state, replace(NOW, left=400.0), step=10)
    assert codes(decision) == ["drift", "replanned", "schedule-shortened"]
    assert ended.end == 7


def test_a_best_value_is_saved_where_that_is_wanted() -> None:
    state = replace(HERE, done=5, improved=True, epoch=Epoch(began=50.0, first=False))
    assert not DECIDES.end_epoch(state, NOW, step=10)[1].save
    assert controller(PLAN).end_epoch(state, NOW, step=10)[1].save


def test_other_steps_than_planned_are_told_of_once() -> None:
    state = replace(HERE, epoch=Epoch(began=50.0, first=False))
    ended, decision = DECIDES.end_epoch(state, NOW, step=7)
    assert codes(decision) == ["steps-differ"]
    assert codes(DECIDES.end_epoch(ended, NOW, step=7)[1]) == []
    went_on = replace(state, epoch=replace(state.epoch, skipped=3))
    assert codes(DECIDES.end_epoch(went_on, NOW, step=7)[1]) == []


def test_rules_without_the_metric_are_an_error_until_it_was_seen_once() -> None:
    plan = make_plan(rules=(PATIENCE,))
    decides, state = controller(plan), begun(plan, done=1, epoch=Epoch(began=50.0, first=False))
    ended, silent = decides.end_epoch(state, NOW, step=10)
    assert (codes(silent), silent.error) == (["not-evaluated"], None)
    assert codes(decides.end_epoch(ended, NOW, step=10)[1]) == []  # said once
    _, decision = decides.end_epoch(state.report({"accuracy": 0.5}), NOW, step=10)
    assert codes(decision) == ["no-report"]
    assert decision.error == "the plan's stop rules watch val_loss, but only accuracy was reported"
    known = replace(state, metrics=replace(state.metrics, checks=1))
    assert decides.end_epoch(known.report({"accuracy": 0.5}), NOW, step=10)[1].error is None


def test_after_the_plan_more_is_offered_only_where_it_was_wanted_and_fits() -> None:
    wants = controller(make_plan(epochs=5, target=20))
    done = begun(wants.plan, done=5)
    assert codes(wants.more(done, NOW)) == ["could-continue"]
    assert codes(wants.more(done, replace(NOW, left=20.0))) == []
    assert codes(controller(make_plan(epochs=5)).more(done, NOW)) == []


# ── where it evaluates, saves and ends ───────────────────────────────────────────────────────


def schedule(**plan: object) -> Schedule:
    return Schedule.of_plan(make_plan(**plan))  # type: ignore[arg-type]


def saves(found: Schedule, epoch: int, since: float, seconds: float, pace: float, interval: float):
    return found.saves_at(
        epoch, since_save=since, epoch_seconds=seconds, pace=pace, interval=interval
    )


def chance(fits: int):
    """Certain up to an epoch, impossible beyond."""
    return lambda end: 1.0 if end <= fits else 0.0


def test_it_begins_as_the_plan() -> None:
    plan = make_plan(epochs=10, evaluate_every=3, save_every=4)
    found = Schedule.of_plan(plan)
    epochs = range(1, 11)
    assert tuple(e for e in epochs if found.evaluates(e, 10)) == tuple(plan.epochs_of("evaluate"))
    assert tuple(e for e in epochs if saves(found, e, 0, 1, 1, 1)) == tuple(plan.epochs_of("save"))
    assert found.evaluations_between(0, 10) == len(plan.epochs_of("evaluate"))
    assert found.saves_between(0, 10) == len(plan.epochs_of("save"))


@given(st.integers(1, 60), st.integers(0, 9), st.integers(1, 9), st.integers(1, 60))
def test_what_is_planned_is_counted_as_if_it_were_listed(
    last: int, evaluate_every: int, save_every: int, end: int
) -> None:
    found, end = (
        schedule(epochs=last, evaluate_every=evaluate_every, save_every=save_every),
        min(end, last),
    )
    listed = {e for e in range(1, last + 1) if evaluate_every and e % evaluate_every == 0}
    due = listed | ({last, end} if evaluate_every else set())
    assert {e for e in range(1, end + 1) if found.evaluates(e, end)} == {e for e in due if e <= end}
    for done in range(end):
        assert found.evaluations_between(done, end) == sum(done < e <= end for e in due)


def test_a_shorter_end_is_evaluated_and_saved() -> None:
    short = schedule(epochs=10, evaluate_every=3, save_every=4)
    assert moved_end(0, 10, 10, chance(7), 0.9, False) == 7
    assert short.evaluates(7, 7)
    assert not short.evaluates(7, 10)
    assert short.evaluations_between(0, 7) == 3  # 3, 6 and the end
    assert short.saves_between(4, 7) == 1
    assert DECIDES.saves(replace(HERE, end=7), NOW, 7)
    assert not DECIDES.saves(HERE, NOW, 7)


def test_the_end_stays_while_the_probability_is_in_the_band() -> None:
    assert moved_end(2, 10, 10, lambda end: 0.86, 0.9, False) == 10
    assert moved_end(2, 10, 10, lambda end: 0.86, 0.9, True) < 10  # after a jump: at once
    assert moved_end(2, 10, 10, lambda end: 0.84, 0.9, False) < 10


def test_the_end_comes_back_only_for_a_clear_gain_and_never_beyond_the_plan() -> None:
    assert moved_end(0, 100, 100, chance(50), 0.9, False) == 50
    assert moved_end(10, 50, 100, chance(53), 0.9, False) == 50
    assert moved_end(10, 50, 100, chance(60), 0.9, False) == 60
    assert moved_end(10, 50, 100, chance(1000), 0.9, False) == 100


def test_saves_keep_their_seconds_when_epochs_get_slow() -> None:
    plan = schedule(epochs=100, save_every=10, save_interval=500.0)
    assert not saves(plan, 5, 480, 50, 1.1, 500)  # about as planned: the plan's epochs
    assert saves(plan, 10, 480, 50, 1.1, 500)
    assert saves(plan, 5, 480, 150, 3.0, 500)  # three times slower: the plan's seconds
    assert not saves(plan, 10, 100, 150, 3.0, 500)


def test_a_save_is_after_the_epoch_whose_end_is_nearest_to_the_interval() -> None:
    """Of epochs of 150 s: 430 s is nearer to 500 s than 580 s is, and 420 s is not."""
    plan = schedule(epochs=100, save_every=10, save_interval=500.0)
    assert saves(plan, 5, 430, 150, 3.0, 500)
    assert not saves(plan, 5, 420, 150, 3.0, 500)


def test_saves_that_cost_more_than_planned_are_fewer() -> None:
    plan = schedule(epochs=100, save_every=10, save_interval=500.0)
    assert not saves(plan, 10, 500, 50, 1.0, 2000)
    assert saves(plan, 40, 1990, 50, 1.0, 2000)
    asked_for = schedule(epochs=100, save_every=10)
    assert saves(asked_for, 10, 500, 50, 1.0, 2000)  # at the epochs that the user gave


@given(st.integers(0, 60), st.integers(1, 60), st.integers(0, 80))
def test_the_last_that_fits_is_found(fits: int, more: int, truth: int) -> None:
    found = last_that_fits(fits, fits + more, chance(truth), 0.9)
    assert found == min(max(truth, fits), fits + more)
