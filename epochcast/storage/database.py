"""A store's database, SQLite or PostgreSQL: one writer at a time, plain errors, lost servers.

    Address ──▶ Database ──read(work)───▶  work(connection) sees what is committed
                         └─write(work)──▶  work(connection) is alone in writing, and done again
                                           whole where a server was lost in the middle

SQL is written once, with SQLite's placeholders. No object-relational mapper: there are five tables
of documents and a dozen statements, and importing one took a third of what ``predict`` takes.

SQLite keeps its default rollback journal. A write-ahead log would let readers overlap a writer,
which nobody needs for one row every few seconds, and it corrupts the file when two hosts share it
over a network file system (https://sqlite.org/wal.html, section 1), as the nodes of a cluster do.

A server that was reached once is waited for, with growing pauses (``PAUSES``): it may be restarted
while a sweep goes on. What is written is written by key, so doing it twice is doing it once.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from epochcast.errors import MissingDependency, StoreError
from epochcast.storage.address import APPLICATION_ID, Address
from epochcast.units import format_seconds

BUSY_SECONDS = 30  # a writer holds the lock for milliseconds, so this outlasts a stalled disk
CONNECT_SECONDS = 10  # libpq's own default is to wait for ever
PAUSES = (0.0, 0.1, 0.4, 0.5, 1.0, 3.0, 5.0, *(10.0,) * 29)  # seconds: five minutes in all
KEEPALIVE = {  # a server whose machine is gone is noticed after a minute, not after two hours
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}

# https://www.postgresql.org/docs/current/errcodes-appendix.html: connections, shutdown and
# recovery, too many connections, deadlocks
_PASSING_STATES = ("08", "57P", "53300", "40001", "40P01")
_PASSING_REFUSALS = ("starting up", "shutting down", "recovery", "accepting", "slots", "too many")
_HINTS = (
    ("locked", f"another process kept it busy for {BUSY_SECONDS} s; try again when that is done"),
    ("lock timeout", f"another process kept it busy for {BUSY_SECONDS} s; try again then"),
    ("is full", "free some space; what was saved before is kept"),
    ("disk I/O", "the disk is full or failing; what was saved before is kept"),
    ("malformed", "the file is damaged: keep a copy, and recover it with sqlite3's .recover"),
    ("not a database", "the file is damaged: keep a copy, and name another with --store"),
    ("readonly", "check the permissions of the file and of its folder"),
    ("unable to open", "check the permissions of the file and of its folder"),
    ("permission denied", "this role may not; docs/teams.md has the SQL that lets it"),
    ("read-only transaction", "this role or server only reads"),
    ("no password supplied", "give it in ~/.pgpass or PGPASSWORD"),
)

_Result = TypeVar("_Result")
_log = logging.getLogger("epochcast.storage")


class Connection:
    """A connection of either driver; ``?`` stands for a value in both.

    Args:
        raw: of sqlite3 or psycopg.
        on_server: whether it is psycopg's.
    """

    def __init__(self, raw: Any, on_server: bool) -> None:
        self.raw = raw
        self.on_server = on_server

    def execute(self, sql: str, values: Sequence[Any] = ()) -> Any:
        """Run one statement; the cursor has its rows."""
        return self.raw.execute(self._dialect(sql), values)

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run one statement for each row of values."""
        self.raw.cursor().executemany(self._dialect(sql), rows)

    def _dialect(self, sql: str) -> str:
        return sql.replace("?", "%s") if self.on_server else sql


def places(values: Collection[object]) -> str:
    """What stands for some values in a statement: ``?, ?, ?``; of none a text that nothing is."""
    return ", ".join("?" * len(values)) or "''"


