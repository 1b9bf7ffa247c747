"""Features: monomials in the variables of a configuration, and the matrices made of them.

    name     meaning                                             shape
    table    variable → its value in each configuration          name → (n,)
    feature  ((variable, power), …); () is the constant 1
    X        one row per configuration, one column per feature   (n, p)

Variables are ``batch_size``, the numeric model-size knobs (``size.width``), and what the dry
count of operators gives (``aligned_flops``, ``bytes_moved``, ``operators``, ``parameters``).
Physical time is a non-negative combination of such terms: launches, arithmetic, traffic, samples
loaded. Counts themselves are polynomials in the knobs with non-negative coefficients: a layer of
width w has w·w weights, depth d repeats it, and so on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from epochcast.records import Footprint, RunConfig, Sizes, SizeValue

Array = NDArray[np.float64]
Table = Mapping[str, Array]
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
    return found | {f"flops.{name}": float(flops) for name, flops in footprint.flops_by_class}


def tabulate(rows: Sequence[Mapping[str, float]]) -> dict[str, Array]:
    """Rows of variables as columns; only variables that every row has."""
    shared = set(rows[0]).intersection(*rows[1:])
    return {name: np.array([row[name] for row in rows]) for name in sorted(shared)}


def matrix(features: Sequence[Feature], table: Table) -> Array:
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
