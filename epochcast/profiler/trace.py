"""One short torch.profiler trace of a configuration, for people to look at.

    │ wait │ warm-up │ active │ active │     torch.profiler.schedule; written when active ends

The trace labels the parts of the loop. Times in it are longer than the measured ones: recording
shapes, stacks of modules and memory costs 30–130 % on small steps.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function, schedule

from epochcast.profiler import device as devices
from epochcast.profiler.protocol import Task
from epochcast.profiler.timing import Stepper
from epochcast.profiler.trial import ready

UNPROFILED_STEPS = 3  # lazily allocated state, tuned kernels
WAIT, WARMUP, ACTIVE = 1, 1, 2
TRACE_NAME = "trace.json.gz"


def trace(task: Task) -> Path:
    """Trace a few steps of a configuration into ``task.folder``; the file is whole or absent.

    Raises:
        UsageError: torch has no such device here.
        WorkloadError: the workload cannot be built.
    """
    stepper = ready(task.spec)
    for _ in range(UNPROFILED_STEPS):
        stepper.step()
    folder = Path(task.folder)
    folder.mkdir(parents=True, exist_ok=True)
    partial, final = folder / f"partial-{os.getpid()}.json.gz", folder / TRACE_NAME
    try:
        _record(stepper, partial)
        partial.replace(final)
    finally:
        partial.unlink(missing_ok=True)  # the profiler writes what it has when a step fails
    return final


def _record(stepper: Stepper, path: Path) -> None:
    batches = stepper.batches()
    with profile(
        activities=_activities(stepper.loop.device),
        schedule=schedule(wait=WAIT, warmup=WARMUP, active=ACTIVE, repeat=1),
        on_trace_ready=lambda profiler: profiler.export_chrome_trace(str(path)),
        record_shapes=True,
        profile_memory=True,
        with_flops=True,
        with_modules=True,
    ) as profiler:
        for _ in range(WAIT + WARMUP + ACTIVE):
            _labelled_step(stepper, batches)
            profiler.step()


def _labelled_step(stepper: Stepper, batches: Iterator[Any]) -> None:
    with record_function("epochcast: wait for data"):
        batch = next(batches)
    with record_function("epochcast: train step"):
        stepper.loop.micro_step(batch, stepper.timer)
    with record_function("epochcast: synchronize"):
        devices.synchronize(stepper.loop.device)


def _activities(device: torch.device) -> list[ProfilerActivity]:
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    return activities
