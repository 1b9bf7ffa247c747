"""A sweep on Ray beside the same one without: one worker, two, and what Ray adds to a trial.

    here    one process for all trials, as without --on; and one for each trial, as Ray has it
    ray     a Ray of our own on this machine, one trial at a time, then two at a time
            ──▶ results/ray-cpu.json, docs/scaling.md
    python benchmarks/ray_sweep.py        from the repository root, on a quiet machine of two cores

All sweeps make six trials of mnist-mlp with one thread and no traces. A trial is timed from its
beginning (on Ray: from when it is handed out) until its measurement is stored.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import steps
from comparison import report

from epochcast.api.probe import run_sweep
from epochcast.profiler.cluster import ClusterRequest, Shipment, connected
from epochcast.profiler.machine import cpu_model
from epochcast.profiler.request import SweepRequest
from epochcast.profiler.rounds import SilentObserver, SweepResult
from epochcast.records import Device, Measurement
from epochcast.storage.store import Store
from epochcast.units import format_seconds

HERE = Path(__file__).resolve().parent
RESULT = HERE / "results" / "ray-cpu.json"
DOCS, MARK = HERE.parent / "docs", "benchmarks/ray_sweep.py"
BATCH_SIZES = (16, 32, 64, 128, 256, 512)


class Stopwatch(SilentObserver):
    """When the rounds began, and how long each trial took."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.ready = 0.0
        self.trials: list[float] = []
        self._begun: dict[str, float] = {}
        self._last = 0.0

    def begin(self, trials: int | None, done: int, device: Device | None, data: str) -> None:
        self._last = time.monotonic()
        self.ready = self._last - self.started

    def phase(self, label: str, phase: str) -> None:
        if phase.startswith("on "):
            self._begun[label] = time.monotonic()

    def finished(self, measurement: Measurement) -> None:
        now = time.monotonic()
        self.trials.append(now - self._begun.get(measurement.config.label, self._last))
        self._last = now


def timed(on: ClusterRequest | None, **changes: Any) -> dict[str, Any]:
    """A sweep into a store of its own, in seconds."""
    asked: dict[str, Any] = {"batch_sizes": BATCH_SIZES, "rounds": 1, **changes}
    request = SweepRequest(target="mnist-mlp", threads=1, device="cpu", traces=False, **asked)
    watch = Stopwatch()
    with tempfile.TemporaryDirectory() as folder, Store.open(f"{folder}/store.sqlite") as store:
        result: SweepResult = run_sweep(request, store, watch, on)
    if not all(m.status == "ok" for m in result.measurements):
        raise SystemExit("a trial failed; nothing is written")
    return {
        "seconds": round(time.monotonic() - watch.started, 2),
        "until_rounds": round(watch.ready, 2),
        "trials": len(watch.trials),
        "trial_median": round(median(watch.trials), 2),
        "trial_first": round(watch.trials[0], 2),
    }


def measure() -> None:
    """All sweeps, one after the other."""
    begun = time.monotonic()
    with connected(ClusterRequest(), Shipment()):
        start = time.monotonic() - begun
    found = {
        "machine": cpu_model(),
        "ray_start_and_end": round(start, 2),
        "here": timed(None),
        "here_fresh": timed(None, batch_sizes=BATCH_SIZES[:1], rounds=len(BATCH_SIZES)),
        "ray_one": timed(ClusterRequest(cpus=2)),  # both cores: one trial at a time
        "ray_two": timed(ClusterRequest(cpus=1)),
    }
    RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def table() -> None:
    """What was measured, in the document."""
    found = json.loads(RESULT.read_text(encoding="utf-8"))
    rows = {
        "here, one process for all": "here",
        "here, a process for each": "here_fresh",
        "Ray, one trial at a time": "ray_one",
        "Ray, two at a time": "ray_two",
    }
    heads = ("", "sweep of six trials", "of it, before the first trial", "a trial (median)")
    lines = [f"| {' | '.join(heads)} |", f"| {' | '.join('---' for _ in heads)} |"]
    for words, name in rows.items():
        of_it = found[name]
        cells = [format_seconds(of_it[key]) for key in ("seconds", "until_rounds", "trial_median")]
        lines.append(f"| {words} | {' | '.join(cells)} |")
    added = found["ray_one"]["trial_median"] - found["here_fresh"]["trial_median"]
    start = format_seconds(found["ray_start_and_end"])
    lines += [
        "",
        f"A trial on Ray takes {added:+.2f} s beside one in a process of its own here. Starting "
        f"a Ray of our own and ending it takes {start}. ({found['machine']})",
    ]
    text = "\n".join(lines)
    print(text)
    report.insert(DOCS / "scaling.md", text, MARK)


if __name__ == "__main__":
    steps.run(__doc__, measure, table)
