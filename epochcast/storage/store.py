"""Measurements on disk: each is saved at once, survives a kill, and is found again by its key.

    probe ──add──▶ epochcast_measurements (columns to filter by + the record as JSON) ──▶ fit
    dry-run ────▶ epochcast_footprints   (what was counted without measuring)         ──▶ fit
    follow ─────▶ epochcast_outcomes     (what runs were predicted to take, and took) ──▶ fit
                   epochcast_models       (fitted models as JSON, by what they rest on) ──▶ predict
                   epochcast_meta         (the schema of these tables)

tables.py makes these tables. The same code runs on a SQLite file and on a PostgreSQL server.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, TextIO, TypeVar

from epochcast.errors import StoreError, UsageError
from epochcast.profiler.target import canonical, meant
from epochcast.records import (
    Device,
    Footprint,
    Measurement,
    RunConfig,
    RunOutcome,
    from_json,
    to_json,
)
from epochcast.records.measurement import IMPORTED, share_a_number
from epochcast.storage.address import Address, check_file, locate, make_folders
from epochcast.storage.database import Connection, Database, places
from epochcast.storage.tables import (
    empty_database,
    nothing_yet,
    prepare_tables,
    require_current,
)

_Record = TypeVar("_Record")
_Result = TypeVar("_Result")
Row = Mapping[str, Any]  # values by their columns

_MEASUREMENTS = ("epochcast_measurements", "key")  # a table, and its column that names a record
_FOOTPRINTS = ("epochcast_footprints", "key")
_OUTCOMES = ("epochcast_outcomes", "run")
_MODELS = ("epochcast_models", "key")
KEPT_MODELS = 20  # cached fits; each new measurement makes the older ones useless


class Store:
    """The measurements of one folder or server. A context manager; ``open`` makes one.

    Attributes:
        label: the store's name for people, without a password.
        folder: where files that go with the store live; absolute.
        log_folder: what TensorBoard opens; traces are kept relative to it.
    """

    def __init__(
        self, database: Database, address: Address, make: Callable[[], Database] | None = None
    ) -> None:
        self._database = database
        self._make = make
        self.label = address.label
        self._option = address.option
        self.folder = address.folder
        self.log_folder = address.folder / "tensorboard"

    @classmethod
    def open(
        cls,
        url: str | None = None,
        folder: Path | None = None,
        create: bool | Literal["late"] = True,
    ) -> Store:
        """Open the store at a path or URL, by default ``.epochcast/measurements.sqlite``.

        Args:
            url: a path, ``sqlite:///PATH`` or ``postgresql+psycopg://USER@HOST/NAME``.
            folder: for the default file, and for the files that go with any store.
            create: whether to make a store where there is none; False touches nothing, and "late"
                makes it with the first thing that is stored.

        Raises:
            UsageError: ``url`` is no path and no URL of a store.
            StoreError: it cannot be opened, is not a store, or is of another schema.
            MissingDependency: PostgreSQL's driver is not installed.
        """
        address = locate(url, folder)
        exists = check_file(address)
        if create == "late" and not exists:
            return cls(empty_database(), address, partial(_made, address, True))
        if not create and not exists:
            raise nothing_yet(address, missing=True)
        return cls(_made(address, bool(create)), address)

    @property
    def exists(self) -> bool:
        """Whether it has been made; one that is made late is not, until something is stored."""
        return self._make is None

    def write(self, work: Callable[[Connection], _Result]) -> _Result:
        """Write all that ``work`` does, or nothing; a store that is to be made late is made."""
        if self._make is not None:
            made, self._make = self._make(), None
            self._database.close()
            self._database = made

        def checked(connection: Connection) -> _Result:
            require_current(connection, self.label)
            return work(connection)

        return self._database.write(checked)

    def read(self, work: Callable[[Connection], _Result]) -> _Result:
        """What ``work`` makes of the database; it must not write."""
        return self._database.read(work)

    def select(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        return self.read(lambda connection: connection.execute(sql, values).fetchall())

    def close(self) -> None:
        """Close the connections; the store can no longer be used."""
        self._database.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def add(self, measurement: Measurement) -> None:
        """Save a measurement durably; one with the same key is replaced.

        Raises:
            StoreError: it could not be saved; the store is as it was before.
        """
        self.add_all([measurement])

    def add_all(self, measurements: Iterable[Measurement]) -> None:
        """Save measurements durably, all or none; those with the same keys are replaced.

        Raises:
            StoreError: they could not be saved, or two of them have one key; the store is as it
                was before.
        """
        known = tuple(measurements)
        if problem := share_a_number(known):
            raise StoreError(problem)
        rows = {measurement.key: _row(measurement) for measurement in known}
        self.write(lambda connection: replace_rows(connection, _MEASUREMENTS, rows.values()))

    def measurements(
        self,
        workload: str | None = None,
        source: str | None = None,
        status: str | None = None,
        device_key: str | None = None,
    ) -> tuple[Measurement, ...]:
        """All measurements that match, in the order they were added.

        Args:
            workload: its name, as measurements have it; None for all.
            source: fingerprint of its code; None for all versions.
            status: one of ``Status``; None for all.
            device_key: of the device; None for all.

        Raises:
            StoreError: the store cannot be read, or holds a record of a newer schema.
        """
        wanted = {"workload": workload, "source": source, "status": status}
        rows = self._documents(_MEASUREMENTS, wanted | {"device_key": device_key})
        return tuple(self._decode(key, document) for key, document in rows)

    def newest(self, workload: str) -> list[tuple[Measurement, int]]:
        """Of each device, version of the code, data and status the newest one, and how many.

        What is to be read of a workload can be decided by these, the oldest first.
        """
        rows = self.select(
            "SELECT m.key, m.document, g.trials FROM epochcast_measurements m JOIN ("
            " SELECT id, count(*) OVER (PARTITION BY device_key, source, data, status) AS trials,"
            " row_number() OVER (PARTITION BY device_key, source, data, status"
            " ORDER BY created_at DESC, id) AS place"
            " FROM epochcast_measurements WHERE workload = ?"
            ") g ON g.id = m.id WHERE g.place = 1 ORDER BY m.id",
            workload,
        )
        return [(self._decode(key, document), trials) for key, document, trials in rows]

    def workloads(self) -> tuple[str, ...]:
        """The names of all workloads that were measured, the one measured last, well, at the end.

        Each name is looked up in the index behind the one before, so that a million measurements
        of a thousand workloads take a thousand steps.
        """
        names = self.select(
            "WITH RECURSIVE names(name) AS (SELECT min(workload) FROM epochcast_measurements"
            " UNION ALL SELECT (SELECT min(workload) FROM epochcast_measurements"
            " WHERE workload > names.name) FROM names WHERE names.name IS NOT NULL)"
            " SELECT name FROM names WHERE name IS NOT NULL"
        )
        order = "SELECT workload FROM epochcast_measurements {} ORDER BY created_at DESC LIMIT 1"
        newest = self.select(order.format("WHERE status = 'ok'")) or self.select(order.format(""))
        last = [name for (name,) in newest]
        return (*(name for (name,) in names if name not in last), *last)

    def names_of(self, workload: str) -> tuple[str, ...]:
        """The names that a person means by one: itself, where something is called so.

        Else it is a target, or the end of some: of each it is what has no name, or else all names
        that were given to it; the one measured last, well, at the end. Empty where there is none.
        """
        stored, name = self.workloads(), canonical(workload)
        if name in stored:
            return (name,)
        known = self.select("SELECT DISTINCT target FROM epochcast_measurements")
        targets = meant(workload, [target for (target,) in known])
        bare = [target for target in targets if target in stored]
        last = "max(CASE WHEN status = 'ok' THEN created_at ELSE '' END)"
        named = self.select(
            f"SELECT workload FROM epochcast_measurements WHERE target IN ({places(targets)})"
            f" AND (workload = target OR target NOT IN ({places(bare)}))"
            f" GROUP BY workload ORDER BY {last}, workload",
            *targets,
            *bare,
        )
        return tuple(name for (name,) in named)

    def require_own_names(self, named: Iterable[tuple[str, str]], place: str) -> None:
        """Refuse names that are of other targets here: what is copied would pass for the same.

        Args:
            named: names and their targets that are to be copied; not of what was timed elsewhere.
            place: where they come from.

        Raises:
            UsageError: one is.
        """
        here = dict(
            self.select(
                "SELECT DISTINCT workload, target FROM epochcast_measurements WHERE data != ?",
                IMPORTED,
            )
        )
        for name, target in named:
            if here.setdefault(name, target) != target:
                raise UsageError(
                    f"{name!r} is the name of {target} in {place}, and of {here[name]} in "
                    f"{self.label}: nothing was copied; probe one of them under another --name"
                )

    def devices(self, workload: str | None = None) -> tuple[Device, ...]:
        """The devices that a workload, or any, was measured on."""
        where, values = ("WHERE workload = ?", (workload,)) if workload else ("", ())
        rows = self.select(
            "SELECT key, document FROM epochcast_measurements WHERE id IN"
            f" (SELECT max(id) FROM epochcast_measurements {where} GROUP BY device_key)"
            " ORDER BY id",
            *values,
        )
        return tuple(self._decode(key, document).device for key, document in rows)

    def get(self, key_prefix: str) -> Measurement:
        """The one measurement whose key starts with ``key_prefix``.

        Raises:
            StoreError: none does, or several do.
        """
        key = self.whole_key(key_prefix)
        found = self.select("SELECT document FROM epochcast_measurements WHERE key = ?", key)
        return self._decode(key, found[0][0])

    def whole_key(self, key_prefix: str) -> str:
        """The one key that starts with ``key_prefix``, even if its record cannot be read.

        Raises:
            StoreError: none does, or several do.
        """
        found = self.select(
            "SELECT key FROM epochcast_measurements WHERE substr(key, 1, ?) = ? ORDER BY id",
            len(key_prefix),
            key_prefix,
        )
        keys = [key for (key,) in found]
        if not keys:
            raise StoreError(f"no measurement in {self.label} has a key like {key_prefix!r}")
        if len(keys) > 1:
            some = ", ".join(keys[:3]) + (", …" if len(keys) > 3 else "")
            raise StoreError(
                f"{len(keys)} measurements have a key like {key_prefix!r} ({some}); "
                "give more characters"
            )
        return str(keys[0])

    def remove(self, keys: Iterable[str]) -> int:
        """Remove measurements by their whole keys, all at once; how many there were."""
        delete, known = "DELETE FROM epochcast_measurements WHERE key = ?", tuple(keys)

        def remove(connection: Connection) -> int:
            return sum(int(connection.execute(delete, (key,)).rowcount) for key in known)

        return self.write(remove)

    def export(self, stream: TextIO) -> int:
        """Write every measurement as a line of JSON, as it is stored; how many there are."""
        documents = self.select("SELECT document FROM epochcast_measurements ORDER BY id")
        stream.writelines(f"{document}\n" for (document,) in documents)
        return len(documents)

    def import_(self, stream: Iterable[str]) -> int:
        """Add the measurements that ``export`` wrote, all or none; how many lines there were.

        Raises:
            StoreError: a line is not a measurement, or of a newer schema; nothing is imported.
            UsageError: a name is of another target here.
        """
        measurements = _parse_lines(stream)
        named = [(m.workload, m.target) for m in measurements if m.data != IMPORTED]
        self.require_own_names(named, "the export")
        self.add_all(measurements)
        return len(measurements)

    def add_footprints(
        self,
        workload: str,
        source: str,
        footprints: Mapping[RunConfig, Footprint],
        data: str = "",
    ) -> None:
        """Save what was counted in dry runs, all or none; older counts are replaced.

        Args:
            workload: the target, for all its names.
            source: the fingerprint of its code.
            footprints: by the configuration that was counted.
            data: where its batches came from, as in ``Measurement.data``.

        Raises:
            StoreError: they could not be saved; the store is as it was before.
        """
        rows = [
            {
                "key": _footprint_key(workload, source, data, config),
                "workload": workload,
                "source": source,
                "data": data,
                "document": to_json((config, footprint)),
            }
            for config, footprint in footprints.items()
        ]
        self.write(lambda connection: replace_rows(connection, _FOOTPRINTS, rows))

    def footprints(self, workload: str, source: str, data: str = "") -> dict[RunConfig, Footprint]:
        """What was counted in dry runs of one version of a workload's code on the same data.

        Args:
            workload: the target, for all its names.
            source: the fingerprint of its code.
            data: where its batches came from, as in ``Measurement.data``.

        Raises:
            StoreError: the store cannot be read.
        """
        wanted = {"workload": workload, "source": source, "data": data}
        rows = self._documents(_FOOTPRINTS, wanted)
        return dict(from_json(document, tuple[RunConfig, Footprint]) for _, document in rows)

    def add_outcome(self, outcome: RunOutcome) -> None:
        """Save what a followed run was predicted to take and took; an earlier one is replaced.

        Raises:
            StoreError: it could not be saved; the store is as it was before.
        """
        rows = [_outcome_row(outcome)]
        self.write(lambda connection: replace_rows(connection, _OUTCOMES, rows))

    def outcomes(
        self, workload: str | None = None, device_key: str | None = None
    ) -> tuple[RunOutcome, ...]:
        """What followed runs were predicted to take and took, in the order they were added.

        Raises:
            StoreError: the store cannot be read, or holds a record of a newer schema.
        """
        wanted = {"workload": workload, "device_key": device_key}
        rows = self._documents(_OUTCOMES, wanted)
        return tuple(self._decode_outcome(run, document) for run, document in rows)

    def remove_outcome(self, run: str) -> bool:
        """Forget what a run took; whether there was anything to forget."""
        delete = "DELETE FROM epochcast_outcomes WHERE run = ?"
        return bool(self.write(lambda connection: connection.execute(delete, (run,)).rowcount))

    def cached_model(self, key: str) -> str | None:
        """The document cached under ``key``; None if there is none."""
        found = self.select("SELECT document FROM epochcast_models WHERE key = ?", key)
        return found[0][0] if found else None

    def cache_model(self, key: str, document: str) -> bool:
        """Cache a fitted model's document; False where the store cannot be written."""

        def cache(connection: Connection) -> None:
            replace_rows(connection, _MODELS, [{"key": key, "document": document}])
            newest = connection.execute("SELECT max(id) FROM epochcast_models").fetchone()[0]
            old = (newest - KEPT_MODELS,)
            connection.execute("DELETE FROM epochcast_models WHERE id <= ?", old)

        try:
            self.write(cache)
        except StoreError:
            return False
        return True

    def _documents(
        self, table: tuple[str, str], wanted: Mapping[str, str | None]
    ) -> list[tuple[Any, ...]]:
        """Keys and documents of the rows whose columns have the values wanted, the oldest first."""
        name, key = table
        given = {column: value for column, value in wanted.items() if value is not None}
        where = " AND ".join(f"{column} = ?" for column in given) or "1 = 1"
        sql = f"SELECT {key}, document FROM {name} WHERE {where} ORDER BY id"
        return self.select(sql, *given.values())

    def _decode(self, key: str, document: str) -> Measurement:
        remedy = f"probes remove {key}"
        return self._read(document, Measurement, f"measurement {key}", remedy)

    def _decode_outcome(self, run: str, document: str) -> RunOutcome:
        remedy = f"calibration --forget {shlex.quote(run)}"
        return self._read(document, RunOutcome, f"the run {run}", remedy)

    def _read(self, document: str, kind: type[_Record], name: str, remedy: str) -> _Record:
        try:
            return from_json(document, kind)
        except StoreError as error:
            raise StoreError(
                f"{name} in {self.label} cannot be read: {error}; "
                f"remove it: epochcast {remedy}{self._option}"
            ) from error


