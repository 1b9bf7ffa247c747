"""The CPU and the memory of this machine, as far as they decide speed and what fits; no torch."""

from __future__ import annotations

import platform
from pathlib import Path

import psutil


def machine() -> tuple[str, int]:
    """Name of the CPU, and bytes of memory that a process may use."""
    return cpu_model(), memory_bytes()


def cpu_model() -> str:
    """As the system calls it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def memory_bytes() -> int:
    """Main memory, or what the control group of this process may use of it."""
    total = psutil.virtual_memory().total
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return total
    return min(total, int(limit)) if limit.isdigit() else total
