"""Configurations followed on a device that is not here, and what is asked of it.

request ─ describe ──────▶ the knobs, checked                       request.py
        ─ cuda sequence ─▶ every allocation of two steps, FLOPs     cuda_sequences
                           └ replayed ▶ DeviceNeed                  devices/need.py

All dry runs of one answer are made by two processes, ``kept_workers``, one that describes and one
that follows: importing torch takes longer than most dry runs.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path

from epochcast.devices.allocator_settings import AllocatorSettings
from epochcast.devices.need import device_need
from epochcast.errors import EpochcastError, UsageError
from epochcast.profiler.footprint.cuda.trace import cuda_sequences
from epochcast.profiler.process import KeptWorkers, Workers
from epochcast.profiler.protocol import TrialSpec
from epochcast.profiler.request import Range, SweepRequest, describe, grid
from epochcast.records import DeviceNeed, DeviceSequence, DeviceSpec, RunConfig, make_sizes


@dataclass(frozen=True, kw_only=True)
class MemoryQuestion:
    """On which device, and how sure.

    Attributes:
        device: with the memory that CUDA reports of it.
        confidence: with which it shall fit.
        used_bytes: of the device, by other processes.
        settings: of torch's caching allocator.
        eager: kernels are loaded before they are used.
    """

    device: DeviceSpec
    confidence: float = 0.95
    used_bytes: int = 0
    settings: AllocatorSettings = field(default_factory=AllocatorSettings)
    eager: bool = False

    def __post_init__(self) -> None:
        if not 0.0 < self.confidence < 1.0:
            raise UsageError(f"a confidence is between 0 and 1, but got {self.confidence}")

    @property
    def free_bytes(self) -> int:
        """What there is."""
        return self.device.memory_bytes - self.used_bytes

    def need(self, followed: Followed) -> DeviceNeed:
        """The answer for what was followed."""
        return device_need(
            followed.sequence,
            followed.config,
            settings=self.settings,
            used_bytes=self.used_bytes,
            confidence=self.confidence,
            eager=self.eager,
            flops=followed.sequence.flops,
            seconds=followed.seconds,
        )


@dataclass(frozen=True, kw_only=True)
class Followed:
    """One configuration that was followed, and how long that took."""

    config: RunConfig
    sequence: DeviceSequence
    seconds: float


@contextmanager
def kept_workers() -> Iterator[KeptWorkers]:
    """Processes for all dry runs of one answer."""
    with tempfile.TemporaryDirectory(prefix="epochcast-") as logs, KeptWorkers(Path(logs)) as kept:
        yield kept


def follow(request: SweepRequest, device: DeviceSpec, workers: Workers) -> tuple[Followed, ...]:
    """Every configuration of a request, followed on a device.

    Args:
        request: names configurations.
        device: that need not be here.
        workers: in which it is done.

    Raises:
        UsageError: no such knob.
        WorkloadError: the workload cannot be built, or not traced.
    """
    begun = time.monotonic()
    with ThreadPoolExecutor(max_workers=1) as pool:
        checking = pool.submit(_models, request, workers)
        try:
            models = _only_model(request) or checking.result()
            made = [_sequences(specs, device, workers) for specs in models]
        except EpochcastError:
            checking.result()  # a knob that is wrong is told by its name
            raise
        sizes = [specs[0].sizes for specs in checking.result()]
    seconds = (time.monotonic() - begun) / sum(map(len, made))
    return tuple(
        Followed(config=replace(s.config, sizes=own), sequence=s, seconds=seconds)
        for own, same in zip(sizes, made, strict=True)
        for s in same
        if s.config is not None
    )


def _models(request: SweepRequest, workers: Workers) -> list[list[TrialSpec]]:
    """The configurations of each model size; the workload's function tells its knobs."""
    with workers.start("describe") as worker:
        specs = grid(request, describe(request, worker), request.batch_sizes or (None,))
    return [[*same] for _, same in groupby(specs, key=lambda spec: spec.sizes)]


def _only_model(request: SweepRequest) -> list[list[TrialSpec]]:
    """Of one model size, which needs no knobs described to be followed; else none."""
    values = [v.values() if isinstance(v, Range) else v for v in request.sizes.values()]
    if any(len(v) != 1 for v in values):
        return []
    sizes = make_sizes({name: v[0] for name, v in zip(request.sizes, values, strict=True)})
    batch_sizes = dict.fromkeys(request.batch_sizes or (None,))
    return [[TrialSpec(workload=request.workload, sizes=sizes, batch_size=b) for b in batch_sizes]]


def _sequences(
    specs: Sequence[TrialSpec], device: DeviceSpec, workers: Workers
) -> tuple[DeviceSequence, ...]:
    """Of several batch sizes of one model."""
    return cuda_sequences(workers, specs[0], [spec.batch_size for spec in specs], device)
