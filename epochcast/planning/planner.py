"""From a cost model, a budget and a request to a plan.

candidates ──price──▶ medians ──shortlist──▶ evaluate one by one on shared draws
                                                   │  cadences ▶ affordable epochs ▶ saves
                                                   ▼
                  ranked by the objective, the first with its timeline ──▶ Plan
                  none that fits ──▶ the nearest thing that would (DoesNotFit)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from epochcast.costmodel.cost import ConfigurationCost
from epochcast.costmodel.epoch import division_of
from epochcast.costmodel.model import CostModel
from epochcast.costmodel.prediction import require_epochs, require_known_size
from epochcast.costmodel.question import Question, choose_variant, configuration
from epochcast.errors import DoesNotFit, UsageError
from epochcast.planning.cadence import Cadence
from epochcast.planning.evaluation import (
    EvaluatedCandidate,
    money_each,
    option_of,
    unit_prices_of,
)
from epochcast.planning.limits import at_power
from epochcast.planning.notes import notes
from epochcast.planning.pricing import (
    PriceList,
    TrainingSetup,
    candidates,
    fold_samples,
    price,
    shortlist,
)
from epochcast.planning.request import LONGEST, Objective, PlanRequest, progress, request_from
from epochcast.planning.shortfall import nearest, why_endless
from epochcast.planning.simulation import DRAWS
from epochcast.planning.stopping import Futility, Rule, rule_record
from epochcast.planning.timeline import stop_forecast, timeline
from epochcast.records import (
    Budget,
    LearningCurve,
    Mode,
    Option,
    Outlook,
    Plan,
    Power,
    SizeValue,
    SpotOffer,
)
from epochcast.units import LONGEST_SECONDS, format_number_of, format_percent

if TYPE_CHECKING:
    from epochcast.planning.curves import FittedCurve

SHOWN_LEVEL = 0.9  # P90 is the longest time that people see
ALIKE = 1.05  # bytes of one option over those of another: less is no reason to choose either
SHOWN = 8  # options in a plan, unless more than that are beaten by none


def plan(
    model: CostModel,
    budget: Budget | None = None,
    *,
    epochs: int | None = None,
    min_epochs: int | None = None,
    max_epochs: int | None = None,
    steps: int | Literal["max"] | None = None,
    min_steps: int | None = None,
    batch_sizes: int | Sequence[int] | Literal["free"] | None = None,
    micro_batch: int | None = None,
    devices: int | Sequence[int] | None = None,
    devices_per_node: int | None = None,
    bandwidth: float | None = None,
    samples: int | None = None,
    folds: int = 1,
    sizes: Mapping[str, SizeValue] | None = None,
    precision: str | None = None,
    workers: int | None = None,
    evaluate: int | Literal["auto", "rungs"] | Cadence | None = None,
    save: int | Literal["auto"] | Cadence | None = None,
    keep: int = 2,
    mtbf_seconds: float | None = None,
    restart_seconds: float | None = None,
    spot_price_per_hour: float | None = None,
    spot_mtbf_seconds: float | None = None,
    rules: Rule | Sequence[Rule] = (),
    curves: LearningCurve | Sequence[LearningCurve] = (),
    metric: str = "val_loss",
    mode: Mode | None = None,
    min_delta: float = 0.0,
    noise_scale: float | None = None,
    reference_batch: int | None = None,
    optimizer: str | None = None,
    objective: Literal["time", "money", "memory"] | Objective = "time",
    powers: Power | Sequence[Power] = (),
    seed: int = 0,
) -> Plan:
    """What to run within a budget, decided before the run.

    Args:
        model: of the workload, as from ``fit`` or ``fitted_model``.
        budget: the limits; None for none.
        epochs: wanted at the reference batch; the run ends there, whatever limits leave.
        min_epochs: fewer are not worth running: the plan then does not fit. At the reference
            batch, as ``epochs``; default: one of whatever batch is run.
        max_epochs: never more; default: ``epochs``. Above it, what limits leave beyond the target
            is spent on more epochs, up to here.
        steps: instead of epochs: optimizer steps wanted, or ``"max"`` for as many as limits allow.
            Cadences, curves and all that the plan counts are then in steps, of one batch size.
        min_steps: fewer are not worth running, as ``min_epochs``.
        batch_sizes: samples of one optimizer step, one or several to choose from; ``"free"`` for
            whatever makes most progress per second; default: all that were probed, in a plan of
            steps the one probed last.
        micro_batch: samples of one forward pass on one device; default: any that divides, and
            is no smaller than all that were probed.
        devices: how many share the work, one number or several to choose from; default: as probed.
        devices_per_node: of one machine; by default as many as any that was measured has, or all
            are in one where no two machines were measured.
        bandwidth: bytes per second between devices, for averaging gradients.
        samples: training samples per epoch; default: as probed.
        folds: of cross-validation; they multiply the run.
        sizes: values of model-size knobs, by name; default: as probed last.
        precision: that was probed, as in a prediction.
        workers: of the data loader, as in a prediction.
        evaluate: epochs, or steps, between evaluations, 0 for never, ``"auto"`` for what stopping
            early pays for, ``"rungs"`` for those of successive halving, or a cadence; default:
            after each epoch, and in a plan of steps ``"auto"``; of a script: as often as it does.
        save: epochs, or steps, between checkpoints, 0 for none, ``"auto"`` for what failures and
            the cost of saving ask for, or a cadence; default: ``"auto"``, of a script: as often as
            it does.
        keep: checkpoints kept on disk; 0 keeps all.
        mtbf_seconds: mean time between failures or interruptions; None for never.
        restart_seconds: from a failure until training goes on; default: a start and first steps.
        spot_price_per_hour: of one device that may be taken away: the plan then says what the same
            costs there, beside the ``price_per_hour`` of its budget.
        spot_mtbf_seconds: mean time between interruptions of a run on such devices, which come on
            top of ``mtbf_seconds``.
        rules: for stopping early, like ``Patience(checks=5)``.
        curves: learning curves of a pilot or of earlier runs, as from ``read_curve``.
        metric: that ``rules`` watch and ``curves`` show.
        mode: whether a smaller or a larger metric is better; default: what its name says.
        min_delta: improvement of the metric that counts.
        noise_scale: of the gradient, in samples.
        reference_batch: at which ``epochs`` and the learning rate are known; default: the only
            one of ``batch_sizes``, else as probed.
        optimizer: by name, like ``"adamw"``; decides how the learning rate follows the batch.
        objective: what to save among options with equal progress.
        powers: that one device draws in configurations that were measured, as of
            ``measured_power``; the watts of the budget are those of any other.
        seed: of the random draws; the same question with the same seed has the same answer.

    Raises:
        UsageError: arguments that make no sense, or contradict each other.
        PredictionError: the model knows no such knob or precision.
        DoesNotFit: nothing fits; its ``shortfall`` is the nearest thing that would.
    """
    request = request_from(
        epochs=epochs,
        min_epochs=min_epochs,
        max_epochs=max_epochs,
        steps=steps,
        min_steps=min_steps,
        batch_sizes=batch_sizes,
        micro_batch=micro_batch,
        devices=devices,
        devices_per_node=devices_per_node,
        bandwidth=bandwidth,
        samples=samples,
        folds=folds,
        sizes=sizes,
        precision=precision,
        workers=workers,
        evaluate=evaluate,
        save=save,
        keep=keep,
        mtbf_seconds=mtbf_seconds,
        restart_seconds=restart_seconds,
        spot_price_per_hour=spot_price_per_hour,
        spot_mtbf_seconds=spot_mtbf_seconds,
        rules=rules,
        curves=curves,
        metric=metric,
        mode=mode,
        min_delta=min_delta,
        noise_scale=noise_scale,
        reference_batch=reference_batch,
        optimizer=optimizer,
        objective=objective,
        powers=powers,
        seed=seed,
    )
    budget = budget or Budget()
    if budget.fixed_cost and budget.price_per_hour is None:
        budget = replace(budget, price_per_hour=0.0)
    _require_feasible(budget, request)
    setup = _setup(model, request)
    request = with_cadences(setup, request)
    try:
        ranked = _ranked(setup, budget, request)
    except DoesNotFit as error:
        raise _beside_spot(error, setup, budget, request) from None
    chosen = replace(ranked[0][0], chosen=True)
    _require_end(chosen)
    first, *others = with_pareto([option for _, option in ranked], request.objective)
    options = (replace(option_of(chosen), pareto=first.pareto), *others)
    found = _written(setup, chosen, worth_keeping(options))
    return replace(found, spot=_spot_offer(setup, chosen))


def _ranked(
    setup: TrainingSetup, budget: Budget, request: PlanRequest
) -> list[tuple[EvaluatedCandidate, Option]]:
    """What fits, the best first.

    Raises:
        DoesNotFit: nothing does, of smaller micro-batches than were probed either.
    """
    for unprobed in (False, True):
        priced = price(setup, candidates(setup, request, unprobed))
        shortlisted = shortlist(priced, budget, request)
        evaluations = [_evaluated(priced, int(i), budget, request) for i in shortlisted]
        fitting = [(a, option_of(a)) for a in evaluations if a.fits]
        if fitting:
            return sorted(fitting, key=lambda found: costs(found[1], request.objective))
    raise nearest(evaluations)


def _evaluated(
    priced: PriceList, position: int, budget: Budget, request: PlanRequest
) -> EvaluatedCandidate:
    """A candidate at its own power."""
    own = at_power(budget, priced.config(position), request.powers)
    return EvaluatedCandidate(priced, position, own, request)


def _spot_offer(setup: TrainingSetup, own: EvaluatedCandidate) -> SpotOffer | None:
    """What the same work costs on devices that may be taken away; None where that was not asked.

    Both are of the same draws, run by run: what makes a run slow makes it slow on either.
    """
    if own.request.spot_price_per_hour is None:
        return None
    offer, there = _on_spot(setup, own.budget, own.request)
    if there is None:
        return offer
    chance = float(np.mean(money_each(there) < money_each(own)))
    return replace(offer, cheaper_probability=chance)


def _on_spot(
    setup: TrainingSetup, budget: Budget, request: PlanRequest
) -> tuple[SpotOffer, EvaluatedCandidate | None]:
    """The offer, and what would be run there; None where it does not fit."""
    rate, spot_mtbf = request.spot_price_per_hour, request.spot_mtbf_seconds
    assert rate is not None  # a request has both or neither
    assert spot_mtbf is not None
    mtbf = 1 / (1 / spot_mtbf + (1 / request.mtbf_seconds if request.mtbf_seconds else 0.0))
    offer = SpotOffer(price_per_hour=rate, mtbf_seconds=mtbf)
    there_for = replace(budget, price_per_hour=rate)
    try:
        (there, option), *_ = _ranked(setup, there_for, replace(request, mtbf_seconds=mtbf))
    except DoesNotFit as error:
        return replace(offer, why_not=str(error)), None
    if endless := why_endless(there, there.epochs, SHOWN_LEVEL):
        return replace(offer, why_not=endless), None
    return replace(offer, option=option), there


def _beside_spot(
    error: DoesNotFit, setup: TrainingSetup, budget: Budget, request: PlanRequest
) -> DoesNotFit:
    """That nothing fits, and what would on devices that may be taken away, where that was asked."""
    if request.spot_price_per_hour is None:
        return error
    offer, _ = _on_spot(setup, budget, request)
    if offer.option is None:
        return DoesNotFit(f"{error}; nor does anything on spot devices", error.shortfall)
    fits = format_number_of(offer.option.epochs, request.unit)
    how = f"price_per_hour {offer.price_per_hour:g} and mtbf_seconds {offer.mtbf_seconds:.0f}s"
    return DoesNotFit(f"{error}; {fits} would on spot devices: plan them by {how}", error.shortfall)


def _written(setup: TrainingSetup, chosen: EvaluatedCandidate, options: tuple[Option, ...]) -> Plan:
    """The plan as a record: the question, and what was found."""
    model, request = setup.model, chosen.request
    rules = tuple(_with_horizon(rule, chosen.epochs) for rule in request.rules)
    fitted = _fitted(request, chosen.epochs)
    return Plan(
        workload=model.workload,
        target=model.target,
        device=model.device,
        unit=request.unit,
        segment_steps=chosen.segment_steps,
        samples=setup.samples,
        folds=request.folds,
        budget=chosen.budget,
        min_epochs=request.min_epochs or 1,
        target_epochs=request.epochs,
        max_epochs=request.max_epochs,
        objective=request.objective.name,
        options=options,
        evaluations=chosen.evaluate.epochs(chosen.epochs).ranges,
        saves=chosen.saves.epochs(chosen.epochs).ranges,
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
        warnings=notes(setup, request, chosen),
    )


def _require_feasible(budget: Budget, request: PlanRequest) -> None:
    """Refuse a question without an end or a price, beyond all time, finer than draws can tell."""
    money = budget.money if budget.price_per_hour else None  # which hours do not spend
    ends = (budget.deadline, money, budget.energy, request.epochs_limit)
    if all(end is None for end in ends):
        raise UsageError(
            f"nothing ends the run: give {request.unit}s, or a limit of time, money or energy, "
            f"e.g. --{request.unit}s 90 or --deadline 8h"
        )
    if request.spot_price_per_hour is not None and budget.price_per_hour is None:
        raise UsageError(
            "a price of devices that may be taken away is compared with that of others: give "
            "price_per_hour too"
        )
    for name in ("deadline", "spent_seconds"):
        seconds = getattr(budget, name) or 0.0
        if seconds > LONGEST_SECONDS:
            raise UsageError(f"{name} must be at most 3,000 years, but got {seconds:g} seconds")
    rarest = 1 / DRAWS
    if not rarest <= budget.confidence <= 1 - rarest:
        raise UsageError(
            f"confidence must lie between {format_percent(rarest, 1)} and "
            f"{format_percent(1 - rarest, 1)}, which {DRAWS:,} draws can tell apart, but got "
            f"{budget.confidence:.6g}"
        )


def _require_end(chosen: EvaluatedCandidate) -> None:
    """Refuse runs that are too long to list or to end."""
    moments = chosen.moments
    if chosen.request.unit == "step" and moments > LONGEST:
        raise UsageError(
            f"a plan lists at most {LONGEST:,} moments at which something happens, but in "
            f"{chosen.epochs:,} steps there would be {moments:,}: evaluate and save less often"
        )
    if chosen.request.unit == "epoch" and chosen.epochs > LONGEST:
        raise UsageError(
            f"a run has at most {LONGEST:,} epochs, but {chosen.config.label} would have "
            f"{chosen.epochs:,}; give fewer"
        )
    if endless := why_endless(chosen, chosen.epochs, SHOWN_LEVEL):
        raise UsageError(endless)


def _with_horizon(rule: Rule, epochs: int) -> Rule:
    """A rule that looks ahead, to the plan's end unless it says how far itself."""
    if isinstance(rule, Futility) and rule.horizon is None:
        return replace(rule, horizon=epochs)
    return rule


