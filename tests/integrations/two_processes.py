"""What ``torchrun`` starts for test_distributed.py: one run after the other, each rank's end noted.

    torchrun --nproc-per-node 2 two_processes.py FOLDER

FOLDER holds plans, ``<name>.json``; each rank writes ``<name>-<rank>.json`` beside it.
"""

import json
import os
import random
import signal
import sys
from collections.abc import Callable, Iterator
from itertools import repeat
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import epochcast as ec

SAMPLES, BATCH = 80, 4  # ten steps an epoch on each of two ranks


class Clock:
    """Each rank has its own time: they agree all the same."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now


def train(
    folder: Path,
    plan: str,
    rank: int,
    clock: Clock,
    *,
    step_seconds: float = 5.0,
    each_step: Callable[[int], None] = lambda steps: None,
    losses: Iterator[float | None] | None = None,
    run_folder: str = "",
    seed: int = 0,
) -> dict:
    torch.manual_seed(10 * seed + rank)
    random.seed(10 * seed + rank)
    net = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1))
    model = DistributedDataParallel(net)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    x = torch.arange(3.0 * SAMPLES).reshape(SAMPLES, 3) / 100
    data = TensorDataset(x, x.sum(1, keepdim=True))
    loader = DataLoader(data, BATCH, sampler=DistributedSampler(data, seed=3))
    trained, code = 0, None
    run = ec.follow(
        folder / f"{plan}.json",
        state={"model": model, "optimizer": optimizer},
        folder=folder / (run_folder or plan),
        clock=clock,
        watchers=[],
        store=False,
    )
    try:
        with run:
            for _ in run.epochs():
                for features, target in run.batches(loader):
                    loss = ((model(features) - target) ** 2).mean()
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    trained += 1
                    clock.now += step_seconds
                    each_step(trained)
                if run.due("evaluate"):
                    value = next(losses) if losses else 1.0
                    if value is not None:
                        run.report(val_loss=value)
    except SystemExit as left:
        code = left.code
    reason = run.reason.value if run.reason else None
    at = run.position
    weights = [float(w.double().abs().sum()) for w in model.parameters()]
    return {
        "trained": trained,
        "position": [at.epoch, at.step, at.steps],
        "reason": reason,
        "code": code,
        "spent": clock.now,
        "weights": weights,
        "chance": float(torch.rand(1)),
    }


def interrupt(rank: int, at: int) -> Callable[[int], None]:
    """One rank alone gets the signal."""

    def each_step(steps: int) -> None:
        if steps == at and dist.get_rank() == rank:
            os.kill(os.getpid(), signal.SIGTERM)

    return each_step


def main(folder: Path) -> None:
    dist.init_process_group("gloo")
    rank = dist.get_rank()

    def note(name: str, **settings: object) -> None:
        plan = settings.pop("plan", name)
        done = train(folder, plan, rank, settings.pop("clock", Clock()), **settings)
        (folder / f"{name}-{rank}.json").write_text(json.dumps(done))

    slower = 5.0 if rank == 0 else 7.0
    clock = Clock()
    note("budget", clock=clock, step_seconds=slower)
    note("richer", clock=clock, step_seconds=slower, run_folder="budget")
    falling = iter([1.0, 0.9, 0.95, 0.93, 0.92, 0.5, 0.4])
    note("patience", losses=falling if rank == 0 else iter(range(100, 0, -1)))
    note(
        "first_alone",
        plan="patience",
        run_folder="first_alone",
        losses=iter([1.0, 0.9, 0.95, 0.93, 0.92, 0.5]) if rank == 0 else repeat(None),
    )
    short = {"plan": "short", "step_seconds": 0.1}  # steps so short that not each is agreed on
    note("whole", **short)
    note("signal", **short, run_folder="parts", each_step=interrupt(1, 14))
    note("resumed", **short, run_folder="parts", seed=5)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
