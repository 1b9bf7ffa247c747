"""The same store on a real PostgreSQL server, private to this test and reached by a socket only."""

from __future__ import annotations

import getpass
import importlib.util
import io
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from strategies import make_measurement

from epochcast.errors import StoreError
from epochcast.storage.address import locate
from epochcast.storage.database import Database
from epochcast.storage.store import Store

PASSWORD = "s3cr3t-word"

ADDER = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from pathlib import Path
from epochcast.storage.store import Store
from strategies import make_measurement
with Store.open(sys.argv[1], folder=Path(sys.argv[2])) as store:
    for i in range(20):
        store.add(make_measurement(round=i, workload="shared"))
        store.add(make_measurement(round=i, workload=sys.argv[3]))
"""


def server_programs() -> Path | None:
    """The folder of initdb and postgres; Debian keeps them out of PATH."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return next((folder for folder in folders if (folder / "postgres").exists()), None)


def lacking(what: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must test PostgreSQL, but lacks {what}")
    pytest.skip(f"needs {what}")


def server_user() -> str:
    return "postgres" if os.getuid() == 0 else getpass.getuser()  # root may not run a server


@pytest.fixture(scope="module")
def socket_folder() -> Iterator[Path]:
    """A running server, by the folder of its socket (short: a path may have 107 bytes)."""
    programs = server_programs()
    if programs is None:
        lacking("a PostgreSQL server: apt-get install postgresql")
    if importlib.util.find_spec("psycopg") is None:
        lacking("psycopg: pip install 'epochcast[postgresql]'")
    assert programs is not None
    folder = Path(tempfile.mkdtemp(prefix="epochcast-pg-"))
    if os.getuid() == 0:
        shutil.chown(folder, server_user())
    try:
        yield from serve(programs, folder)
    finally:
        shutil.rmtree(folder)


def serve(programs: Path, folder: Path) -> Iterator[Path]:
    as_user = {"user": server_user()} if os.getuid() == 0 else {}
    options = {"check": True, "capture_output": True, "cwd": folder, **as_user}
    data = str(folder / "data")
    subprocess.run([programs / "initdb", "-D", data, "-A", "trust", "-N"], **options)
    settings = f"-F -k {folder} -c listen_addresses=''"
    start = [programs / "pg_ctl", "-D", data, "-o", settings, "-l", folder / "log", "-w", "start"]
    subprocess.run(start, **(options | {"capture_output": False}))
    pid = int((folder / "data" / "postmaster.pid").read_text().split()[0])
    try:
        yield folder
    finally:
        os.kill(pid, signal.SIGINT)  # PostgreSQL's fast shutdown
        subprocess.run(
            [programs / "pg_ctl", "-D", data, "-w", "stop"], **options | {"check": False}
        )


def url_of(socket_folder: Path, name: str, scheme: str = "postgresql+psycopg") -> str:
    return f"{scheme}://{server_user()}:{PASSWORD}@/{name}?host={socket_folder}"


@pytest.fixture
def url(socket_folder, request) -> str:
    """The URL of a database of its own for each test."""
    name = request.node.name.split("[")[0].lower()[:60]
    with admin(socket_folder) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return url_of(socket_folder, name)


def admin(socket_folder: Path):
    import psycopg

    return psycopg.connect(
        host=str(socket_folder), user=server_user(), dbname="postgres", autocommit=True
    )


def test_the_whole_life_of_a_store(url, tmp_path):
    first, second = make_measurement(32), make_measurement(64, message="é \x00 \u2028")
    again = replace(first, step_seconds=(0.5,))
    with Store.open(url, folder=tmp_path) as store:
        assert store.folder == tmp_path
        for measurement in (first, second, again):
            store.add(measurement)
    with Store.open(url, folder=tmp_path, create=False) as store:
        assert store.measurements() == (second, again)
        assert store.measurements(workload="nothing") == ()
        assert store.get(second.key[:12]) == second
        assert store.remove([second.key, "nothing"]) == 1
        assert store.measurements(status="ok") == (again,)


def test_export_and_import_are_all_or_nothing(url, tmp_path):
    with Store.open(url, folder=tmp_path) as store:
        store.add(make_measurement())
        stream = io.StringIO()
        assert store.export(stream) == 1
        line = stream.getvalue()
        assert store.import_(io.StringIO(line)) == 1
        huge = line.replace('"round":0', f'"round":{2**40}')
        other = line.replace('"round":0', '"round":1')
        for bad in ("{\n", huge):
            with pytest.raises(StoreError):
                store.import_(io.StringIO(other + bad))
        assert store.measurements() == (make_measurement(),)


def test_the_last_model_cached_is_read(url, tmp_path):
    with Store.open(url, folder=tmp_path) as store:
        assert store.cached_model("key") is None
        assert store.cache_model("key", "one")
        assert store.cache_model("key", "two")
        assert store.cached_model("key") == "two"


def test_sweeps_at_once_share_a_new_store_and_its_keys(url, tmp_path):
    names = ("first", "second", "third")
    command = [sys.executable, "-c", ADDER, url, str(tmp_path)]
    adders = [
        subprocess.Popen([*command, name], stderr=subprocess.PIPE, text=True) for name in names
    ]
    outputs = [adder.communicate() for adder in adders]
    assert [adder.returncode for adder in adders] == [0, 0, 0], outputs
    with Store.open(url, folder=tmp_path, create=False) as store:
        for name in ("shared", *names):
            assert len(store.measurements(workload=name)) == 20


def test_a_writer_that_does_not_end(url, tmp_path):
    with Store.open(url, folder=tmp_path) as store:
        impatient = Store(Database(locate(url), busy_seconds=0.01), locate(url, tmp_path))

        def while_writing(_connection: object) -> None:
            with pytest.raises(StoreError, match="another process kept it busy"):
                impatient.add(make_measurement())
            assert impatient.measurements() == ()

        store._database.write(while_writing)
        impatient.add(make_measurement())
        impatient.close()
        assert len(store.measurements()) == 1


def test_a_restarted_connection_is_replaced(url, socket_folder, tmp_path):
    with Store.open(url, folder=tmp_path) as store:
        store.add(make_measurement(32))
        with admin(socket_folder) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
            )
        store.add(make_measurement(64))
        assert len(store.measurements()) == 2


