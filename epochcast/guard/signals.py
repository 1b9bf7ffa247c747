"""Signals that ask a run to leave: noted when they come, acted on where a checkpoint is whole.

A second one of the same kind acts as it would have without us, so that two Ctrl-C always leave.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

WATCHED = ("SIGTERM", "SIGUSR1", "SIGINT")  # SIGUSR1 does not exist on Windows


class Signals:
    """A context in which signals are noted in ``received`` instead of ending the process.

    Args:
        names: of the signals.
        at_once: called in the handler, in the main thread; where nothing changes weights at the
            moment it may save and raise.
    """

    def __init__(
        self, names: Sequence[str] = WATCHED, at_once: Callable[[], None] | None = None
    ) -> None:
        self.received: int | None = None
        self._numbers = [int(getattr(signal, name)) for name in names if hasattr(signal, name)]
        self._at_once = at_once
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            for number in self._numbers:
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        for number in list(self._previous):
            self._restore(number)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        self._restore(number)
        if self._at_once is not None:
            self._at_once()

    def _restore(self, number: int) -> None:
        if number not in self._previous:  # restored already: another handler has called ours
            return
        previous = self._previous.pop(number)
        signal.signal(number, signal.SIG_DFL if previous is None else previous)


def name_of(number: int) -> str:
    """For people: ``"SIGTERM"``."""
    return signal.Signals(number).name
