"""Measurements made elsewhere, e.g. the logs of a team's real runs, to measurements of ours.

    text ──table──▶ rows ──columns, cells──▶ Entry per row ──runs──▶ Measurement per run
                                                              rows of one run become its epochs;
                                                              runs of one configuration, rounds

All or nothing: the first cell that makes no sense is named by line and column. No torch.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any, TextIO

import msgspec

from epochcast.errors import StoreError
from epochcast.importers.columns import Column, Options, understand
from epochcast.importers.entries import Entry, read_entries
from epochcast.importers.runs import measurements_of, numbered
from epochcast.importers.table import read_table
from epochcast.records import Footprint, Measurement, RunConfig, Warning_

__all__ = ["Count", "Imported", "Options", "is_export", "numbered", "read", "text_of"]

Count = Callable[[RunConfig], Footprint | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What was read from a file, as which columns, and what to say about it."""

    measurements: tuple[Measurement, ...]
    columns: tuple[Column, ...]
    warnings: tuple[Warning_, ...] = ()


def text_of(stream: TextIO) -> str:
    """All of a file.

    Raises:
        StoreError: it is not text.
    """
    try:
        return stream.read()
    except UnicodeDecodeError as error:
        raise StoreError(f"not UTF-8 text ({error.reason}); nothing was imported") from error


def is_export(text: str) -> bool:
    """Whether a text is what ``epochcast probes export`` writes."""
    lines = (line.strip() for line in io.StringIO(text.removeprefix("\ufeff")))
    first = next((line for line in lines if line), "")
    try:
        found = msgspec.json.decode(first, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError):
        return False
    return isinstance(found.get("config"), dict)


def read(
    text: str,
    options: Options,
    *,
    count: Count | None = None,
    at: datetime | None = None,
) -> Imported:
    """The measurements in a CSV or in JSON Lines.

    Args:
        options: what the user says about the file.
        count: the footprint of a configuration, where the file has none; called once for each.
        at: when they count as made; default: now.

    Raises:
        UsageError: the columns are not clear.
        StoreError: a row makes no sense.
    """
    table = read_table(text)
    columns = understand(table.names, options)
    entries = read_entries(table.rows, columns, options)
    if count is not None:
        entries = _counted(entries, count)
    found = measurements_of(entries, at or datetime.now(timezone.utc))
    return Imported(measurements=found, columns=tuple(columns), warnings=_notes(found))


def _counted(entries: Sequence[Entry], count: Count) -> list[Entry]:
    configs = dict.fromkeys(entry.config for entry in entries if entry.footprint is None)
    known = {config: count(config) for config in configs}
    return [
        entry if entry.footprint is not None else replace(entry, footprint=known[entry.config])
        for entry in entries
    ]


def _notes(found: Sequence[Measurement]) -> tuple[Warning_, ...]:
    single = sum(bool(m.message) for m in found)
    if not single:
        return ()
    details = (("count", str(single)), ("runs", str(len(found))))
    return (Warning_(code="one-time", details=details),)
