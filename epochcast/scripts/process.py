"""A command, started and ended: no shell, no terminal, no process left behind.

    with ScriptProcess(filled, folder, log=…) as process:      its output goes into a file
        while process.exit_code is None: …                     who waits says how long
    ─── gone: the command, and whatever it has started

Between us and the command is a process that keeps it (``keeper.py``), which outlives us by just as
long as it takes to end everything.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, cast

import psutil

from epochcast.errors import EpochcastError
from epochcast.scripts.command import Filled

KEEPER = Path(__file__).with_name("keeper.py")
TAIL_BYTES, TAIL_LINES = 16384, 12
GRACE_SECONDS = 3.0  # for a command that is asked to end
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")


@dataclass(frozen=True, kw_only=True)
class Overlay:
    """A folder whose changes go into another one, on the same file system.

    Attributes:
        folder: absolute; as the command sees it.
        upper: takes what is written.
        work: for the file system's own use, empty.
    """

    folder: str
    upper: str
    work: str


class OverlayRefused(Exception):
    """The system does not allow it."""


class ScriptProcess:
    """A command under way. A context manager: leaving ends all that it has started.

    Args:
        filled: what to start.
        folder: where; absolute.
        environment: variables beside the command's own, which go before those that are there.
        log: file that takes what it prints; None leaves it our own terminal.
        overlays: folders that it shall not change.
        user: whether overlays need a user namespace.
        outlive: whether it goes on where we end.

    Attributes:
        started: the moment, by ``CLOCK_MONOTONIC``.
        ended: likewise; None while it runs.
        exit_code: as of ``subprocess``: negative for a signal; None while it runs.
        used: processor seconds of all that it started; 0 until they are gone.

    Raises:
        OverlayRefused: the system does not allow the overlays; nothing was started.
        EpochcastError: the system refuses a process or the log.
    """

    def __init__(
        self,
        filled: Filled,
        folder: Path,
        *,
        environment: Mapping[str, str] | None = None,
        log: Path | None = None,
        overlays: Sequence[Overlay] = (),
        user: bool = True,
        outlive: bool = False,
    ) -> None:
        self.log = log
        self.started = 0.0
        self.ended: float | None = None
        self.exit_code: int | None = None
        self.used = 0.0
        self._said = threading.Event()
        self._gone = threading.Event()
        self._refused = ""
        self._start(filled, folder, dict(environment or {}), list(overlays), user, outlive)

    def _start(
        self,
        filled: Filled,
        folder: Path,
        environment: dict[str, str],
        overlays: list[Overlay],
        user: bool,
        outlive: bool,
    ) -> None:
        """Start the keeper and give it its order; the arguments are those of the class.

        Args:
            filled, folder, environment, overlays, user, outlive: as of the class.
        """
        try:
            sink = 1 if self.log is None else os.open(self.log, _APPEND, 0o644)
        except OSError as error:
            raise EpochcastError(f"cannot write the log {self.log}: {error.strerror}") from error
        errors = 2 if self.log is None else sink
        out, err = os.dup(sink), os.dup(errors)
        order = {
            "arguments": filled.arguments,
            "environment": {**os.environ, **dict(filled.environment), **environment},
            "folder": str(folder),
            "output": out,
            "errors": err,
            "overlays": [asdict(one) for one in overlays],
            "user": user,
            "outlive": outlive,
        }
        try:
            self._keeper = subprocess.Popen(
                [sys.executable, "-I", "-S", str(KEEPER)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=(out, err),
                start_new_session=True,  # Ctrl-C reaches us alone, who end the command
            )
        except OSError as error:
            raise EpochcastError(f"cannot start a process: {error}") from error
        finally:
            for number in {out, err, *(() if self.log is None else (sink,))}:
                os.close(number)
        self._orders = cast("IO[bytes]", self._keeper.stdin)
        self._tell(order)
        threading.Thread(target=self._listen, daemon=True).start()
        self._said.wait()
        if self._refused:
            self._close()
            raise OverlayRefused(self._refused)

    def __enter__(self) -> ScriptProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end(0.0)

    @property
    def pids(self) -> list[int]:
        """Of the command and of everything that it has started and that runs."""
        try:
            family = psutil.Process(self._keeper.pid).children(recursive=True)
        except psutil.Error:
            return []
        return [process.pid for process in family]

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until everything is gone; whether it is."""
        return self._gone.wait(seconds)

    def signal(self, number: int) -> None:
        """Send the command a signal, if it still runs."""
        self._tell({"signal": int(number)})

    def end(self, grace: float = GRACE_SECONDS) -> None:
        """End the command and everything that it has started; waits until they are gone.

        Args:
            grace: seconds between asking (SIGTERM) and ending (SIGKILL); 0 does not ask.
        """
        self._tell({"end": grace})
        self._close()

    def _close(self) -> None:
        with suppress(OSError):  # the keeper has ended by itself
            self._orders.close()
        self._keeper.wait()
        self._gone.wait()

    def _tell(self, order: Mapping[str, object]) -> None:
        try:
            self._orders.write(json.dumps(order).encode() + b"\n")
            self._orders.flush()
        except (OSError, ValueError):
            return  # it has ended, which the listener knows

    def _listen(self) -> None:
        for line in cast("IO[bytes]", self._keeper.stdout):
            said = json.loads(line)
            self._refused = said.get("refused", "")
            if "started" in said:
                self.started = said["at"]
            if "ended" in said:
                self.exit_code, self.ended = said["ended"], said["at"]
            self.used = said.get("used", 0.0)
            self._said.set()
        cast("IO[bytes]", self._keeper.stdout).close()
        self._said.set()
        self._gone.set()


_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND


def how_ended(exit_code: int | None) -> str:
    """In words: ``"ended with exit code 2"``, ``"was ended by SIGKILL"``."""
    if exit_code is None:
        return "was ended with its keeper"
    if exit_code < 0:
        return f"was ended by {signal.Signals(-exit_code).name}"
    return f"ended with exit code {exit_code}"


def tail(log: Path, lines: int = TAIL_LINES) -> list[str]:
    """The last lines of a command's output, as a terminal would show them: no control codes."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    shown = [line.rpartition("\r")[2] for line in text.replace("\r\n", "\n").split("\n")]
    clean = [_CONTROL.sub("", line).rstrip() for line in shown]
    return [line for line in clean if line][-lines:]
