"""Before the first round: load the workload, try a step, and write out the trials it means.

    request ── describe ──▶ knobs, source, device    one process, which is then left
            ── check ─────▶ a first step: own batch size, samples, what is wrong
            ── grid ──────▶ Prepared: one TrialSpec for each configuration

A broken workload stops here, and nothing is stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from epochcast.errors import EpochcastError, UsageError, WorkloadError
from epochcast.profiler.process import (
    WorkerDied,
    WorkerProcess,
    Workers,
    WorkerTimeout,
    ask_or_refuse,
)
from epochcast.profiler.protocol import (
    AUTO,
    CheckedWorkload,
    Description,
    Reply,
    Task,
    TrialSpec,
)
from epochcast.profiler.request import (
    SweepRequest,
    candidate_batch_sizes,
    check_knobs,
    default_batch_sizes,
    grid,
)
from epochcast.records import Device, RunConfig


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A sweep that can begin.

    Attributes:
        request: with its device by name.
        source: fingerprint of the workload's code.
        checked: what the first step showed.
        specs: every configuration asked for, or to choose among.
    """

    request: SweepRequest
    source: str
    device: Device
    checked: CheckedWorkload
    specs: Sequence[TrialSpec]

    def config(self, spec: TrialSpec) -> RunConfig:
        """How a trial will run."""
        return replace(self.checked.config, batch_size=spec.batch_size or 1, sizes=spec.sizes)


def prepare(request: SweepRequest, workers: Workers) -> Prepared:
    """Load the workload and try its first configuration, in a process of its own.

    Raises:
        UsageError: no such knob, or a batch of more than all samples.
        WorkloadError: the workload does not run.
    """
    with workers.start("check") as worker:
        known = _describe(request, worker)
        check_knobs(request, known)
        if request.device == AUTO:  # so that asking for it by name continues this sweep
            request = replace(request, device=known.device.kind)
        first = grid(request, known, request.batch_sizes[:1] or (0,))[0]
        checked = _try(worker, replace(first, batch_size=first.batch_size or None), request)
    batch_sizes = _batch_sizes(request, checked, worker.log)
    return Prepared(
        request=request,
        source=known.source,
        device=known.device,
        checked=checked,
        specs=grid(request, known, batch_sizes),
    )


def _describe(request: SweepRequest, worker: WorkerProcess) -> Description:
    task = Task(kind="describe", spec=TrialSpec(workload=request.workload))
    known = ask_or_refuse(worker, task, request.timeout_seconds).described
    if known is None:
        raise EpochcastError("the worker process did not describe the workload")
    return known


def _try(worker: WorkerProcess, spec: TrialSpec, request: SweepRequest) -> CheckedWorkload:
    """A first step. If it hangs or kills its process, the sweep will find out which ones do."""
    try:
        reply = worker.ask(Task(kind="check", spec=spec), request.timeout_seconds)
    except (WorkerTimeout, WorkerDied):
        reply = Reply(kind="checked")
    return reply.checked or CheckedWorkload(config=spec.config)


def _batch_sizes(request: SweepRequest, checked: CheckedWorkload, log: Path) -> Sequence[int]:
    """Those asked for, or around the workload's own; refused if there are none to be had."""
    own = checked.config.batch_size
    batch_sizes = request.batch_sizes or default_batch_sizes(own, checked.samples)
    if request.chooses and batch_sizes:
        batch_sizes = candidate_batch_sizes(request, own, checked.samples)
    largest = max(batch_sizes, default=own)
    if checked.samples and largest > checked.samples:
        raise UsageError(
            f"batch size {largest} is more than the data set's {checked.samples} samples; "
            "leave it out"
        )
    if checked.problem:
        raise WorkloadError(f"{checked.problem} (log: {log})")
    if not batch_sizes:
        why = checked.trouble or "the first step ended or blocked its process"
        raise WorkloadError(f"{why}; so its batch size is not known (log: {log})")
    return batch_sizes
