"""Processes that train together: what the first one decides, all do at the same step.

rank 0   decision, next agreement in k steps ─┐
rank 1   0, 0                                 ├─ largest of each ─▶ the same on every rank
any      signal received                      ┘
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from epochcast.guard.signals import Signals
from epochcast.records import StopReason

REASONS = tuple(StopReason)


class Ranks(Protocol):
    """How the processes of one run agree; ``integrations/distributed.py`` does it with torch."""

    @property
    def rank(self) -> int:
        """Of this process; 0 decides."""
        ...

    @property
    def size(self) -> int:
        """How many processes there are."""
        ...

    def most(self, values: Sequence[int]) -> list[int]:
        """The largest of each value over all processes; all must call it."""
        ...


class Alone:
    """One process."""

    rank = 0
    size = 1

    def most(self, values: Sequence[int]) -> list[int]:
        return list(values)


def wait_for_all(ranks: Ranks) -> None:
    """Go on when all processes are here; all must call it."""
    ranks.most([0])


def agree(
    ranks: Ranks, signals: Signals, reason: StopReason | None, number: int = 0
) -> tuple[StopReason | None, int]:
    """The first process's reason and number, on all; a signal to any of them is one to all."""
    decides = ranks.rank == 0
    code = 1 + REASONS.index(reason) if reason is not None and decides else 0
    signal, code, number = ranks.most([signals.received or 0, code, number if decides else 0])
    if signal:
        signals.received = signal
    if signal and not code:
        return StopReason.SIGNAL, number
    return (REASONS[code - 1] if code else None), number


def agree_flag(ranks: Ranks, flag: bool) -> bool:
    """The first process's flag, on all; all must call it."""
    return bool(ranks.most([int(flag and ranks.rank == 0)])[0])
