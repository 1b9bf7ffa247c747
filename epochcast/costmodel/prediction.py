"""A cost model and a question to an estimate: the equation of ``epoch.py``, term by term.

Training carries two errors: one of the run, shared by all its epochs, and one of each epoch, which
averages out: var log T(E) = s_u² + σ²/E. Terms are added quantile by quantile, as if whatever makes
one slow made all slow (comonotone): never narrower than the truth, and monotone in E.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil, log2
from typing import get_args

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
from epochcast.costmodel.remarks import (
    configuration_warnings,
    cut_batch,
    endless_epoch,
    is_imported,
    left_open,
    never_evaluates,
    words,
)
from epochcast.costmodel.scaling import World
from epochcast.costmodel.scatter import Amount
from epochcast.costmodel.worlds import nodes_of
from epochcast.errors import PredictionError
from epochcast.records import (
    Capacity,
    Estimate,
    Footprint,
    Frequency,
    Precision,
    Quantiles,
    RunConfig,
    SizeValue,
    Term,
    make_sizes,
)
from epochcast.records.validation import is_integer, is_number, shown

ZERO = Quantiles.exactly(0.0)
LARGEST = 1e15  # of anything counted: more is a typing error, and floats lose whole numbers
EPSILON = 1e-9  # 2.1 / 0.7 is a little more than 3 in floating point
ALWAYS = ("start-up", "first steps", "training steps")  # terms that are shown even where they are 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a user asks; see ``CostModel.predict``. None means: as probed last."""

    epochs: float | None = None
    steps: int | None = None
    batch_size: int | None = None
    samples: int | None = None
    accumulation: int | None = None
    eval_batch_size: int | None = None
    eval_every: float | None = None
    save_every: float | None = None
    price_per_hour: float | None = None
    precision: str | None = None
    compiled: bool | None = None
    drop_last: bool | None = None
    workers: int | None = None
    world_size: int | None = None
    devices_per_node: int | None = None
    sizes: Mapping[str, SizeValue] = field(default_factory=dict)
    footprint: Footprint | None = None

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise PredictionError("give either epochs or steps")
        whole = ("steps", "batch_size", "samples", "accumulation", "eval_batch_size")
        for name in (*whole, "world_size", "devices_per_node"):
            value = getattr(self, name)
            if value is not None and not (is_integer(value) and 0 < value <= LARGEST):
                raise PredictionError(
                    f"{name} must be a whole number from 1 to {LARGEST:g}, but got {shown(value)}"
                )
        if self.epochs is not None and not _is_within(self.epochs, 1 / LARGEST):
            raise PredictionError(
                f"epochs must be a number above 0, and at most {LARGEST:g}, but got "
                f"{shown(self.epochs)}"
            )
        for name in ("eval_every", "save_every"):
            value = getattr(self, name)
            if value not in (None, 0) and not _is_within(value, 1 / LARGEST):
                raise PredictionError(
                    f"{name} must be 0 (never) or up to {LARGEST:g} epochs, but got {shown(value)}"
                )
        if self.precision not in (None, *get_args(Precision)):
            raise PredictionError(
                f"precision must be one of {', '.join(get_args(Precision))}, but got "
                f"{shown(self.precision)}"
            )
        if self.price_per_hour is not None and not _is_within(self.price_per_hour, 0.0):
            raise PredictionError(
                f"price_per_hour must be from 0 to {LARGEST:g}, but got "
                f"{shown(self.price_per_hour)}"
            )


def _is_within(value: object, least: float) -> bool:
    """Whether it is a number from ``least`` to ``LARGEST``; neither nan nor infinite."""
    return is_number(value) and least <= value <= LARGEST


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
        step_seconds=at.step_scatter().quantiles(at.step()),
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
        count = (
            f"epochcast dry-run {parameters.workload} --batch-size {at.config.batch_size} {sets}"
        )
        instead = f"probe it, or where its step can be traced run: {count}"
        if is_imported(parameters):
            instead = f"import runs with others, or where it can be run here: {count}"
        raise PredictionError(
            f"{names} was never varied{where}, so nothing is known of another value; {instead}"
        )


