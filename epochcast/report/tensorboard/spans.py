"""From when to when a trace goes, so that two can be shown on the same scale."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import msgspec

PROFILER = "Trace"  # the category of what spans the profiler's own time, idle ends included
MOST_READ = 2**28  # bytes of a trace, unpacked: what is larger is shown on a scale of its own


class _Event(msgspec.Struct):
    ts: float = 0.0  # microseconds
    dur: float = -1.0  # of what is no moment
    cat: str = ""


class _Trace(msgspec.Struct):
    traceEvents: list[_Event]  # as the format calls it


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
