"""What a user asks a sweep or a dry run for, checked against the workload it names.

    request ── describe ──▶ the workload's knobs, source, device     one process, which is then left
            ── check ─────▶ a first step: own batch size, samples, what is wrong
            ── grid ──────▶ Prepared: one TrialSpec for each configuration

A batch size of None is the workload's own, from the command line to the worker that builds it; the
first step tells how large it is. A dry run needs no first step: its worker answers for all.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import groupby, product
from pathlib import Path
from typing import get_args

from epochcast.errors import EpochcastError, UsageError, WorkloadError
from epochcast.profiler.process import (
    Worker,
    WorkerDied,
    WorkerProcess,
    Workers,
    WorkerTimeout,
    ask_or_refuse,
)
from epochcast.profiler.protocol import (
    AUTO,
    WHAT_IFS,
    CheckedWorkload,
    Counted,
    Description,
    Reply,
    Task,
    TrialSpec,
    WorkloadSpec,
)
from epochcast.profiler.target import called, require_name
from epochcast.records import (
    Device,
    Footprint,
    RunConfig,
    Sharding,
    Sizes,
    SizeValue,
    make_sizes,
)
from epochcast.records.validation import is_number

DEFAULT_ROUNDS = 3  # the fewest that give a variance between processes with one to spare
MAX_ROUNDS = 6  # beyond, quantiles of Student's t hardly narrow any more
DEFAULT_TIMEOUT_SECONDS = 600.0
DEFAULT_STEADY_SECONDS = 1.0
DEFAULT_BATCH_FACTORS = (0.25, 0.5, 1, 2)  # of the workload's own batch size, if none are given
MAX_THREADS = 8192  # the most CPUs that Linux knows (NR_CPUS on x86-64)
CANDIDATE_BATCH_FACTORS = (0.25, 0.5, 1, 2, 4)  # that a sweep chooses among
MAX_CANDIDATES = 6  # values of one knob: more would be dry runs for little
QUESTION = ("epochs", "steps", "batch_size")
OVERRIDES = (
    "accumulation",
    "compile",
    "drop_last",
    "eval_batch_size",
    "precision",
    "workers",
)


@dataclass(frozen=True)
class Range:
    """``128..2048``: values of a knob between two bounds, of which a sweep chooses some."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high < math.inf:
            raise UsageError(f"a range needs 0 < low < high, but got {self.low}..{self.high}")

    def values(self) -> tuple[SizeValue, ...]:
        """Candidates in it: all whole numbers of a short range, else doublings, both ends too."""
        whole = isinstance(self.low, int) and isinstance(self.high, int)
        if whole and self.high - self.low < MAX_CANDIDATES:
            return tuple(range(int(self.low), int(self.high) + 1))
        doublings = math.floor(math.log2(self.high / self.low) + 1e-9)
        step = max(1, math.ceil(doublings / (MAX_CANDIDATES - 1)))
        inner = [self.low * 2**k for k in range(0, doublings + 1, step)]
        found = [*inner, self.high] if inner[-1] < self.high else inner
        return tuple(round(value) for value in found) if whole else tuple(found)


