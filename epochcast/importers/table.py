"""A file to a table whose every cell still knows where it is written; the one reader of files.

    \ufeffbs;time (s)             names ("bs", "time (s)")
    64;"1,5"                      Row("line 2", {"bs": "64", "time (s)": "1.5"})
    {"bs": 64, …}                 Row("line 1", …)      JSON, in the forms of ``documents``
    1592234234234 0.9 40          Row("line 1", …)      a metric of mlflow, named as its file
    step 40: val loss 0.9         Row("line 1", …)      a log of names and numbers
    events.out.tfevents…          Row("step 40", {"step": 40, "val_loss": 0.9, …})

What a file is, is read off its contents, except that an event file has ``tfevents`` in its name.
Cells are as written; ``Row.get`` reads one, and says where it makes no sense.

Cells of a CSV are divided by ``,``, ``;``, tabs, ``|`` or blanks. Lines that begin with ``#`` are
remarks, unless the last one before the numbers is the header. A header that comes again, as after a
resume, begins another part. ``0,9`` is 0.9 where cells are not divided by commas and some number
cannot mean thousands.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from epochcast.errors import MissingDependency
from epochcast.importers.documents import json_rows
from epochcast.importers.rows import Malformed, Row, is_empty, one_line

DELIMITERS = ",;\t|"
BLANKS = " "  # where there is no other delimiter, and every line has as many words
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
WITH_COMMA = re.compile(r"[+-]?(\d+),(\d+)(e[+-]?\d+)?\s*(?:%|[a-zµ]+)?", re.IGNORECASE)
WITH_DOT = re.compile(r"[+-]?\d+\.\d+")
MLFLOW = re.compile(r"\d{12,} [-+.\w]+ \d+")  # milliseconds since 1970, a value and a step
STAMPED = re.compile(
    r"\s*(?:\[[^\[\]{}\"]*\][ \t:]*)+[A-Za-z]"
)  # [2026-12-01 08:00] epoch 1, no JSON
STAMP = re.compile(  # what a logger writes before the line, or a progress bar
    r"(?i:\s*(?:\[(?![^\]]*(?:ep|step|iter))[^\[\]{}]*\]\s*)*)"
    r"(?:\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:[.,]\d+)?Z?[\s:|-]*)?"
    r"(?:(?:DEBUG|INFO|WARNING)\b[\s:|\]-]*(?:root:)?\s*)?"
    r"(?:\d+/\d+\s+(?:\[[=>.\s]*\]|[\u2500-\u257f]+)[\s-]*(?:\d+s\s+)?(?:\d+[mun]?s/\w+\s*)?-)?"
)
RULE = re.compile(r"\s*:?-{2,}:?\s*")  # a cell of the line below the header of a table in Markdown
PRINTED = re.compile(r"\s*\{\s*'")  # a dictionary as Python prints it, and no JSON
HOLDS_VALUE = re.compile(  # and is no name of a column: loss=0.9, 3.20it/s, 32
    r"^(?:\W|\d)*$|(?:: +|=)[-+]?\d|^\d[\d.]*\w+/s$"
)
NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?|[-+]?(?:nan|inf)(?!\s+[a-z])"
PAIR = re.compile(
    rf"[\s,;|:/\-\[\]]*([a-z][\w/@+.() ]*?)(?:\s*[:=]\s*|\s+)[\[(]?({NUMBER})"
    r"((?:%|[mun]?s|[KMGT]i?B)?)(?:/\s*\d+)?(?![\w.])",
    re.IGNORECASE,
)
END = re.compile(r"[\s,;|:\-\[\]]*")


@dataclass(frozen=True, slots=True)
class Table:
    """What a file holds: the names of its columns, without blanks around them, and its rows."""

    names: tuple[str, ...]
    rows: tuple[Row, ...]


def read_file(path: Path) -> Table:
    """The table in a file; short lines of a CSV are allowed.

    Raises:
        Malformed: it is neither CSV nor JSON.
        ValueError: it is not text in UTF-8 or UTF-16.
        OSError: it cannot be read.
        MissingDependency: an event file, without TensorBoard installed.
    """
    if "tfevents" in path.name:
        return _of_rows(_event_rows(path))
    return read_text(decoded(path.read_bytes()), name=path.name)


def decoded(content: bytes) -> str:
    """Text in UTF-8, or in UTF-16 as Windows programs write it, with the mark that it begins with.

    Raises:
        Malformed: it is neither.
    """
    encoding = "utf-16" if content.startswith(UTF16) else "utf-8"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise Malformed(
            f"line {line}: not UTF-8 text ({error.reason}); save the file as UTF-8"
        ) from error


def read_text(text: str, *, strict: bool = False, name: str = "value") -> Table:
    """The table in a text: JSON if it begins with an object or an array, else CSV or a log.

    Args:
        text: with or without a byte order mark, as Windows editors add.
        strict: whether a CSV whose header has a name twice, or whose lines have fewer cells than
            the header or more than the names in it, is refused.
        name: of the file, for the metric of one that names none.

    Raises:
        Malformed: it is neither, or a row does not fit the header.
    """
    text = text.removeprefix("\ufeff")
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise Malformed(f"line {line}: not text: there is a NUL character")
    is_json = text.lstrip()[:1] in ("{", "[")
    if is_json and not PRINTED.match(text) and not STAMPED.match(text):
        return _of_rows(json_rows(text))
    if _is_log(text):
        return _of_rows(_logged_rows(text))
    if all(MLFLOW.fullmatch(line) for line in text.split("\n") if line.strip()) and text.strip():
        return _of_rows(_mlflow_rows(text, name))
    return _csv_table(text, strict)


def _of_rows(rows: Sequence[Row]) -> Table:
    return Table(tuple(dict.fromkeys(name for row in rows for name in row.cells)), tuple(rows))


# CSV


def _csv_table(text: str, strict: bool) -> Table:
    skipped, is_remark = _before_header(text)
    lines = _csv_lines(text, skipped, is_remark)
    first, header = next(lines, (1, []))
    names = [one_line(name) for name in header]
    named = tuple(name for name in names if name)  # pandas writes row numbers under no name
    _require_table(names, text.split("\n")[first:])
    repeated = next((name for name in named if named.count(name) > 1), None)
    if strict and repeated:
        raise Row(f"line {first}", {}).wrong("the header has this name twice", repeated)
    rows: list[Row] = []
    part = 0
    for line, cells in lines:
        if [one_line(cell) for cell in cells] == names:
            part += 1
        elif not _is_comment(cells, names):
            row = Row(f"line {line}", {n: c for n, c in zip(names, cells, strict=False) if n}, part)
            _require_fit(row, cells, names, strict)
            rows.append(row)
    pointed = _with_points(rows) if _delimiter(text, skipped) != "," else rows
    return _without_bounds(Table(named, tuple(pointed)))


def _without_bounds(table: Table) -> Table:
    """A chart of Weights & Biases without the bounds of each point, and of one run its name.

    ``run - loss`` stands beside ``run - loss__MIN`` and ``run - loss__MAX``.
    """
    drawn = {name for name in table.names if f"{name}__MIN" in table.names}
    bounds = {f"{name}{end}" for name in drawn for end in ("__MIN", "__MAX")}
    runs = {name.rpartition(" - ")[0] for name in drawn}
    run = f"{runs.pop()} - " if len(runs) == 1 else ""
    names = {name: name.removeprefix(run) for name in table.names if name not in bounds}
    rows = [
        replace(row, cells={names[n]: cell for n, cell in row.cells.items() if n in names})
        for row in table.rows
    ]
    return Table(tuple(names.values()), tuple(rows)) if drawn else table


def _before_header(text: str) -> tuple[int, bool]:
    """How many lines come before the header, and whether it is a remark itself, as of NumPy."""
    lines = text.split("\n")
    remarks = [n for n, line in enumerate(lines) if line.strip()]
    first = next((n for n in remarks if not lines[n].lstrip().startswith("#")), len(lines))
    before = [n for n in remarks if n < first]
    if not before or first == len(lines):
        return 0 if not before else first, False
    delimiter = max(DELIMITERS + BLANKS, key=lines[first].count)
    names = lines[before[-1]].lstrip("# \t").split(delimiter)
    cells = lines[first].split(delimiter)
    is_header = len(names) == len(cells) > 1 and all(_is_numeric(cell) for cell in cells)
    return (before[-1], True) if is_header else (first, False)


def _is_numeric(cell: str) -> bool:
    return re.fullmatch(rf"\s*({NUMBER})?\s*", cell, re.IGNORECASE) is not None


def _is_comment(cells: Sequence[str], names: Sequence[str]) -> bool:
    begins = cells[0].lstrip()
    filled = [cell for cell in cells if cell.strip()]
    if filled and all(map(RULE.fullmatch, filled)):
        return True
    return begins.startswith("#") and (len(cells) != len(names) or begins.startswith("# "))


def _require_fit(row: Row, cells: Sequence[str], names: Sequence[str], strict: bool) -> None:
    if len(cells) > len(names) or (strict and len(cells) < len(names)):
        raise row.wrong(f"{len(cells)} cells, but the header has {len(names)} columns")
    nameless = (i for i, name in enumerate(names) if strict and i and not name)
    filled = next((i for i in nameless if not is_empty(cells[i])), None)
    if filled is not None:
        raise row.wrong(f"column {filled + 1} has no name in the header")


def _require_table(names: Sequence[str], lines: Iterable[str]) -> None:
    """Refuse a header of values, and sentences: lines of words under one name."""
    values = [name for name in names if name and HOLDS_VALUE.search(name)]
    if len(names) > 1 and 2 * len(values) >= len(names):
        raise Malformed(
            f"the first line has no names of columns but values, such as {values[0]!r}: write one "
            "row for each epoch under a line with the names, e.g. epoch,epoch_s"
        )
    if len(names) == 1 and any(re.search(r"[A-Za-z]\S* +\S", line) for line in lines):
        raise Malformed(
            "not a table: its lines are not divided by commas, semicolons, tabs or bars; write one "
            "row for each epoch under a line with the names of the columns, e.g. epoch,epoch_s"
        )


def _delimiter(text: str, skipped: int) -> str:
    lines = [line for line in text.split("\n")[skipped:] if line.strip()]
    header = lines[0] if lines else ""
    delimiter = max(DELIMITERS, key=header.count)
    if delimiter not in header and '"' not in text:
        counts = {len(line.split()) for line in lines if not line.startswith("#")}
        if len(counts) == 1 and counts.pop() > 1:
            return BLANKS
    return delimiter


def _csv_lines(text: str, skipped: int, is_remark: bool) -> Iterator[tuple[int, list[str]]]:
    """Cells of lines that are not blank, by the number of the line that a row begins in."""
    body = io.StringIO(text, newline="")
    for _ in range(skipped):
        body.readline()
    if is_remark:
        rest = body.read()
        body = io.StringIO(rest.replace("#", "", 1).lstrip(" \t"), newline="")
    delimiter = _delimiter(text, skipped)
    reader = csv.reader(
        body, delimiter=delimiter, strict=True, skipinitialspace=delimiter == BLANKS
    )
    line = skipped + 1
    try:
        for cells in reader:
            if delimiter == BLANKS:
                cells = [cell for cell in cells if cell]
            if any(cell.strip() for cell in cells):
                yield line, cells
            line = skipped + reader.line_num + 1
    except csv.Error as error:
        raise Malformed(f"line {line}: not CSV: {error}") from error


def _with_points(rows: Sequence[Row]) -> list[Row]:
    """``0,9`` as 0.9, where no cell has a point and some comma cannot divide thousands."""
    cells = [str(cell).strip() for row in rows for cell in row.cells.values()]
    found = [match for cell in cells if (match := WITH_COMMA.fullmatch(cell))]
    decimal = any(len(match[2]) != 3 or match[1] == "0" or len(match[1]) > 3 for match in found)
    if not decimal or any(WITH_DOT.fullmatch(cell) for cell in cells):
        return list(rows)
    return [replace(row, cells={n: _point(c) for n, c in row.cells.items()}) for row in rows]


def _point(cell: object) -> object:
    is_number = isinstance(cell, str) and WITH_COMMA.fullmatch(cell.strip())
    return cell.replace(",", ".") if is_number and isinstance(cell, str) else cell


# Logs


def _is_log(text: str) -> bool:
    """Whether two lines or more hold nothing but names and numbers: ``step 40: val loss 0.9``."""
    found = (line for line in text.split("\n") if len(_pairs(line)) > 1)
    return next(found, None) is not None and next(found, None) is not None


def _logged_rows(text: str) -> list[Row]:
    lines = ((n, _pairs(line)) for n, line in enumerate(text.split("\n"), start=1))
    return [Row(f"line {n}", dict(pairs)) for n, pairs in lines if len(pairs) > 1]


def _pairs(line: str) -> list[tuple[str, str]]:
    """Names and numbers that a line is made of, in order; nothing if it holds anything else."""
    last = line.rstrip("\r").rpartition("\r")[2]  # what a progress bar has written over
    last = last[match.end() :] if (match := STAMP.match(last)) else last
    plain = re.sub(r"[{}'\"]", "", last) if len(last) < 2000 else ""
    found: list[tuple[str, str]] = []
    position = 0
    while match := PAIR.match(plain, position):
        found.append((one_line(match[1]), match[2] + match[3]))
        position = match.end()
    return found if END.fullmatch(plain, position) else []


def _mlflow_rows(text: str, name: str) -> list[Row]:
    lines = [(n, line.split()) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    return [
        Row(f"line {n}", {"timestamp": at, one_line(name): value, "step": step})
        for n, (at, value, step) in lines
    ]


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
                row[one_line(value.tag)] = float(tensor_util.make_ndarray(value.tensor))
    return [Row(f"step {step}", rows[step]) for step in sorted(rows)]
