"""A plan followed in Lightning: real training of a tiny model, on a clock of the test's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from itertools import chain, repeat
from pathlib import Path

import pytest
import torch
from frameworks import needed
from guard.rehearsal import FakeClock, Listener, about, make_plan
from signalled import left_after
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

lightning = needed("lightning")
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint  # noqa: E402

import epochcast as ec  # noqa: E402
from epochcast.errors import UsageError  # noqa: E402
from epochcast.guard.guard import Guard  # noqa: E402
from epochcast.integrations.lightning import FollowPlan  # noqa: E402
from epochcast.planning.stopping import Patience, rule_record  # noqa: E402
from epochcast.records import Plan, StopReason  # noqa: E402

STEPS = 10
PATIENCE = Patience(checks=2)


class Model(lightning.LightningModule):
    """Takes 5 s a step and 3 s an evaluation, on the test's clock."""

    def __init__(self, clock: FakeClock, losses: Iterable[float] = (), step: float = 5.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 1)
        self.clock, self.step_seconds = clock, step
        self.losses = iter(chain(losses, repeat(1.0)))
        self.began = self.epochs = self.steps = self.evaluations = 0
        self.each_step: Callable[[], None] = lambda: None

    def on_train_epoch_start(self) -> None:
        self.began += 1

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        self.clock.pass_(self.step_seconds)
        self.steps += 1
        self.each_step()
        loss = self.layer(batch[0]).square().mean()
        self.log("train_loss", loss, on_epoch=True)
        return loss

    def validation_step(self, batch: list[Tensor], index: int) -> None:
        if not self.trainer.sanity_checking:
            self.clock.pass_(3.0)
            self.evaluations += 1
            self.log("val_loss", next(self.losses))

    def on_train_epoch_end(self) -> None:
        self.epochs += 1

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters())


def loader(batches: int) -> DataLoader:
    return DataLoader(TensorDataset(torch.randn(4 * batches, 4)), batch_size=4, shuffle=batches > 1)


class Run:
    """One process of a run."""

    def __init__(
        self,
        folder: Path,
        plan: Plan,
        clock: FakeClock | None = None,
        *,
        losses: Iterable[float] = (),
        callbacks: Iterable[Callback] = (),
        step: float = 5.0,
        **trainer: object,
    ) -> None:
        self.clock = clock or FakeClock()
        self.listener = Listener()
        self.follow = FollowPlan(
            plan, folder=folder / "run", clock=self.clock, watchers=[self.listener], store=False
        )
        self.model = Model(self.clock, losses, step)
        settings = {"max_epochs": 1000, **trainer}
        self.trainer = lightning.Trainer(
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
            callbacks=[self.follow, *callbacks],
            **settings,  # type: ignore[arg-type]
        )

    def fit(self, **settings: object) -> Run:
        settings = {"ckpt_path": self.follow.checkpoint, **settings}
        self.trainer.fit(self.model, loader(STEPS), loader(1), **settings)  # type: ignore[arg-type]
        return self

    @property
    def guard(self) -> Guard:
        assert self.follow._session is not None
        return self.follow._session.guard

    @property
    def spent(self) -> float:
        return self.guard.state.ledger.spent_seconds


def weights(checkpoint: Path) -> dict[str, Tensor]:
    return torch.load(checkpoint, weights_only=True)["state_dict"]


def test_the_plan_ends_the_run_whatever_max_epochs_says(tmp_path: Path) -> None:
    run = Run(tmp_path, make_plan(epochs=3)).fit()
    assert (run.model.began, run.model.epochs, run.model.steps) == (3, 3, 3 * STEPS)
    assert run.follow.reason is StopReason.PLAN_DONE
    assert run.follow.position.epoch == 3
    assert run.trainer.current_epoch == 3
    assert not list(tmp_path.rglob("*.ckpt"))  # no other checkpoints than the plan's


def test_the_last_checkpoint_holds_the_weights(tmp_path: Path) -> None:
    run = Run(tmp_path, make_plan(epochs=2)).fit()
    assert run.follow.checkpoint is not None
    saved = weights(run.follow.checkpoint)
    assert saved.keys() == run.model.state_dict().keys()
    assert all(torch.equal(saved[n], value) for n, value in run.model.state_dict().items())


