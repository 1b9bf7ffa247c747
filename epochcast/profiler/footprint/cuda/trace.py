"""The allocations of a training on a CUDA device, asked of a process of its own.

cuda_sequences ──Task(sequence)──▶ worker: fake device ──▶ DeviceSequence, source "device"
               └─ it died, or cannot ──▶ worker: CPU's operators, and rules ──▶ source "cpu"
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from epochcast.errors import EpochcastError, WorkloadError, named
from epochcast.profiler.process import WorkerDied, Workers, WorkerTimeout
from epochcast.profiler.protocol import Reply, Task, TrialSpec
from epochcast.records import DeviceSequence, DeviceSpec
from epochcast.records.device_memory import SequenceSource


def cuda_sequences(
    workers: Workers,
    spec: TrialSpec,
    batch_sizes: Sequence[int | None],
    device: DeviceSpec,
    *,
    timeout: float = 600.0,
) -> tuple[DeviceSequence, ...]:
    """Two whole optimizer steps on a device, from the model's first allocation, for each batch
    size; the model is built afresh for each.

    Where the device's operators cannot be followed, the CPU's are: then ``source`` is ``"cpu"``,
    a remark says why, and an interval is around the peak.

    Args:
        workers: starts the processes in which it is done.
        spec: of which the workload and its sizes are used.
        batch_sizes: None is the workload's own. Those that the data set cannot fill are left out,
            where there is a smaller one.
        device: whose kernels are followed.
        timeout: seconds for all of them.

    Raises:
        DryRunError: neither the device's operators nor the CPU's can be followed.
        WorkloadError: the workload cannot be built.
    """
    deadline = time.monotonic() + timeout
    task = Task(kind="sequence", spec=spec, batch_sizes=tuple(batch_sizes), device=device)
    first = _ask(workers, task, "device", deadline)
    if not first.problem:
        return first.sequences
    second = _ask(workers, task, "cpu", deadline)
    if second.problem:
        raise (named(second.error) if second.error else WorkloadError)(second.problem)
    why = f"the device's operators could not be followed, and the CPU's were: {first.problem}"
    return tuple(replace(made, remarks=(why, *made.remarks)) for made in second.sequences)


def _ask(workers: Workers, task: Task, source: SequenceSource, deadline: float) -> Reply:
    """What a fresh process answers; its death is a problem like others."""
    with workers.start(f"sequence-{source}") as worker:
        try:
            task = replace(task, source=source, log=str(worker.log))
            return worker.ask(task, max(1.0, deadline - time.monotonic()))
        except WorkerDied as error:
            problem = error.reason
        except WorkerTimeout:
            problem = "it took too long"
        except EpochcastError as error:
            problem = str(error)
    return Reply(kind="sequenced", problem=problem)
