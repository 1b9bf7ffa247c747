"""Outcomes of followed runs beside what was predicted, and what the cost model is corrected by.

RunOutcome ──▶ actual seconds of a part ─┐
           ──▶ predicted P50, as probes alone would have it ─┴▶ log ratio ─┐
CostModel  ──▶ the scatter it gives to that configuration ─────────────────┴▶ Error ──▶ Calibrations

An epoch is compared by the median of a run's steady ones, so that a run that was cut in its first
epoch says nothing about epochs; a start-up is compared in every run. Where epochs had other steps
than planned they are compared step by step; a smoke run, of far fewer steps, says nothing about
epochs and evaluations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from math import hypot, isfinite, log, pi, sqrt
from statistics import median
from typing import Literal, get_args

from epochcast.costmodel.cost import ConfigurationCost
from epochcast.costmodel.learned import Parameters
from epochcast.costmodel.prices import EPOCH_NOISE_CAP
from epochcast.costmodel.question import Question, choose_variant
from epochcast.costmodel.scatter import LOG_REACH, Calibration, Calibrations, Error, calibration
from epochcast.errors import PredictionError
from epochcast.records import Device, Quantiles, RunConfig, RunOutcome, StopReason, to_json

Part = Literal["epoch", "startup", "evaluation", "save"]
PARTS: tuple[Part, ...] = get_args(Part)
LIKE_PLANNED = (0.5, 2.0)  # share of the planned steps: what is paid once an epoch matters beyond


def calibrate(parameters: Parameters, outcomes: Iterable[RunOutcome]) -> Calibrations:
    """What outcomes of the model's workload, code and device say; others are left out.

    Args:
        parameters: of probes alone.
        outcomes: in any order; of several of one run the one that finished last counts.
    """
    latest: dict[str, RunOutcome] = {}
    for outcome in sorted(outcomes, key=lambda o: (o.finished_at, to_json(o))):
        if _belongs(outcome, parameters):
            latest[outcome.run] = outcome
    cost = cache(partial(_cost, parameters))  # many runs are of one configuration
    scatter = cache(_scatter)
    known = [(o, at) for o in latest.values() if (at := cost(o.config)) is not None]

    def of(part: Part) -> Calibration:
        errors = (_error(outcome, partial(scatter, at, part), part) for outcome, at in known)
        return calibration([error for error in errors if error is not None])

    return Calibrations(**{part: of(part) for part in PARTS})


def _belongs(outcome: RunOutcome, parameters: Parameters) -> bool:
    """Of the same workload and device, and of the same code where both know theirs; not one of
    whose measurements the parameters are made."""
    same_code = outcome.source == parameters.source or not (outcome.source and parameters.source)
    same = (outcome.workload, outcome.device.key) == (parameters.workload, parameters.device.key)
    return same and same_code and not outcome.measured


def _cost(parameters: Parameters, config: RunConfig) -> ConfigurationCost | None:
    """A run's configuration in the model; None where it has nothing like it any more."""
    try:
        question = Question(
            epochs=1,
            batch_size=config.batch_size,
            accumulation=config.accumulation,
            precision=config.precision,
            compiled=config.compiled,
            drop_last=config.drop_last,
            workers=config.workers,
            sizes=dict(config.sizes),
        )
        variant = choose_variant(parameters, question)
    except PredictionError:
        return None
    knobs = [name for name, _ in config.sizes]
    if knobs != [name for name, _ in variant.typical.sizes]:
        return None
    return ConfigurationCost(parameters, variant, config)


def _error(outcome: RunOutcome, scatter: Callable[[], float], part: Part) -> Error | None:
    """A part of a run beside its prediction from probes; None where there is no such pair.

    Args:
        outcome: of the run.
        scatter: that the model gives to the part.
        part: which.
    """
    actual, predicted = actual_seconds(outcome, part), probed_seconds(outcome, part)
    if not (actual and predicted):
        return None
    ratio = max(-LOG_REACH, min(log(actual) - log(predicted), LOG_REACH))
    sd = scatter()
    if part == "epoch":  # the median of few noisy epochs is noisy: its variance is πσ²/2n
        noise = min(EPOCH_NOISE_CAP, max(outcome.predicted.epoch_noise, _seen_noise(outcome)))
        sd = hypot(sd, noise * sqrt(pi / 2 / len(outcome.epoch_seconds)))
    return Error(log_ratio=ratio, sd=sd)


