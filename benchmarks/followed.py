"""One process that trains digits-mlp under a guard; benchmarks/following.py starts it.

    python benchmarks/followed.py budget plain|lightning|transformers|keras PLAN FOLDER RUNS SEED
    python benchmarks/followed.py train PLAN FOLDER

``budget`` follows the plan in RUNS runs, each in a folder of its own and after a first one that
only warms up, with a slow-down that begins at a random step of those that would fit without it:
from there each step sleeps for a random time. Prints a line a run, ``row`` and
JSON, for frameworks print lines of their own.
``train`` is one run in a plain loop, to be killed; it prints a line after every step.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

import epochcast as ec
from epochcast.guard.checkpoints import CONTENT, CheckpointStore
from epochcast.profiler.builtin import BUILTIN
from epochcast.records import Plan

ROW = "row "  # before the JSON of a run
SLOWEST = 0.02  # seconds that a slow step sleeps at most: several times what it computes


class SlowDown:
    """From a random step on, every step takes a random time longer."""

    def __init__(self, seed: int, steps: int) -> None:
        self._random = random.Random(seed)
        self._left = self._random.randrange(steps)
        self._slowest = self._random.uniform(0, SLOWEST)

    def __call__(self) -> None:
        self._left -= 1
        if self._left < 0:
            time.sleep(self._random.uniform(0, self._slowest))


def parts(plan: Plan) -> tuple[Any, DataLoader, DataLoader]:
    """The workload at the plan's sizes, and its loaders."""
    config = plan.chosen.config
    work = BUILTIN["digits-mlp"](**dict(config.sizes))
    training = DataLoader(work.train_data, batch_size=config.batch_size, shuffle=True)
    return work, training, DataLoader(work.eval_data, batch_size=256)


def train_step(work: Any, batch: Any) -> None:
    inputs, targets = batch
    work.loss(work.model(inputs), targets).backward()
    work.optimizer.step()
    work.optimizer.zero_grad()


def evaluate(work: Any, loader: DataLoader) -> float:
    work.model.eval()
    with torch.no_grad():
        losses = [work.loss(work.model(x), y).item() for x, y in loader]
    work.model.train()
    return sum(losses) / len(losses)


def plain(plan: Plan, folder: Path, each_step: Callable[[], None]) -> Path | None:
    """A plain loop; returns where the last checkpoint is."""
    work, training, validation = parts(plan)
    state = {"model": work.model, "optimizer": work.optimizer}
    with ec.follow(plan, state=state, folder=folder, store=False) as run:
        for _ in run.epochs():
            for batch in run.batches(training):
                train_step(work, batch)
                each_step()
            if run.due("evaluate"):
                run.report(val_loss=evaluate(work, validation))
    return last_checkpoint(folder)


def last_checkpoint(folder: Path) -> Path | None:
    last = CheckpointStore(folder / "checkpoints", keep=0).last()
    return last[0] / CONTENT if last else None


def loads(path: Path | None) -> bool:
    """Whether a checkpoint is there and whole."""
    return path is not None and len(torch.load(path, weights_only=True)) > 0


def in_lightning(plan: Plan, folder: Path, each_step: Callable[[], None]) -> Path | None:
    import lightning

    work, training, validation = parts(plan)

    class Digits(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = work.model

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            each_step()
            return work.loss(self.model(batch[0]), batch[1])

        def validation_step(self, batch: Any, index: int) -> None:
            self.log("val_loss", work.loss(self.model(batch[0]), batch[1]))

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters())

    follow = ec.integrations.lightning.FollowPlan(plan, folder=folder, store=False)
    trainer = lightning.Trainer(
        max_epochs=-1,
        accelerator="cpu",
        callbacks=[follow],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Digits(), training, validation, ckpt_path=follow.checkpoint)
    return last_checkpoint(folder)


