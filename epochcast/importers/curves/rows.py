"""A file to rows with cells as written; a row knows its place in the file.

    epoch;val_loss         ("epoch", "val_loss"), [Row("line 2", {"epoch": "1", …}), …]
    {"epoch": 1, …}        Row("line 1", …)
    [{"epoch": 1, …}, …]   Row("entry 1", …)
    {"val_loss": [0.9, …]} Row("entry 1", …): the first of each list
    event file             Row("step 40", {"step": 40, "val_loss": 0.9, …})

Only cells that are used have to be numbers: ``Row.number`` reads them, and says where one is not.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from epochcast.errors import MissingDependency

DELIMITERS = ",;\t"
Table = tuple[Sequence[str], Sequence["Row"]]  # the names of the columns, and what is under them


@dataclass(frozen=True, slots=True)
class Row:
    """Cells by the name of their column; what is not there, or empty, was not logged."""

    place: str
    cells: Mapping[str, Any]

    def number(self, column: str | None) -> float | None:
        """What is written in a column, or None.

        Raises:
            ValueError: it is no number.
        """
        cell = self.cells.get(column) if column else None
        if cell is None or (isinstance(cell, str) and not cell.strip()):
            return None
        if isinstance(cell, int | float | str) and not isinstance(cell, bool):
            try:
                return float(cell)
            except (ValueError, OverflowError):
                pass
        raise self.wrong(column, f"expected a number, but got {cell!r:.40}")

    def wrong(self, column: str | None, problem: str) -> ValueError:
        """The one way to say what is wrong with a cell, and where."""
        return ValueError(f"{self.place}, column {column!r}: {problem}")


def read_rows(file: Path) -> Table:
    """The names and rows in a file.

    Raises:
        ValueError: it is neither CSV nor JSON nor an event file.
        MissingDependency: an event file, without TensorBoard installed.
    """
    if "tfevents" in file.name:
        return _named(_event_rows(file))
    text = file.read_text(encoding="utf-8-sig")
    return _named(_json_rows(text)) if text.lstrip()[:1] in ("{", "[") else _csv_table(text)


def _named(rows: Sequence[Row]) -> Table:
    return list(dict.fromkeys(name for row in rows for name in row.cells)), rows


def _csv_table(text: str) -> Table:
    header = next((line for line in text.splitlines() if line.strip()), "")
    lines = csv.reader(
        io.StringIO(text, newline=""), delimiter=max(DELIMITERS, key=header.count), strict=True
    )
    names: list[str] = []
    rows = []
    for cells in lines:
        if not any(cell.strip() for cell in cells):
            continue
        if not names:
            names = [cell.strip() for cell in cells]
        elif len(cells) > len(names):
            raise ValueError(
                f"line {lines.line_num}: {len(cells)} cells, but the header has {len(names)}"
            )
        else:
            rows.append(Row(f"line {lines.line_num}", dict(zip(names, cells, strict=False))))
    return names, rows


def _json_rows(text: str) -> Sequence[Row]:
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":  # more than one document: JSON Lines
            raise ValueError(f"line {error.lineno}: not JSON: {error.msg}") from error
        return [
            _row(f"line {n}", _loaded(n, line))
            for n, line in enumerate(io.StringIO(text), start=1)
            if line.strip()
        ]
    if isinstance(document, dict) and isinstance(document.get("log_history"), list):
        return [row for row in _entries(document["log_history"]) if _is_log(row)]
    if isinstance(document, dict) and document and all(map(_is_list, document.values())):
        return _transposed(document)
    return _entries(document if isinstance(document, list) else [document])


def _loaded(number: int, line: str) -> object:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {number}: not JSON: {error.msg}") from error


def _entries(found: Sequence[object]) -> list[Row]:
    return [_row(f"entry {n}", entry) for n, entry in enumerate(found, start=1)]


def _row(place: str, entry: object) -> Row:
    if not isinstance(entry, dict):
        raise ValueError(f"{place}: expected a JSON object, but got {entry!r:.40}")
    return Row(place, entry)


def _is_log(row: Row) -> bool:
    """Neither the summary at the end, nor an evaluation before the first step."""
    return "train_runtime" not in row.cells and row.cells.get("step") != 0


def _is_list(value: object) -> bool:
    return isinstance(value, list)


def _transposed(lists: Mapping[str, Sequence[object]]) -> Sequence[Row]:
    lengths = {name: len(values) for name, values in lists.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise ValueError(f"its lists are not equally long: {listed}")
    columns = zip(*lists.values(), strict=True)
    return _entries([dict(zip(lists, cells, strict=True)) for cells in columns])


def _event_rows(file: Path) -> Sequence[Row]:
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
            if value.HasField("tensor") and not value.tensor.tensor_shape.dim:
                row = rows.setdefault(event.step, {"step": float(event.step)})
                row[value.tag] = float(tensor_util.make_ndarray(value.tensor))
    return [Row(f"step {step}", rows[step]) for step in sorted(rows)]
