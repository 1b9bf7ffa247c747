"""From a cost model, a budget and a request to a plan.

candidates ──price──▶ medians ──shortlist──▶ appraise one by one on shared draws
                                                   │  cadences ▶ affordable epochs ▶ saves
                                                   ▼
                  ranked by the objective, the first with its timeline ──▶ Plan
                  none that fits ──▶ the nearest thing that would (Shortfall)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from epochcast.costmodel.model import CostModel
from epochcast.costmodel.prediction import (
    FAR_DOUBLINGS,
    Question,
    choose_variant,
    configuration,
    place,
    require_known_size,
)
from epochcast.errors import UsageError
from epochcast.planning.appraisal import Appraisal
from epochcast.planning.candidates import candidates, reference_batch, shortlist
from epochcast.planning.draws import DRAWS
from epochcast.planning.pricing import Job, fold_samples, price
from epochcast.planning.request import PlanRequest, progress
from epochcast.planning.shortfall import nearest
from epochcast.planning.stopping import Futility, Rule, rule_record
from epochcast.planning.timeline import stop_forecast, timeline
from epochcast.records import Budget, Option, Outlook, Plan, Warning_

if TYPE_CHECKING:
    from epochcast.planning.curves import FittedCurve

SHOWN = 8  # options in a plan


def plan(model: CostModel, budget: Budget | None = None, **wishes: Any) -> Plan:
    """What to run within a budget, decided before the run.

    Args:
        model: of the workload, as from ``fit`` or ``fitted_model``.
        budget: the limits; None for none.
        **wishes: the fields of ``planning.request.PlanRequest``, e.g. ``epochs=90``,
            ``batch_sizes=(256,)``, ``rules=(Patience(checks=5),)``.

    Raises:
        UsageError: wishes that contradict each other.
        PredictionError: the model knows no such knob or precision.
        DoesNotFit: nothing fits; its ``shortfall`` is the nearest thing that would.
    """
    return make_plan(model, budget or Budget(), PlanRequest(**wishes))


def make_plan(model: CostModel, budget: Budget, request: PlanRequest) -> Plan:
    """As ``plan``, with the request as one record."""
    _require_an_end(budget, request)
    _require_confidence(budget.confidence)
    job = _job(model, request)
    priced = price(job, candidates(job, request))
    appraisals = [
        Appraisal(priced, int(i), budget, request) for i in shortlist(priced, budget, request)
    ]
    fitting = [a for a in appraisals if a.fits]
    if not fitting:
        raise nearest(appraisals)
    ranked = sorted(fitting, key=lambda a: request.objective.key(a.option))
    chosen = replace(ranked[0], chosen=True)
    rules = tuple(_until(rule, chosen.epochs) for rule in request.rules)
    fitted = _fitted(request)
    forecast = stop_forecast(chosen, request, fitted)
    return Plan(
        workload=model.workload,
        device=model.device,
        samples=job.samples,
        folds=request.folds,
        budget=budget,
        minimum_epochs=request.min_epochs,
        target_epochs=request.epochs,
        maximum_epochs=request.max_epochs,
        objective=request.objective.name,
        options=with_pareto([a.option for a in (chosen, *ranked[1:])])[:SHOWN],
        timeline=timeline(chosen, forecast),
        prices=chosen.unit_prices,
        metric=request.metric,
        mode=request.better,
        stop_rules=tuple(rule_record(rule) for rule in rules),
        final_save_seconds=chosen.reserve_seconds + chosen.prices.save.median,
        save_interval_seconds=chosen.save_interval_seconds,
        mtbf_seconds=request.mtbf_seconds,
        keep=request.keep,
        outlook=_outlook(chosen, request, fitted),
        probing_seconds=model.probing_seconds,
        seed=request.seed,
        warnings=tuple(_warnings(job, request, chosen)),
    )


def _require_an_end(budget: Budget, request: PlanRequest) -> None:
    ends = (budget.deadline, budget.money, budget.energy, request.most_epochs)
    if all(end is None for end in ends):
        raise UsageError(
            "nothing ends the run: give epochs, or a limit of time, money or energy, "
            "e.g. --epochs 90 or --deadline 8h"
        )


def _require_confidence(confidence: float) -> None:
    rarest = 1 / DRAWS
    if not rarest <= confidence <= 1 - rarest:
        raise UsageError(
            f"confidence must lie between {rarest:.1%} and {1 - rarest:.1%}, which {DRAWS:,} draws "
            f"can tell apart, but got {confidence:.6g}"
        )


def _until(rule: Rule, epochs: int) -> Rule:
    """A rule that looks ahead, to the plan's end unless it was told how far."""
    if isinstance(rule, Futility) and rule.horizon is None:
        return replace(rule, horizon=epochs)
    return rule


