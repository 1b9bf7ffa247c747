"""From a store to the cost model that answers a question: which measurements, fitted or cached.

measurements ──selections──▶ of each workload on each device, its newest code and data
             ──select──────▶ the one asked for, and a note wherever there was a choice
             ──model_of────▶ CostModel, fitted once and cached in the store

every RunOutcome ──compare────▶ Comparison: was the run inside what it was predicted to be?
                           └──▶ Correction, for each workload and device, of its fitted model

predict, plan, fit, calibration, TensorBoard and the listing of probes all go by ``selections``.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cache
from pathlib import Path, PurePath
from typing import get_args

from epochcast import __version__
from epochcast.costmodel.cost import ConfigurationCost
from epochcast.costmodel.epoch import division_of
from epochcast.costmodel.model import CostModel
from epochcast.costmodel.outcomes import Comparison, comparison
from epochcast.costmodel.scatter import Calibrations
from epochcast.errors import EpochcastError, FitError, PredictionError, StoreError
from epochcast.profiler.target import canonical, is_target, source_of, source_of_files
from epochcast.records import (
    Device,
    DeviceKind,
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
from epochcast.records.estimate import ENDLESS
from epochcast.records.measurement import IMPORTED, name_option, named_target
from epochcast.storage.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The measurements that answer a question, and what to say about the choice.

    Attributes:
        standing_for: of measurements that stand for others like them, how many there are, by key.
    """

    measurements: tuple[Measurement, ...]
    warnings: tuple[Warning_, ...] = ()
    standing_for: Mapping[str, int] = field(default_factory=dict)

    @property
    def newest(self) -> Measurement:
        """The newest that succeeded, if any did: a failure is no reason to forget what is known."""
        return max(self.measurements, key=lambda m: (m.status == "ok", m.created_at))

    @property
    def trials(self) -> int:
        """How many succeeded."""
        return sum(self.standing_for.get(m.key, 1) for m in self.measurements if m.status == "ok")


def selections(
    measurements: Iterable[Measurement], standing_for: Mapping[str, int] | None = None
) -> tuple[Selection, ...]:
    """The rule of which measurements count: of each workload on each device, one selection.

    It has what was measured of the newest code and data that succeeded, and the failures of that
    code, which may not know their data. The last selection holds the newest success of all.

    Args:
        measurements: all, or of those alike in workload, device, code, data and status the newest.
        standing_for: in that case, how many each of them stands for, by its key.
    """
    groups: dict[tuple[str, str], list[Measurement]] = {}
    for m in measurements:
        groups.setdefault((m.workload, m.device.key), []).append(m)
    counts = standing_for or {}
    wholes = (
        Selection(measurements=tuple(group), standing_for=counts)
        for group in reversed(groups.values())
    )
    found = map(_of_newest_origin, wholes)
    return tuple(sorted(found, key=lambda s: (s.newest.status == "ok", s.newest.created_at)))


def _of_newest_origin(group: Selection) -> Selection:
    newest = group.newest
    kept = [
        m
        for m in group.measurements
        if (m.target, m.source) == (newest.target, newest.source)
        and (m.data == newest.data or m.status != "ok")
    ]
    return replace(group, measurements=_of_one_length(kept))


def _of_one_length(measurements: Sequence[Measurement]) -> tuple[Measurement, ...]:
    """Where the data of a script has no length, what some trials saw of it counts for all.

    So many batches were counted, of which the last may have been smaller: the fewest samples that
    make as many everywhere are taken; where none do, these are different data.
    """
    good = [m for m in measurements if m.status == "ok" and m.script is not None]
    known = [m for m in good if m.samples < ENDLESS]
    if not known or len({m.samples for m in good}) == 1:
        return tuple(measurements)
    fewest = min(m.samples for m in known)
    if any(_batches(m.samples, m.config) != _batches(fewest, m.config) for m in known):
        return tuple(measurements)
    same = {m.key: replace(m, samples=fewest) for m in good}
    return tuple(same.get(m.key, m) for m in measurements)


def _batches(samples: int, config: RunConfig) -> int:
    return division_of(samples, config).micro_batches


