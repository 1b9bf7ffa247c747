"""Evaluation and saving, as if each were the training that the rest of the cost model is fitted to.

    trial at batch size B, evaluated at E     a measurement of evaluation
    ─────────────────────────────────────     ───────────────────────────────────
    config.batch_size = B                     config.batch_size = min(E, samples)
    memory, eval_memory, save_memory          memory = eval_memory
    footprint.eval_peak_bytes                 footprint.step_peak_bytes

So one rule fits the time and the memory of all three, and a run needs the largest of the three.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from epochcast.costmodel import features as f
from epochcast.costmodel.memory import PEAKS
from epochcast.costmodel.scatter import Amount
from epochcast.costmodel.surface import Surface
from epochcast.records import Footprint, Measurement, RunConfig

Footprints = Mapping[RunConfig, Footprint]
CountSurfaces = tuple[tuple[str, Surface], ...]


def evaluation_config(config: RunConfig, eval_samples: int) -> RunConfig:
    """The configuration whose batch is that of the evaluation: at most all there is."""
    at_once = config.evaluated_at_once
    batch_size = min(at_once, eval_samples) if eval_samples else at_once
    return replace(config, batch_size=batch_size, eval_batch_size=None)


def evaluation_footprints(
    counted: Footprints, counts: CountSurfaces, eval_samples: int
) -> dict[RunConfig, Footprint]:
    """What was counted, at the batch sizes of evaluation.

    Args:
        counted: of training steps, by configuration.
        counts: the same as functions, for batches of which no training step was counted.
        eval_samples: of an evaluation.
    """
    found: dict[RunConfig, Footprint] = {}
    for config, footprint in counted.items():
        at = evaluation_config(config, eval_samples)
        counted_at = counted.get(replace(at, eval_batch_size=config.eval_batch_size))
        there = footprint if at.batch_size == config.batch_size else counted_at
        found[at] = _with_one_peak(
            there or _at_batch(footprint, counts, at), footprint.count("eval_peak_bytes") or 0
        )
    return found


def _at_batch(footprint: Footprint, counts: CountSurfaces, config: RunConfig) -> Footprint:
    """A footprint at another batch size, by the surfaces of its counts."""
    at = f.variables(config, None)
    values = {name: round(surface.value(at)) for name, surface in counts}
    plain = {name: value for name, value in values.items() if name in f.COUNTS}
    by_class = tuple((k, values.get(f"flops.{k}", v)) for k, v in footprint.flops_by_class)
    return replace(footprint, flops_by_class=by_class, **plain)  # type: ignore[arg-type]


def _with_one_peak(footprint: Footprint, peak_bytes: int) -> Footprint:
    """A footprint whose only peak is this one; 0 is not known."""
    unknown = footprint.unknown if peak_bytes else (*footprint.unknown, *PEAKS)
    return replace(
        footprint,
        step_peak_bytes=peak_bytes,
        update_peak_bytes=0,
        reserve_bytes=0,
        timeline=None,
        unknown=unknown,
    )


def evaluations(trials: Iterable[Measurement], counted: Footprints) -> list[Measurement]:
    """Measurements of evaluation.

    Args:
        trials: those without evaluation data are left out.
        counted: at the batch sizes of evaluation.
    """
    return [
        replace(m, config=config, memory=m.eval_memory, footprint=counted.get(config))
        for m in trials
        if m.eval_samples
        for config in [evaluation_config(m.config, m.eval_samples)]
    ]


def savings(trials: Iterable[Measurement]) -> list[Measurement]:
    """Measurements of saving; what is saved is what is always in memory."""
    return [
        replace(m, memory=m.save_memory, footprint=m.footprint and _saved(m.footprint))
        for m in trials
        if m.save_memory
    ]


def _saved(footprint: Footprint) -> Footprint:
    return _with_one_peak(footprint, footprint.count("static_bytes") or 0)


def largest(amounts: Iterable[Amount | None]) -> Amount | None:
    """What phases need that come one after another: the highest median, and the highest P95."""
    known = [amount for amount in amounts if amount is not None]
    if not known:
        return None
    top = max(known, key=lambda amount: amount.quantile(0.95))
    middle = max(amount.median for amount in known)
    if middle <= top.median:
        return top
    return Amount(middle, top.scatter.narrowed(middle, top.quantile(0.95)))
