"""Joules of steady steps, by the device's own counters, which zeus reads (extra ``energy``).

    device   counter                                        what it counts
    cuda     of the GPU: NVML from Volta on, or AMD SMI     that GPU, whoever uses it
    cpu      RAPL, packages and memory; needs its rights    the machine, shared out among the ranks
    mps      Apple's, with zeus-apple-silicon               the GPU of the chip

    W = joules of the window / its seconds        joules of a step = W · mean step

so that a restart of the loader within the window is in no step. Nothing here changes what is
measured elsewhere: without zeus or a counter there is no meter.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch

from epochcast.profiler.device import synchronize

LEAST_SECONDS = 0.5  # an H200's counter changes every 0.1 s: each end of less is off by over 20 %
_WINDOW = "epochcast: steady steps"


class EnergyMeter:
    """Counts from ``begin`` to ``watts``.

    Args:
        monitor: a ``ZeusMonitor`` of the device alone.
        device: that is read.
        ranks: processes of this training on the machine: a CPU's counters are of them all.
    """

    def __init__(self, monitor: Any, device: torch.device, ranks: int = 1) -> None:
        self.monitor, self.device, self.ranks = monitor, device, ranks

    def begin(self) -> None:
        """Start counting, once all earlier work is done."""
        synchronize(self.device)
        with suppress(Exception):  # then the window does not end either
            self.monitor.begin_window(_WINDOW, sync_execution=False, restart=True)

    def watts(self) -> float | None:
        """The mean power since ``begin``; None where the counter cannot tell, or not yet."""
        synchronize(self.device)
        try:
            window = self.monitor.end_window(_WINDOW, sync_execution=False)
            joules = self._joules(window)
        except Exception:  # noqa: BLE001 - drivers' errors have no common base; times are kept
            return None
        if not joules or window.time < LEAST_SECONDS:
            return None
        return max(0.0, joules / window.time) or None

    def _joules(self, window: Any) -> float:
        if self.device.type == "cuda":
            return float(window.gpu_energy[self.device.index or 0])
        if self.device.type == "mps":
            return float(window.soc_energy.gpu_mj or 0.0) / 1e3
        parts = (window.cpu_energy or {}, window.dram_energy or {})
        return float(sum(sum(part.values()) for part in parts)) / self.ranks


def open_meter(device: torch.device, ranks: int = 1) -> EnergyMeter | None:
    """A meter of the device; None without zeus, or without a counter that may be read.

    Args:
        device: to be read.
        ranks: processes of this training on the machine.
    """
    try:
        from zeus.monitor import ZeusMonitor

        gpus = [device.index or 0] if device.type == "cuda" else []
        if gpus and not _counts(gpus[0]):
            return None
        packages: list[int] | None = None if device.type == "cpu" else []
        monitor = ZeusMonitor(gpu_indices=gpus, cpu_indices=packages)
        counts = bool(gpus or (monitor.cpu_indices if packages is None else monitor.soc_is_present))
    except Exception:  # noqa: BLE001 - as above; what is there to read must not stop a probe
        return None
    return EnergyMeter(monitor, device, ranks) if counts else None


def _counts(gpu: int) -> bool:
    """Whether a GPU has a counter; of others zeus would poll the power in one more process."""
    from zeus.device import get_gpus

    return bool(get_gpus().supports_get_total_energy_consumption(gpu))
