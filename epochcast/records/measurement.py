"""What was measured: one trial with its raw samples, and many trials as one row.

A run that was timed elsewhere becomes a trial, too (``Measurement.from_epochs``):

    epochs      12.0   1.00   1.02   0.99   …      seconds, as logged
                  │      └──────┴──────┴─────▶ step_seconds      each divided by N/B
                  └─ beyond their median ────▶ warmup_seconds    start of the run, paid once

An epoch of N samples at batch size B is worth N/B full batches: the work of the last, smaller
batch is r/B of a full one, r = N mod B. Where the time of a step does not depend on its batch at
all, that overstates a step by less than B/N. With ``drop_last`` it is ⌊N/B⌋ exactly.
"""

from __future__ import annotations

import hashlib
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timezone
from statistics import median
from typing import Any, Literal

from epochcast.records.configuration import Device, RunConfig, SizeValue, device_named, make_sizes
from epochcast.records.documents import SCHEMA
from epochcast.records.estimate import Warning_
from epochcast.records.footprint import Footprint
from epochcast.records.validation import (
    number,
    numbers,
    plain,
    require,
    require_seconds,
    shown,
    whole,
)

Status = Literal["ok", "oom", "timeout", "crashed", "too-large"]

IMPORTED = "imported"  # the data of a measurement made elsewhere
ONE_TIME_ONLY = "one time is known; a slow start that is in it cannot be told apart"


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPeaks:
    """Peaks that the device itself reported while something went on, in bytes.

    Attributes:
        allocated_bytes: by the framework's allocator (accelerators only).
        reserved_bytes: held by the framework's allocator (accelerators only).
        device_bytes: what the device gave away: reserved plus context and libraries on an
            accelerator; the process's resident memory on a CPU. None in measurements made
            elsewhere that do not know it.
        allocator_retries: times the allocator had to flush its cache to make room.
    """

    allocated_bytes: int | None = None
    reserved_bytes: int | None = None
    device_bytes: int | None = None
    allocator_retries: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientNoise:
    """Squared norms of gradients at two batch sizes, which the gradient noise scale follows from.

    Attributes:
        small_batch, large_batch: samples behind one gradient.
        small_norms, large_norms: squared norms, one of each gradient.
        trained_steps: optimizer steps made before: the noise scale grows during training.
    """

    small_batch: int
    large_batch: int
    small_norms: tuple[float, ...]
    large_norms: tuple[float, ...]
    trained_steps: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Communication:
    """How the ranks of a world share their work.

    Attributes:
        backend: of torch.distributed: ``"gloo"``, ``"nccl"``.
        gradient_bytes: of the whole model's gradients, which each update averages.
        seconds: of an optimizer step in collective operations, by the trace; None without one.
        overlapped_seconds: of these, while the device computed.
    """

    backend: str
    gradient_bytes: int
    seconds: float | None = None
    overlapped_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Frequency:
    """How often a script does something: so many times between epochs, and in so many steps.

    Attributes:
        per_epoch: times from one epoch to the next.
        per_step: times an optimizer step, while an epoch goes on.
    """

    per_epoch: float = 0.0
    per_step: float = 0.0

    def times(self, steps: float) -> float:
        """In an epoch of so many optimizer steps."""
        return self.per_epoch + self.per_step * steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """A training script that was measured as it is.

    Attributes:
        arguments: of the command, with ``{name}`` where a value goes.
        environment: variables that were set for it, likewise.
        files: that it consists of, relative to the folder in which it was started.
        passes: over its training data that were seen, in miniature or whole.
        steps: optimizer steps that were seen.
        evaluations, saves: how often it does either.
        ended_itself: whether it came to its own end, so that what it does there was seen.
    """

    arguments: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()
    files: tuple[str, ...] = ()
    passes: int = 0
    steps: int = 0
    evaluations: Frequency = Frequency()
    saves: Frequency = Frequency()
    ended_itself: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One trial of one configuration in one worker process: raw samples, in the order taken.

    A measurement that did not succeed has a ``status`` other than ``"ok"``, a ``message``, and
    whatever had been measured by then: nothing with ``"too-large"``, which was not tried because by
    a dry run it will not fit its device; one that did may have a message on what it lacks. Lists
    may be empty: a measurement made elsewhere knows epoch times only; ``from_epochs`` makes it.

    Attributes:
        workload: what it is called: the name that a person gave it, or else its target.
        target: what was measured: ``"mnist-mlp"``, ``"train.py:workload"``, or of a script
            ``"train.py"``; of a measurement made elsewhere its workload.
        source: fingerprint of the code that defined the workload.
        request: fingerprint of what was asked for; a sweep that continues looks for it.
        round: which pass over all configurations; every round is a fresh process.
        trial: position of this configuration within its process, from 0.
        samples: training samples per epoch.
        eval_samples: evaluation samples; 0 if the workload has no evaluation data.
        data: where the data came from, e.g. ``"synthetic"``.
        import_seconds: process start until torch, the device and the user's code are loaded.
        build_seconds: building model, data set and optimizer, and moving them to the device.
        warmup_seconds: micro-steps before the timing was stable, the first one first; of a compiled
            model also its first partial batch and its first evaluation batches.
        step_seconds: steady micro-steps, data wait and (where due) optimizer update included.
        data_wait_seconds: the part of each steady micro-step spent waiting for its batch.
        update_seconds: the part of each steady micro-step spent in the optimizer's update; 0 where
            none was due. Empty where it cannot be told apart: the step is the workload's own, or
            the optimizer evaluates the loss itself.
        batch_elements: elements of each steady micro-step's batch, padding included; empty where
            all batches are of one size.
        steps_per_sample: micro-steps that each entry of the series above is the mean of.
        loader_seconds: batches drawn from the loader alone, without computing.
        loader_restart_seconds: end of one pass over the loader until the next pass's first batch.
        eval_batch_seconds: evaluation micro-steps, forward only; of a pass of few batches, the mean
            over the pass.
        eval_restart_seconds: starting one pass over the evaluation loader until its first batch,
            beyond the wait that every evaluation micro-step has in it.
        save_seconds: writing one checkpoint (model and optimizer) durably to disk.
        save_bytes: size of that checkpoint.
        epoch_fixed_seconds: of each epoch, beside its steps, evaluations and saves.
        finish_seconds: after the last epoch until the process was gone.
        script: the training script, where one was measured; a workload has none.
        probe_seconds: wall-clock time this trial took, all of the above included (of a workload
            without ``import_seconds``, which its process pays once).
        memory: what the device reported of steady training steps.
        eval_memory, save_memory: the same of evaluation and of saving a checkpoint.
        footprint: what the operators say; absent where it could not be counted.
        power_watts: that the device drew at the end of the steady steps, by its own sensor.
        step_joules: of a steady micro-step on one device, by the device's own counter.
        communication: of several ranks; their samples are the slowest one's, their memory the
            fullest one's.
        gradient_noise: how much single gradients differ, where it was asked for.
        trace: the torch.profiler trace, relative to the store's log folder.
        log: the worker's log file.
        node: of a cluster, where it was made: an address; empty on this machine.
        sweep: when the sweep began that made it, ISO 8601 in UTC: its trials have that in common.
        created_at: when the trial ended, ISO 8601 in UTC.
        warnings: why what was measured may not be what a run takes.
        note: what a person said of it.
    """

    schema: int = SCHEMA
    workload: str
    target: str = ""
    source: str = ""
    request: str = ""
    config: RunConfig
    device: Device
    status: Status = "ok"
    message: str = ""
    round: int = 0
    trial: int = 0
    samples: int
    eval_samples: int = 0
    data: str = ""
    import_seconds: float = 0.0
    build_seconds: float = 0.0
    warmup_seconds: tuple[float, ...] = ()
    step_seconds: tuple[float, ...] = ()
    data_wait_seconds: tuple[float, ...] = ()
    update_seconds: tuple[float, ...] = ()
    batch_elements: tuple[float, ...] = ()
    steps_per_sample: int = 1
    loader_seconds: tuple[float, ...] = ()
    loader_restart_seconds: tuple[float, ...] = ()
    eval_batch_seconds: tuple[float, ...] = ()
    eval_restart_seconds: tuple[float, ...] = ()
    save_seconds: tuple[float, ...] = ()
    save_bytes: int = 0
    epoch_fixed_seconds: tuple[float, ...] = ()
    finish_seconds: float = 0.0
    script: Script | None = None
    probe_seconds: float = 0.0
    memory: MemoryPeaks | None = None
    eval_memory: MemoryPeaks | None = None
    save_memory: MemoryPeaks | None = None
    footprint: Footprint | None = None
    power_watts: float | None = None
    step_joules: float | None = None
    communication: Communication | None = None
    gradient_noise: GradientNoise | None = None
    trace: str | None = None
    log: str | None = None
    node: str = ""
    sweep: str = ""
    created_at: str = ""
    warnings: tuple[Warning_, ...] = ()
    note: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "target", self.target or self.workload)
        require(self.samples >= 0, f"samples must be >= 0, but got {self.samples}")
        require_seconds(self, *(f.name for f in fields(self) if f.name.endswith("_seconds")))
        if self.status == "ok":
            timed = bool(self.step_seconds) and min(self.step_seconds) > 0
            require(timed, "a successful measurement needs step_seconds, all above 0")

    @property
    def key(self) -> str:
        """Identifies the trial: the same key measured again replaces the older measurement."""
        what = self.request or (self.config, self.data)
        parts = (self.workload, self.source, what, self.device.key, self.round)
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

    @classmethod
    def from_epochs(
        cls,
        workload: str,
        batch_size: int,
        epoch_seconds: Iterable[float] = (),
        *,
        step_seconds: Iterable[float] = (),
        samples: int,
        device: Device | str,
        sizes: Mapping[str, SizeValue] | None = None,
        includes_first: bool = True,
        run: int = 0,
        peak_bytes: int | None = None,
        device_bytes: int | None = None,
        created_at: str | None = None,
        config: Mapping[str, Any] | None = None,
        source: str = "",
        footprint: Footprint | None = None,
        eval_samples: int = 0,
        eval_batch_seconds: Iterable[float] = (),
        save_seconds: Iterable[float] = (),
        save_bytes: int = 0,
        loader_seconds: Iterable[float] = (),
        import_seconds: float = 0.0,
        build_seconds: float = 0.0,
        power_watts: float | None = None,
    ) -> Measurement:
        """A run that was timed elsewhere, e.g. by a training script's own log.

        The first epoch of a run is not a steady one: what it took beyond the median of the others
        is a cost of the start, and the others are the samples; in public logs it took 12 times as
        long.
        Numbers may be of numpy's types, and times an array; what is kept are Python's own.

        Args:
            workload: what to call it.
            batch_size: micro-batch.
            epoch_seconds: training epochs in the order run, without validation and saves.
            step_seconds: micro-steps in the order run, or their one mean; instead of epochs.
            samples: training samples per epoch.
            device: or its name, which must say whether it is a cpu, a cuda device or mps.
            sizes: model-size knobs.
            includes_first: whether the times begin with the first epoch (step) of the run.
            run: number of this run among all runs of the same configuration, from 0; each must
                have its own.
            peak_bytes: largest sum of live tensors, or what the framework's allocator had out.
            device_bytes: what the device gave away, e.g. by nvidia-smi.
            created_at: when, ISO 8601 in UTC; default: now.
            config: other fields of ``RunConfig``: accumulation, precision, workers, …
            source: fingerprint of the code that defined the workload.
            footprint: what the operators say, where that was counted.
            eval_samples: evaluation samples.
            eval_batch_seconds: evaluation micro-steps, forward only.
            save_seconds: of one checkpoint each.
            save_bytes: the size of a checkpoint.
            loader_seconds: batches drawn from the loader alone.
            import_seconds: of the start-up, as in a Measurement.
            build_seconds: of the start-up, as in a Measurement.
            power_watts: that the device drew.

        Raises:
            ValueError: a value is not possible, or there are not just epochs or just steps.
        """
        epochs = numbers("epoch_seconds", epoch_seconds)
        micro_steps = numbers("step_seconds", step_seconds)
        require(bool(epochs) != bool(micro_steps), "give epoch_seconds or step_seconds")
        samples = whole("samples", samples)
        require(run >= 0, f"runs are numbered from 0, but got run={run}")
        ran = RunConfig(
            batch_size=whole("batch_size", batch_size),
            sizes=make_sizes(_checked_knobs(sizes or {})),
            **_checked_settings(config or {}),
        )
        if epochs:
            steps = _from_epochs(epochs, _steps_per_epoch(samples, ran), includes_first)
        else:
            steps = _from_steps(micro_steps, includes_first)
        return cls(
            workload=plain(workload),
            config=ran,
            device=device_named(str(device)) if isinstance(device, str) else device,
            samples=samples,
            round=whole("run", run),
            data=IMPORTED,
            memory=_memory(peak_bytes, device_bytes),
            created_at=created_at or datetime.now(timezone.utc).isoformat(timespec="microseconds"),
            source=source,
            footprint=footprint,
            eval_samples=whole("eval_samples", eval_samples),
            eval_batch_seconds=numbers("eval_batch_seconds", eval_batch_seconds),
            save_seconds=numbers("save_seconds", save_seconds),
            save_bytes=whole("save_bytes", save_bytes),
            loader_seconds=numbers("loader_seconds", loader_seconds),
            import_seconds=number("import_seconds", import_seconds),
            build_seconds=number("build_seconds", build_seconds),
            power_watts=None if power_watts is None else number("power_watts", power_watts),
            message=ONE_TIME_ONLY if includes_first and len(epochs or micro_steps) == 1 else "",
            **steps,
        )


def named_target(workload: str, target: str) -> str:
    """As ``epochcast probe`` is told it: ``"train.py:workload --name bigger-head"``."""
    return target + name_option(workload, target)


def name_option(workload: str, target: str) -> str:
    """The option that gives a target its name, with a space before; empty where it has none."""
    return "" if workload == target else f" --name {shlex.quote(workload)}"


def share_a_number(measurements: Iterable[Measurement]) -> str:
    """Two different runs, measured elsewhere, that have one number: which; empty if there are none.

    One of them would replace the other, or pass for the same run.
    """
    known: dict[str, Measurement] = {}
    for m in measurements:
        if not m.request and known.setdefault(m.key, m) != m:
            return f"two runs of {m.config.label} are both run {m.round}: give each its own run="
    return ""


def _from_epochs(seconds: Sequence[float], steps: float, includes_first: bool) -> dict[str, Any]:
    """The first epoch's surcharge apart; each of the others as one sample of so many steps."""
    _require_times("epoch_seconds", seconds)
    start, steady = _split(seconds, includes_first)
    usual = median(steady)
    late = start is not None and start > usual
    return {
        "warmup_seconds": ((start or 0.0) - usual + usual / steps,) if late else (),
        "step_seconds": tuple(epoch / steps for epoch in steady),
        "steps_per_sample": math.ceil(steps),
    }


