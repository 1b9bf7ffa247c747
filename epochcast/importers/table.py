"""A file to a table whose every cell still knows where it is written; the one reader of files.

    \ufeffbs;time (s)             names ("bs", "time (s)")
    64;"1.5"                      Row("line 2", {"bs": "64", "time (s)": "1.5"})
    {"bs": 64, …}                 Row("line 1", …)      JSON Lines; what a line lacks is empty
    [{"epoch": 1, …}, …]          Row("entry 1", …)     a JSON array
    {"val_loss": [0.9, …]}        Row("entry 1", …)     the first of each list, as Keras keeps them
    {"log_history": [{…}, …]}     Row("entry 1", …)     the Hugging Face Trainer's state
    events.out.tfevents…          Row("step 40", {"step": 40, "val_loss": 0.9, …})

What a file is, is read off its contents, except that an event file has ``tfevents`` in its name.
Cells are as written; ``Row.get`` reads one, and says where it makes no sense.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from epochcast.errors import MissingDependency
from epochcast.records.validation import shown

DELIMITERS = ",;\t"
Cell = object  # text; from JSON also a number, a truth value or a list; None or "" where empty

_Value = TypeVar("_Value")


class Malformed(ValueError):
    """A file cannot be read as a table, or a cell not as what it should be; says where."""


@dataclass(frozen=True, slots=True)
class Row:
    """Cells by the name of their column; what is not there, or empty, was not written."""

    location: str
    cells: Mapping[str, Cell]

    def get(self, column: str | None, parse: Callable[[Cell], _Value]) -> _Value | None:
        """What is written in a column; None if nothing is.

        Raises:
            Malformed: ``parse`` makes no sense of it.
        """
        cell = self.cells.get(column) if column else None
        if is_empty(cell):
            return None
        try:
            return parse(cell)
        except ValueError as error:
            raise self.wrong(str(error), column) from error

    def wrong(self, problem: str, column: str | None = None) -> Malformed:
        """The one way to say what is wrong with a row, and where."""
        location = self.location if column is None else f"{self.location}, column {column!r}"
        return Malformed(f"{location}: {problem}")


@dataclass(frozen=True, slots=True)
class Table:
    """What a file holds: the names of its columns, without blanks around them, and its rows."""

    names: tuple[str, ...]
    rows: tuple[Row, ...]


def is_empty(cell: Cell) -> bool:
    """Whether nothing is written there."""
    return cell is None or (isinstance(cell, str) and not cell.strip())


def read_file(path: Path) -> Table:
    """The table in a file; short lines of a CSV are allowed.

    Raises:
        Malformed: it is neither CSV nor JSON.
        ValueError: it is not UTF-8 text.
        OSError: it cannot be read.
        MissingDependency: an event file, without TensorBoard installed.
    """
    if "tfevents" in path.name:
        return _of_objects(_event_rows(path))
    return read_text(path.read_text(encoding="utf-8"))


def read_text(text: str, *, strict: bool = False) -> Table:
    """The table in a text: JSON if it begins with an object or an array, else CSV.

    Args:
        text: with or without a byte order mark, as Windows editors add.
        strict: whether a CSV whose header has a name twice, or whose lines have fewer cells than
            the header or more than the names in it, is refused.

    Raises:
        Malformed: it is neither, or a row does not fit the header.
    """
    text = text.removeprefix("\ufeff")
    if text.lstrip()[:1] in ("{", "["):
        return _of_objects(_json_rows(text))
    return _csv_table(text, strict)


def _one_line(name: str) -> str:
    """A column's name as people type it: spreadsheets break long ones into lines."""
    return " ".join(name.split())


def _of_objects(rows: Sequence[Row]) -> Table:
    return Table(tuple(dict.fromkeys(name for row in rows for name in row.cells)), tuple(rows))


# CSV


