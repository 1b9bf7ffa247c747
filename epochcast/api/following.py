"""Configurations followed on a device that is not here, and what is asked of it.

request ─ dry run ───────▶ configuration, FLOPs                     count_footprints
        ─ cuda sequence ─▶ every allocation of two steps            cuda_sequences
                           └ replayed ▶ DeviceNeed                  devices/need.py

All dry runs of one answer are made by two processes, ``kept_workers``, one that counts and one that
follows: importing torch takes longer than most dry runs.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from epochcast.devices.allocator_settings import AllocatorSettings
from epochcast.devices.need import device_need
from epochcast.errors import UsageError
from epochcast.profiler.footprint.cuda.trace import cuda_sequences
from epochcast.profiler.process import KeptWorkers, Workers
from epochcast.profiler.protocol import Counted, TrialSpec
from epochcast.profiler.request import Range, SweepRequest, count_footprints
from epochcast.records import (
    DeviceNeed,
    DeviceSequence,
    DeviceSpec,
    Sizes,
    SizeValue,
    make_sizes,
)


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
            followed.counted.config,
            settings=self.settings,
            used_bytes=self.used_bytes,
            confidence=self.confidence,
            eager=self.eager,
            flops=followed.counted.footprint.flops,
            seconds=followed.seconds,
        )


@dataclass(frozen=True, kw_only=True)
class Followed:
    """One configuration that was followed, and how long that took."""

    counted: Counted
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
    if all(len(values) == 1 for values in _values(request)):
        counted, found = _at_once(request, device, workers)
    else:
        counted = count_all(request, workers)
        groups = _by_sizes(counted)
        found = [s for same in groups for s in _sequences(request, same, device, workers)]
    seconds = (time.monotonic() - begun) / len(counted)
    return tuple(
        Followed(counted=c, sequence=s, seconds=seconds)
        for c, s in zip(counted, found, strict=True)
    )


def count_all(request: SweepRequest, workers: Workers) -> tuple[Counted, ...]:
    return count_footprints(request, start_worker=lambda log: workers.start("count"))


def _values(request: SweepRequest) -> list[Sequence[SizeValue]]:
    return [v.values() if isinstance(v, Range) else v for v in request.sizes.values()]


def _at_once(
    request: SweepRequest, device: DeviceSpec, workers: Workers
) -> tuple[Sequence[Counted], Sequence[DeviceSequence]]:
    """One model size is counted in one process and followed in another at the same time."""
    sizes = make_sizes({n: v[0] for n, v in zip(request.sizes, _values(request), strict=True)})
    asked = [*(request.batch_sizes or (None,))]
    with ThreadPoolExecutor(max_workers=1) as pool:
        following = pool.submit(_followed, request, sizes, asked, device, workers)
        counted = count_all(request, workers)
        if len(counted) == len(asked):
            return counted, following.result()
    return counted, _sequences(
        request, counted, device, workers
    )  # without what the data cannot fill


def _by_sizes(counted: Sequence[Counted]) -> list[list[Counted]]:
    groups: dict[Any, list[Counted]] = {}
    for c in counted:
        groups.setdefault(c.config.sizes, []).append(c)
    return [*groups.values()]


def _sequences(
    request: SweepRequest, counted: Sequence[Counted], device: DeviceSpec, workers: Workers
) -> Sequence[DeviceSequence]:
    """Of several batch sizes of one model."""
    batch_sizes = [c.config.batch_size for c in counted]
    return _followed(request, counted[0].config.sizes, batch_sizes, device, workers)


def _followed(
    request: SweepRequest,
    sizes: Sizes,
    batch_sizes: Sequence[int | None],
    device: DeviceSpec,
    workers: Workers,
) -> Sequence[DeviceSequence]:
    spec = TrialSpec(workload=request.workload, sizes=sizes)
    return cuda_sequences(workers, spec, batch_sizes, device)
