"""A cost model and a question to an estimate: the equation of ``epoch.py``, term by term.

Training carries two errors: one of the run, shared by all its epochs, and one of each epoch, which
averages out: var log T(E) = s_u² + σ²/E. Terms are added quantile by quantile, as if whatever makes
one slow made all slow (comonotone): never narrower than the truth, and monotone in E.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import ceil

import numpy as np

from epochcast.costmodel.cost import ConfigurationCost
from epochcast.costmodel.epoch import (
    Division,
    RunParts,
    Seconds,
    division_of,
    price_of_a_second,
    taken,
)
from epochcast.costmodel.features import Array
from epochcast.costmodel.learned import Parameters, Variant
from epochcast.costmodel.phases import largest
from epochcast.costmodel.prices import Prices
from epochcast.costmodel.question import Question, choose_variant, configuration
from epochcast.costmodel.remarks import (
    configuration_warnings,
    cut_batch,
    endless_epoch,
    is_imported,
    left_open,
    never_evaluates,
    words,
)
from epochcast.costmodel.scatter import Amount
from epochcast.errors import PredictionError
from epochcast.records import (
    Capacity,
    Estimate,
    Frequency,
    Quantiles,
    RunConfig,
    Term,
)
from epochcast.records.estimate import LEVELS

ZERO = Quantiles.exactly(0.0)
EPSILON = 1e-9  # 2.1 / 0.7 is a little more than 3 in floating point
ALWAYS = ("start-up", "first steps", "training steps")  # terms that are shown even where they are 0


def predict(parameters: Parameters, question: Question) -> Estimate:
    """Price a run.

    Raises:
        PredictionError: the model knows no such knob, or nothing like the configuration asked for.
    """
    variant = choose_variant(parameters, question)
    config = configuration(parameters, variant, question)
    at = ConfigurationCost(parameters, variant, config, question.footprint)
    require_known_size(parameters, at)
    if question.epochs is not None:
        require_epochs(at, question.samples)
    samples = question.samples or at.samples()
    asked = config.batch_size
    each = config.samples_each(samples)
    if asked > each and not config.drop_last:  # a loader makes one batch of all there are
        config = replace(config, batch_size=each)
        at = ConfigurationCost(parameters, variant, config)
    division = _division(samples, config)
    epochs = question.epochs or (question.steps or 0) / division.updates
    question = as_the_script_does(question, variant, division)
    prices = at.prices(division)
    terms = _terms(prices, division, epochs, question)
    if question.steps is not None:
        terms = _in_order(terms, at, division, question.steps)
    total = sum((term.seconds for term in terms), ZERO)
    cost = None
    if question.price_per_hour is not None:
        cost = total.scaled(price_of_a_second(question.price_per_hour, config.world_size))
    extrapolated, phases = at.extrapolated(), _phases(at, question)
    return Estimate(
        workload=parameters.workload,
        device=parameters.device,
        config=config,
        samples=samples,
        epochs=epochs,
        steps_per_epoch=division.updates,
        steps=question.steps,
        step_seconds=at.step_seconds(),
        epoch_seconds=_quantiles(_parts(prices, 1.0).epoch),
        total_seconds=total,
        terms=tuple(replace(t, share=t.seconds.p50 / total.p50) for t in terms),
        peak_bytes=_quantiles_of(at.run_peak()),
        allocated_bytes=_quantiles_of(largest(_phases(at, question, "allocated").values())),
        reserved_bytes=_quantiles_of(largest(_phases(at, question, "reserved").values())),
        device_bytes=_quantiles_of(largest(phases.values())),
        training_bytes=_quantiles_of(phases["training"]),
        evaluation_bytes=_quantiles_of(phases.get("evaluation")),
        saving_bytes=_quantiles_of(phases.get("saving")),
        compute_seconds=at.compute(),
        loader_seconds=at.loader(),
        cost=cost,
        probing_seconds=parameters.probing_seconds,
        extrapolated=tuple(name for name, _ in extrapolated),
        warnings=(
            *left_open(variant, question.batch_size, question.sizes),
            *cut_batch(asked, config.batch_size),
            *([] if question.steps else endless_epoch(at, question.samples)),
            *configuration_warnings(parameters, at),
            *never_evaluates(parameters, at.variant),
        ),
    )


def as_the_script_does(question: Question, variant: Variant, division: Division[int]) -> Question:
    """The question with the cadences that it leaves open: every epoch, or as a script was seen to.

    Args:
        question: may say how often to evaluate and to save.
        variant: knows how often its script does.
        division: of an epoch.
    """

    def every(asked: float | None, seen: Frequency | None) -> float:
        if asked is not None or seen is None:
            return 1.0 if asked is None else asked
        times = seen.times(division.updates)
        return 1.0 / times if times else 0.0

    return replace(
        question,
        eval_every=every(question.eval_every, variant.evaluations),
        save_every=every(question.save_every, variant.saves),
    )


def _phases(
    at: ConfigurationCost, question: Question, layer: str = "device_bytes"
) -> dict[str, Amount | None]:
    """What the phases need that the run asked for has: one may never evaluate, or never save."""
    left_out = {"evaluation"} if question.eval_every == 0 else set()
    left_out |= {"saving"} if question.save_every == 0 else set()
    return {name: need for name, need in at.phases(layer).items() if name not in left_out}


def _division(samples: int, config: RunConfig) -> Division[int]:
    found = division_of(samples, config)
    if not found.micro_batches:
        raise PredictionError(
            f"with drop_last, a batch size of {config.batch_size} leaves no batch in "
            f"{config.samples_each(samples)} samples a device"
        )
    return found


def require_epochs(at: ConfigurationCost, samples: int | None) -> None:
    """Refuse to price epochs of a script that was not seen to have any.

    Args:
        at: the configuration asked for.
        samples: of an epoch, where the question says so.

    Raises:
        PredictionError: with what to ask instead.
    """
    if samples is None and any(doubt.code == "no-epoch-seen" for doubt in at.variant.doubts):
        raise PredictionError(
            "the script was not seen to have epochs, so none can be priced; ask for steps "
            "(--steps 20000), or probe it again with --steps-per-epoch or --samples"
        )


def require_known_size(parameters: Parameters, at: ConfigurationCost) -> None:
    """Refuse another value of a knob that was never varied, unless it was counted.

    Raises:
        PredictionError: with the command that counts it.
    """
    unknown = [] if at.is_counted else at.never_varied()
    if unknown:
        names = ", ".join(unknown)
        if at.variant.is_of_script:
            sets = " ".join(f"--set {name}=…" for name in unknown)
            raise PredictionError(
                f"{names} was never varied, so nothing is known of another value; probe the script "
                f"with several: epochcast probe {sets} -- COMMAND"
            )
        fixed = words(at.variant.categories)
        where = f" where {fixed}" if fixed else ""
        sets = " ".join(f"--set {name}={value}" for name, value in at.config.sizes)
        count = f"epochcast dry-run {parameters.target} --batch-size {at.config.batch_size} {sets}"
        instead = f"probe it, or where its step can be traced run: {count}"
        if is_imported(parameters):
            instead = f"import runs with others, or where it can be run here: {count}"
        raise PredictionError(
            f"{names} was never varied{where}, so nothing is known of another value; {instead}"
        )


def _terms(
    prices: Prices, division: Division[int], epochs: float, question: Question
) -> list[Term]:
    """What the run is made of, without what it has nothing of."""
    evaluations = _occasions(epochs, question.eval_every)
    saves = _occasions(epochs, question.save_every)
    counts = {
        "start-up": 1.0,
        "first steps": 1.0,
        "training steps": epochs * division.full,
        "last partial batches": epochs,
        "starting epochs": epochs,
        "rest of epochs": epochs,
        "evaluation": evaluations,
        "checkpoints": saves,
        "after the last epoch": 1.0,
    }
    parts = _parts(prices, epochs).terms(epochs, evaluations, saves)
    return [
        Term(name=name, count=ceil(counts[name]), seconds=_quantiles(seconds), share=0.0)
        for name, seconds in parts.items()
        if np.any(seconds) or name in ALWAYS
    ]


def _in_order(
    terms: Sequence[Term], at: ConfigurationCost, division: Division[int], steps: int
) -> list[Term]:
    """The terms of epochs as those of so many steps: a smaller batch comes at an epoch's end.

    Args:
        terms: of as many epochs, a fraction of one included.
        at: the configuration.
        division: of an epoch.
        steps: optimizer steps.
    """
    found, epochs = taken(division, at.config.accumulation, steps), steps / division.updates
    full = int(found.full)  # not numpy's, which no document holds
    step, update = at.micro_step(), at.update()
    mean = epochs * division.full_seconds(step, update) or 1.0  # nothing, where steps take none
    counted = {
        "training steps": (full, (full * step + found.updates * update) / mean),
        "last partial batches": (found.partial, found.partial / epochs),
        "starting epochs": (found.begun, found.begun / epochs),
    }
    scaled = ((term, *counted.get(term.name, (term.count, 1.0))) for term in terms)
    return [
        replace(term, count=count, seconds=term.seconds.scaled(factor))
        for term, count, factor in scaled
        if count or term.name in ALWAYS
    ]


def _parts(prices: Prices, epochs: float) -> RunParts:
    """The parts of a run of so many epochs, each at the five levels of ``Quantiles``."""
    full = prices.training.median - prices.partial_seconds
    scatter = prices.training_scatter(epochs)
    return RunParts(
        startup=_levels(prices.startup) + _levels(prices.build),
        first_steps=_levels(prices.first),
        full_batches=_levels(Amount(full, scatter)),
        partial_batch=_levels(Amount(prices.partial_seconds, scatter)),
        loader_restart=_levels(prices.loader_restart),
        fixed=_levels(prices.fixed),
        evaluation=_levels(prices.evaluation),
        save=_levels(prices.save),
        finish=_levels(prices.finish),
    )


def _levels(amount: Amount) -> Array:
    """P05, P10, P50, P90 and P95, (5,)."""
    return np.array(amount.quantiles().values)


def _quantiles_of(amount: Amount | None) -> Quantiles | None:
    return amount.quantiles() if amount else None


def _quantiles(levels: Seconds) -> Quantiles:
    """The reverse of ``_levels``."""
    return Quantiles.of(np.broadcast_to(levels, len(LEVELS)).tolist())


def _occasions(epochs: float, every: float | None) -> int:
    """How often something happens that is done every so many epochs and at the end."""
    if not every:
        return 0
    return ceil(epochs / every - EPSILON)


# -- the largest batch ------------------------------------------------------------------------


def largest_batch(
    parameters: Parameters, question: Question, memory_bytes: int, confidence: float = 0.95
) -> Capacity:
    """The largest micro-batch with which a question's configuration fits.

        fits(B)  ⟺  the q-quantile of what the device must have at batch size B  ≤  memory

    Memory grows with the batch, so doubling finds a batch that does not fit and bisection the last
    one that does. What no probe and no dry run has seen widens the quantile, so an answer far above
    the probed range is a careful one; below the range the quantile is as far from the median as at
    its lower end. Between batches that were measured the quantile can lie above that of the larger
    one, but no batch needs more than a larger one does: whatever fits at a batch that was measured
    fits at all smaller ones.

    Args:
        parameters: of the cost model, among whose variants the question chooses.
        question: its batch size is ignored.
        memory_bytes: what the device has for this process.
        confidence: probability with which it must fit, between 0 and 1.

    Raises:
        PredictionError: memory was not measured, or not even one sample fits.
    """
    if not 0 < confidence < 1:
        raise PredictionError(f"confidence must be between 0 and 1, but got {confidence!r}")
    variant = choose_variant(parameters, question)
    config = configuration(parameters, variant, question)

    def at(batch_size: int) -> ConfigurationCost:
        return ConfigurationCost(parameters, variant, replace(config, batch_size=batch_size))

    require_known_size(parameters, at(config.batch_size))
    smallest = min(c.batch_size for c in variant.configurations)
    edge = _memory(at(smallest), question)

    def needed(batch_size: int) -> float:
        found = _memory(at(batch_size), question)
        if batch_size < smallest:  # as far from the median as at the lower end of the range
            found = replace(found, scatter=edge.scatter)
        return found.quantile(confidence)

    measured = [b for b in _measured(variant, config) if needed(b) <= memory_bytes]
    proven = max(measured, default=0)

    def fits(batch_size: int) -> bool:
        return batch_size <= proven or needed(batch_size) <= memory_bytes

    limit = config.samples_each(question.samples or at(config.batch_size).samples())
    if not fits(1):
        raise PredictionError(
            f"not even a batch of one fits: {parameters.workload} needs "
            f"{needed(1) / 2**20:,.0f} MiB with this confidence, of {memory_bytes / 2**20:,.0f} MiB"
            + _of_evaluation(at(1), question)
        )
    best = _last(1, limit, fits)
    return Capacity(
        batch_size=best,
        config=replace(config, batch_size=best),
        memory_bytes=memory_bytes,
        confidence=confidence,
        needed_bytes=needed(best),
        device_bytes=_memory(at(best), question).quantiles(),
        limited_by="memory" if best < limit else "samples",
        extrapolated=tuple(name for name, _ in at(best).extrapolated()),
    )


def _of_evaluation(at: ConfigurationCost, question: Question) -> str:
    """That it is evaluation which needs so much, where it has a batch size of its own."""
    phases, own = _phases(at, question), at.config.eval_batch_size
    medians = {name: need.median for name, need in phases.items() if need}
    if own is None or max(medians, key=lambda name: medians[name], default="") != "evaluation":
        return ""
    return f", for evaluation; try a smaller one than --eval-batch-size {own}"


def _measured(variant: Variant, config: RunConfig) -> set[int]:
    """Batch sizes at which this model size was probed or counted."""
    known = (*variant.configurations, *(c for c, _ in variant.counted))
    return {c.batch_size for c in known if c.sizes == config.sizes}


def _memory(at: ConfigurationCost, question: Question) -> Amount:
    """What is needed of the device."""
    found = largest(_phases(at, question).values()) or at.run_peak()
    if found is None:
        raise PredictionError(
            "no memory was measured: probe the workload again, or import runs with a column of "
            "their peak, e.g. peak_mib"
        )
    return found


def _last(low: int, limit: int, fits: Callable[[int], bool]) -> int:
    """The last of low, low + 1, … limit that fits, if those that fit come first; low does."""
    high = low
    while high < limit and fits(min(limit, 2 * high)):
        high = min(limit, 2 * high)
    low, high = high, min(limit, 2 * high)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
