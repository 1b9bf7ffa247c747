"""One database, SQLite or PostgreSQL: one writer at a time, plain errors.

    Address ──▶ Database ──read()──▶  a connection that sees one state
                         └─write()──▶ a transaction alone in writing; durable when it ends

SQLite keeps its default rollback journal. A write-ahead log would let readers overlap a writer,
which nobody needs for one row every few seconds, and it corrupts the file when two hosts share it
over a network file system (https://sqlite.org/wal.html, section 1), as the nodes of a cluster do.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import create_engine, event, func, select
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from epochcast.errors import MissingDependency, StoreError
from epochcast.storage.url import APPLICATION_ID, Address

BUSY_SECONDS = 30  # a writer holds the lock for milliseconds, so this outlasts a stalled disk
CONNECT_SECONDS = 10  # libpq's own default is to wait for ever

_HINTS = (
    ("locked", f"another process kept it busy for {BUSY_SECONDS} s; try again when that is done"),
    ("lock timeout", f"another process kept it busy for {BUSY_SECONDS} s; try again then"),
    ("is full", "free some space; what was saved before is kept"),
    ("disk I/O", "the disk is full or failing; what was saved before is kept"),
    ("malformed", "the file is damaged: keep a copy, and recover it with sqlite3's .recover"),
    ("not a database", "the file is damaged: keep a copy, and name another with --store"),
    ("readonly", "check the permissions of the file and of its folder"),
    ("unable to open", "check the permissions of the file and of its folder"),
)


class Database:
    """Connections to one database; every failure is a one-line StoreError.

    Args:
        address: from ``locate``. Connecting waits for the first ``read`` or ``write``.
        busy_seconds: how long to wait for another writer.

    Raises:
        MissingDependency: the driver is not installed.
    """

    def __init__(self, address: Address, busy_seconds: float = BUSY_SECONDS) -> None:
        self._address = address
        self._busy_seconds = busy_seconds
        self._engine = _make_engine(address, busy_seconds)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection that sees one state of the database."""
        with self._plain_errors(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that is alone in writing; durable when the block is left."""
        with self._plain_errors(), self._engine.connect() as connection:
            connection = connection.execution_options(epochcast_writer=True)
            with connection.begin():
                if self._address.path is None:
                    self._wait_for_writers(connection)
                yield connection

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def _wait_for_writers(self, connection: Connection) -> None:
        milliseconds = round(1000 * self._busy_seconds)
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {milliseconds}")
        connection.execute(select(func.pg_advisory_xact_lock(APPLICATION_ID)))

    @contextmanager
    def _plain_errors(self) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, OverflowError, UnicodeEncodeError) as error:
            raise StoreError(f"the store {self._address.label}: {self._explain(error)}") from error

    def _explain(self, error: Exception) -> str:
        lines = str(getattr(error, "orig", None) or error).strip().splitlines()
        detail = lines[0] if lines else type(error).__name__
        for secret in (self._address.url.password, self._address.url.query.get("password")):
            detail = detail.replace(str(secret), "***") if secret else detail
        hint = next((hint for words, hint in _HINTS if words in detail), "")
        return f"{detail}; {hint}" if hint else detail


def _make_engine(address: Address, busy_seconds: float) -> Engine:
    if address.path is not None:
        engine = create_engine(
            address.url, connect_args={"timeout": busy_seconds}, hide_parameters=True
        )
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    wait = {} if "connect_timeout" in address.url.query else {"connect_timeout": CONNECT_SECONDS}
    try:
        return create_engine(
            address.url, connect_args=wait, pool_pre_ping=True, hide_parameters=True
        )
    except ImportError as error:
        raise MissingDependency(
            f"a PostgreSQL store needs psycopg ({error}); "
            "install it: pip install 'epochcast[postgresql]'"
        ) from error


def _set_up_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # sqlite3 begins nothing by itself: _begin_sqlite does
    connection.execute("PRAGMA synchronous = FULL")  # what was acknowledged survives a power cut


def _begin_sqlite(connection: Connection) -> None:
    # A writer takes its lock at once: upgrading a read lock fails without waiting when it is taken.
    writer = connection.get_execution_options().get("epochcast_writer", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writer else "BEGIN")
