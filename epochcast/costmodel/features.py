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

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from math import ceil, inf, prod

import numpy as np
from numpy.typing import NDArray

from epochcast.records import DeviceKind, Footprint, RunConfig, Sizes, SizeValue

Array = NDArray[np.float64]
VariableTable = Mapping[str, Array]
Feature = tuple[tuple[str, float], ...]

KNOB_PREFIX = "size."
CLASS_PREFIX = "flops."
ALIGNMENTS = (8, 64, 128)  # tensor cores' and tiles' (NVIDIA, "Matrix Multiplication Background")
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
MANY = 24  # monomials; with more knobs their degree is lower, down to powers of each alone
SOFT_EXPONENTS = (2.0, 4.0)  # between a sum (1) and a maximum (∞)
UNLIKELY = 0.3  # prior of a form that the kind of device speaks against
GRID = 9  # three batch sizes of three models: fewer do not show a power, nor where it steps
UNSURE = 0.5  # of one that is right for some workloads only
SELDOM = 0.05  # of one that a few measurements may look like, but ought to show
DOUBTED = 0.1  # of one that must be seen to be believed, or is asked for its disagreement

SHARE_NOISE = 0.01  # λ: a term that takes all of a time is as usual as an error of 1 %
SMALLER_PART = 0.3  # of a time, by assumption

CONSTANT: Feature = ()
BATCH: Feature = (("batch_size", 1.0),)
DISPATCHED: tuple[Feature, ...] = ((("operators", 1.0),),)
LAUNCH: tuple[Feature, ...] = (CONSTANT, *DISPATCHED)
BESIDE_FLOPS: tuple[Feature, ...] = (
    (("bytes_moved", 1.0),),
    (("batch_size", 1.0),),  # samples loaded and collated
    (("batch_elements", 1.0),),  # and what of them is transferred and padded
    (("parameters", 1.0),),
)
BESIDE_WORK = BESIDE_FLOPS[1:]
WORK: tuple[Feature, ...] = ((("aligned_flops", 1.0),), *BESIDE_FLOPS)
UNALIGNED_WORK: tuple[Feature, ...] = ((("flops", 1.0),), *BESIDE_FLOPS)
WORKED = ((("flops", 1.0),), (("aligned_flops", 1.0),))
FLOP_CLASSES = ("attention", "convolution", "matmul", "recurrent")
WORK_BY_CLASS: tuple[Feature, ...] = (
    *(((f"{CLASS_PREFIX}{name}", 1.0),) for name in FLOP_CLASSES),
    *BESIDE_FLOPS,
)


def numeric_knobs(sizes: Sizes) -> dict[str, float]:
    """The knobs that are numbers, by variable name."""
    return {KNOB_PREFIX + k: float(v) for k, v in sizes if _is_quantity(v)}


def knob_variables(sizes: Sizes) -> dict[str, float]:
    """The numeric knobs, each rounded up to what kernels may work through (``ALIGNMENTS``), and by
    how much all of them together are then larger."""
    knobs = numeric_knobs(sizes)
    found = dict(knobs)
    for to in ALIGNMENTS:
        rounded = {name: _aligned(value, to) for name, value in knobs.items()}
        found |= {aligned_name(name, to): value for name, value in rounded.items()}
        found[waste_name(to)] = prod(rounded[n] / value for n, value in knobs.items() if value)
    return found


def _aligned(value: float, to: int) -> float:
    """Rounded up to a multiple; not what is far smaller or no whole number: a depth, a rate."""
    return to * ceil(value / to) if value >= to / 2 and value == int(value) else value


def aligned_name(knob: str, to: int) -> str:
    """The variable that a knob rounded up is called."""
    return f"aligned.{to}.{knob}"


def waste_name(to: int) -> str:
    """The variable of how much larger all knobs are, rounded up."""
    return f"aligned.{to}"


def categories(sizes: Sizes) -> Sizes:
    """All other knobs: words, true and false. What was measured with others is only borrowed."""
    return tuple((k, v) for k, v in sizes if not _is_quantity(v))


def _is_quantity(value: SizeValue) -> bool:
    return not isinstance(value, str | bool)


def variables(config: RunConfig, footprint: Footprint | None) -> dict[str, float]:
    """The value of every variable that is known of one configuration."""
    values = {**batch_variables(config.batch_size), **knob_variables(config.sizes)}
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
    for name in ("eval_peak_bytes", "reserve_bytes"):
        if getattr(footprint, name):
            found[name] = float(getattr(footprint, name))
    return found | {
        f"{CLASS_PREFIX}{name}": float(flops) for name, flops in footprint.flops_by_class
    }


