"""The allocations of a training on a CUDA device, asked of a process of its own.

cuda_sequences ──Task(cuda-sequence)──▶ worker: fake device ──▶ DeviceSequence, source "device"
               └─ it died, or cannot ──▶ worker: CPU's operators, and rules ──▶ source "cpu"
"""

from __future__ import annotations

from collections.abc import Sequence

from epochcast.errors import DryRunError
from epochcast.profiler.process import Workers
from epochcast.profiler.protocol import TrialSpec
from epochcast.records import DeviceSequence, DeviceSpec


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

    Args:
        workers: starts the processes in which it is done.
        spec: of which the workload and its sizes are used.
        batch_sizes: None is the workload's own. Those that the data set cannot fill are errors.
        device: whose kernels are followed.
        timeout: seconds for all of them.

    Raises:
        DryRunError: neither the device's operators nor the CPU's can be followed.
        WorkloadError: the workload cannot be built.
    """
    raise DryRunError("the allocations of a CUDA device cannot be followed yet")
