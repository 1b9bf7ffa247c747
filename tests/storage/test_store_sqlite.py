"""A SQLite store keeps what it acknowledged, through kills, full disks, and company."""

from __future__ import annotations

import io
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from strategies import make_measurement, make_outcome

from epochcast.errors import MissingDependency, StoreError, UsageError
from epochcast.records import SCHEMA
from epochcast.storage import tables
from epochcast.storage.address import APPLICATION_ID, locate
from epochcast.storage.database import Database
from epochcast.storage.store import Store

# In a process of its own: open the store in argv[1], add argv[2] measurements of the workload
# argv[3], and acknowledge each on stdout once add() has returned.
ADDER = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from pathlib import Path
from epochcast.errors import StoreError
from epochcast.storage.store import Store
from strategies import make_measurement
with Store.open(folder=Path(sys.argv[1])) as store:
    print("opened", flush=True)
    for i in range(int(sys.argv[2])):
        measurement = make_measurement(workload=sys.argv[3], round=i, log="x" * 4000)
        try:
            store.add(measurement)
        except StoreError as error:
            sys.exit(str(error))
        print(measurement.key, flush=True)
"""


def start_adder(folder: Path, count: int, workload: str, *prefix: str) -> subprocess.Popen[str]:
    command = [*prefix, sys.executable, "-c", ADDER, str(folder), str(count), workload]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def store(tmp_path):
    with Store.open(folder=tmp_path / ".epochcast") as opened:
        yield opened


def file_of(store: Store) -> Path:
    return store.folder / "measurements.sqlite"


def execute(path: Path, *statements: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path)
    rows = [row for statement in statements for row in connection.execute(statement).fetchall()]
    connection.commit()
    connection.close()
    return rows


def one_line(caught: pytest.ExceptionInfo[BaseException]) -> str:
    text = str(caught.value)
    assert "\n" not in text
    assert "sqlalche" not in text.lower()
    return text


def test_what_is_added_is_there_after_reopening(tmp_path):
    measurements = [make_measurement(size) for size in (64, 32, 128)]
    with Store.open(folder=tmp_path) as store:
        for measurement in measurements:
            store.add(measurement)
    with Store.open(folder=tmp_path, create=False) as store:
        assert store.measurements() == tuple(measurements)


def test_a_path_or_a_url_names_another_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for url in (
        "a.sqlite",
        "sqlite:///b.sqlite",
        "c #?%.sqlite",
        f"sqlite:///{tmp_path}/e.db",
        "new/d.db",
    ):
        with Store.open(url) as store:
            store.add(make_measurement())
            assert store.folder.is_absolute()
            assert store.folder.name.endswith(".files")
    names = {path.name for path in tmp_path.iterdir()}
    assert {"a.sqlite", "b.sqlite", "c #?%.sqlite", "new"} <= names


def test_the_default_is_in_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Store.open() as store:
        assert store.label == ".epochcast"
        assert store.folder == tmp_path / ".epochcast"
    assert (tmp_path / ".epochcast" / "measurements.sqlite").exists()


def test_export_then_import_is_the_same_store(store, tmp_path):
    failed = make_measurement(64, status="oom", step_seconds=(), message="\u2028 \n é")
    for measurement in (make_measurement(32), failed):
        store.add(measurement)
    path = tmp_path / "export.jsonl"
    with path.open("w", encoding="utf-8") as stream:
        assert store.export(stream) == 2
    with Store.open(folder=tmp_path / "other") as other, path.open(encoding="utf-8") as stream:
        assert other.import_(stream) == 2
        assert other.measurements() == store.measurements()


def exported(store: Store) -> str:
    stream = io.StringIO()
    store.export(stream)
    return stream.getvalue()


def test_nothing_is_made_for_reading(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError) as caught:
        Store.open(create=False)
    assert one_line(caught) == (
        "no measurements yet in .epochcast; "
        "run: epochcast probe mnist-mlp --batch-sizes 32,64,128,256"
    )
    assert list(tmp_path.iterdir()) == []


def test_an_empty_file_is_a_store_to_be(tmp_path):
    path = tmp_path / "empty.sqlite"
    path.touch()
    with pytest.raises(StoreError, match="there is no store at"):
        Store.open(str(path), create=False)
    with Store.open(str(path)) as store:
        store.add(make_measurement())


def foreign_text(path: Path) -> None:
    path.write_text("batch_size,seconds\n" * 1000)


def foreign_database(path: Path) -> None:
    execute(path, "CREATE TABLE runs (id INTEGER)", "INSERT INTO runs VALUES (1)")


@pytest.mark.parametrize("create", [True, False])
@pytest.mark.parametrize("make", [foreign_text, foreign_database])
def test_a_foreign_file_is_refused_and_untouched(tmp_path, make, create):
    path = tmp_path / "theirs.db"
    make(path)
    before = path.read_bytes()
    with pytest.raises(StoreError, match="left untouched") as caught:
        Store.open(str(path), create=create)
    one_line(caught)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_damaged_file_is_a_clear_error(store):
    for i in range(50):
        store.add(make_measurement(round=i))
    store.close()
    path = file_of(store)
    content = bytearray(path.read_bytes())
    content[4096:] = random.Random(0).randbytes(len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(StoreError, match="damaged") as caught:
        Store.open(folder=store.folder).measurements()
    one_line(caught)
    path.write_bytes(content[:5000])
    with pytest.raises(StoreError, match="damaged") as caught:
        Store.open(folder=store.folder).measurements()
    one_line(caught)


def test_a_damaged_record_is_named_with_the_way_out(store):
    good, bad = make_measurement(32), make_measurement(64)
    store.add(good)
    store.add(bad)
    statement = f"UPDATE epochcast_measurements SET document = '{{' WHERE key = '{bad.key}'"
    execute(file_of(store), statement)
    with pytest.raises(StoreError, match=f"epochcast probes remove {bad.key}") as caught:
        store.measurements()
    one_line(caught)
    assert store.whole_key(bad.key[:12]) == bad.key
    store.remove([bad.key])
    assert store.measurements() == (good,)


def test_hints_name_the_store_that_was_named(tmp_path):
    path = tmp_path / "my probes.sqlite"
    measurement = make_measurement()
    for url in (str(path), f"sqlite:///{path}"):
        with pytest.raises(StoreError, match=f"256 --store '{path}'$"):
            Store.open(url, create=False)
    with Store.open(str(path)) as store:
        store.add(measurement)
        execute(path, "UPDATE epochcast_measurements SET document = ''")
        with pytest.raises(StoreError, match=f"remove {measurement.key} --store '{path}'$"):
            store.measurements()


@pytest.mark.parametrize("value", ["abc", "", "9" * 5000])
def test_a_schema_that_is_no_number_is_a_clear_error(store, value):
    store.close()
    execute(file_of(store), f"UPDATE epochcast_meta SET value = '{value}' WHERE name = 'schema'")
    with pytest.raises(StoreError, match="not a number; the file is damaged") as caught:
        Store.open(folder=store.folder)
    one_line(caught)


def test_text_that_is_not_unicode_is_a_clear_error(store):
    store.add(make_measurement())
    execute(file_of(store), "UPDATE epochcast_measurements SET document = CAST(x'ff' AS TEXT)")
    with pytest.raises(StoreError) as caught:
        store.measurements()
    one_line(caught)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (tables.STORE_SCHEMA + 1, r"newer epochcast .* pip install --upgrade"),
        (4, r"earlier epochcast .* another with --store, and probe again"),
        (1, r"earlier epochcast .schema 1"),
    ],
)
@pytest.mark.parametrize("create", [True, False])
def test_a_store_of_another_schema_is_refused_and_kept(store, schema, message, create):
    store.close()
    execute(file_of(store), f"UPDATE epochcast_meta SET value = '{schema}' WHERE name = 'schema'")
    before = file_of(store).read_bytes()
    with pytest.raises(StoreError, match=message) as caught:
        Store.open(folder=store.folder, create=create)
    one_line(caught)
    assert file_of(store).read_bytes() == before


def test_a_newer_record_is_refused_and_kept(store):
    store.add(make_measurement())
    execute(
        file_of(store),
        'UPDATE epochcast_measurements SET schema = 9, document = \'{"schema":9,"x":1}\'',
    )
    with pytest.raises(StoreError, match=r"newer epochcast .schema 9"):
        store.measurements()
    assert '"x":1' in exported(store)


def test_a_record_without_optional_fields_is_read(store):
    document = (
        f'{{"schema":{SCHEMA},"workload":"old",'
        '"config":{"batch_size":8},"samples":10,"step_seconds":[0.5],'
        '"device":{"kind":"cpu","name":"Old","memory_bytes":1,"torch":"2.6.0","threads":1}}'
    )
    execute(
        file_of(store),
        "INSERT INTO epochcast_measurements (key, workload, target, source, data, device_key, "
        "status, round, created_at, schema, document) "
        f"VALUES ('k', 'old', 'old', '', '', 'd', 'ok', 0, '', 1, '{document}')",
    )
    (measurement,) = store.measurements(workload="old")
    assert (measurement.config.batch_size, measurement.step_seconds) == (8, (0.5,))


def test_a_folder_where_a_file_is_expected(tmp_path):
    for folder in (str(tmp_path), "/", "sqlite:////"):
        with pytest.raises(StoreError, match=r"a file is expected.*mean .*measurements.sqlite"):
            Store.open(folder)


def test_a_file_where_a_folder_is_expected(tmp_path):
    (tmp_path / ".epochcast").touch()
    with pytest.raises(StoreError, match="cannot make its folder") as caught:
        Store.open(folder=tmp_path / ".epochcast")
    one_line(caught)


@pytest.mark.parametrize(
    "url",
    [
        "mysql://user:secret@host/name",
        "postgresql+nosuch://user:secret@host/name",
        "postgresql://user:secret@host:port/name",
        "://secret",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///what?.sqlite",
        "sqlite:///file:x?mode=ro&uri=true&password=secret",
    ],
)
def test_a_bad_url_is_refused_without_showing_a_password(url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        Store.open(url)
    assert "secret" not in one_line(caught)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_driver_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    for url in ("postgresql://user:secret@host/name", "postgresql+psycopg://user:secret@host/name"):
        with pytest.raises(MissingDependency) as caught:
            Store.open(url, folder=tmp_path)
        assert "pip install 'epochcast[postgresql]'" in str(caught.value)
        assert "secret" not in str(caught.value)


def test_another_writer_that_does_not_end(store, monkeypatch):
    blocker = sqlite3.connect(file_of(store), isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    impatient = Store(Database(locate(folder=store.folder), busy_seconds=0.01), locate())
    with pytest.raises(StoreError, match="another process kept it busy") as caught:
        impatient.add(make_measurement())
    one_line(caught)
    assert impatient.cache_model("key", "model") is False
    assert impatient.measurements() == ()
    blocker.execute("ROLLBACK")
    impatient.add(make_measurement())
    impatient.close()
    blocker.close()
    assert store.measurements() == (make_measurement(),)


def without_root_powers() -> list[str]:
    """A command prefix under which file permissions hold, even for root."""
    if os.getuid() != 0:
        return []
    if not shutil.which("setpriv"):
        pytest.skip("needs setpriv (util-linux) to test permissions as root")
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]


READER = """
import sys
from pathlib import Path
from epochcast.errors import StoreError
from epochcast.storage.store import Store
folder = Path(sys.argv[1])
with Store.open(folder=folder, create=False) as store:
    (measurement,) = store.measurements()
    print(store.cache_model("key", "model"))
    for action in (lambda: store.add(measurement), lambda: Store.open("new.sqlite", folder / "x")):
        try:
            action()
        except StoreError as error:
            print(error)