def _setup(model: CostModel, request: PlanRequest) -> TrainingSetup:
    question = Question(
        epochs=1, precision=request.precision, workers=request.workers, sizes=request.sizes
    )
    variant = choose_variant(model, question)
    config = configuration(model, variant, question)
    at = ConfigurationCost(model, variant, config)
    require_known_size(model, at)
    if request.unit == "epoch":
        require_epochs(at, request.samples)
    samples, eval_samples = request.samples or at.samples(), at.eval_samples()
    if request.folds > samples:
        raise UsageError(
            f"folds must be at most the {samples:,} samples, but got {request.folds:,}"
        )
    if request.folds > 1:
        samples, eval_samples = fold_samples(samples, request.folds)
    return TrainingSetup(
        model=model,
        variant=variant,
        config=config,
        samples=samples,
        eval_samples=eval_samples,
        bandwidth=request.bandwidth,
        devices_per_node=request.devices_per_node,
        own_evaluations=request.evaluate is None and request.unit == "epoch",
        own_saves=request.save is None and request.unit == "epoch",
    )


def with_cadences(setup: TrainingSetup, request: PlanRequest) -> PlanRequest:
    """The request with the cadences that it leaves open: a script's own, else what is usual.

    Args:
        setup: knows how often its script evaluates and saves, and how many steps an epoch has.
        request: may name a cadence.
    """
    updates = division_of(setup.samples, setup.config).updates
    units = updates if request.unit == "step" else 1  # in an epoch
    evaluate, save = request.evaluate, request.save
    if evaluate is None:
        often = setup.variant.evaluations
        usual: int | Literal["auto"] = "auto" if request.unit == "step" else 1
        evaluate = _between(often.times(updates) / units) if often else usual
    if save is None:
        often = setup.variant.saves
        save = _between(often.times(updates) / units) if often else "auto"
    return replace(request, evaluate=evaluate, save=save)


