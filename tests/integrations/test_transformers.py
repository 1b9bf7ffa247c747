"""A plan is followed in a real Trainer: tiny models, real checkpoints, a clock of the test."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from frameworks import needed
from rehearsal import FakeClock, Listener, about, make_plan

import epochcast as ec
from epochcast.errors import UsageError
from epochcast.planning.stopping import Patience, rule_record
from epochcast.records import EpochDone, Plan, StopReason

torch = needed("torch")
transformers = needed("transformers")
needed("accelerate")

from epochcast.integrations.transformers import FollowPlan  # noqa: E402

SAMPLES, BATCH, STEPS = 40, 4, 10
VALIDATION = 8


class Samples(torch.utils.data.Dataset):
    """Vectors whose class is that of their largest element."""

    def __init__(self, count: int, seed: int) -> None:
        self.x = torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> dict:
        return {"x": self.x[i], "labels": self.x[i].argmax()}


class Classifier(torch.nn.Module):
    """With dropout, so that resuming exactly needs the random states; ``losses`` overrules it."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(6, 16), torch.nn.ReLU(), torch.nn.Dropout(0.3), torch.nn.Linear(16, 6)
        )
        self.forwards = 0
        self.losses: list[float] | None = None
        self.at_evaluation = lambda: None

    def forward(self, x, labels=None):
        logits = self.layers(x)
        loss = torch.nn.functional.cross_entropy(logits, labels)
        self.forwards += self.training
        if not self.training:
            self.at_evaluation()
            if self.losses is not None:
                loss = loss * 0 + self.losses[0]
        return {"loss": loss, "logits": logits}


class Passing(transformers.TrainerCallback):
    """Time passes with each micro-batch, each evaluated batch; what happened is counted."""

    def __init__(self, clock: FakeClock, step=5.0, evaluated=0.0, each_step=lambda steps: None):
        self.clock, self.step, self.evaluated, self.each_step = clock, step, evaluated, each_step
        self.steps = self.epochs = self.evaluations = 0

    def on_substep_end(self, args, state, control, **parts):
        self.clock.pass_(self.step)

    def on_step_end(self, args, state, control, **parts):
        self.clock.pass_(self.step)
        self.steps += 1
        self.each_step(state.global_step)

    def on_prediction_step(self, args, state, control, **parts):
        self.clock.pass_(self.evaluated)

    def on_epoch_end(self, args, state, control, **parts):
        self.epochs += 1

    def on_evaluate(self, args, state, control, model, **parts):
        self.evaluations += 1
        if model.losses is not None and len(model.losses) > 1:
            model.losses.pop(0)


class Run:
    """One process's training under a plan, and what came of it."""

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        *,
        clock=None,
        losses=None,
        epochs=99,
        seed=0,
        evaluation="epoch",
        accumulation=1,
        settings=None,
        model=None,
        **passing,
    ):
        torch.manual_seed(seed)
        self.clock = clock or FakeClock()
        self.model = model or Classifier()
        self.model.losses = losses
        self.listener = Listener()
        self.passing = Passing(self.clock, **passing)
        self.follow = FollowPlan(
            plan, folder=folder / "run", clock=self.clock, watchers=[self.listener], store=False
        )
        arguments = transformers.TrainingArguments(
            output_dir=str(folder / "trainer"),
            num_train_epochs=epochs,
            save_strategy="no",
            per_device_train_batch_size=BATCH,
            per_device_eval_batch_size=VALIDATION,
            eval_strategy=evaluation,
            gradient_accumulation_steps=accumulation,
            report_to=[],
            disable_tqdm=True,
            learning_rate=0.01,
            use_cpu=True,
            logging_strategy="epoch",
            dataloader_pin_memory=False,
            **(settings or {}),
        )
        self.trainer = transformers.Trainer(
            model=self.model,
            args=arguments,
            train_dataset=Samples(SAMPLES, 1),
            eval_dataset=None if evaluation == "no" else Samples(VALIDATION, 2),
            callbacks=[self.passing, self.follow],
        )

    def train(self, **resume) -> StopReason | None:
        resume = resume or {"resume_from_checkpoint": self.follow.checkpoint}
        self.trainer.train(**resume)
        return self.follow.reason

    @property
    def position(self):
        return self.listener.events[-1].position

    def epochs_done(self) -> list[EpochDone]:
        return [event for event in self.listener.events if isinstance(event, EpochDone)]


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    monkeypatch.setattr("transformers.trainer.is_datasets_available", lambda: False)  # not ours
    transformers.logging.set_verbosity_error()