def test_nothing_is_made_for_reading(url, socket_folder, tmp_path):
    with pytest.raises(StoreError, match="no measurements yet in postgresql") as caught:
        Store.open(url, folder=tmp_path / "new", create=False)
    assert PASSWORD not in str(caught.value)
    assert not (tmp_path / "new").exists()
    with Store.open(url.replace("postgresql+psycopg", "postgres"), folder=tmp_path) as store:
        assert store.measurements() == ()


def test_other_tables_are_left_alone(url, socket_folder, tmp_path):
    import psycopg

    name = url.partition("?")[0].rpartition("/")[2]
    with psycopg.connect(host=str(socket_folder), user=server_user(), dbname=name) as connection:
        connection.execute("CREATE TABLE runs (id integer)")
        connection.execute("INSERT INTO runs VALUES (7)")
    with Store.open(url, folder=tmp_path) as store:
        store.add(make_measurement())
    with psycopg.connect(host=str(socket_folder), user=server_user(), dbname=name) as connection:
        assert connection.execute("SELECT id FROM runs").fetchall() == [(7,)]


@pytest.mark.parametrize("host", ["", "127.0.0.1:1"])
def test_a_failed_connection_is_one_line_without_the_password(socket_folder, tmp_path, host):
    where = f"{host}/epochcast" if host else f"/nosuch?host={socket_folder}"
    with pytest.raises(StoreError) as caught:
        Store.open(f"postgresql://{server_user()}:{PASSWORD}@{where}", folder=tmp_path)
    assert PASSWORD not in str(caught.value)
    assert "\n" not in str(caught.value)
