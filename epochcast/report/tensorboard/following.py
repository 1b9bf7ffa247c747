"""A followed run in TensorBoard while it goes on: an event file of each process, epoch by epoch.

    <folder>/
      events.out.tfevents.1760000000.….epochcast-run      process 1: epochs 1 … 12, killed
      events.out.tfevents.1760003600.….epochcast-run      process 2: goes on after epoch 10

The second file makes epochs 11 and 12 of the first one void (``opening`` in events.py).
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

from epochcast.errors import StoreError
from epochcast.records import EpochDone, LimitName, Notice, RunEvent, RunStarted
from epochcast.report.tensorboard.writer import new_stamp


def board_watcher(folder: str | Path) -> BoardWatcher | None:
    """A watcher that writes to a folder; None where TensorBoard is not installed."""
    return None if find_spec("tensorboard") is None else BoardWatcher(folder)


class BoardWatcher:
    """Writes what it sees as TensorBoard's scalars, and charts with the predicted bands."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._file: int | None = None
        self._limits: dict[LimitName, float] = {}

    def see(self, event: RunEvent) -> None:
        """Write one event; TensorBoard shows it with its next reload.

        Raises:
            StoreError: the folder cannot be written.
        """
        from epochcast.report.tensorboard import events, followed

        if isinstance(event, RunStarted):
            self._limits = dict(event.limits)
            self._begin(event)
            entries = [followed.layout_entry(event)]
        elif isinstance(event, EpochDone):
            entries = list(followed.epoch_entries(event, self._limits))
        elif isinstance(event, Notice):
            entries = [followed.notice_entry(event)]
        else:
            return
        self._write(events.records(entries, event.wall_time))

    def close(self) -> None:
        """Close the file; another start opens another one."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _begin(self, start: RunStarted) -> None:
        from epochcast.report.tensorboard import events

        self.close()
        name = f"events.out.tfevents.{new_stamp()}.{os.getpid()}.epochcast-run"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError as error:
            raise self._failed(error) from error
        self._write(events.opening(start.wall_time, start.position.epoch + 1))

    def _write(self, content: bytes) -> None:
        if self._file is None:
            return  # the start was not seen, or could not be written
        try:
            os.write(self._file, content)
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> StoreError:
        return StoreError(f"cannot write TensorBoard's folder {self.folder}: {error.strerror}")