def _from_steps(seconds: Sequence[float], includes_first: bool) -> dict[str, Any]:
    """The first step is warm-up, the others are samples."""
    _require_times("step_seconds", seconds)
    start, steady = _split(seconds, includes_first)
    return {"warmup_seconds": () if start is None else (start,), "step_seconds": tuple(steady)}


def _require_times(name: str, seconds: Sequence[float]) -> None:
    for value in seconds:
        require(math.isfinite(value) and value > 0, f"{name} must be positive, but got {value}")


def _steps_per_epoch(samples: int, config: RunConfig) -> float:
    """How many full batches' worth of work an epoch is."""
    require(samples > 0, f"samples must be positive, but got {samples}")
    each = config.samples_each(samples)
    if not config.drop_last:
        return each / config.batch_size
    problem = f"with drop_last, a batch size of {config.batch_size} leaves no batch in {each}"
    require(each >= config.batch_size, f"{problem} samples a device")
    return float(each // config.batch_size)


def _split(seconds: Sequence[float], includes_first: bool) -> tuple[float | None, Sequence[float]]:
    """The time of the start, if it is one of several; and the steady ones."""
    if includes_first and len(seconds) > 1:
        return seconds[0], seconds[1:]
    return None, seconds


def _checked_knobs(sizes: Mapping[str, Any]) -> dict[str, SizeValue]:
    found = {str(name): plain(value) for name, value in sizes.items()}
    for name, value in found.items():
        is_value = isinstance(value, SizeValue)
        require(is_value, f"a knob must be a number or a text, but got {name}={shown(value)}")
    return found


def _checked_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    known = [f.name for f in fields(RunConfig) if f.name not in ("batch_size", "sizes")]
    unknown = ", ".join(str(name) for name in config if name not in known)
    require(not unknown, f"config has {', '.join(known)}, but got {unknown}")
    counts = ("accumulation", "workers", "world_size", "nodes")
    return {k: whole(k, v) if k in counts else plain(v) for k, v in config.items()}


def _memory(peak_bytes: float | None, device_bytes: float | None) -> MemoryPeaks | None:
    """What a log knows of memory, to whole bytes."""
    known = {"peak_bytes": peak_bytes, "device_bytes": device_bytes}
    found = {k: round(number(k, v)) for k, v in known.items() if v is not None}
    if not found:
        return None
    return MemoryPeaks(
        allocated_bytes=found.get("peak_bytes"), device_bytes=found.get("device_bytes")
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """All trials of one configuration as one row of a table; medians over trials.

    Attributes:
        trials: successful trials.
        step_seconds: one steady micro-step; None if no trial succeeded.
        step_spread: half the range of ``step_seconds`` over trials, relative to their median; None
            where there is one.
        samples_per_second: of one device, in steady training.
        data_wait_share: share of a step spent waiting for data.
        update_share: share of a step spent in the optimizer.
        loader_seconds: one batch from the loader alone.
        eval_seconds: one pass over the evaluation data.
        startup_seconds: process start until the first step can begin.
        first_steps_seconds: what the first steps took beyond steady ones.
        peak_bytes: largest sum of live tensors; None where it was not tracked.
        device_bytes: the most that training, evaluation or saving took of the device.
        probe_seconds: wall-clock time of all trials, failed ones included.
        note: what a person said of the latest trial of which anything was said.
    """

    workload: str
    config: RunConfig
    device: Device
    status: Status
    message: str = ""
    trials: int = 0
    step_seconds: float | None = None
    step_spread: float | None = None
    samples_per_second: float | None = None
    data_wait_share: float | None = None
    update_share: float | None = None
    loader_seconds: float | None = None
    eval_seconds: float | None = None
    save_seconds: float | None = None
    save_bytes: int | None = None
    startup_seconds: float | None = None
    first_steps_seconds: float | None = None
    peak_bytes: int | None = None
    device_bytes: int | None = None
    parameters: int | None = None
    flops: int | None = None
    probe_seconds: float = 0.0
    trace: str | None = None
    log: str | None = None
    note: str = ""
