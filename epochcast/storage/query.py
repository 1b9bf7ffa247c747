"""From a store to the cost model that answers a question: which measurements, fitted or cached.

store ──select──▶ one workload, one version of its code, one device ──fit once──▶ CostModel
                  (and a note wherever there was a choice)             cached in the store
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median

from epochcast import __version__
from epochcast.costmodel.model import CostModel
from epochcast.errors import EpochcastError, PredictionError
from epochcast.profiler.source import canonical, source_of
from epochcast.records import (
    Footprint,
    GradientNoise,
    Measurement,
    RunConfig,
    RunOutcome,
    SizeValue,
    Warning_,
    from_json,
    to_json,
)
from epochcast.storage.store import Store


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The measurements that answer a question, and what to say about the choice."""

    measurements: tuple[Measurement, ...]
    warnings: tuple[Warning_, ...] = ()


def select(store: Store, workload: str | None = None, device: str | None = None) -> Selection:
    """The measurements of one workload, one version of its code, one device.

    Args:
        workload: default: the one probed most recently.
        device: a kind (``"cuda"``), a key, or part of a name; default: the one probed last.

    Raises:
        PredictionError: there are none; the message has the command that would make some.
    """
    target = canonical(workload) if workload else None
    found = store.measurements(target)
    if not found:
        raise PredictionError(_nothing_stored(store, target))
    newest = _newest(found)
    mine = [m for m in found if m.workload == newest.workload]
    on_device = [m for m in mine if _is_on(m, device)]
    if not on_device:
        known = ", ".join(sorted({m.device.label for m in mine}))
        raise PredictionError(
            f"{newest.workload} was not probed on {device!r}, only on: {known}; "
            f"run there: epochcast probe {newest.workload} --device {device}"
        )
    newest = _newest(on_device)
    chosen = [m for m in on_device if _same_origin(m, newest)]
    return Selection(
        measurements=tuple(chosen), warnings=tuple(_choices(store, found, chosen, workload))
    )


def _is_on(m: Measurement, device: str | None) -> bool:
    return device is None or m.device.answers_to(device)


def _newest(found: Sequence[Measurement]) -> Measurement:
    """The newest that succeeded, if any did: a failure is no reason to forget what is known."""
    good = [m for m in found if m.status == "ok"]
    return max(good or found, key=lambda m: m.created_at)


def _same_origin(m: Measurement, newest: Measurement) -> bool:
    """Of the same code and device; of the same data too, which a failure may not know."""
    same_data = m.data == newest.data or m.status != "ok"
    return (m.source, m.device.key) == (newest.source, newest.device.key) and same_data


def _choices(
    store: Store, found: Iterable[Measurement], chosen: Sequence[Measurement], asked: str | None
) -> list[Warning_]:
    """What was chosen where there was a choice, and whether the code has changed since."""
    newest, notes = _newest(chosen), []
    workloads = {m.workload for m in found}
    if asked is None and len(workloads) > 1:
        others = ", ".join(sorted(workloads - {newest.workload}))
        notes.append(_note("chose-workload", workload=newest.workload, others=others))
    devices = {m.device.label for m in found if m.workload == newest.workload}
    if len(devices) > 1:
        others = ", ".join(sorted(devices - {newest.device.label}))
        notes.append(_note("chose-device", device=newest.device.label, others=others))
    present = source_of(newest.workload)
    if newest.source and present and present != newest.source:
        notes.append(_note("code-changed", workload=newest.workload))
    return notes


def _note(code: str, **details: str) -> Warning_:
    return Warning_(code=code, details=tuple(details.items()))


def _nothing_stored(store: Store, workload: str | None) -> str:
    stored = sorted({m.workload for m in store.measurements()})
    command = f"epochcast probe {workload or 'mnist-mlp'} --batch-sizes 32,64,128,256"
    if stored:
        return f"no measurements of {workload!r}, only of {', '.join(stored)}; run: {command}"
    return f"no measurements in {store.folder}; run: {command}"


def fitted_model(
    store: Store, workload: str | None = None, device: str | None = None
) -> tuple[CostModel, tuple[Warning_, ...]]:
    """The cost model of what the store has; fitted once, then read back until there is more.

    Raises:
        PredictionError: there are no measurements to fit.
        FitError: they do not determine a model.
    """
    selection = select(store, workload, device)
    newest = _newest(selection.measurements)
    footprints = store.footprints(newest.workload, newest.source, newest.data)
    outcomes = store.outcomes(newest.workload, device_key=newest.device.key)
    key = fit_key(selection.measurements, footprints, outcomes)
    document = store.cached_model(key)
    if document is not None:
        try:
            return from_json(document, CostModel), selection.warnings
        except EpochcastError:
            pass  # written by another version: fit again
    from epochcast.costmodel.fitting import fit

    model = fit(selection.measurements, footprints, outcomes)
    store.cache_model(key, to_json(model))
    return model, selection.warnings


def gradient_noise(
    store: Store,
    workload: str | None = None,
    device: str | None = None,
    sizes: Mapping[str, SizeValue] | None = None,
) -> tuple[GradientNoise, tuple[Warning_, ...]]:
    """The gradients that ``probe --noise-scale`` took of a model size, the newest ones.

    Raises:
        PredictionError: it took none.
    """
    wanted = (sizes or {}).items()
    measurements = select(store, workload, device).measurements
    found = [m for m in measurements if m.gradient_noise and wanted <= dict(m.config.sizes).items()]
    if not found or found[-1].gradient_noise is None:
        name = measurements[-1].workload
        raise PredictionError(
            f"no gradient noise of {name} was measured; run: epochcast probe {name} --noise-scale"
        )
    synthetic = found[-1].data == "synthetic"
    notes = (_note("noise-of-synthetic-data"),) if synthetic else ()
    return found[-1].gradient_noise, notes


def measured_watts(store: Store, workload: str | None = None, device: str | None = None) -> float:
    """What the device drew while it was probed: the median over all trials.

    Raises:
        PredictionError: it has no sensor that could be read.
    """
    measurements = select(store, workload, device).measurements
    watts = [m.power_watts for m in measurements if m.power_watts]
    if not watts:
        raise PredictionError(
            f"the power of {measurements[-1].device.label} was not measured; give it: --watts 300"
        )
    return median(watts)


def fit_key(
    measurements: Sequence[Measurement],
    footprints: Mapping[RunConfig, Footprint],
    outcomes: Sequence[RunOutcome] = (),
) -> str:
    """Changes whenever a fit of these measurements, footprints and outcomes could change."""
    parts = sorted((m.key, m.created_at, m.status) for m in measurements)
    counted = sorted((config.label, repr(footprint)) for config, footprint in footprints.items())
    ran = sorted(to_json(outcome) for outcome in outcomes)
    text = repr((_code(), parts, counted, ran))
    return hashlib.sha256(text.encode()).hexdigest()[:24]


@cache
def _code() -> str:
    """Of the cost model itself: another version may fit another model to the same measurements."""
    files = sorted((Path(__file__).parents[1] / "costmodel").glob("*.py"))
    text = b"".join(file.read_bytes() for file in files)
    return f"{__version__} {hashlib.sha256(text).hexdigest()}"
