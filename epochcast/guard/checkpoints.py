"""Checkpoints in a folder: each whole or not there, the last ones and the best one kept.

    .writing-<n>/   checkpoint.pt, state.json ─ fsync ─ rename ─▶ <n>-<steps>/

``n`` counts saves, and the highest one is the newest: steps may go back, where an epoch is begun
again. The user's function writes ``checkpoint.pt``, a file or a folder; what the guard must know of
that moment lies beside it, so one rename makes both true. Older ones go only afterwards. A kill at
any moment leaves the previous checkpoint, or the new one, whole. What a disk does to one later is
seen by the sizes and checksums in its ``state.json``: then the one before it is the newest.

Where the disk is limited, older ones go before the next is written, the best one last of them; the
newest only where a save must not be left out. How large the next one will be nobody knows: it is
taken to be as large as the largest of this process, and to go on growing where they grew. One that
is larger all the same may fill more than the limit for a moment, which is counted.
"""

from __future__ import annotations

import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from math import floor, inf
from pathlib import Path
from typing import TypeVar

import msgspec

from epochcast.errors import StoreError
from epochcast.guard.ranks import wait_for_all
from epochcast.guard.run_state import CheckpointState, FileSeen
from epochcast.profiler.ranks import Ranks
from epochcast.records import from_json, require_schema, to_json
from epochcast.records.documents import write_atomic

CONTENT, STATE = "checkpoint.pt", "state.json"
WRITING = ".writing-"
CHECKED_BYTES = 2**28  # of a file whose sum is kept: a quarter of a second at 1 GB/s, per save
BLOCK_BYTES = 2**20
ROUNDING = 1e-9  # relative: as the plan compares bytes with a limit

Write = Callable[[Path], None]
_Record = TypeVar("_Record")


class Damaged(StoreError):
    """A file is missing, cut off or overwritten: nobody wrote it like that."""


class CheckpointStore:
    """The checkpoints of one run.

    Args:
        folder: where they lie.
        keep: that many of the last ones stay; 0 keeps all.
        limit: bytes that all together may fill, the one being written included; None for any.
        expected: bytes of one, as long as there is none to look at.

    Attributes:
        gave_way: whether one was removed that would have been kept without the limit.
        overfilled: bytes beyond the limit that were filled at most.
        damaged: name → what is wrong with it, of those that ``last`` had to pass over.
    """

    def __init__(
        self, folder: Path, keep: int, *, limit: float | None = None, expected: float = 0.0
    ) -> None:
        self.folder = folder
        self.keep = keep
        self.limit, self.expected = inf if limit is None else limit, expected
        self.gave_way, self.overfilled = False, 0.0
        self._sizes: list[float] = []  # of those that this process wrote, in order
        self.damaged: dict[str, str] = {}
        self._whole: set[str] = set()  # found so, or written, by this process

    def begin(self) -> int:
        """Make room for a checkpoint; returns its number, higher than that of any before it."""
        number = 1 + max((number_of(folder) for folder in self._all()), default=0)
        self._leave_room(self.next_bytes())
        folder = self.content(number).parent
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return number

    def next_bytes(self) -> float:
        """Of the next one: as large as the largest so far, and more where they have grown."""
        whole = self._undamaged()
        known = [*self._sizes, *(_content_bytes(folder) for folder in whole[-1:])]
        if not known:
            return self.expected
        before, last = self._sizes[-2:] if len(self._sizes) > 1 else (0.0, 0.0)
        grows = len(self._sizes) > 2 and self._sizes[-3] < before < last
        return max(known) + (last - before) * grows

    def room(self) -> float:
        """How many fit into the limit at once; inf without a limit, or as long as none is known."""
        size = self.next_bytes()
        count = self.limit * (1 + ROUNDING) / max(size, 1.0) if size else inf
        return floor(count) if count < inf else inf

    def content(self, number: int) -> Path:
        """Where the content of a checkpoint is written to, a file or a folder."""
        return self.folder / f"{WRITING}{number}" / CONTENT

    def saved(self, number: int, steps: int) -> Path:
        """Where the content of a finished checkpoint is."""
        return self.folder / _name(number, steps) / CONTENT

    def finish(self, number: int, state: CheckpointState) -> Path:
        """Make the checkpoint that was written durable and visible; returns its folder.

        Raises:
            OSError: the disk is full or failing; the previous checkpoint stays as it is.
            StoreError: nothing was written.
        """
        content = self.content(number)
        folder = content.parent
        if not content.exists():
            raise StoreError(f"save wrote nothing to {content}, the path that it was given")
        state = replace(state, files=tuple(_seen(folder)))
        write_atomic(folder / STATE, to_json(state).encode())
        _sync_tree(folder)
        final = self.folder / _name(number, state.position.steps)
        folder.replace(final)
        _sync(self.folder)
        self._whole.add(final.name)
        self._sizes.append(_content_bytes(final))
        if self.limit < inf:
            filled = sum(_content_bytes(folder) for folder in self._all())
            self.overfilled = max(self.overfilled, filled - self.limit * (1 + ROUNDING))
        self._prune()
        self._leave_room(0.0, spared=1)  # it may be larger than those before it
        return final

    def save(self, write: Write, state: CheckpointState, ranks: Ranks, everyone: bool) -> int:
        """Have a checkpoint written, whole or not at all; of several processes, all call this.

        Returns its number; 0 for a process that does not know it.

        Args:
            write: writes it to the path that it is given.
            state: that belongs to it.
            ranks: the processes; the first one owns the folder.
            everyone: whether all of them call ``write``, or the first alone.
        """
        first, together = ranks.rank == 0, everyone and ranks.size > 1
        number = self.begin() if first else 0
        if together:
            (number,) = ranks.all_reduce_max([number])  # the folder is there
        if together or first:
            write(self.content(number))
        if together:
            wait_for_all(ranks)  # everything is written
        if first:
            self.finish(number, state)
        wait_for_all(ranks)  # it is whole
        return number

    def abandon(self) -> None:
        """Remove what was not finished, here or by a process that was killed."""
        for left in self.folder.glob(f"{WRITING}*"):
            shutil.rmtree(left, ignore_errors=True)

    def last(self) -> tuple[Path, CheckpointState] | None:
        """The newest checkpoint that is whole; None where there is none at all.

        Raises:
            StoreError: there are checkpoints, and none of them is whole; or the newest is of a
                newer epochcast.
        """
        found = self._all()
        for folder in reversed(found):
            try:
                return folder, self._checked(folder)
            except Damaged as error:
                self.damaged[folder.name] = str(error)
        if found:
            raise StoreError(f"no checkpoint is whole: {self.damaged[found[-1].name]}")
        return None

    def best(self) -> tuple[Path, CheckpointState] | None:
        """The checkpoint with the best value's weights; None where there is none."""
        for folder in reversed(self._all()):
            try:
                state = _state(folder)
            except Damaged:
                continue
            if state.is_best and folder.name not in self.damaged:
                return folder, state
        return None

    def _all(self) -> list[Path]:
        """Oldest first."""
        if not self.folder.is_dir():
            return []
        found = (p for p in self.folder.iterdir() if p.is_dir() and not p.name.startswith("."))
        return sorted((p for p in found if p.name.partition("-")[0].isdecimal()), key=number_of)

    def _checked(self, folder: Path) -> CheckpointState:
        state = _state(folder)
        if folder.name not in self._whole:
            for file in state.files:
                _check(folder / file.name, file)
            self._whole.add(folder.name)
        return state

    def _undamaged(self) -> list[Path]:
        """Oldest first."""
        return [folder for folder in self._all() if folder.name not in self.damaged]

    def _leave_room(self, size: float, spared: int = 0) -> None:
        """Remove what leaves too little of the limit: the oldest first, the best, then the newest.

        Args:
            size: bytes to be written.
            spared: how many of the newest stay, whatever they take.
        """
        if self.limit == inf or size > self.limit * (1 + ROUNDING):
            return
        sizes = {folder: _content_bytes(folder) for folder in self._all()}
        best, whole = self.best(), self._undamaged()
        of_best = best[0] if best else None
        first = sorted(sizes, key=lambda folder: (folder in whole[-1:], folder == of_best))
        kept = self.keep - 1 + spared if self.keep else len(whole)
        staying = {of_best, *whole[max(len(whole) - kept, 0) :]}
        for folder in first[: len(first) - spared]:
            if sum(sizes.values()) + size <= self.limit * (1 + ROUNDING):
                return
            del sizes[folder]
            shutil.rmtree(folder, ignore_errors=True)
            self.gave_way |= folder in staying

    def _prune(self) -> None:
        bad = [folder for folder in self._all() if folder.name in self.damaged]
        whole = self._undamaged()
        older = whole[: -self.keep] if self.keep else []
        best = self.best() if older else None
        for folder in (*bad, *older):
            if best is None or folder != best[0]:
                shutil.rmtree(folder, ignore_errors=True)