def in_transformers(plan: Plan, folder: Path, each_step: Callable[[], None]) -> Path | None:
    from transformers import Trainer, TrainingArguments

    work, training, validation = parts(plan)

    class Digits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = work.model

        def forward(self, pixels: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
            if self.training:
                each_step()
            logits = self.model(pixels)
            return {"loss": work.loss(logits, labels), "logits": logits}

    class Named(torch.utils.data.Dataset):
        def __init__(self, pairs: Any) -> None:
            self.pairs = pairs

        def __len__(self) -> int:
            return len(self.pairs)

        def __getitem__(self, i: int) -> dict[str, Any]:
            return dict(zip(("pixels", "labels"), self.pairs[i], strict=True))

    follow = ec.integrations.transformers.FollowPlan(plan, folder=folder, store=False)
    arguments = TrainingArguments(
        output_dir=str(folder / "trainer"),
        num_train_epochs=plan.chosen.epochs,
        per_device_train_batch_size=plan.chosen.config.batch_size,
        eval_strategy="epoch",
        logging_strategy="no",
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        report_to=[],
    )
    trainer = Trainer(
        model=Digits(),
        args=arguments,
        train_dataset=Named(training.dataset),
        eval_dataset=Named(validation.dataset),
        callbacks=[follow],
    )
    trainer.train(resume_from_checkpoint=follow.checkpoint)
    return last_checkpoint(folder)


def weights_load(path: Path | None) -> bool:
    """Of a Trainer's checkpoint."""
    from safetensors.torch import load_file

    return path is not None and len(load_file(path / "model.safetensors")) > 0


def network(plan: Plan) -> Any:
    """The network of digits-mlp in Keras."""
    import keras

    sizes = dict(plan.chosen.config.sizes)
    hidden = [keras.layers.Dense(sizes["width"], "relu") for _ in range(int(sizes["depth"]))]
    model = keras.Sequential([keras.layers.Input((64,)), *hidden, keras.layers.Dense(10)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def in_keras(plan: Plan, folder: Path, each_step: Callable[[], None]) -> Path | None:
    import keras

    from epochcast.datasets.local import load_digits

    model = network(plan)
    follow = ec.integrations.keras.FollowPlan(plan, folder=folder, store=False)
    slow = keras.callbacks.LambdaCallback(on_train_batch_begin=lambda batch, logs: each_step())
    model.fit(
        *load_digits(train=True),
        batch_size=plan.chosen.config.batch_size,
        epochs=10**6,
        validation_data=load_digits(train=False),
        validation_freq=follow.validation_freq,
        callbacks=[slow, follow],
        verbose=0,
    )
    if follow.checkpoint is not None:
        model.load_weights(follow.best_checkpoint or follow.checkpoint)
    return last_checkpoint(folder)


def keras_loads(path: Path | None) -> bool:
    """``in_keras`` has read one; here is the newest."""
    import h5py

    if path is None:
        return False
    with h5py.File(path if path.is_file() else next(path.glob("*.h5"))) as file:
        return len(file) > 0


TRAININGS = {
    "plain": (plain, loads),
    "lightning": (in_lightning, loads),
    "transformers": (in_transformers, weights_load),
    "keras": (in_keras, keras_loads),
}


def budget(framework: str, plan: Plan, folder: Path, runs: int, seed: int) -> None:
    train, is_whole = TRAININGS[framework]
    train(one_epoch(plan), folder / f"{framework}-first", lambda: None)  # imports and warms up
    epochs = (plan.budget.deadline or 0.0) / plan.prices.epoch.p50
    steps = max(1, int(epochs * plan.chosen.steps_per_epoch))
    for i in range(runs):
        place = folder / f"{framework}-{i}"
        checkpoint = train(plan, place, SlowDown(seed + i, steps))
        print(ROW + json.dumps(row_of(place, time.time(), is_whole(checkpoint))), flush=True)


def one_epoch(plan: Plan) -> Plan:
    """The plan's first epoch, however long it takes."""
    chosen = replace(plan.chosen, epochs=1)
    return replace(plan, budget=ec.Budget(), options=(chosen,), timeline=plan.timeline[:1])


def row_of(folder: Path, ended: float, whole: bool) -> dict[str, Any]:
    """What a run's log tells, and how long it took by the clock on the wall.

    Args:
        ended: when the training function had returned, seconds since 1970.
    """
    start, *_, end = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return {
        "seconds": ended - (start["wall_time"] - start["spent_seconds"]),
        "reason": end["reason"],
        "epochs": end["position"]["epoch"],
        "steps": end["position"]["steps"],
        "spent": end["spent_seconds"],
        "whole": whole,
    }


def train(plan: Plan, folder: Path) -> None:
    plain(plan, folder, lambda: print("step", flush=True))


if __name__ == "__main__":
    torch.manual_seed(0)
    torch.set_num_threads(1)
    if sys.argv[1] == "budget":
        framework, path, folder, runs, seed = sys.argv[2:]
        budget(framework, Plan.load(path), Path(folder), int(runs), int(seed))
    else:
        train(Plan.load(sys.argv[2]), Path(sys.argv[3]))
