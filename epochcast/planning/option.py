"""An appraised candidate as a plan has it: one option among others, and what its parts take."""

from __future__ import annotations

from typing import Any

import numpy as np

from epochcast.planning import batch as b
from epochcast.planning.appraisal import Appraisal
from epochcast.planning.budget import KWH, guaranteed, upper_quantile
from epochcast.planning.cadence import Epochs
from epochcast.planning.draws import LEVELS, quantiles
from epochcast.records import LimitName, Option, Quantiles, UnitPrices


def option_of(a: Appraisal) -> Option:
    """What a run of this candidate takes, and how sure that is."""
    steps = int(a.priced.division.updates[a.position])
    more = a.planned.seconds(a.same(a.epochs + 1)) - a.planned.seconds(a.same(a.epochs))
    next_seconds = float(np.median(more))
    return Option(
        config=a.config,
        epochs=a.epochs,
        affordable_epochs=_whole_quantiles(a.affordable_epochs),
        target_epochs=a.target,
        target_probability=None if a.target is None else _probability(a, a.target),
        most_epochs=a.most,
        probability=_probability(a, a.epochs),
        save_bytes=a.prices.save_bytes,
        binding=a.binding,
        slack=_slack(a),
        next_epoch_seconds=next_seconds,
        next_epoch_money=a.money_of(next_seconds),
        efficiency=_efficiency(a),
        **_learning_rate(a),
        steps_per_epoch=steps,
        horizon_steps=steps * a.epochs,
        extrapolated=tuple(name for name, _ in a.place.extrapolated()),
        **_totals(a),
        **_memory(a),
    )


def unit_prices_of(a: Appraisal) -> UnitPrices:
    """What each part of its run takes: what a followed run is held against."""
    run, calibrations = a.run, a.priced.job.model.calibration
    return UnitPrices(
        startup=quantiles(run.startup),
        first_steps=quantiles(run.first),
        epoch=quantiles(run.training + run.turn),
        evaluation=quantiles(run.evaluation),
        save=quantiles(run.save),
        epoch_noise=run.noise,
        calibration=calibrations.epoch.factor,
        startup_calibration=calibrations.startup.factor,
        evaluation_calibration=calibrations.evaluation.factor,
        save_calibration=calibrations.save.factor,
    )


def _totals(a: Appraisal) -> dict[str, Any]:
    """Time, money, energy and carbon of the run, as quantiles where they are known."""
    seconds = a.spent.seconds(a.same(a.epochs))
    joules = a.spent.joules(seconds) if a.budget.watts else None
    money = a.spent.money(seconds) if a.budget.price_per_hour is not None else None
    grams = None
    if joules is not None and a.budget.carbon_per_kwh is not None:
        grams = joules / KWH * a.budget.carbon_per_kwh
    named = {"seconds": seconds, "money": money, "energy_joules": joules, "carbon_grams": grams}
    return {name: None if x is None else quantiles(x) for name, x in named.items()}


def _memory(a: Appraisal) -> dict[str, Any]:
    memory = a.prices.device_bytes
    if memory is None:
        return {"device_bytes": None, "memory_share": None}
    capacity = a.priced.job.model.device.memory_bytes  # 0 where it is not known
    share = memory.quantile(0.9) / capacity if capacity else None
    return {"device_bytes": memory.quantiles(), "memory_share": share}


def _probability(a: Appraisal, epochs: int) -> float:
    return float(np.mean(a.affordable_epochs >= epochs))


def _slack(a: Appraisal) -> tuple[tuple[LimitName, float], ...]:
    """What each limit leaves over, with the confidence asked for."""
    q, epochs = a.budget.confidence, a.same(a.epochs)
    return tuple(
        (name, limit - upper_quantile(a.spent.used(name, epochs), q))
        for name, limit in a.spent.limits().items()
    )


def _efficiency(a: Appraisal) -> float | None:
    noise_scale = a.request.noise_scale
    if noise_scale is None:
        return None
    return b.efficiency(a.global_batch, a.reference, noise_scale)


def _learning_rate(a: Appraisal) -> dict[str, Any]:
    optimizer = a.request.optimizer
    if optimizer is None:
        return {"learning_rate_factor": None}
    factor = b.learning_rate_factor(a.global_batch, a.reference, optimizer)
    return {"learning_rate_factor": factor, "learning_rate_rule": b.RATE_RULES[optimizer]}


def _whole_quantiles(epochs: Epochs) -> Quantiles:
    """Of whole numbers; P10 is what nine draws in ten can afford."""
    p05, p10, p50, p90, p95 = (float(guaranteed(epochs, 1 - level)) for level in LEVELS)
    return Quantiles(p05=p05, p10=p10, p50=p50, p90=p90, p95=p95)