def choose_variant(parameters: Parameters, question: Question) -> Variant:
    """The most recent variant that fits what the question fixes.

    Raises:
        PredictionError: none does.
    """
    answering = [v for v in parameters.variants if _answers(v, question)]
    fitting = [v for v in answering if _has_values(v, question)] or answering
    if question.accumulation is not None:
        accumulates = question.accumulation > 1
        fitting.sort(key=lambda v: (v.accumulation > 1) != accumulates)
    if question.world_size is not None:
        fitting = _of_worlds(parameters, fitting, question)
    workers = question.workers
    if workers is not None:  # as probed, or else from the nearest number of workers
        able = [v for v in fitting if v.workers == workers or v.loading is not None]
        fitting = sorted(able, key=lambda v: abs(log2(max(1, v.workers) / max(1, workers))))
        fitting.sort(key=lambda v: v.workers != workers)
    if fitting:
        return fitting[0]
    ways = {"compiled": question.compiled, "drop_last": question.drop_last}
    wanted = {**question.sizes, **{k: v for k, v in ways.items() if v is not None}}
    wanted_text = ", ".join(f"{k}={v}" for k, v in wanted.items())
    raise PredictionError(
        f"{parameters.workload} was not probed with "
        f"{', '.join(filter(None, (wanted_text, question.precision, _workers(question))))}; "
        f"{'import such runs' if is_imported(parameters) else 'probe it so'}, or ask for one of: "
        + "; ".join(_describe(variant) for variant in parameters.variants)
    )


def _of_worlds(
    parameters: Parameters, fitting: Sequence[Variant], question: Question
) -> list[Variant]:
    """Those that may say what so many devices take: measured on them first, else on several worlds.

    Args:
        parameters: of the cost model; a refusal names its workload.
        fitting: variants, most recent first.
        question: whose number of devices is given.

    Raises:
        PredictionError: all were measured on one other number of devices.
    """
    asked = [world_asked(variant, question) for variant in fitting]
    found = [v for v, w in zip(fitting, asked, strict=True) if w == v.world]
    found += [v for v in fitting if v.scaling is not None and v not in found]
    if fitting and not found:
        probed = fitting[0].world_size
        if parameters.measured_on is not None:
            raise PredictionError(
                f"how long {question.world_size} devices take to average gradients does not follow "
                f"for {parameters.device.name} from {parameters.measured_on.name}: ask for one "
                "device, or probe several there"
            )
        raise PredictionError(
            f"{parameters.workload} was measured on {probed} device{'s' * (probed > 1)} only, "
            f"which tells nothing of {question.world_size}; measure another number of them: import "
            f"such runs, or epochcast probe {parameters.workload} --world-sizes {2 * probed} (of a "
            f"script, epochcast probe -- torchrun --nproc-per-node {2 * probed} …)"
        )
    return found


def world_asked(variant: Variant, question: Question) -> World:
    """The devices that a question means, and their nodes."""
    devices, each = question.world_size, question.devices_per_node
    if devices is None or (devices == variant.world_size and each is None):
        return variant.world
    known = variant.scaling.probed if variant.scaling else (variant.world,)
    return World(devices, nodes_of(devices, each, known))


def _answers(variant: Variant, question: Question) -> bool:
    fixed = dict(variant.categories)
    wanted = {k: v for k, v in question.sizes.items() if k in fixed}
    ways = ("precision", "compiled", "drop_last")
    return all(fixed[k] == v for k, v in wanted.items()) and all(
        getattr(question, way) in (None, getattr(variant, way)) for way in ways
    )


def _has_values(variant: Variant, question: Question) -> bool:
    """Whether there is every knob that is asked for, and it may have the value asked."""
    typical = dict(variant.typical.sizes)
    return all(k in typical and _may_be(variant, k, v) for k, v in question.sizes.items())


