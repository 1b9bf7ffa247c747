"""Which scenario runs when, and until when.

    0 s        38 s                      273 s        367 s    414 s   470 s  480 s
    │ device   │ probes                  │ snapshots  │ guard  │ acc.  │ end  │      shares of 480 s
               └── a part that ends early leaves its time to those after it

What found no time left is tried once more at the end, if there is time after all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from gpu_parts.catalogue import Part, Scenario
from gpu_parts.results import Ended, Recording

CLOSING_SECONDS = 10.0  # kept for writing and the summary
LEAST_SECONDS = 8.0  # importing torch and making a context take as long
NO_TIME = "no time left"


class Launch(Protocol):
    """Plays scenarios of a part in a fresh process, for so many seconds at most."""

    def __call__(self, part: Part, scenarios: Sequence[Scenario], seconds: float) -> Ended: ...


def run_parts(
    parts: Iterable[Part],
    recording: Recording,
    launch: Launch,
    *,
    seconds: float,
    dry: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Play every scenario within the time there is, and record what happens.

    Args:
        launch: plays scenarios.
        seconds: for everything.
        dry: play those alone that the dry mode has, all of a part in one process.
        clock: monotonic seconds.
    """
    began = clock()
    end = began + max(0.0, seconds - CLOSING_SECONDS)
    share, late = 0.0, []
    for part in parts:
        share += part.share
        until = min(end, began + share * (end - began))
        for scenarios in _processes(part, recording, dry):
            if not _play(part, scenarios, recording, launch, until - clock()):
                late.append((part, scenarios))
    for part, scenarios in late:
        if not _play(part, scenarios, recording, launch, end - clock()):
            for scenario in scenarios:
                recording.skipped(part.name, scenario.name, NO_TIME)


def _processes(part: Part, recording: Recording, dry: bool) -> Iterator[tuple[Scenario, ...]]:
    """The scenarios of each process; those that the dry mode leaves out are recorded as such."""
    if not dry:
        yield from ((scenario,) for scenario in part.scenarios)
        return
    for scenario in part.scenarios:
        if not scenario.dry:
            why = "needs CUDA" if scenario.cuda_only else "not in the dry run"
            recording.skipped(part.name, scenario.name, why)
    yield tuple(scenario for scenario in part.scenarios if scenario.dry)


def _play(
    part: Part, scenarios: Sequence[Scenario], recording: Recording, launch: Launch, left: float
) -> bool:
    """Play scenarios, if that is worth beginning; whether they were begun."""
    seconds = min(left, sum(scenario.seconds for scenario in scenarios))
    if seconds < LEAST_SECONDS:
        return False
    ended = launch(part, scenarios, seconds)
    recording.add(part.name, [scenario.name for scenario in scenarios], ended)
    if ended.status == "interrupted":
        raise KeyboardInterrupt
    return True
