"""Stores on both databases: a PostgreSQL server for the session, reached by a socket only."""

from __future__ import annotations

import getpass
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from epochcast.storage.store import Store


@dataclass(frozen=True)
class Server:
    """A running server.

    Attributes:
        programs: the folder of postgres and pg_ctl.
        folder: of its socket and data; short, because a socket's path may have 107 bytes.
        user: that runs it: root may not.
    """

    programs: Path
    folder: Path
    user: str
    password = "s3cr3t-word"  # any is right, since the server trusts its socket

    def url(self, schema: str, user: str = "", scheme: str = "postgresql") -> str:
        """Of a schema, which holds the tables of one store."""
        who = f"{user or self.user}:{self.password}"
        where = f"host={self.folder}&options=-csearch_path%3D{schema}"
        return f"{scheme}://{who}@/postgres?{where}"

    def execute(self, sql: str) -> list[tuple[Any, ...]]:
        """As the administrator."""
        import psycopg

        with psycopg.connect(
            host=str(self.folder), user=self.user, dbname="postgres", autocommit=True
        ) as connection:
            cursor = connection.execute(sql)
            return cursor.fetchall() if cursor.description else []

    def kill(self) -> None:
        """At once, and all its processes, as the kernel would."""
        pid = int((self.folder / "data" / "postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGQUIT)  # PostgreSQL's immediate shutdown: no checkpoint, recovers
        self.control("stop", check=False)

    def start(self) -> None:
        settings = f"-F -k {self.folder} -c listen_addresses=''"
        self.control("-o", settings, "-l", str(self.folder / "log"), "start")

    def control(self, *arguments: str, check: bool = True) -> None:
        command = [self.programs / "pg_ctl", "-D", str(self.folder / "data"), "-w", *arguments]
        as_user = {"user": self.user} if os.getuid() == 0 else {}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run(command, check=check, cwd=self.folder, **quiet, **as_user)


def programs() -> Path | None:
    """The folder of initdb and postgres; Debian keeps them out of PATH."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return next((folder for folder in folders if (folder / "postgres").exists()), None)


def lacking(what: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must test PostgreSQL, but lacks {what}")
    pytest.skip(f"needs {what}")


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    found = programs()
    if found is None:
        lacking("a PostgreSQL server: apt-get install postgresql")
    if importlib.util.find_spec("psycopg") is None:
        lacking("psycopg: pip install 'epochcast[postgresql]'")
    assert found is not None
    folder = Path(tempfile.mkdtemp(prefix="epochcast-pg-"))
    as_user: dict[str, Any] = {}
    user = getpass.getuser()
    if os.getuid() == 0:
        user = "postgres"
        as_user = {"user": user}
        shutil.chown(folder, user)
    command = [found / "initdb", "-D", str(folder / "data"), "-A", "trust", "-N", "-U", user]
    try:
        subprocess.run(command, check=True, capture_output=True, cwd=folder, **as_user)
        running = Server(found, folder, user)
        running.start()
        yield running
        running.kill()
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def schema(server: Server, request: pytest.FixtureRequest) -> str:
    """A schema of its own for each test."""
    name = f"test_{abs(hash(request.node.nodeid))}"
    server.execute(f"CREATE SCHEMA {name}")
    return name


@pytest.fixture
def url(server: Server, schema: str) -> str:
    """Of a store that is not made yet, on the server."""
    return server.url(schema)


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a store on either database that is not made yet: a path, or a URL."""
    on_server = request.param == "postgresql"
    return request.getfixturevalue("url") if on_server else str(tmp_path / "store.sqlite")


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An empty store on either database."""
    where = request.getfixturevalue("url") if request.param == "postgresql" else None
    with Store.open(where, folder=tmp_path / ".epochcast") as opened:
        yield opened
