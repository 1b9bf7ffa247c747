"""Dry runs in a worker process, asked for without torch.

request ── describe ──▶ worker: knobs          one process for all
        ── dry-run, model size 1, batch sizes ──▶ the model is built once
        ── dry-run, model size 2, batch sizes ──▶ …
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory

from epochcast.errors import EpochcastError, WorkloadError
from epochcast.profiler.process import WorkerDied, WorkerProcess, WorkerTimeout
from epochcast.profiler.protocol import Counted, Reply, Task, TrialSpec
from epochcast.profiler.request import SweepRequest, check_knobs, grid

_OWN = (0,)  # stands for the workload's own batch size in a grid


def count(
    request: SweepRequest,
    *,
    timeline: bool = False,
    start_worker: Callable[[Path], WorkerProcess] = WorkerProcess,
) -> tuple[Counted, ...]:
    """Footprints of every configuration that a request names, without running one.

    Args:
        request: its batch sizes may be empty: the workload's own.
        timeline: keep every allocation and free.
        start_worker: starts a worker process that logs to a file.

    Raises:
        UsageError: no such knob.
        WorkloadError: the workload cannot be built or traced.
    """
    with TemporaryDirectory() as folder, start_worker(Path(folder) / "log") as worker:
        specs = _specs(worker, request)
        return tuple(
            counted
            for sizes, same in groupby(specs, key=lambda spec: spec.sizes)
            for counted in _count(worker, list(same), request, timeline)
        )


def _specs(worker: WorkerProcess, request: SweepRequest) -> list[TrialSpec]:
    first = TrialSpec(workload=request.workload)
    known = _ask(worker, Task(kind="describe", spec=first), request).described
    if known is None:
        raise EpochcastError("the worker process did not describe the workload")
    check_knobs(request, known)
    return grid(request, known, request.batch_sizes or _OWN)


def _count(
    worker: WorkerProcess, specs: list[TrialSpec], request: SweepRequest, timeline: bool
) -> tuple[Counted, ...]:
    """Several batch sizes of one model size."""
    batch_sizes = tuple(spec.batch_size for spec in specs if spec.batch_size)
    task = Task(
        kind="dry-run",
        spec=replace(specs[0], batch_size=None),
        batch_sizes=batch_sizes,
        timeline=timeline,
    )
    reply = _ask(worker, task, request)
    if reply.problem:
        raise WorkloadError(reply.problem)
    return reply.counted


def _ask(worker: WorkerProcess, task: Task, request: SweepRequest) -> Reply:
    try:
        return worker.ask(task, request.timeout_seconds)
    except WorkerTimeout as error:
        raise WorkloadError(f"no answer after {request.timeout_seconds:.0f} s") from error
    except WorkerDied as error:
        raise WorkloadError(error.reason) from error
