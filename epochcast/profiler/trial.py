"""One configuration, measured once: a plain function of a task that returns a Measurement.

    build │ warm-up │ steady steps │ loader alone, its restarts │ evaluation │ save │ operators
    └ with imports: the start-up    └ nothing runs under a profiler ┘

Whatever happens, what had been measured by then is in the Measurement. A trace is one more short
run, for people to look at:

    │ wait │ warm-up │ active │ active │     torch.profiler.schedule; written when active ends

It labels the parts of the loop. Times in it are longer than the measured ones: recording shapes,
stacks of modules and memory costs 30–130 % on small steps.
"""

from __future__ import annotations

import gc
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryFile
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function, schedule
from torch.utils._pytree import tree_leaves

from epochcast.errors import UsageError, WorkloadError
from epochcast.profiler import device as devices
from epochcast.profiler import sharing, timing
from epochcast.profiler.energy import EnergyMeter, open_meter
from epochcast.profiler.footprint.tracker import measure_footprint
from epochcast.profiler.learning import (
    Losses,
    are_alike,
    heard,
    train_first_steps,
    whole_batches,
)
from epochcast.profiler.loop import TrainingLoop, config_of
from epochcast.profiler.protocol import CheckedWorkload, Task, TrialSpec
from epochcast.profiler.target import build, source_of
from epochcast.profiler.workload import Workload, first_line
from epochcast.records import (
    Communication,
    Device,
    Measurement,
    RunConfig,
    Status,
    Warning_,
)

SIDE_SHARE = 0.25  # of the steady phase's time, for each of loader alone and evaluation
RESTARTS = 3
SAVES = 3
SLOW_SAVE_SECONDS = 5.0  # a checkpoint this slow is written once
UNPROFILED_STEPS = 3  # before a trace: lazily allocated state, tuned kernels
WAIT, WARMUP, ACTIVE = 1, 1, 2
TRACE_NAME = "trace.json.gz"

Report = Callable[[str], None]


@dataclass
class _Trial:
    """What is known so far; becomes a Measurement at the end, or wherever the trial failed."""

    task: Task
    device: Device
    config: RunConfig
    import_seconds: float
    begun: float = field(default_factory=time.perf_counter)
    fields: dict[str, Any] = field(default_factory=dict)
    message: str = ""  # what could not be measured, though the trial succeeds

    def measurement(self, status: Status, message: str = "") -> Measurement:
        spec = self.task.spec
        return Measurement(
            workload=spec.workload.target,
            source=source_of(spec.workload.target),
            request=spec.request,
            config=self.config,
            device=self.device,
            status=status,
            message=message or self.message,
            round=self.task.round,
            trial=self.task.trial,
            import_seconds=self.import_seconds,
            probe_seconds=time.perf_counter() - self.begun,
            log=self.task.log or None,
            created_at=datetime.now(timezone.utc).isoformat(timespec="microseconds"),
            **{"samples": 0, **self.fields},
        )

    def measure(self, device: torch.device, report: Report) -> None:
        """Everything in its order; what an error leaves is kept."""
        spec, fields = self.task.spec, self.fields
        seconds = spec.steady_seconds
        ranks = sharing.ranks_of_process() if spec.ranks else None
        meter = open_meter(device, ranks.size if ranks else 1)
        report("build")
        devices.reset_peaks(device)
        timer = devices.timer_for(device)
        begun = time.perf_counter()
        workload = build_afresh(spec)
        self.config = config_of_spec(workload, spec)
        fields |= _about(workload)
        require_full_batch(self.config, self.config.samples_each(fields["samples"]))
        if ranks is not None:
            fields["communication"] = sharing.communication_of(workload)
        loop = TrainingLoop(workload, self.config, device, ranks)
        devices.synchronize(device)
        fields["build_seconds"] = time.perf_counter() - begun

        report("warm up")
        start = timer.mark()
        stepper = timing.Stepper(loop, timer)
        losses = Losses()
        with heard(loop, losses.hear):
            fields["warmup_seconds"] = tuple(_warm_up(stepper, start))
        report("time steps")
        if meter is not None:
            meter.begin()
        series = timing.steady_steps(stepper, seconds)
        fields["step_joules"] = _step_joules(meter, series)
        fields["step_seconds"] = tuple(series.step)
        fields["data_wait_seconds"] = tuple(series.wait)
        fields["update_seconds"] = tuple(series.update)
        fields["steps_per_sample"] = series.steps_per_sample
        fields["batch_elements"] = tuple(series.elements)
        fields["power_watts"] = devices.power_watts(device)
        fields["memory"] = devices.read_peaks(device)
        fields["warnings"] = (*losses.after(stepper), *whole_batches(loop), *_of_ranks(loop))
        report("loader alone")
        fields["loader_seconds"] = tuple(timing.loader_alone(stepper, SIDE_SHARE * seconds))
        while len(stepper.restarts) < RESTARTS:
            stepper.restart()
        fields["loader_restart_seconds"] = tuple(stepper.restarts)
        report("evaluate")
        devices.begin_phase(device)
        if self.config.compiled:
            fields["warmup_seconds"] += tuple(timing.first_evaluations(loop, timer))
        samples, restarts = timing.evaluation(loop, timer, SIDE_SHARE * seconds)
        fields["eval_batch_seconds"] = tuple(samples)
        fields["eval_restart_seconds"] = tuple(restarts)
        fields["eval_memory"] = devices.read_peaks(device) if samples else None
        report("save")
        devices.begin_phase(device)
        try:
            saves = time_saves(loop, Path(self.task.folder))
        except (OSError, RuntimeError) as error:  # a full disk; torch's writer raises RuntimeError
            if is_out_of_memory(error):
                raise
            self.message = first_line(error)
        else:
            fields["save_seconds"], fields["save_bytes"] = saves
            fields["save_memory"] = devices.read_peaks(device)
        report("count operators")
        if spec.ranks:  # a dry run counts one of them
            return
        eager = torch.compiler.set_stance("force_eager") if self.config.compiled else nullcontext()
        with eager:
            fields["footprint"] = measure_footprint(loop)


