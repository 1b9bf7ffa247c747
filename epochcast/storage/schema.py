"""The tables of a store: made where there are none, and refused where they are of another schema.

epochcast_measurements, _footprints, _outcomes, _models    a record as JSON, by its key
epochcast_meta                                             the schema of these tables
"""

from __future__ import annotations

from sqlalchemy import Column, Integer, MetaData, String, Table, Text, inspect, select
from sqlalchemy.engine import Connection

from epochcast.errors import StoreError
from epochcast.storage.database import Database
from epochcast.storage.url import APPLICATION_ID, Address

STORE_SCHEMA = 4  # of the tables; those up to 3 were of versions that were never released


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