def _csv_table(text: str, strict: bool) -> Table:
    lines = _csv_lines(text)
    first, header = next(lines, (1, []))
    names = [_one_line(name) for name in header]
    named = tuple(name for name in names if name)  # pandas writes row numbers under no name
    repeated = next((name for name in named if named.count(name) > 1), None)
    if strict and repeated:
        raise Row(f"line {first}", {}).wrong("the header has this name twice", repeated)
    rows = []
    for line, cells in lines:
        row = Row(f"line {line}", {n: c for n, c in zip(names, cells, strict=False) if n})
        _require_fit(row, cells, names, strict)
        rows.append(row)
    return Table(named, tuple(rows))


def _require_fit(row: Row, cells: Sequence[str], names: Sequence[str], strict: bool) -> None:
    if len(cells) > len(names) or (strict and len(cells) < len(names)):
        raise row.wrong(f"{len(cells)} cells, but the header has {len(names)} columns")
    nameless = (i for i, name in enumerate(names) if strict and i and not name)
    filled = next((i for i in nameless if not is_empty(cells[i])), None)
    if filled is not None:
        raise row.wrong(f"column {filled + 1} has no name in the header")


def _csv_lines(text: str) -> Iterator[tuple[int, list[str]]]:
    """Cells of lines that are not blank, by the number of the line that a row begins in."""
    header = next((line for line in io.StringIO(text) if line.strip()), "")
    delimiter = max(DELIMITERS, key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line = 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise Malformed(f"line {line}: not CSV: {error}") from error


# JSON


def _json_rows(text: str) -> list[Row]:
    first = text[: len(text) - len(text.lstrip())].count("\n") + 1
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":  # more than one document: JSON Lines
            raise Malformed(f"line {error.lineno}: not JSON: {error.msg}") from error
        lines = ((f"line {n}", line) for n, line in enumerate(io.StringIO(text), start=1))
        return [_row(location, _loaded(location, line)) for location, line in lines if line.strip()]
    except (ValueError, RecursionError) as error:  # a number of too many digits, or too deep
        raise Malformed(f"line {first}: not JSON: {error}") from error
    if isinstance(document, list):
        return _entries(document)
    if isinstance(log := document.get("log_history"), list):
        return [row for row in _entries(log) if _is_log(row)]
    if document and all(isinstance(value, list) for value in document.values()):
        return _transposed(document)
    return [_row(f"line {first}", document)]


def _loaded(location: str, line: str) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"{location}: not JSON: {getattr(error, 'msg', error)}") from error


def _entries(found: Sequence[object]) -> list[Row]:
    return [_row(f"entry {n}", entry) for n, entry in enumerate(found, start=1)]


def _row(location: str, entry: object) -> Row:
    if not isinstance(entry, dict):
        raise Malformed(f"{location}: expected a JSON object, but got {shown(entry)}")
    return Row(location, {_one_line(name): cell for name, cell in entry.items()})


def _is_log(row: Row) -> bool:
    """Neither the summary at the end, nor an evaluation before the first step."""
    return "train_runtime" not in row.cells and row.cells.get("step") != 0


def _transposed(lists: Mapping[str, Sequence[object]]) -> list[Row]:
    lengths = {name: len(values) for name, values in lists.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{_one_line(name)} {length}" for name, length in lengths.items())
        raise Malformed(f"its lists are not equally long: {listed}")
    columns = zip(*lists.values(), strict=True)
    return _entries([dict(zip(lists, cells, strict=True)) for cells in columns])


# Event files


def _event_rows(path: Path) -> list[Row]:
    try:
        from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
        from tensorboard.util import tensor_util
    except ImportError as error:
        raise MissingDependency(
            "reading an event file needs TensorBoard: pip install 'epochcast[tensorboard]'"
        ) from error
    rows: dict[int, dict[str, Any]] = {}
    for event in EventFileLoader(str(path)).Load():
        for value in event.summary.value:
            if value.HasField("tensor") and not value.tensor.tensor_shape.dim:
                row = rows.setdefault(event.step, {"step": float(event.step)})
                row[value.tag] = float(tensor_util.make_ndarray(value.tensor))
    return [Row(f"step {step}", rows[step]) for step in sorted(rows)]