def _between(times: float) -> int:
    """Whole epochs or steps from one time to the next, 0 for never; ``times`` in each of them."""
    return max(1, round(1 / times)) if times else 0


def with_pareto(options: Sequence[Option], objective: Objective) -> tuple[Option, ...]:
    """The options, with those marked that no other one beats in everything at once."""
    found = [costs(option, objective) for option in options]
    return tuple(
        replace(option, pareto=not any(_dominates(other, mine) for other in found))
        for option, mine in zip(options, found, strict=True)
    )


def worth_keeping(ranked: Sequence[Option]) -> tuple[Option, ...]:
    """The first, all that nothing beats, and the best of the others, as long as there is room."""
    beaten = [position for position, option in enumerate(ranked) if not option.pareto]
    room = max(SHOWN - (len(ranked) - len(beaten)), 0)
    dropped = {position for position in beaten[room:] if position > 0}
    return tuple(option for position, option in enumerate(ranked) if position not in dropped)


Costs = tuple[tuple[float, ...], tuple[float, float, float], float]


def costs(option: Option, objective: Objective) -> Costs:
    """What options are ranked by, in this order, and what one must beat another in; less is better.

    What was asked for; time and money (or device time) for as much progress, because to run fewer
    epochs in less time is no merit; progress missing; memory. All at P90, as objectives are: the
    first of the ranked is therefore beaten by none.
    """
    reached = progress(option)
    device_time = option.seconds.p90 * option.config.world_size
    money = option.money.p90 if option.money else device_time
    memory = option.device_bytes.p90 if option.device_bytes else 0.0
    spent = (option.seconds.p90 / reached, money / reached, -reached)
    return objective.key(option), spent, memory