def test_the_plan_ends_a_longer_training_and_a_finished_run_stays_finished(tmp_path):
    plan = make_plan(epochs=3)
    run = Run(plan, tmp_path, epochs=10)
    assert run.train() is StopReason.PLAN_DONE
    assert (run.passing.epochs, run.passing.steps) == (3, 3 * STEPS)
    assert run.trainer.state.global_step == 3 * STEPS
    assert run.listener.notes() == ["schedule-shortened"]  # the learning rate's, of ten epochs

    again = Run(plan, tmp_path, epochs=10, clock=run.clock)
    assert again.train() is StopReason.PLAN_DONE
    assert (again.passing.steps, again.model.forwards) == (0, 0)
    assert again.trainer.state.global_step == 3 * STEPS
    for name, weights in again.model.state_dict().items():
        assert torch.equal(weights, run.model.state_dict()[name])


def test_a_shorter_training_ends_as_its_arguments_say_with_a_checkpoint(tmp_path):
    run = Run(make_plan(epochs=5), tmp_path, epochs=2)
    assert run.train() is None
    assert (run.passing.epochs, run.position.epoch) == (2, 2)
    longer = Run(make_plan(epochs=5), tmp_path, epochs=5, clock=run.clock)
    assert longer.train() is StopReason.PLAN_DONE
    assert longer.passing.epochs == 3


def test_steps_of_arguments_that_end_within_an_epoch(tmp_path):
    run = Run(make_plan(epochs=5), tmp_path, settings={"max_steps": 13})
    assert run.train() is None
    assert (run.position.epoch, run.position.step) == (1, 3)
    on = Run(make_plan(epochs=2), tmp_path, clock=run.clock)
    assert on.train() is StopReason.PLAN_DONE
    assert on.passing.steps == 7


def test_a_budget_ends_it_within_an_epoch_and_resuming_continues_the_budget(tmp_path):
    plan = make_plan(epochs=10, deadline=133.0, save=about(3.0, 0.1))
    run = Run(plan, tmp_path)
    assert run.train() is StopReason.BUDGET
    assert 1 < run.position.epoch * STEPS + run.position.step < 26
    assert run.position.epoch == 2
    assert run.position.step > 0
    assert run.clock.now - FakeClock().now <= 133

    broke = Run(plan, tmp_path, clock=run.clock)
    assert broke.train() is StopReason.BUDGET
    assert broke.model.forwards == 0

    richer = Run(
        make_plan(epochs=10, deadline=400.0, save=about(3.0, 0.1)), tmp_path, clock=run.clock
    )
    assert richer.train() is StopReason.BUDGET
    assert richer.clock.now - FakeClock().now <= 400
    assert richer.position.steps == run.position.steps + richer.passing.steps
    assert richer.position.steps > 6 * STEPS


LOSSES = [1.0, 0.8, 0.9, 0.85, 0.81, 0.7, 0.6]


@pytest.mark.parametrize("metric", ["val_loss", "eval_loss", "loss"])
def test_patience_stops_where_a_replay_of_the_curve_stops(tmp_path, metric):
    plan = make_plan(epochs=7, rules=(rule_record(Patience(checks=3)),))
    plan = replace(plan, metric=metric)
    run = Run(plan, tmp_path, losses=list(LOSSES))
    assert run.train() is StopReason.PATIENCE
    assert run.passing.epochs == ec.stopping_epoch(Patience(checks=3), LOSSES) == 5
    assert run.follow.best_checkpoint.parent.name == "00003-0000000020"


def test_patience_goes_on_after_an_interruption(tmp_path):
    plan = make_plan(epochs=7, rules=(rule_record(Patience(checks=3)),))
    run = Run(plan, tmp_path, losses=LOSSES[:], epochs=3)
    run.train()
    rest = Run(plan, tmp_path, losses=LOSSES[3:], clock=run.clock)
    assert rest.train() is StopReason.PATIENCE
    assert rest.position.epoch == 5


