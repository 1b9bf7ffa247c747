"""A sign of life beside the ledger, so that a kill forgets a second at most, whatever went on.

<folder>/alive     touched every second by a thread, while the ledger waits for a step to end
                   there when a run begins: the process before was killed
"""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path

BEAT_SECONDS = 1.0  # between touches: what a kill may forget


class Heartbeat:
    """Of one process, in the folder of its run."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "alive"
        self._left = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Beat until ``stop``; a folder that cannot be written has no beat."""
        with suppress(OSError):
            self._file.touch()
            self._thread = threading.Thread(target=self._beat, name="epochcast-alive", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """The run is left in order."""
        self._left.set()
        if self._thread is not None:
            self._thread.join()
            with suppress(OSError):
                self._file.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._left.wait(BEAT_SECONDS):
            with suppress(OSError):
                self._file.touch()


def lived_on(folder: Path) -> float:
    """Seconds that a process which was killed went on after its last note in the ledger."""
    try:
        beat = (folder / "alive").stat().st_mtime
        noted = (folder / "ledger.json").stat().st_mtime
    except OSError:
        return 0.0
    return max(0.0, beat - noted)
