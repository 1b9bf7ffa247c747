"""The guard in a plain loop under a deadline that its plan does not fit into; energy counters."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

import epochcast as ec
from epochcast.profiler.machine import process_age
from gpu_parts.child import Situation
from gpu_parts.probes import as_document, store_folder
from gpu_parts.sensors import Sensors
from gpu_parts.training import Setting, Training

WORKLOAD, SIZES, BATCH_SIZE = "mnist-mlp", {"width": 512, "depth": 1}, 512
DRY_WORKLOAD, DRY_SIZES, DRY_BATCH_SIZE = "digits-mlp", {"width": 16, "depth": 2}, 64
LIMIT, DRY_LIMIT = 12.0, 3.0  # seconds of following; the plan's epochs take far longer
EPOCHS = 500
IDLE_SECONDS, BUSY_SECONDS, DRY_SECONDS = 3.0, 8.0, 0.2
SIDE, DRY_SIDE = 8192, 64  # of the matrices whose products keep the device busy


def run(here: Situation) -> None:
    """Play a scenario."""
    {"deadline": deadline, "energy": energy}[here.scenario](here)


# -- deadline -----------------------------------------------------------------------------------


def deadline(here: Situation) -> None:
    """A real run that the guard must end in time, with a checkpoint that can be read."""
    setting = Setting(workload=WORKLOAD, sizes=SIZES, batch_size=BATCH_SIZE)
    if here.dry:
        setting = Setting(workload=DRY_WORKLOAD, sizes=DRY_SIZES, batch_size=DRY_BATCH_SIZE)
    sensors = Sensors()
    plan = plan_of(setting, here)
    before = sensors.energy_joules()
    found = followed(plan, setting, here)
    after = sensors.energy_joules()
    joules = None if before is None or after is None else after - before
    if joules is None:
        here.skip("energy of the run", sensors.why_not)
    here.emit("followed", joules=joules, plan=as_document(plan), **found)


def plan_of(setting: Setting, here: Situation) -> ec.Plan:
    """More epochs than fit, from the measurements of the probes' part or from new ones."""
    measurements = stored(setting.workload, here) or ec.probe(
        setting.workload,
        batch_sizes=(setting.batch_size,),
        sizes={name: (value,) for name, value in setting.sizes.items()},
        device=here.device,
        rounds=1,
        seconds=0.02 if here.dry else 0.4,
        traces=False,
        store=str(here.work / "store-guard" / "store.sqlite"),
    )
    return ec.plan(
        ec.fit(measurements),
        epochs=EPOCHS,
        batch_sizes=(setting.batch_size,),
        sizes=setting.sizes,
        evaluate=2,
    )


def stored(workload: str, here: Situation) -> tuple[ec.Measurement, ...]:
    """What the probes' part measured of a workload, if it did."""
    file = store_folder(here.work, "mnist-mlp") / "store.sqlite"
    if not file.exists():
        return ()
    with ec.Store.open(str(file)) as store:
        return store.measurements(workload=workload, status="ok")


def followed(plan: ec.Plan, setting: Setting, here: Situation) -> dict[str, Any]:
    """Train until the guard ends it; what its log says.

    Args:
        plan: whose budget is replaced by a deadline.
        setting: what is trained.
        here: where.
    """
    training = Training(setting, here.device)
    work = training.work
    folder = here.work / f"run-{time.monotonic_ns()}"
    loader = DataLoader(work.train_data, batch_size=setting.batch_size, shuffle=True)
    (sample,) = training.batches(1)
    training.step(sample)  # imports and tunes what it needs
    limit = process_age() + (DRY_LIMIT if here.dry else LIMIT)  # a process's first run counts so
    plan = replace(plan, budget=ec.Budget(deadline=limit))
    state = {"model": work.model, "optimizer": work.optimizer}
    with ec.follow(plan, state=state, folder=folder, store=False) as run:
        for epoch in run.epochs():
            for batch in run.batches(loader):
                training.step(batch)
            if run.due("evaluate"):
                training.evaluate(sample)
                run.report(val_loss=1.0 / (1 + epoch))
    training.wait()
    return {
        "deadline": limit,
        "seconds": process_age(),
        "reason": run.reason,
        "epochs": run.position.epoch,
        "steps": run.position.steps,
        "summary": run.summary(),
        "log": [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()],
        "checkpoint_loads": loads(folder, here.device),
    }


def loads(folder: Path, device: str) -> bool:
    """Whether there are checkpoints in a run's folder, and all can be read onto the device."""
    files = sorted(folder.glob("checkpoints/*/checkpoint.pt"))
    return bool(files) and all(torch.load(f, device, weights_only=True) for f in files)


# -- energy -------------------------------------------------------------------------------------


def energy(here: Situation) -> None:
    """Counter and power sensor, idle and busy: how often they change, whether they agree."""
    sensors = Sensors()
    idle = DRY_SECONDS if here.dry else IDLE_SECONDS
    busy = DRY_SECONDS if here.dry else BUSY_SECONDS
    matrix = torch.randn(*[DRY_SIDE if here.dry else SIDE] * 2, device=here.device)
    matrix = matrix.to(torch.bfloat16)

    def products() -> None:
        for _ in range(4):
            matrix @ matrix
        if here.on_cuda:
            torch.cuda.synchronize()

    series = {
        "idle": watched(sensors, idle, lambda: time.sleep(0.005)),
        "busy": watched(sensors, busy, products),
        "after": watched(sensors, idle, lambda: time.sleep(0.005)),
    }
    if sensors.why_not:
        here.skip("energy counter, power sensor", sensors.why_not)
    here.emit("energy", sensors=sensors.read(), series=series)


def watched(sensors: Sensors, seconds: float, work: Any) -> list[list[float | None]]:
    """[seconds, joules, watts] again and again while work is done.

    Args:
        sensors: that are read before each piece of work.
        seconds: for which this goes on.
        work: one piece of it.
    """
    began = time.monotonic()
    rows: list[list[float | None]] = []
    while (now := time.monotonic() - began) < seconds:
        rows.append([round(now, 4), sensors.energy_joules(), sensors.watts()])
        work()
    return rows
