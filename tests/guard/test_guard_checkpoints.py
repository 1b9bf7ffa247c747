"""Checkpoints are whole or not there, whatever happens when."""

import contextlib
import os
import shutil
from pathlib import Path

import pytest

from epochcast.errors import StoreError
from epochcast.guard.checkpoints import CONTENT, CheckpointStore
from epochcast.guard.run_state import CheckpointState
from epochcast.records import SCHEMA, Position, to_json


class Killed(BaseException):
    """The process is gone."""


def save(store: CheckpointStore, steps: int, best: bool = False, content: str = "") -> Path:
    number = store.begin()
    store.content(number).write_text(content or str(steps))
    return store.finish(number, CheckpointState(position=Position(steps=steps), is_best=best))


def names(store: CheckpointStore) -> list[int]:
    """The steps of all, oldest save first."""
    return [int(p.name.split("-")[1]) for p in sorted(store.folder.iterdir())]


def test_the_last_ones_and_the_best_stay(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "checkpoints", keep=2)
    for steps in (1, 2, 3, 4, 5):
        save(store, steps, best=steps == 2)
    assert names(store) == [2, 4, 5]
    last, best = store.last(), store.best()
    assert last is not None
    assert last[1].position.steps == 5
    assert best is not None
    assert (best[0] / CONTENT).read_text() == "2"


def test_keep_nothing_back(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=0)
    for steps in range(1, 6):
        save(store, steps)
    assert names(store) == [1, 2, 3, 4, 5]


def test_a_folder_is_a_checkpoint_too(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=1)
    number = store.begin()
    store.content(number).mkdir()
    (store.content(number) / "model.safetensors").write_text("weights")
    store.finish(number, CheckpointState(position=Position(steps=3)))
    assert (store.saved(number, 3) / "model.safetensors").read_text() == "weights"


def test_a_save_that_wrote_nothing_is_an_error(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=1)
    save(store, 1)
    number = store.begin()
    with pytest.raises(StoreError, match="save wrote nothing to"):
        store.finish(number, CheckpointState(position=Position(steps=2)))
    store.abandon()
    assert names(store) == [1]


def test_the_newest_is_the_one_that_was_saved_last(tmp_path: Path) -> None:
    """An epoch that is begun again has fewer steps behind it than the one that was left."""
    for steps in (8, 5, 4):
        save(CheckpointStore(tmp_path, keep=1), steps)
        last = CheckpointStore(tmp_path, keep=1).last()
        assert last is not None
        assert last[1].position.steps == steps
    assert names(CheckpointStore(tmp_path, keep=1)) == [4]


def truncated(place: Path) -> None:
    (place / CONTENT).write_text("sec")


def overwritten(place: Path) -> None:
    (place / CONTENT).write_text("sec\0\0\0")


def without_state(place: Path) -> None:
    (place / "state.json").write_bytes(b"")


@pytest.mark.parametrize("damage", [truncated, overwritten, without_state])
def test_the_one_before_a_damaged_one_is_the_newest(tmp_path: Path, damage) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    save(store, 1, content="first")
    damage(save(store, 2, content="second"))
    store = CheckpointStore(tmp_path, keep=2)
    last = store.last()
    assert last is not None
    assert (last[0] / CONTENT).read_text() == "first"
    assert list(store.damaged) == ["00002-0000000002"]
    save(store, 2)  # makes room by taking the damaged one, not the whole one
    assert names(store) == [1, 2]


def test_where_none_is_whole_nothing_is_begun_anew(tmp_path: Path) -> None:
    truncated(save(CheckpointStore(tmp_path, keep=1), 1))
    with pytest.raises(StoreError, match=r"no checkpoint is whole: .*checkpoint\.pt has 3 bytes"):
        CheckpointStore(tmp_path, keep=1).last()


def test_a_newer_state_is_refused_though_it_reads_the_same(tmp_path: Path) -> None:
    """Nor is it taken for damage: what is newer than this version is not passed over."""
    store = CheckpointStore(tmp_path, keep=2)
    save(store, 1)
    newer = CheckpointState(position=Position(steps=2), schema=SCHEMA + 1)
    (save(store, 2) / "state.json").write_text(to_json(newer))
    with pytest.raises(StoreError, match="written by a newer epochcast"):
        CheckpointStore(tmp_path, keep=2).last()


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("killed_at", range(12))
def test_a_kill_at_any_moment_leaves_a_whole_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int, steps: int
) -> None:
    """Killed before the n-th operation on the disk, while saving step 2, or step 1 once more."""
    store = CheckpointStore(tmp_path, keep=1)
    save(store, 1, content="first")
    done = 0

    def counted(operation):
        def call(*args, **kwargs):
            nonlocal done
            done += 1
            if done > killed_at:
                raise Killed
            return operation(*args, **kwargs)

        return call

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", counted(Path.replace))
        patched.setattr(os, "fsync", counted(os.fsync))
        patched.setattr(shutil, "rmtree", counted(shutil.rmtree))
        with contextlib.suppress(Killed):
            save(store, steps, content="second")
    store.abandon()
    last = store.last()
    assert last is not None
    assert (last[0] / CONTENT).read_text() in ("first", "second")
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize(
    "spoilt",
    ["[" * 100_000, '{"schema": 2, "position": {"epoch": -3}}', '{"schema": 2, "position": 7}'],
)
def test_a_state_that_nobody_wrote_like_that_is_damage(tmp_path: Path, spoilt: str) -> None:
    store = CheckpointStore(tmp_path, keep=0)
    save(store, 1)
    newest = save(store, 2)
    (newest / "state.json").write_text(spoilt)
    last = CheckpointStore(tmp_path, keep=0).last()
    assert last is not None
    assert last[1].position.steps == 1


def test_the_ledger_in_a_state_may_be_newer_too(tmp_path: Path) -> None:
    folder = save(CheckpointStore(tmp_path, keep=0), 1)
    newer = f'{{"schema": {SCHEMA}, "position": {{}}, "ledger": {{"schema": {SCHEMA + 1}}}}}'
    (folder / "state.json").write_text(newer)
    with pytest.raises(StoreError, match="written by a newer epochcast"):
        CheckpointStore(tmp_path, keep=0).last()