def work_classes(names: Iterable[str]) -> frozenset[str]:
    """Those of counts that are FLOPs of one class of operators; none where nobody told them
    apart."""
    return frozenset(name for name in names if name.startswith(CLASS_PREFIX))


def names_of(features: Iterable[Feature]) -> set[str]:
    """The variables that are in them."""
    return {name for feature in features for name, _ in feature}


def usual_share(feature: Feature) -> float:
    """Of a time that a term of it may have, beforehand: what is beside FLOPs, traffic and launches
    mostly is the smaller part."""
    return SMALLER_PART if feature in BESIDE_WORK else 1.0


def tabulate(rows: Sequence[Mapping[str, float]]) -> dict[str, Array]:
    """Rows of variables as columns; only variables that every row has."""
    shared = set(rows[0]).intersection(*rows[1:])
    return {name: np.array([row[name] for row in rows]) for name in sorted(shared)}


def matrix(features: Sequence[Feature], table: VariableTable) -> Array:
    """The features of each configuration, shape (n, p)."""
    n = len(next(iter(table.values())))
    rows = np.ones((len(features), n))
    for row, feature in zip(rows, features, strict=True):
        for name, power in feature:
            row *= table[name] ** power
    return np.ascontiguousarray(rows.T)


def knob_monomials(
    names: Sequence[str], powers: Sequence[int] = (1, 2), degree: int = MAX_DEGREE
) -> tuple[Feature, ...]:
    """The constant and all products of knobs, each to one of the powers, up to a degree.

    Args:
        names: of the knobs.
        powers: that a knob may have where it occurs.
        degree: the highest sum of powers; less where that would make too many, but each knob alone
            has all its powers.
    """
    for highest in range(degree, max(powers), -1):
        found = _monomials(names, powers, highest)
        if len(found) <= MANY:
            return found
    return (CONSTANT, *(((name, float(power)),) for name in names for power in powers))


