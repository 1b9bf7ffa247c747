"""A plan followed in Keras on torch: real training of a tiny model, on a clock of the test's."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable
from itertools import chain, repeat
from pathlib import Path

import numpy as np
import pytest
from frameworks import needed
from guard.rehearsal import FakeClock, Listener, about, make_plan
from signalled import left_after

os.environ.setdefault("KERAS_BACKEND", "torch")
keras = needed("keras")

import epochcast as ec  # noqa: E402
from epochcast.errors import UsageError  # noqa: E402
from epochcast.guard.guard import Guard  # noqa: E402
from epochcast.integrations.keras import FollowPlan  # noqa: E402
from epochcast.planning.stopping import Patience, rule_record  # noqa: E402
from epochcast.records import Plan, StopReason  # noqa: E402

STEPS = 10
PATIENCE = Patience(checks=2)


class Passing(keras.callbacks.Callback):
    """Lets 5 s pass a step and 3 s a batch of evaluation, and counts."""

    def __init__(self, clock: FakeClock, losses: Iterable[float], step: float) -> None:
        super().__init__()
        self.clock, self.step_seconds = clock, step
        self.losses = iter(chain(losses, repeat(1.0)))
        self.epochs = self.steps = self.evaluated = 0
        self.seen: list[set[str]] = []
        self.each_step: Callable[[], None] = lambda: None
        self.each_evaluation: Callable[[], None] = lambda: None

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        self.clock.pass_(self.step_seconds)
        self.steps += 1
        self.each_step()

    def on_test_batch_end(self, batch: int, logs: object = None) -> None:
        self.clock.pass_(3.0)
        self.evaluated += 1
        self.each_evaluation()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.epochs += 1
        assert logs is not None
        if "val_loss" in logs:
            logs["val_loss"] = next(self.losses)


class Run:
    """One process of a run; two batches an evaluation."""

    def __init__(
        self,
        folder: Path,
        plan: Plan,
        clock: FakeClock | None = None,
        *,
        losses: Iterable[float] = (),
        step: float = 5.0,
    ) -> None:
        keras.utils.set_random_seed(0)
        self.clock = clock or FakeClock()
        self.passing = Passing(self.clock, losses, step)
        self.follow = FollowPlan(
            plan, folder=folder / "run", clock=self.clock, watchers=[Listener()], store=False
        )
        self.model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(1)])
        self.model.compile("adam", "mse")

    def fit(self, epochs: int = 1000, validates: bool = True, **settings: object) -> Run:
        data = np.random.default_rng(0).normal(size=(4 * STEPS, 5))
        if validates:
            settings = {"validation_data": (data[:8, :4], data[:8, 4]), **settings}
        settings = {"callbacks": [self.passing, self.follow], **settings}
        x, y = data[:, :4], data[:, 4]
        self.history = self.model.fit(x, y, batch_size=4, epochs=epochs, verbose=0, **settings)
        return self

    @property
    def guard(self) -> Guard:
        assert self.follow._session is not None
        return self.follow._session.guard

    @property
    def state(self) -> list[np.ndarray]:
        """Weights and optimizer."""
        values = [*self.model.variables, *self.model.optimizer.variables]
        return [keras.ops.convert_to_numpy(value) for value in values]


def same(some: list[np.ndarray], others: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(some, others, strict=True))


def test_the_plan_ends_the_run_whatever_fit_says(tmp_path: Path) -> None:
    run = Run(tmp_path, make_plan(epochs=3)).fit()
    assert (run.passing.epochs, run.passing.steps) == (3, 3 * STEPS)
    assert run.follow.reason is StopReason.PLAN_DONE
    assert run.follow.epoch == 3
    assert len(run.history.history["val_loss"]) == 3


def test_the_last_checkpoint_holds_weights_and_optimizer(tmp_path: Path) -> None:
    run = Run(tmp_path, make_plan(epochs=2)).fit()
    assert run.follow.checkpoint is not None
    other = Run(tmp_path / "other", make_plan())
    other.model.optimizer.build(other.model.trainable_variables)
    assert not same(other.state, run.state)
    other.model.load_weights(run.follow.checkpoint)
    assert same(other.state, run.state)


def test_fewer_epochs_leave_early_and_the_next_run_goes_on(tmp_path: Path) -> None:
    plan, clock = make_plan(epochs=5), FakeClock()
    first = Run(tmp_path, plan, clock).fit(epochs=2)
    assert (first.passing.epochs, first.follow.reason) == (2, None)
    second = Run(tmp_path, plan, clock)
    began: list[bool] = []
    second.passing.on_epoch_begin = (  # type: ignore[method-assign]
        lambda epoch, logs=None: began.append(same(second.state, first.state))
    )
    second.fit()
    assert began[0]
    assert second.history.epoch == [2, 3, 4]
    assert second.follow.reason is StopReason.PLAN_DONE
    assert second.model._initial_epoch is None


def test_initial_epoch_may_be_given(tmp_path: Path) -> None:
    plan, clock = make_plan(epochs=5), FakeClock()
    Run(tmp_path, plan, clock).fit(epochs=2)
    second = Run(tmp_path, plan, clock)
    assert second.fit(initial_epoch=second.follow.epoch).history.epoch == [2, 3, 4]


def test_a_resumed_run_has_its_budget_once(tmp_path: Path) -> None:
    plan, clock = make_plan(epochs=8, deadline=300.0, counted_from="total"), FakeClock()
    first = Run(tmp_path, plan, clock).fit(epochs=2)
    spent = first.guard.state.ledger.spent_seconds
    assert spent == pytest.approx(2 * (STEPS * 5 + 6))
    second = Run(tmp_path, plan, clock).fit()
    assert second.follow.reason is StopReason.BUDGET
    assert spent < second.guard.state.ledger.spent_seconds <= 300
    done = first.passing.steps + second.passing.steps
    assert second.follow.position.steps == done


@pytest.mark.parametrize("asked", [True, False])
def test_a_budget_stop_in_an_epoch_validates_no_more(tmp_path: Path, asked: bool) -> None:
    deadline = STEPS * 5 + 6 + 30
    run = Run(tmp_path, make_plan(epochs=10, deadline=deadline))
    run.fit(**({"validation_freq": run.follow.validation_freq} if asked else {}))
    assert run.follow.reason is StopReason.BUDGET
    assert 0 < run.follow.position.step < STEPS
    assert run.passing.evaluated == 2 + (not asked)  # one batch, where Keras was not told
    assert run.passing.steps * 5 <= deadline


def test_what_one_batch_of_validation_gave_is_no_result(tmp_path: Path) -> None:
    run = Run(tmp_path, make_plan(epochs=10, deadline=STEPS * 5 + 6 + 30))
    run.fit(callbacks=[run.follow, run.passing])
    assert len(run.history.history["loss"]) == 2
    assert len(run.history.history["val_loss"]) == 1


def test_an_interrupted_epoch_is_gone_on_with(tmp_path: Path) -> None:
    clock = FakeClock()
    first = Run(tmp_path, make_plan(epochs=3, deadline=90.0), clock).fit()
    assert (first.follow.epoch, first.follow.position.step > 0) == (1, True)
    second = Run(tmp_path, make_plan(epochs=3), clock).fit()
    assert second.follow.reason is StopReason.PLAN_DONE
    assert second.passing.steps == 3 * STEPS - first.passing.steps
    assert second.follow.position.steps == 3 * STEPS
    assert second.history.epoch == [1, 2]


def test_patience_stops_where_its_replay_does(tmp_path: Path) -> None:
    losses = (0.9, 0.7, 0.8, 0.75, 0.6, 0.5)
    run = Run(tmp_path, make_plan(epochs=6, rules=(rule_record(PATIENCE),)), losses=losses).fit()
    stop = ec.stopping_epoch(PATIENCE, losses)
    assert stop == 4
    assert (run.passing.epochs, run.follow.reason) == (stop, StopReason.PATIENCE)
    assert run.guard.state.metrics.best_epoch == 2
    assert run.follow.best_checkpoint is not None
    assert run.follow.best_checkpoint != run.follow.checkpoint
    run.model.load_weights(run.follow.best_checkpoint)


def test_patience_survives_a_resume(tmp_path: Path) -> None:
    plan, clock = make_plan(epochs=6, rules=(rule_record(PATIENCE),)), FakeClock()
    Run(tmp_path, plan, clock, losses=(0.9, 0.7, 0.8)).fit(epochs=3)
    second = Run(tmp_path, plan, clock, losses=(0.75, 0.6)).fit()
    assert (second.passing.epochs, second.follow.reason) == (1, StopReason.PATIENCE)


def test_a_finished_run_stays_finished_and_has_its_weights(tmp_path: Path) -> None:
    plan = make_plan(epochs=2)
    first = Run(tmp_path, plan).fit()
    second = Run(tmp_path, plan).fit()
    assert (second.passing.epochs, second.passing.steps, second.passing.evaluated) == (0, 0, 0)
    assert second.follow.reason is StopReason.PLAN_DONE
    assert same(second.state, first.state)


def test_validation_runs_where_it_is_planned(tmp_path: Path) -> None:
    run = Run(tmp_path, make_plan(epochs=5, evaluate_every=2))
    run.fit(validation_freq=run.follow.validation_freq)
    assert (run.passing.epochs, run.passing.evaluated) == (5, 3 * 2)  # after 2, 4 and the last
    assert run.guard.state.metrics.checks == 3
    assert run.guard.state.ledger.samples.evaluation == (6.0, 6.0, 6.0)
    assert run.follow.validation_freq == [2, 4, 5]
    assert (2 in run.follow.validation_freq, 3 in run.follow.validation_freq) == (True, False)


def test_a_validation_that_is_not_planned_is_part_of_its_epoch(tmp_path: Path) -> None:
    run = Run(tmp_path, make_plan(epochs=5, evaluate_every=2)).fit()
    assert run.passing.evaluated == 5 * 2
    assert run.guard.state.metrics.checks == 3
    samples = run.guard.state.ledger.samples
    assert samples.evaluation == (6.0, 6.0, 6.0)
    assert (*samples.first_epoch, *samples.epoch) == (56.0, 50.0, 56.0, 50.0, 50.0)


def test_a_metric_of_the_training_needs_no_validation(tmp_path: Path) -> None:
    plan = ec.Plan(**{**_fields(make_plan(epochs=3)), "metric": "loss"})
    run = Run(tmp_path, plan).fit(validates=False)
    assert run.guard.state.metrics.checks == 3


def _fields(plan: Plan) -> dict:
    return {name: getattr(plan, name) for name in plan.__dataclass_fields__}


def test_a_metric_that_nobody_measures_is_an_error(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    plan = make_plan(epochs=3, rules=(rule_record(PATIENCE),))
    plan = ec.Plan(**{**_fields(plan), "metric": "val_bleu"})
    with pytest.raises(UsageError, match="val_bleu, but only loss, val_loss"):
        Run(tmp_path, plan).fit()
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_saves_and_leaves(tmp_path: Path, name: str, code: int) -> None:
    run = Run(tmp_path, make_plan(epochs=3))
    assert left_after(15, name, run, run.passing) == code
    assert run.model._initial_epoch is None
    other = Run(tmp_path / "other", make_plan())
    other.model.optimizer.build(other.model.trainable_variables)
    assert run.follow.checkpoint is not None
    other.model.load_weights(run.follow.checkpoint)
    assert same(other.state, run.state)
    second = Run(tmp_path, make_plan(epochs=3)).fit()
    assert second.passing.steps == 15


@pytest.mark.parametrize(("at", "left"), [(2, STEPS), (3, 0)])
def test_a_signal_in_a_validation_saves_at_once(tmp_path: Path, at: int, left: int) -> None:
    run = Run(tmp_path, make_plan(epochs=3))

    def at_an_epoch() -> None:
        if run.passing.epochs == at - 1:
            os.kill(os.getpid(), signal.SIGTERM)

    run.passing.each_evaluation = at_an_epoch
    with pytest.raises(SystemExit):
        run.fit()
    assert (run.follow.epoch, run.follow.position.step) == (at - 1, STEPS)
    assert run.passing.evaluated == 2 * (at - 1) + 1
    second = Run(tmp_path, make_plan(epochs=3)).fit()
    assert (second.passing.steps, second.follow.epoch) == (left, 3)
    assert second.follow.reason is StopReason.PLAN_DONE


def test_a_slow_run_ends_in_time(tmp_path: Path) -> None:
    plan = make_plan(epochs=10, deadline=600.0, evaluation=about(6.0, 0.1))
    run = Run(tmp_path, plan, step=11.0).fit()
    assert run.follow.reason is StopReason.BUDGET
    assert run.clock.now - 100 <= 600
    assert run.passing.steps * 11 > 400


def test_a_fit_after_an_error_goes_on(tmp_path: Path) -> None:
    run = Run(tmp_path, make_plan(epochs=3))

    def fail() -> None:
        if run.passing.steps == 15:
            raise ValueError("mine")

    run.passing.each_step = fail
    with pytest.raises(ValueError, match="mine"):
        run.fit()
    run.fit()
    assert run.follow.reason is StopReason.PLAN_DONE
    assert run.history.epoch == [2 - 1, 2]


def test_a_single_callback_beside_the_training_is_an_error(tmp_path: Path) -> None:
    run = Run(tmp_path, make_plan(epochs=3))
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(UsageError, match=r"callbacks=\[follow\]"):
        run.fit(callbacks=run.follow)
    assert signal.getsignal(signal.SIGTERM) is before
