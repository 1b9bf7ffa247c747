"""What following a plan costs, and whether it keeps its promise, on real training of digits-mlp.

    cost     seconds of one ``run.step()`` and of one epoch's end, beside an empty loop
    budget   20 runs in a plain loop and in each framework, under a deadline that the plan's target
             does not fit into, with a slow-down from a random step on: ended in time? checkpoint?
    kills    20 runs killed with SIGKILL at a random step, again and again until they end: what was
             lost, and does the total budget hold?
    forecast whether P10–P90 of the next epoch holds, by simulation (forecasting.py)
    term     20 runs that get SIGTERM at a random step and are killed 2 s later: a whole checkpoint?

Prints and writes benchmarks/results/following-cpu.json.

    python benchmarks/following.py [--runs 20] [--only budget,cost] [--frameworks plain,keras]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import forecasting

import epochcast as ec
from epochcast.guard.checkpoints import CheckpointStore
from epochcast.guard.log import read_log
from epochcast.guard.run_folder import read_ledger
from epochcast.records import EpochDone, Plan, Position

CHILD = Path(__file__).with_name("followed.py")
RESULTS = Path(__file__).parent / "results"
FRAMEWORKS = ("plain", "lightning", "transformers", "keras")
DEADLINE = 2.0  # seconds a run, in a process that is already there
KILLED_DEADLINE = 12.0  # seconds in all processes of a run, each of which takes some to start
FORECAST_RUNS = 100  # simulated for each noise, planned noise and level
STEPS, EPOCHS = 20_000, 300  # of the cost measurement
GRACE = 2.0  # seconds between SIGTERM and SIGKILL, as schedulers with little patience have it
MOST_PROCESSES = 60  # of one run that is killed again and again


def make_plans(folder: Path) -> dict[str, Plan]:
    """Probe digits-mlp, plan 500 epochs, and then give less time than they need."""
    store = str(folder / "store.sqlite")
    measured = ec.probe(
        "digits-mlp",
        batch_sizes=(16, 32, 64),
        sizes={"width": (64, 128)},
        store=store,
        threads=1,
        traces=False,
    )
    model = ec.fit(measured)

    plan = ec.plan(model, epochs=500, batch_sizes=(32,), sizes={"width": 128}, evaluate=2)
    total = ec.Budget(deadline=KILLED_DEADLINE, counted_from="total")
    return {
        "budget": replace(plan, budget=ec.Budget(deadline=DEADLINE)),
        "kills": replace(plan, budget=total),
    }


def cost(folder: Path) -> dict[str, float]:
    """Microseconds a step and milliseconds an epoch, terminal, log and TensorBoard included."""
    plan = Plan.load(folder / "budget.json")

    def follow(name: str, **settings: Any) -> Any:
        unlimited = replace(plan, budget=ec.Budget())
        return ec.follow(
            unlimited,
            save=lambda path: path.write_text("x"),
            folder=folder / name,
            store=False,
            keep_best=False,
            **settings,
        )

    with follow("steps") as run:
        for _ in run.epochs():
            run.step()  # a first one, which saves
            began = time.perf_counter()
            for _ in range(STEPS):
                run.step()
            step = (time.perf_counter() - began) / STEPS
            break
    seconds = []
    with follow("epochs") as run:
        began = time.perf_counter()
        for epoch in run.epochs():
            run.step()
            now = time.perf_counter()
            seconds.append(now - began)
            began = now
            if epoch + 1 in (EPOCHS, plan.chosen.epochs):
                break
    began = time.perf_counter()
    for _ in range(STEPS):
        pass
    empty = (time.perf_counter() - began) / STEPS
    return {
        "step_microseconds": 1e6 * (step - empty),
        "epoch_milliseconds": 1e3 * median(seconds),
    }


def budget(folder: Path, framework: str, runs: int) -> dict[str, Any]:
    """Real runs under a deadline, one after the other in one process."""
    plan = Plan.load(folder / "budget.json")
    command = [
        sys.executable,
        str(CHILD),
        "budget",
        framework,
        str(folder / "budget.json"),
        str(folder),
        str(runs),
        "0",
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=_environment())
    if done.returncode:
        raise SystemExit(f"{framework} failed: {done.stderr[-2000:]}")
    return summed_up(framework, rows_of(done.stdout), plan.budget.deadline or 0.0)


def rows_of(output: str) -> list[dict[str, Any]]:
    """The rows in what a child printed; frameworks print, too."""
    from followed import ROW

    lines = output.splitlines()
    return [json.loads(line.removeprefix(ROW)) for line in lines if line.startswith(ROW)]


def summed_up(framework: str, rows: list[dict[str, Any]], limit: float) -> dict[str, Any]:
    """Runs under one deadline; one that began too late for a single step has nothing to save."""
    return {
        "framework": framework,
        "runs": len(rows),
        "trained_nothing": sum(row["steps"] == 0 for row in rows),
        "in_time": sum(row["spent"] <= limit and row["seconds"] <= limit for row in rows),
        "whole": sum(row["whole"] for row in rows),
        "budget_ended": sum(row["reason"] == "budget" for row in rows),
        "share_used": median(row["spent"] / limit for row in rows),
        "rows": rows,
    }


def kills(folder: Path, runs: int) -> dict[str, Any]:
    """Runs that are killed at random steps until they end by themselves."""
    rows = [_killed_run(folder / f"kill-{i}", folder / "kills.json", i) for i in range(runs)]
    return {
        "runs": runs,
        "killed": sum(row["killed"] for row in rows),
        "in_budget": sum(row["in_budget"] for row in rows),
        "lost_no_more_than_since_the_save": sum(row["kept"] for row in rows),
        "rows": rows,
    }


def _killed_run(folder: Path, plan_file: Path, seed: int) -> dict[str, Any]:
    plan = Plan.load(plan_file)
    chance = random.Random(seed)
    killed, kept = 0, True
    for _ in range(MOST_PROCESSES):
        if _until(plan_file, folder, chance.randrange(1, 600), _kill) is None:
            break
        killed += 1
        kept &= saved(folder).steps >= _told(folder)
    ledger = read_ledger(folder)
    assert ledger is not None
    limit = plan.budget.deadline or 0.0
    trained = [e.spent_seconds for e in read_log(folder / "log.jsonl") if isinstance(e, EpochDone)]
    return {
        "killed": killed,
        "reason": ledger.reason,
        "trained_until": max(trained, default=0.0),
        "spent": ledger.spent_seconds,  # with the start of a process that found nothing left
        "in_budget": max(trained, default=0.0) <= limit and ledger.reason is not None,
        "kept": kept,
        "epochs": saved(folder).epoch,
    }


def _told(folder: Path) -> int:
    """Steps at the last save of which the log tells; a kill may come before it is opened."""
    if not (folder / "log.jsonl").exists():
        return 0
    done = [e for e in read_log(folder / "log.jsonl") if isinstance(e, EpochDone)]
    return max((e.position.steps for e in done if e.save_seconds is not None), default=0)


def saved(folder: Path) -> Position:
    """Where the newest whole checkpoint is."""
    newest = CheckpointStore(folder / "checkpoints", keep=0).last()
    return newest[1].position if newest else Position()


def term(folder: Path, runs: int) -> dict[str, Any]:
    """SIGTERM at a random step: is the checkpoint of that moment whole, 2 s later?"""
    whole, codes = 0, []
    for i in range(runs):
        place = folder / f"term-{i}"
        steps = random.Random(i).randrange(1, 400)
        codes.append(_until(folder / "kills.json", place, steps, _terminate))
        at = saved(place)
        from followed import last_checkpoint, loads

        whole += at.steps >= steps and loads(last_checkpoint(place))
    return {"runs": runs, "whole": whole, "exit_codes": sorted(set(codes), key=str)}


def _until(
    plan: Path, folder: Path, steps: int, end: Callable[[subprocess.Popen[str], int], int]
) -> int | None:
    """Train until so many steps were seen; None if the run ended before by itself."""
    command = [sys.executable, str(CHILD), "train", str(plan), str(folder)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=_environment()
    ) as child:
        assert child.stdout is not None
        for seen, _ in enumerate(child.stdout, start=1):
            if seen == steps:
                return end(child, seen)
    return None


def _kill(child: subprocess.Popen[str], seen: int) -> int:
    os.kill(child.pid, signal.SIGKILL)
    assert child.stdout is not None
    return seen + sum(1 for _ in child.stdout)


def _terminate(child: subprocess.Popen[str], seen: int) -> int:
    os.kill(child.pid, signal.SIGTERM)
    try:
        child.communicate(timeout=GRACE)
    except subprocess.TimeoutExpired:
        os.kill(child.pid, signal.SIGKILL)
    return child.wait()


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "KERAS_BACKEND": "torch"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--only", default="forecast,cost,budget,kills,term")
    parser.add_argument("--frameworks", default=",".join(FRAMEWORKS))
    wanted = parser.parse_args()
    parts = wanted.only.split(",")
    found: dict[str, Any] = {}
    if "forecast" in parts:
        found["forecast"] = forecasting.forecasts(FORECAST_RUNS)
    if set(parts) - {"forecast"}:
        found |= trained(parts, wanted.frameworks.split(","), wanted.runs)
    write(found)


def trained(parts: list[str], frameworks: list[str], runs: int) -> dict[str, Any]:
    """What needs real training.

    Args:
        parts: of the benchmark.
        frameworks: to train in.
        runs: of each.
    """
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for plan_name, plan in make_plans(folder).items():
            plan.save(folder / f"{plan_name}.json")
        if "cost" in parts:
            found["cost"] = cost(folder)
        if "budget" in parts:
            found["budget"] = [budget(folder, f, runs) for f in frameworks]
        if "kills" in parts:
            found["kills"] = kills(folder, runs)
        if "term" in parts:
            found["term"] = term(folder, runs)
    return found


def write(found: dict[str, Any]) -> None:
    """Print a table and keep the raw results; parts that were not run stay as they were."""
    import torch

    file = RESULTS / "following-cpu.json"
    kept = json.loads(file.read_text()) if file.exists() else {}
    kept |= found
    kept |= {
        "command": " ".join(["python", *sys.argv]),
        "machine": platform.processor() or platform.machine(),
        "cpus": os.cpu_count(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
    file.write_text(json.dumps(kept, indent=1) + "\n")
    for line in table(kept):
        print(line)


def table(found: dict[str, Any]) -> list[str]:
    """The results in words."""
    lines = forecasting.table(found["forecast"]) if "forecast" in found else []
    if "cost" in found:
        step, epoch = found["cost"]["step_microseconds"], found["cost"]["epoch_milliseconds"]
        lines.append(f"a step costs {step:.2f} µs, an epoch {epoch:.2f} ms")
    for row in found.get("budget", ()):
        nothing = row.get("trained_nothing", 0)
        late = f", {nothing} began too late to train" if nothing else ""
        lines.append(
            f"{row['framework']:>13}: {row['in_time']} of {row['runs']} in time, {row['whole']} "
            f"whole checkpoints{late}, {row['share_used']:.0%} of the budget used (median)"
        )
    if "kills" in found:
        k = found["kills"]
        lines.append(
            f"{k['killed']} kills in {k['runs']} runs: budget held in {k['in_budget']}, no more "
            f"than since the last save lost in {k['lost_no_more_than_since_the_save']}"
        )
    if "term" in found:
        t = found["term"]
        lines.append(f"SIGTERM: {t['whole']} of {t['runs']} whole; exit codes {t['exit_codes']}")
    return lines


if __name__ == "__main__":
    main()
