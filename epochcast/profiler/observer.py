"""Who is told how a sweep goes; report/progress.py has those that write to a terminal."""

from __future__ import annotations

from typing import Protocol

from epochcast.records import Device, Measurement, Warning_


class Observer(Protocol):
    """Is told how a sweep goes."""

    def begin(self, trials: int | None, done: int, device: Device, data: str) -> None: ...
    def phase(self, label: str, phase: str) -> None: ...
    def finished(self, measurement: Measurement) -> None: ...
    def warn(self, warning: Warning_) -> None: ...


class SilentObserver:
    """Ignores everything."""

    def begin(self, trials: int | None, done: int, device: Device, data: str) -> None:
        return

    def phase(self, label: str, phase: str) -> None:
        return

    def finished(self, measurement: Measurement) -> None:
        return

    def warn(self, warning: Warning_) -> None:
        return


def note(observer: Observer, code: str, **details: str) -> None:
    """Warn of something that the sweep survives."""
    observer.warn(Warning_(code=code, details=tuple(details.items())))
