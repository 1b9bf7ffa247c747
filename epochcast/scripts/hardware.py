"""What a script trained on, the memory that it took there, and who else was at work."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import get_args

from epochcast.records import Device, DeviceKind, MemoryPeaks, Warning_
from epochcast.records.configuration import UNKNOWN
from epochcast.scripts import events as e
from epochcast.scripts.timeline import of_kind

FULL = 0.9  # of all processors in use: who wants one more has to wait
DISTURBING = 0.1  # of all processors, used by others: less is within what runs differ by
_FIELDS = {"evaluation": "eval_memory", "save": "save_memory"}  # of a measurement, by phase


def device_of(events: Sequence[e.Event], machine: tuple[str, int]) -> Device:
    """The device of the first optimizer; the CPU where there is none.

    Args:
        events: of a process, or of all.
        machine: name of the CPU, and bytes of memory.
    """
    torch = next(iter(of_kind(events, e.TorchLoaded)), None)
    optimizer = next(iter(of_kind(events, e.Optimizer)), None)
    where = optimizer.device if optimizer else "cpu"
    kind: DeviceKind = next((x for x in get_args(DeviceKind) if where.startswith(x)), "cpu")
    name, memory = machine
    if kind != "cpu" and optimizer is not None:
        name, memory = optimizer.device_name or kind, optimizer.device_memory or 0
    return Device(
        kind=kind,
        name=name,
        memory_bytes=memory,
        torch=torch.version if torch else UNKNOWN,
        cuda=(torch.cuda or "") if torch and kind == "cuda" else "",
        threads=torch.threads if torch else 0,
    )


def busy_machine(used: float, own: float, seconds: float, processors: int) -> list[Warning_]:
    """That others were at work while hardly a processor was free, so that there was waiting.

    Rounds that differ show what comes and goes; what goes on all the time makes all of them slow.

    Args:
        used: processor seconds of all processes meanwhile.
        own: of the command and of us among them.
        seconds: that it took.
        processors: of the machine.
    """
    all_of_them = seconds * processors
    others = used - own
    if used < FULL * all_of_them or others < DISTURBING * all_of_them:
        return []
    details = (("others", f"{others / seconds:.1f}"), ("processors", str(processors)))
    return [Warning_(code="machine-busy", details=details)]


def memory_peaks(events: Iterable[e.Event]) -> dict[str, MemoryPeaks]:
    """Peaks of training, evaluation and saving, by the fields of a measurement.

    The counters never fall, so each phase has what was the highest when it last rose in it.
    """
    found: dict[str, MemoryPeaks] = {}
    before = 0
    for event in of_kind(events, e.Memory):
        if event.phase in ("startup", "end"):
            continue
        name, peaks = _FIELDS.get(event.phase, "memory"), _peaks(event)
        highest = peaks.device_bytes or peaks.reserved_bytes or 0
        if name not in found or highest > before:
            found[name] = peaks
        before = max(before, highest)
    return found


def _peaks(event: e.Memory) -> MemoryPeaks:
    if event.reserved_peak is None:
        return MemoryPeaks(device_bytes=event.resident_peak)
    return MemoryPeaks(
        allocated_bytes=event.allocated_peak,
        reserved_bytes=event.reserved_peak,
        device_bytes=None if event.beside is None else event.reserved_peak + event.beside,
    )
