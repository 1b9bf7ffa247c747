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
    Question,
    choose_variant,
    configuration,
    place,
    require_known_size,
)
from epochcast.errors import UsageError
from epochcast.planning.appraisal import Appraisal
from epochcast.planning.candidates import candidates, shortlist
from epochcast.planning.draws import DRAWS
from epochcast.planning.endless import why_endless
from epochcast.planning.notes import notes
from epochcast.planning.option import option_of, unit_prices_of
from epochcast.planning.pricing import Job, fold_samples, price
from epochcast.planning.request import LONGEST, PlanRequest, progress
from epochcast.planning.shortfall import nearest
from epochcast.planning.stopping import Futility, Rule, rule_record
from epochcast.planning.timeline import stop_forecast, timeline
from epochcast.planning.wishes import request_from
from epochcast.records import Budget, Option, Outlook, Plan
from epochcast.units import LONGEST_SECONDS

if TYPE_CHECKING:
    from epochcast.planning.curves import FittedCurve

SHOWN_LEVEL = 0.9  # P90 is the longest time that people see
SHOWN = 8  # options in a plan, unless more than that are beaten by none


def plan(model: CostModel, budget: Budget | None = None, **wishes: Any) -> Plan:
    """What to run within a budget, decided before the run.

    Args:
        model: of the workload, as from ``fit`` or ``fitted_model``.
        budget: the limits; None for none.
        **wishes: the fields of ``planning.request.PlanRequest``, e.g. ``epochs=90``,
            ``batch_sizes=256``, ``rules=Patience(checks=5)``, ``optimizer="adamw"``; as names and
            single values where ``planning.wishes`` knows them.

    Raises:
        UsageError: wishes that contradict each other.
        PredictionError: the model knows no such knob or precision.
        DoesNotFit: nothing fits; its ``shortfall`` is the nearest thing that would.
    """
    return make_plan(model, budget or Budget(), request_from(**wishes))


def make_plan(model: CostModel, budget: Budget, request: PlanRequest) -> Plan:
    """As ``plan``, with the request as one record."""
    if budget.fixed_cost and budget.price_per_hour is None:
        budget = replace(budget, price_per_hour=0.0)
    _require_an_end(budget, request)
    _require_times(budget)
    _require_confidence(budget.confidence)
    job = _job(model, request)
    ranked = _ranked(job, budget, request)
    chosen = replace(ranked[0][0], chosen=True)
    _require_epochs_to_list(chosen)
    if endless := why_endless(chosen, chosen.epochs, SHOWN_LEVEL):
        raise UsageError(endless)
    options = with_pareto([option_of(chosen), *(option for _, option in ranked[1:])])
    return _written(job, chosen, worth_keeping(options))


def _ranked(job: Job, budget: Budget, request: PlanRequest) -> list[tuple[Appraisal, Option]]:
    """What fits, the best first.

    Raises:
        DoesNotFit: nothing does.
    """
    priced = price(job, candidates(job, request))
    shortlisted = shortlist(priced, budget, request)
    appraisals = [Appraisal(priced, int(i), budget, request) for i in shortlisted]
    fitting = [(a, option_of(a)) for a in appraisals if a.fits]
    if not fitting:
        raise nearest(appraisals)
    return sorted(fitting, key=lambda found: request.objective.key(found[1]))


def _written(job: Job, chosen: Appraisal, options: tuple[Option, ...]) -> Plan:
    """The plan as a record: the question, and what was found."""
    model, request = job.model, chosen.request
    rules = tuple(_until(rule, chosen.epochs) for rule in request.rules)
    fitted = _fitted(request, chosen.epochs)
    return Plan(
        workload=model.workload,
        device=model.device,
        samples=job.samples,
        folds=request.folds,
        budget=chosen.budget,
        minimum_epochs=request.min_epochs or 1,
        target_epochs=request.epochs,
        maximum_epochs=request.max_epochs,
        objective=request.objective.name,
        options=options,
        timeline=timeline(chosen, stop_forecast(chosen, request, fitted)),
        prices=unit_prices_of(chosen),
        metric=request.metric,
        mode=request.better,
        stop_rules=tuple(rule_record(rule) for rule in rules),
        final_save_seconds=chosen.reserve_seconds + chosen.prices.save.median,
        save_interval_seconds=None if chosen.disk_spreads_saves else chosen.save_interval_seconds,
        mtbf_seconds=request.mtbf_seconds,
        keep=request.keep,
        outlook=_outlook(chosen, request, fitted),
        probing_seconds=model.probing_seconds,
        seed=request.seed,
        warnings=notes(job, request, chosen),
    )


def _require_an_end(budget: Budget, request: PlanRequest) -> None:
    money = budget.money if budget.price_per_hour else None  # which hours do not spend
    ends = (budget.deadline, money, budget.energy, request.most_epochs)
    if all(end is None for end in ends):
        raise UsageError(
            "nothing ends the run: give epochs, or a limit of time, money or energy, "
            "e.g. --epochs 90 or --deadline 8h"
        )


def _require_times(budget: Budget) -> None:
    for name in ("deadline", "spent_seconds"):
        seconds = getattr(budget, name) or 0.0
        if seconds > LONGEST_SECONDS:
            raise UsageError(f"{name} must be at most 3,000 years, but got {seconds:g} seconds")


def _require_epochs_to_list(chosen: Appraisal) -> None:
    if chosen.epochs > LONGEST:
        raise UsageError(
            f"a run has at most {LONGEST:,} epochs, but {chosen.config.label} would have "
            f"{chosen.epochs:,}; give fewer"
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


def worth_keeping(ranked: Sequence[Option]) -> tuple[Option, ...]:
    """The first, all that nothing beats, and the best of the others, as long as there is room."""
    beaten = [position for position, option in enumerate(ranked) if not option.pareto]
    room = max(SHOWN - (len(ranked) - len(beaten)), 0)
    dropped = {position for position in beaten[room:] if position > 0}
    return tuple(option for position, option in enumerate(ranked) if position not in dropped)


def _costs(option: Option) -> tuple[float, ...]:
    """Time, money (or device time), memory, and the progress still missing; less is better."""
    device_time = option.seconds.p50 * option.config.world_size
    money = option.money.p50 if option.money else device_time
    memory = option.device_bytes.p50 if option.device_bytes else 0.0
    return option.seconds.p50, money, memory, -progress(option)


def _dominates(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a != b and all(x <= y for x, y in zip(a, b, strict=True))


def _fitted(request: PlanRequest, epochs: int) -> list[FittedCurve]:
    """The learning curves as they were by the plan's end, but for those with too few checks."""
    if not request.curves:
        return []
    from epochcast.planning.curves import fit_curve, seen_until

    fitted = (fit_curve(curve, request.better) for curve in request.curves)
    return [within for curve in fitted if (within := seen_until(curve, epochs)) is not None]


def _outlook(
    chosen: Appraisal, request: PlanRequest, fitted: Sequence[FittedCurve]
) -> Outlook | None:
    """Of the longest curve; None without one."""
    if not fitted:
        return None
    from epochcast.planning.curves import outlook

    longest = max(fitted, key=lambda one: one.seen.epochs[-1])
    return outlook(longest, chosen.epochs, request.min_delta)
