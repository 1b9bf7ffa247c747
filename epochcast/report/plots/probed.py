"""What a cost model says of what was probed, and between: the numbers behind the pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from epochcast.costmodel.cost import ConfigurationCost
from epochcast.costmodel.model import CostModel
from epochcast.costmodel.scatter import Calibrations
from epochcast.records import Device, Quantiles, RunConfig, Summary

BETWEEN = 24  # batch sizes of a curve, from the smallest to the largest that were measured


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbedPrediction:
    """What a cost model says about a configuration, of probes alone.

    Attributes:
        measured_step_seconds: one steady micro-step; None where this is a point of a curve.
        predicted_step_seconds: the same, as predicted.
        measured_peak_bytes: largest sum of live tensors; None where it was not tracked.
        predicted_peak_bytes: the same, as predicted.
    """

    config: RunConfig
    workload: str
    device: Device
    measured_step_seconds: float | None
    predicted_step_seconds: Quantiles
    measured_peak_bytes: int | None = None
    predicted_peak_bytes: Quantiles | None = None


def predictions_of(model: CostModel, summaries: Sequence[Summary]) -> list[ProbedPrediction]:
    """Of each configuration that was measured and is among the model's, and along the batch size.

    Args:
        model: fitted to the measurements of these summaries, among others.
        summaries: of any workload and device.
    """
    bare = replace(model, calibration=Calibrations())
    here = (model.workload, model.device)
    mine = [s for s in summaries if (s.workload, s.device) == here and s.step_seconds]
    found = [p for s in mine if (p := _prediction(bare, s.config, s)) is not None]
    known = {p.config for p in found}
    between = [c for c in _between([p.config for p in found]) if c not in known]
    return [*found, *(p for c in between if (p := _prediction(bare, c)) is not None)]


def _prediction(
    model: CostModel, config: RunConfig, measured: Summary | None = None
) -> ProbedPrediction | None:
    """Of one configuration; None where nothing like it belongs to the model."""
    like = _at_batch_one(config)
    ways = (v for v in model.variants if like in map(_at_batch_one, v.configurations))
    variant = next(ways, None)
    if variant is None:
        return None
    at = ConfigurationCost(model, variant, config)
    peak = at.peak()
    return ProbedPrediction(
        config=config,
        workload=model.workload,
        device=model.device,
        measured_step_seconds=measured.step_seconds if measured else None,
        predicted_step_seconds=at.step_seconds(),
        measured_peak_bytes=measured.peak_bytes if measured else None,
        predicted_peak_bytes=peak.quantiles() if peak else None,
    )


def _between(configs: Sequence[RunConfig]) -> Iterator[RunConfig]:
    """Of each model size, batch sizes evenly spaced in their logarithm."""
    series: dict[RunConfig, list[int]] = {}
    for config in configs:
        series.setdefault(_at_batch_one(config), []).append(config.batch_size)
    for config, sizes in series.items():
        for size in np.unique(np.geomspace(min(sizes), max(sizes), BETWEEN).round()):
            yield replace(config, batch_size=int(size))


def _at_batch_one(config: RunConfig) -> RunConfig:
    return replace(config, batch_size=1)
