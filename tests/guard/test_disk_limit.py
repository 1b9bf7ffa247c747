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
from epochcast.guard.controller import Policy
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


def test_a_size_below_a_byte_is_no_division_without_end(tmp_path: Path) -> None:
    assert CheckpointStore(tmp_path, keep=1, limit=700, expected=1e-308).room() == 700
    assert CheckpointStore(tmp_path, keep=1, limit=1e308, expected=1e-308).room() > 1e307


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


def growing(plan: Plan, folder: Path, sizes: list[int], **settings) -> Fake:
    """A run whose n-th checkpoint has the n-th size, the last one from then on."""
    run = Fake(plan, folder, losses=LOSSES, settings=settings)
    left = list(sizes)

    def size_it(run: Fake) -> None:
        run.size = left.pop(0) if len(left) > 1 else left[0]

    write = run._write

    def sized(path: Path) -> None:
        size_it(run)
        write(path)

    run.guard._write = sized
    return run


def test_a_checkpoint_that_outgrows_those_before_it_is_said(tmp_path: Path) -> None:
    """320 + 320 fit into 700; 500 beside 320 do not, and nobody could know."""
    run = growing(limited(700.0), tmp_path, [320, 320, 500])
    assert run.run() is StopReason.PLAN_DONE
    assert run.most == 820
    notes = run.listener.notes()
    assert notes.count("disk-overfilled") == 1
    assert notes.count("disk-one-checkpoint") == 1  # from then on nothing is saved before the end
    said = next(
        e
        for e in run.listener.events
        if getattr(e, "notice", None) is not None and e.notice.code == "disk-overfilled"
    )
    assert dict(said.notice.details) == {"over": "120 B", "need": "0.98KiB"}


def test_growth_that_goes_on_is_reckoned_with(tmp_path: Path) -> None:
    """By 100 bytes each: the fourth is expected to have 600, for which an older one goes first."""
    store = CheckpointStore(tmp_path, keep=2, limit=1500)
    for steps, size in enumerate((300, 400, 500), start=1):
        save(store, steps, size=size)
    assert store.next_bytes() == 600
    assert save(store, 4, size=600) <= 1500
    assert store.overfilled == 0
    save(store, 5, size=300)  # smaller again: as large as the largest
    assert store.next_bytes() == 600


@settings(max_examples=40, deadline=None)
@given(sizes=st.lists(st.integers(1, 500), min_size=1, max_size=8), keep=st.integers(0, 3))
def test_more_than_the_limit_is_never_filled_in_silence(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], keep: int
) -> None:
    store = CheckpointStore(tmp_path_factory.mktemp("checkpoints"), keep, limit=1000)
    most = max(save(store, steps, size=size) for steps, size in enumerate(sizes, start=1))
    assert (store.overfilled > 0) == (most > 1000)


@pytest.mark.parametrize("rehearse", [False, True])
def test_the_first_checkpoint_of_unknown_size_shows_what_there_is_room_for(
    tmp_path: Path, rehearse: bool
) -> None:
    plan = limited(300.0, expected=None)
    run = Fake(plan, tmp_path, losses=LOSSES, settings={"policy": Policy(rehearse=rehearse)})
    if rehearse:
        with pytest.raises(UsageError, match="--disk 640B or more"):
            run.run()
        return
    assert run.run() is StopReason.PLAN_DONE
    notes = run.listener.notes()
    assert notes.count("disk-overfilled") == 1
    assert notes.count("disk-no-checkpoint") == 1


def test_all_are_kept_as_long_as_there_is_room(tmp_path: Path) -> None:
    run = Fake(limited(1600.0, keep=0), tmp_path, losses=LOSSES)
    assert run.run() is StopReason.PLAN_DONE
    assert run.most == 5 * BYTES
    assert run.listener.notes().count("disk-limits-checkpoints") == 1
    assert run.guard.best_checkpoint is not None


class Pair:
    """Two processes in one: what the second adds is on the disk when the first one looks."""

    def __init__(self, rank: int) -> None:
        self.rank, self.size = rank, 2

    def all_reduce_max(self, values):
        return list(values)


def test_of_several_processes_the_parts_of_all_count(tmp_path: Path) -> None:
    """Each writes 320 bytes: two checkpoints of 640 do not fit into 700."""
    store = CheckpointStore(tmp_path, keep=1, limit=700, expected=320)

    def write(path: Path) -> None:
        path.mkdir()
        for rank in (0, 1):
            (path / f"shard-{rank}").write_bytes(b"x" * BYTES)

    store.save(write, CheckpointState(position=Position(steps=1)), Pair(0), everyone=True)
    assert (store.next_bytes(), store.room()) == (640, 1)
    store.save(write, CheckpointState(position=Position(steps=2)), Pair(0), everyone=True)
    assert steps_of(store) == [2]
    assert store.overfilled == 0
