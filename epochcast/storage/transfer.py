"""Measurements from one store into another: pushed or pulled, each once, however often it is tried.

    source ──a page of keys──▶ which of them does the target lack? ──their records──▶ target
             … and so on, the oldest first; each page is kept once it is written

A measurement is known by its key (``Measurement.key``: what was measured, on which kind of device,
in which round) and by when it was made: where both are the same it is the same one, in any store.
Of one key the newer counts, as if both had been made in one store. What dry runs counted and what
followed runs took go along. Logs and traces are files beside a store and stay, so that the copy
names none; fitted models are made again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

from epochcast.errors import PredictionError
from epochcast.records.measurement import IMPORTED
from epochcast.storage.database import Connection, places
from epochcast.storage.store import Store, replace_rows

PAGE = 200  # measurements in a transaction: what an interruption undoes at most

_Table = tuple[str, tuple[str, ...]]
_OF_CODE = ("key", "workload", "source", "data")
_COUNTED: _Table = ("epochcast_footprints", (*_OF_CODE, "document"))
_MEASURED: _Table = (
    "epochcast_measurements",
    (*_OF_CODE, "target", "device_key", "status", "round", "schema", "created_at", "document"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """What was moved from one store to another.

    Attributes:
        measurements: that the target lacked.
        renewed: of them those that it had an older one of.
        present: that it had already.
        older: that it has a newer one of, which stays.
        damaged: that are no JSON in the source, which stay there.
        footprints: counts of dry runs that it lacked.
        outcomes: of followed runs, that it lacked or had an older one of.
    """

    measurements: int = 0
    renewed: int = 0
    present: int = 0
    older: int = 0
    damaged: int = 0
    footprints: int = 0
    outcomes: int = 0


class _Filter(NamedTuple):
    """A condition on measurements, and its values."""

    sql: str
    values: tuple[str, ...]


def transfer(
    source: Store, target: Store, workload: str | None = None, device: str | None = None
) -> Moved:
    """Copy what the target lacks; what was copied is durable page by page.

    Args:
        source: is left as it is.
        target: takes what is copied.
        workload: only of this one; default: of all.
        device: only of devices that these words mean, as of ``--device``; default: of all.

    Raises:
        PredictionError: nothing in the source is of this workload or device.
        UsageError: a name is of one target in the source and of another in the target.
        StoreError: a store cannot be read or written; the same call continues.
    """
    wanted = _filter(source, workload, device)
    distinct = "SELECT DISTINCT workload, target FROM epochcast_measurements"
    named = source.select(f"{distinct} WHERE {wanted.sql} AND data != ?", *wanted.values, IMPORTED)
    target.require_own_names(((name, of) for name, of in named), source.label)
    moved = Moved()
    for stamps in _pages(source, wanted):
        moved = _move_page(source, target, stamps, moved)
    footprints = _move_footprints(source, target, wanted)
    outcomes = _move_outcomes(source, target, workload, device)
    return replace(moved, footprints=footprints, outcomes=outcomes)


def _filter(source: Store, workload: str | None, device: str | None) -> _Filter:
    names = source.names_of(workload) if workload else ()
    if workload and not names:
        known = ", ".join(sorted(source.workloads())) or "nothing"
        raise PredictionError(f"no measurements of {workload!r} in {source.label}, only of {known}")
    of_workload = _Filter(f"workload IN ({places(names)})" if names else "1 = 1", names)
    if device is None:
        return of_workload
    there = {d.key: d for name in names or (None,) for d in source.devices(name)}.values()
    keys = tuple(d.key for d in there if d.answers_to(device))
    if not keys:
        known = ", ".join(f"{d.id}: {d.label}" for d in there) or "nothing"
        raise PredictionError(f"nothing in {source.label} is of {device!r}, only of {known}")
    return _Filter(
        f"{of_workload.sql} AND device_key IN ({places(keys)})", of_workload.values + keys
    )


def _pages(source: Store, wanted: _Filter) -> Iterator[dict[str, str]]:
    """Keys of the source, the oldest first, and when each was measured."""
    after = 0
    sql = (
        "SELECT id, key, created_at FROM epochcast_measurements "
        f"WHERE id > ? AND {wanted.sql} ORDER BY id LIMIT {PAGE}"
    )
    while rows := source.select(sql, after, *wanted.values):
        after = rows[-1][0]
        yield {key: created_at for _, key, created_at in rows}


def _move_page(source: Store, target: Store, stamps: Mapping[str, str], moved: Moved) -> Moved:
    """The sum of what was moved before, and of this page."""
    there = target.read(lambda connection: _stamps(connection, stamps))
    lacking = [key for key, made in stamps.items() if key not in there or made > there[key]]
    rows = _rows(source, _MEASURED, lacking)
    bare = [(*row[:-1], text) for row in rows if (text := _without_files(row[-1]))]

    def write(connection: Connection) -> None:
        now = _stamps(connection, [row[0] for row in bare])  # others may be moving the same
        newer = [row for row in bare if row[0] not in now or row[-2] > now[row[0]]]
        _insert(connection, _MEASURED, newer)

    if bare:
        target.write(write)
    return Moved(
        measurements=moved.measurements + len(bare),
        renewed=moved.renewed + sum(row[0] in there for row in bare),
        present=moved.present + sum(there.get(key) == made for key, made in stamps.items()),
        older=moved.older + sum(there.get(key, made) > made for key, made in stamps.items()),
        damaged=moved.damaged + len(rows) - len(bare),
    )


def _move_footprints(source: Store, target: Store, wanted: _Filter) -> int:
    """Counts of dry runs of the workloads whose measurements are moved."""
    of = f"SELECT DISTINCT target FROM epochcast_measurements WHERE {wanted.sql}"
    sql = f"SELECT key FROM epochcast_footprints WHERE workload IN ({of}) ORDER BY id"
    there = {key for (key,) in target.select("SELECT key FROM epochcast_footprints")}
    lacking = [key for (key,) in source.select(sql, *wanted.values) if key not in there]
    for begin in range(0, len(lacking), PAGE):
        rows = _rows(source, _COUNTED, lacking[begin : begin + PAGE])
        target.write(partial(_insert, table=_COUNTED, rows=rows))
    return len(lacking)


def _move_outcomes(source: Store, target: Store, workload: str | None, device: str | None) -> int:
    """What followed runs took; of one run what was known last."""
    there = {outcome.run: outcome.finished_at for outcome in target.outcomes()}
    moved = 0
    names = source.names_of(workload) if workload else (None,)
    for outcome in (outcome for name in names for outcome in source.outcomes(name)):
        is_meant = device is None or outcome.device.answers_to(device)
        if is_meant and outcome.finished_at > there.get(outcome.run, -math.inf):
            target.add_outcome(outcome)
            moved += 1
    return moved


def _stamps(connection: Connection, keys: Iterable[str]) -> dict[str, str]:
    """When measurements were made, of those that a store has."""
    wanted = tuple(keys)
    sql = f"SELECT key, created_at FROM epochcast_measurements WHERE key IN ({places(wanted)})"
    return dict(connection.execute(sql, wanted).fetchall()) if wanted else {}


def _rows(source: Store, table: _Table, keys: Sequence[str]) -> list[tuple[Any, ...]]:
    if not keys:
        return []
    name, columns = table
    sql = f"SELECT {', '.join(columns)} FROM {name} WHERE key IN ({places(keys)}) ORDER BY id"
    return source.select(sql, *keys)


def _insert(connection: Connection, table: _Table, rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert rows under new ids, in place of those with the same keys."""
    name, columns = table
    replace_rows(connection, (name, "key"), [dict(zip(columns, row, strict=True)) for row in rows])


def _without_files(document: str) -> str:
    """A measurement that names no file; empty where it is damaged. Nothing else of it changes."""
    try:
        record = json.loads(document)
        return json.dumps(record | {"trace": None, "log": None}, separators=(",", ":"))
    except (ValueError, TypeError):
        return ""
