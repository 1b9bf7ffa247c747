"""Lightning, Trainer and Keras under the bootstrap: each is stopped after two epochs."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
from bootstrap_runs import Run, run

from epochcast.scripts.events import (
    Declared,
    Ending,
    Failed,
    Loader,
    Optimizer,
    PassBegan,
    PassEnded,
    Save,
)

SCRIPT = """
import gc, os, logging, warnings
import numpy, torch, keras, lightning, transformers
from torch.utils.data import DataLoader, TensorDataset
warnings.simplefilter("ignore")
logging.disable(logging.WARNING)
watch = next(one for one in gc.get_objects() if type(one).__name__ == "ProcessWatch")
def as_in_another_script():
    watch.ending.by_framework = False
    for seen in watch.loaders._seen.values():
        seen.epochs = 0
inputs = torch.randn(8_000, 4)
answers = inputs.sum(1, keepdim=True)

class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)
    def training_step(self, batch, index):
        return torch.nn.functional.mse_loss(self.layer(batch[0]), batch[1])
    def validation_step(self, batch, index):
        self.log("held_out", self.training_step(batch, index))
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)

data = TensorDataset(inputs, answers)
stop = lightning.pytorch.callbacks.EarlyStopping("held_out", patience=9)  # needs its metric
best = lightning.pytorch.callbacks.ModelCheckpoint("lightning", monitor="held_out")
lightning.Trainer(
    max_epochs=9, accelerator="cpu", accumulate_grad_batches=2, callbacks=[stop, best],
    logger=False, enable_progress_bar=False, enable_model_summary=False,
).fit(Module(), DataLoader(data, 4, shuffle=True), DataLoader(data, 4))
as_in_another_script()

class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return len(inputs)
    def __getitem__(self, index):
        return {"x": inputs[index], "labels": answers[index]}

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)
    def forward(self, x, labels):
        found = self.layer(x)
        return {"loss": torch.nn.functional.mse_loss(found, labels), "logits": found}

arguments = transformers.TrainingArguments(
    "transformers", num_train_epochs=9, per_device_train_batch_size=4, report_to=[],
    per_device_eval_batch_size=8, gradient_accumulation_steps=2, eval_strategy="epoch",
    save_strategy="epoch", use_cpu=True, disable_tqdm=True,
)
transformers.Trainer(Net(), arguments, train_dataset=Rows(), eval_dataset=Rows()).train()
as_in_another_script()

model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
model.compile(optimizer=keras.optimizers.RMSprop(gradient_accumulation_steps=2), loss="mse")
held_out = (inputs.numpy(), answers.numpy())
model.fit(*held_out, batch_size=4, epochs=9, validation_data=held_out, verbose=0)
model.save("model.keras")
print("whole", flush=True)
model.fit(*held_out, batch_size=8, epochs=9, verbose=0)
print("never", flush=True)
"""
LIGHTNING, TRANSFORMERS, KERAS = "lightning", "transformers", "keras"
FRAMEWORKS = (LIGHTNING, TRANSFORMERS, KERAS)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    if not all(find_spec(package) for package in FRAMEWORKS):
        pytest.skip("needs Lightning, transformers and Keras")
    settings = {"epochs": 2, "pass_seconds": 0.2, "evaluation_seconds": 0.1}
    folder = tmp_path_factory.mktemp("frameworks")
    return run(folder, SCRIPT, settings, {"KERAS_BACKEND": "torch"})


def passes(trained: Run, framework: str) -> list[PassEnded]:
    """What a framework drew, in order."""
    edges = [event.at for event in trained.of(Declared)] + [float("inf")]
    first = FRAMEWORKS.index(framework)
    return [e for e in trained.of(PassEnded) if edges[first] <= e.at < edges[first + 1]]


def test_they_train_to_their_end(trained: Run) -> None:
    assert trained.code == 0, trained.errors
    assert trained.output.splitlines()[-1] == "whole"
    assert not trained.of(Failed)


def test_they_are_stopped_after_their_evaluation_and_ended_where_they_train_again(
    trained: Run,
) -> None:
    endings = trained.of(Ending)
    assert [event.attempt for event in endings] == [0, 0, 0, 1]
    for framework, ending in zip(FRAMEWORKS, endings, strict=False):
        assert (
            max(event.at for event in passes(trained, framework) if event.batches > 2) < ending.at
        )
    assert trained.of(Save)[-1].began > endings[2].at  # what a script does at its own end is seen


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_training_passes_are_cut_and_evaluations_follow(trained: Run, framework: str) -> None:
    drawn = passes(trained, framework)
    training = [event for event in drawn if event.steps]
    assert [event.outcome for event in training] == ["cut", "cut"]
    assert len({event.loader for event in training}) == 1
    evaluations = [event for event in drawn if not event.steps and event.batches > 2]
    assert len(evaluations) == 2
    assert all(one.at <= two.at for one, two in zip(training, evaluations, strict=True))


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_accumulation_ends_on_a_step(trained: Run, framework: str) -> None:
    for event in passes(trained, framework):
        if event.steps:
            late = len(trained.steps(event.loader)) and framework == TRANSFORMERS
            assert event.batches == 2 * (event.steps + late)  # read ahead: the last one is late


def test_they_declare_what_they_will_do(trained: Run) -> None:
    first, second, third, _ = trained.of(Declared)
    assert [event.framework for event in (first, second, third)] == list(FRAMEWORKS)
    assert {event.epochs for event in (first, second, third)} == {9}
    assert first.accumulate == 2
    assert second.accumulate == 2
    assert third.batches == 2_000


def test_a_save_is_one_whatever_it_is_made_of(trained: Run) -> None:
    saves = [(event.writer, event.bytes > 0) for event in trained.of(Save)]
    assert saves.count((LIGHTNING, True)) == 2
    assert saves.count((TRANSFORMERS, True)) >= 2
    assert saves[-1] == (KERAS, True)
    assert {writer for writer, _ in saves} == set(FRAMEWORKS)


def test_loaders_keep_their_number_though_each_epoch_makes_new_ones(trained: Run) -> None:
    samples = [event.samples for event in trained.of(Loader)]
    assert set(samples) == {8_000}
    assert {began.stage for began in trained.of(PassBegan)} >= {"sanity_check", "train", "validate"}


def test_the_optimizers_of_keras_are_seen(trained: Run) -> None:
    *_, keras = trained.of(Optimizer)
    assert keras.name.startswith("keras.")
    assert keras.parameters == 5
