"""JSON to rows: documents one after another, or one document that holds a table somewhere.

{"bs": 64, …} {"bs": 32, …}                     JSON Lines, pretty-printed or not
{"val": {"loss": 0.9}} …                        the same, with a column val/loss
[[1767225600.1, 1, 0.9], …]                     TensorBoard's: wall time, step, value
[{"epoch": 1, …}, …]                            an array of rows
{"val_loss": [0.9, …], …}                       the first of each list, …
{"val_loss": {"0": 0.9, …}, …}                  as pandas writes a frame
{"0": {"val_loss": 0.9, …}, …}                  the same, by rows
{"columns": ["bs", …], "data": [[64, …], …]}    the same, split
{"history": {"val_loss": [0.9, …]}, …}          the one member that is one of these
{"log_history": [{…}, …], "epoch": 3.0, …}      the Hugging Face Trainer's state
{"event": "started", …} {"event": "epoch", …}   our own log of a run: the metrics of its epochs
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from epochcast.importers.roles import meaning_of
from epochcast.importers.rows import Malformed, Row, one_line
from epochcast.records.validation import is_number, shown

BLANKS = " \t\r\n"
HALF_A_ROUNDING = 0.0051  # the Trainer rounds epochs to two decimals


def json_rows(text: str) -> list[Row]:
    """The rows in a text of one or more JSON documents.

    Raises:
        Malformed: it is not JSON, or no table is in it.
    """
    found = _documents(text)
    if any(_is_start(document) for _, document in found):
        return _followed_rows(found)
    if len(found) > 1:
        return [_row(location, document) for location, document in found]
    location, document = found[0]
    rows = _table(document)
    return [_row(location, document)] if rows is None else rows


def _documents(text: str) -> list[tuple[str, object]]:
    """Each with the line it begins in."""
    decoder = json.JSONDecoder()
    found: list[tuple[str, object]] = []
    position, line = 0, 1
    while True:
        begin = len(text) - len(text[position:].lstrip(BLANKS))
        if begin >= len(text):
            return found
        line += text.count("\n", position, begin)
        try:
            document, position = decoder.raw_decode(text, begin)
        except json.JSONDecodeError as error:
            raise Malformed(f"line {error.lineno}: not JSON: {error.msg}") from error
        except RecursionError as error:
            raise Malformed(f"line {line}: not JSON: nested too deeply") from error
        except ValueError as error:
            raise Malformed(f"line {line}: not JSON: a number of too many digits") from error
        found.append((f"line {line}", document))
        line += text.count("\n", begin, position)


def _table(document: object) -> list[Row] | None:
    """The rows of a document that is a table or has one; None if it is a row itself."""
    if isinstance(document, list):
        rows = _entries(map(_named, document))
        return _trainer_rows({}, rows) if any("train_runtime" in r.cells for r in rows) else rows
    if not isinstance(document, dict):
        return []
    if isinstance(log := document.get("log_history"), list):
        return _trainer_rows(document, _entries(log))
    names, data = document.get("columns"), document.get("data")
    if isinstance(names, list) and isinstance(data, list):
        return _split(names, data)
    members = {k: v for k, v in document.items() if _is_table(v)}
    if document and not members and all(isinstance(v, list) for v in document.values()):
        return _transposed(document)
    if len(members) > 1:
        listed = ", ".join(one_line(name) for name in members)
        raise Malformed(f"there are several tables in it: {listed}; write one of them to a file")
    if members:
        return _table(next(iter(members.values())))
    if document and all(isinstance(value, dict) for value in document.values()):
        return _framed(document)
    return None


def _is_table(value: object) -> bool:
    """Whether it is a table, or has one in it, such as ``{"config": {"history": {…}}}``."""
    if isinstance(value, list):
        return bool(value) and all(isinstance(entry, dict) for entry in value)
    if not isinstance(value, dict) or not value:
        return False
    return all(isinstance(v, list) for v in value.values()) or any(map(_is_table, value.values()))


def _named(entry: object) -> object:
    """A scalar as TensorBoard exports it; anything else as it is."""
    if isinstance(entry, list) and len(entry) == 3 and all(map(is_number, entry)):
        return dict(zip(("Wall time", "Step", "Value"), entry, strict=True))
    return entry


def _entries(found: Iterable[object]) -> list[Row]:
    return [_row(f"entry {n}", entry) for n, entry in enumerate(found, start=1)]


def _row(location: str, entry: object) -> Row:
    if not isinstance(entry, dict):
        raise Malformed(f"{location}: expected a JSON object, but got {shown(entry)}")
    return Row(location, {one_line(name): cell for name, cell in _flat(entry).items()})


def _flat(entry: Mapping[str, object]) -> dict[str, object]:
    """``{"val": {"loss": 0.9}}`` as ``{"val/loss": 0.9}``; the parts of a name as loggers do."""
    found: dict[str, object] = {}
    for name, cell in entry.items():
        if isinstance(cell, dict) and cell:
            found |= {f"{name}/{inner}": value for inner, value in _flat(cell).items()}
        else:
            found[name] = cell
    return found


def _split(names: Sequence[object], data: Sequence[object]) -> list[Row]:
    rows: list[object] = []
    for n, cells in enumerate(data, start=1):
        if not isinstance(cells, list) or len(cells) != len(names):
            raise Malformed(f"entry {n}: expected {len(names)} cells, but got {shown(cells)}")
        rows.append(dict(zip(map(str, names), cells, strict=True)))
    return _entries(rows)


def _transposed(lists: Mapping[str, Sequence[object]]) -> list[Row]:
    lengths = {name: len(values) for name, values in lists.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{one_line(name)} {length}" for name, length in lengths.items())
        raise Malformed(
            f"its lists are not equally long: {listed}; write a row for each epoch, as Keras's "
            "CSVLogger does"
        )
    columns = zip(*lists.values(), strict=True)
    return _entries([dict(zip(lists, cells, strict=True)) for cells in columns])


def _framed(members: Mapping[str, Mapping[str, object]]) -> list[Row]:
    """A frame of pandas, by columns or (``orient="index"``) by rows; else one row of objects."""
    labels = dict.fromkeys(label for cells in members.values() for label in cells)
    is_whole = all(len(cells) == len(labels) for cells in members.values())
    within = sum(map(_says_something, labels)) - sum(map(_says_something, members))
    if not all(map(str.isdecimal, labels)) and not is_whole and within > 0:
        return _entries([members])
    if all(map(str.isdecimal, members)) or within > 0:
        return _entries(list(members.values()))
    return _entries([{name: cells.get(at) for name, cells in members.items()} for at in labels])


def _says_something(name: str) -> bool:
    """Whether it is the name of a column, by its meaning, and no label of a row."""
    found = meaning_of(name)
    return bool(found.role or found.left_out)


# The log of a followed run; see guard.log


def _is_start(document: object) -> bool:
    return isinstance(document, dict) and document.get("event") == "started"


def _followed_rows(found: Iterable[tuple[str, object]]) -> list[Row]:
    """What was reported in the last run; epochs that its next process trained again count once."""
    rows: list[Row] = []
    part, counter = 0, "epoch"
    for location, document in found:
        event = document if isinstance(document, dict) else {}
        if _is_start(document):
            rows, part = ([], 0) if event.get("process") == 1 else (rows, part + 1)
            counter = "step" if event.get("segment_steps") else "epoch"
        at, values = event.get("position"), event.get("values")
        if event.get("event") == "epoch" and isinstance(at, dict) and isinstance(values, list):
            counts = {"epoch": at.get("epoch"), "step": at.get("steps")}
            cells = {counter: counts[counter], "step": counts["step"]} | dict(values)
            rows.append(Row(location, cells, part))
    return rows


# The Hugging Face Trainer


def _trainer_rows(state: Mapping[str, Any], log: Sequence[Row]) -> list[Row]:
    """Without evaluations before the first step and after the summary of the training.

    What is logged for the last step after it is the evaluation of the best checkpoint, which was
    reloaded.
    """
    rows, end = [], -1.0
    for row in log:
        step = row.cells.get("step")
        step = float(step) if is_number(step) else None
        if "train_runtime" in row.cells:
            end = step or 0.0
            rows.append(row)
        elif step is None or (step > 0 and step > end):
            rows.append(_with_epoch(row, step, _epochs_by_step(state)))
    return rows


def _epochs_by_step(state: Mapping[str, Any]) -> tuple[float, float] | None:
    """Epochs and the steps they took, as its header has them: not rounded, as in the log."""
    for epochs, steps in (("epoch", "global_step"), ("num_train_epochs", "max_steps")):
        pair = state.get(epochs), state.get(steps)
        if is_number(pair[0]) and is_number(pair[1]) and 0 < pair[0] < 1e9 and 0 < pair[1] < 1e15:
            return float(pair[0]), float(pair[1])
    return None


def _with_epoch(row: Row, step: float | None, known: tuple[float, float] | None) -> Row:
    epoch = row.cells.get("epoch")
    if step is None or known is None or not is_number(epoch):
        return row
    exact = round(step * known[0] / known[1], 9)
    is_rounded = abs(exact - epoch) <= HALF_A_ROUNDING
    return Row(row.location, {**row.cells, "epoch": exact}) if is_rounded else row