def run_trial(
    task: Task, import_seconds: float = 0.0, report: Report = lambda phase: None
) -> Measurement:
    """Measure one configuration.

    Args:
        task: what to measure, its batch size included; ``task.folder`` takes a checkpoint for a
            moment.
        import_seconds: what this process took until it could build a workload.
        report: called with the name of each phase as it begins.

    Raises:
        UsageError: torch has no such device here.
    """
    spec = task.spec
    device = sharing.opened(task)
    trial = _Trial(task, devices.fingerprint(device), spec.config, import_seconds)
    try:
        trial.measure(device, report)
    except UsageError:
        raise
    except Exception as error:  # noqa: BLE001 - user code may raise anything; it is recorded
        traceback.print_exc()  # into the worker's log
        traceback.clear_frames(error.__traceback__)  # loaders that a collection ends take 5 s each
        status: Status = "oom" if is_out_of_memory(error) else "crashed"
        message = str(error) if isinstance(error, WorkloadError) else first_line(error)
        return trial.measurement(status, message)
    finally:
        gc.collect()
    return trial.measurement("ok")


def _step_joules(meter: EnergyMeter | None, series: timing.StepTimes) -> float | None:
    """Of one steady micro-step."""
    watts = None if meter is None else meter.watts()
    return None if watts is None else watts * fmean(series.step)


def _warm_up(stepper: timing.Stepper, start: Any) -> list[float]:
    """Warm up; the first step names the layer if one fails (hooks would disturb a compiled one).

    A compiled model also meets its partial batch here: it compiles again for it, and what comes of
    that may serve the full batches too, from the second epoch of a run on.
    """
    loop, timer = stepper.loop, stepper.timer
    with nullcontext() if loop.config.compiled else naming_layer(loop.workload.model):
        stepper.step()
    end = timer.mark()
    first = [timer.seconds(start, end)]
    partial = loop.partial_batch() if loop.config.compiled else None
    if partial is not None:
        start = timer.mark()
        stepper.train(partial)
        end = timer.mark()
        first.append(timer.seconds(start, end))
    return [*first, *timing.warm_up(stepper, end)]


# How CPU and MPS allocators say it; CUDA raises torch.OutOfMemoryError.
_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that the device or the host had no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(t in str(error) for t in _OUT_OF_MEMORY)


@contextmanager
def naming_layer(model: nn.Module) -> Iterator[None]:
    """Within it, an error in a forward pass becomes an error that names the layer.

    Raises:
        WorkloadError: a layer refused its input.
    """
    entered: list[tuple[str, nn.Module, str]] = []
    handles = []
    for name, module in model.named_modules():
        handles += _hooks(name, module, entered)
    try:
        yield
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        if not entered or is_out_of_memory(error):
            raise
        raise WorkloadError(_describe(*entered[-1], error)) from error
    finally:
        for handle in handles:
            handle.remove()


