"""What is told of a run, and that nobody who listens can end it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rehearsal import Listener, make_plan, new_state

from epochcast.guard.controller import Controller, Moment, Policy
from epochcast.guard.events import EventBus, epoch_done, run_outcome, run_started
from epochcast.guard.limits import Account, Allocation
from epochcast.records import Notice, Position, Quantiles, StopReason

PLAN = make_plan(deadline=None, money=5.0, price_per_hour=36.0)  # a cent a second
ACCOUNT = Account(plan=PLAN, allocation=Allocation(), run_began=0.0, process_began=0.0)
NEW = new_state(PLAN)
CONTROLLER = Controller.of_plan(PLAN, Policy())
NOW = Moment(now=150.0, left=350.0, first_bound=5.0, step_bound=5.0)
BEGUN = run_started(PLAN, NEW, Position(epoch=1), spent=20.0, wall_time=7.0)


class Broken(Listener):
    def see(self, event: object) -> None:
        raise OSError("no space left on device")


def test_a_watcher_that_fails_is_left_out_and_the_others_are_told() -> None:
    listener = Listener()
    bus = EventBus([Broken(), listener])
    bus.send(BEGUN)
    bus.send(BEGUN)
    assert listener.notes() == ["watcher-failed"]
    failed = next(event for event in listener.events if isinstance(event, Notice))
    assert (failed.wall_time, failed.position) == (7.0, Position(epoch=1))
    assert listener.events.count(BEGUN) == 2


def done(reason: StopReason | None = None):
    state = NEW.begin_epoch(0.0, Quantiles.exactly(50.0)).report({"val_loss": 0.5})
    state = state.end_epoch(52.0, 10).stopped(reason)
    controller = Controller.of_plan(PLAN, Policy(keep_best=False))
    return epoch_done(
        controller,
        state,
        NOW,
        ACCOUNT,
        position=Position(epoch=1, steps=10),
        seconds=52.0,
        wall_time=9.0,
    )


def test_all_events_are_kept_for_a_summary() -> None:
    bus, events = EventBus([]), (BEGUN, done(), done(StopReason.BUDGET))
    for event in events:
        bus.send(event)
    assert bus.sent == events


@pytest.mark.parametrize("folds", [1, 3])
def test_a_start_says_when_limits_are_used_up_with_what_does_not_grow_with_time(folds) -> None:
    plan = make_plan(
        deadline=900.0,
        money=5.0,
        price_per_hour=36.0,
        fixed_cost=2.0,
        energy=9e5,
        watts=100.0,
        watts_spread=0.5,
        spent_seconds=60.0,
        confidence=0.9,
    )
    plan = replace(plan, folds=folds)
    event = run_started(plan, NEW, Position(), spent=0.0, wall_time=0.0)
    binding, limits = dict(event.binding_seconds), dict(event.limits)
    assert limits == {
        n: pytest.approx(x / folds)
        for n, x in (("deadline", 900.0), ("money", 5.0), ("energy", 9e5))
    }
    account = Account(plan=plan, allocation=Allocation(), run_began=0.0, process_began=0.0)
    assert binding["deadline"] == pytest.approx((900 - 60) / folds)
    assert binding["money"] == pytest.approx(((5 - 2) / 0.01 - 60) / folds)  # a cent a second
    assert account.money(binding["money"]) == pytest.approx(limits["money"])
    assert account.joules(binding["energy"]) * 1.6408 == pytest.approx(limits["energy"], rel=1e-4)


def test_an_epoch_says_what_is_spent_and_what_is_to_come() -> None:
    event = done()
    assert (event.spent_seconds, event.spent_money) == (150.0, pytest.approx(1.5))
    saves = 5 * 2.0
    assert event.projected_seconds.p50 == pytest.approx(150 + 9 * 50 + saves)
    assert event.projected_money == pytest.approx(event.projected_seconds.p50 / 100)
    assert (event.first, event.best, event.values) == (True, True, (("val_loss", 0.5),))


def test_after_the_last_epoch_nothing_is_to_come() -> None:
    assert done(StopReason.BUDGET).projected_seconds == Quantiles.exactly(150.0)


def test_an_outcome_is_the_plan_beside_what_it_took() -> None:
    state = NEW.begin_epoch(0.0, Quantiles.exactly(50.0)).end_epoch(52.0, 10).saved(52.0, 54.0, 1)
    outcome = run_outcome(CONTROLLER, state, Position(epoch=1, steps=10), finished_at=1e9)
    assert outcome is not None
    assert outcome.total_predicted is not None
    assert outcome.total_predicted.p50 == pytest.approx(50 + 2)
    cut = run_outcome(CONTROLLER, state, Position(epoch=1, step=3, steps=13), finished_at=1e9)
    assert cut is not None
    assert cut.total_predicted is None  # nothing to compare it with
    second = replace(state, ledger=replace(state.ledger, processes=2))
    resumed = run_outcome(CONTROLLER, second, Position(epoch=1, steps=10), finished_at=1e9)
    assert resumed is not None
    assert resumed.total_predicted is None
    assert run_outcome(CONTROLLER, NEW, Position(), finished_at=1e9) is None