@dataclass(frozen=True, kw_only=True)
class SweepRequest:
    """What to probe.

    Attributes:
        target: names the workload function, see ``profiler/workload.py``.
        batch_sizes: micro-batches. None is the workload's own for a dry run, and a few around it
            for a sweep.
        sizes: values to measure of each model-size knob, or a range of which some are chosen; knobs
            left out keep their defaults.
        overrides: attributes of the workload to change, among ``OVERRIDES``.
        world_sizes: numbers of devices that train together, one process each on this machine.
        sharding: what they share.
        device: as torch names it.
        threads: intra-operator CPU threads; None leaves torch's choice; on a CPU ranks have one
            each, as under torchrun.
        rounds: passes over all configurations, each in a fresh process; None is ``DEFAULT_ROUNDS``,
            and more where those differ much.
        steady_seconds: how long each trial times steady steps.
        max_seconds: begin no trial that would end later than this.
        timeout_seconds: for one trial; then its process is ended.
        data: folder of local data.
        fresh: forget stored measurements of the same configurations first.
        try_all: try also what by a dry run will not fit the device.
        name: what to call them, instead of by their target.
        note: what a person says of these measurements.
        noise_scale: whether to take gradients at two batch sizes, once for each model size.
        traces: whether to write a torch.profiler trace of each configuration.
        seed: of the order of trials.
        asked: a question to choose configurations for: ``epochs``, ``batch_size`` and knobs.
        until: half the relative width of the answer's 90 % interval at which to stop.
        what_if: changes that only a dry run makes, among ``WHAT_IFS``.

    Raises:
        UsageError: a value is not possible.
    """

    target: str
    batch_sizes: Sequence[int] | None = None
    sizes: Mapping[str, Sequence[SizeValue] | Range] = field(default_factory=dict)
    overrides: Mapping[str, SizeValue] = field(default_factory=dict)
    world_sizes: Sequence[int] = (1,)
    sharding: Sharding = "ddp"
    device: str = "auto"
    threads: int | None = None
    rounds: int | None = None
    steady_seconds: float = DEFAULT_STEADY_SECONDS
    max_seconds: float | None = None
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    data: str | None = None
    fresh: bool = False
    try_all: bool = False
    name: str | None = None
    note: str = ""
    noise_scale: bool = False
    traces: bool = True
    seed: int = 0
    asked: Mapping[str, SizeValue] = field(default_factory=dict)
    until: float | None = None
    what_if: Mapping[str, SizeValue] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require_name(self.name, self.target)
        for name, least in (("rounds", 1), ("steady_seconds", 0.01), ("timeout_seconds", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"{name} must be at least {least}, but got {value}")
        if self.threads is not None and not 1 <= self.threads <= MAX_THREADS:
            raise UsageError(f"threads must be 1 to {MAX_THREADS}, but got {self.threads}")
        if self.batch_sizes is not None and min(self.batch_sizes, default=0) < 1:
            got = list(self.batch_sizes) or "none: leave batch_sizes out for the workload's own"
            raise UsageError(f"batch sizes must be at least 1, but got {got}")
        if min(self.world_sizes, default=0) < 1:
            raise UsageError(f"world sizes must be at least 1, but got {list(self.world_sizes)}")
        if self.sharding not in get_args(Sharding):
            raise UsageError(f"sharding is ddp or fsdp, but got {self.sharding!r}")
        if self.sharding == "fsdp" and max(self.world_sizes) == 1:
            raise UsageError("sharding must be left out for one device; fsdp needs --world-size 2")
        if self.is_shared and self.chooses:
            raise UsageError(
                "several devices are measured in every configuration asked for: leave out --for, "
                "--until and ranges beside --world-sizes and --sharding"
            )
        if self.try_all and self.chooses:
            raise UsageError(
                "a sweep that chooses its configurations leaves out what cannot fit: leave out "
                "--try-all, or say --batch-sizes without --for, --until and ranges"
            )
        unknown = set(self.overrides) - set(OVERRIDES)
        if unknown:
            raise UsageError(f"overrides are {', '.join(OVERRIDES)}, but got {', '.join(unknown)}")
        unknown = set(self.what_if) - set(WHAT_IFS)
        if unknown:
            raise UsageError(f"what-ifs are {', '.join(WHAT_IFS)}, but got {', '.join(unknown)}")

    @property
    def called(self) -> str:
        """The name that measurements have."""
        return called(self.name, self.target)

    @property
    def first_rounds(self) -> int:
        """Rounds that are made in any case."""
        return DEFAULT_ROUNDS if self.rounds is None else self.rounds

    @property
    def chooses(self) -> bool:
        """Whether the sweep chooses among its configurations instead of measuring all."""
        ranges = any(isinstance(values, Range) for values in self.sizes.values())
        return ranges or bool(self.asked) or self.until is not None

    @property
    def is_shared(self) -> bool:
        """Whether any configuration is of a process group."""
        return max(self.world_sizes) > 1

    @property
    def workload(self) -> WorkloadSpec:
        """The part that all trials share."""
        return WorkloadSpec(
            target=self.target,
            data=self.data,
            overrides=make_sizes({**self.overrides, **self.what_if}),
            device=self.device,
            threads=self.threads,
        )


def grid(
    request: SweepRequest, known: Description, batch_sizes: Sequence[int | None]
) -> list[TrialSpec]:
    """Every configuration once, in the order given.

    Args:
        request: ``check_knobs`` has passed.
        known: the knobs that the workload has.
        batch_sizes: of each model size; None is the workload's own.
    """
    knobs = dict(known.knobs)
    values = [_values(request, name, default) for name, default in known.knobs]
    return [
        TrialSpec(
            workload=request.workload,
            sizes=make_sizes(dict(zip(knobs, combination, strict=True))),
            batch_size=batch_size,
            world_size=world_size,
            sharding=request.sharding,
            steady_seconds=request.steady_seconds,
        )
        for combination in product(*values)
        for batch_size in dict.fromkeys(batch_sizes)
        for world_size in dict.fromkeys(request.world_sizes)
    ]


def _values(request: SweepRequest, name: str, default: SizeValue) -> list[SizeValue]:
    """Of one knob: as asked for, and what the question is about."""
    wanted = request.sizes.get(name, (default,))
    values = list(wanted.values() if isinstance(wanted, Range) else wanted)
    return list(dict.fromkeys([*values, *([request.asked[name]] if name in request.asked else [])]))


def batch_sizes_around(request: SweepRequest, own: int | None, samples: int) -> tuple[int, ...]:
    """The batch sizes of a sweep: as asked for, or around the workload's own.

    Those that a sweep chooses among are more, in order, and the question's is one of them.

    Args:
        request: may name its batch sizes.
        own: the batch size that the workload trains with; None where it is not known.
        samples: of an epoch; no batch can be larger.
    """
    factors = CANDIDATE_BATCH_FACTORS if request.chooses else DEFAULT_BATCH_FACTORS
    around = [] if own is None else [max(1, round(own * factor)) for factor in factors]
    sizes = request.batch_sizes or [size for size in around if size <= samples]
    asked = request.asked.get("batch_size")
    if request.chooses and sizes:
        sizes = sorted([*sizes, *([asked] if isinstance(asked, int) else [])])
    return tuple(dict.fromkeys(sizes))


def check_knobs(request: SweepRequest, known: Description) -> None:
    """Compare what is asked for with what the workload function takes.

    Raises:
        UsageError: an unknown knob, a value of another type, local data that it cannot use.
    """
    knobs = dict(known.knobs)
    for name, values in request.sizes.items():
        if name not in knobs:
            raise UsageError(
                f"{request.target} has no knob {name!r}; it has: {', '.join(knobs) or 'none'}"
            )
        if not values:
            raise UsageError(f"--set {name}= needs at least one value")
        for value in values.values() if isinstance(values, Range) else values:
            _check_knob_type(name, value, knobs[name])
    for name, value in request.asked.items():
        if name in knobs:
            _check_knob_type(name, value, knobs[name])
        elif name not in QUESTION:
            raise UsageError(f"--for knows {', '.join((*QUESTION, *knobs))}, but got {name!r}")
    if request.data is not None and not known.takes_data:
        raise UsageError(f"{request.target} has no 'data' argument, so it cannot use --data")


def _check_knob_type(name: str, value: SizeValue, default: SizeValue) -> None:
    same = type(value) is type(default) or (is_number(default) and is_number(value))
    if not same or (isinstance(default, int) and isinstance(value, float)):
        raise UsageError(
            f"knob {name!r} takes values like {default!r} ({type(default).__name__}), "
            f"but got {value!r}"
        )


# -- before the first round -----------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A sweep that can begin.

    Attributes:
        request: with its device by name.
        source: fingerprint of the workload's code.
        checked: what the first step showed.
        specs: every configuration asked for, or to choose among.
    """

    request: SweepRequest
    source: str
    device: Device
    checked: CheckedWorkload
    specs: Sequence[TrialSpec]

    def config(self, spec: TrialSpec) -> RunConfig:
        """How a trial will run."""
        asked = spec.config
        known = self.checked.config or asked
        return replace(
            known,
            batch_size=asked.batch_size,
            sizes=asked.sizes,
            world_size=asked.world_size,
            sharding=asked.sharding,
        )


def prepare(request: SweepRequest, workers: Workers) -> Prepared:
    """Load the workload and run a step of its first configuration, in a process of its own.

    Raises:
        UsageError: no such knob, or a batch of more than all samples.
        WorkloadError: the workload does not run.
    """
    with workers.start("check") as worker:
        known = describe(request, worker)
        if request.is_shared:
            request = on_devices(request, known)
        request = resolved(request, known.device)
        first = grid(request, known, request.batch_sizes or (None,))[0]
        first = replace(first, world_size=1, sharding="ddp")
        checked = _check(worker, first, request)
    return Prepared(
        request=request,
        source=known.source,
        device=replace(known.device, threads=request.threads or known.device.threads),
        checked=checked,
        specs=grid(request, known, _batch_sizes(request, checked, worker.log)),
    )


def resolved(request: SweepRequest, device: Device) -> SweepRequest:
    """The same request in words of its own: asking for what is there anyway continues a sweep."""
    name = device.kind if request.device == AUTO else request.device.lower().removesuffix(":0")
    return replace(request, device=name, threads=request.threads or device.threads)


def on_devices(request: SweepRequest, known: Description) -> SweepRequest:
    """The same for ranks on this machine, each with a device, or a thread, of its own.

    Raises:
        UsageError: there are fewer devices, or they cannot train together.
    """
    kind, count, largest = known.device.kind, known.device_count, max(request.world_sizes)
    if kind == "mps":
        raise UsageError("torch.distributed cannot train on mps: probe worlds with --device cpu")
    if kind == "cpu":
        return replace(request, threads=request.threads or 1)  # as torchrun does
    if request.device not in (AUTO, kind):
        raise UsageError(
            f"ranks take the devices from {kind}:0 on, so --device {request.device} cannot be: "
            f"say --device {kind}, and which ones by CUDA_VISIBLE_DEVICES"
        )
    if largest > count:
        raise UsageError(
            f"a world of {largest} needs {largest} CUDA devices, but torch sees {count} here; "
            f"worlds of up to {count} can be probed, or a script on several machines: "
            "epochcast probe -- torchrun …"
        )
    return request


def describe(request: SweepRequest, worker: Worker) -> Description:
    """What the workload function says of itself, compared with what is asked for.

    Raises:
        UsageError: no such workload or knob.
        WorkloadError: the user's code cannot be loaded.
        EpochcastError: the worker answered, but not what it was asked.
    """
    task = Task(kind="describe", spec=TrialSpec(workload=request.workload))
    known = ask_or_refuse(worker, task, request.timeout_seconds).described
    if known is None:
        raise EpochcastError("the worker process did not describe the workload")
    check_knobs(request, known)
    return known


def _check(worker: Worker, spec: TrialSpec, request: SweepRequest) -> CheckedWorkload:
    """A first step. If it hangs or kills its process, the sweep will find out which ones do."""
    reply = Reply(kind="checked")
    with suppress(WorkerTimeout, WorkerDied):
        reply = worker.ask(Task(kind="check", spec=spec), request.timeout_seconds)
    return reply.checked or CheckedWorkload()


def _batch_sizes(request: SweepRequest, checked: CheckedWorkload, log: Path) -> tuple[int, ...]:
    """Those asked for, or around the workload's own; refused if there are none to be had."""
    own = checked.config.batch_size if checked.config else None
    batch_sizes = batch_sizes_around(request, own, checked.samples)
    if checked.fixed_batch and own is not None and not request.batch_sizes:
        batch_sizes = (own,)
    largest = max(batch_sizes, default=own)
    if largest is not None and checked.samples and largest > checked.samples:
        raise UsageError(
            f"batch size {largest} is more than the data set's {checked.samples} samples; "
            "leave it out"
        )
    if checked.problem:
        raise WorkloadError(f"{checked.problem} (log: {log})")
    if not batch_sizes:
        why = checked.trouble or "the first step ended or blocked its process"
        raise WorkloadError(f"{why}; so its batch size is not known (log: {log})")
    return batch_sizes


# -- dry runs -------------------------------------------------------------------------------------


def count_footprints(
    request: SweepRequest,
    *,
    timeline: bool = False,
    start_worker: Callable[[Path], Worker] = WorkerProcess,
) -> tuple[Counted, ...]:
    """Footprints of every configuration that a request names, without running one.

    Args:
        request: what to count.
        timeline: keep every allocation and free.
        start_worker: starts a worker process that logs to a file.

    Raises:
        UsageError: no such knob.
        WorkloadError: the workload cannot be built or traced.
    """
    found: list[Counted] = []
    with start_worker(Path(os.devnull)) as worker:
        specs = grid(request, describe(request, worker), request.batch_sizes or (None,))
        for _, reply in dry_runs(worker, specs, request.timeout_seconds, timeline=timeline):
            if reply.problem:
                raise WorkloadError(reply.problem)
            found += reply.counted
    return tuple(found)


def dry_runs(
    worker: Worker, specs: Iterable[TrialSpec], timeout: float, *, timeline: bool
) -> Iterator[tuple[list[TrialSpec], Reply]]:
    """Dry runs of one model size after another: each model is built once for all batch sizes.

    Args:
        worker: a process that has not failed.
        specs: those of one model size next to each other.
        timeout: seconds for a model size.
        timeline: keep every allocation and free.

    Raises:
        WorkloadError: no answer in time, or the worker died.
    """
    for _, same in groupby(specs, key=lambda spec: spec.sizes):
        group = list(same)
        task = Task(
            kind="dry-run",
            spec=replace(group[0], batch_size=None),
            batch_sizes=tuple(spec.batch_size for spec in group),
            timeline=timeline,
        )
        yield group, ask_or_refuse(worker, task, timeout)


def with_outer_timelines(counted: Mapping[RunConfig, Footprint]) -> dict[RunConfig, Footprint]:
    """What was counted, with the timelines of each model's smallest and largest batch alone: two
    give the peaks of all, and each takes a hundred times as much room as the counts."""
    batch_sizes: dict[Sizes, list[int]] = {}
    for config in counted:
        batch_sizes.setdefault(config.sizes, []).append(config.batch_size)
    outer = {sizes: (min(of_it), max(of_it)) for sizes, of_it in batch_sizes.items()}
    return {
        c: x if c.batch_size in outer[c.sizes] else replace(x, timeline=None)
        for c, x in counted.items()
    }