"""


def test_a_read_only_folder_can_be_read(store):
    store.add(make_measurement())
    store.close()
    file_of(store).chmod(0o444)
    store.folder.chmod(0o555)
    command = [*without_root_powers(), sys.executable, "-c", READER, str(store.folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    store.folder.chmod(0o755)
    assert result.returncode == 0, result.stderr
    cached, added, opened = result.stdout.splitlines()
    assert cached == "False"
    assert "check the permissions" in added
    assert "cannot make its folder" in opened


FULL_DISK = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))" + ADDER


def test_a_full_disk_loses_nothing(tmp_path):
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path), "1000", "mnist-mlp"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    opened, *acknowledged = result.stdout.splitlines()
    assert opened == "opened"
    assert result.returncode == 1
    assert "what was saved before is kept" in result.stderr
    assert "Traceback" not in result.stderr
    assert acknowledged
    with Store.open(folder=tmp_path, create=False) as store:
        assert [m.key for m in store.measurements()] == acknowledged
        store.add(make_measurement(workload="after"))
        assert execute(file_of(store), "PRAGMA integrity_check") == [("ok",)]


def test_a_full_disk_does_not_fail_a_prediction(store):
    small = Database(locate(folder=store.folder))
    (pages,) = execute(file_of(store), "PRAGMA page_count")[0]
    # the limit belongs to this connection, which is used again
    small.read(lambda connection: connection.execute(f"PRAGMA max_page_count = {pages}"))
    limited = Store(small, locate(folder=store.folder))
    assert limited.cache_model("key", "x" * 100_000) is False
    with pytest.raises(StoreError, match="free some space") as caught:
        limited.add(make_measurement(log="x" * 100_000))
    one_line(caught)
    assert limited.cached_model("key") is None
    limited.close()


def test_sweeps_at_once_share_a_new_store(tmp_path):
    names = ("first", "second", "third")
    adders = [start_adder(tmp_path, 20, name) for name in names]
    outputs = [adder.communicate() for adder in adders]
    assert [adder.returncode for adder in adders] == [0, 0, 0], outputs
    with Store.open(folder=tmp_path, create=False) as store:
        for name, (output, _) in zip(names, outputs, strict=True):
            keys = [measurement.key for measurement in store.measurements(workload=name)]
            assert ["opened", *keys] == output.split()
            assert len(keys) == 20


def test_a_kill_at_any_moment_loses_nothing(tmp_path):
    moments = random.Random(1)
    acknowledged: list[str] = []
    for i in range(6):
        with start_adder(tmp_path, 10_000, f"workload {i}") as adder:
            assert adder.stdout is not None
            lines = [adder.stdout.readline() for _ in range(moments.randrange(1, 30))]
            for _ in range(moments.randrange(100_000)):  # somewhere within the next add
                pass
            adder.kill()
            lines += adder.stdout.readlines()
        acknowledged += [line.strip() for line in lines if line.endswith("\n")]
    with Store.open(folder=tmp_path) as store:
        present = {measurement.key for measurement in store.measurements()}
        assert set(acknowledged) - {"opened"} <= present
        assert execute(file_of(store), "PRAGMA integrity_check") == [("ok",)]


def test_a_kill_while_the_store_is_made(tmp_path):
    for i in range(3):
        folder = tmp_path / str(i)
        with start_adder(folder, 1, "killed") as adder:
            while not (folder / "measurements.sqlite").exists() and adder.poll() is None:
                os.sched_yield()
            adder.kill()
        with Store.open(folder=folder) as store:
            store.add(make_measurement())


def test_what_was_acknowledged_survives_a_power_cut(store):
    """SQLite's EXTRA and FULL wait for the disk, NORMAL and OFF do not; FULL is 2."""
    database = Database(locate(str(file_of(store))))
    row = database.write(lambda c: c.execute("PRAGMA synchronous").fetchone())
    assert row == (2,)
    database.close()


def test_the_file_is_marked_as_ours(store):
    assert execute(file_of(store), "PRAGMA application_id") == [(APPLICATION_ID,)]
    found = execute(file_of(store), "SELECT name FROM sqlite_master WHERE type = 'table'")
    ours = {name for (name,) in found if not str(name).startswith("sqlite_")}
    kinds = ("meta", "measurements", "models", "footprints", "outcomes")
    assert ours == {f"epochcast_{kind}" for kind in kinds}


def test_no_torch_is_loaded():
    code = "import sys, epochcast.storage.store; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_outcome_that_cannot_be_read_is_named(store):
    store.add_outcome(make_outcome("night"))
    execute(file_of(store), "UPDATE epochcast_outcomes SET document = '{}'")
    with pytest.raises(StoreError, match=r"run night in .* read: .*--forget night") as caught:
        store.outcomes()
    one_line(caught)
    assert (store.remove_outcome("night"), store.remove_outcome("night")) == (True, False)
    assert store.outcomes() == ()


@pytest.mark.parametrize("url", ["sqlite:///a%00b", "a\0b", "postgresql://u@h/a%00b"])
def test_a_name_with_a_nul_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="no NUL character"):
        locate(url)
