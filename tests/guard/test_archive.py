"""Checkpoints are whole or not there, whatever happens when."""

import contextlib
import os
import shutil
from pathlib import Path

import pytest

from epochcast.errors import StoreError
from epochcast.guard.archive import CONTENT, Archive
from epochcast.guard.ledger import RunState
from epochcast.records import Position


class Killed(BaseException):
    """The process is gone."""


def save(archive: Archive, steps: int, best: bool = False, content: str = "") -> None:
    archive.begin(steps)
    archive.content(steps).write_text(content or str(steps))
    archive.finish(RunState(position=Position(steps=steps), is_best=best))


def names(archive: Archive) -> list[int]:
    return sorted(int(p.name) for p in archive.folder.iterdir())


def test_the_last_ones_and_the_best_stay(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "checkpoints", keep=2)
    for steps in (1, 2, 3, 4, 5):
        save(archive, steps, best=steps == 2)
    assert names(archive) == [2, 4, 5]
    last, best = archive.last(), archive.best()
    assert last is not None
    assert last[1].position.steps == 5
    assert best is not None
    assert (best[0] / CONTENT).read_text() == "2"


def test_keep_nothing_back(tmp_path: Path) -> None:
    archive = Archive(tmp_path, keep=0)
    for steps in range(1, 6):
        save(archive, steps)
    assert names(archive) == [1, 2, 3, 4, 5]


def test_a_folder_is_a_checkpoint_too(tmp_path: Path) -> None:
    archive = Archive(tmp_path, keep=1)
    archive.begin(3)
    archive.content(3).mkdir()
    (archive.content(3) / "model.safetensors").write_text("weights")
    archive.finish(RunState(position=Position(steps=3)))
    assert (archive.saved(3) / "model.safetensors").read_text() == "weights"


def test_a_save_that_wrote_nothing_is_an_error(tmp_path: Path) -> None:
    archive = Archive(tmp_path, keep=1)
    save(archive, 1)
    archive.begin(2)
    with pytest.raises(StoreError, match="save wrote nothing to"):
        archive.finish(RunState(position=Position(steps=2)))
    archive.abandon()
    assert names(archive) == [1]


def test_a_damaged_state_is_named(tmp_path: Path) -> None:
    archive = Archive(tmp_path, keep=1)
    save(archive, 1)
    (archive.saved(1).parent / "state.json").write_text("{")
    with pytest.raises(StoreError, match=r"state\.json"):
        archive.last()


OPERATIONS = ("replace", "fsync", "rmtree")


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("killed_at", range(12))
def test_a_kill_at_any_moment_leaves_a_whole_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int, steps: int
) -> None:
    """Killed before the n-th operation on the disk, while saving step 2, or step 1 once more."""
    archive = Archive(tmp_path, keep=1)
    save(archive, 1, content="first")
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
            save(archive, steps, content="second")
    archive.abandon()
    last = archive.last()
    assert last is not None
    assert (last[0] / CONTENT).read_text() in ("first", "second")
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]