def _seen_noise(outcome: RunOutcome) -> float:
    """Of its epochs, by the median absolute deviation from their median (times 1.4826, as for a
    normal distribution; Rousseeuw & Croux 1993)."""
    logs = [log(seconds) for seconds in outcome.epoch_seconds if seconds > 0]
    if len(logs) < 2:
        return 0.0
    middle = median(logs)
    return 1.4826 * median(abs(value - middle) for value in logs)


def actual_seconds(outcome: RunOutcome, part: Part = "epoch") -> float | None:
    """What a part of a run took: its median over the run; an epoch, with as many steps as planned.

    None where it never happened, or where the run was too unlike its plan to tell.
    """
    samples: Sequence[float] = getattr(outcome, f"{part}_seconds")
    share = outcome.epoch_share
    unlike = part in ("epoch", "evaluation") and not LIKE_PLANNED[0] <= share <= LIKE_PLANNED[1]
    if unlike or not samples:
        return None
    return median(samples) / share if part == "epoch" else median(samples)


def probed_seconds(outcome: RunOutcome, part: Part) -> float | None:
    """What was predicted for it, P50, without the corrections by still earlier runs."""
    name = "calibration" if part == "epoch" else f"{part}_calibration"
    predicted, factor = getattr(outcome.predicted, part).p50, getattr(outcome.predicted, name)
    known = factor > 0 and isfinite(predicted / factor)
    return predicted / factor if known else None


def _scatter(at: ConfigurationCost, part: Part) -> float:
    """The run-level scatter that the model gives to a part in one configuration, log scale."""
    variant = at.variant
    if part == "epoch":
        return at.probed_step_scatter().sd
    if part == "startup":
        parts = at.startup()
        whole = sum(p.median for p in parts)
        return sum(p.median * p.scatter.sd for p in parts) / whole if whole else 0.0
    surface = variant.evaluation if part == "evaluation" else variant.save_seconds
    return at.run_scatter(surface).sd if surface else 0.0


# -- for people ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One run beside what it was predicted to take, as it was predicted.

    Attributes:
        epochs: whole ones that were trained.
        reason: why it ended; None if it was left by an error.
        predicted: seconds of a steady epoch.
        actual: the median of the steady ones; None where there was none.
        ratio: actual over P50.
        inside_80, inside_90: between P10 and P90, between P5 and P95.
        total_predicted: seconds of what was done; None where the run was resumed or left early.
        total: what it took.
        finished_at: seconds since 1970, UTC.
        segment_steps: of a plan of steps, whose segments are called epochs here.
    """

    run: str
    workload: str
    device: Device
    config: RunConfig
    epochs: int
    reason: StopReason | None
    predicted: Quantiles
    actual: float | None
    ratio: float | None
    inside_80: bool | None
    inside_90: bool | None
    total_predicted: Quantiles | None
    total: float
    finished_at: float
    segment_steps: int | None = None


def comparison(outcome: RunOutcome) -> Comparison:
    """One run beside its prediction."""
    predicted, actual = outcome.predicted.epoch, actual_seconds(outcome)
    return Comparison(
        run=outcome.run,
        workload=outcome.workload,
        device=outcome.device,
        config=outcome.config,
        epochs=outcome.epochs,
        reason=outcome.reason,
        predicted=predicted,
        actual=actual,
        ratio=actual / predicted.p50 if actual is not None and predicted.p50 else None,
        inside_80=predicted.p10 <= actual <= predicted.p90 if actual is not None else None,
        inside_90=predicted.p05 <= actual <= predicted.p95 if actual is not None else None,
        total_predicted=outcome.total_predicted,
        total=outcome.total_seconds,
        finished_at=outcome.finished_at,
        segment_steps=outcome.segment_steps,
    )
