"""All processes do what the first one decides; a signal to any of them is one to all."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from epochcast.guard.ranks import Signals, agree, agree_flag
from epochcast.profiler.ranks import Alone
from epochcast.records import StopReason


@dataclass
class OfTwo:
    """One of two processes; the other one says ``other`` whatever it is asked."""

    rank: int
    other: Sequence[int]
    size: int = 2

    def all_reduce_max(self, values: Sequence[int]) -> list[int]:
        return [max(pair) for pair in zip(values, self.other, strict=True)]


@pytest.mark.parametrize("reason", [None, *StopReason])
def test_alone_one_agrees_with_oneself(reason: StopReason | None) -> None:
    assert agree(Alone(), Signals(()), reason, 7) == (reason, 7)


@pytest.mark.parametrize("reason", [None, *StopReason])
def test_the_first_ones_reason_and_number_hold_on_all(reason: StopReason | None) -> None:
    said: list[int] = []

    class First(OfTwo):
        def all_reduce_max(self, values: Sequence[int]) -> list[int]:
            said[:] = values
            return super().all_reduce_max(values)

    assert agree(First(0, [0, 0, 0]), Signals(()), reason, 3) == (reason, 3)
    second = OfTwo(1, said)
    assert agree(second, Signals(()), StopReason.BUDGET, 100) == (reason, 3)


def test_a_signal_to_one_is_one_to_all_unless_there_is_a_better_reason() -> None:
    signals = Signals(())
    told = OfTwo(0, [signal.SIGTERM, 0, 0])
    assert agree(told, signals, None)[0] is StopReason.SIGNAL
    assert signals.name == "SIGTERM"
    assert agree(told, Signals(()), StopReason.PLAN_DONE)[0] is StopReason.PLAN_DONE


def test_only_the_first_ones_flag_counts() -> None:
    assert agree_flag(OfTwo(0, [0]), True)
    assert not agree_flag(OfTwo(1, [0]), True)
    assert agree_flag(OfTwo(1, [1]), False)


def test_a_signal_is_noted_and_the_second_one_acts_as_ever() -> None:
    acted: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: acted.append(number))
    try:
        with Signals(("SIGUSR1",)) as signals:
            os.kill(os.getpid(), signal.SIGUSR1)
            assert (signals.name, acted) == ("SIGUSR1", [])
            os.kill(os.getpid(), signal.SIGUSR1)
            assert acted == [signal.SIGUSR1]
    finally:
        signal.signal(signal.SIGUSR1, before)
