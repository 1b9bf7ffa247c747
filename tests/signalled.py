"""A signal that comes in the midst of a run that a framework's callback follows."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any, Protocol

import pytest

from epochcast.records import StopReason


class Counts(Protocol):
    """What counts the steps of a run, and calls back after each."""

    steps: int
    each_step: Callable[[], None]


def left_after(step: int, name: str, run: Any, counts: Counts) -> object:
    """Fit until a signal makes the process leave; its exit code. Handlers are as they were."""
    number = getattr(signal, name)
    before = signal.getsignal(number)

    def send() -> None:
        if counts.steps == step:
            os.kill(os.getpid(), number)

    counts.each_step = send
    with pytest.raises(SystemExit) as left:
        run.fit()
    assert (counts.steps, run.follow.reason) == (step, StopReason.SIGNAL)
    assert signal.getsignal(number) is before
    return left.value.code
