"""What a user asks of a cost model, and which of its variants and configurations that means.

    Question ──choose_variant──▶ Variant ──configuration──▶ RunConfig

A variant is what no question can change of what was probed: words, precision, compilation, workers.
What a question leaves open is as it was probed last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import log2
from typing import get_args

from epochcast.costmodel.learned import Parameters, Variant
from epochcast.costmodel.remarks import is_imported
from epochcast.costmodel.scaling import World
from epochcast.costmodel.worlds import nodes_of
from epochcast.errors import PredictionError
from epochcast.records import Footprint, Precision, RunConfig, SizeValue, make_sizes
from epochcast.records.measurement import named_target
from epochcast.records.validation import is_integer, is_number, shown

LARGEST = 1e15  # of anything counted: more is a typing error, and floats lose whole numbers


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
        again = named_target(parameters.workload, parameters.target)
        if parameters.measured_on is not None:
            raise PredictionError(
                f"how long {question.world_size} devices take to average gradients does not follow "
                f"for {parameters.device.name} from {parameters.measured_on.name}: ask for one "
                "device, or probe several there"
            )
        raise PredictionError(
            f"{parameters.workload} was measured on {probed} device{'s' * (probed > 1)} only, "
            f"which tells nothing of {question.world_size}; measure another number of them: import "
            f"such runs, or epochcast probe {again} --world-sizes {2 * probed} (of a "
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
