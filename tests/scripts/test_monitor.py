"""A command is quiet when nothing of it has used a processor or a disk for a while, and unheard
where torch is in a process that has never said a word."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import cast

import msgspec
import pytest

from epochcast.scripts import events as e
from epochcast.scripts import monitor
from epochcast.scripts.monitor import Liveness, Monitor
from epochcast.scripts.process import ScriptProcess
from epochcast.scripts.side_effects import Place


class Processes:
    """Seconds of a processor that each has used, and who waits for a disk."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.used: dict[int, float] = {}
        self.waiting: set[int] = set()
        monkeypatch.setattr(
            monitor,
            "_seen",
            lambda pid: (self.used[pid], pid in self.waiting) if pid in self.used else None,
        )

    def look(self, watched: Liveness, at: float) -> float:
        watched.look(list(self.used), at)
        return watched.quiet(at)


def test_who_uses_a_processor_comes_goes_or_waits_for_a_disk_is_busy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    processes, watched = Processes(monkeypatch), Liveness(0.0)
    processes.used = {1: 5.0, 2: 1.0}
    assert processes.look(watched, 1.0) == 0.0
    processes.used = {1: 5.02, 2: 1.02}  # threads that wake up to look for something
    assert processes.look(watched, 2.0) == 1.0
    processes.used = {1: 5.04, 2: 1.5}
    assert processes.look(watched, 3.0) == 0.0
    assert processes.look(watched, 6.0) == 3.0
    processes.waiting = {2}
    assert processes.look(watched, 7.0) == 0.0
    assert processes.look(watched, 8.0) == 0.0
    processes.waiting = set()
    assert processes.look(watched, 9.0) == 1.0
    del processes.used[2]  # it has ended: something goes on
    assert processes.look(watched, 10.0) == 0.0
    assert processes.look(watched, 11.0) == 1.0


def test_processes_are_read_from_the_system_and_may_be_gone() -> None:
    seen = monitor._seen(os.getpid())
    assert seen is not None
    assert seen[0] > 0.0
    assert monitor._seen(2**22 + 1) is None


class Command:
    """One process that is there for a few looks, in which torch loads for long."""

    def __init__(self, pid: int, looks: int = 3) -> None:
        self.pids, self._looks = [pid], looks

    def wait(self, seconds: float) -> bool:
        self._looks -= 1
        return self._looks < 0


@pytest.mark.parametrize(
    ("pid", "most", "heard"), [(7, 300.0, True), (7, -1.0, False), (2**22 + 1, 300.0, False)]
)
def test_who_has_said_a_word_may_take_its_time_to_import_torch(
    pid: int, most: float, heard: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But not for ever: it may have become a program that cannot be watched (exec)."""
    monkeypatch.setattr(monitor, "_has_torch", lambda pid: True)
    monkeypatch.setattr(monitor, "WORD_SECONDS", -1.0)
    monkeypatch.setattr(monitor, "HEARD_SECONDS", most)
    monkeypatch.setattr(monitor, "LOOK_SECONDS", -1.0)
    place = Place(root=tmp_path)
    place.events.mkdir()
    word = e.Began(
        at=1.0,
        pid=7,
        parent=6,
        started=0.9,
        executable=sys.executable,
        argv=("train.py",),
        folder="/work",
    )
    (place.events / "7.jsonl").write_bytes(msgspec.json.encode(word) + b"\n")
    command = cast("ScriptProcess", Command(pid))
    watched = Monitor(command, tmp_path / "log", lambda phase: None, lambda warning: None)
    why = watched.to_its_end(place, timeout=60.0)
    assert (why == "") == heard, why
