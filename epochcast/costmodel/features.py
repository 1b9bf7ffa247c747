"""Features: monomials in the variables of a configuration; and the forms that are made of them.

    name     meaning                                             shape
    table    variable → its value in each configuration          name → (n,)
    feature  ((variable, power), …); () is the constant 1
    X        one row per configuration, one column per feature   (n, p)

Variables are ``batch_size``, the numeric model-size knobs (``size.width``), and what the dry
count of operators gives (``aligned_flops``, ``bytes_moved``, ``operators``, ``parameters``).
Physical time is a non-negative combination of such terms: launches, arithmetic, traffic, samples
loaded. Counts themselves are polynomials in the knobs with non-negative coefficients: a layer of
width w has w·w weights, depth d repeats it, and so on.

A form says how groups of features join to one quantity; ``regression.py`` weighs the forms that a
quantity may take. Features of work come before constants: where one configuration cannot tell them
apart, non-negative least squares takes the first, and a time in proportion to the work is the
better guess.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import inf

import numpy as np
from numpy.typing import NDArray

from epochcast.records import DeviceKind, Footprint, RunConfig, Sizes, SizeValue

Array = NDArray[np.float64]
VariableTable = Mapping[str, Array]
Feature = tuple[tuple[str, float], ...]

KNOB_PREFIX = "size."
COUNTS = (
    "flops",
    "aligned_flops",
    "bytes_moved",
    "operators",
    "parameters",
    "static_bytes",
    "gradient_bytes",
    "batch_elements",
    "step_peak_bytes",
    "update_peak_bytes",
)
MAX_DEGREE = 3  # of a knob monomial: depth × width × width
SOFT_EXPONENTS = (2.0, 4.0)  # between a sum (1) and a maximum (∞)
UNLIKELY = 0.3  # prior of a form that the kind of device speaks against
DOUBTED = 0.1  # of one that is asked for the sake of its disagreement

CONSTANT: Feature = ()
DISPATCHED: tuple[Feature, ...] = ((("operators", 1.0),),)
LAUNCH: tuple[Feature, ...] = (CONSTANT, *DISPATCHED)
BESIDE_FLOPS: tuple[Feature, ...] = (
    (("bytes_moved", 1.0),),
    (("batch_size", 1.0),),  # samples loaded and collated
    (("batch_elements", 1.0),),  # and what of them is transferred and padded
    (("parameters", 1.0),),
)
WORK: tuple[Feature, ...] = ((("aligned_flops", 1.0),), *BESIDE_FLOPS)
UNALIGNED_WORK: tuple[Feature, ...] = ((("flops", 1.0),), *BESIDE_FLOPS)
FLOP_CLASSES = ("attention", "convolution", "matmul", "recurrent")
WORK_BY_CLASS: tuple[Feature, ...] = (
    *(((f"flops.{name}", 1.0),) for name in FLOP_CLASSES),
    *BESIDE_FLOPS,
)


def numeric_knobs(sizes: Sizes) -> dict[str, float]:
    """The knobs that are positive numbers, by variable name."""
    return {KNOB_PREFIX + k: float(v) for k, v in sizes if _is_quantity(v)}


def categories(sizes: Sizes) -> Sizes:
    """All other knobs; measurements are compared only where these are equal.

    Zero is one of them: what a knob does between "off" and "some" is no smooth function.
    """
    return tuple((k, v) for k, v in sizes if not _is_quantity(v))


def _is_quantity(value: SizeValue) -> bool:
    return not isinstance(value, str | bool) and value > 0


def variables(config: RunConfig, footprint: Footprint | None) -> dict[str, float]:
    """The value of every variable that is known of one configuration."""
    values = {**batch_variables(config.batch_size), **numeric_knobs(config.sizes)}
    if footprint is not None:
        values |= counts(footprint)
    return values


def batch_variables(batch_size: float) -> dict[str, float]:
    """The variables that the batch size alone gives."""
    table = batch_table(np.asarray(float(batch_size)))
    return {name: float(value) for name, value in table.items()}


def batch_table(batch_size: Array) -> dict[str, Array]:
    """The same of many batch sizes (n,); ``padded_batch`` is B·log₂ 2B, see ``times_padding``."""
    return {"batch_size": batch_size, "padded_batch": batch_size * np.log2(2 * batch_size)}


def counts(footprint: Footprint) -> dict[str, float]:
    """What was counted, by variable name; what was not is absent."""
    made = {name: footprint.count(name) for name in (*COUNTS, "peak_bytes")}
    found = {name: float(count) for name, count in made.items() if count is not None}
    for name in ("batch_elements", "aligned_flops"):
        if not getattr(footprint, name):  # imported ones may not know
            found.pop(name, None)
    if footprint.eval_peak_bytes:
        found["eval_peak_bytes"] = float(footprint.eval_peak_bytes)
    return found | {f"flops.{name}": float(flops) for name, flops in footprint.flops_by_class}


def tabulate(rows: Sequence[Mapping[str, float]]) -> dict[str, Array]:
    """Rows of variables as columns; only variables that every row has."""
    shared = set(rows[0]).intersection(*rows[1:])
    return {name: np.array([row[name] for row in rows]) for name in sorted(shared)}


def matrix(features: Sequence[Feature], table: VariableTable) -> Array:
    """The features of each configuration, shape (n, p)."""
    n = len(next(iter(table.values())))
    columns = [np.ones(n) for _ in features]
    for column, feature in zip(columns, features, strict=True):
        for name, power in feature:
            column *= table[name] ** power
    return np.stack(columns, axis=1)


def knob_monomials(names: Sequence[str], powers: Sequence[int] = (0, 1, 2)) -> tuple[Feature, ...]:
    """All products of knobs, each to one of the powers, of degree up to ``MAX_DEGREE``."""
    everything = product(powers, repeat=len(names))
    return tuple(
        tuple((name, float(p)) for name, p in zip(names, exponents, strict=True) if p)
        for exponents in everything
        if sum(exponents) <= MAX_DEGREE
    )


def times_batch(features: Sequence[Feature]) -> tuple[Feature, ...]:
    """Each feature multiplied by the batch size."""
    return tuple((("batch_size", 1.0), *feature) for feature in features)


def times_padding(features: Sequence[Feature]) -> tuple[Feature, ...]:
    """Each feature times B·log₂ 2B: a batch is padded to its longest sample, and the expected
    maximum of B lengths grows with log B (e.g. David & Nagaraja 2003, "Order statistics", 10.5)."""
    return tuple((("padded_batch", 1.0), *feature) for feature in features)


# -- forms ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A candidate: groups of features, how they join, and how likely physics makes it."""

    name: str
    groups: tuple[tuple[Feature, ...], ...]
    exponent: float = 1.0
    prior: float = 1.0

    @property
    def features(self) -> tuple[Feature, ...]:
        """Those of all groups, one after another."""
        return tuple(feature for group in self.groups for feature in group)

    @property
    def columns(self) -> tuple[tuple[int, ...], ...]:
        """Positions of each group's features among ``features``."""
        ends = np.cumsum([len(group) for group in self.groups]).tolist()
        return tuple(
            tuple(range(end - len(g), end)) for g, end in zip(self.groups, ends, strict=True)
        )


