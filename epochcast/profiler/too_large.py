"""Configurations that will surely not fit a GPU: trying one costs minutes, and shows what a dry run
tells beforehand.

    CPU's operators  [worker] one dry run of each model size   they keep more than a GPU's
    does not fit ──▶ [worker] the device's own operators       hopeless: P05 is above its memory

The largest batch of a model comes first: where it may fit, smaller ones are not asked about. Of a
sweep on a CPU nothing is asked, a dry run that fails leaves nothing out, and what is compiled plans
buffers of its own, so that no dry run knows its least.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from epochcast.devices.cards import device_like
from epochcast.devices.need import needed_bytes
from epochcast.errors import EpochcastError
from epochcast.profiler.footprint.cuda.trace import cuda_sequences
from epochcast.profiler.process import Workers
from epochcast.profiler.protocol import Counted, TrialSpec
from epochcast.profiler.request import dry_runs
from epochcast.profiler.rounds import LeftOut
from epochcast.profiler.sweep import Sweep
from epochcast.records import Device, Footprint
from epochcast.units import format_bytes

HOPELESS = 0.05  # with so little confidence it would still have to fit to be tried
PATIENCE_SECONDS = 120.0  # for one dry run: it is to save time


def leave_out_hopeless(sweep: Sweep) -> None:
    """Take out of a sweep what will surely not fit its device, say so, and keep it in the store: a
    trial of it, made all the same, takes its place there."""
    device = sweep.prepared.device
    if sweep.request.try_all or device.kind != "cuda" or not device.memory_bytes:
        return
    try:
        hopeless = dict(_hopeless(sweep))
    except EpochcastError:
        return
    sweep.specs = [spec for spec in sweep.specs if spec not in hopeless]
    for spec, needed in hopeless.items():
        config = sweep.prepared.config(spec)
        sweep.left_out.append(
            LeftOut(config=config, needed_bytes=needed, device_bytes=device.memory_bytes)
        )
        least, memory = format_bytes(needed), format_bytes(device.memory_bytes)
        why = f"by a dry run it needs at least {least} of the device's {memory}"
        sweep.store.add(sweep.unmeasured(spec, "too-large", why))
        sweep.note("hopeless", config=config.label, needed=least, memory=memory)


def _hopeless(sweep: Sweep) -> Iterator[tuple[TrialSpec, float]]:
    """Configurations with what they need at least, in bytes."""
    device, workers = sweep.prepared.device, sweep.workers
    for specs, counted in _counted(sweep, _open_questions(sweep)):
        by_batch = {spec.batch_size: spec for spec in specs}
        for c in sorted(counted, key=lambda c: -c.config.batch_size):
            if c.config.compiled or has_room(c.footprint, device) or sweep.out_of_time:
                break
            spec, batch_size = by_batch[c.config.batch_size], c.config.batch_size
            needed = least_bytes(workers, spec, batch_size, device, timeout=PATIENCE_SECONDS)
            if needed < device.memory_bytes:
                break
            yield spec, needed


def _open_questions(sweep: Sweep) -> list[TrialSpec]:
    """Those never tried; not those of several devices, which share what they keep."""
    tried = {m.request for m in sweep.stored()}
    return [spec for spec in sweep.specs if not spec.ranks and spec.request not in tried]


def _counted(
    sweep: Sweep, specs: Sequence[TrialSpec]
) -> Iterator[tuple[list[TrialSpec], tuple[Counted, ...]]]:
    """The specs of each model size with their dry runs by the CPU's operators."""
    if not specs:
        return
    timeout = min(sweep.request.timeout_seconds, PATIENCE_SECONDS)
    with sweep.workers.start("dry-run") as worker:
        found = [
            (group, reply.counted)
            for group, reply in dry_runs(worker, specs, timeout, timeline=False)
        ]
    yield from found


def has_room(footprint: Footprint, device: Device) -> bool:
    """Whether a device has room for the CPU's operators, which keep more than a GPU's."""
    return max(footprint.peak_bytes, footprint.reserve_bytes) < device.memory_bytes


def least_bytes(
    workers: Workers,
    spec: TrialSpec,
    batch_size: int,
    device: Device,
    *,
    timeout: float = 600.0,
) -> float:
    """What a GPU must have at least for three steps of a configuration by its own operators: less
    would do with a probability of a twentieth.

    Args:
        workers: start the processes in which it is followed.
        spec: whose workload and sizes are used.
        batch_size: micro-batch.
        device: a GPU that has memory.
        timeout: seconds.

    Raises:
        DryRunError: neither the device's operators nor the CPU's can be followed.
        WorkloadError: the workload cannot be built.
    """
    there = device_like(device.name, device.memory_bytes)
    (found,) = cuda_sequences(workers, spec, [batch_size], there, timeout=timeout)
    return needed_bytes(found, confidence=HOPELESS)
