"""Events to a file, a line of JSON each.

The file is opened for every write and closed again: a descriptor that a script closes behind our
back may be given to one of its own files. Lines are written at once, but for those that come in
numbers (``soon``): they wait for at most a quarter of a second.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time

SOON = 0.25  # seconds

now = time.monotonic  # bound here: scripts replace clocks


def process_start():
    """When this process started, on the monotonic clock; None where the system does not say."""
    try:
        with open("/proc/self/stat", errors="replace") as file:
            after_name = file.read().rpartition(")")[2].split()
        ticks = int(after_name[19])  # field 22 of proc_pid_stat(5); the first one here is field 3
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
        return now() - age
    except (OSError, ValueError, IndexError, AttributeError):
        return None


def command_line():
    """What Python was started with."""
    found = list(getattr(sys, "orig_argv", ()))
    if found:
        return found
    try:
        with open("/proc/self/cmdline", "rb") as file:
            return [os.fsdecode(part) for part in file.read().split(b"\0")[:-1]]
    except OSError:
        return []


def number_of(variable, otherwise=None):
    """A number in the environment."""
    try:
        return int(os.environ[variable])
    except (KeyError, ValueError):
        return otherwise


class Writer:
    """Writes the events of this process.

    ``drain`` is called before each event, so that blocks of steps come in their place; ``forget``
    in a forked child, whose parent writes what it has not written yet.
    """

    def __init__(self, folder):
        self.folder = folder
        self.drain = self.forget = None
        self.began_at = now()
        self.forked = False
        self._start()
        os.register_at_fork(after_in_child=self._in_child)

    def _start(self):
        self._path = os.path.join(self.folder, f"{os.getpid()}.jsonl")
        self._lines = []
        self._lock = threading.RLock()
        self._written_at = 0.0
        self._failures = 0
        self._closed = False
        self._said = set()
        self._begun = False

    def _in_child(self):
        """A fork: nothing that the parent has not yet written is the child's."""
        self.forked = True
        if self.forget is not None:
            self.forget()
        self.began_at = now()
        self._start()

    def begin(self):
        """The first line, once."""
        if self._begun:
            return
        self._begun = True
        self.event(
            "began",
            at=self.began_at,
            pid=os.getpid(),
            parent=os.getppid(),
            started=process_start(),
            executable=sys.executable or "",
            argv=command_line(),
            folder=_current_folder(),
            forked=self.forked,
            rank=number_of("RANK"),
            world_size=number_of("WORLD_SIZE", 1),
            local_world_size=number_of("LOCAL_WORLD_SIZE", 0),
        )

    def event(self, kind, /, soon=False, **fields):
        """One more event; ``at`` is now unless it is given."""
        fields.setdefault("at", now())
        if self._closed:
            return
        if not self._begun:
            self.begin()
        if self.drain is not None and kind not in ("steps", "backwards"):
            self.drain()
        line = json.dumps({"event": kind, **fields}, separators=(",", ":"), default=str)
        with self._lock:
            self._lines.append(line)
        if not soon or now() - self._written_at > SOON:
            self.flush()

    def once(self, kind, /, **fields):
        """An event, unless the same was said before by this process."""
        key = (kind, *fields.values())
        if key not in self._said:
            self._said.add(key)
            self.event(kind, **fields)

    def failed(self, where, error):
        """An error of ours: said once for each place and kind."""
        with contextlib.suppress(Exception):  # there is nobody left to tell
            self.once("failed", where=where, error=f"{type(error).__name__}: {error}"[:500])

    def flush(self):
        """Write what is waiting."""
        with self._lock:
            lines, self._lines = self._lines, []
            self._written_at = now()
            if not lines or self._failures > 3:
                return
            try:
                self._append("".join(f"{line}\n" for line in lines).encode("utf-8", "replace"))
            except OSError:  # a full disk, a folder that is gone: the script goes on
                self._failures += 1

    def close(self):
        """The interpreter ends: from now on there is not even ``open``."""
        self.flush()
        self._closed = True

    def _append(self, text):
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            while text:
                text = text[os.write(descriptor, text) :]
        finally:
            os.close(descriptor)


def _current_folder():
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return ""
