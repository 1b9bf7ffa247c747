"""The rows of our tab: what the index says, with the text that a person reads beside each number.

    index ──▶ {"columns": [{"key", "title", "numeric"}], "rows": [{"cells": {key: {value, text}}}]}

The page sorts by ``value`` and shows ``text``; it formats nothing itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from epochcast.records import RunConfig
from epochcast.report.tensorboard.index import BoardRow
from epochcast.units import format_bytes, format_count, format_percent, format_seconds

Cell = dict[str, Any]
Column = dict[str, Any]

_MEASURED: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("step_seconds", "Step time", format_seconds),
    ("step_spread", "± spread", format_percent),
    ("samples_per_second", "Samples/s", format_count),
    ("peak_bytes", "Peak tensors", format_bytes),
    ("device_bytes", "Device memory", format_bytes),
)
_SETTINGS = tuple(f.name for f in fields(RunConfig) if f.name not in ("batch_size", "sizes"))
_STATUS = {"ok": "ok", "oom": "out of memory", "timeout": "timed out", "crashed": "crashed"}


def make_columns(rows: Sequence[BoardRow]) -> list[Column]:
    """The columns that these configurations need: every knob, and the settings that differ."""
    columns = [_column("workload", "Workload")]
    if len({row.device for row in rows}) > 1:
        columns.append(_column("device", "Device"))
    columns.append(_column("batch_size", "Batch size", numeric=True))
    for name in sorted({name for row in rows for name, _ in row.config.sizes}):
        values = [value for row in rows for knob, value in row.config.sizes if knob == name]
        numeric = all(isinstance(value, int | float) for value in values)
        columns.append(_column(f"size:{name}", name, numeric))
    for name in _SETTINGS:
        if len({getattr(row.config, name) for row in rows}) > 1:
            columns.append(_column(name, name.replace("_", " ")))
    columns += [_column(name, title, numeric=True) for name, title, _ in _MEASURED]
    return [*columns, _column("status", "Status")]


def _column(key: str, title: str, numeric: bool = False) -> Column:
    return {"key": key, "title": title, "numeric": numeric}


def make_cells(row: BoardRow) -> Mapping[str, Cell]:
    """The cells of one configuration, by the key of their column; unknown numbers are blank."""
    cells = {
        "workload": _plain(row.workload),
        "device": _plain(row.device),
        "batch_size": _plain(row.config.batch_size),
        "status": _plain(_STATUS[row.status]),
    }
    cells |= {f"size:{name}": _plain(value) for name, value in row.config.sizes}
    cells |= {name: _plain(getattr(row.config, name)) for name in _SETTINGS}
    for name, _, text in _MEASURED:
        value = getattr(row, name)
        cells[name] = {"value": value, "text": "–" if value is None else text(value)}
    return cells


def _plain(value: str | int | float | bool) -> Cell:
    return {"value": value, "text": str(value)}