def test_a_metric_that_is_never_reported_is_an_error(tmp_path):
    plan = replace(make_plan(rules=(rule_record(Patience(checks=3)),)), metric="val_accuracy")
    with pytest.raises(UsageError, match=r"val_accuracy, but only .*eval_loss"):
        Run(plan, tmp_path).train()


def test_evaluations_follow_the_plan(tmp_path):
    run = Run(make_plan(epochs=6, evaluate_every=3, evaluation=about(8.0)), tmp_path, evaluated=8.0)
    run.train()
    assert run.passing.evaluations == 2
    took = [(e.seconds, e.evaluation_seconds) for e in run.epochs_done()]
    assert took == [(50.0, None), (50.0, None), (50.0, 8.0)] * 2


def test_without_a_strategy_there_is_no_evaluation_and_without_planned_ones_the_strategy_holds(
    tmp_path,
):
    run = Run(make_plan(epochs=2), tmp_path / "a", evaluation="no")
    run.train()
    assert run.passing.evaluations == 0
    own = Run(make_plan(epochs=3, evaluate_every=0), tmp_path / "b", evaluated=8.0)
    own.train()
    assert own.passing.evaluations == 3
    assert [(e.seconds, e.evaluation_seconds) for e in own.epochs_done()] == [(50.0, 8.0)] * 3


def test_evaluations_within_an_epoch_are_part_of_it_but_not_reported(tmp_path):
    run = Run(
        make_plan(epochs=2),
        tmp_path,
        evaluation="steps",
        evaluated=8.0,
        settings={"eval_steps": 5},
        losses=[1.0],
    )
    run.train()
    assert run.passing.evaluations == 4  # of the four, two at epochs' ends
    assert [(e.seconds, e.evaluation_seconds) for e in run.epochs_done()] == [(58.0, 8.0)] * 2


def test_a_learning_rate_that_follows_the_evaluations_keeps_them(tmp_path):
    run = Run(
        make_plan(epochs=4, evaluate_every=2),
        tmp_path,
        settings={"lr_scheduler_type": "reduce_lr_on_plateau", "metric_for_best_model": "loss"},
    )
    run.train()
    assert run.passing.evaluations == 4


def test_an_error_leaves_no_trace_in_the_next_training(tmp_path):
    run = Run(make_plan(epochs=2), tmp_path)
    handler = signal.getsignal(signal.SIGTERM)

    def fail(steps: int) -> None:
        if steps == 13:
            raise ValueError("not today")

    run.passing.each_step = fail
    with pytest.raises(ValueError, match="not today"):
        run.train()
    run.passing.each_step = lambda steps: None
    assert run.train() is StopReason.PLAN_DONE
    assert signal.getsignal(signal.SIGTERM) is handler
    assert run.passing.epochs == 2


def test_a_step_is_an_update(tmp_path):
    run = Run(make_plan(epochs=2, deadline=1000.0, steps=10), tmp_path, accumulation=4)
    assert run.train() is StopReason.PLAN_DONE
    assert (run.model.forwards, run.position.steps, run.trainer.state.global_step) == (20, 6, 6)


@pytest.mark.parametrize(("accumulation", "cut"), [(1, 2), (1, 7), (1, 14), (4, 2), (4, 7)])
def test_resuming_gives_the_same_weights(tmp_path, cut, accumulation):
    plan = make_plan(epochs=4, deadline=None)
    whole = Run(plan, tmp_path / "whole", epochs=4, accumulation=accumulation)
    whole.train()

    def interrupt(steps: int) -> None:
        if steps == cut:
            os.kill(os.getpid(), signal.SIGTERM)

    first = Run(plan, tmp_path / "parts", epochs=4, accumulation=accumulation, each_step=interrupt)
    with pytest.raises(SystemExit) as left:
        first.train()
    assert left.value.code == 128 + signal.SIGTERM
    assert (first.position.steps, first.follow.reason) == (cut, StopReason.SIGNAL)
    second = Run(plan, tmp_path / "parts", epochs=4, accumulation=accumulation, seed=77)
    assert second.train() is StopReason.PLAN_DONE
    assert first.passing.steps + second.passing.steps == whole.passing.steps
    for name, weights in second.model.state_dict().items():
        assert torch.equal(weights, whole.model.state_dict()[name]), name