def select(store: Store, workload: str | None = None, device: str | None = None) -> Selection:
    """The measurements that answer a question about one workload on one device.

    Args:
        store: where they are.
        workload: its name, or the target of several, of which the newest is taken; default: the one
            probed most recently.
        device: an id, a kind (``"cuda"``), or words of a name; default: that of the machine probed
            last, with the threads and the torch that most was measured with.

    Raises:
        PredictionError: there are none on that device.
        EpochcastError: there are none; the message has the command that would make some. A
            ``StoreError`` where the store is empty, as if there were none, or a
            ``PredictionError``.
        StoreError: its rows name other devices than their documents do.
    """
    names = store.names_of(workload) if workload else store.workloads()
    if not names:
        raise _nothing_stored(store, workload and canonical(workload))
    *others, name = names
    counts = {m.key: (m, trials) for m, trials in store.newest(name)}
    found = selections(
        (m for m, _ in counts.values()), {key: trials for key, (_, trials) in counts.items()}
    )
    fitting = [s for s in found if _is_on(s, device)]
    if not fitting:
        devices = {s.newest.device.id: s.newest.device.label for s in found}
        known = ", ".join(f"{id_}: {label}" for id_, label in devices.items())
        raise PredictionError(
            f"{name} was not probed on {device!r}, only on {known}; "
            f"give one of their ids, or probe there: "
            + _probe_again(found[-1].newest, _on_torch_device(device))
        )
    device_key = _most_measured(fitting).newest.device.key
    of_device = selections(store.measurements(name, device_key=device_key))
    if len(of_device) != 1:
        raise StoreError(
            f"the store {store.label}: its rows of {name} name other devices than their documents "
            "do, as after an edit by hand; export it and import that into a new one"
        )
    chosen = of_device[0]
    return replace(chosen, warnings=tuple(_choices(found, chosen, others)))


def devices_of(
    store: Store, workload: str | None = None, names: Sequence[str] | None = None
) -> tuple[Device, ...]:
    """Devices that a workload was probed on, each of which has a cost model of its own.

    Args:
        store: where the measurements are.
        workload: its name, or its target; default: the one probed last.
        names: of each, as of ``select``; None is all that something succeeded on.

    Raises:
        PredictionError: there are no measurements on one of them.
    """
    if names is not None:
        return tuple(select(store, workload, name).newest.device for name in names)
    newest = select(store, workload).newest
    trials = [m for m, _ in store.newest(newest.workload) if m.status == "ok"]
    found = {s.newest.device.key: s.newest.device for s in selections(trials)}
    return tuple(found.values()) or (newest.device,)


def _probe_again(m: Measurement, options: str = "") -> str:
    """The command that measures more like it.

    Args:
        m: of a workload or a script.
        options: of ``probe`` for a workload, with a space before each.
    """
    if m.script is None:
        return f"epochcast probe {named_target(m.workload, m.target)}{options}"
    name = name_option(m.workload, m.target)
    return f"epochcast probe{name} -- {shlex.join(m.script.arguments)}"


def _on_torch_device(device: str | None) -> str:
    """The option of ``probe`` that measures on a device, where torch has a name for it."""
    is_torchs = device is not None and device.partition(":")[0] in get_args(DeviceKind)
    return f" --device {device}" if is_torchs else ""


def _most_measured(found: Sequence[Selection]) -> Selection:
    """Of the machine probed last, what was measured most with one setting of threads and torch.

    A single probe with one thread is no reason to forget what is known of two; newer code is.
    """
    last = found[-1].newest
    machine = [s for s in found if s.newest.device.machine == last.device.machine]

    def order(s: Selection) -> tuple[bool, int, str]:
        is_newest_code = (s.newest.source, s.newest.data) == (last.source, last.data)
        return is_newest_code, s.trials, s.newest.created_at

    return max(machine, key=order)


def _is_on(selection: Selection, device: str | None) -> bool:
    return device is None or selection.newest.device.answers_to(device)


def _choices(
    found: Sequence[Selection], chosen: Selection, workloads: Sequence[str]
) -> Iterator[Warning_]:
    """What was chosen where there was a choice, and whether the code has changed since.

    Args:
        found: of the workload, on every device.
        chosen: of them.
        workloads: that could have been chosen, too.
    """
    newest = chosen.newest
    if workloads:
        other = ", ".join(sorted(workloads))
        yield Warning_.of("chose-workload", workload=newest.workload, others=other)
    others = [
        f"{s.newest.device.id} ({s.newest.device.unlike(newest.device)}; {_trials(s.trials)})"
        for s in found
        if s.newest.device.key != newest.device.key
    ]
    if others:
        device = f"{newest.device.label}, {_trials(chosen.trials)}"
        yield Warning_.of("chose-device", device=device, others=", ".join(others))
    releases = sorted({m.device.torch for m in chosen.measurements})
    if len(releases) > 1:
        yield Warning_.of("pooled-torch", releases=" and ".join(releases))
    script = newest.script
    present = source_of_files(script.files) if script else source_of(newest.target)
    if newest.source and present and present != newest.source:
        yield Warning_.of("code-changed", workload=newest.workload)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbedDevice:
    """A device with measurements in a store.

    Attributes:
        id: for ``--device``.
        workloads: that were probed on it.
        trials: that succeeded, of any code and data.
        last: when the last one was made, ISO 8601.
    """

    id: str
    device: Device
    workloads: tuple[str, ...]
    trials: int
    last: str


