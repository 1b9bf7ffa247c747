"""Text to a table whose every cell still knows its line and its column.

\ufeffbs;time (s)          names  ("bs", "time (s)")
64;"1.5"          ──▶   rows   (Row(line=2, cells=("64", "1.5")), …)
{"bs": 64, …}           the same from JSON Lines; a key that a line lacks is an empty cell
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from epochcast.errors import StoreError

DELIMITERS = ",;\t"
Cell = object  # text; from JSON also a number, a truth value or a list; None or "" where empty


@dataclass(frozen=True, slots=True)
class Row:
    """The cells of a row, in the order of the table's names, and its first line in the file."""

    line: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """What a file holds; names are as written, without blanks around them."""

    names: tuple[str, ...]
    rows: tuple[Row, ...]


def malformed(line: int, problem: str, column: str | None = None) -> StoreError:
    """The one way to say what is wrong with a file, and where."""
    place = f"line {line}" + (f", column {column!r}" if column is not None else "")
    return StoreError(f"{place}: {problem}; nothing was imported")


def is_empty(cell: Cell) -> bool:
    """Whether nothing is written there."""
    return cell is None or (isinstance(cell, str) and not cell.strip())


def read_table(text: str) -> Table:
    """The table in a text: JSON Lines if it begins with an object, else CSV.

    Raises:
        StoreError: it is neither, or a row does not fit the header.
    """
    text = text.removeprefix("\ufeff")  # a byte order mark, as Windows editors add
    table = _from_json(text) if text.lstrip().startswith("{") else _from_csv(text)
    if not table.rows:
        raise StoreError(
            "there are no measurements in it, only "
            + ("a header" if table.names else "an empty file")
            + "; a row needs at least batch_size and epoch_seconds or step_seconds"
        )
    return table


def _from_json(text: str) -> Table:
    lines = [(n, line) for n, line in enumerate(io.StringIO(text), start=1) if line.strip()]
    objects = [(n, _object(n, line)) for n, line in lines]
    names = tuple(dict.fromkeys(name for _, found in objects for name in found))
    rows = (Row(n, tuple(found.get(name) for name in names)) for n, found in objects)
    return _table(names, rows)


def _object(number: int, line: str) -> dict[str, Cell]:
    try:
        return msgspec.json.decode(line, type=dict[str, Cell])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise malformed(number, f"not a JSON object: {error}") from error


def _from_csv(text: str) -> Table:
    rows = _csv_rows(text)
    header = next(rows, Row(1, ()))
    names = tuple(str(cell).strip() for cell in header.cells)
    repeated = next((name for name in names if name and names.count(name) > 1), None)
    if repeated:
        raise malformed(header.line, "the header has this name twice", repeated)
    return _table(names, (_aligned(row, len(names)) for row in rows))


def _csv_rows(text: str) -> Iterator[Row]:
    """Rows that are not blank. A quoted cell may hold line breaks."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text), strict=True)
    line = 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield Row(line, tuple(cells))
            line = reader.line_num + 1
    except csv.Error as error:
        raise malformed(line, f"not CSV: {error}") from error


def _delimiter(text: str) -> str:
    """What divides the header into the most columns."""
    header = next((line for line in io.StringIO(text) if line.strip()), "")
    return max(DELIMITERS, key=header.count)


def _aligned(row: Row, columns: int) -> Row:
    if len(row.cells) != columns:
        raise malformed(row.line, f"{len(row.cells)} cells, but the header has {columns} columns")
    return row


def _table(names: tuple[str, ...], rows: Iterator[Row]) -> Table:
    """Without columns that have no name: row numbers, as pandas writes them first, or nothing."""
    named = [i for i, name in enumerate(names) if name]
    kept = (Row(row.line, tuple(row.cells[i] for i in named)) for row in _checked(names, rows))
    return Table(tuple(names[i] for i in named), tuple(kept))


def _checked(names: tuple[str, ...], rows: Iterator[Row]) -> Iterator[Row]:
    nameless = [i for i, name in enumerate(names) if not name and i > 0]
    for row in rows:
        filled = next((i for i in nameless if not is_empty(row.cells[i])), None)
        if filled is not None:
            raise malformed(row.line, f"column {filled + 1} has no name in the header")
        yield row
