"""The largest batch that fits a memory with a confidence.

    fits(B)  ⟺  the q-quantile of what the device must have at batch size B  ≤  memory

Memory grows with the batch, so doubling finds a batch that does not fit and bisection the last one
that does. What no probe and no dry run has seen widens the quantile, so an answer far above the
probed range is a careful one. Below the range the quantile is as far from the median as at its
lower end: what is less certain there is how much less it needs. Between batches that were measured
the quantile can lie above that of the larger one, but no batch needs more than a larger one does:
whatever fits at a batch that was measured fits at all smaller ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from epochcast.costmodel.model import CostModel, Variant
from epochcast.costmodel.place import Place
from epochcast.costmodel.prediction import (
    Question,
    choose_variant,
    configuration,
    place,
    require_known_size,
)
from epochcast.errors import PredictionError
from epochcast.records import Capacity, RunConfig


def largest_batch(
    model: CostModel, question: Question, memory_bytes: int, confidence: float = 0.95
) -> Capacity:
    """The largest micro-batch with which a question's configuration fits.

    Args:
        question: its batch size is ignored.
        memory_bytes: what the device has for this process.
        confidence: probability with which it must fit, between 0 and 1.

    Raises:
        PredictionError: memory was not measured, or not even one sample fits.
    """
    if not 0 < confidence < 1:
        raise PredictionError(f"confidence must be between 0 and 1, but got {confidence!r}")
    variant = choose_variant(model, question)
    config = configuration(model, variant, question)

    def at(batch_size: int) -> Place:
        return place(model, variant, replace(config, batch_size=batch_size))

    require_known_size(model, at(config.batch_size))
    smallest = min(c.batch_size for c in variant.configurations)
    edge, margin = _memory(at(smallest), confidence)

    def needed(batch_size: int) -> float:
        median, quantile = _memory(at(batch_size), confidence)
        return quantile if batch_size >= smallest else median * margin / edge

    measured = [b for b in _measured(variant, config) if needed(b) <= memory_bytes]
    proven = max(measured, default=0)

    def fits(batch_size: int) -> bool:
        return batch_size <= proven or needed(batch_size) <= memory_bytes

    limit = question.samples or at(config.batch_size).samples()
    if not fits(1):
        raise PredictionError(
            f"not even a batch of one fits: {model.workload} needs {needed(1) / 2**20:,.0f} MiB "
            f"with this confidence, of {memory_bytes / 2**20:,.0f} MiB"
        )
    best = _last(1, limit, fits)
    quantiles = at(best).device_bytes() or at(best).peak_bytes()
    return Capacity(
        batch_size=best,
        config=replace(config, batch_size=best),
        memory_bytes=memory_bytes,
        confidence=confidence,
        needed_bytes=needed(best),
        device_bytes=quantiles,
        limited_by="memory" if best < limit else "samples",
        extrapolated=tuple(name for name, _ in at(best).extrapolated()),
    )


def _measured(variant: Variant, config: RunConfig) -> set[int]:
    """Batch sizes at which this model size was probed or counted."""
    known = (*variant.configurations, *(c for c, _ in variant.counted))
    return {c.batch_size for c in known if c.sizes == config.sizes}


def _memory(at: Place, confidence: float) -> tuple[float, float]:
    """The median of what is needed, and its quantile at ``confidence``."""
    found = at.device_memory() or at.peak()
    if found is None:
        raise PredictionError("no memory was measured: probe the workload again")
    value, scatter = found
    return value, scatter.quantile(value, confidence)


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
