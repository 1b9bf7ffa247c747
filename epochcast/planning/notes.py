"""What a plan says about learning curves and the disk beside its figures: codes with details.

The words are in ``report.warnings``; advice is reckoned, so that what is given is enough.
"""

from __future__ import annotations

from dataclasses import replace

from epochcast.planning.appraisal import Appraisal
from epochcast.planning.request import PlanRequest
from epochcast.planning.shortfall import enough
from epochcast.planning.timeline import looks_at_training
from epochcast.records import Warning_


def note(code: str, **details: str) -> Warning_:
    """One of them."""
    return Warning_(code=code, details=tuple(details.items()))


def left_out_notes(request: PlanRequest) -> list[Warning_]:
    """Learning curves that cannot be part of the forecast, beside others that are."""
    lacking = sum(not curve.training for curve in request.curves)
    if not (lacking and looks_at_training(request.rules)):
        return []
    return [note("curves-without-training", count=str(lacking), of=str(len(request.curves)))]


def beyond_notes(request: PlanRequest, last: int) -> list[Warning_]:
    """Learning curves that are longer than the plan."""
    if not request.curves:
        return []
    from epochcast.planning.curves import FEWEST_CHECKS

    ends = [c.epochs[-1] for c in request.curves if c.epochs[-1] > last]
    found = [note("curve-beyond-plan", end=f"{end:g}", last=f"{last:,}") for end in ends]
    checks = max(sum(epoch <= last for epoch in c.epochs) for c in request.curves)
    if checks < FEWEST_CHECKS:
        found.append(note("few-checks-in-plan", last=f"{last:,}", needed=str(FEWEST_CHECKS)))
    return found


def disk_notes(chosen: Appraisal) -> list[Warning_]:
    """That saves are further apart than on a larger disk, and what would put them closer."""
    most = chosen.most_saves
    if most is None or not chosen.disk_spreads_saves:
        return []
    free = replace(chosen, budget=replace(chosen.budget, disk=None))
    need = float(free.planned.disk_bytes(free.same(free.epochs)).max())
    advice = f"--disk {enough('disk', need).replace(' ', '')}"
    if most > 1:
        advice += f", or keep fewer: --keep {most - 1}"
    count = "1 checkpoint" if most == 1 else f"{most:,} checkpoints"
    return [note("disk-spreads-saves", count=count, advice=advice)]
