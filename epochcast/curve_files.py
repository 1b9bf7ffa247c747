"""Learning curves from files: CSV, JSON Lines, or a TensorBoard event file.

    runs/pilot.csv       epoch,train_loss,val_loss      one row a check; empty cells are skipped
    runs/pilot.jsonl     {"epoch": 3, "val_loss": 0.41}
    events.out.tfevents… scalars by tag; the step is the epoch

Names are the metric's own, and for training values what it is called without ``val``: with the
metric ``val_loss`` the first of ``train_loss``, ``training_loss``, ``loss`` that is there. Values
that are not finite are skipped too; a curve that ends in them has ``non_finite_epoch``.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from math import isfinite, nan
from pathlib import Path

from epochcast.errors import MissingDependency, UsageError
from epochcast.records import LearningCurve

Row = Mapping[str, float]
EPOCH_NAMES = ("epoch", "epochs", "step")


def read_curve(path: str | Path, metric: str = "val_loss") -> LearningCurve:
    """The learning curve in a file.

    Raises:
        UsageError: no such file, not a curve, or without the metric; says what is there.
        MissingDependency: an event file, without TensorBoard installed.
    """
    file = Path(path)
    if not file.is_file():
        raise UsageError(f"there is no learning curve at {path}")
    try:
        rows = list(_rows(file))
        return _curve(rows, metric)
    except (ValueError, OSError, csv.Error) as error:
        raise UsageError(f"{path} is not a learning curve: {error}") from error


def _rows(file: Path) -> Iterable[Row]:
    if "tfevents" in file.name:
        return _event_rows(file)
    if file.suffix.lower() in (".jsonl", ".ndjson", ".json"):
        return _json_rows(file)
    return _csv_rows(file)


def _csv_rows(file: Path) -> Iterable[Row]:
    with file.open(encoding="utf-8-sig", newline="") as stream:
        for row in csv.DictReader(stream):
            yield {k.strip(): float(v) for k, v in row.items() if k and v and v.strip()}


def _json_rows(file: Path) -> Iterable[Row]:
    for line in file.read_text(encoding="utf-8").splitlines():
        row = json.loads(line) if line.strip() else {}
        if not isinstance(row, dict):
            raise ValueError(f"expected one JSON object a line, but got {line[:40]!r}")
        yield {k: float(v) for k, v in row.items() if isinstance(v, int | float)}


def _event_rows(file: Path) -> Iterable[Row]:
    try:
        from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
        from tensorboard.util import tensor_util
    except ImportError as error:
        raise MissingDependency(
            "reading an event file needs TensorBoard: pip install 'epochcast[tensorboard]'"
        ) from error
    rows: dict[int, dict[str, float]] = {}
    for event in EventFileLoader(str(file)).Load():
        for value in event.summary.value:
            row = rows.setdefault(event.step, {"epoch": float(event.step)})
            if value.HasField("tensor") and not value.tensor.tensor_shape.dim:
                row[value.tag] = float(tensor_util.make_ndarray(value.tensor))
    return [rows[step] for step in sorted(rows)]


def _curve(rows: list[Row], metric: str) -> LearningCurve:
    names = list(dict.fromkeys(name for row in rows for name in row))
    if metric not in names:
        raise ValueError(f"no metric {metric!r}; it has: {', '.join(names) or 'nothing'}")
    counter = next((name for name in EPOCH_NAMES if name in names), None)
    training = next((name for name in _training_names(metric) if name in names), None)
    shown = [row for row in rows if metric in row]
    at = [float(i) if counter is None else row[counter] for i, row in enumerate(shown, start=1)]
    finite = [i for i, row in enumerate(shown) if isfinite(row[metric])]
    if shown and not finite:
        raise ValueError(f"no value of {metric!r} is finite")
    checks = [shown[i] for i in finite]
    known = training is not None and all(isfinite(row.get(training, nan)) for row in checks)
    return LearningCurve(
        epochs=tuple(at[i] for i in finite),
        validation=tuple(row[metric] for row in checks),
        training=tuple(row[str(training)] for row in checks) if known else (),
        non_finite_epoch=next((e for e in at[finite[-1] + 1 :] if e > at[finite[-1]]), None),
    )


def _training_names(metric: str) -> tuple[str, ...]:
    for prefix in ("val_", "valid_", "validation_", "eval_", "val/", "eval/"):
        if metric.startswith(prefix):
            rest = metric.removeprefix(prefix)
            return (f"train_{rest}", f"training_{rest}", f"train/{rest}", rest)
    return (f"train_{metric}", f"training_{metric}")