def probed_devices(measurements: Iterable[Measurement]) -> tuple[ProbedDevice, ...]:
    """The devices that measurements were made on, the one used last at the end."""
    groups: dict[str, list[Measurement]] = {}
    for m in measurements:
        groups.setdefault(m.device.key, []).append(m)
    found = (
        ProbedDevice(
            id=group[-1].device.id,
            device=group[-1].device,
            workloads=tuple(dict.fromkeys(m.workload for m in group)),
            trials=sum(m.status == "ok" for m in group),
            last=max(m.created_at for m in group),
        )
        for group in groups.values()
    )
    return tuple(sorted(found, key=lambda device: device.last))


def _trials(count: int) -> str:
    return f"{count:,} trial{'' if count == 1 else 's'}"


def _nothing_stored(store: Store, workload: str | None) -> EpochcastError:
    """An empty store is as good as none, which is a ``StoreError``, too."""
    stored = store.workloads()
    known = workload if workload and is_target(workload) else "mnist-mlp"
    command = f"run: epochcast probe {known} --batch-sizes 32,64,128,256"
    if workload and workload.endswith(".py"):
        command = f"run: epochcast probe -- python {workload}"
    elif workload and stored and not is_target(workload):
        command = "name one of them, or probe your own: epochcast probe file.py:function"
    if stored:
        alike = {PurePath(name).stem: name for name in stored}
        close = get_close_matches(PurePath(workload or "").stem, alike)
        hint = f"did you mean {' or '.join(alike[name] for name in close)}?" if close else ""
        names = ", ".join(sorted(stored))
        return PredictionError(
            f"no measurements of {workload!r}, only of {names}; {hint or command}"
        )
    return StoreError(f"no measurements yet in {store.label}; {command}")


def fitted_model(
    store: Store, workload: str | None = None, device: str | None = None, on: str | None = None
) -> tuple[CostModel, tuple[Warning_, ...]]:
    """The cost model of what the store has; fitted once, then read back until there is more.

    Args:
        store: where the measurements are.
        workload: its name, or its target; default: the one probed last.
        device: an id, a kind (``"cuda"``), or words of a name; default: as of ``select``.
        on: a card of the catalogue (``"h100"``), for the model of that device by what was measured
            on another; fitted anew each time. ``device`` is then the other; default: the GPU with
            a data sheet that was measured last.

    Returns:
        The model, and what to say about the choice of its measurements.

    Raises:
        PredictionError: there are no measurements to fit, or to transfer to ``on``.
        FitError: they do not determine a model.
        UsageError: ``on`` is no card of the catalogue.
    """
    if on is not None:
        return _fitted_on(store, workload, device, on)
    selection = select(store, workload, device)
    return model_of(store, selection), selection.warnings


