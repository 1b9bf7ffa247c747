"""Runs that practically never end, and those that rarely get from one save to the next.

A stretch of s seconds between two saves, after a restart of R, is done without a failure with a
probability of e^(−(R + s)/M): one attempt in e^((R + s)/M) gets there. Where that is a large
number, a run takes ages, which figures with thirty digits do not tell.
"""

from __future__ import annotations

from math import exp, expm1

from epochcast.planning.appraisal import Appraisal
from epochcast.planning.budget import upper_quantile
from epochcast.planning.failures import HOPELESS
from epochcast.records import Warning_
from epochcast.units import LONGEST_SECONDS, format_seconds

RARELY = 0.1  # of runs fail at all: of the others it is no use to speak
MANY_ATTEMPTS = 10.0  # of which one gets to the next save: then most of the time is lost


def why_endless(a: Appraisal, epochs: int, level: float) -> str | None:
    """That so many epochs take over 3,000 years in a share ``level`` of runs; None if less."""
    if upper_quantile(a.planned.seconds(a.same(epochs)), level) <= LONGEST_SECONDS:
        return None
    run = f"{epochs:,} epochs" if epochs > 1 else "1 epoch"
    return f"{run} with {a.config.label} may take over 3,000 years" + _because(a, epochs)


def _because(a: Appraisal, epochs: int) -> str:
    if a.request.mtbf_seconds is None:
        return ": give fewer epochs or samples"
    return (
        f", as failures come every {format_seconds(a.request.mtbf_seconds)}, and from a save to "
        f"the next it takes {format_seconds(stretch_seconds(a, epochs))}: the run practically "
        "never ends, unless failures are rarer or saves closer together"
    )


def stretch_seconds(a: Appraisal, epochs: int) -> float:
    """From one save to the next, in a run of so many epochs."""
    work = work_seconds(a, epochs)
    usual = max(a.segment_seconds, work / a.most_saves) if a.most_saves else a.segment_seconds
    return min(usual, work)


def work_seconds(a: Appraisal, epochs: int) -> float:
    """Of a run of so many epochs, without evaluations, saves and failures."""
    return a.prices.ready_seconds + epochs * a.prices.epoch_seconds


def failure_notes(chosen: Appraisal) -> list[Warning_]:
    """That after a failure, which is likely enough, few attempts get to the next save."""
    mtbf = chosen.request.mtbf_seconds
    if mtbf is None:
        return []
    stretch = stretch_seconds(chosen, chosen.epochs)
    attempts = exp(min((chosen.restart_seconds + stretch) / mtbf, HOPELESS))
    failing = -expm1(-work_seconds(chosen, chosen.epochs) / mtbf)
    if attempts < MANY_ATTEMPTS or failing < RARELY:
        return []
    details = {
        "mtbf": format_seconds(mtbf),
        "stretch": format_seconds(stretch),
        "restart": format_seconds(chosen.restart_seconds),
        "attempts": f"{attempts:,.0f}",
    }
    return [Warning_(code="rarely-saved", details=tuple(details.items()))]
