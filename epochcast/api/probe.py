"""What ``import epochcast as ec`` offers beyond records: the main path with a store behind it.

    probe(workload, …)  ──▶  measurements in the store  ──▶  fit / fitted_model  ──▶  model.predict
    dry_run(workload, …)  ──▶  a footprint, without running a step

The command line calls the same functions.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from epochcast.errors import EpochcastError, MissingDependency, UsageError
from epochcast.profiler.choosing import chooser_for
from epochcast.profiler.footprint.counting import count
from epochcast.profiler.observer import Observer
from epochcast.profiler.request import Range, SweepRequest
from epochcast.profiler.source import canonical
from epochcast.profiler.sweep import SweepResult, sweep
from epochcast.records import Footprint, Measurement, SizeValue

if TYPE_CHECKING:
    from epochcast.storage.store import Store


def probe(
    workload: str | Callable[..., Any],
    *,
    batch_sizes: Sequence[int] = (),
    sizes: Mapping[str, Sequence[SizeValue] | Range] | None = None,
    overrides: Mapping[str, SizeValue] | None = None,
    device: str = "auto",
    threads: int | None = None,
    rounds: int | None = None,
    seconds: float | None = None,
    max_seconds: float | None = None,
    asked: Mapping[str, SizeValue] | None = None,
    until: float | None = None,
    data: str | None = None,
    fresh: bool = False,
    noise_scale: bool = False,
    traces: bool = True,
    store: str | None = None,
) -> tuple[Measurement, ...]:
    """Measure a workload in short training steps; what the store has already is not repeated.

    Args:
        workload: a built-in's name, ``"file.py:function"``, ``"package.module:function"``, or the
            function itself, which worker processes must be able to import.
        batch_sizes: micro-batches to measure; empty for a few around the workload's own.
        sizes: values to measure of each model-size knob, or an ``ec.Range``, of which the sweep
            chooses some: those that spread, then those that sharpen the answer most per second.
        overrides: of the workload: accumulation, compile, drop_last, precision, workers.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.
        threads: intra-operator CPU threads; torch's own choice if not given.
        rounds: passes over all configurations, each in a fresh process.
        seconds: for which each trial times steady steps.
        max_seconds: begin no trial that would end later.
        threads: intra-operator CPU threads; None leaves torch's choice.
        asked: a question to choose configurations for, e.g.
            ``{"epochs": 90, "batch_size": 256, "width": 512}``.
        until: half the relative width of the answer's 90 % interval at which to stop choosing.
        data: folder of local data for workloads that take it.
        fresh: forget stored measurements of these configurations first.
        noise_scale: take gradients at two batch sizes, for choosing a batch size in a plan.
        traces: write a torch.profiler trace of each configuration for TensorBoard.
        store: path or URL of the store; default ``.epochcast/`` in the working directory.

    Raises:
        UsageError: no such workload, knob or device.
        WorkloadError: the workload does not run.
        StoreError: the store cannot be used.
    """
    from epochcast.storage.store import Store

    limits = {"rounds": rounds, "steady_seconds": seconds}
    request = SweepRequest(
        target=target_of(workload),
        batch_sizes=tuple(batch_sizes),
        sizes=dict(sizes or {}),
        overrides=dict(overrides or {}),
        device=device,
        threads=threads,
        max_seconds=max_seconds,
        asked=dict(asked or {}),
        until=until,
        data=data,
        fresh=fresh,
        noise_scale=noise_scale,
        traces=traces,
        **{name: value for name, value in limits.items() if value is not None},  # type: ignore[arg-type]
    )
    with Store.open(store) as archive:
        return run_sweep(request, archive).measurements


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
        overrides: of the workload: accumulation, compile, drop_last, precision, workers.
        data: folder of local data for workloads that take it.
        timeline: keep every allocation and free of the step.
        sizes: values of model-size knobs; the others keep their defaults.

    Raises:
        UsageError: no such workload or knob.
        WorkloadError: the workload cannot be built, or not traced without values.
    """
    request = SweepRequest(
        target=target_of(workload),
        batch_sizes=() if batch_size is None else (batch_size,),
        sizes={name: (value,) for name, value in sizes.items()},
        overrides=dict(overrides or {}),
        device="cpu",
        data=data,
    )
    return count(request, timeline=timeline)[0].footprint


def run_sweep(request: SweepRequest, store: Store, observer: Observer | None = None) -> SweepResult:
    """A sweep into a store, and TensorBoard's view of the store brought up to date."""
    try:
        result = sweep(request, store, observer, chooser=chooser_for(request))
    except BaseException:
        with suppress(EpochcastError):  # what ended the sweep is what to tell
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


def target_of(workload: str | Callable[..., Any]) -> str:
    """The text that names a workload function, for worker processes to import it by.

    Raises:
        UsageError: the function cannot be imported by name.
    """
    if isinstance(workload, str):
        return canonical(workload)
    name = getattr(workload, "__qualname__", "")
    module = getattr(workload, "__module__", "")
    if not name.isidentifier():
        raise UsageError(
            f"worker processes import the workload by name, but {name or workload!r} is not "
            "defined at the top level of a file"
        )
    if module != "__main__":
        return f"{module}:{name}"
    file = getattr(sys.modules["__main__"], "__file__", None) or inspect.getsourcefile(workload)
    if file is None or not file.endswith(".py"):
        raise UsageError(f"{name} is not in a file that worker processes can import; save it first")
    return canonical(f"{file}:{name}")


def builtin_workloads() -> list[dict[str, Any]]:
    """Name, description and knobs of each built-in workload. Imports torch."""
    from epochcast.profiler.builtin.workloads import BUILTIN
    from epochcast.profiler.target import knobs_of

    return [
        {
            "name": name,
            "description": (function.__doc__ or "").strip().splitlines()[0],
            "knobs": dict(knobs_of(function)[0]),
        }
        for name, function in BUILTIN.items()
    ]
