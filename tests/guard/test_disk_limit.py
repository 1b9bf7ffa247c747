"""Checkpoints stay within the plan's disk limit at every moment, whatever is saved and kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rehearsal import Rehearsal, make_plan

from epochcast.errors import UsageError
from epochcast.guard.checkpoints import STATE, CheckpointStore
from epochcast.guard.run_state import CheckpointState
from epochcast.records import Plan, Position, StopReason

BYTES = 320  # of a checkpoint


def filled(folder: Path) -> int:
    """Bytes of all checkpoints there, finished or not, without the guard's own notes."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file() and p.name != STATE)


def save(store: CheckpointStore, steps: int, *, best: bool = False, size: int = BYTES) -> int:
    """Returns what is on the disk when it is written, but not yet finished."""
    number = store.begin()
    store.content(number).write_bytes(b"x" * size)
    most = filled(store.folder)
    store.finish(number, CheckpointState(position=Position(steps=steps), is_best=best))
    return most


def steps_of(store: CheckpointStore) -> list[int]:
    return [int(p.name.split("-")[1]) for p in sorted(store.folder.iterdir())]


def test_an_older_best_one_stays_where_there_is_room(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=1, limit=3 * BYTES)
    most = [save(store, steps, best=steps == 1) for steps in range(1, 5)]
    assert (steps_of(store), max(most), store.gave_way) == ([1, 4], 3 * BYTES, False)


def test_an_older_best_one_gives_way_where_there_is_none(tmp_path: Path) -> None:
    """Of 700 bytes, the one being written and the newest take 640; the best would make it 960."""
    store = CheckpointStore(tmp_path, keep=1, limit=700)
    most = [save(store, steps, best=steps == 1) for steps in range(1, 5)]
    assert (steps_of(store), max(most), store.gave_way) == ([4], 2 * BYTES, True)
    assert store.best() is None


def test_one_that_is_larger_than_those_before_makes_them_go(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=0, limit=1000)
    for steps in (1, 2):
        save(store, steps)
    save(store, 3, size=900)
    assert steps_of(store) == [3]


@settings(max_examples=40, deadline=None)
@given(
    keep=st.integers(0, 4),
    room=st.integers(2, 5),
    bests=st.lists(st.booleans(), min_size=1, max_size=8),
)
def test_never_more_than_the_limit_and_always_the_newest(
    tmp_path_factory: pytest.TempPathFactory, keep: int, room: int, bests: list[bool]
) -> None:
    folder = tmp_path_factory.mktemp("checkpoints")
    store, free = (
        CheckpointStore(folder / name, keep, limit=limit)
        for name, limit in (("limited", room * BYTES), ("free", None))
    )
    for steps, best in enumerate(bests, start=1):
        assert save(store, steps, best=best) <= room * BYTES
        most = save(free, steps, best=best)
        assert steps_of(store)[-1] == steps
        assert set(steps_of(store)) <= set(steps_of(free))
        assert store.gave_way or steps_of(store) == steps_of(free)
        assert store.gave_way <= (most > room * BYTES or not keep)


class Fake(Rehearsal):
    """A run whose checkpoints have a size; ``most`` is the most they filled."""

    size = BYTES
    most = 0

    def _write(self, path: Path) -> None:
        super()._write(path)
        path.write_bytes(b"x" * self.size)
        self.most = max(self.most, filled(self.folder / "checkpoints"))


def limited(disk: float, *, folds: int = 1, keep: int = 1, expected: float | None = BYTES) -> Plan:
    plan = make_plan(epochs=8, deadline=1000.0 * folds, keep=keep, disk=disk)
    option = replace(plan.options[0], save_bytes=expected)
    return replace(plan, options=(option,), folds=folds)


LOSSES = (1.0, 0.9, 0.8, 0.95, 0.96, 0.97, 0.98, 0.99)  # the third is the best


@pytest.mark.parametrize("folds", [1, 3])
def test_a_run_that_saves_at_each_improvement_fills_no_more_than_the_plan_allows(
    tmp_path: Path, folds: int
) -> None:
    run = Fake(limited(700.0 * folds, folds=folds), tmp_path, losses=LOSSES)
    assert run.run() is StopReason.PLAN_DONE
    assert run.most == 2 * BYTES
    assert run.guard.best_checkpoint is None
    assert run.listener.notes().count("disk-limits-checkpoints") == 1


def test_a_run_with_room_for_the_best_one_keeps_it_and_says_nothing(tmp_path: Path) -> None:
    run = Fake(limited(960.0), tmp_path, losses=LOSSES)
    run.run()
    assert run.most == 3 * BYTES
    assert run.guard.best_checkpoint is not None
    assert run.listener.notes() == []


def test_with_room_for_one_it_is_that_of_the_end(tmp_path: Path) -> None:
    run = Fake(limited(400.0), tmp_path, losses=LOSSES)
    assert run.run() is StopReason.PLAN_DONE
    assert run.most == BYTES
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["00001-0000000080"]
    assert run.listener.notes().count("disk-one-checkpoint") == 1


def test_with_room_for_one_a_run_that_was_stopped_is_not_gone_on_with(tmp_path: Path) -> None:
    plan = limited(400.0)
    stopped = Fake(plan, tmp_path, each_step=lambda run: run.guard.signals.note(2))
    assert stopped.run() is StopReason.SIGNAL
    with pytest.raises(UsageError, match=r"no room for another checkpoint.*--disk 640B or more"):
        Fake(plan, tmp_path).run()
    assert Fake(limited(640.0), tmp_path, losses=LOSSES).run() is StopReason.PLAN_DONE


def test_a_checkpoint_larger_than_planned_is_seen_at_the_first_step(tmp_path: Path) -> None:
    run = Fake(limited(700.0), tmp_path)
    run.size = 400
    with pytest.raises(UsageError, match="--disk 800B or more"):
        run.run()
    assert run.guard.position.steps == 1
