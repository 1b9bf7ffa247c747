"""How fast plans are made, and how often runs keep to them.

    100,800 candidates     a free batch size, 1 to 64 devices: the whole plan, in this process
    from the shell         ``epochcast plan`` in a fresh process, from a model file and from a store
    promises               200 sweeps of a device whose truth is known (tests/truths.py), planned at
                           80, 90 and 95 %, and 400 runs of that truth after each
    failures               plans for runs that fail and differ, beside 20,000 of each simulated
                           failure by failure (tests/planning/failing_runs.py)

Prints and writes benchmarks/results/planning-cpu.json; failures docs/planning.md, too.

    python benchmarks/planning.py [speed|promises|failures]
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import steps
from comparison import report

import epochcast as ec
from epochcast.costmodel.scatter import Scatter
from epochcast.storage.store import Store

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "planning")]

import failing_runs  # noqa: E402
import known  # noqa: E402
import truths  # noqa: E402

RESULT, MARK = Path(__file__).parent / "results" / "planning-cpu.json", "benchmarks/planning.py"

ROUND_SD, ROUNDS, SWEEPS, RUNS = 0.08, 3, 200, 400
DEADLINE, REPEATS = 1200.0, 7
CANDIDATES = {"batch_sizes": "free", "noise_scale": 500.0, "devices": tuple(range(1, 65))}

FAILING_RUNS, MTBF, EPOCHS = 20_000, 7200.0, 60
MODEL = {"setup": 300.0, "first": 30.0, "epoch": 600, "evaluation": 5.0, "save": 20.0}
SPREADS, SAVES, RESTARTS = (0.02, 0.14, 0.3), (1, 6, 12), (120.0, 900.0)
CONFIDENCES = (0.8, 0.9, 0.95)


def speed() -> None:
    """How fast plans are made."""
    model = ec.fit(truths.sweep(round_sd=0.05, trial_sd=0.02))
    budget = ec.Budget(deadline=400.0)
    record(
        machine=platform.processor() or platform.machine(),
        python=platform.python_version(),
        command="python benchmarks/planning.py",
        plan_of_100800_candidates_seconds=timed(
            lambda: ec.plan(model, budget, epochs=90, **CANDIDATES)
        ),
        **shell_seconds(model),
    )


def promises() -> None:
    """How often runs of a known truth keep to plans made from noisy sweeps."""
    record(**{f"kept_at_{q:.0%}": share_kept(q) for q in (0.8, 0.9, 0.95)})


def record(**found: Any) -> None:
    """Put figures into the results, beside those of other steps."""
    known = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
    RESULT.write_text(json.dumps(known | found, indent=1) + "\n")
    for name, value in found.items():
        if not isinstance(value, list):
            print(f"{name:40} {round(value, 3) if isinstance(value, float) else value}")


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


# -- failures -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One plan under failures, and how many of its simulated runs kept to its deadline.

    Attributes:
        spread: standard deviation of the logarithm of how slow a run is.
        save: epochs from save to save.
        restart: seconds.
        confidence: that was asked for.
        epochs: planned.
        promised: the plan's own probability.
        kept: share of the runs.
    """

    spread: float
    save: int
    restart: float
    confidence: float
    epochs: int
    promised: float
    kept: float


def failures() -> None:
    """How often runs that fail keep to plans that know how often they do."""
    ways = product(SPREADS, SAVES, RESTARTS, CONFIDENCES)
    rows = [kept_under_failures(*way) for way in ways]
    record(failing_runs=FAILING_RUNS, failing_mtbf_seconds=MTBF, failing=list(map(asdict, rows)))
    text = failures_text(rows)
    print(text)
    report.insert(ROOT / "docs" / "planning.md", text, MARK)


def kept_under_failures(
    spread: float, save: int, restart: float, confidence: float, runs: int = FAILING_RUNS
) -> Kept:
    """One plan, and runs of it simulated failure by failure by code that knows nothing of it.

    Args:
        spread: see ``Kept``.
        save: likewise.
        restart: likewise.
        confidence: likewise.
        runs: simulated.
    """
    model = known.model(**MODEL, run=Scatter(sd=spread))
    asked: dict[str, Any] = {"save": save, "mtbf_seconds": MTBF, "restart_seconds": restart}
    deadline = ec.plan(model, ec.Budget(), epochs=EPOCHS, **asked).chosen.seconds.p90
    found = ec.plan(model, ec.Budget(deadline=deadline, confidence=confidence), **asked)
    random = np.random.default_rng(3)
    factor = np.exp(spread * random.standard_normal(runs))
    took = failing_runs.of_plan(random, found, factor, restart=restart)
    return Kept(
        spread=spread,
        save=save,
        restart=restart,
        confidence=confidence,
        epochs=found.chosen.epochs,
        promised=found.chosen.probability,
        kept=float(np.mean(took <= deadline)),
    )


def failures_text(rows: Sequence[Kept]) -> str:
    """As Markdown: a line for each way of failing, promised → kept for each confidence."""
    head = ("runs differ by", "from save to save", "restart", *(f"{q:.0%}" for q in CONFIDENCES))
    lines = [head, ("--:",) * len(head)]
    for way in product(SPREADS, SAVES, RESTARTS):
        spread, save, restart = way
        mine = [r for r in rows if (r.spread, r.save, r.restart) == way]
        cells = (f"{r.promised:.1%} → {r.kept:.1%}" for r in mine)
        share = f"{save * MODEL['epoch'] / MTBF:.2g} MTBF"
        lines.append((f"{spread:.0%}", share, f"{restart:.0f} s", *cells))
    worst = max(abs(r.promised - r.kept) for r in rows)
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return (
        f"Promised → kept, of {FAILING_RUNS:,} simulated runs each. `python {MARK} failures`\n\n"
        f"{table}\n\nAt most {100 * worst:.1f} points apart."
    )


if __name__ == "__main__":
    steps.run(__doc__, speed, promises, failures)
