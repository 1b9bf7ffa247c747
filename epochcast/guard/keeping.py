"""Has checkpoints written, by one process or by all, and knows whether one is in hand."""

from __future__ import annotations

from epochcast.guard.books import Books, Write
from epochcast.guard.checking import States
from epochcast.guard.ranks import Ranks, wait_for_all
from epochcast.records import Position


class Keeper:
    """The checkpoints of one process.

    Args:
        write: the user's function.
        everyone: whether all processes call it, or the first alone.

    Attributes:
        ever: whether there is any checkpoint.
        here: whether the newest one is of this very moment.
        at: when the newest one was made, or the process began; monotonic seconds.
    """

    def __init__(
        self, books: Books, write: Write, ranks: Ranks, everyone: bool, ever: bool, now: float
    ) -> None:
        self._books = books
        self._write = write
        self._ranks = ranks
        self._everyone = everyone and ranks.size > 1
        self.ever = self.here = ever
        self.at = now

    def save(self, position: Position, watch: States, is_best: bool) -> None:
        """Write a checkpoint, whole or not at all; of several processes, all call this."""
        archive, first = self._books.archive, self._ranks.rank == 0
        number = archive.begin() if first else 0
        if self._everyone:
            (number,) = self._ranks.most([number])  # the folder is there
        if self._everyone or first:
            self._write(archive.content(number))
        if self._everyone:
            wait_for_all(self._ranks)  # everything is written
        self._books.finish_checkpoint(number, position, watch, is_best)
        wait_for_all(self._ranks)  # it is whole
        self.ever = self.here = True
