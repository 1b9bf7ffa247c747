"""Writes the time used into the ledger: at least every second, for a kill forgets the rest."""

from __future__ import annotations

from epochcast.guard.books import Books
from epochcast.guard.progress import Progress
from epochcast.guard.telling import Teller
from epochcast.guard.timekeeping import Timekeeper
from epochcast.records import StopReason

BEAT_SECONDS = 1.0  # between notes of the time used: what a kill may forget


class Bookkeeper:
    """Of one process.

    Attributes:
        due_at: when the time used is to be noted again; monotonic seconds.
    """

    __slots__ = ("_books", "_failed", "_progress", "_teller", "_time", "due_at")

    def __init__(self, books: Books, time: Timekeeper, progress: Progress, teller: Teller) -> None:
        self._books = books
        self._time = time
        self._progress = progress
        self._teller = teller
        self._failed = False  # told once
        self.due_at = time.zero

    def beat(self, now: float, reason: StopReason | None) -> None:
        """Note the time used, where that is due."""
        if now >= self.due_at:
            self.note(now, reason)
            self.due_at = now + BEAT_SECONDS

    def note(self, now: float, reason: StopReason | None, durable: bool = False) -> None:
        """Note the time used, and why the run stops, if it does.

        Where it fails, the run goes on: a checkpoint has a copy of what it would say.

        Args:
            durable: whether it must survive a power cut, not only a kill.
        """
        steps = self._progress.position.steps
        try:
            self._books.note(self._time.spent(now), steps, reason, durable)
        except OSError as error:
            if not self._failed:
                self._failed = True
                self._teller.note("ledger-failed", error=str(error))
