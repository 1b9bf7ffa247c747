"""A guard follows runs on a fake clock: inside every limit, with a checkpoint, and as replayed."""

from __future__ import annotations

import signal
from dataclasses import replace
from itertools import chain, cycle, repeat
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rehearsal import FakeClock, Listener, Rehearsal, about, make_plan

import epochcast as ec
from epochcast.errors import StoreError, UsageError
from epochcast.guard.controller import Policy
from epochcast.guard.limits import Allocation
from epochcast.guard.ranks import Signals
from epochcast.planning.stopping import Patience, rule_record
from epochcast.records import EpochDone, LearningCurve, RunEnded, StopReason, StopRule

BEGIN = FakeClock().now


def used(run: Rehearsal) -> float:
    return run.clock.now - BEGIN


def epochs(run: Rehearsal) -> list[EpochDone]:
    return [e for e in run.listener.events if isinstance(e, EpochDone)]


def test_a_run_that_goes_as_planned_ends_as_planned(tmp_path: Path) -> None:
    run = Rehearsal(make_plan(epochs=10), tmp_path)
    assert run.run() is StopReason.PLAN_DONE
    assert run.guard.position.epoch == 10
    assert run.listener.notes() == []
    assert all(e.pace == 1 for e in epochs(run))
    assert isinstance(run.listener.events[-1], RunEnded)


def test_the_steps_that_still_fit_are_taken_and_no_more(tmp_path: Path) -> None:
    """303 s: five epochs of 50 s, saves of 2 s, then as many steps of 5 s as leave room to save."""
    plan = make_plan(deadline=303.0, epoch=about(50.0), save=about(2.0))
    run = Rehearsal(plan, tmp_path)
    assert run.run() is StopReason.BUDGET
    saves = 1 + 1 + 2 + 1 + 1  # rehearsal, the best, epochs 2 and 4, the new end at 5, the last
    fit = int((303 - 5 * 50 - 2 * saves) / 5)
    assert (run.guard.position.epoch, run.guard.position.step) == (5, fit)
    assert used(run) == 5 * 50 + 2 * saves + 5 * fit
    assert "cut" in run.listener.notes()


def test_whole_epochs_only_where_asked(tmp_path: Path) -> None:
    settings = {"policy": Policy(partial_epochs=False)}
    run = Rehearsal(make_plan(deadline=300.0), tmp_path, settings=settings)
    assert run.run() is StopReason.BUDGET
    assert (run.guard.position.epoch, run.guard.position.step) == (5, 0)


def inside(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high)


