"""Checkpoints in a folder: each whole or not there, the last ones and the best one kept.

    .writing-<steps>/   checkpoint.pt, state.json ─ fsync ─ rename ─▶ <steps>/

The user's function writes ``checkpoint.pt``, a file or a folder; what the guard must know of that
moment lies beside it, so one rename makes both true. Older ones go only afterwards. A kill at any
moment leaves the previous checkpoint, or the new one, whole.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from epochcast.errors import StoreError
from epochcast.guard.ledger import RunState, write_whole
from epochcast.records import from_json, to_json

CONTENT, STATE = "checkpoint.pt", "state.json"
WRITING = ".writing-"


@dataclass(frozen=True, slots=True)
class Archive:
    """The checkpoints of one run.

    Attributes:
        folder: where they lie.
        keep: that many of the last ones stay; 0 keeps all.
    """

    folder: Path
    keep: int

    def begin(self, steps: int) -> None:
        """Make room for a checkpoint; what was left there is gone."""
        place = self.content(steps).parent
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)

    def content(self, steps: int) -> Path:
        """Where the content of a checkpoint is written to, a file or a folder."""
        return self.folder / f"{WRITING}{_name(steps)}" / CONTENT

    def saved(self, steps: int) -> Path:
        """Where the content of a finished checkpoint is."""
        return self.folder / _name(steps) / CONTENT

    def finish(self, state: RunState) -> Path:
        """Make the checkpoint that was written last durable and visible; returns its folder.

        Raises:
            OSError: the disk is full or failing; the previous checkpoint stays as it is.
            StoreError: nothing was written.
        """
        steps = state.position.steps
        content = self.content(state.position.steps)
        place, steps = content.parent, state.position.steps
        if not content.exists():
            raise StoreError(f"save wrote nothing to {content}, the path that it was given")
        write_whole(place / STATE, to_json(state).encode(), durable=False)
        _sync_tree(place)
        final = self.folder / _name(steps)
        if final.exists():  # the same step again: nothing is lost if this one is not to be
            final.replace(self.folder / f"{WRITING}old-{_name(steps)}")
        place.replace(final)
        _sync(self.folder)
        self._prune()
        return final

    def abandon(self) -> None:
        """Remove what was not finished, here or by a process that was killed."""
        for left in self.folder.glob(f"{WRITING}*"):
            old = left.name.removeprefix(f"{WRITING}old-")
            if left.name != old and not (self.folder / old).exists():
                left.replace(self.folder / old)
            else:
                shutil.rmtree(left, ignore_errors=True)

    def last(self) -> tuple[Path, RunState] | None:
        """The newest checkpoint; None where there is none.

        Raises:
            StoreError: its state cannot be read.
        """
        found = self._all()
        return (found[-1], self._state(found[-1])) if found else None

    def best(self) -> tuple[Path, RunState] | None:
        """The checkpoint with the best value's weights; None where there is none."""
        for place in reversed(self._all()):
            state = self._state(place)
            if state.is_best:
                return place, state
        return None

    def _all(self) -> list[Path]:
        """Oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted(p for p in self.folder.iterdir() if p.name.isdecimal() and p.is_dir())

    def _state(self, place: Path) -> RunState:
        try:
            return from_json((place / STATE).read_bytes(), RunState)
        except (OSError, StoreError) as error:
            raise StoreError(f"cannot read {place / STATE}: {error}") from error

    def _prune(self) -> None:
        for left in self.folder.glob(f"{WRITING}old-*"):
            shutil.rmtree(left, ignore_errors=True)
        older = self._all()[: -self.keep] if self.keep else []
        best = self.best() if older else None
        for place in older:
            if best is None or place != best[0]:
                shutil.rmtree(place, ignore_errors=True)


def _name(steps: int) -> str:
    return f"{steps:010d}"


def _sync_tree(folder: Path) -> None:
    for parent, _, files in os.walk(folder):
        for file in files:
            _sync(Path(parent) / file)
        _sync(Path(parent))


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():  # Windows cannot, and need not
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
