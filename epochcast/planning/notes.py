"""What a plan says beside its figures: what it assumes, and what was left out; codes with details.

The words are in ``report.text.warnings``; advice is computed, so that what is given is enough.
"""

from __future__ import annotations

from dataclasses import replace

from epochcast.costmodel.remarks import configuration_warnings, endless_epoch
from epochcast.planning.evaluation import EvaluatedCandidate
from epochcast.planning.limits import at_power
from epochcast.planning.pricing import TrainingSetup, memory_limit
from epochcast.planning.request import PlanRequest
from epochcast.planning.shortfall import enough, failure_notes
from epochcast.planning.stopping import Futility
from epochcast.planning.timeline import looks_at_training
from epochcast.records import Warning_
from epochcast.units import format_bytes, format_seconds

MANY_SEGMENTS = 10  # before anything happens


def notes(
    setup: TrainingSetup, request: PlanRequest, chosen: EvaluatedCandidate
) -> tuple[Warning_, ...]:
    """What the chosen option assumes, in the order in which it is said.

    Args:
        setup: what is trained, with the cost model that prices it.
        request: what was asked, and what was left for the plan to assume.
        chosen: the candidate that the plan is made of.
    """
    found = configuration_warnings(setup.model, chosen.cost)
    if request.unit == "epoch":
        found += endless_epoch(chosen.cost, request.samples)
    probed = setup.variant.world_size
    if chosen.config.world_size != probed and setup.variant.scaling is None:
        details = {"devices": str(chosen.config.world_size), "probed": str(probed)}
        if request.bandwidth is None:
            found.append(Warning_.of("assumed-devices", **details))
        else:
            found.append(Warning_.of("assumed-ring", **details))
    if request.folds > 1:
        found.append(Warning_.of("folds", folds=str(request.folds), samples=f"{setup.samples:,}"))
    elif request.samples not in (None, chosen.cost.samples()):
        details = {"samples": f"{setup.samples:,}", "probed": f"{chosen.cost.samples():,}"}
        found.append(Warning_.of("other-samples", **details))
    changed = chosen.global_batch != chosen.reference
    if changed and request.optimizer is None:
        details = {"batch": f"{chosen.global_batch:,}", "reference": f"{chosen.reference:,}"}
        found.append(Warning_.of("no-optimizer", **details))
    several = request.unit == "epoch" and (changed or len(request.batch_sizes) > 1)
    if several and request.noise_scale is None:
        found.append(Warning_.of("equal-epochs"))
    for curve in request.curves:
        if curve.non_finite_epoch is not None:
            within = curve.non_finite_epoch < curve.epochs[-1]
            code = "curve-not-finite-within" if within else "curve-not-finite"
            at = f"{request.unit} {curve.non_finite_epoch:g}"
            found.append(Warning_.of(code, metric=request.metric, at=at))
    found += _left_out_notes(request) + _beyond_notes(request, chosen.epochs)
    watches = request.rules or request.curves
    if request.mode is None and request.better == "max" and watches:
        found.append(Warning_.of("larger-is-better", metric=request.metric))
    found += [Warning_.of("unknown-use", limit=name) for name in _unknown_uses(chosen)]
    found += _disk_notes(chosen) + failure_notes(chosen) + _segment_notes(chosen)
    if chosen.budget.carbon_per_kwh is not None and not chosen.budget.watts:
        found.append(Warning_.of("carbon-without-watts"))
    if request.powers and at_power(chosen.budget, chosen.config, request.powers) is chosen.budget:
        found.append(Warning_.of("power-of-others"))
    if request.rules and not chosen.evaluate.epochs(chosen.epochs):
        found.append(Warning_.of("no-checks"))
    found += _memory_notes(setup, chosen.budget.memory or 0.0, memory_limit(setup, chosen.budget))
    if request.epochs_limit is None and chosen.epochs >= chosen.searched:
        found.append(Warning_.of("search-cap", epochs=f"{chosen.epochs:,}", unit=request.unit))
    if request.curves and any(isinstance(rule, Futility) for rule in request.rules):
        found.append(Warning_.of("futility-not-replayed"))
    return tuple(found)


def _left_out_notes(request: PlanRequest) -> list[Warning_]:
    """Learning curves that cannot be part of the forecast, beside others that are."""
    lacking = sum(not curve.training for curve in request.curves)
    if not (lacking and looks_at_training(request.rules)):
        return []
    return [Warning_.of("curves-without-training", count=str(lacking), of=str(len(request.curves)))]


def _beyond_notes(request: PlanRequest, last: int) -> list[Warning_]:
    """Learning curves that are longer than the plan."""
    if not request.curves:
        return []
    from epochcast.planning.curves import FEWEST_CHECKS

    ends = [c.epochs[-1] for c in request.curves if c.epochs[-1] > last]
    unit = request.unit
    found = [
        Warning_.of("curve-beyond-plan", end=f"{end:g}", last=f"{last:,}", unit=unit)
        for end in ends
    ]
    checks = max(sum(epoch <= last for epoch in c.epochs) for c in request.curves)
    if checks < FEWEST_CHECKS:
        details = {"last": f"{last:,}", "needed": str(FEWEST_CHECKS), "unit": unit}
        found.append(Warning_.of("few-checks-in-plan", **details))
    return found


def _disk_notes(chosen: EvaluatedCandidate) -> list[Warning_]:
    """That saves are further apart than on a larger disk, and what would put them closer."""
    saves = chosen.max_saves
    if saves is None or not chosen.disk_spreads_saves:
        return []
    free = replace(chosen, budget=replace(chosen.budget, disk=None))
    need = float(free.planned.disk_bytes(free.same(free.epochs)).max())
    advice = f"--disk {enough('disk', need).replace(' ', '')}"
    if saves > chosen.spare_saves:
        advice += f", or keep fewer: --keep {saves - chosen.spare_saves}"
    count = "1 checkpoint" if saves == 1 else f"{saves:,} checkpoints"
    return [Warning_.of("disk-spreads-saves", count=count, advice=advice)]


def _segment_notes(chosen: EvaluatedCandidate) -> list[Warning_]:
    """That cadences have no large common divisor, so that a followed run decides all the time."""
    steps = chosen.segment_steps
    if steps is None:
        return []
    cadences = (chosen.evaluate.epochs(chosen.epochs), chosen.saves.epochs(chosen.epochs))
    firsts = [moments[0] for moments in cadences if len(moments) > 1]
    if not firsts or min(firsts) < MANY_SEGMENTS * steps:
        return []
    details = {"steps": f"{steps:,}", "seconds": format_seconds(steps * chosen.unit_seconds)}
    return [Warning_.of("short-segments", **details)]


def _memory_notes(setup: TrainingSetup, allowed: float, usable: float) -> list[Warning_]:
    if allowed <= usable:
        return []
    sizes = {"limit": allowed, "usable": usable, "all": setup.model.device.memory_bytes}
    told = {name: format_bytes(size) for name, size in sizes.items()}
    return [Warning_.of("memory-above-device", **told)]


def _unknown_uses(chosen: EvaluatedCandidate) -> list[str]:
    """Limits that are set, but of which nobody knows what a run uses."""
    prices, budget = chosen.prices, chosen.budget
    saves = chosen.saves.epochs(chosen.epochs)
    unknown = {
        "disk": budget.disk is not None and prices.save_bytes is None and bool(saves),
        "memory": budget.memory is not None and prices.device_bytes is None,
    }
    return [name for name, is_unknown in unknown.items() if is_unknown]
