"""Events to whoever watches a run; one that fails is left out, and the run goes on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from epochcast.errors import StoreError
from epochcast.guard.clock import Clock
from epochcast.guard.progress import Progress
from epochcast.records import EpochDone, Notice, RunEnded, RunEvent, RunStarted, Warning_


class Watcher(Protocol):
    """Who is told what happens: terminal, log, TensorBoard."""

    def see(self, event: RunEvent) -> None:
        """One more event."""
        ...

    def close(self) -> None:
        """No more events."""
        ...


class Teller:
    """Tells watchers, and keeps what a summary needs.

    Args:
        watchers: in the order in which they are told; none in processes that do not speak.
        progress: where the run is when something is noted.

    Attributes:
        heard: the start, all notices, the latest epoch and the end.
    """

    def __init__(self, watchers: Sequence[Watcher], clock: Clock, progress: Progress) -> None:
        self._watchers = list(watchers)
        self._clock = clock
        self._progress = progress
        self._told: list[RunStarted | Notice] = []
        self._epoch: EpochDone | None = None
        self._end: RunEnded | None = None

    @property
    def heard(self) -> tuple[RunEvent, ...]:
        """In order."""
        late = (event for event in (self._epoch, self._end) if event is not None)
        return (*self._told, *late)

    def tell(self, event: RunEvent) -> None:
        """One more event, to all."""
        if isinstance(event, EpochDone):
            self._epoch = event
        elif isinstance(event, RunEnded):
            self._end = event
        else:
            self._told.append(event)
        for watcher in list(self._watchers):
            try:
                watcher.see(event)
            except (OSError, StoreError) as error:  # a full disk must not end a training run
                self._watchers.remove(watcher)
                self.note("watcher-failed", error=str(error))

    def note(self, code: str, **details: str) -> None:
        """Something that people should see; its text is in report/warnings.py."""
        notice = Warning_(code=code, details=tuple(details.items()))
        position = self._progress.position
        self.tell(Notice(wall_time=self._clock.wall(), position=position, notice=notice))

    def close(self) -> None:
        """No more events."""
        for watcher in self._watchers:
            watcher.close()