def read_record(path: Path, kind: type[_Record]) -> _Record:
    """A record that was written as JSON.

    Raises:
        Damaged: it is not there, no JSON, or no such record: numbers out of range, for one.
        StoreError: it is of another epochcast, a newer one.
    """
    try:
        content = path.read_bytes()
        raw = msgspec.json.decode(content)
    except (OSError, msgspec.DecodeError, RecursionError) as error:
        raise Damaged(f"cannot read {path}: {error}") from error
    try:
        _require_schemas(raw)
    except StoreError as error:
        raise StoreError(f"cannot read {path}: {error}") from error
    try:
        return from_json(content, kind)
    except StoreError as error:
        raise Damaged(f"cannot read {path}: {error}") from error


def _require_schemas(raw: object) -> None:
    """Of a document, and of the ledger in it."""
    if isinstance(raw, dict):
        if isinstance(raw.get("schema"), int):
            require_schema(raw["schema"])
        _require_schemas(raw.get("ledger"))


def number_of(folder: Path) -> int:
    """Which save a checkpoint is of, counted over the whole run."""
    return int(folder.name.partition("-")[0])


def _name(number: int, steps: int) -> str:
    return f"{number:05d}-{steps:010d}"


def _state(folder: Path) -> CheckpointState:
    return read_record(folder / STATE, CheckpointState)


def _seen(folder: Path) -> Iterator[FileSeen]:
    """All files of a checkpoint as they are now."""
    for parent, _, files in os.walk(folder):
        for name in sorted(files):
            path = Path(parent) / name
            size = path.stat().st_size
            crc = _crc(path) if size <= CHECKED_BYTES else None
            yield FileSeen(name=path.relative_to(folder).as_posix(), size=size, crc=crc)


def _content_bytes(folder: Path) -> int:
    """What the user's function wrote; what the guard notes beside it is a few kilobytes."""
    written = (Path(parent) / name for parent, _, names in os.walk(folder) for name in names)
    return sum(path.lstat().st_size for path in written if path != folder / STATE)


def _check(path: Path, seen: FileSeen) -> None:
    try:
        size = path.stat().st_size
        if size != seen.size:
            raise Damaged(f"{path} has {size:,} bytes, and had {seen.size:,} when it was saved")
        if seen.crc is not None and _crc(path) != seen.crc:
            raise Damaged(f"{path} is not what it was when it was saved")
    except OSError as error:
        raise Damaged(f"cannot read {path}: {error}") from error


def _crc(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            crc = zlib.crc32(block, crc)
    return crc


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
