"""epochcast: what a PyTorch training run will cost, before it starts.

    import epochcast as ec

    measurements = ec.probe("mnist-mlp", batch_sizes=(32, 64, 128), sizes={"width": (256, 512)})
    model = ec.fit(measurements)
    estimate = model.predict(epochs=90, batch_size=192, width=384)
    print(estimate.total_seconds.p50, estimate.peak_bytes.p90)

Nothing heavy is imported until it is used: torch only in worker processes and for ``Workload``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from epochcast import integrations
    from epochcast.api.check import Limits, check
    from epochcast.api.memory import dry_run_on, fit_batch
    from epochcast.api.probe import dry_run, probe, probe_script
    from epochcast.api.reporting import write_report
    from epochcast.costmodel.fitting import fit
    from epochcast.costmodel.model import CostModel
    from epochcast.costmodel.summary import summarise
    from epochcast.errors import (
        DoesNotFit,
        DryRunError,
        EpochcastError,
        FitError,
        MissingDependency,
        PredictionError,
        StoreError,
        UsageError,
        WorkloadError,
    )
    from epochcast.importers.curves import read_curve
    from epochcast.integrations.plain import follow
    from epochcast.planning.cadence import At, AtMost, Every, Rungs
    from epochcast.planning.planner import plan
    from epochcast.planning.request import Cheapest, Fastest, Smallest
    from epochcast.planning.stopping import (
        Divergence,
        Futility,
        GeneralizationLoss,
        Patience,
        ProgressQuotient,
        SuccessiveRises,
        Target,
        stopping_epoch,
    )
    from epochcast.profiler.cluster import ClusterRequest
    from epochcast.profiler.request import Range
    from epochcast.profiler.workload import Workload
    from epochcast.records import (
        Budget,
        Capacity,
        DatasetSpec,
        Device,
        DeviceNeed,
        Estimate,
        Footprint,
        LargestValue,
        LearningCurve,
        Measurement,
        Plan,
        Quantiles,
        RunConfig,
        Summary,
    )
    from epochcast.storage.power import measured_power
    from epochcast.storage.query import fitted_model
    from epochcast.storage.store import Store
    from epochcast.storage.transfer import transfer

__version__ = "0.2.0"

_HOMES = {
    "At": "planning.cadence",
    "AtMost": "planning.cadence",
    "Budget": "records",
    "Capacity": "records",
    "Cheapest": "planning.request",
    "ClusterRequest": "profiler.cluster",
    "CostModel": "costmodel.model",
    "DatasetSpec": "records",
    "Device": "records",
    "DeviceNeed": "records",
    "Divergence": "planning.stopping",
    "DoesNotFit": "errors",
    "DryRunError": "errors",
    "EpochcastError": "errors",
    "Estimate": "records",
    "Every": "planning.cadence",
    "Fastest": "planning.request",
    "FitError": "errors",
    "Footprint": "records",
    "Futility": "planning.stopping",
    "GeneralizationLoss": "planning.stopping",
    "LargestValue": "records",
    "LearningCurve": "records",
    "Limits": "api.check",
    "Measurement": "records",
    "MissingDependency": "errors",
    "Patience": "planning.stopping",
    "Plan": "records",
    "PredictionError": "errors",
    "ProgressQuotient": "planning.stopping",
    "Quantiles": "records",
    "Range": "profiler.request",
    "RunConfig": "records",
    "Rungs": "planning.cadence",
    "Smallest": "planning.request",
    "Store": "storage.store",
    "StoreError": "errors",
    "SuccessiveRises": "planning.stopping",
    "Summary": "records",
    "Target": "planning.stopping",
    "UsageError": "errors",
    "Workload": "profiler.workload",
    "WorkloadError": "errors",
    "check": "api.check",
    "dry_run": "api.probe",
    "dry_run_on": "api.memory",
    "fit": "costmodel.fitting",
    "fit_batch": "api.memory",
    "fitted_model": "storage.query",
    "follow": "integrations.plain",
    "measured_power": "storage.power",
    "plan": "planning.planner",
    "probe": "api.probe",
    "probe_script": "api.probe",
    "read_curve": "importers.curves",
    "stopping_epoch": "planning.stopping",
    "summarise": "costmodel.summary",
    "transfer": "storage.transfer",
    "write_report": "api.reporting",
}

__all__ = [
    "At",
    "AtMost",
    "Budget",
    "Capacity",
    "Cheapest",
    "ClusterRequest",
    "CostModel",
    "DatasetSpec",
    "Device",
    "DeviceNeed",
    "Divergence",
    "DoesNotFit",
    "DryRunError",
    "EpochcastError",
    "Estimate",
    "Every",
    "Fastest",
    "FitError",
    "Footprint",
    "Futility",
    "GeneralizationLoss",
    "LargestValue",
    "LearningCurve",
    "Limits",
    "Measurement",
    "MissingDependency",
    "Patience",
    "Plan",
    "PredictionError",
    "ProgressQuotient",
    "Quantiles",
    "Range",
    "RunConfig",
    "Rungs",
    "Smallest",
    "Store",
    "StoreError",
    "SuccessiveRises",
    "Summary",
    "Target",
    "UsageError",
    "Workload",
    "WorkloadError",
    "check",
    "dry_run",
    "dry_run_on",
    "fit",
    "fit_batch",
    "fitted_model",
    "follow",
    "integrations",
    "measured_power",
    "plan",
    "probe",
    "probe_script",
    "read_curve",
    "stopping_epoch",
    "summarise",
    "transfer",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name == "integrations":
        return import_module("epochcast.integrations")
    if name not in _HOMES:
        raise AttributeError(f"module 'epochcast' has no attribute {name!r}")
    return getattr(import_module(f"epochcast.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