class Database:
    """Connections to one database; every failure is a one-line StoreError.

    Args:
        address: from ``locate``. Connecting waits for the first ``read`` or ``write``.
        busy_seconds: how long to wait for another writer.
        pauses: between tries to reach a server that was reached before, in seconds.

    Raises:
        MissingDependency: the driver is not installed.
    """

    def __init__(
        self,
        address: Address,
        busy_seconds: float = BUSY_SECONDS,
        pauses: Sequence[float] = PAUSES,
    ) -> None:
        self._address = address
        self._busy_seconds = busy_seconds
        self._pauses = pauses
        self._driver = sqlite3 if address.path is not None else _psycopg()
        self._idle: list[Connection] = []  # each thread takes one out, or opens another
        self._reached = False

    def read(self, work: Callable[[Connection], _Result]) -> _Result:
        """What ``work`` makes of the database; it must not write."""
        return self._patiently(work, writes=False)

    def write(self, work: Callable[[Connection], _Result]) -> _Result:
        """Let ``work`` write, alone; durable when this returns, undone where it raises.

        It may be called again from the start where a server was lost.
        """
        return self._patiently(work, writes=True)

    def close(self) -> None:
        """Close all connections."""
        while self._idle:
            self._idle.pop().raw.close()

    def _patiently(self, work: Callable[[Connection], _Result], *, writes: bool) -> _Result:
        for tried, pause in enumerate((*self._pauses, None)):
            try:
                return self._once(work, writes)
            except (self._driver.Error, OverflowError, UnicodeEncodeError) as error:
                why = f"the store {self._address.label}: {self._explain(error)}"
                if not (self._reached and self._is_passing(error)):
                    raise StoreError(why) from error
                if pause is None:
                    waited = f"no answer to {tried} tries in {format_seconds(sum(self._pauses))}"
                    raise StoreError(f"{why}; {waited}; what was saved before is kept") from error
            if tried == 1:  # a connection that a restart cut while it was idle is no news
                longest = format_seconds(sum(self._pauses))
                _log.warning("%s; trying again for up to %s", why, longest)
            time.sleep(pause)
        raise AssertionError("the last try returns or raises")

    def _once(self, work: Callable[[Connection], _Result], writes: bool) -> _Result:
        connection = self._idle.pop() if self._idle else self._connect()
        self._reached = True
        try:
            self._begin(connection, writes)
            result = work(connection)
            connection.raw.commit()
        except BaseException:
            with suppress(self._driver.Error):
                connection.raw.rollback()
            raise
        finally:
            if not getattr(connection.raw, "closed", False):
                self._idle.append(connection)
        return result

    def _begin(self, connection: Connection, writes: bool) -> None:
        if not connection.on_server:
            # A writer takes its lock at once: upgrading a read lock fails without waiting.
            connection.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
        elif writes:  # psycopg has begun by itself
            milliseconds = round(1000 * self._busy_seconds)
            connection.execute(f"SET LOCAL lock_timeout = {milliseconds}")
            connection.execute("SELECT pg_advisory_xact_lock(?)", (APPLICATION_ID,))

    def _connect(self) -> Connection:
        address = self._address
        if address.path is not None:
            file = sqlite3.connect(
                address.path,
                timeout=self._busy_seconds,
                isolation_level=None,  # sqlite3 begins nothing by itself: _begin does
                check_same_thread=False,
            )
            file.execute("PRAGMA synchronous = FULL")  # what was acknowledged survives a power cut
            return Connection(file, on_server=False)
        wait = {} if "connect_timeout=" in address.dsn else {"connect_timeout": CONNECT_SECONDS}
        raw = self._driver.connect(
            address.dsn,
            **KEEPALIVE | wait | dict(address.secrets),
            prepare_threshold=None,  # PgBouncer gives another connection to each transaction
        )
        return Connection(raw, on_server=True)

    def _is_passing(self, error: Exception) -> bool:
        """Whether a server may be back in a while: gone, restarting, or too busy."""
        if self._address.path is not None or not isinstance(error, self._driver.Error):
            return False
        if error.sqlstate:
            return bool(error.sqlstate.startswith(_PASSING_STATES))
        lost = isinstance(error, (self._driver.OperationalError, self._driver.InterfaceError))
        refused = "FATAL" in str(error)  # there is a server, and it says why not
        return lost and (not refused or any(word in str(error) for word in _PASSING_REFUSALS))

    def _explain(self, error: Exception) -> str:
        lines = str(error).strip().splitlines()
        detail = self._address.masked(lines[0] if lines else type(error).__name__)
        hint = next((hint for words, hint in _HINTS if words in detail), "")
        return f"{detail}; {hint}" if hint else detail


def _psycopg() -> Any:
    try:
        import psycopg
    except ImportError as error:
        raise MissingDependency(
            f"a PostgreSQL store needs psycopg ({error}); "
            "install it: pip install 'epochcast[postgresql]'"
        ) from error
    return psycopg
