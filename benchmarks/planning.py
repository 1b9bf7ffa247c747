"""How fast plans are made, and how often runs keep to them.

    100,800 candidates     a free batch size, 1 to 64 devices: the whole plan, in this process
    from the shell         ``epochcast plan`` in a fresh process, from a model file and from a store
    promises               200 sweeps of a device whose truth is known (tests/truths.py), planned at
                           80, 90 and 95 %, and 400 runs of that truth after each

Prints and writes benchmarks/results/planning-cpu.json.

    python benchmarks/planning.py
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, median

import numpy as np

import epochcast as ec
from epochcast.storage.store import Store

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import truths  # noqa: E402

ROUND_SD, ROUNDS, SWEEPS, RUNS = 0.08, 3, 200, 400
DEADLINE, REPEATS = 1200.0, 7
CANDIDATES = {"batch_sizes": "free", "noise_scale": 500.0, "devices": tuple(range(1, 65))}


def main() -> None:
    model = ec.fit(truths.sweep(round_sd=0.05, trial_sd=0.02))
    budget = ec.Budget(deadline=400.0)
    result = {
        "machine": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "command": "python " + " ".join(sys.argv),
        "plan_of_100800_candidates_seconds": timed(
            lambda: ec.plan(model, budget, epochs=90, **CANDIDATES)
        ),
        **shell_seconds(model),
        **{f"kept_at_{q:.0%}": share_kept(q) for q in (0.8, 0.9, 0.95)},
    }
    path = Path(__file__).parent / "results" / "planning-cpu.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    for name, value in result.items():
        print(f"{name:40} {value if isinstance(value, str) else round(value, 3)}")
    print(f"written to {path}")


def timed(work: Callable[[], object]) -> float:
    """The median of several times, in seconds."""
    seconds = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begun)
    return median(seconds)


def shell_seconds(model: ec.CostModel) -> dict[str, float]:
    """Wall-clock time of the command, start of Python included."""
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "model.json")
        with Store.open(str(Path(folder) / ".epochcast" / "measurements.sqlite")) as store:
            for measurement in truths.sweep(round_sd=0.05, trial_sd=0.02):
                store.add(measurement)

        def run(*more: str) -> None:
            command = [sys.executable, "-m", "epochcast", "plan", "--epochs", "90", *more]
            subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL)

        run("--deadline", "5m")  # fits once
        return {
            "shell_from_model_file_seconds": timed(lambda: run("--model", "model.json")),
            "shell_from_store_seconds": timed(run),
        }


def share_kept(confidence: float) -> float:
    """Of runs that end inside a deadline that was planned for with a confidence."""
    kept = []
    for seed in range(SWEEPS):
        sweep = truths.sweep(
            (32, 64, 128, 256), (256, 1024), rounds=ROUNDS, round_sd=ROUND_SD, seed=seed
        )
        budget = ec.Budget(deadline=DEADLINE, confidence=confidence)
        one_way = {"sizes": {"width": 1024}, "batch_sizes": (128,), "micro_batch": 128, "save": 1}
        chosen = ec.plan(ec.fit(sweep), budget, **one_way).chosen
        own = np.random.default_rng(1000 + seed).normal(0, ROUND_SD, RUNS)
        kept.append(float(np.mean(truths.true_seconds(chosen.epochs) * np.exp(own) <= DEADLINE)))
    return fmean(kept)


if __name__ == "__main__":
    main()