def _hooks(name: str, module: nn.Module, entered: list[Any]) -> list[Any]:
    def enter(_: nn.Module, args: Any, kwargs: Any) -> None:
        entered.append((name, module, _shapes((args, kwargs))))

    def leave(_: nn.Module, args: Any, output: Any) -> None:
        while entered.pop()[1] is not module:  # layers within whose error the model has caught
            continue

    return [
        module.register_forward_pre_hook(enter, with_kwargs=True),
        module.register_forward_hook(leave),
    ]


def _describe(name: str, module: nn.Module, shapes: str, error: BaseException) -> str:
    what = " ".join(repr(module).split())
    described = what if len(what) <= 80 else type(module).__name__
    where = f"layer {name!r}, {described}," if name else f"the model's own forward ({described})"
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return f"{where} failed on an input of shape {shapes}: {lines[0]}"


def _shapes(args: Any) -> str:
    shapes = [tuple(leaf.shape) for leaf in tree_leaves(args) if isinstance(leaf, Tensor)]
    return ", ".join(map(str, shapes)) or "()"


def ready(task: Task) -> timing.Stepper:
    """A configuration that can be stepped, for what is not timed: traces, gradient noise.

    Raises:
        UsageError: torch has no such device here.
        WorkloadError: the workload cannot be built.
    """
    device, spec = sharing.opened(task), task.spec
    workload = build_afresh(spec)
    ranks = sharing.ranks_of_process() if spec.ranks else None
    loop = TrainingLoop(workload, config_of_spec(workload, spec), device, ranks)
    return timing.Stepper(loop, devices.timer_for(device))


def config_of_spec(workload: Workload, spec: TrialSpec) -> RunConfig:
    """The configuration in which the built workload of a spec runs.

    Raises:
        WorkloadError: another batch size than that of the batches which the data makes.
    """
    return config_of(workload, spec.batch_size, spec.sizes, spec.world_size, spec.sharding)


def _of_ranks(loop: TrainingLoop) -> tuple[Warning_, ...]:
    """What is doubtful about ranks: fewer cores than they have threads, averages that are none."""
    ranks, found = loop.ranks, []
    cores, threads = devices.count_devices(loop.device), torch.get_num_threads()
    if loop.device.type == "cpu" and ranks.size * threads > cores:
        details = {"ranks": str(ranks.size), "threads": str(threads), "cores": str(cores)}
        found.append(Warning_.of("few-cores", **details))
    if loop.config.sharding == "ddp" and ranks.size > 1 and not are_alike(loop):
        found.append(Warning_(code="ranks-differ"))
    return tuple(found)


def build_afresh(spec: TrialSpec) -> Workload:
    """Build the workload of a spec afresh, with the same random numbers every time.

    What was compiled before is forgotten. Where nothing was, nothing is: on CUDA forgetting imports
    the whole compiler (``torch._dynamo.reset``), for seconds that no real run pays.
    """
    torch.manual_seed(0)
    dynamo = sys.modules.get("torch._dynamo.utils")
    if dynamo is not None and dynamo.counters.get("frames"):
        torch.compiler.reset()
    return build(spec)


def _about(workload: Workload) -> dict[str, Any]:
    return {
        "samples": workload.samples_per_epoch,
        "eval_samples": workload.samples_per_evaluation,
        "data": workload.data_source,
    }


def require_full_batch(config: RunConfig, samples: int) -> None:
    """Refuse a batch that the data set cannot fill.

    Raises:
        WorkloadError: it has fewer samples than one batch.
    """
    if samples < config.batch_size:
        raise WorkloadError(
            f"batch size {config.batch_size} is more than the data set's {samples} samples"
        )


def time_saves(loop: TrainingLoop, folder: Path) -> tuple[tuple[float, ...], int]:
    """Seconds of each durable write of a checkpoint into ``folder``, and its size in bytes.

    Of ranks that have the same weights the first one writes; of parts each writes its own.
    """
    workload, seconds, size = loop.workload, list[float](), 0
    if loop.ranks.rank and loop.config.sharding == "ddp":
        return (), 0
    while len(seconds) < SAVES and sum(seconds) < SLOW_SAVE_SECONDS:
        with TemporaryFile(dir=folder) as file:  # has no name: a kill leaves nothing behind
            begun = time.perf_counter()
            state = {
                "model": workload.model.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in workload.optimizers],
            }
            torch.save(state if loop.config.sharding == "ddp" else sharing.local(state), file)
            file.flush()
            os.fsync(file.fileno())
            seconds.append(time.perf_counter() - begun)
            size = os.fstat(file.fileno()).st_size
    return tuple(seconds), size