def test_a_smaller_max_epochs_leaves_early_and_the_next_run_goes_on(tmp_path: Path) -> None:
    plan, clock = make_plan(epochs=5, deadline=1000.0), FakeClock()
    first = Run(tmp_path, plan, clock, max_epochs=2).fit()
    assert (first.model.epochs, first.follow.reason) == (2, None)
    second = Run(tmp_path, plan, clock).fit()
    assert (second.model.epochs, second.model.steps) == (3, 3 * STEPS)
    assert second.follow.reason is StopReason.PLAN_DONE


def test_a_resumed_run_has_its_budget_once(tmp_path: Path) -> None:
    plan, clock = make_plan(epochs=8, deadline=300.0, counted_from="total"), FakeClock()
    first = Run(tmp_path, plan, clock, max_epochs=2).fit()
    assert first.spent == pytest.approx(2 * (STEPS * 5 + 3))
    second = Run(tmp_path, plan, clock).fit()
    assert second.follow.reason is StopReason.BUDGET
    assert first.spent < second.spent <= 300
    done = first.model.steps + second.model.steps
    assert second.follow.position.steps == done
    assert (second.follow.position.epoch, second.follow.position.step) == divmod(done, STEPS)


def test_a_budget_stop_in_an_epoch_validates_no_more(tmp_path: Path) -> None:
    plan = make_plan(epochs=10, deadline=STEPS * 5 + 3 + 30)
    run = Run(tmp_path, plan).fit()
    assert run.follow.reason is StopReason.BUDGET
    assert 0 < run.follow.position.step < STEPS
    assert run.model.evaluations == 1
    assert run.clock.now - 100 <= STEPS * 5 + 3 + 30


@pytest.mark.parametrize("settings", [{}, {"weights_only": True}])
def test_an_interrupted_epoch_is_gone_on_with(tmp_path: Path, settings: dict) -> None:
    clock = FakeClock()
    first = Run(tmp_path, make_plan(epochs=3, deadline=90.0), clock).fit()
    step = first.follow.position.step
    assert (first.follow.position.epoch, step > 0) == (1, True)
    second = Run(tmp_path, make_plan(epochs=3), clock).fit(**settings)
    assert second.follow.reason is StopReason.PLAN_DONE
    assert second.model.steps == 3 * STEPS - first.model.steps
    assert second.follow.position.steps == 3 * STEPS
    assert second.trainer.current_epoch == 3


def test_a_stop_at_the_last_step_leaves_only_the_end_of_the_epoch(tmp_path: Path) -> None:
    plan, clock = make_plan(epochs=2), FakeClock()
    first = Run(tmp_path, plan, clock)

    def signal_at_the_last_step() -> None:
        if first.model.steps == 2 * STEPS:
            os.kill(os.getpid(), signal.SIGUSR1)

    first.model.each_step = signal_at_the_last_step
    with pytest.raises(SystemExit):
        first.fit()
    assert (first.follow.position.epoch, first.follow.position.step) == (1, STEPS)
    second = Run(tmp_path, plan, clock).fit()
    assert second.model.steps == 0
    assert (second.follow.reason, second.follow.position.epoch) == (StopReason.PLAN_DONE, 2)


def test_the_best_epoch_and_patience_are_those_of_the_replay(tmp_path: Path) -> None:
    losses = (0.9, 0.7, 0.8, 0.75, 0.6, 0.5)
    run = Run(tmp_path, make_plan(epochs=6, rules=(rule_record(PATIENCE),)), losses=losses).fit()
    stop = ec.stopping_epoch(PATIENCE, losses)
    assert stop == 4
    assert (run.model.epochs, run.follow.reason) == (stop, StopReason.PATIENCE)
    assert run.guard.state.metrics.best_epoch == 2
    assert run.follow.best_checkpoint is not None
    assert run.follow.best_model_path == str(run.follow.best_checkpoint)
    assert run.follow.best_checkpoint != run.follow.checkpoint


def test_patience_survives_a_resume(tmp_path: Path) -> None:
    plan, clock = make_plan(epochs=6, rules=(rule_record(PATIENCE),)), FakeClock()
    Run(tmp_path, plan, clock, losses=(0.9, 0.7, 0.8), max_epochs=3).fit()
    second = Run(tmp_path, plan, clock, losses=(0.75, 0.6)).fit()
    assert (second.model.epochs, second.follow.reason) == (1, StopReason.PATIENCE)