def _dominates(a: Costs, b: Costs) -> bool:
    """Whether ``a`` is as good in everything and better in something; alike memory is the same."""
    key_a, spent_a, memory_a = a
    key_b, spent_b, memory_b = b
    if (key_a, spent_a) == (key_b, spent_b):
        return memory_a < memory_b
    as_good = key_a <= key_b and all(x <= y for x, y in zip(spent_a, spent_b, strict=True))
    return as_good and memory_a <= ALIKE * memory_b


def _fitted(request: PlanRequest, epochs: int) -> list[FittedCurve]:
    """The learning curves as they were by the plan's end, but for those with too few checks."""
    if not request.curves:
        return []
    from epochcast.planning.curves import fit_curve, seen_until

    fitted = (fit_curve(curve, request.better) for curve in request.curves)
    return [within for curve in fitted if (within := seen_until(curve, epochs)) is not None]


def _outlook(
    chosen: EvaluatedCandidate, request: PlanRequest, fitted: Sequence[FittedCurve]
) -> Outlook | None:
    """Of the longest curve; None without one."""
    if not fitted:
        return None
    from epochcast.planning.curves import outlook

    longest = max(fitted, key=lambda one: one.seen.epochs[-1])
    return outlook(longest, chosen.epochs, request.min_delta)