@settings(max_examples=40, deadline=None)
@given(
    deadline=st.floats(20.0, 600.0),
    steps=st.lists(inside(4.5, 5.5), min_size=1, max_size=7),
    saves=st.lists(inside(1.8, 2.2), min_size=1, max_size=3),
    evaluations=st.lists(inside(3.6, 4.4), min_size=1, max_size=3),
    losses=st.lists(st.floats(0.1, 2.0), min_size=1, max_size=5),
    partial=st.booleans(),
)
def test_what_stays_inside_its_quantiles_never_exceeds_the_deadline(
    deadline: float, steps: list, saves: list, evaluations: list, losses: list, partial: bool
) -> None:
    plan = make_plan(
        epochs=12,
        deadline=deadline,
        epoch=about(50.0, 0.1),
        evaluation=about(4.0, 0.1),
        save=about(2.0, 0.1),
        evaluate_every=2,
        save_every=3,
    )
    with TemporaryDirectory() as folder:
        run = Rehearsal(
            plan,
            Path(folder),
            step_seconds=cycle(steps),
            save_seconds=cycle(saves),
            evaluation_seconds=cycle(evaluations),
            losses=cycle(losses),
            settings={"policy": Policy(partial_epochs=partial)},
        )
        reason = run.run()
        assert used(run) <= deadline
        assert reason in (StopReason.BUDGET, StopReason.PLAN_DONE)
        last = run.guard.checkpoints.last()
        assert last is not None or not run.guard.position.steps
        assert last is None or last[1].position == run.guard.position


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(0.1, 2.0), min_size=1, max_size=12),
    st.integers(1, 4),
    st.floats(0.0, 0.3),
    st.integers(1, 3),
)
def test_the_live_decision_is_that_of_the_replay(
    losses: list[float], patience: int, min_delta: float, every: int
) -> None:
    rule = Patience(checks=patience, min_delta=min_delta)
    plan = make_plan(
        epochs=len(losses) * every, deadline=None, evaluate_every=every, rules=(rule_record(rule),)
    )
    curve = LearningCurve(
        epochs=tuple(every * (i + 1) for i in range(len(losses))), validation=tuple(losses)
    )
    with TemporaryDirectory() as folder:
        run = Rehearsal(plan, Path(folder), losses=losses)
        reason = run.run()
        expected = ec.stopping_epoch(rule, curve)
        if expected is None:
            assert reason is StopReason.PLAN_DONE
        else:
            assert (reason, run.guard.position.epoch) == (StopReason.PATIENCE, expected)
        best = run.guard.checkpoints.best()
        assert best is not None
        assert best[1].metrics.best_value == min(losses[: run.guard.position.epoch // every])


def test_an_epoch_that_goes_from_390_to_890_to_1200_is_replanned_at_once(tmp_path: Path) -> None:
    steps = chain(repeat(39.0, 20), repeat(89.0, 10), repeat(120.0))
    plan = make_plan(epochs=20, deadline=9000.0, epoch=about(390.0, 0.02))
    run = Rehearsal(plan, tmp_path, step_seconds=steps)
    assert run.run() is StopReason.BUDGET
    third = epochs(run)[2]
    assert third.end_epochs < 20
    assert third.on_plan_probability < 0.6  # it may have been that epoch alone
    assert third.projected_seconds.p90 <= 9000
    assert epochs(run)[3].on_plan_probability < 0.05
    assert "drift" in run.listener.notes()
    assert used(run) <= 9000
    assert "schedule-shortened" in run.listener.notes()


def test_the_slow_first_epoch_of_a_process_teaches_nothing(tmp_path: Path) -> None:
    steps = chain(repeat(60.0, 10), repeat(5.0))  # twelve times slower, as on public A100 logs
    run = Rehearsal(make_plan(epochs=10, deadline=3000.0), tmp_path, step_seconds=steps)
    assert run.run() is StopReason.PLAN_DONE
    assert "drift" not in run.listener.notes()
    assert epochs(run)[0].pace == 1
    assert run.guard.outcome.first_epoch_seconds == (600,)
    assert run.guard.outcome.epoch_seconds == (50,) * 9


def stop_after(steps: int):
    """Killed: the loop is left without a word."""

    def each(run: Rehearsal) -> None:
        if run.guard.position.steps >= steps:
            raise KeyboardInterrupt

    return each


def test_a_killed_run_goes_on_from_its_last_save_and_its_time_stays_spent(tmp_path: Path) -> None:
    first = Rehearsal(make_plan(deadline=300.0), tmp_path, each_step=stop_after(47))
    with pytest.raises(KeyboardInterrupt):
        first.run()
    second = Rehearsal(make_plan(deadline=300.0), tmp_path, clock=first.clock)
    assert second.guard.position.epoch == 4  # saved there
    assert second.guard.account.spent_before == pytest.approx(used(first), abs=6)
    assert second.run() is StopReason.BUDGET
    assert used(second) <= 300
    assert second.guard.outcome.total_predicted is None


def test_patience_survives_a_kill(tmp_path: Path) -> None:
    rules = (StopRule(kind="patience", settings=(("checks", 4.0), ("min_delta", 0.0))),)
    plan = make_plan(epochs=12, rules=rules, save_every=1)
    losses = [1.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.4]
    first = Rehearsal(plan, tmp_path, losses=losses[:4], each_step=stop_after(42))
    with pytest.raises(KeyboardInterrupt):
        first.run()
    second = Rehearsal(plan, tmp_path, losses=losses[4:], clock=first.clock)
    assert second.run() is StopReason.PATIENCE
    assert second.guard.position.epoch == 6
    best = second.guard.checkpoints.best()
    assert best is not None
    assert best[1].metrics.best_epoch == 2


def test_a_finished_run_stays_finished(tmp_path: Path) -> None:
    plan = make_plan(epochs=3)
    assert Rehearsal(plan, tmp_path).run() is StopReason.PLAN_DONE
    again = Rehearsal(plan, tmp_path)
    assert again.run() is StopReason.PLAN_DONE
    assert again.guard.position.epoch == 3
    longer = Rehearsal(make_plan(epochs=5), tmp_path)  # another plan asks for more
    assert longer.run() is StopReason.PLAN_DONE
    assert longer.guard.position.epoch == 5


def test_a_run_out_of_budget_goes_on_with_a_larger_one(tmp_path: Path) -> None:
    first = Rehearsal(make_plan(deadline=150.0), tmp_path)
    assert first.run() is StopReason.BUDGET
    again = Rehearsal(make_plan(deadline=150.0), tmp_path, clock=first.clock)
    assert again.run() is StopReason.BUDGET
    assert again.guard.position == first.guard.position
    larger = Rehearsal(make_plan(deadline=1500.0), tmp_path, clock=first.clock)
    assert larger.run() is StopReason.PLAN_DONE


def test_another_workloads_folder_is_refused(tmp_path: Path) -> None:
    Rehearsal(make_plan(epochs=1), tmp_path).run()
    with pytest.raises(UsageError, match="holds a run of a-workload, but the plan is for another"):
        Rehearsal(make_plan(workload="another"), tmp_path)


def test_a_signal_saves_at_the_next_step_and_is_no_end(tmp_path: Path) -> None:
    signals = Signals(())

    def each(run: Rehearsal) -> None:
        if run.guard.position.steps == 24:
            signals.note(signal.SIGTERM)

    settings = {"signals": signals}
    first = Rehearsal(make_plan(), tmp_path, each_step=each, settings=settings)
    assert first.run() is StopReason.SIGNAL
    assert first.guard.position.steps == 25
    second = Rehearsal(make_plan(), tmp_path, clock=first.clock)
    assert second.guard.resumed_step == 5
    assert second.run() is StopReason.PLAN_DONE


def test_the_allocations_end_is_kept(tmp_path: Path) -> None:
    clock = FakeClock()
    allocation = Allocation(end=clock.wall() + 120)
    settings = {"allocation": allocation}
    run = Rehearsal(make_plan(deadline=None), tmp_path, clock=clock, settings=settings)
    assert run.run() is StopReason.BUDGET
    assert 110 < used(run) <= 120


def test_a_value_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    run = Rehearsal(make_plan(), tmp_path, losses=[1.0, 0.5, float("nan")])
    assert run.run() is StopReason.NON_FINITE
    best = run.guard.checkpoints.best()
    assert best is not None
    assert best[1].metrics.best_value == 0.5


def test_a_larger_metric_can_be_the_better_one(tmp_path: Path) -> None:
    plan = replace(make_plan(epochs=4), mode="max")
    run = Rehearsal(plan, tmp_path, losses=[0.1, 0.7, 0.3, 0.2])
    run.run()
    assert run.guard.state.metrics.best_epoch == 2


class FullDisk:
    """A save function whose n-th call fails."""

    def __init__(self, *failing: int) -> None:
        self.calls, self.failing = 0, failing

    def __call__(self, path: Path) -> None:
        self.calls += 1
        if self.calls in self.failing:
            raise OSError("no space left on device")
        path.write_text("weights")


def test_a_save_that_fails_on_the_way_is_told_and_tried_again(tmp_path: Path) -> None:
    run = Rehearsal(make_plan(epochs=6), tmp_path)
    run.guard._write = FullDisk(3)
    assert run.run() is StopReason.PLAN_DONE
    assert run.listener.notes() == ["save-failed"]
    last = run.guard.checkpoints.last()
    assert last is not None
    assert last[1].position.epoch == 6


def test_a_save_function_that_never_works_is_found_out_after_one_step(tmp_path: Path) -> None:
    run = Rehearsal(make_plan(), tmp_path)
    run.guard._write = FullDisk(1)
    with pytest.raises(StoreError, match=r"in .*, where .*B are free \(OSError: no space left"):
        run.run()
    assert run.guard.position.steps == 1
    assert not list(tmp_path.glob("checkpoints/.writing*"))  # what was written of it took room


def test_a_rule_that_cannot_be_set_like_that_is_refused_at_once(tmp_path: Path) -> None:
    for name, value in (("checks", -1.0), ("chekcs", 3.0)):
        rules = (StopRule(kind="patience", settings=((name, value),)),)
        with pytest.raises(UsageError, match=r"the (stop )?rule patience"):
            Rehearsal(make_plan(rules=rules), tmp_path)


def test_metrics_without_the_plans_own_are_refused_once_rules_need_it(tmp_path: Path) -> None:
    rules = (StopRule(kind="patience", settings=(("checks", 4.0), ("min_delta", 0.0))),)
    run = Rehearsal(make_plan(rules=rules, evaluate_every=2), tmp_path)
    run._evaluate = lambda: run.guard.report({"accuracy": 0.5})  # type: ignore[method-assign]
    with pytest.raises(UsageError, match="rules watch val_loss, but only accuracy was reported"):
        run.run()
    assert run.guard.position.epoch == 2  # an evaluation was due only there
    last = run.guard.checkpoints.last()
    assert last is not None
    assert last[1].position.epoch == 2  # and nothing is lost


def test_a_check_that_is_made_again_counts_once(tmp_path: Path) -> None:
    rules = (StopRule(kind="patience", settings=(("checks", 3.0), ("min_delta", 0.0))),)
    plan = make_plan(epochs=12, rules=rules)
    first = Rehearsal(plan, tmp_path, losses=[0.5, 0.6])
    first.guard.start()
    for _ in range(2):
        first.guard.begin_epoch()
        first._train()
        first._evaluate()
        if first.guard.position.epoch == 0:
            first.guard.end_epoch()
    first.guard.close()  # left between the second report and the epoch's end
    second = Rehearsal(plan, tmp_path, losses=[0.6, 0.7, 0.8], clock=first.clock)
    second.steps = 10
    second.run()
    assert second.guard.position.epoch == 4  # 0.6, 0.7, 0.8: three without improvement


def test_what_rules_remember_is_theirs_alone(tmp_path: Path) -> None:
    rises = (StopRule(kind="up", settings=(("rises", 3.0), ("strip", 2.0))),)
    patience = (StopRule(kind="patience", settings=(("checks", 3.0), ("min_delta", 0.0))),)
    first = Rehearsal(make_plan(epochs=3, rules=rises), tmp_path, losses=[20.0, 19.0, 18.0])
    first.run()
    second = Rehearsal(
        make_plan(epochs=8, rules=patience),
        tmp_path,
        clock=first.clock,
        losses=[17.0, 16.0, 15.0, 14.0, 13.0],
    )
    assert second.run() is StopReason.PLAN_DONE
    other = replace(make_plan(epochs=9), metric="val_acc", mode="max")
    third = Rehearsal(other, tmp_path, clock=first.clock)
    assert third.guard.state.metrics.best_value is None


def test_the_slow_first_step_of_every_epoch_is_reckoned_with(tmp_path: Path) -> None:
    """30 s until the loader has started, then 0.2 s a step; all durations repeat exactly."""
    for deadline in range(1000, 1050, 13):
        steps = cycle(chain([30.0], repeat(0.2, 99)))
        plan = make_plan(epochs=100, deadline=float(deadline), epoch=about(49.8, 0.02), steps=100)
        run = Rehearsal(plan, tmp_path / str(deadline), step_seconds=steps, steps=100)
        run.run()
        assert used(run) <= deadline


def test_steps_that_are_slow_once_in_a_while_are_reckoned_with(tmp_path: Path) -> None:
    for deadline in range(950, 1050, 28):
        steps = cycle(chain(repeat(0.4, 99), [10.0]))
        plan = make_plan(epochs=100, deadline=float(deadline), epoch=about(49.6, 0.02), steps=100)
        run = Rehearsal(plan, tmp_path / str(deadline), step_seconds=steps, steps=100)
        run.run()
        assert used(run) <= deadline


def test_single_slow_epochs_do_not_make_the_end_flap(tmp_path: Path) -> None:
    epoch = chain(repeat(5.0, 190), repeat(10.0, 10))
    plan = make_plan(epochs=400, deadline=30_000.0, epoch=about(50.0, 0.02), save_every=20)
    run = Rehearsal(plan, tmp_path, step_seconds=cycle(epoch))
    assert run.run() is StopReason.PLAN_DONE
    assert run.listener.notes().count("replanned") <= 4
    assert run.listener.notes().count("drift") == 0


def test_saves_that_cost_more_than_planned_are_made_less_often(tmp_path: Path) -> None:
    plan = make_plan(
        epochs=100, deadline=None, save=about(2.0, 0.1), save_every=1, save_interval=57.0
    )
    run = Rehearsal(plan, tmp_path, save_seconds=repeat(60.0))
    run.run()
    saving = sum(e.save_seconds or 0.0 for e in epochs(run))
    assert saving < 0.07 * used(run)  # 3.5 %, the rehearsal, a best and the last one


def test_a_full_disk_does_not_end_a_run_whose_save_was_forgiven(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left on device")

    run = Rehearsal(make_plan(epochs=3), tmp_path)
    monkeypatch.setattr("epochcast.guard.guard.write_ledger", full)
    assert run.run() is StopReason.PLAN_DONE
    assert run.listener.notes() == ["ledger-failed"]


def test_what_evaluations_take_is_no_part_of_steps(tmp_path: Path) -> None:
    run = Rehearsal(
        make_plan(epochs=3, evaluation=about(400.0, 0.1)),
        tmp_path,
        evaluation_seconds=repeat(400.0),
    )
    run.run()
    assert run.guard._timer.steady.bound < 6


def test_an_evaluation_within_an_epoch_is_no_part_of_the_next_step(tmp_path: Path) -> None:
    run = Rehearsal(make_plan(evaluation=about(400.0, 0.1)), tmp_path)

    def evaluate(run: Rehearsal) -> None:
        if run.guard.position.step == 5:
            assert run.guard.may_evaluate()
            run.clock.pass_(400.0)
            run.guard.end_evaluation()
            run.clock.pass_(5.0)

    run.each_step = evaluate
    run.guard.start()
    run.guard.begin_epoch()
    run._train()
    assert run.guard._timer.steady.bound < 16  # two steps of 5 s where it evaluated


def test_rules_that_are_never_shown_a_value_are_told_about(tmp_path: Path) -> None:
    rules = (StopRule(kind="patience", settings=(("checks", 4.0), ("min_delta", 0.0))),)
    run = Rehearsal(make_plan(epochs=3, rules=rules), tmp_path)
    run._evaluate = lambda: None  # type: ignore[method-assign]
    run.run()
    assert run.listener.notes() == ["not-evaluated"]


def test_another_number_of_steps_is_told_about(tmp_path: Path) -> None:
    run = Rehearsal(make_plan(epochs=3, steps=20), tmp_path, steps=10)
    run.run()
    assert run.listener.notes().count("steps-differ") == 1


def test_after_the_plan_more_is_offered_where_more_was_wanted(tmp_path: Path) -> None:
    run = Rehearsal(make_plan(epochs=5, target=20, deadline=600.0), tmp_path)
    assert run.run() is StopReason.PLAN_DONE
    assert run.listener.notes() == ["could-continue"]


class Broken(Listener):
    """A log on a full disk."""

    def see(self, event: object) -> None:
        raise OSError("no space left on device")


def test_a_watcher_that_fails_does_not_end_the_run(tmp_path: Path) -> None:
    run = Rehearsal(make_plan(epochs=2), tmp_path)
    run.guard._bus._watchers.insert(0, Broken())
    assert run.run() is StopReason.PLAN_DONE
    assert run.listener.notes() == ["watcher-failed"]


def test_money_binds_like_time(tmp_path: Path) -> None:
    plan = make_plan(deadline=None, money=1.0, price_per_hour=20.0)  # pays for 180 s
    run = Rehearsal(plan, tmp_path)
    assert run.run() is StopReason.BUDGET
    assert 170 < used(run) <= 180
    end = run.listener.events[-1]
    assert end.limit == "money"
    assert end.spent_money <= 1


def test_who_asks_it_to_leave_is_heard_at_the_next_step(tmp_path: Path) -> None:
    """It saves and stops as after a signal, wherever it stands; no process is ended for that."""
    run = Rehearsal(make_plan(epochs=10), tmp_path)
    run.guard.start()
    run.guard.begin_epoch()
    assert [run.guard.step() for _ in range(3)] == [False] * 3
    run.guard.ask_to_leave()
    assert run.guard.step()
    assert run.guard.reason is StopReason.SIGNAL
    assert run.guard.position.step == 4
    assert run.guard.checkpoints.last() is not None
    assert run.guard.signals.received is None