def _monomials(names: Sequence[str], powers: Sequence[int], degree: int) -> tuple[Feature, ...]:
    """Stops a little beyond ``MANY``: their number grows with the third power of the names'."""
    found: list[Feature] = []
    for size in range(degree // min(powers) + 1):
        for some in combinations(names, size):
            for exponents in product(powers, repeat=size):
                if sum(exponents) <= degree:
                    found.append(tuple(zip(some, map(float, exponents), strict=True)))
            if len(found) > MANY:
                return tuple(found)
    return tuple(found)


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
    """A candidate: groups of features, how they join, and how likely physics makes it.

    Attributes:
        name: for people.
        groups: of features that add up.
        exponent: p, by which the groups join.
        prior: how likely it is before anything was measured, beside the other forms.
        free: variables whose powers are fitted; features hold what they are multiples of.
        rounded: variables that take the place of others, which are equal where sizes are round.
        least: configurations that it needs to be told from others.
        ridge: λ of regression.py, of a term that may be all there is; 0 for no prior.
    """

    name: str
    groups: tuple[tuple[Feature, ...], ...]
    exponent: float = 1.0
    prior: float = 1.0
    free: tuple[str, ...] = ()
    rounded: tuple[tuple[str, str], ...] = ()
    least: int = 0
    ridge: float = 0.0

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


# An affine time in disguise, or attention over the batch: four batch sizes tell them apart.
BATCH_POWER = Form(
    name="power of the batch",
    groups=((CONSTANT, BATCH),),
    prior=UNSURE,
    free=("batch_size",),
    least=4,
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
    if not has_counts:
        scales = knob_monomials(knobs)
        lines = times_batch(scales) + scales
        floor = (scales, lines)
        beside = ((CONSTANT, BATCH), lines)
        forms = [
            Form(name="line", groups=(lines,)),
            *_soft_floors(floor),
            Form(name="floor", groups=floor, exponent=inf),
            Form(name="loader beside", groups=beside, exponent=inf, prior=UNSURE),
            *free_forms(knobs),
        ]
        return forms if kind == "cpu" else [*forms, *aligned_forms(free_forms(knobs)[:1], knobs)]
    work = WORK if aligned else UNALIGNED_WORK
    sums = [
        Form(name="sum", groups=(work + LAUNCH,)),
        Form(name="sum by class", groups=(WORK_BY_CLASS + LAUNCH,), prior=UNLIKELY),
    ]
    floors = _soft_floors((LAUNCH, work + DISPATCHED))
    if kind != "cpu":
        floors += [
            Form(
                name="loader beside",
                groups=((*LAUNCH, BATCH), work + DISPATCHED),
                exponent=4.0,
                prior=SELDOM,
                least=GRID,
            ),
            *wasteful_forms(floors[-1:], knobs),
        ]
    likely, other = (sums, floors) if kind == "cpu" else (floors, sums)
    found = [*likely, *(replace(form, prior=UNLIKELY) for form in other)]
    return found if kind == "cpu" else [replace(form, ridge=SHARE_NOISE) for form in found]


def free_forms(knobs: Sequence[str]) -> list[Form]:
    """Where no operators were counted nobody knows the powers of a knob: those that are measured.

    The last is log-linear regression with a constant, e.g. of launches.
    """
    if not knobs:
        return [BATCH_POWER]
    together = tuple((knob, 1.0) for knob in knobs)
    scales = tuple(dict.fromkeys((CONSTANT, *(((knob, 1.0),) for knob in knobs), together)))
    even = knob_monomials(knobs, (2, 4), 4)  # of an image's side, of a context
    forms = [
        Form(name="free powers", groups=(times_batch(scales) + scales,), free=tuple(knobs)),
        Form(name="even powers", groups=(times_batch(even) + even,), prior=UNSURE),
        Form(
            name="free power",
            groups=((*times_batch((together,)), CONSTANT, together),),
            free=tuple(knobs),
        ),
        Form(
            name="free floor",
            groups=((CONSTANT, BATCH), times_batch((together,))),
            exponent=SOFT_EXPONENTS[-1],
            prior=UNSURE,
            free=tuple(knobs),
        ),
        Form(
            name="power law",
            groups=(((*BATCH, *together), CONSTANT),),
            free=("batch_size", *knobs),
        ),
    ]
    return [replace(form, least=GRID) for form in forms]


def aligned_forms(forms: Sequence[Form], knobs: Sequence[str]) -> list[Form]:
    """The same of knobs rounded up, to each of the ``ALIGNMENTS``."""
    found = []
    for form, to in product(forms, ALIGNMENTS):
        names = {knob: aligned_name(knob, to) for knob in knobs}

        def renamed(feature: Feature, names: Mapping[str, str] = names) -> Feature:
            return tuple((names.get(name, name), power) for name, power in feature)

        groups = tuple(tuple(map(renamed, group)) for group in form.groups)
        free = tuple(names.get(name, name) for name in form.free)
        rounded = tuple(names.items())
        found.append(replace(_seldom(form, to, groups), free=free, rounded=rounded))
    return found


def wasteful_forms(forms: Sequence[Form], knobs: Sequence[str]) -> list[Form]:
    """Counted work, times what knobs rounded up add to it: both sides of a layer's weights."""
    found = []
    for form, to in product(forms, ALIGNMENTS):
        waste = ((waste_name(to), 2.0),)
        groups = tuple(
            tuple((*x, *waste) if x in WORKED else x for x in group) for group in form.groups
        )
        rounded = tuple((knob, aligned_name(knob, to)) for knob in knobs)
        found.append(replace(_seldom(form, to, groups), rounded=rounded))
    return found


def _seldom(form: Form, to: int, groups: tuple[tuple[Feature, ...], ...]) -> Form:
    name = f"{form.name}, aligned to {to}"
    return replace(form, name=name, groups=groups, prior=form.prior * SELDOM, least=GRID)


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
            for name, powers in (("straight", (1,)), ("square", (2,)))
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


def oriented(forms: Sequence[Form], falling: set[str]) -> list[Form]:
    """The forms with negative powers of the knobs that make a quantity smaller, e.g. a patch."""

    names = falling | {aligned_name(knob, to) for knob in falling for to in ALIGNMENTS}

    def turned(feature: Feature) -> Feature:
        return tuple((name, -power if name in names else power) for name, power in feature)

    return [
        replace(form, groups=tuple(tuple(map(turned, group)) for group in form.groups))
        for form in forms
    ]


def powers_of(features: Sequence[Feature], names: Sequence[str]) -> Array:
    """The power of each variable in each feature, (k, m)."""
    return np.array([[dict(x).get(name, 0.0) for name in names] for x in features]).reshape(
        len(features), len(names)
    )


def raised(features: Sequence[Feature], factors: Mapping[str, float]) -> tuple[Feature, ...]:
    """The features with the powers of some variables multiplied."""
    return tuple(
        tuple((name, power * factors.get(name, 1.0)) for name, power in feature)
        for feature in features
    )
