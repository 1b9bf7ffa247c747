"""How often a script evaluates or saves, from the times that were seen. Pure.

    epochs      │────────│──E─────│────────│──E─────│      after the second and the fourth: 1/2
    in between  │──e──e──│──e──e──│                        every so many steps: 1/gap

What is done between two epochs counts by the epoch, what is done while one goes on by the step.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from statistics import median

from epochcast.records import Frequency
from epochcast.scripts.timeline import Interval, Occasion, Pass


def frequency(
    occasions: Sequence[Occasion],
    passes: Sequence[Pass],
    windows: Sequence[Interval],
    steps_of_an_update: float,
) -> Frequency:
    """Of what comes between epochs and of what does in them.

    What comes every so many steps may meet the end of an epoch, too.

    Args:
        occasions: each time that it was done.
        passes: of training.
        windows: of epochs, from the begin of one to that of the next.
        steps_of_an_update: optimizer steps in what a measurement counts as one.
    """
    gap = _usual_gap([one.index for one in occasions if _is_inside(one, passes)])
    ended = windows[-1].ended if windows else float("inf")  # of the last that is counted
    met = [x for x in occasions if not _is_inside(x, passes) and x.began < ended]
    between = [x for x in met if not (gap and x.index % gap == 0)]
    ends = [max(1, bisect_right([w.began for w in windows], x.began)) for x in between]
    return Frequency(
        per_epoch=_times_an_epoch(ends, max(1, len(windows) or len(passes))),
        per_step=steps_of_an_update / gap if gap else 0.0,
    )


def _is_inside(one: Occasion, passes: Sequence[Pass]) -> bool:
    """Whether training goes on after it in the same pass."""
    for p in passes:
        indices = [b.index for b in p.boundaries]
        if indices and p.began <= one.began <= p.interval.ended:
            return one.index < indices[-1]
    return False


def _times_an_epoch(epochs: Sequence[int], seen: int) -> float:
    """How often something is done that was done after these epochs.

    Where they are as far apart as every 2nd or 3rd, that is what counts: an evaluation after the
    second of three epochs comes after every other one, not after every third.

    Args:
        epochs: after which it was done, from 1; one several times if it was.
        seen: epochs in all.
    """
    known = sorted(set(epochs))
    if not known:
        return 0.0
    period = max([known[0], seen + 1 - known[-1], *(b - a for a, b in pairwise(known))])
    is_regular = all(b - a == period for a, b in pairwise(known))
    return len(epochs) / (len(known) * period if is_regular else seen)


def _usual_gap(indices: Sequence[int]) -> float:
    """Steps from one time to the next, the first counted from the start; 0 without any."""
    known = sorted(set(indices))
    gaps = [b - a for a, b in pairwise([0, *known]) if b > a]
    return median(gaps) if gaps else 0.0