def test_resuming_at_an_epochs_end_gives_the_same_weights(tmp_path):
    whole = Run(make_plan(epochs=4), tmp_path / "whole", epochs=4)
    whole.train()
    first = Run(make_plan(epochs=2), tmp_path / "parts", epochs=4)
    assert first.train() is StopReason.PLAN_DONE
    second = Run(make_plan(epochs=4), tmp_path / "parts", epochs=4, seed=77, clock=first.clock)
    assert second.train() is StopReason.PLAN_DONE
    assert (first.passing.epochs, second.passing.epochs) == (2, 2)
    for name, weights in second.model.state_dict().items():
        assert torch.equal(weights, whole.model.state_dict()[name]), name


def test_a_signal_during_an_evaluation_saves_at_once_and_the_evaluation_is_made_up_for(tmp_path):
    plan = make_plan(epochs=4, rules=(rule_record(Patience(checks=2)),))
    run = Run(plan, tmp_path, losses=[1.0, 2.0, 3.0])
    seen = []

    def interrupt() -> None:
        seen.append(run.passing.steps)
        if len(seen) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    run.model.at_evaluation = interrupt
    with pytest.raises(SystemExit):
        run.train()
    assert (run.passing.steps, run.position.epoch, run.position.step) == (20, 1, STEPS)
    rest = Run(plan, tmp_path, losses=[2.0, 3.0], clock=run.clock)
    assert rest.train() is StopReason.PATIENCE
    assert (rest.position.epoch, rest.passing.steps) == (3, STEPS)


def test_patience_that_ends_with_an_evaluation_made_up_for_takes_no_step_more(tmp_path):
    plan = make_plan(epochs=4, rules=(rule_record(Patience(checks=1)),))
    run = Run(plan, tmp_path, losses=[1.0, 2.0])
    seen = []

    def interrupt() -> None:
        seen.append(0)
        if len(seen) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    run.model.at_evaluation = interrupt
    with pytest.raises(SystemExit):
        run.train()
    rest = Run(plan, tmp_path, losses=[2.0], clock=run.clock)
    assert rest.train() is StopReason.PATIENCE
    assert (rest.position.epoch, rest.model.forwards) == (2, 0)
    assert rest.trainer.args.eval_on_start is False


def test_training_must_start_from_the_checkpoint_that_there_is(tmp_path):
    run = Run(make_plan(epochs=5), tmp_path, epochs=2)
    run.train()
    with pytest.raises(UsageError, match=r"resume_from_checkpoint=follow\.checkpoint"):
        Run(make_plan(epochs=5), tmp_path).train(resume_from_checkpoint=None)


def test_epochs_of_another_length_are_refused(tmp_path):
    Run(make_plan(epochs=5), tmp_path, epochs=2).train()
    with pytest.raises(UsageError, match="an epoch has 5 steps now"):
        Run(make_plan(epochs=5), tmp_path, accumulation=2).train()


def test_checkpoints_are_whole_models_that_transformers_loads_and_trainer_goes_on_from(tmp_path):
    config = transformers.ViTConfig(  # its weights have other names in files than in the model
        image_size=4,
        patch_size=2,
        num_channels=1,
        num_labels=2,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    pixels = torch.randn(8, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    images = [{"pixel_values": image, "labels": i % 2} for i, image in enumerate(pixels)]
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path / "trainer"),
        num_train_epochs=4,
        per_device_train_batch_size=4,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
    )

    def train(epochs: int) -> tuple:
        model = transformers.ViTForImageClassification(config)
        follow = FollowPlan(
            make_plan(epochs=epochs, steps=2),
            folder=tmp_path / "run",
            watchers=[],
            store=False,
            clock=FakeClock(),
        )
        trainer = transformers.Trainer(
            model=model, args=arguments, train_dataset=images, callbacks=[follow]
        )
        trainer.train(resume_from_checkpoint=follow.checkpoint)
        return model.state_dict(), follow

    weights, follow = train(2)
    saved = transformers.ViTForImageClassification.from_pretrained(follow.checkpoint)
    again, _ = train(2)  # nothing is left to do
    for name, value in saved.state_dict().items():
        assert torch.equal(value, weights[name])
        assert torch.equal(value, again[name])
    optimizer = torch.load(follow.checkpoint / "optimizer.pt", weights_only=True)
    assert optimizer["state"][0]["step"] == 4