def _fitted_on(
    store: Store, workload: str | None, device: str | None, on: str
) -> tuple[CostModel, tuple[Warning_, ...]]:
    """The model of a card that was measured little or not at all.

    Args:
        store: where the measurements are.
        workload: as of ``select``.
        device: that was measured; words, or None.
        on: a card of the catalogue.
    """
    from epochcast.costmodel.other_device import model_on
    from epochcast.devices.cards import CATALOGUE, card_named, card_of

    there = card_named(on)
    asked = select(store, workload).newest  # says so where there are none
    name = asked.workload
    cards = {d.key: card_of(d.name, d.memory_bytes) for d in store.devices(name)}
    others = [key for key, card in cards.items() if card and card != there]
    if device is None and not others:
        known = ", ".join(d.label for d in store.devices(name))
        dry_run = f"epochcast dry-run {asked.target} --device {there.device.name}"
        probe = f"probe on one; of its memory tells {dry_run}"
        step = "import such runs" if asked.data == IMPORTED else probe
        raise PredictionError(
            _measured_there(name, there.device.name)
            if there in cards.values()
            else f"{name} was measured on {known}: a time on {there.device.name} follows from that "
            f"on another GPU with a data sheet; {step}"
        )
    selection = select(store, name, device or others[-1])
    here = cards[selection.newest.device.key]
    if here == there:
        raise PredictionError(_measured_there(name, there.device.name))
    if here is None:
        raise PredictionError(
            f"{selection.newest.device.label} has no data sheet here, so that nothing follows for "
            f"{there.device.name} from it; give another --device: {', '.join(CATALOGUE)}"
        )
    newest = selection.newest
    seen = [
        m
        for key, card in cards.items()
        if card == there
        for m in store.measurements(name, source=newest.source, device_key=key)
    ]
    counts = store.footprints(newest.target, newest.source, newest.data)
    model = model_on(selection.measurements, counts, (here, there), seen)
    notes = tuple(w for w in selection.warnings if w.code != "chose-device")
    if newest.config.world_size > 1:
        notes += (Warning_.of("of-one-device", device=there.device.name),)
    return model, notes


def _measured_there(workload: str, card: str) -> str:
    return f"{workload} was measured on {card} itself: leave --on out"


def model_of(store: Store, selection: Selection) -> CostModel:
    """The cost model of a selection of the store's measurements, fitted or as it was cached.

    Raises:
        FitError: they do not determine a model.
    """
    newest = selection.newest
    footprints = store.footprints(newest.target, newest.source, newest.data)
    outcomes = store.outcomes(newest.workload, device_key=newest.device.key)
    key = fit_key(selection.measurements, footprints, outcomes)
    document = store.cached_model(key)
    if document is not None:
        with suppress(EpochcastError):  # written by another version: fit again
            return from_json(document, CostModel)
    from epochcast.costmodel.fitting import fit

    model = fit(selection.measurements, footprints, outcomes)
    store.cache_model(key, to_json(model))
    return model


def gradient_noise(
    store: Store,
    workload: str | None = None,
    device: str | None = None,
    sizes: Mapping[str, SizeValue] | None = None,
) -> tuple[GradientNoise, tuple[Warning_, ...]]:
    """The gradients that ``probe --noise-scale`` took of a model size, the newest ones.

    Args:
        store: where the measurements are.
        workload: its name, or its target; default: the one probed last.
        device: an id, a kind, or words of a name; default: as of ``select``.
        sizes: values of the knobs that the model must have; a knob that is left out may have any.

    Raises:
        PredictionError: it took none.
    """
    wanted = (sizes or {}).items()
    selection = select(store, workload, device)
    found = [
        m
        for m in selection.measurements
        if m.gradient_noise and wanted <= dict(m.config.sizes).items()
    ]
    if not found or found[-1].gradient_noise is None:
        newest = selection.newest
        raise PredictionError(
            f"no gradient noise of {newest.workload} was measured; run: "
            + _probe_again(newest, " --noise-scale")
        )
    synthetic = found[-1].data == "synthetic"
    notes = (Warning_.of("noise-of-synthetic-data"),) if synthetic else ()
    return found[-1].gradient_noise, notes


def fit_key(
    measurements: Sequence[Measurement],
    footprints: Mapping[RunConfig, Footprint],
    outcomes: Sequence[RunOutcome] = (),
) -> str:
    """Changes whenever a fit of these measurements, footprints and outcomes could change.

    Args:
        measurements: of one workload on one device, in any order.
        footprints: what dry runs counted, by configuration.
        outcomes: of followed runs, which correct what is predicted.
    """
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


# -- predicted against actual ----------------------------------------------------------------------


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
        store: where the runs are, and the measurements that a correction's model is fitted to.
        workload: default: of all.
        device: an id, a kind, or words of a name; default: on all.
    """
    names = store.names_of(workload) or (workload,) if workload else (None,)
    found = [outcome for name in names for outcome in store.outcomes(name)]
    mine = [o for o in found if device is None or o.device.answers_to(device)]
    mine.sort(key=lambda o: o.finished_at)
    groups: dict[tuple[str, str], list[RunOutcome]] = {}
    for outcome in mine:
        groups.setdefault((outcome.workload, outcome.device.key), []).append(outcome)
    return Compared(
        runs=tuple(comparison(o) for o in mine),
        corrections=tuple(_correction(store, groups[key]) for key in sorted(groups)),
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
