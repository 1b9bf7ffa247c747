"""Whether a command still does anything, seen from outside: time of its processors, and its disk.

    ··· busy ███ busy ███ quiet ────────────▶ QUIET_SECONDS   a note, with the last line it printed
    told to end ──▶ busy ██ quiet ──────────▶ GONE_SECONDS    it hangs: it is ended from outside

What a script does at its own end (a last save, an upload, threads that are waited for) is work, and
is waited for; a worker that never answers or a thread that nobody stops is none.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import psutil

QUIET_SECONDS = 30.0
GONE_SECONDS = 5.0  # quiet, after it was told to end
MOST_SECONDS = 60.0  # from being told to end to the end, whatever it does
BUSY_SHARE = 0.05  # of one processor: threads that only wait wake up now and then


class Liveness:
    """When processes last did something.

    Args:
        at: the moment from which on they are looked at.
    """

    def __init__(self, at: float) -> None:
        self.busy_at = at
        self._looked = at
        self._used: dict[int, float] = {}

    def look(self, pids: Iterable[int], at: float) -> None:
        """Look at the processes; one that comes, goes or waits for a disk is busy.

        Args:
            pids: of the command and all that it has started.
            at: the moment.
        """
        seen = {pid: found for pid in pids if (found := _seen(pid)) is not None}
        used = {pid: seconds for pid, (seconds, _) in seen.items()}
        spent = sum(used.values()) - sum(self._used.get(pid, 0.0) for pid in used)
        much = spent > BUSY_SHARE * (at - self._looked)
        if much or used.keys() != self._used.keys() or any(waits for _, waits in seen.values()):
            self.busy_at = at
        self._used, self._looked = used, at

    def quiet(self, at: float) -> float:
        """Seconds since the last time that they were seen busy."""
        return at - self.busy_at


def _seen(pid: int) -> tuple[float, bool] | None:
    """Processor seconds of a process, and whether it waits for a disk; None where it is gone."""
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        times = process.cpu_times()
        return times.user + times.system, process.status() == psutil.STATUS_DISK_SLEEP
    return None