def time_forms(
    knobs: Sequence[str], kind: DeviceKind, *, has_counts: bool, aligned: bool = True
) -> list[Form]:
    """Seconds of a micro-step or of an evaluation batch.

    A CPU finishes what it is told before it is told more, so times add up; an accelerator works
    while the host prepares the next operator, so the slower of the two rules.

    Args:
        knobs: names of the model-size knobs, which stand in for the counts where there are none.
        kind: of the device; says which forms are likely, and which ones need better evidence.
        has_counts: whether operators were counted; otherwise only knobs and batch size are known.
        aligned: whether FLOPs were also counted as kernels work through them.
    """
    scales = knob_monomials(knobs)
    if not has_counts:
        lines = times_batch(scales) + scales
        floor = (scales, lines)
        hard = Form(name="floor", groups=floor, exponent=inf)
        return [Form(name="line", groups=(lines,)), *_soft_floors(floor), hard]
    work = WORK if aligned else UNALIGNED_WORK
    sums = [
        Form(name="sum", groups=(work + LAUNCH,)),
        Form(name="sum by class", groups=(WORK_BY_CLASS + LAUNCH,), prior=UNLIKELY),
    ]
    floors = _soft_floors((LAUNCH, work + DISPATCHED))
    likely, other = (sums, floors) if kind == "cpu" else (floors, sums)
    return [*likely, *(replace(form, prior=UNLIKELY) for form in other)]


