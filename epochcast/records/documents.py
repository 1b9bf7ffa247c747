"""Records to and from JSON; the only way in and out. Every document carries a schema number."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import msgspec

from epochcast.errors import StoreError, UsageError

SCHEMA = 1  # of Measurement and CostModel documents; raised when a field changes its meaning

_Record = TypeVar("_Record")


def to_json(record: object, indent: int = 0) -> str:
    """A record as JSON, on one line unless it is indented.

    Raises:
        StoreError: it holds what JSON cannot, such as a file name that is not Unicode.
    """
    try:
        line = msgspec.json.encode(record)
        return (msgspec.json.format(line, indent=indent) if indent else line).decode()
    except (UnicodeEncodeError, OverflowError) as error:
        raise StoreError(f"{type(record).__name__} cannot be written as JSON: {error}") from error


def from_json(text: str | bytes, kind: type[_Record]) -> _Record:
    """The record of type ``kind`` in a JSON document.

    Raises:
        StoreError: the document is not such a record, or of a newer schema.
    """
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.MsgspecError as error:
        _refuse_newer(text)  # first: it explains whatever else is unexpected
        raise StoreError(f"not a valid {kind.__name__}: {error}") from error


class _Head(msgspec.Struct):
    schema: int = SCHEMA


def _refuse_newer(text: str | bytes) -> None:
    try:
        head = msgspec.json.decode(text, type=_Head)
    except msgspec.MsgspecError:
        return
    if head.schema > SCHEMA:
        raise StoreError(
            f"written by a newer epochcast (schema {head.schema}, this one reads up to {SCHEMA}); "
            "run: pip install --upgrade epochcast"
        )


def write_document(record: object, path: str | Path, what: str) -> None:
    """Write a record as a JSON file.

    Args:
        what: names it in an error, e.g. ``"plan"``.

    Raises:
        UsageError: the file cannot be written.
    """
    try:
        Path(path).write_text(to_json(record) + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write the {what} to {path}: {error.strerror}") from error


def to_builtins(record: object) -> Any:
    """A record as dictionaries, lists and numbers, for reports."""
    return msgspec.to_builtins(record)
