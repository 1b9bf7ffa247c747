"""The two clocks of a run, behind one small protocol so that tests can replay any run."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Where time comes from."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary moment; never goes back."""
        ...

    def wall(self) -> float:
        """Seconds since 1970, UTC."""
        ...


class SystemClock:
    """This machine's clocks."""

    monotonic = staticmethod(time.monotonic)
    wall = staticmethod(time.time)
