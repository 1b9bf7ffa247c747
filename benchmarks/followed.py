"""One process that trains digits-mlp under a guard; benchmarks/following.py starts it.

    python benchmarks/followed.py budget plain|lightning|transformers|keras PLAN FOLDER RUNS SEED
    python benchmarks/followed.py train PLAN FOLDER

``budget`` follows the plan in RUNS runs, each in a folder of its own, with a slow-down that begins
at a random step: from there each step sleeps for a random time. Prints a line of JSON a run.
``train`` is one run in a plain loop, to be killed; it prints a line after every step.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

import epochcast as ec
from epochcast.profiler.builtin import BUILTIN
from epochcast.records import Plan

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
    found = sorted(p for p in (folder / "checkpoints").iterdir() if p.name.isdecimal())
    return found[-1] / "checkpoint.pt" if found else None


def loads(path: Path | None) -> bool:
    """Whether a checkpoint is there and whole."""
    return path is not None and len(torch.load(path, weights_only=True)) > 0


TRAININGS = {"plain": (plain, loads)}


def budget(framework: str, plan: Plan, folder: Path, runs: int, seed: int) -> None:
    train, is_whole = TRAININGS[framework]
    steps = plan.chosen.horizon_steps
    began = time.monotonic()
    for i in range(runs):
        place = folder / f"{framework}-{i}"
        checkpoint = train(plan, place, SlowDown(seed + i, steps))
        ended = time.monotonic()
        end = json.loads((place / "log.jsonl").read_text().splitlines()[-1])
        row = {
            "seconds": ended - began,
            "reason": end["reason"],
            "epochs": end["position"]["epoch"],
            "spent": end["spent_seconds"],
            "whole": is_whole(checkpoint),
        }
        print(json.dumps(row), flush=True)
        began = time.monotonic()


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
