"""What only a server can do to a store: many writers, kills, restarts, roles."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import truths
from strategies import make_measurement
from sweeps import NAMES, Sweeps

from epochcast.errors import StoreError
from epochcast.planning.planner import plan
from epochcast.storage.address import locate
from epochcast.storage.database import Database
from epochcast.storage.query import fitted_model
from epochcast.storage.store import Store

DOCUMENT = Path(__file__).parents[2] / "docs" / "teams.md"


def test_a_server_that_is_killed_and_restarted_costs_nothing(server, url, tmp_path):
    impatient = Database(locate(url), pauses=(0.0, 0.01))
    impatient.read(lambda connection: connection.execute("SELECT 1"))
    sweeps = Sweeps(url, tmp_path, 15)
    sweeps.begin()
    killed = NAMES[3]
    last = sweeps.kill(killed)
    server.kill()
    with pytest.raises(StoreError, match=r"no answer to 2 tries in .* saved before is kept"):
        impatient.read(lambda connection: connection.execute("SELECT 1"))
    with pytest.raises(StoreError, match="connection"):  # a store is opened at once or not
        Store.open(url, folder=tmp_path)
    server.start()
    said = sweeps.end(failures=1)
    sweeps.assert_all_once(killed)
    with Store.open(url, folder=tmp_path) as store:
        assert [m.round for m in store.measurements(killed)][: last + 1] == [*range(last + 1)]
    assert "trying again for up to 5m" in said
    assert server.password not in said


def test_a_connection_that_was_cut_while_idle_is_no_news(server, url, tmp_path, caplog):
    with Store.open(url, folder=tmp_path) as store:
        store.add(make_measurement(32))
        server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )
        store.add(make_measurement(64))
        assert len(store.measurements()) == 2
    assert caplog.text == ""


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


def test_a_round_that_no_column_holds_changes_nothing(url, tmp_path):
    with Store.open(url, folder=tmp_path) as store:
        with pytest.raises(StoreError):
            store.add_all([make_measurement(), make_measurement(64, round=2**40)])
        assert store.measurements() == ()


def test_the_roles_of_the_documentation(server, schema, url, tmp_path):
    """The SQL of docs/teams.md, as it stands there but for names that this server has not."""
    with Store.open(url, folder=tmp_path) as store:
        store.add_all(truths.sweep())
    blocks = re.findall(r"```sql\n(.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)
    sql = "".join(blocks)
    roles = re.findall(r"CREATE ROLE (\w+)", sql)
    sql = sql.replace("SCHEMA team", f"SCHEMA {schema}")
    for role in roles:
        sql = re.sub(rf"\b{role}\b", f"{role}_{schema}", sql)
    server.execute(sql)
    reader, writer = (f"{role}_{schema}" for role in roles)

    with Store.open(server.url(schema, user=reader), folder=tmp_path / "r", create=False) as store:
        model, _ = fitted_model(store)
        assert plan(model, epochs=3, batch_sizes=(64,)).prices.epoch.p50 > 0
        with pytest.raises(StoreError, match=r"permission denied.*docs/teams.md"):
            store.add(make_measurement())
    with Store.open(server.url(schema, user=reader), folder=tmp_path / "r") as store:
        assert len(store.measurements()) == 36  # opened to write, and no DDL
    with Store.open(server.url(schema, user=writer), folder=tmp_path / "w") as store:
        store.add(make_measurement())
        assert store.remove([make_measurement().key]) == 1
        assert store.cache_model("key", "model")
    with pytest.raises(StoreError, match="must be owner"):
        Database(locate(server.url(schema, user=writer))).write(
            lambda connection: connection.execute("DROP TABLE epochcast_models")
        )


def test_nothing_is_made_for_reading(server, url, tmp_path):
    with pytest.raises(StoreError, match="no measurements yet in postgresql") as caught:
        Store.open(url, folder=tmp_path / "new", create=False)
    assert server.password not in str(caught.value)
    assert not (tmp_path / "new").exists()
    for scheme in ("postgres", "postgresql+psycopg"):
        with Store.open(url.replace("postgresql", scheme, 1), folder=tmp_path) as store:
            assert store.measurements() == ()
            assert store.label == url.replace(f":{server.password}", "")


def test_other_tables_are_left_alone(server, schema, url, tmp_path):
    server.execute(f"CREATE TABLE {schema}.runs AS SELECT 7 AS id")
    with Store.open(url, folder=tmp_path) as store:
        store.add(make_measurement())
    assert server.execute(f"SELECT id FROM {schema}.runs") == [(7,)]


def test_a_question_is_answered_by_indexes(url, tmp_path):
    """However many rows there are of other workloads and devices."""
    with Store.open(url, folder=tmp_path) as store:
        rows = store.select(
            "EXPLAIN SELECT document FROM epochcast_measurements WHERE workload = ? "
            "AND device_key = ?",
            "mnist-mlp",
            "d",
        )
    assert "epochcast_by_device" in str(rows)
