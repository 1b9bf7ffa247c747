"""From a store to predicted against actual: every followed run, and what the next fit makes of it.

outcomes ──▶ Comparison, run by run          was the run inside what it was predicted to be?
         └─▶ Correction, for each workload and device: what its fitted model was corrected by
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from epochcast.costmodel.cost import ConfigurationCost
from epochcast.costmodel.model import CostModel
from epochcast.costmodel.outcomes import actual_seconds
from epochcast.costmodel.scatter import Calibrations
from epochcast.errors import FitError, PredictionError
from epochcast.profiler.target import canonical
from epochcast.records import Device, Quantiles, RunConfig, RunOutcome, StopReason
from epochcast.storage.query import fitted_model
from epochcast.storage.store import Store


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """What followed runs have changed in a cost model.

    Attributes:
        runs: there are, of the workload on the device.
        calibrations: None where there is no model to correct.
        width: of the P10–P90 interval of an epoch on the log scale, relative to probes alone, in
            the configuration probed last.
        problem: why there is no model.
    """

    workload: str
    device: Device
    runs: int
    calibrations: Calibrations | None = None
    width: float | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """All runs, the newest last, and all corrections."""

    runs: tuple[Comparison, ...] = ()
    corrections: tuple[Correction, ...] = ()

    @property
    def judged(self) -> tuple[Comparison, ...]:
        """The runs that had a whole steady epoch."""
        return tuple(run for run in self.runs if run.actual is not None)


def compare(store: Store, workload: str | None = None, device: str | None = None) -> Compared:
    """Predicted against actual over the followed runs of a store.

    Args:
        workload: default: of all.
        device: a kind, a key, or part of a name; default: on all.
    """
    found = store.outcomes(canonical(workload) if workload else None)
    mine = [o for o in found if device is None or o.device.answers_to(device)]
    mine.sort(key=lambda o: o.finished_at)
    groups: dict[tuple[str, str], list[RunOutcome]] = {}
    for outcome in mine:
        groups.setdefault((outcome.workload, outcome.device.key), []).append(outcome)
    return Compared(
        runs=tuple(comparison(o) for o in mine),
        corrections=tuple(_correction(store, groups[key]) for key in sorted(groups)),
    )


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
    )


def _correction(store: Store, outcomes: Sequence[RunOutcome]) -> Correction:
    """Of the model that the next prediction would use."""
    last = outcomes[-1]
    about = Correction(workload=last.workload, device=last.device, runs=len(outcomes))
    try:
        model, _ = fitted_model(store, last.workload, last.device.key)
    except (FitError, PredictionError) as error:
        return replace(about, problem=str(error))
    return replace(about, calibrations=model.calibration, width=_width(model))


def _width(model: CostModel) -> float:
    variant = model.variants[0]
    at = ConfigurationCost(model, variant, variant.typical)
    return model.calibration.epoch.width_change(at.probed_step_scatter())
