"""What is built in: workloads and data sets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from epochcast.records import DatasetSpec
from epochcast.report.text.tables import plain_table


def print_workloads(console: Console, workloads: Iterable[Mapping[str, Any]]) -> None:
    """The built-in workloads with their knobs."""
    for workload in workloads:
        knobs = " ".join(f"{k}={v}" for k, v in workload["knobs"].items())
        console.print(Text(f"{workload['name']:16} {knobs}", style="bold"))
        console.print(Text(f"{'':16} {workload['description']}"))


def print_datasets(console: Console, datasets: Iterable[DatasetSpec]) -> None:
    """The catalogue of data sets."""
    table = plain_table()
    for heading in ("name", "samples", "evaluation", "shape", "type", "classes", "source"):
        table.add_column(heading)
    for d in datasets:
        shape = "×".join(map(str, d.shape)) or "varies"
        evaluation, classes = f"{d.eval_samples:,}", f"{d.classes:,}" if d.classes else "–"
        table.add_row(d.name, f"{d.samples:,}", evaluation, shape, d.dtype, classes, d.source)
    console.print(table)
