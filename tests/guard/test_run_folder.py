"""What a run's folder remembers: time used, what was learned, who is in it, and for how long."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rehearsal import Rehearsal, make_plan, new_state

from epochcast.errors import StoreError, UsageError
from epochcast.guard.checkpoints import CheckpointStore
from epochcast.guard.run_folder import (
    Heartbeat,
    Resumed,
    begin,
    lived_on,
    resume,
    write_ledger,
)
from epochcast.records import SCHEMA, Plan

PLAN = make_plan()


def test_a_process_that_was_killed_lived_until_its_last_beat(tmp_path: Path) -> None:
    assert lived_on(tmp_path, 2000.0) == 0
    first = Rehearsal(make_plan(deadline=1000.0), tmp_path)
    first.guard.start()
    spent = first.guard.state.ledger.spent_seconds
    os.utime(tmp_path / "ledger.json", (1000, 1000))
    (tmp_path / "alive").touch()
    os.utime(tmp_path / "alive", (1042, 1042))  # killed in an evaluation of 42 s
    assert lived_on(tmp_path, 1042.5) == 42.5  # the next one began half a second later
    assert lived_on(tmp_path, 2000.0) == 43  # or it would have been heard of again
    assert lived_on(tmp_path, 500.0) == 42  # a clock that went back
    second = Rehearsal(make_plan(deadline=1000.0), tmp_path)
    assert second.guard.account.spent_before == spent + 43


def test_leaving_in_order_leaves_no_beat(tmp_path: Path) -> None:
    heart = Heartbeat(tmp_path)
    heart.start()
    assert (tmp_path / "alive").exists()
    heart.stop()
    assert not (tmp_path / "alive").exists()


def test_a_folder_that_cannot_be_written_has_no_beat(tmp_path: Path) -> None:
    heart = Heartbeat(tmp_path / "missing")
    heart.start()
    heart.stop()
    assert lived_on(tmp_path / "missing", 2000.0) == 0


def noted(folder: Path, **fields: object) -> None:
    state = new_state(PLAN).note(spent=30.0, step=0)
    write_ledger(folder, replace(state.ledger, **fields), durable=False)  # type: ignore[arg-type]


def resumed(folder: Path, plan: Plan | None = None) -> Resumed:
    return resume(folder, CheckpointStore(folder / "checkpoints", 2), plan or PLAN, began=5.0)


def test_a_folder_without_a_run_begins_one(tmp_path: Path) -> None:
    found = resumed(tmp_path / "missing")
    assert (found.number, found.another_plan, found.damage) == (0, False, ())
    assert (found.ledger.processes, found.ledger.began_at) == (1, 5.0)
    assert found.ledger.spent_seconds == 0
    assert replace(begin(PLAN, 5.0).ledger, run=found.ledger.run) == found.ledger


def test_time_that_was_used_stays_used_and_what_was_learned_stays_known(tmp_path: Path) -> None:
    first = resumed(tmp_path).ledger
    learned = replace(first, forecast=first.forecast.saw("epoch", 70.0), spent_seconds=30.0)
    write_ledger(tmp_path, learned, durable=False)
    found = resumed(tmp_path)
    assert found.ledger == replace(learned, processes=2)
    other = resumed(tmp_path, make_plan(epochs=3))
    assert (other.another_plan, other.ledger.spent_seconds) == (True, 30.0)
    assert other.ledger.forecast == first.forecast  # another plan has other parts


def test_a_damaged_ledger_is_told_about(tmp_path: Path) -> None:
    (tmp_path / "ledger.json").write_text("")
    found = resumed(tmp_path)
    assert [notice.code for notice in found.damage] == ["damaged-ledger"]
    assert found.ledger.processes == 1


def test_a_ledger_of_a_newer_version_is_refused_though_it_reads_the_same(tmp_path: Path) -> None:
    noted(tmp_path, schema=SCHEMA + 1)
    with pytest.raises(StoreError, match="written by a newer epochcast"):
        resumed(tmp_path)


def test_another_workloads_folder_is_refused(tmp_path: Path) -> None:
    noted(tmp_path, workload="another")
    with pytest.raises(UsageError, match="holds a run of another, but the plan is for a-workload"):
        resumed(tmp_path)


def test_kills_never_add_up_to_more_than_the_budget(tmp_path: Path) -> None:
    """A run that is killed 0.9 s after each last note used that time, too."""
    noted(tmp_path, spent_seconds=0.0)
    used = 0.0
    for i in range(20):
        os.utime(tmp_path / "ledger.json", (1000 + 10 * i, 1000 + 10 * i))
        (tmp_path / "alive").touch()
        os.utime(tmp_path / "alive", (1000 + 10 * i, 1000 + 10 * i))
        used += 0.9
        found = resume(tmp_path, CheckpointStore(tmp_path / "c", 2), PLAN, began=1005.0 + 10 * i)
        assert used <= found.ledger.spent_seconds <= used + 0.1 * (i + 1) + 1e-9
        write_ledger(tmp_path, found.ledger, durable=False)


def test_what_a_killed_process_was_writing_is_removed(tmp_path: Path) -> None:
    noted(tmp_path)
    (tmp_path / ".ledger.json.123").write_text("{")
    resumed(tmp_path)
    assert not list(tmp_path.glob(".ledger*"))


def test_a_checkpoint_that_vanished_is_mentioned(tmp_path: Path) -> None:
    noted(tmp_path, saves=3)
    (notice,) = resumed(tmp_path).damage
    assert (notice.code, dict(notice.details)) == ("vanished-checkpoint", {"number": "3"})


@pytest.mark.parametrize(
    "spoil",
    [
        lambda d: d.update(spent_seconds=-1e9),
        lambda d: d.update(spent_seconds=1e308),
        lambda d: d.update(processes=-5),
        lambda d: d["samples"].update(epoch=[-1.0]),
        lambda d: d["forecast"]["epoch"].update(planned=-1.0),
        lambda d: d["forecast"]["epoch"].update(noise=1e308),
        lambda d: d["forecast"]["epoch"]["models"][0].update(weight=0.9),
        lambda d: d["forecast"]["epoch"]["models"][0].update(variance=-1.0),
    ],
)
def test_numbers_out_of_range_are_damage(tmp_path: Path, spoil: Callable[[Any], None]) -> None:
    state = new_state(PLAN).learn("epoch", 50.0)
    write_ledger(tmp_path, state.ledger, durable=False)
    document = json.loads((tmp_path / "ledger.json").read_text())
    spoil(document)
    (tmp_path / "ledger.json").write_text(json.dumps(document))
    found = resumed(tmp_path)
    assert [notice.code for notice in found.damage] == ["damaged-ledger"]
    assert found.ledger.spent_seconds == 0


def test_a_ledger_that_is_nested_without_end_is_damage(tmp_path: Path) -> None:
    (tmp_path / "ledger.json").write_text("[" * 100_000)
    assert [notice.code for notice in resumed(tmp_path).damage] == ["damaged-ledger"]
