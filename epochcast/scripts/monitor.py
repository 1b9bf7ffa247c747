"""A command while it runs, seen from outside: what it says, and whether it still does anything.

    started ──▶ events ──▶ what goes on, told as it does
       ├─ torch is there, and never a word of it ──────▶ ended: why it cannot be watched
       ├─ quiet ───────────────▶ QUIET_SECONDS           a note, with the last line it printed
       ├─ told to end ─▶ quiet ▶ GONE_SECONDS            it hangs: it is ended from outside
       └─ too long ─────────────────────────────────────▶ ended: the time is up

What a script does at its own end (a last save, an upload, threads that are waited for) is work, and
is waited for; a worker that never answers or a thread that nobody stops is none.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from epochcast.records import Warning_
from epochcast.scripts import events as e
from epochcast.scripts.border import BOOTSTRAP, VARIABLE, EventReader
from epochcast.scripts.process import ScriptProcess, tail
from epochcast.scripts.request import HEARD_SECONDS, WORD_SECONDS
from epochcast.scripts.side_effects import Place
from epochcast.units import format_seconds

LATE = "did not end within"
POLL_SECONDS = 0.1
LOOK_SECONDS = 1.0  # from one look at the processes to the next: it reads what they have mapped
RARELY_SECONDS = 5.0  # while it trains: looking takes time that it needs
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


class Monitor:
    """A command while it runs.

    Args:
        process: the command.
        log: that takes its output.
        report: called with what goes on.
        warn: called where nothing goes on.

    Attributes:
        hung_at: since when it did nothing, where it was told to end and did not.
    """

    def __init__(
        self,
        process: ScriptProcess,
        log: Path,
        report: Callable[[str], None],
        warn: Callable[[Warning_], None],
    ) -> None:
        self._process, self._log, self._report, self._warn = process, log, report, warn
        self.hung_at: float | None = None
        self._torch = False
        self._heard: set[int] = set()  # processes with our bootstrap; until they become another
        self._told_at: float | None = None  # to end
        self._liveness = Liveness(time.monotonic())
        self._noted = 0.0  # the last moment of work before a silence that was told
        self._since: dict[int, float] = {}

    def to_its_end(self, place: Place, timeout: float) -> str:
        """Wait until everything is gone, or has to be; why we end it, or an empty text.

        Args:
            place: where its events are.
            timeout: seconds for all of it.
        """
        reader = EventReader(place.events)
        began = looked = time.monotonic()
        self._report("start")
        while self.hung_at is None and not self._process.wait(POLL_SECONDS):
            for pid, event in reader.poll():
                self._heard.add(pid)
                self._hear(event)
            now = time.monotonic()
            if now - began > timeout:
                return f"{LATE} {format_seconds(timeout)}"
            if now - looked > (RARELY_SECONDS if self._is_training else LOOK_SECONDS):
                looked = now
                if unheard := self._look(now):
                    return unheard
        return ""

    @property
    def _is_training(self) -> bool:
        return self._torch and self._told_at is None

    def _hear(self, event: e.Event) -> None:
        if isinstance(event, e.TorchLoaded):
            self._torch = True
            self._report("build")
        if isinstance(event, e.PassEnded):
            self._report("train" if event.backwards else "evaluate")
        if isinstance(event, e.Save):
            self._report("save")
        if isinstance(event, e.Ending) and self._told_at is None:
            self._told_at = event.at

    def _look(self, now: float) -> str:
        """Look at the processes; why they cannot be watched, if so."""
        pids = self._process.pids
        self._liveness.look(pids, now)
        quiet = self._liveness.quiet(now)
        if self._told_at is not None:
            if quiet > GONE_SECONDS or now - self._told_at > MOST_SECONDS:
                self.hung_at = max(self._told_at, self._liveness.busy_at)
        elif quiet > QUIET_SECONDS and self._noted != self._liveness.busy_at:
            self._noted = self._liveness.busy_at
            self._warn(_quiet_note(quiet, self._log))
        return "" if self._torch else self._unheard(pids, now)

    def _unheard(self, pids: Sequence[int], now: float) -> str:
        """Why there is no word of a process in which torch has been for a while, if there is one.

        Args:
            pids: of the command and all it has started.
            now: the moment.
        """
        for pid in pids:
            if _has_torch(pid):
                since = self._since.setdefault(pid, now)
                if now - since > (HEARD_SECONDS if pid in self._heard else WORD_SECONDS):
                    return why_unheard(pid)
        return ""


def _quiet_note(seconds: float, log: Path) -> Warning_:
    said = next(iter(tail(log, lines=1)), "nothing")
    details = (("seconds", format_seconds(seconds)), ("said", said), ("log", str(log)))
    return Warning_(code="quiet", details=details)


def _has_torch(pid: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/maps").read_text(errors="replace")
    except OSError:
        return False
    return "libtorch" in text


def why_unheard(pid: int) -> str:
    """What keeps the bootstrap out of a process, as far as the system tells."""
    try:
        process = psutil.Process(pid)
        line, environment = process.cmdline(), process.environ()
    except psutil.Error:
        line, environment = [], {}
    flags = [part for part in line[1:4] if re.fullmatch(r"-[A-Za-z]*[IE][A-Za-z]*", part)]
    name = " ".join(line[:3]) or f"process {pid}"
    if flags:
        cause = f"Python was started with {flags[0]}, which ignores PYTHONPATH: leave it out"
    elif VARIABLE not in environment:
        cause = "its environment was cleared, as by env -i: let it inherit PYTHONPATH and TMPDIR"
    elif str(BOOTSTRAP) not in environment.get("PYTHONPATH", ""):
        cause = (
            "PYTHONPATH was set anew, as by a shell script: write "
            "PYTHONPATH=more${PYTHONPATH:+:$PYTHONPATH} there"
        )
    else:
        cause = "its Python does not run sitecustomize (is it frozen, or started with -S?)"
    return f"imported torch, but cannot be watched ({name}): {cause}"