def test_a_finished_run_stays_finished_and_has_its_weights(tmp_path: Path) -> None:
    plan = make_plan(epochs=2)
    first = Run(tmp_path, plan).fit()
    second = Run(tmp_path, plan).fit()
    assert (second.model.began, second.model.steps, second.model.evaluations) == (0, 0, 0)
    assert second.follow.reason is StopReason.PLAN_DONE
    for name, value in first.model.state_dict().items():
        assert torch.equal(second.model.state_dict()[name], value)


def test_a_checkpoint_that_is_not_loaded_is_an_error(tmp_path: Path) -> None:
    plan = make_plan(epochs=5)
    Run(tmp_path, plan, max_epochs=1).fit()
    with pytest.raises(UsageError, match=r"ckpt_path=follow\.checkpoint"):
        Run(tmp_path, plan).fit(ckpt_path=None)


@pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec")  # pytest.warns gives it again
def test_min_epochs_do_not_hold_against_the_budget(tmp_path: Path) -> None:
    run = Run(tmp_path, make_plan(epochs=2), min_epochs=5, min_steps=60)
    with pytest.warns(UserWarning, match="before min_epochs"):
        run.fit()
    assert run.model.epochs == 2
    assert (run.trainer.min_epochs, run.trainer.min_steps) == (5, 60)


def test_validation_runs_where_it_is_planned(tmp_path: Path) -> None:
    run = Run(tmp_path, make_plan(epochs=5, evaluate_every=2), check_val_every_n_epoch=3).fit()
    assert (run.model.epochs, run.model.evaluations) == (5, 3)  # after 2, 4 and the last
    assert run.guard.state.metrics.checks == 3
    assert len(run.guard.state.ledger.samples.evaluation) == 3
    assert set(run.guard.state.ledger.samples.evaluation) == {3.0}
    assert (run.trainer.check_val_every_n_epoch, run.trainer.limit_val_batches) == (3, 1.0)


def test_validation_stays_where_early_stopping_needs_it(tmp_path: Path) -> None:
    stopping = EarlyStopping("val_loss", patience=50)
    plan = make_plan(epochs=4, evaluate_every=2)
    run = Run(tmp_path, plan, callbacks=[stopping]).fit()
    assert (run.model.epochs, run.model.evaluations) == (4, 4)
    assert run.guard.state.metrics.checks == 2


def test_validation_stays_within_epochs_where_that_was_asked_for(tmp_path: Path) -> None:
    plan = make_plan(epochs=3, evaluate_every=3)
    run = Run(tmp_path, plan, val_check_interval=0.5).fit()
    assert (run.model.epochs, run.model.evaluations) == (3, 6)
    assert run.guard.state.metrics.checks == 1
    samples = run.guard.state.ledger.samples
    assert (*samples.first_epoch, *samples.epoch) == (56.0, 56.0, 53.0)
    assert samples.evaluation == (3.0,)


def test_validation_stays_where_a_scheduler_needs_it(tmp_path: Path) -> None:
    run = Run(tmp_path, make_plan(epochs=4, evaluate_every=2))

    def with_plateau() -> dict:
        optimizer = torch.optim.Adam(run.model.parameters())
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "monitor": "val_loss"},
        }

    run.model.configure_optimizers = with_plateau  # type: ignore[method-assign, assignment]
    run.fit()
    assert (run.model.epochs, run.model.evaluations) == (4, 4)


def test_a_model_checkpoint_of_the_user_stays(tmp_path: Path) -> None:
    mine = ModelCheckpoint(tmp_path / "mine", monitor="val_loss")
    run = Run(tmp_path, make_plan(epochs=2), callbacks=[mine]).fit()
    assert run.model.epochs == 2
    assert list((tmp_path / "mine").glob("*.ckpt"))


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_saves_and_leaves(tmp_path: Path, name: str, code: int) -> None:
    run = Run(tmp_path, make_plan(epochs=3))
    assert left_after(15, name, run, run.model) == code
    assert run.follow.checkpoint is not None
    saved = weights(run.follow.checkpoint)
    assert all(torch.equal(saved[n], value) for n, value in run.model.state_dict().items())
    second = Run(tmp_path, make_plan(epochs=3)).fit()
    assert second.model.steps == 15


