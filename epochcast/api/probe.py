"""The library's ``probe`` and ``dry_run``, and what the command line shares with them.

    probe(workload, …)    ──▶ run_sweep ──▶ measurements in the store, and what TensorBoard shows
    probe_script(…)       ──▶ run_script_sweep ──▶ the same, of a script as it is
    dry_run(workload, …)  ──▶ a footprint, without running a step

``epochcast probe`` calls ``run_sweep`` with a request of its own and an observer that shows how it
goes. This is above the profiler and the report, because a sweep ends with what TensorBoard shows.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epochcast.errors import EpochcastError, MissingDependency
from epochcast.profiler.cluster import ClusterRequest
from epochcast.profiler.request import (
    DEFAULT_STEADY_SECONDS,
    DEFAULT_TIMEOUT_SECONDS,
    Range,
    SweepRequest,
    count_footprints,
)
from epochcast.profiler.rounds import Observer, SweepEnding, SweepResult
from epochcast.profiler.sweep import Sweep, sweep
from epochcast.profiler.target import target_of
from epochcast.records import Footprint, Measurement, Sharding, SizeValue
from epochcast.scripts.request import DEFAULT_EPOCHS, DEFAULT_PASS_SECONDS, Isolation

if TYPE_CHECKING:
    from epochcast.scripts.request import ScriptRequest
    from epochcast.storage.store import Store


def probe(
    workload: str | Callable[..., Any],
    *,
    batch_sizes: Sequence[int] | None = None,
    sizes: Mapping[str, Sequence[SizeValue] | Range] | None = None,
    overrides: Mapping[str, SizeValue] | None = None,
    world_sizes: Sequence[int] = (1,),
    sharding: Sharding = "ddp",
    device: str = "auto",
    threads: int | None = None,
    rounds: int | None = None,
    seconds: float = DEFAULT_STEADY_SECONDS,
    max_seconds: float | None = None,
    asked: Mapping[str, SizeValue] | None = None,
    until: float | None = None,
    data: str | None = None,
    fresh: bool = False,
    try_all: bool = False,
    name: str | None = None,
    note: str = "",
    progress: bool = True,
    noise_scale: bool = False,
    traces: bool = True,
    store: str | None = None,
    on: str | ClusterRequest | None = None,
) -> tuple[Measurement, ...]:
    """Measure a workload in short training steps; what the store has already is not repeated.

    Args:
        workload: a built-in's name, ``"file.py:function"``, ``"package.module:function"``, or the
            function itself, which worker processes must be able to import.
        batch_sizes: micro-batches to measure; a few around the workload's own if not given.
        sizes: values to measure of each model-size knob, or an ``ec.Range``, of which the sweep
            chooses some: those that spread, then those that sharpen the answer most per second.
        overrides: of the workload: accumulation, compile, drop_last,
            eval_batch_size, precision, workers.
        world_sizes: numbers of devices of this machine that train at once, a process each.
        sharding: whether several devices share gradients (``"ddp"``), or parameters and optimizer
            too (``"fsdp"``).
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.
        threads: intra-operator CPU threads; torch's own choice if not given.
        rounds: passes over all configurations, each in a fresh process; by default 3, and up to 6
            where those differ so much that a later run's 90 % interval is wider than ± 20 %.
        seconds: for which each trial times steady steps.
        max_seconds: begin no trial that would end later.
        asked: a question to choose configurations for, e.g.
            ``{"epochs": 90, "batch_size": 256, "width": 512}``.
        until: half the relative width of the answer's 90 % interval at which to stop choosing.
        data: folder of local data for workloads that take it.
        fresh: forget stored measurements of these configurations first.
        try_all: try also what by a dry run will not fit the GPU.
        name: to keep the measurements under, apart from other names of the same code; default: the
            workload's own.
        note: to keep with the measurements.
        progress: show how it goes, in a terminal by a bar and in a notebook by lines.
        noise_scale: take gradients at two batch sizes, for choosing a batch size in a plan.
        traces: write a torch.profiler trace of each configuration for TensorBoard.
        store: path or URL of the store; default ``.epochcast/`` in the working directory.
        on: make the trials on a Ray cluster: ``"ray"`` (one of our own on this machine),
            ``"ray://head:10001"``, or an ``ec.ClusterRequest``, which says what each one holds.

    Raises:
        UsageError: no such workload, knob or device.
        WorkloadError: the workload does not run.
        StoreError: the store cannot be used.
    """
    from epochcast.report.text.progress import shown_here
    from epochcast.storage.store import Store

    request = SweepRequest(
        target=target_of(workload),
        batch_sizes=None if batch_sizes is None else tuple(batch_sizes),
        sizes=dict(sizes or {}),
        overrides=dict(overrides or {}),
        world_sizes=tuple(world_sizes),
        sharding=sharding,
        device=device,
        threads=threads,
        rounds=rounds,
        steady_seconds=seconds,
        max_seconds=max_seconds,
        asked=dict(asked or {}),
        until=until,
        data=data,
        fresh=fresh,
        try_all=try_all,
        name=name,
        note=note,
        noise_scale=noise_scale,
        traces=traces,
    )
    with Store.open(store, create="late") as archive, shown_here(progress) as shown:
        return run_sweep(request, archive, shown, _cluster(on)).measurements


def probe_script(
    command: str | Sequence[str],
    *,
    values: Mapping[str, Sequence[SizeValue] | SizeValue] | None = None,
    environment: Mapping[str, str] | None = None,
    folder: str | Path | None = None,
    name: str | None = None,
    epochs: int = DEFAULT_EPOCHS,
    seconds: float = DEFAULT_PASS_SECONDS,
    rounds: int | None = None,
    max_seconds: float | None = None,
    timeout: float = DEFAULT_TIMEOUT_SECONDS,
    steps_per_epoch: int | None = None,
    samples: int | None = None,
    traces: bool = False,
    fresh: bool = False,
    note: str = "",
    progress: bool = True,
    isolation: Isolation = "auto",
    store: str | None = None,
    on: str | ClusterRequest | None = None,
) -> tuple[Measurement, ...]:
    """Measure a training script as it is; what the store has already is not repeated.

    Args:
        command: that starts it, a list of arguments, or a text that is split into one; no shell
            takes part. ``{name}`` in it stands for a value, ``{epochs}`` for ``epochs``.
        values: of each name in the command; every combination is measured.
        environment: variables to set, in which ``{name}`` stands for a value too.
        folder: where to start it; default: the current one.
        name: what to call the workload; default: the script's file or module.
        epochs: in miniature, after which the script is ended.
        seconds: of training in each of them.
        rounds: passes over all configurations, each trial in a fresh process; by default 3, and up
            to 6 where those differ much.
        max_seconds: begin no trial that would end later.
        timeout: seconds after which a trial is given up and all its processes are ended.
        steps_per_epoch: optimizer steps of an epoch, where no data loader tells.
        samples: of an epoch, likewise.
        traces: write a torch.profiler trace of each configuration for TensorBoard.
        fresh: forget stored measurements of these configurations first.
        note: to keep with the measurements.
        progress: show how it goes, in a terminal by a bar and in a notebook by lines.
        isolation: undo what the script writes by an overlay of the folder where the system has it
            (``"auto"``, ``"overlay"``), by a ``"journal"`` of files, or ``"none"``.
        store: path or URL of the store; default ``.epochcast/`` in the working directory.
        on: make the trials on a Ray cluster: ``"ray"`` (one of our own on this machine),
            ``"ray://head:10001"``, or an ``ec.ClusterRequest``, which says what each one holds.

    Raises:
        UsageError: a value without a place in the command, or a place without a value.
        ScriptFailed: a ``WorkloadError``: the command does not train or cannot be watched.
        StoreError: the store cannot be used.
    """
    from epochcast.report.text.progress import shown_here
    from epochcast.scripts.command import Template
    from epochcast.scripts.request import ScriptRequest
    from epochcast.storage.store import Store

    arguments = shlex.split(command) if isinstance(command, str) else [str(x) for x in command]
    request = ScriptRequest(
        template=Template(
            arguments=tuple(arguments), environment=tuple((environment or {}).items())
        ),
        choices={
            key: [str(x) for x in ((of_it,) if isinstance(of_it, SizeValue) else of_it)]
            for key, of_it in (values or {}).items()
        },
        folder=Path(folder or ".").resolve(),
        name=name,
        epochs=epochs,
        pass_seconds=seconds,
        rounds=rounds,
        max_seconds=max_seconds,
        timeout_seconds=timeout,
        steps_per_epoch=steps_per_epoch,
        samples=samples,
        traces=traces,
        fresh=fresh,
        note=note,
        isolation=isolation,
    )
    with Store.open(store, create="late") as archive, shown_here(progress) as shown:
        return run_script_sweep(request, archive, shown, _cluster(on)).measurements


def _cluster(on: str | ClusterRequest | None) -> ClusterRequest | None:
    return ClusterRequest(address=on) if isinstance(on, str) else on


def dry_run(
    workload: str | Callable[..., Any],
    batch_size: int | None = None,
    *,
    overrides: Mapping[str, SizeValue] | None = None,
    data: str | None = None,
    timeline: bool = False,
    **sizes: SizeValue,
) -> Footprint:
    """What one training step asks of any device, counted in a worker process without running it.

    Args:
        workload: as for ``probe``.
        batch_size: the workload's own if not given.
        overrides: of the workload: accumulation, compile, drop_last,
            eval_batch_size, precision, workers.
        data: folder of local data for workloads that take it.
        timeline: keep every allocation and free of the step.
        sizes: values of model-size knobs; the others keep their defaults.

    Raises:
        UsageError: no such workload or knob.
        WorkloadError: the workload cannot be built, or not traced without values.
    """
    request = SweepRequest(
        target=target_of(workload),
        batch_sizes=None if batch_size is None else (batch_size,),
        sizes={name: (value,) for name, value in sizes.items()},
        overrides=dict(overrides or {}),
        device="cpu",
        data=data,
    )
    return count_footprints(request, timeline=timeline)[0].footprint


def run_sweep(
    request: SweepRequest,
    store: Store,
    observer: Observer | None = None,
    on: ClusterRequest | None = None,
) -> SweepResult:
    """A sweep into a store, and TensorBoard's view of the store brought up to date.

    Args:
        request: what to measure; it may leave the choice of configurations to the sweep.
        store: takes the measurements.
        observer: receives the progress of the sweep.
        on: a cluster to make the trials on, instead of this machine.

    Raises:
        UsageError: no such workload, knob or device.
        WorkloadError: the workload does not run.
        StoreError: the store cannot be used.
        PredictionError: the question to choose configurations for makes no sense.
    """
    from epochcast.profiler.adaptive import chooser_for, chosen_rounds, rounds_that_fit

    def rounds() -> Callable[[Sweep], SweepEnding]:
        return (
            partial(chosen_rounds, chooser=chooser_for(request))
            if request.chooses
            else rounds_that_fit
        )

    if on is None:
        return _then_shown(store, lambda: sweep(request, store, observer, rounds=rounds()))
    from epochcast.profiler.remote import sweep_on

    cluster = on
    return _then_shown(store, lambda: sweep_on(cluster, request, store, observer, rounds=rounds))


def run_script_sweep(
    request: ScriptRequest,
    store: Store,
    observer: Observer | None = None,
    on: ClusterRequest | None = None,
) -> SweepResult:
    """The same of a script.

    Args:
        request: what to measure.
        store: takes the measurements.
        observer: receives the progress of the sweep.
        on: a cluster to make the trials on, instead of this machine.

    Raises:
        ScriptFailed: the command does not train or cannot be watched.
        StoreError: the store cannot be used.
    """
    from epochcast.profiler.adaptive import enough_rounds
    from epochcast.scripts.sweep import sweep_script

    if on is None:
        return _then_shown(
            store, lambda: sweep_script(request, store, observer, rounds=enough_rounds)
        )
    from epochcast.scripts.remote import sweep_script_on

    cluster = on
    return _then_shown(
        store, lambda: sweep_script_on(cluster, request, store, observer, rounds=enough_rounds)
    )


def _then_shown(store: Store, measure: Callable[[], SweepResult]) -> SweepResult:
    try:
        result = measure()
    except BaseException:
        with suppress(EpochcastError):  # what ended the sweep is what to tell
            if store.exists:
                refresh_board(store)
        raise
    refresh_board(store)
    return result


def refresh_board(store: Store, required: bool = False) -> None:
    """Write what TensorBoard shows of a store.

    Raises:
        MissingDependency: TensorBoard is not installed, and it is ``required``.
    """
    from epochcast.report.tensorboard.publish import publish

    try:
        publish(store)
    except MissingDependency:
        if required:
            raise
