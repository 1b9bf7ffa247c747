"""The device under test: its fingerprint, its timer, its memory counters.

CUDA work runs asynchronously, so its timer places events in the stream and reads them after one
synchronisation; on a CPU (and on MPS, after synchronising) the host's monotonic clock is exact.
"""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import time
from pathlib import Path
from typing import Any, Protocol

import psutil
import torch

from epochcast.errors import UsageError
from epochcast.profiler.machine import cpu_model
from epochcast.profiler.machine import memory_bytes as main_memory_bytes
from epochcast.profiler.protocol import AUTO
from epochcast.records import Device, DeviceKind, MemoryPeaks


class DeviceTimer(Protocol):
    """Marks moments on the device's own timeline."""

    def mark(self) -> Any:
        """A moment: now, after all work submitted so far."""

    def seconds(self, start: Any, end: Any) -> float:
        """Seconds between two moments; waits until both have passed."""


class HostTimer:
    """The monotonic clock, for work that is done when the call returns."""

    def mark(self) -> float:
        return time.perf_counter()

    def seconds(self, start: float, end: float) -> float:
        return end - start


class CudaTimer:
    """CUDA events: they cost microseconds and never make the host wait for the device."""

    def mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def seconds(self, start: torch.cuda.Event, end: torch.cuda.Event) -> float:
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3


class MpsTimer(HostTimer):
    """The monotonic clock after waiting for the Metal queue."""

    def mark(self) -> float:
        torch.mps.synchronize()
        return super().mark()


def open_device(name: str, threads: int | None) -> torch.device:
    """The torch device of a name such as ``"cuda:1"``, made ready, with the CPU threads set.

    Raises:
        UsageError: torch has no such device here.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        device = torch.device(_best_kind() if name == AUTO else name)
    except RuntimeError as error:
        raise UsageError(f"--device is cpu, cuda, cuda:N or mps, but got {name!r}") from error
    if device.type == "cuda":
        _require_cuda(device)
        device = torch.device("cuda", device.index or 0)  # set_device refuses one without an index
        torch.cuda.set_device(device)
        torch.cuda.init()  # type: ignore[no-untyped-call]
    elif device.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError("--device mps: this torch has no Metal device; use cpu")
    elif device.type not in ("cpu", "mps"):
        raise UsageError(f"--device is cpu, cuda, cuda:N or mps, but got {name!r}")
    return device


def _best_kind() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _require_cuda(device: torch.device) -> None:
    count = torch.cuda.device_count()
    if not torch.cuda.is_available() or (device.index or 0) >= count:
        raise UsageError(
            f"--device {device}: torch {torch.__version__} sees {count} CUDA devices here; use "
            + ("cpu" if count == 0 else f"cuda:0 to cuda:{count - 1}")
        )


def count_devices(device: torch.device) -> int:
    """Devices of its kind that this process may use; of a CPU its cores."""
    if device.type == "cuda":
        return torch.cuda.device_count()
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def timer_for(device: torch.device) -> DeviceTimer:
    """The timer of a device's own timeline."""
    if device.type == "cuda":
        return CudaTimer()
    return MpsTimer() if device.type == "mps" else HostTimer()


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def power_watts(device: torch.device) -> float | None:
    """What the device drew on average in the last second or less, by its own sensor.

    None off CUDA, and where the sensor cannot be read (no nvidia-ml-py, a virtual GPU).
    """
    if device.type != "cuda":
        return None
    try:
        return torch.cuda.power_draw(device) / 1e3
    except Exception:  # noqa: BLE001 - NVML has a tree of errors that cannot be imported without it
        return None


def fingerprint(device: torch.device) -> Device:
    """What the device is, as far as it decides speed and memory."""
    kind: DeviceKind = device.type  # type: ignore[assignment]
    name, memory_bytes, clock_mhz = cpu_model(), main_memory_bytes(), None
    if kind == "cuda":
        properties = torch.cuda.get_device_properties(device)
        name, memory_bytes = properties.name, properties.total_memory
        rate = getattr(properties, "clock_rate", None)  # in kHz; not in every torch release
        clock_mhz = rate / 1e3 if rate else None
    elif kind == "mps":
        name, memory_bytes = f"{platform.machine()} GPU", torch.mps.recommended_max_memory()
    return Device(
        kind=kind,
        name=name,
        memory_bytes=memory_bytes,
        torch=str(torch.__version__),
        cuda=(torch.version.cuda or "") if kind == "cuda" else "",
        threads=torch.get_num_threads(),
        clock_mhz=clock_mhz,
    )


def reset_peaks(device: torch.device) -> None:
    """Forget earlier peaks and give cached memory back, so that the next peak is our own."""
    if device.type == "cpu":
        _return_free_memory()  # or what earlier configurations freed would count as ours
    begin_phase(device)


def begin_phase(device: torch.device) -> None:
    """Forget the peak of what went before in the same configuration.

    Allocators of accelerators give up what they have cached before they fail, so it goes back.
    The C library of a process keeps much of what was freed, as it does in a real run.
    """
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    elif device.type == "mps":
        torch.mps.empty_cache()
    else:
        _reset_resident_peak()


def read_peaks(device: torch.device) -> MemoryPeaks:
    """Peaks since ``reset_peaks``; for MPS, which has no peak counters, the present values."""
    if device.type == "cuda":
        return _cuda_peaks(device)
    if device.type == "mps":
        return MemoryPeaks(
            allocated_bytes=torch.mps.current_allocated_memory(),
            reserved_bytes=torch.mps.driver_allocated_memory(),
            device_bytes=torch.mps.driver_allocated_memory(),
        )
    return MemoryPeaks(device_bytes=_resident_peak_bytes())


def _cuda_peaks(device: torch.device) -> MemoryPeaks:
    """Reserved memory at its peak, plus what the driver holds beyond the allocator (the context).

    The driver's figure counts all processes on the device: probe on a device of your own.
    """
    stats = torch.cuda.memory_stats(device)
    free, total = torch.cuda.mem_get_info(device)
    context = max(0, total - free - torch.cuda.memory_reserved(device))
    reserved = torch.cuda.max_memory_reserved(device)
    return MemoryPeaks(
        allocated_bytes=torch.cuda.max_memory_allocated(device),
        reserved_bytes=reserved,
        device_bytes=reserved + context,
        allocator_retries=stats.get("num_alloc_retries", 0),
    )


def _reset_resident_peak() -> None:
    """Reset VmHWM (Linux, proc(5): writing 5 to clear_refs); elsewhere the peak never falls."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _return_free_memory() -> None:
    """glibc's malloc_trim(3); other C libraries return memory by themselves."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)


def _resident_peak_bytes() -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return int(psutil.Process().memory_info().rss)
    peak = next((line for line in lines if line.startswith("VmHWM:")), None)
    return int(peak.split()[1]) * 1024 if peak else int(psutil.Process().memory_info().rss)