def test_a_signal_in_a_validation_saves_at_once(tmp_path: Path) -> None:
    class Stopper(Callback):
        def on_validation_batch_start(self, trainer: lightning.Trainer, *_: object) -> None:
            if not trainer.sanity_checking and trainer.current_epoch == 1:
                os.kill(os.getpid(), signal.SIGTERM)

    run = Run(tmp_path, make_plan(epochs=3), callbacks=[Stopper()])
    with pytest.raises(SystemExit) as left:
        run.fit()
    assert left.value.code == 143
    assert (run.follow.position.epoch, run.follow.position.step) == (1, STEPS)
    second = Run(tmp_path, make_plan(epochs=3)).fit()
    assert (second.model.steps, second.follow.position.epoch) == (STEPS, 3)
    assert second.follow.reason is StopReason.PLAN_DONE


def test_averaged_weights_that_are_validated_are_not_saved(tmp_path: Path) -> None:
    averaging = pytest.importorskip("lightning.pytorch.callbacks").EMAWeightAveraging

    class Asked(Callback):
        def on_validation_batch_end(self, trainer: object, *parts: object) -> None:
            if run.model.epochs == 1 and run.model.evaluations == 2:
                os.kill(os.getpid(), signal.SIGTERM)

    run = Run(tmp_path, make_plan(epochs=3), callbacks=[averaging(), Asked()])
    with pytest.raises(SystemExit):
        run.fit()
    assert run.follow.reason is StopReason.SIGNAL
    assert (run.follow.position.epoch, run.follow.position.step) == (2, 0)  # after it


def test_a_signal_in_a_validation_within_an_epoch(tmp_path: Path) -> None:
    class Stopper(Callback):
        def on_validation_batch_start(self, trainer: lightning.Trainer, *_: object) -> None:
            if not trainer.sanity_checking and trainer.current_epoch == 1:
                os.kill(os.getpid(), signal.SIGTERM)

    run = Run(tmp_path, make_plan(epochs=3), callbacks=[Stopper()], val_check_interval=0.5)
    with pytest.raises(SystemExit):
        run.fit()
    assert (run.follow.position.epoch, run.follow.position.step) == (1, STEPS // 2)
    second = Run(tmp_path, make_plan(epochs=3), val_check_interval=0.5).fit()
    assert (second.model.steps, second.follow.position.epoch) == (STEPS + STEPS // 2, 3)
    assert second.follow.position.steps == 3 * STEPS
    assert second.follow.reason is StopReason.PLAN_DONE


def test_slurm_requeues_as_lightning_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{scontrol.parent}:{os.environ['PATH']}")
    values = {"NTASKS": "1", "JOB_NAME": "train", "JOB_ID": "7", "LOCALID": "0", "NODEID": "0"}
    for name, value in {**values, "PROCID": "0", "NODELIST": "localhost"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    run = Run(tmp_path, make_plan(epochs=3), devices=1)
    run.model.each_step = lambda: os.kill(os.getpid(), signal.SIGUSR1)
    with pytest.raises(SystemExit) as left:
        run.fit()
    assert left.value.code == 128 + signal.SIGUSR1
    assert (tmp_path / "asked").read_text().split() == ["requeue", "7"]
    assert run.follow.position.steps == 1


def test_an_error_in_training_saves_nothing_and_gives_everything_back(tmp_path: Path) -> None:
    run = Run(tmp_path, make_plan(epochs=3))
    before = signal.getsignal(signal.SIGTERM)

    def fail() -> None:
        if run.model.steps == 12:
            raise ValueError("mine")

    run.model.each_step = fail
    with pytest.raises(ValueError, match="mine"):
        run.fit()
    assert run.follow.position.steps == STEPS
    assert signal.getsignal(signal.SIGTERM) is before
    assert run.trainer.limit_val_batches == 1.0


def test_a_slow_run_ends_in_time(tmp_path: Path) -> None:
    run = Run(tmp_path, make_plan(epochs=10, deadline=600.0, save=about(2.0)), step=11.0).fit()
    assert run.follow.reason is StopReason.BUDGET
    assert run.clock.now - 100 <= 600
    assert run.model.steps * 11 > 400


def test_a_trial_with_fast_dev_run_is_no_run(tmp_path: Path) -> None:
    run = Run(tmp_path, make_plan(epochs=3), fast_dev_run=True).fit()
    assert (run.model.steps, run.follow.checkpoint) == (1, None)


def test_two_processes_stop_together_and_go_on(tmp_path: Path) -> None:
    script = Path(__file__).with_name("lightning_ranks.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", str(script), str(tmp_path)]
    paths = os.pathsep.join([str(script.parents[1]), *sys.path])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    said = {(tmp_path / f"rank-{rank}").read_text() for rank in (0, 1)}
    assert said == {"143 PLAN_DONE 2 10"}
