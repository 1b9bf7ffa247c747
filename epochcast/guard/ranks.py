"""Processes that train together, and the signals that ask them to leave.

rank 0   decision, next agreement in k steps ─┐
rank 1   0, 0                                 ├─ largest of each ─▶ the same on every rank
any      signal received                      ┘

What the first process decides, all do at the same step. A signal is noted when it comes, and acted
on where a checkpoint is whole; a second one of the same kind acts as it would have without us, so
that two Ctrl-C always leave.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

from epochcast.profiler.ranks import Ranks
from epochcast.records import StopReason

WATCHED = ("SIGTERM", "SIGUSR1", "SIGINT")  # SIGUSR1 does not exist on Windows
REASONS = tuple(StopReason)


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

    def note(self, number: int) -> None:
        """A signal was received, here or by another process of the run."""
        self.received = number

    @property
    def name(self) -> str:
        """Of the one that was received, for people: ``"SIGTERM"``; empty if none was."""
        return "" if self.received is None else signal.Signals(self.received).name

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.note(number)
        self._restore(number)
        if self._at_once is not None:
            self._at_once()

    def _restore(self, number: int) -> None:
        if number not in self._previous:  # restored already: another handler has called ours
            return
        previous = self._previous.pop(number)
        signal.signal(number, signal.SIG_DFL if previous is None else previous)


def wait_for_all(ranks: Ranks) -> None:
    """Go on when all processes are here; all must call it."""
    ranks.all_reduce_max([0])


def agree(
    ranks: Ranks, signals: Signals, reason: StopReason | None, number: int = 0
) -> tuple[StopReason | None, int]:
    """The first process's reason and number, on all; a signal to any of them is one to all.

    Args:
        ranks: the processes; all must call this.
        signals: of this process.
        reason: to stop, as this process sees it.
        number: any, from 0.
    """
    decides = ranks.rank == 0
    code = 1 + REASONS.index(reason) if reason is not None and decides else 0
    received, code, number = ranks.all_reduce_max(
        [signals.received or 0, code, number if decides else 0]
    )
    if received:
        signals.note(received)
    if received and not code:
        return StopReason.SIGNAL, number
    return (REASONS[code - 1] if code else None), number


def agree_flag(ranks: Ranks, flag: bool) -> bool:
    """The first process's flag, on all; all must call it."""
    return bool(ranks.all_reduce_max([int(flag and ranks.rank == 0)])[0])
