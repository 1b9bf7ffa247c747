"""Which configurations are fitted on, and which are held out to be predicted.

unseen batch sizes       fit b₀ b₂ b₄      hold out b₁ b₃          every model size
largest batch sizes      fit b₀ b₁ b₂      hold out b₃ b₄          every model size
model size between       fit s₀ s₂ × b₀ b₂ b₄     hold out s₁ × all batch sizes
model size beyond        likewise without s₀, and without s₂
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from epochcast.records import RunConfig, Sizes

BATCH_SIZES, LARGEST = "unseen batch sizes", "largest batch sizes"
BETWEEN, BEYOND = "model size between", "model size beyond"
SPLITS = (BATCH_SIZES, LARGEST, BETWEEN, BEYOND)


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """One division of a grid into configurations to fit on and to predict."""

    name: str
    fitted: tuple[RunConfig, ...]
    held_out: tuple[RunConfig, ...]


def splits(configs: Iterable[RunConfig]) -> list[Split]:
    """Every division of a full grid of batch sizes × model sizes.

    Args:
        configs: model sizes differ in one knob, or at least have an order.
    """
    known = tuple(dict.fromkeys(configs))
    batch_sizes = sorted({c.batch_size for c in known})
    models = sorted({c.sizes for c in known}, key=_values)
    inner = set(batch_sizes[1:-1:2])
    found = [
        _by_batch_size(BATCH_SIZES, known, inner),
        _by_batch_size(LARGEST, known, set(batch_sizes[-2:])),
    ]
    for position, model in enumerate(models):
        name = BETWEEN if 0 < position < len(models) - 1 else BEYOND
        fitted = (c for c in known if c.sizes != model and c.batch_size not in inner)
        held = (c for c in known if c.sizes == model)
        found.append(Split(name=name, fitted=tuple(fitted), held_out=tuple(held)))
    return found


def _by_batch_size(name: str, known: tuple[RunConfig, ...], held: set[int]) -> Split:
    return Split(
        name=name,
        fitted=tuple(c for c in known if c.batch_size not in held),
        held_out=tuple(c for c in known if c.batch_size in held),
    )


def _values(sizes: Sizes) -> tuple[object, ...]:
    return tuple(value for _, value in sizes)
