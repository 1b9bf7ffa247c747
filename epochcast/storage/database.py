"""Where a store is, and its database, SQLite or PostgreSQL: one writer at a time, plain errors.

    None  (.epochcast/measurements.sqlite)     ─┐
    "probes.sqlite", "sqlite:///probes.sqlite" ─┼─ locate() ─▶ Address ─ check_file() ─▶ Database
    "postgresql+psycopg://user@host/name"      ─┘

    Address ──▶ Database ──read()──▶  a connection that sees one state
                         └─write()──▶ a transaction alone in writing; durable when it ends

SQLite keeps its default rollback journal. A write-ahead log would let readers overlap a writer,
which nobody needs for one row every few seconds, and it corrupts the file when two hosts share it
over a network file system (https://sqlite.org/wal.html, section 1), as the nodes of a cluster do.

The tables are made where there are none, and refused where they are of another schema:

    epochcast_measurements, _footprints, _outcomes, _models    a record as JSON, by its key
    epochcast_meta                                             the schema of these tables
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from sqlalchemy import (
    URL,
    Column,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
    func,
    inspect,
    make_url,
    select,
)
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import StaticPool

from epochcast.errors import MissingDependency, StoreError

DEFAULT_FOLDER = Path(".epochcast")
FILE_NAME = "measurements.sqlite"
APPLICATION_ID = 0x45504F43  # "EPOC": marks our SQLite files (https://sqlite.org/fileformat.html)
BUSY_SECONDS = 30  # a writer holds the lock for milliseconds, so this outlasts a stalled disk
STORE_SCHEMA = 4  # of the tables; those up to 3 were of versions that were never released
CONNECT_SECONDS = 10  # libpq's own default is to wait for ever

_POSTGRESQL = "postgresql+psycopg"
_DRIVERS = {"sqlite": "sqlite", "sqlite+pysqlite": "sqlite"} | dict.fromkeys(
    ("postgres", "postgresql", _POSTGRESQL), _POSTGRESQL
)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a store is.

    Attributes:
        url: for SQLAlchemy; may hold a password, so never shown.
        label: for people; holds no password.
        folder: for the files that go with the store, such as logs and traces; absolute.
        path: of a SQLite file, absolute; None for a server.
        option: what names the store on a command line; empty for the default one.
    """

    url: URL
    label: str
    folder: Path
    path: Path | None = None
    option: str = ""


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
        only = {"poolclass": StaticPool} if address.url.database == ":memory:" else {}
        engine = create_engine(
            address.url, connect_args={"timeout": busy_seconds}, hide_parameters=True, **only
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


# -- tables --------------------------------------------------------------------------------------


def _text(name: str) -> Column[str]:
    return Column(name, String, nullable=False)


def _records(name: str, key: str, *columns: Column[str] | Column[int]) -> Table:
    """Records as JSON, one for each key, and columns to filter by."""
    return Table(
        name,
        _metadata,
        Column("id", Integer, primary_key=True),
        Column(key, String, nullable=False, unique=True),
        *columns,
        Column("document", Text, nullable=False),
        sqlite_autoincrement=True,  # an id is never used twice, so ids order rows by age
    )


_metadata = MetaData()
META = Table(
    "epochcast_meta",
    _metadata,
    Column("name", String, primary_key=True),
    Column("value", String, nullable=False),
)
MEASUREMENTS = _records(
    "epochcast_measurements",
    "key",
    _text("workload"),
    _text("source"),
    _text("device_key"),
    _text("status"),
    Column("round", Integer, nullable=False),
    _text("created_at"),
    Column("schema", Integer, nullable=False),
)
MODELS = _records("epochcast_models", "key")
FOOTPRINTS = _records(
    "epochcast_footprints", "key", _text("workload"), _text("source"), _text("data")
)
OUTCOMES = _records(
    "epochcast_outcomes", "run", _text("workload"), _text("source"), _text("device_key")
)


def nothing_yet(address: Address) -> StoreError:
    """There is no store to read."""
    return StoreError(
        f"no measurements yet in {address.label}; "
        f"run: epochcast probe mnist-mlp --batch-sizes 32,64,128,256{address.option}"
    )


def prepare_tables(database: Database, address: Address, create: bool) -> None:
    """Have the tables of this version in a database.

    Args:
        database: that they are in.
        address: names the store in an error.
        create: whether to make them where there are none.

    Raises:
        StoreError: there are none, they are of another version, or they cannot be written.
    """
    with database.read() as connection:
        found = schema_of(connection, address.label)
    if found is None and not create:
        raise nothing_yet(address)
    if found is None:
        found = _create_once(database, address.label)
    if found > STORE_SCHEMA:
        raise StoreError(
            f"the store {address.label}: written by a newer epochcast (schema {found}, this one "
            f"reads up to {STORE_SCHEMA}); run: pip install --upgrade epochcast"
        )
    if found < STORE_SCHEMA:
        raise StoreError(
            f"the store {address.label}: written by an earlier epochcast (schema {found}, this one "
            f"reads {STORE_SCHEMA}); move it away, or name another with --store, and probe again"
        )


def empty_database() -> Database:
    """One in memory that has the tables, for a store that is not made yet."""
    url = URL.create("sqlite", database=":memory:")
    database = Database(Address(url=url, label="", folder=Path(), path=Path()))
    with database.write() as connection:
        create_tables(connection)
    return database


def _create_once(database: Database, label: str) -> int:
    with database.write() as connection:
        found = schema_of(connection, label)  # again: another process may have been faster
        if found is None:
            create_tables(connection)
        return found or STORE_SCHEMA


def schema_of(connection: Connection, label: str) -> int | None:
    """The schema of the tables in a database; None where there are none.

    Raises:
        StoreError: what is written there is no schema; the message names the store by ``label``.
    """
    if not inspect(connection).has_table(META.name):
        return None
    value = connection.scalar(select(META.c.value).where(META.c.name == "schema"))
    try:
        return int(value) if value is not None else None
    except ValueError as error:
        raise StoreError(
            f"the store {label}: its schema is {value!r}, not a number; "
            "the file is damaged: keep a copy, and name another with --store"
        ) from error


def create_tables(connection: Connection) -> None:
    """Create the tables of a store, in the transaction of ``connection``."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")
    _metadata.create_all(connection)
    connection.execute(META.insert().values(name="schema", value=str(STORE_SCHEMA)))


# -- where it is ----------------------------------------------------------------------------------


def locate(url: str | None = None, folder: Path | None = None) -> Address:
    """The store that a user means by a path or URL; without one, the default file in ``folder``.

    Files that go with the store live in ``folder`` if given; else beside a SQLite file (for
    ``probes.sqlite`` in ``probes.files/``), or for a server in the default folder.

    Raises:
        StoreError: neither a path nor a URL of a supported database.
    """
    if url is None:
        home = folder or DEFAULT_FOLDER
        return _file_address(home / FILE_NAME, home, str(home))
    if "\0" in unquote(url):
        raise StoreError(f"the name of a store has no NUL character, but got {url!r}")
    address = _named(url, folder)
    return replace(address, option=f" --store {shlex.quote(address.label)}")


def _named(url: str, folder: Path | None) -> Address:
    if "://" not in url:
        return _file_address(Path(url).expanduser(), folder, url)
    parsed = _parse_url(url)
    if parsed.drivername == _POSTGRESQL:
        home = (folder or DEFAULT_FOLDER).absolute()
        return Address(url=parsed, label=_server_label(parsed), folder=home)
    if "?" in url or parsed.database in (None, "", ":memory:"):
        raise StoreError("a SQLite store is a file: use sqlite:///PATH, without options")
    return _file_address(Path(str(parsed.database)), folder, str(parsed.database))


def _parse_url(text: str) -> URL:
    scheme = text.split("://")[0]
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):  # "from None": their messages may quote a password
        raise StoreError(
            f"not a database URL: use {_POSTGRESQL}://USER@HOST/NAME, but got {scheme}://…"
        ) from None
    if url.drivername not in _DRIVERS:
        raise StoreError(
            f"a store is a path, sqlite:///PATH or {_POSTGRESQL}://USER@HOST/NAME, "
            f"but got {scheme}://…"
        )
    return url.set(drivername=_DRIVERS[url.drivername])


def _file_address(path: Path, folder: Path | None, label: str) -> Address:
    path = path.absolute()
    beside = path.parent if path.name == FILE_NAME else path.parent / f"{path.stem}.files"
    url = URL.create("sqlite", database=str(path))
    return Address(url=url, label=label, folder=(folder or beside).absolute(), path=path)


def _server_label(url: URL) -> str:
    bare = URL.create(url.drivername, url.username, None, url.host, url.port, url.database)
    return bare.render_as_string()


def make_folders(address: Address) -> None:
    """Make the folders of a store.

    Raises:
        StoreError: they cannot be made.
    """
    folders = [address.folder] + ([address.path.parent] if address.path else [])
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"the store {address.label}: cannot make its folder {folder}: {error.strerror}; "
                "name another with --store"
            ) from error


def check_file(address: Address) -> bool:
    """Whether there is a SQLite store to open; looks at the file's first bytes only.

    Raises:
        StoreError: there is something else, or it cannot be read.
    """
    if address.path is None:
        return True
    head = _head(address.path, address.label)
    foreign = "name another with --store; this one is left untouched"
    if head and not head.startswith(b"SQLite format 3\0"):
        raise StoreError(f"the store {address.label}: not an epochcast store; {foreign}")
    if head and head[68:72] != APPLICATION_ID.to_bytes(4, "big"):
        raise StoreError(
            f"the store {address.label}: a SQLite database of another program; {foreign}"
        )
    return bool(head)


def _head(path: Path, label: str) -> bytes:
    try:
        if path.exists() and not path.is_file():
            raise StoreError(
                f"the store {label}: a file is expected, but this is a folder or device; "
                f"did you mean {Path(label) / FILE_NAME}?"
            )
        with path.open("rb") as file:
            return file.read(100)
    except (FileNotFoundError, NotADirectoryError):
        return b""
    except OSError as error:
        raise StoreError(
            f"the store {label}: cannot be read: {error.strerror}; "
            "check the permissions of the file and of its folder"
        ) from error
