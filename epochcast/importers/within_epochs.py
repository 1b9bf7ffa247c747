"""Several checks of one whole-numbered epoch, each at its part of that epoch, by their steps.

    epoch   0    0    0     1    1    1        Lightning logs the number of the epoch with each of
    step   49   99  149   199  249  299        three checks: they are at 0.33, 0.67, 1, 1.33, …

The last check of an epoch is at its end: the steps from one to the next are those of an epoch, and
those of the last epoch, which a run may have left early, are measured by the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import isfinite
from statistics import median

from epochcast.importers.cells import parse_number
from epochcast.importers.rows import Row

Placed = tuple[float, Row]  # epochs done, and what was logged then


def by_steps(placed: Sequence[Placed], metric: str, step: str | None) -> list[Placed]:
    """Rows at parts of epochs where an epoch has checks at several steps; else as they are.

    Args:
        placed: by the number of the epoch that was being trained, from 1.
        metric: its column.
        step: that of the steps, which rise over the whole run.
    """
    known = [(epoch, row.get(step, parse_number), row) for epoch, row in placed]
    checks = [
        (epoch, at)
        for epoch, at, row in known
        if at is not None and row.get(metric, parse_number) is not None
    ]
    ends: dict[float, float] = {}
    for epoch, at in sorted(set(checks)):
        ends[epoch] = max(at, ends.get(epoch, at))
    whole = all(epoch == int(epoch) for epoch, _ in placed)
    rises = all(a < b for a, b in pairwise(ends.values())) and all(map(isfinite, ends.values()))
    if len(ends) < 2 or len(set(checks)) == len(ends) or not (whole and rises):
        return list(placed)
    each = _steps_of_an_epoch(ends)
    return [(e if at is None else _place(e, at, ends, each), row) for e, at, row in known]


def _steps_of_an_epoch(ends: dict[float, float]) -> float:
    spans = [(b - a) / (f - e) for (e, a), (f, b) in pairwise(ends.items())]
    if len(spans) > 1:
        return median(spans[:-1])
    epoch, end = next(iter(ends.items()))
    return max(spans[0], end / epoch)  # of two epochs: the second may have been left early


def _place(epoch: float, at: float, ends: dict[float, float], each: float) -> float:
    """Epochs done at a step of an epoch, the end of the one before known or not."""
    before, end = ends.get(epoch - 1), ends.get(epoch)
    if before is not None:
        done = epoch - 1 + (at - before) / each
    else:
        done = epoch - ((end if end is not None else at) - at) / each
    return round(min(max(done, epoch - 1), epoch), 9)
