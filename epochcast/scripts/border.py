"""The border between us and a script's process: settings go in, events come out.

The bootstrap reads ``BootstrapSettings`` from the file that the environment variable
``EPOCHCAST_SCRIPT`` names. Each Python process, launchers too, appends its events, a line of JSON
each, to ``<folder>/<pid>.jsonl``; forked ones once they have something to say. Lines are in the
order in which things were seen (a pass that was abandoned is over later than its ``at``), complete
or (the last one of a killed process) torn.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from epochcast.scripts.events import Event

VARIABLE = "EPOCHCAST_SCRIPT"  # of the environment: the path of the settings
BOOTSTRAP = Path(__file__).parent / "bootstrap"  # to be put in front of PYTHONPATH


class BootstrapSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the bootstrap is to do.

    Attributes:
        folder: where each process writes its events; must be there.
        mode: ``miniature``: short epochs, then the end; ``watch``: whole epochs, nothing changed.
        epochs: passes over a training loader after which a miniature ends the script; up to five
            times as many where all of them are shorter than one that is cut, unless processes
            train together.
        pass_seconds: of a training pass, after which it ends at the next step; the first steps
            (compiling, first touch) do not count.
        evaluation_seconds: the same of a pass that does not train.
        least_batches: that a pass has at least, if its loader has so many.
        rank_batches: of a pass where processes train together on several machines, which cannot
            agree on a number; on one machine the first that knows says it, and all keep to it.
        loop_seconds: of steps in no pass that could be ended, after which the script is ended.
        loop_steps: that such a loop makes at least.
        journal: whether files that are written are reported, and what they replace is kept.
        keep: folder for what is replaced; ``<folder>/kept`` where empty.
        offline: whether experiment trackers are kept offline and uploads refused.
        trace: file for a torch.profiler trace of a few steps; none where empty.
        trace_steps: that are traced, in the second training pass (a loop: after ten steps).
        stop_file: in mode ``watch``: once it is there the script is asked to stop in the way that
            the guard of a followed plan has, or Lightning, Trainer or Keras; others are not (send
            them a signal).
    """

    folder: str
    mode: Literal["miniature", "watch"] = "miniature"
    epochs: int = 3
    pass_seconds: float = 6.0
    evaluation_seconds: float = 3.0
    least_batches: int = 8
    rank_batches: int = 32
    loop_seconds: float = 15.0
    loop_steps: int = 24
    journal: bool = False
    keep: str = ""
    offline: bool = True
    trace: str = ""
    trace_steps: int = 5
    stop_file: str = ""


_DECODER = msgspec.json.Decoder(Event)


class EventReader:
    """Reads the events of all processes of a command, also while they are being written.

    Args:
        folder: of ``BootstrapSettings``.
        most_bytes: of a file, after which it is removed: what was read of a run of weeks would
            fill a disk. None keeps everything.
    """

    def __init__(self, folder: str | Path, most_bytes: int | None = None) -> None:
        self._folder, self._most = Path(folder), most_bytes
        self._offsets: dict[int, int] = {}
        self._aside: dict[int, Path] = {}
        self.damaged = 0  # lines that were no events, left out

    def poll(self) -> list[tuple[int, Event]]:
        """The events since the last call, each with the process that reported it.

        Those of one process are in their order; processes come one after the other.
        """
        return [(pid, event) for pid, path in self._files() for event in self._news(pid, path)]

    def _files(self) -> Iterator[tuple[int, Path]]:
        yield from list(self._aside.items())
        for path in sorted(self._folder.glob("*.jsonl")):
            if path.stem.isdigit() and int(path.stem) not in self._aside:
                yield int(path.stem), path

    def _make_room(self, pid: int, path: Path) -> None:
        """Put a large file aside, to be read once more and removed: who writes opens it by name."""
        if self._aside.pop(pid, None) is not None:
            path.unlink()
            self._offsets[pid] = 0
        elif self._most is not None and self._offsets[pid] > self._most:
            self._aside[pid] = path.rename(path.with_suffix(".aside"))

    def _news(self, pid: int, path: Path) -> Iterator[Event]:
        with path.open("rb") as file:
            file.seek(self._offsets.get(pid, 0))
            text = file.read()
        whole = text.rfind(b"\n") + 1  # what follows is still being written
        self._offsets[pid] = self._offsets.get(pid, 0) + whole
        self._make_room(pid, path)
        for line in text[:whole].splitlines():
            try:
                yield _DECODER.decode(line)
            except msgspec.MsgspecError:
                self.damaged += 1


def read_events(folder: str | Path) -> dict[int, tuple[Event, ...]]:
    """All events so far, by process.

    Args:
        folder: of ``BootstrapSettings``.
    """
    events: dict[int, list[Event]] = {}
    for pid, event in EventReader(folder).poll():
        events.setdefault(pid, []).append(event)
    return {pid: tuple(found) for pid, found in events.items()}


def write_settings(settings: BootstrapSettings, path: str | Path) -> None:
    """Write what the bootstrap is to do; ``VARIABLE`` is then set to this path.

    Args:
        settings: to be written.
        path: of the file.
    """
    Path(path).write_bytes(msgspec.json.encode(settings))
