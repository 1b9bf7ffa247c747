"""Records to and from JSON, the only way in and out; and files that are replaced whole.

Every document that is kept carries a schema number. The policy, from epochcast 0.2.0 on: what was
written stays readable. When a field changes its meaning, ``SCHEMA`` is raised, and whoever raises
it also teaches ``from_json`` to read documents from ``OLDEST_SCHEMA`` on. Schema 1 was written by
versions that were never released; it is refused, like a schema that is newer than this version.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from epochcast.errors import StoreError, UsageError

SCHEMA = 2  # of every document that is written
OLDEST_SCHEMA = 2  # of the documents that can be read

_CONTROL = re.compile("[\x80-\x9f]")  # JSON allows these raw, and terminals obey them

_KINDS = {  # what msgspec calls them
    "array": "a list",
    "bool": "true or false",
    "float": "a number",
    "int": "a whole number",
    "object": "an object",
    "str": "a text",
}

_Record = TypeVar("_Record")


def to_json(record: object, indent: int = 0) -> str:
    """A record as JSON, on one line unless it is indented.

    Raises:
        StoreError: it holds what JSON cannot, such as a file name that is not Unicode.
    """
    try:
        line = msgspec.json.encode(record)
        text = (msgspec.json.format(line, indent=indent) if indent else line).decode()
        return text if text.isascii() else _CONTROL.sub(lambda c: f"\\u{ord(c[0]):04x}", text)
    except (UnicodeEncodeError, OverflowError) as error:
        raise StoreError(f"{type(record).__name__} cannot be written as JSON: {error}") from error


def from_json(text: str | bytes, kind: type[_Record]) -> _Record:
    """The record of type ``kind`` in a JSON document.

    Raises:
        StoreError: the document is not such a record, or of a schema that cannot be read.
    """
    try:
        record = msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        require_schema(_schema_of(text))  # first: it explains whatever else is unexpected
        raise StoreError(f"not a valid {kind.__name__}: {error}") from error
    require_schema(getattr(record, "schema", SCHEMA))
    return record


def require_schema(found: int) -> None:
    """Refuse a document by its schema number.

    Raises:
        StoreError: this version reads no such documents; says what to do.
    """
    if found > SCHEMA:
        raise StoreError(
            f"written by a newer epochcast (schema {found}, this one reads up to {SCHEMA}); "
            "run: pip install --upgrade epochcast"
        )
    if found < OLDEST_SCHEMA:
        raise StoreError(
            f"written by an earlier epochcast (schema {found}, this one reads from "
            f"{OLDEST_SCHEMA} on): make it again with this version"
        )


class _Head(msgspec.Struct):
    schema: int = SCHEMA


def _schema_of(text: str | bytes) -> int:
    try:
        return msgspec.json.decode(text, type=_Head).schema
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return SCHEMA


def write_document(record: object, path: str | Path, what: str, indent: int = 0) -> None:
    """Write a record as a JSON file.

    Args:
        record: to be written.
        path: of the file; one that is there is replaced.
        what: names it in an error, e.g. ``"plan"``.
        indent: of its lines, for people and for ``git diff``; all on one line without.

    Raises:
        UsageError: the file cannot be written.
    """
    try:
        Path(path).write_text(to_json(record, indent) + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write the {what} to {path}: {error.strerror}") from error


def read_document(path: str | Path, kind: type[_Record], what: str) -> _Record:
    """The record in a JSON file.

    Args:
        path: of the file.
        kind: of the record.
        what: names it in an error, e.g. ``"a plan"``.

    Raises:
        StoreError: there is no such file, or it holds no such record, or one of a schema that
            cannot be read.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        why = os.strerror(error.errno or 0).lower()
        raise StoreError(f"cannot read {what} from {path}: {why}; check the path") from error
    except UnicodeDecodeError as error:
        raise StoreError(f"{path} is not {what} of epochcast: it is no text") from error
    try:
        return from_json(text, kind)
    except StoreError as error:
        if error.__cause__ is None:  # of another version, which says what to do
            raise StoreError(f"cannot read {what} from {path}: {error}") from error
        raise StoreError(
            f"{path} is not {what} of epochcast, or is damaged: {_why_not(error.__cause__)}; give "
            "another file, or write it again"
        ) from error


def _why_not(error: BaseException | None) -> str:
    """What is wrong with a document, in the words of its file."""
    said = str(error)
    if not isinstance(error, msgspec.ValidationError):
        return "it ends too early" if "truncated" in said else "it is no JSON"
    said, _, where = said.partition(" - at `$")
    place = where.strip("`.").removesuffix("[...]") or "it"
    missing = re.search("missing required field `(.+)`", said)
    if missing:
        return f"{place} has no {missing[1]!r}"
    expected = re.fullmatch("Expected `(.+)`, got `(.+)`", said)
    if not expected:
        said = f"{said[0].lower()}{said[1:]}"
        return said if place == "it" else f"{place}: {said}"
    wanted, got = (
        " or ".join(_KINDS.get(kind, kind) for kind in kinds.split(" | "))
        for kinds in expected.groups()
    )
    return f"{place} is {got}, and not {wanted}"


def to_builtins(record: object) -> Any:
    """A record as dictionaries, lists and numbers, for reports."""
    return msgspec.to_builtins(record)


def write_atomic(path: Path, content: bytes, *, durable: bool = False) -> None:
    """Replace a file in one step: its content is the old one or the new one, never a part.

    Args:
        path: of the file; its folder must be there.
        content: of the whole file.
        durable: whether it must survive a power cut too, not only a kill; costs a few milliseconds.

    Raises:
        OSError: the folder cannot be written; the old content stays.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:  # a full disk, or whatever else stopped this, leaves nothing behind
        temporary.unlink(missing_ok=True)
