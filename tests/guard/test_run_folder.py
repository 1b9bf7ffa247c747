"""What a killed process used after its last note is not forgotten."""

import os
from pathlib import Path

from rehearsal import Rehearsal, make_plan

from epochcast.guard.run_folder import Heartbeat, lived_on


def test_a_process_that_was_killed_lived_until_its_last_beat(tmp_path: Path) -> None:
    assert lived_on(tmp_path) == 0
    first = Rehearsal(make_plan(deadline=1000.0), tmp_path)
    first.guard.start()
    spent = first.guard.state.ledger.spent_seconds
    os.utime(tmp_path / "ledger.json", (1000, 1000))
    (tmp_path / "alive").touch()
    os.utime(tmp_path / "alive", (1042, 1042))  # killed in an evaluation of 42 s
    assert lived_on(tmp_path) == 42
    second = Rehearsal(make_plan(deadline=1000.0), tmp_path)
    assert second.guard.account.spent_before == spent + 42


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
    assert lived_on(tmp_path / "missing") == 0
