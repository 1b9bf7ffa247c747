"""The index ``epochcast.json`` in the log folder: what the writer leaves for our tab.

    publish ──▶ <log folder>/epochcast.json ──▶ the plugin, in TensorBoard's process

Raw numbers in SI units; the tab's text is made by the plugin. The file is replaced in one step, so
that a reader never sees half of it. A reader trusts nothing in it: it may be anybody's file.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from epochcast.errors import StoreError
from epochcast.records import SCHEMA, RunOutcome, Summary, from_json, to_json
from epochcast.records.documents import write_atomic
from epochcast.report.plots.probed import ProbedPrediction

INDEX_NAME = "epochcast.json"
_LONGEST = 120  # characters of one folder's name; file systems allow 255 bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardIndex:
    """All that one log folder shows in our tab.

    Attributes:
        configurations: a trace is named relative to the index's folder.
        predictions: of these, and between their batch sizes.
        outcomes: of followed runs.
    """

    schema: int = SCHEMA
    configurations: tuple[Summary, ...]
    predictions: tuple[ProbedPrediction, ...] = ()
    outcomes: tuple[RunOutcome, ...] = ()


def summary_id(summary: Summary) -> str:
    """16 hexadecimal digits that stay the same when a configuration is probed again."""
    parts = (summary.workload, summary.device.key, summary.config)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def slug(text: str) -> str:
    """A text as the name of one folder: no separators, nothing that a file system refuses."""
    safe = re.sub(r"[^\w.,=+() -]+", "-", text, flags=re.ASCII).strip(" .-")
    return safe[:_LONGEST].rstrip(" .") or "unnamed"


def write_index(folder: Path, index: BoardIndex) -> None:
    """Replace the index of a log folder in one step.

    Raises:
        OSError: the folder cannot be written.
    """
    write_atomic(folder / INDEX_NAME, to_json(index).encode())


def read_index(path: Path) -> BoardIndex:
    """The index in a file.

    Raises:
        StoreError: the file cannot be read, is no index, or is one of another epochcast.
    """
    try:
        return from_json(path.read_bytes(), BoardIndex)
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error
    except StoreError as error:
        raise StoreError(f"cannot read {path}: {error}; next: probe again to replace it") from error


PROFILER = "Trace"  # the category of what spans the profiler's own time, idle ends included
MOST_READ = 2**28  # bytes of a trace, unpacked: what is larger is shown on a scale of its own


class _TraceEvent(msgspec.Struct):
    ts: float = 0.0  # microseconds
    dur: float = -1.0  # of what is no moment
    cat: str = ""


class _Trace(msgspec.Struct):
    traceEvents: list[_TraceEvent]  # as the format calls it


def span_of(trace: Path) -> dict[str, str] | None:
    """When the first event begins and the last one ends, in nanoseconds, as texts.

    They are texts because JavaScript has no such numbers. None where the file is too large, or is
    no such trace.
    """
    try:
        with gzip.open(trace) if trace.suffix == ".gz" else trace.open("rb") as file:
            content = file.read(MOST_READ + 1)
        read = msgspec.json.decode(content, type=_Trace) if len(content) <= MOST_READ else None
    except (OSError, EOFError, zlib.error, msgspec.MsgspecError):
        return None
    events = read.traceEvents if read else []
    lasting = [event for event in events if event.dur >= 0 and event.cat != PROFILER]
    if not lasting:
        return None
    start, end = min(e.ts for e in lasting), max(e.ts + e.dur for e in lasting)
    return {"start": str(math.ceil(start) * 1000), "end": str(math.floor(end) * 1000)}


def find_indexes(folder: Path) -> Iterator[Path]:
    """Every index below a folder, the nearest ones first; links to folders are not followed."""
    for found, folders, files in os.walk(folder):
        folders.sort()
        if INDEX_NAME in files:
            yield Path(found, INDEX_NAME)