def _made(address: Address, create: bool) -> Database:
    if create:
        make_folders(address)
    database = Database(address)
    try:
        prepare_tables(database, address, create)
    except StoreError:
        database.close()
        raise
    return database


def _row(measurement: Measurement) -> Row:
    return {
        "key": measurement.key,
        "workload": measurement.workload,
        "target": measurement.target,
        "source": measurement.source,
        "data": measurement.data,
        "device_key": measurement.device.key,
        "status": measurement.status,
        "round": measurement.round,
        "created_at": measurement.created_at,
        "schema": measurement.schema,
        "document": to_json(measurement),
    }


def _outcome_row(outcome: RunOutcome) -> Row:
    return {
        "run": outcome.run,
        "workload": outcome.workload,
        "source": outcome.source,
        "device_key": outcome.device.key,
        "document": to_json(outcome),
    }


def replace_rows(connection: Connection, table: tuple[str, str], rows: Iterable[Row]) -> None:
    """Insert rows under new ids, in place of those with the same keys.

    Args:
        connection: that may write.
        table: and its column that names a record.
        rows: all of the same columns.
    """
    known = tuple(rows)
    if not known:
        return
    name, key = table
    columns = ", ".join(known[0])
    connection.executemany(f"DELETE FROM {name} WHERE {key} = ?", [(row[key],) for row in known])
    connection.executemany(
        f"INSERT INTO {name} ({columns}) VALUES ({places(known[0])})",
        [tuple(row.values()) for row in known],
    )


def _parse_lines(stream: Iterable[str]) -> list[Measurement]:
    try:
        lines = list(stream)
    except UnicodeDecodeError as error:
        raise StoreError(f"not UTF-8 text ({error.reason}); nothing was imported") from error
    numbered = ((number, _bare(line)) for number, line in enumerate(lines, start=1))
    return [_parse_line(number, text) for number, text in numbered if text]


def _bare(line: str) -> str:
    return line.removeprefix("\ufeff").strip()  # a byte order mark, as Windows editors add


def _parse_line(number: int, text: str) -> Measurement:
    try:
        return from_json(text, Measurement)
    except StoreError as error:
        raise StoreError(f"line {number}: {error}; nothing was imported") from error


def _footprint_key(workload: str, source: str, data: str, config: RunConfig) -> str:
    return hashlib.sha256(repr((workload, source, data, config)).encode()).hexdigest()[:16]