def _soft_floors(groups: tuple[tuple[Feature, ...], ...]) -> list[Form]:
    return [
        Form(name=f"soft floor p={exponent:.0f}", groups=groups, exponent=exponent)
        for exponent in SOFT_EXPONENTS
    ]


def update_forms(knobs: Sequence[str]) -> list[Form]:
    """Seconds of one optimizer update."""
    by_size = (CONSTANT, (("parameters", 1.0),), (("static_bytes", 1.0),))
    return [
        Form(name="sum", groups=(by_size,)),
        Form(name="by knobs", groups=(knob_monomials(knobs),)),
    ]


def count_forms(knobs: Sequence[str]) -> list[Form]:
    """Counts and peaks, which are the same on every device.

    Two values of a knob do not tell a straight line from a square. Both are asked: where they
    disagree, less is known.
    """
    scales = knob_monomials(knobs)
    lines = times_batch(scales) + scales
    return [
        Form(name="polynomial", groups=(lines,)),
        *(
            Form(name=name, groups=(times_batch(some) + some,), prior=DOUBTED)
            for name, powers in (("straight", (0, 1)), ("square", (0, 2)))
            if (some := knob_monomials(knobs, powers)) != scales
        ),
        Form(name="maximum of lines", groups=(lines, lines), exponent=inf),
        Form(name="padded", groups=(lines + times_padding(scales),)),
    ]


def static_forms(knobs: Sequence[str]) -> list[Form]:
    """What does not depend on the batch size: building, saving."""
    by_size = (CONSTANT, (("static_bytes", 1.0),))
    return [
        Form(name="line", groups=(by_size,)),
        Form(name="by knobs", groups=(knob_monomials(knobs),)),
    ]


def beyond_peak_forms(kind: DeviceKind, *, shared: bool = True) -> list[Form]:
    """What a layer of memory needs beyond the live tensors: a constant, and a share of the peak.

    An accelerator's caching allocator rounds and fragments in proportion to what it holds
    (benchmarks/public_memory.py). A CPU's memory goes back to the system.

    Args:
        shared: whether peaks differ enough to tell a share of them.
    """
    share = (("peak_bytes", 1.0),)
    prior = UNLIKELY if kind == "cpu" else 1.0
    constant = Form(name="constant", groups=((CONSTANT,),))
    both = Form(name="constant and share", groups=((CONSTANT, share),), prior=prior)
    return [constant, both] if shared else [constant]


def untracked_forms(knobs: Sequence[str]) -> list[Form]:
    """All that a layer of memory needs, where no tensors were tracked."""
    scales = knob_monomials(knobs)
    lines = times_batch(scales) + scales
    return [
        Form(name="line", groups=(lines,)),
        Form(name="maximum of lines", groups=(lines, lines), exponent=inf),
    ]


def loader_forms(knobs: Sequence[str]) -> list[Form]:
    """Seconds in which the loader alone delivers a batch."""
    samples = (CONSTANT, (("batch_size", 1.0),))
    scales = knob_monomials(knobs)
    return [
        Form(name="line", groups=(samples,)),
        Form(name="by knobs", groups=((CONSTANT, *times_batch(scales)),)),
    ]


def sample_forms(knobs: Sequence[str]) -> list[Form]:
    """Samples of an epoch: a longer context makes fewer windows of the same text."""
    powers = tuple(((knob, power),) for knob in knobs for power in (-1.0, 1.0))
    return [
        Form(name="constant", groups=((CONSTANT,),)),
        Form(name="by knobs", groups=((CONSTANT, *powers),)),
    ]


def only_known(forms: Sequence[Form], known: set[str]) -> list[Form]:
    """The forms without features of variables that were not measured."""
    usable = []
    for form in forms:
        groups = tuple(
            tuple(x for x in group if all(name in known for name, _ in x)) for group in form.groups
        )
        if all(groups):
            usable.append(replace(form, groups=groups))
    return usable
