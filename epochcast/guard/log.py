"""The log of a followed run: JSON Lines, one event a line, written at once and read back whole.

    {"event":"started","schema":2,"run":"a1b2",…}      every process that continues the run
    {"event":"epoch","wall_time":1.76e9,…}             adds to the same file
    {"event":"notice",…}
    {"event":"ended",…}

A line goes to the operating system in one piece, so a killed process loses at most the end of its
last line. A reader ignores a line without its end; the next writer removes it.

JSON has no infinity and no NaN: they are written as the texts ``"NaN"``, ``"Infinity"`` and
``"-Infinity"``, as Protocol Buffers do in JSON (protobuf.dev, ProtoJSON format).

What counts of a log is the last run in it, and of every epoch the last time it was trained:

    started 1   1 2 3 … 12   started 2 (goes on from 10)   11 12 …
                      └ 11 and 12 were lost ┘
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import is_dataclass
from functools import cache
from itertools import chain, repeat
from math import isfinite, isnan
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec

from epochcast.errors import StoreError
from epochcast.records import (
    EpochDone,
    Notice,
    Position,
    RunEnded,
    RunEvent,
    RunStarted,
    Warning_,
    require_schema,
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
LOG_NAME = "log.jsonl"  # in the folder of a run
HEAD = b'{"event":'  # of every line


def encode_event(event: RunEvent) -> bytes:
    """An event as one line, its end included.

    Raises:
        StoreError: it holds what JSON cannot, such as a file name that is not Unicode.
    """
    try:
        return msgspec.json.encode(event_document(event)) + b"\n"
    except (UnicodeEncodeError, OverflowError) as error:
        raise StoreError(f"an event cannot be written as JSON: {error}") from error


def event_document(event: RunEvent) -> dict[str, Any]:
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


def decode_event(line: bytes) -> RunEvent:
    """The event in a line.

    Raises:
        ValueError: it is not an event; says why.
        UnknownEvent: it is one, of an unknown kind.
    """
    try:
        raw = msgspec.json.decode(line)
        kind = _kind(raw)
        return msgspec.convert(_heard(raw, kind), kind)
    except (StoreError, msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(str(error)) from error


def _kind(raw: Any) -> type[RunEvent]:
    name = raw.get("event") if isinstance(raw, dict) else None
    if not isinstance(name, str):
        raise ValueError('expected an object with "event"')
    if isinstance(schema := raw.get("schema"), int):
        require_schema(schema)
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


class LogWriter:
    """Adds every event it sees to a file."""

    def __init__(self, path: str | Path) -> None:
        """Open the file: a new one, or that of an earlier process of the run.

        Raises:
            StoreError: it cannot be written, or holds something else.
        """
        self.path, self._whole = Path(path), True
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            self._mend()
        except OSError as error:
            raise self._failed(error.strerror) from error
        except StoreError:
            self.close()
            raise

    def see(self, event: RunEvent) -> None:
        """Write one line.

        Raises:
            StoreError: it could not be written; the next call first removes what was.
        """
        line = encode_event(event)
        try:
            if not self._whole:
                self._mend()
            self._whole = os.write(self._file, line) == len(line)
        except OSError as error:
            raise self._failed(error.strerror) from error
        if not self._whole:
            raise self._failed("only a part of the line could be written")

    def close(self) -> None:
        """Close the file; nothing more can be written."""
        os.close(self._file)

    def _mend(self) -> None:
        """End the last line of a killed process: with its end if it is whole, else without it."""
        content = os.pread(self._file, os.fstat(self._file).st_size, 0)
        if not HEAD.startswith(content[: len(HEAD)]):
            raise StoreError(f"{self.path} is not the log of a run; give another name")
        end = content.rfind(b"\n") + 1
        if _is_json(content[end:]):
            os.write(self._file, b"\n")
        elif end < len(content):
            os.ftruncate(self._file, end)
        self._whole = True

    def _failed(self, why: str | None) -> StoreError:
        return StoreError(f"cannot write the log {self.path}: {why}")


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


class LogReader:
    """Reads a log, or that of a run's folder, and later what was added to it."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path, LOG_NAME) if Path(path).is_dir() else Path(path)
        self._offset = self._lines = 0
        self._last: tuple[float, Position] = (0.0, Position())

    def news(self) -> tuple[RunEvent, ...]:
        """The events of the lines that were ended since the last call.

        An event of an unknown kind, which a newer epochcast may write, becomes a notice.

        Raises:
            StoreError: there is no such file, or a line is not an event; its number is named.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                content = file.read()
        except OSError as error:
            raise StoreError(f"cannot read the log {self.path}: {error.strerror}") from error
        whole = content[: content.rfind(b"\n") + 1]
        self._offset += len(whole)
        return tuple(self._events(whole))

    def _events(self, content: bytes) -> Iterator[RunEvent]:
        for line in content.split(b"\n")[:-1]:
            self._lines += 1
            try:
                event = decode_event(line)
            except UnknownEvent as error:
                event = self._unknown(error.kind)
            except ValueError as error:
                where = f"line {self._lines} of {self.path}"
                raise StoreError(f"{where} is not an event of a run: {error}") from error
            self._last = event.wall_time, event.position
            yield event

    def _unknown(self, kind: str) -> Notice:
        notice = Warning_.of("unknown-event", kind=kind, line=str(self._lines))
        return Notice(wall_time=self._last[0], position=self._last[1], notice=notice)


def read_log(path: str | Path) -> tuple[RunEvent, ...]:
    """All events of a log, of a running or a finished run.

    Raises:
        StoreError: there is no such file, or a line is not an event; its number is named.
    """
    return LogReader(path).news()


def last_run(events: Sequence[RunEvent]) -> tuple[RunEvent, ...]:
    """The events of the last run: from the first process that has its name."""
    starts = [(i, e.run) for i, e in enumerate(events) if isinstance(e, RunStarted)]
    others = [i for i, run in starts if run != starts[-1][1]]
    after = others[-1] if others else -1
    return tuple(events[next((i for i, _ in starts if i > after), 0) :])


def lasting_epochs(events: Sequence[RunEvent]) -> tuple[EpochDone, ...]:
    """Every epoch once, in order: what a killed process lost is left out."""
    kept: list[EpochDone] = []
    for event in events:
        if isinstance(event, RunStarted):
            kept = [e for e in kept if e.position.steps <= event.position.steps]
        elif isinstance(event, EpochDone):
            kept.append(event)
    return tuple(kept)


def steady_seconds(events: Sequence[RunEvent]) -> tuple[float, ...]:
    """Of every whole epoch that was not the first of its process, lost ones too."""
    done = [e for e in events if isinstance(e, EpochDone)]
    return tuple(e.seconds for e in done if not e.first and not e.position.step)


def first_start(events: Sequence[RunEvent]) -> RunStarted | None:
    """How the run began; None if the log does not say."""
    return next((e for e in events if isinstance(e, RunStarted)), None)


def ending(events: Sequence[RunEvent]) -> RunEnded | None:
    """How the last process ended; None while it goes on, and if it was killed."""
    for event in reversed(events):
        if isinstance(event, RunEnded):
            return event
        if not isinstance(event, Notice):
            return None
    return None
