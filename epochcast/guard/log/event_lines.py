"""Events of a run to lines of JSON, and back.

    EpochDone(…)  ⇄  {"event":"epoch","wall_time":1.76e9,"position":{"epoch":12,…},…}

JSON has no infinity and no NaN: they are written as the texts ``"NaN"``, ``"Infinity"`` and
``"-Infinity"``, as Protocol Buffers do in JSON (protobuf.dev, ProtoJSON format).
"""

from __future__ import annotations

from dataclasses import is_dataclass
from functools import cache
from itertools import chain, repeat
from math import isfinite, isnan
from typing import Any, get_args, get_type_hints

import msgspec

from epochcast.errors import StoreError
from epochcast.records import (
    SCHEMA,
    EpochDone,
    Notice,
    RunEnded,
    RunEvent,
    RunStarted,
    to_builtins,
)

KINDS: dict[str, type[RunEvent]] = {
    "started": RunStarted,
    "epoch": EpochDone,
    "notice": Notice,
    "ended": RunEnded,
}
NAMES = {kind: name for name, kind in KINDS.items()}
NUMBERS = ("NaN", "Infinity", "-Infinity")
HEAD = b'{"event":'  # of every line


def line_of(event: RunEvent) -> bytes:
    """An event as one line, its end included.

    Raises:
        StoreError: it holds what JSON cannot, such as a file name that is not Unicode.
    """
    try:
        return msgspec.json.encode(plain(event)) + b"\n"
    except (UnicodeEncodeError, OverflowError) as error:
        raise StoreError(f"an event cannot be written as JSON: {error}") from error


def plain(event: RunEvent) -> dict[str, Any]:
    """An event as what JSON has; its kind comes first."""
    contents: dict[str, Any] = _spelled(to_builtins(event))
    return {"event": NAMES[type(event)], **contents}


def _spelled(value: Any) -> Any:
    """With texts for numbers that JSON does not have."""
    if isinstance(value, float) and not isfinite(value):
        return "NaN" if isnan(value) else NUMBERS[1 + (value < 0)]
    if isinstance(value, dict):
        return {name: _spelled(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_spelled(part) for part in value]
    return value


class UnknownEvent(Exception):
    """A kind of event that a newer epochcast writes; ``kind`` is its name."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


def event_of(line: bytes) -> RunEvent:
    """The event in a line.

    Raises:
        ValueError: it is not an event; says why.
        UnknownEvent: it is one, of an unknown kind.
    """
    try:
        raw = msgspec.json.decode(line)
        kind = _kind(raw)
        return msgspec.convert(_heard(raw, kind), kind)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(str(error)) from error


def _kind(raw: Any) -> type[RunEvent]:
    name = raw.get("event") if isinstance(raw, dict) else None
    if not isinstance(name, str):
        raise ValueError('expected an object with "event"')
    schema = raw.get("schema", SCHEMA)
    if isinstance(schema, int) and schema > SCHEMA:
        raise ValueError(
            f"written by a newer epochcast (schema {schema}, this one reads up to {SCHEMA}); "
            "run: pip install --upgrade epochcast"
        )
    if name not in KINDS:
        raise UnknownEvent(name)
    return KINDS[name]


def _heard(value: Any, kind: Any) -> Any:
    """With numbers for their texts, where ``kind`` has numbers and no texts."""
    kinds = (kind, *get_args(kind))
    if isinstance(value, str):
        return float(value) if value in NUMBERS and float in kinds and str not in kinds else value
    if isinstance(value, list):
        inner = repeat(kinds[1]) if kinds[-1] is Ellipsis else chain(kinds[1:], repeat(None))
        return [_heard(part, of) for part, of in zip(value, inner, strict=False)]
    record = next((k for k in kinds if isinstance(k, type) and is_dataclass(k)), None)
    if isinstance(value, dict) and record is not None:
        hints = _hints(record)
        return {name: _heard(part, hints.get(name)) for name, part in value.items()}
    return value


@cache
def _hints(record: type) -> dict[str, Any]:
    return get_type_hints(record)