def check(task: Task) -> CheckedWorkload:
    """Run the first steps of a configuration: is this a workload that can be probed at all?

    They go on until it is seen that something is trained, which is mostly the first one.

    Errors other than of the workload itself (out of memory, an exception of one configuration)
    are left for the sweep to record.

    Raises:
        UsageError: torch has no such device here.
    """
    spec = task.spec
    device = devices.open_device(spec.workload.device, spec.workload.threads)
    config: RunConfig | None = None
    about: dict[str, Any] = {}
    try:
        workload = build_afresh(spec)
        config = config_of(workload, spec.batch_size, spec.sizes)
        about = _about(workload)
        about.pop("eval_samples")
        about["fixed_batch"] = workload.batch_from_data
        require_full_batch(config, about["samples"])
        loop = TrainingLoop(workload, config, device)
        with nullcontext() if config.compiled else naming_layer(workload.model):
            warnings = train_first_steps(loop, _endless(loop), devices.timer_for(device))
        devices.synchronize(device)
        warnings = (*warnings, *whole_batches(loop))
    except WorkloadError as error:
        return CheckedWorkload(config=config, problem=str(error), **about)
    except UsageError:
        raise
    except Exception as error:  # noqa: BLE001 - the sweep will meet it again and record it
        traceback.clear_frames(error.__traceback__)
        return CheckedWorkload(config=config, trouble=first_line(error), **about)
    return CheckedWorkload(config=config, warnings=warnings, **about)


def _endless(loop: TrainingLoop) -> Iterator[Any]:
    """Batches of one pass over the loader after another."""
    while True:
        yield from loop.train_loader()


# -- a trace --------------------------------------------------------------------------------------


def trace(task: Task) -> tuple[Path, Communication | None]:
    """Trace a few steps of a configuration into ``task.folder``; the file is whole or absent.

    Of several ranks the first is traced, and what it tells of their communication is returned too.

    Raises:
        UsageError: torch has no such device here.
        WorkloadError: the workload cannot be built.
    """
    stepper = ready(task)
    for _ in range(UNPROFILED_STEPS):
        stepper.step()
    folder = Path(task.folder)
    if stepper.loop.ranks.rank:
        for _ in range(WAIT + WARMUP + ACTIVE):
            stepper.step()
        return folder / TRACE_NAME, None
    folder.mkdir(parents=True, exist_ok=True)
    partial, final = folder / f"partial-{os.getpid()}.json.gz", folder / TRACE_NAME
    try:
        events = _record(stepper, partial)
        partial.replace(final)
    finally:
        partial.unlink(missing_ok=True)  # the profiler writes what it has when a step fails
    if not task.spec.ranks:
        return final, None
    told = sharing.communication_of(stepper.loop.workload)
    found = sharing.seconds_by(events, on_cuda=stepper.loop.device.type == "cuda")
    if found is not None:
        told = replace(told, seconds=found[0], overlapped_seconds=found[1])
    return final, told


def _record(stepper: timing.Stepper, path: Path) -> Sequence[FunctionEvent]:
    """Trace steps into a file; what was recorded."""
    batches = stepper.batches()
    found: list[FunctionEvent] = []

    def keep(profiler: profile) -> None:
        profiler.export_chrome_trace(str(path))
        if stepper.loop.ranks.size > 1:
            found.extend(profiler.events())  # type: ignore[no-untyped-call]

    with profile(
        activities=_activities(stepper.loop.device),
        schedule=schedule(wait=WAIT, warmup=WARMUP, active=ACTIVE, repeat=1),
        on_trace_ready=keep,
        record_shapes=True,
        profile_memory=True,
        with_flops=True,
        with_modules=True,
    ) as profiler:
        for _ in range(WAIT + WARMUP + ACTIVE):
            _labelled_step(stepper, batches)
            profiler.step()
    return found


def _labelled_step(stepper: timing.Stepper, batches: Iterator[Any]) -> None:
    with record_function("epochcast: wait for data"):
        batch = next(batches)
    with record_function("epochcast: train step"):
        stepper.loop.micro_step(batch, stepper.timer)
    with record_function("epochcast: synchronize"):
        devices.synchronize(stepper.loop.device)


def _activities(device: torch.device) -> list[ProfilerActivity]:
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    return activities
