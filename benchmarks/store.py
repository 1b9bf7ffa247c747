"""A question beside a million measurements: ``predict`` as a whole process, on both databases.

    recorded trials of one workload ──▶ on 16 devices ──▶ of 1,042 workloads: 1,000,320 rows
    epochcast predict of one of them, the first time (it fits) and again (the fit is cached)
            ──▶ results/store.json, docs/teams.md

    python benchmarks/store.py measure postgresql://USER@HOST/NAME      an empty database of yours
    python benchmarks/store.py table

Rows are copies by SQL, under other keys and names, in the tables and indexes that any store has.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from comparison import recording, report

from epochcast.profiler.machine import cpu_model
from epochcast.storage.database import Connection
from epochcast.storage.store import Store
from epochcast.units import format_seconds

HERE = Path(__file__).resolve().parent
RESULT = HERE / "results" / "store.json"
TRIALS = HERE / "results" / "accuracy-cpu.jsonl.gz"
DOCS, MARK = HERE.parent / "docs", "benchmarks/store.py"
WORKLOAD, DEVICES, WORKLOADS = "mnist-mlp", 16, 1042
AGAIN = 7  # predictions, once the fit is cached
COLUMNS = "source, data, device_key, status, round, created_at, schema"
COPY = f"""INSERT INTO epochcast_measurements (key, workload, target, document, {COLUMNS})
SELECT key || '-' || name, name, name, replace(document, '"{WORKLOAD}"', '"' || name || '"'),
    {COLUMNS}
FROM epochcast_measurements m CROSS JOIN ({{names}}) names
WHERE m.workload = '{WORKLOAD}'"""


def start(store: Store) -> int:
    """The recorded trials of one workload, as if they were of each of the devices."""
    _, trials = recording.read(TRIALS)
    trials = [trial for trial in trials if trial.workload == WORKLOAD]
    for number in range(DEVICES):
        name = f"{trials[0].device.name} {number}"
        store.add_all(replace(t, device=replace(t.device, name=name)) for t in trials)
    return DEVICES * len(trials)


def fill(store: Store) -> None:
    """The same for the other workloads, a few dozen in a transaction."""
    for begin in range(1, WORKLOADS, 50):
        numbers = range(begin, min(begin + 50, WORKLOADS))
        names = " UNION ALL ".join(f"SELECT 'workload-{i:04}' AS name" for i in numbers)
        store.write(partial(Connection.execute, sql=COPY.format(names=names)))


def predictions(url: str) -> dict[str, float]:
    """Seconds of the first and of later predictions for one device of one workload.

    Of the later ones the processor's seconds, too, which other processes do not lengthen.
    """
    command = [sys.executable, "-m", "epochcast", "predict", WORKLOAD, "--epochs", "90"]
    seconds, busy = [], []
    for _ in range(1 + AGAIN):
        begun, used = time.perf_counter(), children_seconds()
        subprocess.run([*command, "--store", url], check=True, capture_output=True)
        seconds.append(time.perf_counter() - begun)
        busy.append(children_seconds() - used)
    found = {"first": seconds[0], "again": median(seconds[1:]), "processor": median(busy[1:])}
    return {name: round(value, 3) for name, value in found.items()}


def children_seconds() -> float:
    """That processes which we started and that have ended kept a processor busy."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measured(url: str) -> dict[str, Any]:
    """Of a store that is not made yet: with one workload in it, and with all of them."""
    with Store.open(url) as store:
        few = start(store)
        alone = predictions(url)
        begun = time.monotonic()
        fill(store)
        seconds = time.monotonic() - begun
        many = store.select("SELECT count(*) FROM epochcast_measurements")[0][0]
        store.write(lambda connection: connection.execute("DELETE FROM epochcast_models"))
        among = predictions(url)
    rows = [{"measurements": few, **alone}, {"measurements": many, **among}]
    return {"filled_in": round(seconds), "predictions": rows}


def measure(url: str) -> None:
    """On a file and on a server, one after the other."""
    found: dict[str, Any] = {"machine": cpu_model()}
    with tempfile.TemporaryDirectory() as folder:
        found["SQLite"] = measured(f"{folder}/store.sqlite")
    found["PostgreSQL"] = measured(url)
    RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def table() -> None:
    """What was measured, in the document."""
    found = json.loads(RESULT.read_text(encoding="utf-8"))
    heads = ("", "measurements", "first `predict`", "again", "of it, processor")
    lines = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
    for name in ("SQLite", "PostgreSQL"):
        for row in found[name]["predictions"]:
            cells = [format_seconds(row[key]) for key in ("first", "again", "processor")]
            lines.append(f"| {name} | {row['measurements']:,} | {' | '.join(cells)} |")
    text = "\n".join([*lines, "", f"({found['machine']})"])
    print(text)
    report.insert(DOCS / "teams.md", text, MARK)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    steps = parser.add_subparsers(dest="step", required=True)
    steps.add_parser("measure").add_argument("url", help="of an empty PostgreSQL database")
    steps.add_parser("table")
    asked = parser.parse_args()
    if asked.step == "measure":
        measure(asked.url)
    table()


if __name__ == "__main__":
    main()