def _may_be(variant: Variant, name: str, value: SizeValue) -> bool:
    """Whether a knob may be asked with a value: of the kind and the sign of what was probed."""
    probed = dict(variant.typical.sizes)[name]
    if isinstance(probed, bool | str) or isinstance(value, bool):
        return type(probed) is type(value) and probed == value
    return _is_within(value, _least(variant, name))


def _least(variant: Variant, name: str) -> float:
    """What a numeric knob may be at the least: below zero only where some value that was probed or
    counted is, and zero likewise."""
    lowest = min(variant.values_of(name))
    return 1 / LARGEST if lowest > 0 else 0.0 if lowest == 0 else -LARGEST


def _workers(question: Question) -> str:
    return "" if question.workers is None else f"{question.workers} workers"


def _describe(variant: Variant) -> str:
    ways = (("precision", variant.precision), ("workers", variant.workers))
    return " ".join(f"{name}={value}" for name, value in (*variant.categories, *ways))


def configuration(parameters: Parameters, variant: Variant, question: Question) -> RunConfig:
    """The configuration a question means: what it leaves open is the largest that was probed last.

    Args:
        parameters: of the cost model; a refusal names its workload.
        variant: gives what the question leaves open, and what no question can change: precision,
            compilation, devices, drop_last.
        question: whose batch size, knobs, accumulation and workers are taken where it has them.

    Raises:
        PredictionError: an unknown knob, or a value of the wrong kind.
    """
    sizes = dict(variant.typical.sizes)
    for name, value in question.sizes.items():
        if name not in sizes:
            raise PredictionError(_no_knob(parameters, name))
        if not _may_be(variant, name, value):
            allowed = _allowed(parameters, variant, name)
            raise PredictionError(f"knob {name!r} takes {allowed}, but got {value!r}")
        sizes[name] = value
    world = world_asked(variant, question)
    return RunConfig(
        batch_size=question.batch_size or variant.typical.batch_size,
        sizes=make_sizes(sizes),
        accumulation=question.accumulation or variant.accumulation,
        precision=variant.precision,
        compiled=variant.compiled,
        workers=variant.workers if question.workers is None else question.workers,
        eval_batch_size=question.eval_batch_size or variant.typical.eval_batch_size,
        world_size=world.devices,
        nodes=world.nodes,
        sharding=variant.typical.sharding,
        drop_last=variant.drop_last,
    )


def _no_knob(parameters: Parameters, name: str) -> str:
    """What to write instead of a knob that there is not: of a script some names became options."""
    known = dict.fromkeys(k for v in parameters.variants for k, _ in v.typical.sizes)
    said = f"{parameters.workload} has no knob {name!r}; it has: {', '.join(known) or 'none'}"
    if name in ("batch_size", "world_size", "accumulation", "precision", "workers", "epochs"):
        return f"{said}; that is --{name.replace('_', '-')}"
    if any(v.world_size > 1 for v in parameters.variants):
        return f"{said}; the number of processes is --world-size"
    return said


def _allowed(parameters: Parameters, variant: Variant, name: str) -> str:
    """The values that a knob may be asked with, in words."""
    probed = dict(variant.typical.sizes)[name]
    if isinstance(probed, bool):
        return "true or false"
    if isinstance(probed, str):
        fixed = {dict(v.categories).get(name): None for v in parameters.variants}
        return " or ".join(str(value) for value in fixed if value is not None)
    least = _least(variant, name)
    return (
        f"positive numbers of at most {LARGEST:g}"
        if least > 0
        else "numbers from 0 on"
        if least == 0
        else "numbers"
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
    full = int(found.full)
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
    found = amount.quantiles()
    return np.array([found.p05, found.p10, found.p50, found.p90, found.p95])


def _quantiles_of(amount: Amount | None) -> Quantiles | None:
    return amount.quantiles() if amount else None


def _quantiles(levels: Seconds) -> Quantiles:
    """The reverse of ``_levels``."""
    p05, p10, p50, p90, p95 = np.broadcast_to(levels, 5).tolist()
    return Quantiles(p05=p05, p10=p10, p50=p50, p90=p90, p95=p95)


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
