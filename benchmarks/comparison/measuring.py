"""The measuring half of the accuracy benchmark.

    for each round:  for each workload:  [fresh process] every configuration, shuffled

so that rounds of one workload lie minutes apart, as a probe and the run it is for do.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import psutil

import epochcast as ec
from comparison.grids import Grid

OVERSEEN = ("torch", "transformers", "accelerate", "torchinfo", "scikit-learn", "numpy")


def measure(
    grids: Sequence[Grid], rounds: int, seconds: float, threads: int
) -> list[ec.Measurement]:
    """Probe every grid in interleaved rounds; what fails is told, not hidden.

    Args:
        grids: what to probe.
        rounds: over all of it.
        seconds: timed in each trial.
        threads: of torch.
    """
    found: dict[str, tuple[ec.Measurement, ...]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for round_ in range(1, rounds + 1):
            for grid in grids:
                found[grid.target] = ec.probe(
                    grid.target,
                    batch_sizes=grid.batch_sizes,
                    sizes=grid.sizes,
                    device="cpu",
                    threads=threads,
                    rounds=round_,
                    seconds=seconds,
                    traces=False,
                    store=f"{folder}/store.sqlite",
                )
                good = sum(m.status == "ok" for m in found[grid.target])
                load = psutil.getloadavg()[0]
                print(f"round {round_}: {grid.name}: {good} trials, load {load:.1f}", flush=True)
    for m in (m for trials in found.values() for m in trials if m.status != "ok"):
        print(f"{m.workload} {m.config.label}: {m.status}: {m.message}", file=sys.stderr)
    return [m for trials in found.values() for m in trials]


def about(command: str) -> dict[str, Any]:
    """Where and when something was measured."""
    return {
        "command": command,
        "date": datetime.now(timezone.utc).date().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, "
        f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "versions": {
            "epochcast": ec.__version__,
            "python": platform.python_version(),
            **{name: v for name in OVERSEEN if (v := _version(name))},
        },
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
