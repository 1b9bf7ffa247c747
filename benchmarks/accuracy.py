"""How far predictions are from measurements, beside what other tools would have said.

    measure    probe grids of configurations in rounds     ──▶ results/accuracy-cpu.jsonl.gz
    count      dry runs and other tools' memory formulas   ──▶ results/accuracy-cpu-counts.json
    evaluate   fit on few, predict the rest, compare       ──▶ results/accuracy-cpu.json,
                                                               docs/accuracy.md
    draw       the figure, by what was written             ──▶ docs/accuracy.png

    python benchmarks/accuracy.py [measure|count|evaluate|draw] [--quick]   from the repository root

Without a step all four follow each other. Evaluating runs no step and needs not the machine that
measured. ``--quick`` measures two workloads in two minutes, into a folder of its own.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

from comparison import recording
from comparison.grids import GRIDS, Grid

ROOT = Path(__file__).resolve().parent.parent
STEPS = ("measure", "count", "evaluate", "draw")
ROUNDS = 4  # two to fit on, two to be compared with


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", nargs="?", choices=STEPS)
    parser.add_argument("--seconds", type=float, default=0.5, help="timed in each trial")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--quick", action="store_true", help="two small grids, into build/accuracy")
    options = parser.parse_args()
    results, docs = ROOT / "benchmarks" / "results", ROOT / "docs"
    if options.quick:
        results = docs = ROOT / "build" / "accuracy"
    results.mkdir(parents=True, exist_ok=True)
    grids = _quick(GRIDS) if options.quick else GRIDS
    trials, counts = results / "accuracy-cpu.jsonl.gz", results / "accuracy-cpu-counts.json"
    result = results / "accuracy-cpu.json"
    command = "python benchmarks/accuracy.py " + " ".join(sys.argv[1:])
    if options.step in (None, "measure"):
        from comparison import measuring

        found = measuring.measure(grids, ROUNDS, options.seconds, options.threads)
        recording.write(trials, measuring.about(command.strip()), found)
    if options.step in (None, "count"):
        from comparison import memory_tools

        rows = [row for grid in grids for row in memory_tools.count(grid)]
        counts.write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")
    if options.step in (None, "evaluate"):
        from comparison import evaluation

        evaluation.evaluate(trials, counts, result, docs)
    if options.step in (None, "draw"):
        from comparison import report

        (docs / "accuracy.png").write_bytes(report.figure(report.stored_scores(result)))


def _quick(grids: tuple[Grid, ...]) -> tuple[Grid, ...]:
    return tuple(
        replace(g, values=g.values[:3], batch_sizes=g.batch_sizes[:5])
        for g in grids
        if g.name in ("digits-mlp", "bert")
    )


if __name__ == "__main__":
    main()
