"""A LightningModule and a Trainer as they are, lifted into a workload."""

from __future__ import annotations

from itertools import repeat
from pathlib import Path

import pytest
import torch
from frameworks import needed
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import epochcast as ec
from epochcast.errors import WorkloadError
from epochcast.profiler.device import HostTimer
from epochcast.profiler.footprint.dry_run import simulate
from epochcast.profiler.footprint.tracker import measure_footprint
from epochcast.profiler.loop import TrainingLoop, config_of

lightning = needed("lightning")
transformers = needed("transformers")
needed("accelerate")

Averaging = lightning.pytorch.callbacks.StochasticWeightAveraging
BATCH, VALIDATION = 4, 8


@pytest.fixture(autouse=True)
def no_datasets(monkeypatch):
    """The folder of this name among the tests is not the package."""
    monkeypatch.setattr("transformers.trainer.is_datasets_available", lambda: False)


def loop_of(made):
    return TrainingLoop(made, config_of(made, None, ()), torch.device("cpu"))


# -- a LightningModule -----------------------------------------------------------------------------


class Lifted(lightning.LightningModule):
    """A scheduler for each step, which asks the Trainer how many there are; all is logged."""

    def __init__(self, **attributes) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
        for name, value in attributes.items():
            setattr(self, name, value)

    def training_step(self, batch, index):
        loss = self.net(batch[0]).square().mean()
        self.log("loss", loss)
        return {"loss": loss}

    def validation_step(self, batch):
        self.log_dict({"val_loss": self.net(batch[0]).mean()})

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters())
        steps = int(self.trainer.estimated_stepping_batches)
        cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps)
        return [optimizer], [{"scheduler": cycle, "interval": "step"}]


class Rows(lightning.LightningDataModule):
    def setup(self, stage):
        self.rows = TensorDataset(torch.randn(40, 4))

    def train_dataloader(self):
        return DataLoader(self.rows, batch_size=8, shuffle=True, drop_last=True)

    def val_dataloader(self):
        return DataLoader(self.rows, batch_size=10)

    def on_after_batch_transfer(self, batch, index):
        return [batch[0] * 2]


def quiet(**options):
    silent = {"logger": False, "enable_checkpointing": False, "accelerator": "cpu"}
    return lightning.Trainer(**silent, **options)


def test_a_module_is_taken_over_with_its_trainer() -> None:
    options = {"max_epochs": 3, "accumulate_grad_batches": 2, "precision": "bf16-mixed"}
    trainer = quiet(**options, gradient_clip_val=0.5, limit_train_batches=4)
    made = ec.Workload.from_lightning(Lifted(), Rows(), trainer)
    assert (made.batch_size, made.eval_batch_size, made.drop_last, made.shuffle) == (
        8,
        10,
        True,
        True,
    )
    assert (made.accumulation, made.precision, made.clip_norm) == (2, "bf16", 0.5)
    assert (made.samples_per_epoch, made.samples_per_evaluation) == (32, 40)
    assert made.schedulers[0].total_steps == 3 * 2
    loop = loop_of(made)
    updates = [len(loop.micro_step(batch, HostTimer())) for batch in loop.train_loader()]
    assert updates == [0, 1, 0, 1]
    for batch in loop.eval_loader() or ():
        loop.evaluate(batch)
    (fake,) = simulate(lambda: ec.Workload.from_lightning(Lifted(), Rows(), trainer))
    assert fake.footprint == measure_footprint(loop)


def test_hooks_of_a_step_are_called() -> None:
    seen = []

    class Hooked(Lifted):
        def on_before_optimizer_step(self, optimizer):
            seen.append(("before", self.net[0].weight.grad is not None))

        def on_before_zero_grad(self, optimizer):
            seen.append(("after", type(optimizer).__name__))

    made = ec.Workload.from_lightning(Hooked(), Rows())
    loop = loop_of(made)
    loop.micro_step(next(iter(loop.train_loader())), HostTimer())
    assert seen == [("before", True), ("after", "AdamW")]


def test_hooks_before_the_first_step_are_called_once_on_the_device() -> None:
    seen = []

    class Begun(Lifted):
        def on_train_start(self):
            seen.append("train")
            self.share = torch.ones((), device=self.device)

        def on_validation_epoch_start(self):
            seen.append("validation")

        def training_step(self, batch, index):
            return super().training_step(batch, index)["loss"] * self.share

    made = ec.Workload.from_lightning(Begun(), Rows())
    assert seen == []  # the module may yet be moved
    loop = loop_of(made)
    for batch in loop.train_loader():
        loop.micro_step(batch, HostTimer())
    for batch in loop.eval_loader() or ():
        loop.evaluate(batch)
    assert seen == ["train", "validation"]


class Streaming(IterableDataset):
    def __iter__(self):
        return repeat((torch.ones(4),))


def test_a_loader_without_a_length_or_a_batch_size() -> None:
    made = ec.Workload.from_lightning(Lifted(), DataLoader(Streaming(), batch_size=5), samples=21)
    assert (made.batch_size, made.samples_per_epoch, made.eval_data) == (5, 21, None)
    whole = DataLoader(TensorDataset(torch.ones(3, 7, 4)), batch_size=None)
    with pytest.raises(WorkloadError, match=r"does not say how large .* batch_from_data=True"):
        ec.Workload.from_lightning(Lifted(), whole)


