"""What the driver says of a GPU, through NVML (nvidia-ml-py) and nvidia-smi. Unknown is None."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from typing import Any

SMI_SECONDS = 15.0  # that nvidia-smi may take


def known(ask: Callable[[], Any]) -> Any:
    """An answer, or why there is none: no reading is worth losing the others."""
    try:
        return ask()
    except Exception as error:  # noqa: BLE001 - NVML's and torch's errors have no common base
        return {"unknown": f"{type(error).__name__}: {error}"}


def nvidia_smi(*arguments: str) -> str:
    """What ``nvidia-smi`` prints."""
    done = subprocess.run(
        ["nvidia-smi", *arguments], capture_output=True, text=True, timeout=SMI_SECONDS, check=True
    )
    return done.stdout


class Sensors:
    """The sensors of the first visible GPU.

    Attributes:
        why_not: why there are none; empty if there are.
    """

    def __init__(self) -> None:
        self.why_not = ""
        try:
            import pynvml

            pynvml.nvmlInit()
            self._nvml = pynvml
            self._handle = pynvml.nvmlDeviceGetHandleByIndex(_nvml_index())
        except Exception as error:  # noqa: BLE001 - as above; also where the driver is absent
            self.why_not = f"{type(error).__name__}: {error}"

    def read(self) -> dict[str, Any]:
        """Everything that changes while work is done."""
        if self.why_not:
            return {}
        nvml, handle = self._nvml, self._handle
        readings: dict[str, Callable[[], Any]] = {
            "used_bytes": lambda: nvml.nvmlDeviceGetMemoryInfo(handle).used,
            "process_bytes": self._process_bytes,
            "energy_joules": lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3,
            "watts": lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1e3,
            "sm_mhz": lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM),
            "memory_mhz": lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM),
            "celsius": lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
            "throttle_reasons": lambda: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle),
        }
        return {name: known(ask) for name, ask in readings.items()}

    def energy_joules(self) -> float | None:
        """The counter of all energy since the driver was loaded."""
        if self.why_not:
            return None
        found = known(lambda: self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle) / 1e3)
        return found if isinstance(found, float) else None

    def watts(self) -> float | None:
        """The power drawn now, as the sensor averages it."""
        if self.why_not:
            return None
        found = known(lambda: self._nvml.nvmlDeviceGetPowerUsage(self._handle) / 1e3)
        return found if isinstance(found, float) else None

    def _process_bytes(self) -> int | None:
        processes = self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle)
        return next((p.usedGpuMemory for p in processes if p.pid == os.getpid()), None)


def _nvml_index() -> int:
    """NVML counts all GPUs, torch the visible ones."""
    import torch

    return torch.cuda._get_nvml_device_index(0)