def _job(model: CostModel, request: PlanRequest) -> Job:
    question = Question(
        epochs=1, precision=request.precision, workers=request.workers, sizes=request.sizes
    )
    variant = choose_variant(model, question)
    config = configuration(model, variant, question)
    at = place(model, variant, config)
    require_known_size(model, at)
    samples, eval_samples = request.samples or at.samples(), at.eval_samples()
    if request.folds > samples:
        raise UsageError(
            f"folds must be at most the {samples:,} samples, but got {request.folds:,}"
        )
    if request.folds > 1:
        samples, eval_samples = fold_samples(samples, request.folds)
    return Job(
        model=model,
        variant=variant,
        config=config,
        samples=samples,
        eval_samples=eval_samples,
        bandwidth=request.bandwidth,
    )


def with_pareto(options: Sequence[Option]) -> tuple[Option, ...]:
    """The options, with those marked that no other one beats in everything at once."""
    costs = [_costs(option) for option in options]
    return tuple(
        replace(option, pareto=not any(_dominates(other, mine) for other in costs))
        for option, mine in zip(options, costs, strict=True)
    )


def _costs(option: Option) -> tuple[float, ...]:
    """Time, money (or device time), memory, and the progress still missing; less is better."""
    device_time = option.seconds.p50 * option.config.world_size
    money = option.money.p50 if option.money else device_time
    memory = option.device_bytes.p50 if option.device_bytes else 0.0
    return option.seconds.p50, money, memory, -progress(option)


def _dominates(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a != b and all(x <= y for x, y in zip(a, b, strict=True))


def _fitted(request: PlanRequest) -> list[FittedCurve]:
    """The learning curves, each fitted once."""
    if not request.curves:
        return []
    from epochcast.planning.curves import fit_curve

    return [fit_curve(curve, request.better) for curve in request.curves]


def _outlook(
    chosen: Appraisal, request: PlanRequest, fitted: Sequence[FittedCurve]
) -> Outlook | None:
    if not fitted:
        return None
    from epochcast.planning.curves import outlook

    longest = max(fitted, key=lambda one: one.seen.epochs[-1])
    return outlook(longest, chosen.epochs, request.min_delta)


def _warnings(job: Job, request: PlanRequest, chosen: Appraisal) -> list[Warning_]:
    """What the chosen option assumes."""
    found = [
        _note("far-extrapolation" if d > FAR_DOUBLINGS else "extrapolation", name=name,
              factor=f"{2**d:.2g}")
        for name, d in chosen.place.extrapolated()
    ]  # fmt: skip
    if job.variant.rounds == 1:
        found.append(_note("one-round"))
    found += job.model.calibration.notes(chosen.place.probed_step_scatter())
    probed = job.variant.world_size
    if chosen.config.world_size != probed:
        details = {"devices": str(chosen.config.world_size), "probed": str(probed)}
        if request.bandwidth is None:
            found.append(_note("assumed-devices", **details))
        else:
            found.append(_note("assumed-ring", **details))
    if request.folds > 1:
        found.append(_note("folds", folds=str(request.folds), samples=f"{job.samples:,}"))
    elif request.samples not in (None, chosen.place.samples()):
        details = {"samples": f"{job.samples:,}", "probed": f"{chosen.place.samples():,}"}
        found.append(_note("other-samples", **details))
    another = chosen.global_batch != reference_batch(job, request) or len(request.batch_sizes) > 1
    if another and request.noise_scale is None:
        found.append(_note("equal-epochs"))
    for curve in request.curves:
        if curve.non_finite_epoch is not None:
            found.append(_note("curve-not-finite", metric=request.metric,
                               epoch=f"{curve.non_finite_epoch:g}"))  # fmt: skip
    watches = request.rules or request.curves
    if request.mode is None and request.better == "max" and watches:
        found.append(_note("larger-is-better", metric=request.metric))
    found += [_note("unknown-use", limit=name) for name in _unknown_uses(chosen)]
    if chosen.budget.carbon_per_kwh is not None and not chosen.budget.watts:
        found.append(_note("carbon-without-watts"))
    if request.rules and not chosen.evaluate.epochs(chosen.epochs):
        found.append(_note("no-checks"))
    if request.most_epochs is None and chosen.epochs >= chosen.searched:
        found.append(_note("search-cap", epochs=f"{chosen.epochs:,}"))
    if request.curves and any(isinstance(rule, Futility) for rule in request.rules):
        found.append(_note("futility-not-replayed"))
    return found


def _unknown_uses(chosen: Appraisal) -> list[str]:
    """Limits that are set, but of which nobody knows what a run uses."""
    prices, budget = chosen.prices, chosen.budget
    saves = chosen.saves.epochs(chosen.epochs)
    unknown = {
        "disk": budget.disk is not None and prices.save_bytes is None and bool(saves),
        "memory": budget.memory is not None and prices.device_bytes is None,
    }
    return [name for name, is_unknown in unknown.items() if is_unknown]


def _note(code: str, **details: str) -> Warning_:
    return Warning_(code=code, details=tuple(details.items()))
