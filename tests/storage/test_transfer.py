"""Measurements pushed and pulled between stores: each once, whatever happens in between."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import truths
from click.testing import CliRunner
from strategies import CPU, make_measurement, make_outcome

from epochcast.cli import cli
from epochcast.errors import PredictionError, StoreError, UsageError
from epochcast.records import RunConfig
from epochcast.storage import transfer as module
from epochcast.storage.store import Store
from epochcast.storage.transfer import Moved, transfer

OTHER = replace(CPU, name="Other CPU")
EARLIER, LATER = "2025-01-01T00:00:00+00:00", "2027-01-01T00:00:00+00:00"


@pytest.fixture
def mine(tmp_path: Path) -> Iterator[Store]:
    with Store.open(folder=tmp_path / "mine") as opened:
        yield opened


def rounds(*numbers: int, **changes: object) -> list:
    return [make_measurement(round=n, **changes) for n in numbers]


def test_twice_pushed_is_once(mine: Store, store: Store) -> None:
    mine.add_all(rounds(0, 1, 2))
    assert transfer(mine, store) == Moved(measurements=3)
    assert transfer(mine, store) == Moved(present=3)
    assert store.measurements() == mine.measurements()


def test_two_stores_that_push_and_pull_are_one(mine: Store, store: Store, tmp_path: Path) -> None:
    mine.add_all(rounds(0, 1, 2))
    with Store.open(folder=tmp_path / "hers") as hers:
        hers.add_all(rounds(2, 3, 4))
        assert transfer(mine, store).measurements == 3
        assert transfer(hers, store) == Moved(measurements=2, present=1)
        assert transfer(store, hers) == Moved(measurements=2, present=3)
        assert transfer(store, mine) == Moved(measurements=2, present=3)
        for one in (mine, hers, store):
            assert sorted(m.round for m in one.measurements()) == [0, 1, 2, 3, 4]


def test_of_what_was_measured_again_the_newer_counts(mine: Store, store: Store) -> None:
    mine.add_all(rounds(0, created_at=EARLIER) + rounds(1, created_at=LATER))
    store.add_all(rounds(0, 1))
    assert transfer(mine, store) == Moved(measurements=1, renewed=1, older=1)
    assert {m.round: m.created_at == LATER for m in store.measurements()} == {0: False, 1: True}


def test_counts_and_followed_runs_go_along(mine: Store, store: Store) -> None:
    config = RunConfig(batch_size=8)
    mine.add_all(rounds(0))
    mine.add_footprints("mnist-mlp", "code", {config: truths.footprint(8, 4)}, data="d")
    mine.add_outcome(make_outcome("a", finished_at=2.0))
    store.add_outcome(make_outcome("a", finished_at=1.0, epochs=7))
    assert transfer(mine, store) == Moved(measurements=1, footprints=1, outcomes=1)
    assert store.footprints("mnist-mlp", "code", "d") == {config: truths.footprint(8, 4)}
    assert store.outcomes() == mine.outcomes()
    assert transfer(mine, store) == Moved(present=1)


def test_files_stay_and_the_copy_names_none(mine: Store, store: Store) -> None:
    mine.add_all(rounds(0, trace="plugins/trace.json", log="/home/ada/worker.log"))
    transfer(mine, store)
    (copy,) = store.measurements()
    assert (copy.trace, copy.log) == (None, None)
    transfer(store, mine)
    assert mine.measurements()[0].trace == "plugins/trace.json"


def test_only_a_workload_or_a_device(mine: Store, store: Store) -> None:
    mine.add_all([*rounds(0, 1), *rounds(0, device=OTHER), *rounds(0, workload="char-gpt")])
    mine.add_outcome(make_outcome("a"))
    assert transfer(mine, store, "mnist-mlp", "other cpu") == Moved(measurements=1)
    assert transfer(mine, store, "char-gpt") == Moved(measurements=1)
    assert transfer(mine, store, device=CPU.id) == Moved(measurements=2, present=1, outcomes=1)
    with pytest.raises(PredictionError, match=r"no measurements of 'gpt' in .*, only of char"):
        transfer(mine, store, "gpt")
    with pytest.raises(PredictionError, match=r"nothing in .* is of 'h100', only of \w{6}: "):
        transfer(mine, store, device="h100")


def test_an_interruption_loses_nothing_and_the_same_command_goes_on(
    mine: Store, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAGE", 2)
    mine.add_all(rounds(*range(7)))
    insert, pages = module._insert, []

    def fails_on_the_third(*arguments: object) -> None:
        insert(*arguments)
        pages.append(1)
        if len(pages) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "_insert", fails_on_the_third)
    with pytest.raises(KeyboardInterrupt):
        transfer(mine, store)
    assert [m.round for m in store.measurements()] == [0, 1, 2, 3]  # whole pages
    assert transfer(mine, store) == Moved(measurements=3, present=4)
    assert store.measurements() == mine.measurements()


def test_what_is_damaged_stays_and_stops_nothing(mine: Store, store: Store) -> None:
    mine.add_all(rounds(0, 1))
    mine.write(
        lambda c: c.execute("UPDATE epochcast_measurements SET document = '{' WHERE round = 0")
    )
    assert transfer(mine, store) == Moved(measurements=1, damaged=1)
    newer = "UPDATE epochcast_measurements SET created_at = ?, document = ?"
    mine.write(lambda c: c.execute(newer, (LATER, '{"schema":99,"x":1}')))
    transfer(mine, store)
    with pytest.raises(StoreError, match=r"newer epochcast .schema 99"):
        store.measurements()


def test_the_command_says_what_it_did(mine: Store, store: Store, tmp_path: Path) -> None:
    mine.add_all(rounds(0, 1))
    here = ["--store", str(mine.folder / "measurements.sqlite")]
    there = str(tmp_path / "team.sqlite")
    said = CliRunner().invoke(cli, ["probes", "push", there, *here]).stderr.splitlines()
    assert said == [
        f"pushed 2 measurements, 0 dry runs and 0 followed runs from {here[1]} to {there}",
        "logs and traces stay where they are",
    ]
    again = CliRunner().invoke(cli, ["probes", "pull", there, *here]).stderr.splitlines()
    assert again == [
        f"pulled 0 measurements, 0 dry runs and 0 followed runs from {there} to {here[1]}",
        "2 were there already",
    ]
    moved = CliRunner().invoke(cli, ["probes", "push", there, "--json", *here]).stdout
    assert json.loads(moved)["moved"]["present"] == 2
    nothing = CliRunner().invoke(cli, ["probes", "pull", str(tmp_path / "none"), *here])
    assert nothing.stderr.startswith("epochcast: there is no store at ")


def test_a_script_may_be_told_by_the_end_of_its_path(mine: Store, store: Store) -> None:
    mine.add_all(rounds(0, workload="/home/ada/train.py"))
    assert transfer(mine, store, "train.py") == Moved(measurements=1)


def test_what_a_question_leaves_open_is_the_same_in_the_copy(mine: Store, store: Store) -> None:
    """Which trials were of one sweep is known without the files that stay behind."""
    mine.add_all(rounds(0, 1, sweep="2026-01-01", log="/home/ada/logs/1/a.log"))
    transfer(mine, store)
    assert {(m.sweep, m.log) for m in store.measurements()} == {("2026-01-01", None)}


def test_a_name_takes_the_counts_of_its_target_along(mine: Store, store: Store) -> None:
    counted = {RunConfig(batch_size=8): truths.footprint(8, 4)}
    mine.add_footprints("train.py:workload", "code", counted)
    mine.add_footprints("other.py:workload", "code", counted)
    for name in ("wide", "wider"):
        mine.add_all(rounds(0, workload=name, target="train.py:workload"))
    assert transfer(mine, store, "wide") == Moved(measurements=1, footprints=1)
    assert transfer(mine, store, "train.py:workload") == Moved(measurements=1, present=1)
    assert store.names_of("train.py:workload") == ("wide", "wider")
    assert store.measurements() == mine.measurements()


def test_a_name_of_two_targets_is_refused_before_anything_is_copied(
    mine: Store, store: Store
) -> None:
    mine.add_all([*rounds(0), *rounds(0, 1, workload="big", target="wl.py:workload")])
    there = rounds(2, workload="big", target="other.py:workload")
    store.add_all(there)
    said = r"^'big' is the name of wl.py:workload in .*, and of other.py:workload in .*--name$"
    with pytest.raises(UsageError, match=said):
        transfer(mine, store)
    exported = io.StringIO()
    mine.export(exported)
    with pytest.raises(UsageError, match=r"'big' is the name of wl.py:workload in the export"):
        store.import_(exported.getvalue().splitlines())
    assert store.measurements() == tuple(there)
    assert transfer(mine, store, "mnist-mlp").measurements == 1


def test_the_end_of_two_targets_is_of_both(store: Store) -> None:
    store.add_all(rounds(0, workload="nm", target="q/wl.py:workload", created_at=LATER))
    store.add_all(rounds(0, workload="p/wl.py:workload", created_at=EARLIER))
    store.add_all(rounds(0, workload="head", target="p/wl.py:workload"))
    assert store.names_of("wl.py:workload") == ("p/wl.py:workload", "nm")
    assert store.names_of(f"{Path.cwd()}/p/wl.py:workload") == ("p/wl.py:workload",)
