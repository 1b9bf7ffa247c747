"""A plain loop follows a plan, stops, and goes on as if nothing had happened."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from rehearsal import FakeClock, Listener, about, make_plan
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import epochcast as ec
from epochcast.errors import StoreError, UsageError
from epochcast.guard.checkpoints import CONTENT, CheckpointStore
from epochcast.integrations.plain import FollowedRun
from epochcast.integrations.state import TorchState
from epochcast.records import Plan, StopReason

SAMPLES, BATCH = 40, 10


class Training:
    """A model that is fast to train and whose every random source matters."""

    def __init__(self, folder: Path, plan: Plan, clock: FakeClock | None = None, **settings):
        torch.manual_seed(0)
        random.seed(0)
        np.random.seed(0)
        self.model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.01)
        self.scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, 2, 0.5)
        features = torch.arange(4.0 * SAMPLES).reshape(SAMPLES, 4) / 100
        self.generator = torch.Generator().manual_seed(1)
        data = TensorDataset(features, features.sum(1, keepdim=True))
        self.loader = DataLoader(data, BATCH, shuffle=True, generator=self.generator)
        self.clock = clock or FakeClock()
        self.listener = Listener()
        self.trained = 0
        self.each_step = lambda: None
        state = {
            "model": self.model,
            "optimizer": self.optimizer,
            "scheduler": self.scheduler,
            "generator": self.generator,
        }
        self.run = ec.follow(
            plan,
            folder=folder,
            clock=self.clock,
            watchers=[self.listener],
            store=False,
            **{"state": state, **settings},
        )

    def step(self, batch) -> None:
        features, target = batch
        noise = random.random() + float(np.random.rand()) + torch.rand(1)
        loss = ((self.model(features) - target) ** 2).mean() + 0 * noise.sum()
        self.optimizer.zero_grad()
        (loss * (1 + 0.01 * noise)).sum().backward()
        self.optimizer.step()
        self.trained += 1
        self.clock.pass_(5.0)
        self.each_step()

    def evaluate(self) -> float:
        return float(sum(p.detach().abs().sum() for p in self.model.parameters()))

    def loop(self, die_after: int | None = None) -> Training:
        with self.run as run:
            for _ in run.epochs():
                for batch in run.batches(self.loader):
                    self.step(batch)
                    if self.trained == die_after:
                        raise ValueError("the machine is gone")
                self.scheduler.step()
                if run.due("evaluate"):
                    run.report(val_loss=self.evaluate())
        return self

    def weights(self) -> list[float]:
        return [float(x) for p in self.model.parameters() for x in p.detach().flatten()]


def newest(folder: Path) -> Path:
    last = CheckpointStore(folder / "checkpoints", keep=0).last()
    assert last is not None
    return last[0] / CONTENT


def plan(**settings) -> Plan:
    return make_plan(**{"epochs": 6, "deadline": 1e6, "steps": 4, "epoch": about(20.0), **settings})


def test_a_run_that_was_interrupted_ends_with_the_same_weights(tmp_path: Path) -> None:
    whole = Training(tmp_path / "whole", plan()).loop()
    assert whole.run.reason is StopReason.PLAN_DONE
    budget = {"deadline": 70.0, "counted_from": "total"}
    first = Training(tmp_path / "parts", plan(**budget)).loop()
    assert first.run.reason is StopReason.BUDGET
    assert first.run.position.step == 1  # in the middle of an epoch
    second = Training(tmp_path / "parts", plan()).loop()
    assert first.trained + second.trained == whole.trained == 24
    assert second.weights() == whole.weights()


@pytest.mark.parametrize("own_generator", [False, True])
def test_a_loader_whose_workers_persist_shuffles_as_if_nothing_had_happened(
    tmp_path: Path, own_generator: bool
) -> None:
    def training(folder: Path, stop_at: int) -> Training:
        made = Training(folder, plan(epochs=3))
        made.loader = DataLoader(
            made.loader.dataset,
            BATCH,
            shuffle=True,
            num_workers=1,
            persistent_workers=True,
            generator=made.generator if own_generator else None,
        )
        made.each_step = lambda: made.trained == stop_at and os.kill(os.getpid(), signal.SIGTERM)
        with contextlib.suppress(SystemExit):
            made.loop()
        made.loader._iterator = None  # workers that a garbage collection ends are waited for, 5 s
        return made

    whole = training(tmp_path / "whole", 0)
    for stop_at in (6, 8):  # within an epoch, and at the end of one
        folder = tmp_path / str(stop_at)
        assert training(folder, stop_at).run.reason is StopReason.SIGNAL
        assert training(folder, 0).weights() == whole.weights()


def test_what_was_done_of_an_epoch_is_skipped_over_all_its_loaders(tmp_path: Path) -> None:
    def process(stop_at: int) -> list[int]:
        training = Training(tmp_path, plan(epochs=2, steps=8))
        trained: list[int] = []
        with contextlib.suppress(SystemExit), training.run as run:
            for _ in run.epochs():
                for loader in (range(4), range(4, 8)):
                    for batch in run.batches(loader):
                        trained.append(batch)
                        if len(trained) == stop_at:
                            os.kill(os.getpid(), signal.SIGTERM)
        return trained

    for stop_at in (6, 2):  # of the second loader, then of the first one of the next epoch
        before = process(stop_at)
        assert len(before) == stop_at
    assert before == [6, 7]
    assert process(0) == list(range(8))


def test_after_an_error_it_goes_on_from_the_last_save(tmp_path: Path) -> None:
    whole = Training(tmp_path / "whole", plan()).loop()
    with pytest.raises(ValueError, match="the machine is gone"):
        Training(tmp_path / "parts", plan()).loop(die_after=14)
    second = Training(tmp_path / "parts", plan()).loop()
    assert second.trained == 24 - 8  # saved after two epochs of four steps
    assert second.weights() == whole.weights()


def test_a_finished_run_trains_nothing_more(tmp_path: Path) -> None:
    Training(tmp_path, plan()).loop()
    again = Training(tmp_path, plan()).loop()
    assert again.trained == 0
    assert again.run.reason is StopReason.PLAN_DONE


@pytest.mark.parametrize("deadline", [1e6, 70.0])
def test_a_run_that_is_over_has_its_weights_when_it_is_started_again(
    tmp_path: Path, deadline: float
) -> None:
    limits = {"deadline": deadline, "counted_from": "total"}
    first = Training(tmp_path, plan(**limits)).loop()
    again = Training(tmp_path, plan(**limits)).loop()
    assert (again.trained, again.run.reason) == (0, first.run.reason)
    assert again.weights() == first.weights()
    assert again.run.best_checkpoint is not None


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path) -> None:
    whole = Training(tmp_path / "whole", plan()).loop()
    for deadline in (70.0, 90.0):
        Training(tmp_path / "a", plan(deadline=deadline, counted_from="total")).loop()
    damaged = newest(tmp_path / "a")
    damaged.write_bytes(damaged.read_bytes()[:-100])
    (tmp_path / "a" / "ledger.json").write_text("")
    second = Training(tmp_path / "a", plan()).loop()
    assert {"damaged-checkpoint", "damaged-ledger"} <= set(second.listener.notes())
    assert second.weights() == whole.weights()


def test_the_step_of_a_loop_that_ignores_it_leaves_the_loop(tmp_path: Path) -> None:
    training = Training(tmp_path, plan(deadline=70.0))
    with training.run as run:
        for _ in run.epochs():
            for batch in training.loader:
                try:
                    training.step(batch)
                    run.step()
                except Exception:  # noqa: BLE001 - a loop that forgives everything
                    pytest.fail("leaving is no error to forgive")
    assert run.reason is StopReason.BUDGET
    assert training.clock.now - 100 <= 70
    assert run.position.steps == training.trained
    saved = torch.load(newest(tmp_path))
    model = saved["objects"]["model"]
    assert torch.equal(model["0.weight"], training.model[0].weight)


def test_an_epoch_begun_again_is_newer_than_what_went_further(tmp_path: Path) -> None:
    """Without ``run.batches`` it begins at step 0, on the weights that it had reached."""

    def process(steps: int) -> Training:
        training = Training(tmp_path, plan(keep=1, evaluate_every=0))
        training.each_step = lambda: (
            training.trained == steps and os.kill(os.getpid(), signal.SIGTERM)
        )
        with contextlib.suppress(SystemExit), training.run as run:
            for _ in run.epochs():
                for batch in training.loader:
                    training.step(batch)
                    run.step()
        return training

    for steps in (3, 2, 1, 2):
        training = process(steps)
        assert (training.trained, training.run.reason) == (steps, StopReason.SIGNAL)
        saved = torch.load(newest(tmp_path))["objects"]["model"]
        assert torch.equal(saved["0.weight"], training.model[0].weight)


def test_batches_that_are_also_stepped_are_counted_once(tmp_path: Path) -> None:
    training = Training(tmp_path, plan(epochs=2))
    with training.run as run:
        for _ in run.epochs():
            for batch in run.batches(training.loader):
                training.step(batch)
                run.step()
    assert run.position.steps == training.trained == 8


def test_a_function_that_saves_needs_one_that_loads(tmp_path: Path) -> None:
    def save(path: Path) -> None:
        path.write_text("weights")

    own = {"state": None, "save": save}
    Training(tmp_path, plan(epochs=2), **own).loop()
    with pytest.raises(UsageError, match="this run has a checkpoint to go on from"):
        Training(tmp_path, plan(epochs=4), **own).loop()
    with_own_reading = Training(tmp_path, plan(epochs=4), **own)
    with with_own_reading.run as run:
        assert run.checkpoint is not None
        assert run.checkpoint.read_text() == "weights"
        assert list(run.epochs()) == [2, 3]
    loaded: list[Path] = []
    Training(tmp_path, plan(epochs=5), **own, load=loaded.append).loop()
    assert loaded == [tmp_path / "checkpoints" / "00004-0000000008" / "checkpoint.pt"]


def test_what_cannot_be_saved_is_said_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a run that is to stop in time needs a way to save"):
        ec.follow(plan(), folder=tmp_path)
    with pytest.raises(UsageError, match="either state=, or save= and load="):
        ec.follow(plan(), folder=tmp_path, state={}, save=print)
    with pytest.raises(UsageError, match="rate has no state_dict and load_state_dict"):
        ec.follow(plan(), folder=tmp_path, state={"rate": 0.1})


def test_a_plan_is_read_from_its_file(tmp_path: Path) -> None:
    plan().save(tmp_path / "plan.json")
    assert isinstance(ec.follow(tmp_path / "plan.json", state={}, folder=tmp_path), FollowedRun)
    with pytest.raises(StoreError, match="cannot read a plan from"):
        ec.follow(tmp_path / "none.json", state={}, folder=tmp_path)


def test_another_model_than_the_checkpoints_is_named(tmp_path: Path) -> None:
    TorchState({"model": nn.Linear(2, 2)}).write(tmp_path / "a.pt")
    with pytest.raises(StoreError, match="holds model, but this run consists of net"):
        TorchState({"net": nn.Linear(2, 2)}).read(tmp_path / "a.pt")
    (tmp_path / "a.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(StoreError, match="cannot read the checkpoint"):
        TorchState({"net": nn.Linear(2, 2)}).read(tmp_path / "a.pt")


class Stateful:
    """Whatever has a state."""

    def __init__(self, state: object) -> None:
        self.state = state

    def state_dict(self) -> object:
        return self.state

    def load_state_dict(self, state: object) -> None:
        self.state = state


def test_what_numpy_left_in_a_state_can_be_read_again(tmp_path: Path) -> None:
    state = {
        "rate": np.float64(0.1),
        np.int64(3): [np.bool_(True)],
        "mean": np.arange(3.0),
        "names": np.array(["a"]),
        "pair": (1, np.int32(2)),
    }
    TorchState({"it": Stateful(state)}).write(tmp_path / "a.pt")
    it = Stateful(None)
    TorchState({"it": it}).read(tmp_path / "a.pt")
    assert isinstance(it.state, dict)
    mean = it.state.pop("mean")
    assert isinstance(mean, np.ndarray)
    assert list(mean) == [0.0, 1.0, 2.0]
    assert it.state == {"rate": 0.1, 3: [True], "names": ["a"], "pair": (1, 2)}


def test_a_module_keeps_the_versions_of_its_state(tmp_path: Path) -> None:
    state = nn.BatchNorm1d(2).state_dict()
    state["rate"] = np.float64(0.5)
    TorchState({"it": Stateful(state)}).write(tmp_path / "a.pt")
    it = Stateful(None)
    TorchState({"it": it}).read(tmp_path / "a.pt")
    assert it.state._metadata == state._metadata  # type: ignore[attr-defined]


def test_a_state_that_could_not_be_read_again_is_named_after_the_first_step(tmp_path: Path) -> None:
    own = {"state": {"net": nn.Linear(2, 2), "mine": Stateful({"path": tmp_path})}}
    training = Training(tmp_path, plan(), **own)
    with pytest.raises(UsageError, match=r"^mine has pathlib\.\w+ in its state, which could not"):
        training.loop()
    assert training.trained == 1
    assert CheckpointStore(tmp_path / "checkpoints", keep=0).last() is None


class Unpickled:
    """Whoever unpickles this runs its code."""

    def __reduce__(self):
        return (sys.exit, (1,))


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    torch.save({"objects": Unpickled()}, tmp_path / "a.pt")
    with pytest.raises(StoreError, match="cannot read the checkpoint"):
        TorchState({}).read(tmp_path / "a.pt")


@pytest.mark.parametrize(("given", "left"), [(None, 128 + signal.SIGTERM), (85, 85)])
def test_a_signal_leaves_with_the_schedulers_code(
    tmp_path: Path, given: int | None, left: int
) -> None:
    training = Training(tmp_path, plan(), exit_code=given)
    before = signal.getsignal(signal.SIGTERM)
    training.each_step = lambda: training.trained == 5 and os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(SystemExit) as leaving:
        training.loop()
    assert leaving.value.code == left
    assert training.run.position.steps == 5
    assert signal.getsignal(signal.SIGTERM) == before
    assert Training(tmp_path, plan()).loop().trained == 24 - 5


def test_a_signal_during_an_evaluation_saves_at_once_and_evaluates_again(tmp_path: Path) -> None:
    training = Training(tmp_path, plan())

    def long_evaluation() -> float:
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("it would have gone on")

    training.evaluate = long_evaluation  # type: ignore[method-assign]
    with pytest.raises(SystemExit):
        training.loop()
    assert training.run.position.step == 4
    second = Training(tmp_path, plan()).loop()
    assert second.trained == 24 - 4
    assert second.run.best_checkpoint is not None


@pytest.mark.parametrize("own", [False, True])
def test_weights_that_an_evaluation_swaps_in_are_not_saved(tmp_path: Path, own: bool) -> None:
    training = Training(tmp_path, plan())
    if own:
        states = {"model": training.model}
        training = Training(
            tmp_path,
            plan(),
            state=None,
            save_in_evaluation=False,
            save=lambda path: torch.save(
                {"objects": {name: thing.state_dict() for name, thing in states.items()}}, path
            ),
        )
        states["model"] = training.model

    def evaluate() -> float:
        trained = [p.detach().clone() for p in training.model.parameters()]
        for weight in training.model.parameters():
            weight.data.zero_()  # which torch's counter of versions does not see
        os.kill(os.getpid(), signal.SIGTERM)
        for weight, before in zip(training.model.parameters(), trained, strict=True):
            weight.data.copy_(before)
        return 1.0

    training.evaluate = evaluate  # type: ignore[method-assign]
    with pytest.raises(SystemExit):
        training.loop()
    assert (training.run.reason, training.trained) == (StopReason.SIGNAL, 4)
    assert training.run.position.epoch == 1  # evaluated
    saved = torch.load(newest(tmp_path))["objects"]["model"]
    assert torch.equal(saved["0.weight"], training.model[0].weight)


@pytest.mark.filterwarnings("ignore:Detected call of")  # it goes on at an epoch's end
def test_leaving_the_loop_by_oneself_saves(tmp_path: Path) -> None:
    training = Training(tmp_path, plan())
    with training.run as run:
        for epoch in run.epochs():
            for batch in run.batches(training.loader):
                training.step(batch)
            if epoch == 2:
                break
    assert run.reason is None
    assert Training(tmp_path, plan()).loop().trained == 24 - 12