@pytest.mark.parametrize(
    ("attributes", "method", "options", "message"),
    [
        ({"automatic_optimization": False}, {}, {}, "Made has automatic_optimization=False"),
        ({}, {"backward": lambda *_: None}, {}, "backward of its own.* in train_step="),
        ({}, {"on_train_batch_end": lambda *_: None}, {}, "on_train_batch_end .*after_update="),
        ({}, {"configure_optimizers": lambda _: [1, 2]}, {}, r"returns 2 optimizers.*optimizer=\["),
        ({}, {}, {"precision": "bf16-true"}, "precision='bf16-true' cannot be taken over"),
        (
            {},
            {},
            {"callbacks": [lightning.pytorch.callbacks.StochasticWeightAveraging(1e-2)]},
            "callback StochasticWeight",
        ),
        ({}, {"training_step": lambda s, dataloader_iter: None}, {}, "takes dataloader_iter"),
        ({}, {"configure_optimizers": lambda _: None}, {}, "returns None: nothing is trained"),
        ({}, {}, {"limit_train_batches": 0}, "limit_train_batches=0 trains nothing"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_what_cannot_be_taken_over_is_refused_by_name(attributes, method, options, message) -> None:
    module = type("Made", (Lifted,), method)(**attributes)
    with pytest.raises(WorkloadError, match=message):
        ec.Workload.from_lightning(module, Rows(), quiet(**options))


@pytest.mark.parametrize(
    ("module", "data", "message"),
    [
        (nn.Linear(2, 2), Rows(), "needs a LightningModule, but got Linear"),
        (Lifted(), quiet(), r"a Trainer is no data: from_lightning\(module, trainer=…\)"),
        (Lifted(), DataLoader(Streaming(), 5), r"no length: give from_lightning samples="),
    ],
    ids=["module", "trainer", "stream"],
)
def test_what_is_no_module_or_no_data_is_said(module, data, message) -> None:
    with pytest.raises(WorkloadError, match=message):
        ec.Workload.from_lightning(module, data)


# -- a Trainer -------------------------------------------------------------------------------------


class Sentences(Dataset):
    """Vectors with their class, and a column that the model does not know."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> dict:
        return {"x": torch.ones(6) * i, "labels": i % 6, "name": "a column that is removed"}


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 6))

    def forward(self, x, labels=None):
        logits = self.layers(x)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def trainer_of(tmp_path: Path, kind=transformers.Trainer, data=None, **options):
    torch.manual_seed(0)
    given = {"per_device_train_batch_size": BATCH, "eval_strategy": "epoch", **options}
    args = transformers.TrainingArguments(str(tmp_path), report_to="none", use_cpu=True, **given)
    evaluated = Sentences(VALIDATION)
    return kind(Classifier(), args, train_dataset=data or Sentences(40), eval_dataset=evaluated)


def test_a_trainer_is_taken_over(tmp_path: Path) -> None:
    options = {"gradient_accumulation_steps": 2, "max_grad_norm": 0.5, "warmup_steps": 3}

    def lift():
        trainer = trainer_of(tmp_path, num_train_epochs=2, bf16=True, **options)
        made = ec.Workload.from_trainer(trainer)
        assert (trainer.optimizer, trainer.lr_scheduler) == (None, None)
        return made

    made = lift()
    assert (made.batch_size, made.eval_batch_size, made.accumulation) == (BATCH, 8, 2)
    assert (made.precision, made.clip_norm, made.shuffle) == ("bf16", 0.5, True)
    assert (made.samples_per_epoch, made.samples_per_evaluation) == (40, VALIDATION)
    assert [len(group["params"]) for group in made.optimizer.param_groups] == [2, 2]
    loop = loop_of(made)
    updates = [len(loop.micro_step(b, HostTimer())) for b in loop.train_loader()]
    assert updates == [0, 1] * 5
    assert made.schedulers[0].last_epoch == 5
    (fake,) = simulate(lift)
    real = measure_footprint(loop)
    assert (fake.footprint.flops, fake.footprint.peak_bytes) == (real.flops, real.peak_bytes)


class Streamed(IterableDataset):
    def __iter__(self):
        return iter(Sentences(40))


def test_a_trainer_that_never_evaluates_of_a_stream(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, data=Streamed(), eval_strategy="no", max_steps=7)
    made = ec.Workload.from_trainer(trainer)
    assert (made.eval_data, made.samples_per_epoch) == (None, 7 * BATCH)


class Stepping(transformers.Trainer):
    def training_step(self, *args, **kwargs):
        return super().training_step(*args, **kwargs)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (Stepping, {}, "Stepping has a training_step of its own: .* with train_step="),
        (transformers.Trainer, {"neftune_noise_alpha": 5.0}, "neftune_noise_alpha=5.0 cannot be"),
        (transformers.Trainer, {"torch_empty_cache_steps": 3}, "torch_empty_cache_steps=3 cannot"),
    ],
)
def test_what_of_a_trainer_cannot_be_taken_over(tmp_path: Path, kind, options, message) -> None:
    with pytest.raises(WorkloadError, match=message):
        ec.Workload.from_trainer(trainer_of(tmp_path, kind, **options))


def test_what_is_no_trainer_or_has_no_data_is_said(tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match=r"needs a transformers\.Trainer, but got Linear"):
        ec.Workload.from_trainer(nn.Linear(2, 2))
    arguments = transformers.TrainingArguments(str(tmp_path), report_to=[], use_cpu=True)
    with pytest.raises(WorkloadError, match="has no train_dataset="):
        ec.Workload.from_trainer(transformers.Trainer(nn.Linear(2, 2), arguments))
