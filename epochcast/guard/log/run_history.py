"""What of a log counts: the last run in it, and of every epoch the last time it was trained.

started 1   1 2 3 … 12   started 2 (goes on from 10)   11 12 …
                  └ 11 and 12 were lost ┘
"""

from __future__ import annotations

from collections.abc import Sequence

from epochcast.records import EpochDone, Notice, RunEnded, RunEvent, RunStarted


def last_run(events: Sequence[RunEvent]) -> tuple[RunEvent, ...]:
    """The events of the last run: from the first process that has its name."""
    starts = [(i, e.run) for i, e in enumerate(events) if isinstance(e, RunStarted)]
    others = [i for i, run in starts if run != starts[-1][1]]
    after = others[-1] if others else -1
    return tuple(events[next((i for i, _ in starts if i > after), 0) :])


def lasting_epochs(events: Sequence[RunEvent]) -> tuple[EpochDone, ...]:
    """Every epoch once, in order: what a killed process lost is left out."""
    kept: list[EpochDone] = []
    for event in events:
        if isinstance(event, RunStarted):
            kept = [e for e in kept if e.position.steps <= event.position.steps]
        elif isinstance(event, EpochDone):
            kept.append(event)
    return tuple(kept)


def steady_seconds(events: Sequence[RunEvent]) -> tuple[float, ...]:
    """Of every whole epoch that was not the first of its process, lost ones too."""
    done = [e for e in events if isinstance(e, EpochDone)]
    return tuple(e.seconds for e in done if not e.first and not e.position.step)


def first_start(events: Sequence[RunEvent]) -> RunStarted | None:
    """How the run began; None if the log does not say."""
    return next((e for e in events if isinstance(e, RunStarted)), None)


def ending(events: Sequence[RunEvent]) -> RunEnded | None:
    """How the last process ended; None while it goes on, and if it was killed."""
    for event in reversed(events):
        if isinstance(event, RunEnded):
            return event
        if not isinstance(event, Notice):
            return None
    return None
