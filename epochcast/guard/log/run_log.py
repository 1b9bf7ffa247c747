"""The log of a followed run: JSON Lines, one event a line, written at once.

    {"event":"started","schema":1,"run":"a1b2",…}      every process that continues the run
    {"event":"epoch","wall_time":1.76e9,…}             adds to the same file
    {"event":"notice",…}
    {"event":"ended",…}

A line goes to the operating system in one piece, so a killed process loses at most the end of its
last line. A reader takes no notice of a line without its end; the next writer removes it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from epochcast.errors import StoreError
from epochcast.guard.log.event_lines import HEAD, UnknownEvent, event_of, line_of
from epochcast.records import Notice, Position, RunEvent, Warning_


class LogWriter:
    """Adds every event it sees to a file."""

    def __init__(self, path: str | Path) -> None:
        """Open the file: a new one, or that of an earlier process of the run.

        Raises:
            StoreError: it cannot be written, or holds something else.
        """
        self.path, self._whole = Path(path), True
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            self._mend()
        except OSError as error:
            raise self._failed(error.strerror) from error
        except StoreError:
            self.close()
            raise

    def see(self, event: RunEvent) -> None:
        """Write one line.

        Raises:
            StoreError: it could not be written; the next call first removes what was.
        """
        line = line_of(event)
        try:
            if not self._whole:
                self._mend()
            self._whole = os.write(self._file, line) == len(line)
        except OSError as error:
            raise self._failed(error.strerror) from error
        if not self._whole:
            raise self._failed("only a part of the line could be written")

    def close(self) -> None:
        """Close the file; nothing more can be written."""
        os.close(self._file)

    def _mend(self) -> None:
        """End the last line of a killed process: with its end if it is whole, else without it."""
        content = os.pread(self._file, os.fstat(self._file).st_size, 0)
        if not HEAD.startswith(content[: len(HEAD)]):
            raise StoreError(f"{self.path} is not the log of a run; give another name")
        end = content.rfind(b"\n") + 1
        if _is_json(content[end:]):
            os.write(self._file, b"\n")
        elif end < len(content):
            os.ftruncate(self._file, end)
        self._whole = True

    def _failed(self, why: str | None) -> StoreError:
        return StoreError(f"cannot write the log {self.path}: {why}")


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


class LogReader:
    """Reads a log, and later what was added to it."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._offset = self._lines = 0
        self._last: tuple[float, Position] = (0.0, Position())

    def news(self) -> tuple[RunEvent, ...]:
        """The events of the lines that were ended since the last call.

        An event of an unknown kind, which a newer epochcast may write, becomes a notice.

        Raises:
            StoreError: there is no such file, or a line is not an event; its number is named.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                content = file.read()
        except OSError as error:
            raise StoreError(f"cannot read the log {self.path}: {error.strerror}") from error
        whole = content[: content.rfind(b"\n") + 1]
        self._offset += len(whole)
        return tuple(self._events(whole))

    def _events(self, content: bytes) -> Iterator[RunEvent]:
        for line in content.split(b"\n")[:-1]:
            self._lines += 1
            try:
                event = event_of(line)
            except UnknownEvent as error:
                event = self._unknown(error.kind)
            except ValueError as error:
                where = f"line {self._lines} of {self.path}"
                raise StoreError(f"{where} is not an event of a run: {error}") from error
            self._last = event.wall_time, event.position
            yield event

    def _unknown(self, kind: str) -> Notice:
        details = (("kind", kind), ("line", str(self._lines)))
        notice = Warning_(code="unknown-event", details=details)
        return Notice(wall_time=self._last[0], position=self._last[1], notice=notice)


def read_log(path: str | Path) -> tuple[RunEvent, ...]:
    """All events of a log, of a running or a finished run.

    Raises:
        StoreError: there is no such file, or a line is not an event; its number is named.
    """
    return LogReader(path).news()
