"""What the system says of this machine and this process; no torch."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

import psutil

STAT = Path("/proc/self/stat")
START_FIELD = 22  # "starttime", in clock ticks since boot; proc_pid_stat(5)


def process_age() -> float:
    """Seconds since this process began, to a hundredth of a second on Linux.

    There the kernel counts ticks since boot, and so does ``CLOCK_BOOTTIME``. ``psutil`` adds the
    time of the boot, which the kernel tells in whole seconds: up to a second too early. Elsewhere
    the system tells the moment itself.
    """
    if not (hasattr(time, "CLOCK_BOOTTIME") and STAT.exists()):
        return max(0.0, time.time() - psutil.Process().create_time())
    after_name = STAT.read_text(errors="replace").rpartition(")")[2].split()  # a name may have ")"
    ticks = int(after_name[START_FIELD - 3])  # the first one after the name is field 3
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def busy_seconds() -> float:
    """Processor seconds that have been used since the boot, by whatever process."""
    times = psutil.cpu_times()._asdict()
    free = ("idle", "iowait", "guest", "guest_nice")  # guests are part of user and nice
    return float(sum(seconds for name, seconds in times.items() if name not in free))


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
