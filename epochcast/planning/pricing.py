"""What candidates cost: medians for many at once, then scatter for the few that matter.

    symbol   meaning                                                 shape
    n        candidates: micro-batch, accumulation, devices          (n,) each
    N, D     samples of an epoch, devices: each sees ⌈N/D⌉            as a distributed sampler pads
    b, k     micro-batch, accumulation                               an update sees b·k·D samples

    T_epoch = ⌊N/(D·b)⌋·t(b) + [r > 0]·t(r) + u·(t_update + t_reduce) + T_turn

is the equation of ``costmodel.prediction`` for all candidates. Devices beyond those probed are
taken to be as fast as one; averaging gradients over D of them is priced as a ring (Patarasuk &
Yuan 2009): t_reduce = 2·(D − 1)/D · 4 bytes · parameters / bandwidth, or nothing where the
bandwidth is not given. Evaluation and saves are done by one device.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil, sqrt

import numpy as np
from numpy.typing import NDArray

from epochcast.costmodel import features as f
from epochcast.costmodel.features import Array
from epochcast.costmodel.intervals import Scatter
from epochcast.costmodel.model import CostModel, Variant
from epochcast.costmodel.prediction import EPOCH_NOISE_CAP, Place
from epochcast.costmodel.surface import Surface
from epochcast.records import Quantiles, RunConfig

Whole = NDArray[np.int64]
Table = Mapping[str, Array]

EXACTLY = Scatter(sd=0.0)
GRADIENT_BYTES = 4  # of one parameter, averaged in fp32 as DistributedDataParallel does


@dataclass(frozen=True, slots=True)
class Amount:
    """Seconds or bytes, as a median and its run-level scatter on the log scale."""

    median: float = 0.0
    scatter: Scatter = EXACTLY

    def quantiles(self) -> Quantiles:
        """The usual quantiles."""
        return self.scatter.quantiles(self.median)

    def quantile(self, p: float) -> float:
        """The quantile at a probability."""
        return self.scatter.quantile(self.median, p)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """What the parts of one configuration's run cost.

    Attributes:
        startup: process start until the first step can begin.
        first: what the first steps take beyond steady ones.
        training: the steps of one epoch.
        turn: from one epoch to the next.
        evaluation, save: one of each.
        epoch_noise: relative scatter of one epoch around its run's mean.
        save_bytes: of one checkpoint; None if unknown.
        device_bytes: that the device must have; None if unknown.
    """

    startup: Amount = Amount()
    first: Amount = Amount()
    training: Amount
    turn: Amount = Amount()
    evaluation: Amount = Amount()
    save: Amount = Amount()
    epoch_noise: float = 0.0
    save_bytes: float | None = None
    device_bytes: Amount | None = None

    @property
    def epoch_seconds(self) -> float:
        """One steady epoch, evaluation and saves excluded; median."""
        return self.training.median + self.turn.median


@dataclass(frozen=True, slots=True)
class Candidates:
    """Ways to divide a step: micro-batch, accumulation and devices, each of shape (n,)."""

    batch_size: Whole
    accumulation: Whole
    devices: Whole

    @property
    def global_batch(self) -> Whole:
        """Samples of one optimizer step."""
        return self.batch_size * self.accumulation * self.devices

    def pick(self, chosen: Whole | NDArray[np.bool_]) -> Candidates:
        """Some of them."""
        return Candidates(self.batch_size[chosen], self.accumulation[chosen], self.devices[chosen])


@dataclass(frozen=True, slots=True)
class Division:
    """How each candidate divides an epoch on one device, as a DataLoader does it."""

    full: Whole
    partial: Whole
    updates: Whole


def divide(samples: int, candidates: Candidates, drop_last: bool) -> Division:
    """50,000 samples at 128 are 391 steps, 390 with drop_last; 98 with accumulation 4."""
    shard = -(-samples // candidates.devices)
    full, rest = np.divmod(shard, candidates.batch_size)
    partial = np.zeros_like(rest) if drop_last else rest
    updates = -(-(full + (partial > 0)) // candidates.accumulation)
    return Division(full=full, partial=partial, updates=updates)


@dataclass(frozen=True, slots=True)
class Job:
    """What is trained, whatever the batch: the same for all candidates."""

    model: CostModel
    variant: Variant
    config: RunConfig
    samples: int
    eval_samples: int
    bandwidth: float | None = None


@dataclass(frozen=True, slots=True)
class PriceList:
    """Medians for all candidates, shape (n,) each; bytes are NaN where unknown."""

    job: Job
    candidates: Candidates
    division: Division
    startup: Array
    training: Array
    evaluation: Array
    save: Array
    save_bytes: Array
    device_bytes: Array
    doublings_outside: Array

    def prices(self, i: int) -> Prices:
        """One candidate with its scatter."""
        variant, model = self.job.variant, self.job.model
        place = Place(variant, self.config(i))
        steps = max(1, int(self.division.full[i] + (self.division.partial[i] > 0)))
        return Prices(
            startup=Amount(float(self.startup[i]), model.imports.scatter),
            first=Amount(variant.first_steps.seconds, variant.first_steps.scatter),
            training=Amount(float(self.training[i]), place.run_scatter()),
            turn=Amount(variant.epoch_turn.seconds, variant.epoch_turn.scatter),
            evaluation=_amount(place, variant.evaluation, self.evaluation[i]),
            save=_amount(place, variant.save_seconds, self.save[i]),
            epoch_noise=min(EPOCH_NOISE_CAP, variant.step_sd / sqrt(steps)),
            save_bytes=None if np.isnan(self.save_bytes[i]) else float(self.save_bytes[i]),
            device_bytes=_memory(place, self.device_bytes[i]),
        )

    def config(self, i: int) -> RunConfig:
        """One candidate as a configuration."""
        return replace(
            self.job.config,
            batch_size=int(self.candidates.batch_size[i]),
            accumulation=int(self.candidates.accumulation[i]),
            world_size=int(self.candidates.devices[i]),
        )


def price(job: Job, candidates: Candidates) -> PriceList:
    """Price candidates by the medians of the cost model."""
    variant, model = job.variant, job.model
    division = divide(job.samples, candidates, job.config.drop_last)
    table = _table(job, candidates.batch_size)
    partial = _table(job, np.maximum(division.partial, 1))
    rest = np.where(division.partial > 0, variant.micro_step.values(partial), 0.0)
    update = _values(variant.update, table) + _reduce_seconds(job, candidates, table)
    training = division.full * variant.micro_step.values(table) + rest + division.updates * update
    return PriceList(
        job=job,
        candidates=candidates,
        division=division,
        startup=model.imports.seconds + _values(variant.build, table),
        training=training,
        evaluation=_evaluation(job, candidates, table),
        save=_values(variant.save_seconds, table),
        save_bytes=_values(variant.save_bytes, table, unknown=np.nan),
        device_bytes=_device_bytes(variant, table),
        doublings_outside=_doublings_outside(variant.micro_step, table),
    )


def _table(job: Job, batch_size: Whole) -> dict[str, Array]:
    """Every variable of every candidate; see ``costmodel.features``."""
    n = len(batch_size)
    table: dict[str, Array] = {"batch_size": batch_size.astype(float)}
    for name, value in f.numeric_knobs(job.config.sizes).items():
        table[name] = np.full(n, value)
    for name, surface in job.variant.counts:
        table[name] = surface.values(table)
    return table


def _values(surface: Surface | None, table: Table, unknown: float = 0.0) -> Array:
    if surface is None:
        return np.full(len(table["batch_size"]), unknown)
    return surface.values(table)


def _reduce_seconds(job: Job, candidates: Candidates, table: Table) -> Array:
    devices = candidates.devices
    if job.bandwidth is None or "parameters" not in table:
        return np.zeros(len(devices))
    sent = 2 * (devices - 1) / devices * GRADIENT_BYTES * table["parameters"]
    return np.where(devices == job.variant.world_size, 0.0, sent / job.bandwidth)


def _evaluation(job: Job, candidates: Candidates, table: Table) -> Array:
    if job.variant.evaluation is None or not job.eval_samples:
        return np.zeros(len(candidates.batch_size))
    batches = -(-job.eval_samples // candidates.batch_size)
    return np.asarray(
        batches * job.variant.evaluation.values(table) + job.variant.eval_turn.seconds
    )


def _device_bytes(variant: Variant, table: Table) -> Array:
    """What the device must have; where that was not measured, the peak of live tensors."""
    peak = np.fmax(
        _values(variant.step_peak, table, np.nan), _values(variant.update_peak, table, np.nan)
    )
    if variant.device_bytes is None:
        return peak
    return variant.device_bytes.values({**table, "peak_bytes": np.nan_to_num(peak)})


def _doublings_outside(surface: Surface, table: Table) -> Array:
    """How far each candidate lies outside the fitted range."""
    furthest = np.zeros(len(table["batch_size"]))
    for axis, low, high in zip(surface.axes, surface.low, surface.high, strict=True):
        beyond = np.maximum(np.log2(low / table[axis]), np.log2(table[axis] / high))
        furthest = np.maximum(furthest, beyond)
    return furthest


def _amount(place: Place, surface: Surface | None, median: float) -> Amount:
    return Amount() if surface is None else Amount(float(median), place.run_scatter(surface))


def _memory(place: Place, median: float) -> Amount | None:
    surface, peak = place.variant.device_bytes, place.peak_bytes()
    if surface is None:
        known = [s for s in (place.variant.step_peak, place.variant.update_peak) if s]
        if not known:
            return None
        surface = max(known, key=lambda s: s.value(place.variables))
    variables = {**place.variables, "peak_bytes": peak.p50 if peak else 0.0}
    scatter = Scatter(sd=surface.sd_log(variables), dof=surface.loo_dof)
    return Amount(float(median), scatter)


def fold_samples(samples: int, folds: int) -> tuple[int, int]:
    """Training and evaluation samples of one fold: k − 1 parts and one part."""
    held_out = ceil(samples / folds)
    return samples - held_out, held_out
