"""A store does the same on SQLite and on PostgreSQL, whichever it is on."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
import truths
from strategies import CPU, make_measurement, make_outcome
from sweeps import NAMES, Sweeps

from epochcast.errors import StoreError
from epochcast.records import SCHEMA, RunConfig, Script, Timeline
from epochcast.storage import tables
from epochcast.storage.store import KEPT_MODELS, Store


def exported(store: Store) -> str:
    stream = io.StringIO()
    store.export(stream)
    return stream.getvalue()


def one_line(caught: pytest.ExceptionInfo[BaseException]) -> str:
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_an_empty_store_is_empty(store):
    assert store.measurements() == ()
    assert store.log_folder.name == "tensorboard"


def test_the_same_key_replaces_and_comes_last(store):
    first, second = make_measurement(32), make_measurement(64)
    again = replace(first, step_seconds=(0.5,))
    for measurement in (first, second, again):
        store.add(measurement)
    assert store.measurements() == (second, again)


def test_filters(store):
    failed = make_measurement(256, status="oom", message="out of memory", step_seconds=())
    changed = make_measurement(source="def456")
    for measurement in (failed, changed, make_measurement(workload="char-gpt")):
        store.add(measurement)
    assert store.measurements(status="oom") == (failed,)
    assert store.measurements(workload="mnist-mlp", source="def456") == (changed,)
    assert store.measurements(workload="nothing") == ()


def test_get_by_the_start_of_a_key(store):
    measurements = [make_measurement(round=i) for i in range(20)]  # 20 keys, 16 first characters
    for measurement in measurements:
        store.add(measurement)
    assert store.get(measurements[3].key[:10]) == measurements[3]
    with pytest.raises(StoreError, match=r"20 measurements have a key like '' .*more characters"):
        store.get("")
    for nothing in ("zz", "%", "_"):
        with pytest.raises(StoreError, match=r"no measurement in .* has a key like"):
            store.get(nothing)


def test_remove_counts_what_there_was(store):
    measurements = [make_measurement(size) for size in (32, 64, 128)]
    for measurement in measurements:
        store.add(measurement)
    assert store.remove([measurements[0].key, measurements[2].key, "nothing"]) == 2
    assert store.measurements() == (measurements[1],)


def test_import_replaces_duplicates_and_ignores_blank_lines(store):
    store.add(make_measurement())
    line = exported(store)
    assert store.import_(io.StringIO(f"\ufeff{line}\n  \n{line}")) == 2
    assert len(store.measurements()) == 1


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"batch_size":32', '"batch_size":"x"', r"line 3: not a valid Measurement.*config\.batch_"),
        ('"samples":60000,', "", "line 3: .*missing required field `samples`"),
        (f'"schema":{SCHEMA}', '"schema":99', "line 3: written by a newer epochcast .schema 99"),
        (f'"schema":{SCHEMA}', '"schema":1', "line 3: written by an earlier epochcast .schema 1"),
        ("{", "", "line 3: not a valid Measurement"),
        ('"round":0', f'"round":{2**70}', r"int too large|out of range"),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_imported(store, old, new, message):
    store.add(make_measurement())
    line = exported(store)
    other = line.replace('"round":0', '"round":1')
    with pytest.raises(StoreError, match=message) as caught:
        store.import_(io.StringIO(f"{other}\n{line.replace(old, new, 1)}"))
    one_line(caught)
    assert store.measurements() == (make_measurement(),)


def test_importing_what_is_not_text(store):
    with pytest.raises(StoreError, match="not UTF-8 text"):
        store.import_(io.TextIOWrapper(io.BytesIO(b"\xff\xfe\x00"), encoding="utf-8"))


def test_models_are_cached_and_old_ones_forgotten(store):
    for i in range(KEPT_MODELS + 5):
        assert store.cache_model(f"key {i}", f"model {i}")
    assert store.cached_model("key 0") is None
    assert store.cached_model("key 5") == "model 5"
    assert store.cache_model("key 5", "better")
    assert store.cached_model("key 5") == "better"


def test_a_name_that_is_not_unicode_is_a_clear_error(store):
    with pytest.raises(StoreError, match="cannot be written as JSON"):
        store.add(make_measurement(workload="train\udcff.py"))
    with pytest.raises(StoreError) as caught:
        store.measurements(workload="train\udcff.py")
    one_line(caught)


def test_footprints_are_kept_by_code_and_configuration_and_replaced(store):
    a = RunConfig(batch_size=8, sizes=(("width", 4),))
    b = RunConfig(batch_size=16, sizes=(("width", 4),))
    small, large = truths.footprint(8, 4), truths.footprint(16, 4)
    store.add_footprints("w", "code", {a: large, b: large})
    store.add_footprints("w", "code", {a: small})
    store.add_footprints("w", "other code", {b: small})
    assert store.footprints("w", "code") == {a: small, b: large}
    assert store.footprints("w", "other code") == {b: small}
    assert store.footprints("another", "code") == {}
    store.add_footprints("w", "code", {a: large}, data="local files")
    assert store.footprints("w", "code") == {a: small, b: large}
    assert store.footprints("w", "code", "local files") == {a: large}


def test_a_timeline_is_kept(store):
    timeline = Timeline(
        block_bytes=(8,),
        block_kinds=("input",),
        block_operators=(-1,),
        block_modules=(-1,),
        operators=(),
        modules=(),
        events=(1,),
        forward_end=1,
        step_end=1,
    )
    config, counted = RunConfig(batch_size=8), truths.footprint(8, 4)
    counted = replace(counted, timeline=timeline)
    store.add_footprints("w", "", {config: counted})
    assert store.footprints("w", "") == {config: counted}


def test_outcomes_are_kept_and_the_last_of_a_run_counts(store):
    first, second = make_outcome("a"), make_outcome("b")
    again = replace(first, epochs=7)
    for outcome in (first, second, again):
        store.add_outcome(outcome)
    assert store.outcomes() == (second, again)


def test_outcomes_by_workload_and_device(store):
    mine, other_device = make_outcome("a"), replace(CPU, name="Other CPU")
    elsewhere = make_outcome("b", device=other_device)
    other = make_outcome("d", workload="char-gpt")
    for outcome in (mine, elsewhere, other):
        store.add_outcome(outcome)
    assert store.outcomes("char-gpt") == (other,)
    assert store.outcomes("mnist-mlp", device_key=CPU.key) == (mine,)
    assert store.outcomes(device_key=other_device.key) == (elsewhere,)


# Of each workload and device, what is newest


def test_the_workload_measured_last_is_the_last_one(store):
    for i, name in enumerate(("b", "c", "a", "b")):
        store.add(make_measurement(workload=name, round=i, created_at=f"2026-01-0{i + 1}"))
    failed = {"status": "oom", "step_seconds": ()}
    store.add(make_measurement(workload="z", created_at="2027", **failed))
    assert store.workloads() == ("a", "c", "z", "b")


def test_the_newest_stand_for_all_of_their_kind(store):
    for i in range(3):
        store.add(make_measurement(round=i, created_at=f"2026-01-0{3 - i}"))
    store.add(make_measurement(round=3, data="other"))
    store.add(make_measurement(workload="other"))
    assert [(m.round, count) for m, count in store.newest("mnist-mlp")] == [(0, 3), (3, 1)]


# Several processes


def test_eight_sweeps_make_a_store_and_fill_it_at_once(where, tmp_path):
    """One of them is killed; what it said was stored is there, and the same command goes on."""
    sweeps = Sweeps(where, tmp_path, 4)
    sweeps.begin()
    killed = NAMES[5]
    last = sweeps.kill(killed)
    sweeps.end(failures=1)
    sweeps.assert_all_once(killed)
    with Store.open(where, folder=tmp_path) as store:
        assert [m.round for m in store.measurements(killed)][: last + 1] == [*range(last + 1)]
        for number in range(4):
            store.add(make_measurement(workload=killed, round=number))
    sweeps.assert_all_once()


# Versions of the tables


def next_version(connection):
    connection.execute("ALTER TABLE epochcast_models ADD COLUMN fitted_in TEXT NOT NULL DEFAULT ''")
    connection.execute("UPDATE epochcast_measurements SET workload = 'renamed'")


@pytest.fixture
def reopened(store, request, tmp_path):
    """Opens the same store again."""
    on_server = "postgresql" in request.node.name
    url = request.getfixturevalue("url") if on_server else None
    return lambda create=True: Store.open(url, folder=tmp_path / ".epochcast", create=create)


def test_a_store_without_targets_gets_them(store, reopened):
    """As schema 5 had it."""
    store.add(make_measurement(workload="train.py:workload"))
    arguments = ("python", "./train.py", "{width}")
    script = Script(arguments=arguments)
    for name in ("big", "train.py"):
        store.add(make_measurement(workload=name, script=script))
    for statement in (
        "DROP INDEX epochcast_by_target",
        "ALTER TABLE epochcast_measurements DROP COLUMN target",
        "UPDATE epochcast_meta SET value = '5' WHERE name = 'schema'",
    ):
        store.write(lambda connection, sql=statement: connection.execute(sql))
    with reopened() as newer:
        assert [m.target for m in newer.measurements("big")] == ["train.py"]
        newer.add(make_measurement(workload="wide", target="train.py:workload"))
        assert newer.select("SELECT workload, target FROM epochcast_measurements ORDER BY id") == [
            ("train.py:workload", "train.py:workload"),
            ("big", "train.py"),
            ("train.py", "train.py"),
            ("wide", "train.py:workload"),
        ]


@pytest.mark.parametrize("create", [True, False])
def test_an_older_store_becomes_one_of_this_version(store, reopened, monkeypatch, create):
    store.add(make_measurement())
    version = tables.STORE_SCHEMA + 1
    monkeypatch.setattr(tables, "STORE_SCHEMA", version)
    with pytest.raises(StoreError, match=f"earlier epochcast .schema {version - 1}, this one"):
        reopened(create)
    monkeypatch.setitem(tables.MIGRATIONS, version - 1, next_version)
    for _ in range(2):  # the second time there is nothing to do: the column would be there twice
        with reopened(create) as newer:
            assert newer.select("SELECT workload FROM epochcast_measurements") == [("renamed",)]
            assert newer.select("SELECT fitted_in FROM epochcast_models") == []

    monkeypatch.setattr(tables, "STORE_SCHEMA", version - 1)  # of who was there all the time
    for action in (reopened, lambda: store.add(make_measurement(64))):
        with pytest.raises(
            StoreError, match=f"newer epochcast .schema {version}.*upgrade"
        ) as caught:
            action()
        one_line(caught)
    assert len(store.select("SELECT key FROM epochcast_measurements")) == 1


def test_a_migration_that_fails_leaves_the_old_store(store, reopened, monkeypatch):
    def broken(connection):
        next_version(connection)
        connection.execute("INSERT INTO nowhere VALUES (1)")

    store.add(make_measurement())
    version = tables.STORE_SCHEMA + 1
    with monkeypatch.context() as patch:
        patch.setattr(tables, "STORE_SCHEMA", version)
        patch.setitem(tables.MIGRATIONS, version - 1, broken)
        with pytest.raises(StoreError, match="nowhere"):
            reopened()
    with reopened() as old:
        assert old.measurements() == (make_measurement(),)
