"""What test_kill.py starts and kills: training that waits at every moment at which a kill may hurt.

    python killed.py FOLDER PLAN

Each moment is a line on stdout, ``kind steps``; a line on stdin lets it go on.
"""

import io
import os
import random
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import epochcast as ec
from epochcast.integrations import state

SAMPLES, BATCH, STEP_SECONDS = 40, 4, 5.0

Moment = Callable[[str], None]


def train(
    folder: Path, plan: str | Path | ec.Plan, moment: Moment, each_step: Callable = lambda *_: None
):
    """One process of a run, on a clock of its own."""
    now = [1000.0]
    clock = SimpleNamespace(monotonic=lambda: now[0], wall=lambda: now[0])
    torch.manual_seed(0)
    random.seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    x = torch.arange(3.0 * SAMPLES).reshape(SAMPLES, 3) / 100
    loader = DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), BATCH, shuffle=True)
    run = ec.follow(
        plan,
        state={"model": model, "optimizer": optimizer},
        folder=folder,
        clock=clock,
        watchers=[],
        store=False,
    )
    with run:
        moment("begin")
        for _ in run.epochs():
            for features, target in run.batches(loader):
                loss = ((model(features) - target) ** 2).mean() * (1 + 0.1 * random.random())
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                now[0] += STEP_SECONDS
                moment("step")
                each_step(run.position.steps + 1, model)
            if run.due("evaluate"):
                moment("evaluate")
                run.report(val_loss=1.0)
    return run


def main(folder: Path, plan: Path) -> None:
    steps = 0

    def moment(kind: str) -> None:
        nonlocal steps
        steps += kind == "step"
        os.write(1, f"{kind} {steps}\n".encode())  # a signal's handler may be waiting here too
        os.read(0, 1)

    def first(kind: str, function: Callable) -> Callable:
        @wraps(function)
        def waiting(*arguments, **settings):
            moment(kind)
            return function(*arguments, **settings)

        return waiting

    def save(states: dict, path: Path) -> None:
        content = io.BytesIO()
        whole(states, content)
        with open(path, "wb") as file:
            file.write(content.getvalue()[:1000])
            file.flush()
            moment("save")
            file.write(content.getvalue()[1000:])

    whole = state.torch.save
    state.torch.save = save
    for name in ("fsync", "replace", "unlink"):
        setattr(os, name, first(name, getattr(os, name)))
    train(folder, plan, moment)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
