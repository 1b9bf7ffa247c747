"""The index ``epochcast.json`` in the log folder: what the writer leaves for our tab.

    publish ──▶ <log folder>/epochcast.json ──▶ the plugin, in TensorBoard's process

Raw numbers in SI units; the tab's text is made by the plugin. The file is replaced in one step, so
that a reader never sees half of it. A reader trusts nothing in it: it may be anybody's file.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from epochcast.errors import StoreError
from epochcast.records import SCHEMA, RunConfig, Status, Summary, from_json, to_json
from epochcast.records.documents import write_atomic

INDEX_NAME = "epochcast.json"
_LONGEST = 120  # characters of one folder's name; file systems allow 255 bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardRow:
    """One probed configuration, as the tab lists it.

    Attributes:
        id: unique to the configuration among those of the index; 16 hexadecimal digits.
        device: the device's label.
        config_label: the configuration's label.
        step_spread: half the range of ``step_seconds`` over trials, relative to their median.
        trace: the torch.profiler trace, relative to the index's folder; None if there is none.
    """

    id: str
    workload: str
    device: str
    config: RunConfig
    config_label: str
    status: Status
    message: str = ""
    step_seconds: float | None = None
    step_spread: float | None = None
    samples_per_second: float | None = None
    peak_bytes: int | None = None
    device_bytes: int | None = None
    trace: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardIndex:
    """All configurations of one log folder."""

    schema: int = SCHEMA
    configurations: tuple[BoardRow, ...]


def make_index(summaries: Sequence[Summary]) -> BoardIndex:
    """The index of these summaries, in their order."""
    return BoardIndex(configurations=tuple(_row(summary) for summary in summaries))


def summary_id(summary: Summary) -> str:
    """16 hexadecimal digits that stay the same when a configuration is probed again."""
    parts = (summary.workload, summary.device.key, summary.config)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def slug(text: str) -> str:
    """A text as the name of one folder: no separators, nothing that a file system refuses."""
    safe = re.sub(r"[^\w.,=+() -]+", "-", text, flags=re.ASCII).strip(" .-")
    return safe[:_LONGEST].rstrip(" .") or "unnamed"


def _row(summary: Summary) -> BoardRow:
    return BoardRow(
        id=summary_id(summary),
        workload=summary.workload,
        device=summary.device.label,
        config=summary.config,
        config_label=summary.config.label,
        status=summary.status,
        message=summary.message,
        step_seconds=summary.step_seconds,
        step_spread=summary.step_spread,
        samples_per_second=summary.samples_per_second,
        peak_bytes=summary.peak_bytes,
        device_bytes=summary.device_bytes,
        trace=summary.trace,
    )


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


def find_indexes(folder: Path) -> Iterator[Path]:
    """Every index below a folder, the nearest ones first; links to folders are not followed."""
    for found, folders, files in os.walk(folder):
        folders.sort()
        if INDEX_NAME in files:
            yield Path(found, INDEX_NAME)
