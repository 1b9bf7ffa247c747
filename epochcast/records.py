"""Every record that crosses a folder boundary: frozen, SI units in the names, raw samples kept.

    DatasetSpec ─┐
                 ├─ workload ──probe──▶ Measurement(RunConfig, Device, Footprint, MemoryPeaks)
    RunConfig  ──┘                            │ fit
                                              ▼
                      Estimate ◀──predict── CostModel (costmodel/model.py)

A record validates itself and derives statistics from its samples; nothing more. ``to_json`` and
``from_json`` are the only way in and out; every document carries a schema number.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeVar

import msgspec

from epochcast.errors import StoreError, UsageError

SCHEMA = 1  # of Measurement and CostModel documents; raised when a field changes its meaning

SizeValue = int | float | str | bool
Sizes = tuple[tuple[str, SizeValue], ...]  # model-size knobs, sorted by name
Precision = Literal["fp32", "bf16", "fp16"]
Status = Literal["ok", "oom", "timeout", "crashed"]
DeviceKind = Literal["cpu", "cuda", "mps"]

_Record = TypeVar("_Record")


def make_sizes(values: Mapping[str, SizeValue]) -> Sizes:
    """The canonical form of a mapping of model-size knobs: pairs sorted by name."""
    return tuple(sorted(values.items()))


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _require_seconds(record: object, *names: str) -> None:
    for name in names:
        value = getattr(record, name)
        samples = (value,) if isinstance(value, int | float) else value
        _require(
            all(math.isfinite(x) and x >= 0 for x in samples),
            f"{name} must be finite and not negative",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSpec:
    """What of a data set decides cost: how many samples, of what shape and type.

    Attributes:
        samples: training samples.
        eval_samples: samples of the customary evaluation split; 0 if there is none.
        shape: of one stored sample, e.g. ``(28, 28)`` or ``(3, 32, 32)``; ``()`` where it varies.
        dtype: of one stored sample, by its torch name, e.g. ``"uint8"``.
        classes: number of classes, or the vocabulary size of a text data set; 0 if neither.
        unit: what a sample is: ``"image"``, ``"token"``, ``"row"``, …
        source: where the numbers come from.
    """

    name: str
    samples: int
    eval_samples: int = 0
    shape: tuple[int, ...]
    dtype: str
    classes: int = 0
    unit: str = "image"
    source: str

    def __post_init__(self) -> None:
        _require(self.samples > 0, f"samples must be positive, but got {self.samples}")
        _require(self.eval_samples >= 0, f"eval_samples must be >= 0, but got {self.eval_samples}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """One way to run a workload.

    Attributes:
        batch_size: samples that one forward pass sees on one device (the micro-batch).
        sizes: the workload's model-size knobs, all of them, defaults included.
        accumulation: micro-batches per optimizer step.
        precision: of autocast; ``"fp16"`` runs with a gradient scaler.
        compiled: whether the model runs under ``torch.compile``.
        workers: data-loader worker processes.
        world_size: devices that share the work.
        drop_last: whether the loader drops the last partial batch.
    """

    batch_size: int
    sizes: Sizes = ()
    accumulation: int = 1
    precision: Precision = "fp32"
    compiled: bool = False
    workers: int = 0
    world_size: int = 1
    drop_last: bool = False

    def __post_init__(self) -> None:
        for name in ("batch_size", "accumulation", "world_size"):
            value = getattr(self, name)
            _require(value >= 1, f"{name} must be at least 1, but got {value}")
        _require(self.workers >= 0, f"workers must be at least 0, but got {self.workers}")
        names = tuple(name for name, _ in self.sizes)
        _require(names == tuple(sorted(set(names))), "sizes must be sorted by name: use make_sizes")
        for name, value in self.sizes:
            finite = not isinstance(value, float) or math.isfinite(value)
            _require(finite, f"a size must be finite, but got {name}={value}")

    @property
    def period(self) -> int:
        """Micro-steps after which the loop repeats: optimizer updates and loader bursts aligned."""
        return math.lcm(self.accumulation, max(1, self.workers))

    @property
    def label(self) -> str:
        """A short name that tells this configuration from others: ``"batch_size=64 width=512"``."""
        parts = [f"batch_size={self.batch_size}"]
        parts += [f"{name}={value}" for name, value in self.sizes]
        for field in fields(self)[2:]:
            if getattr(self, field.name) != field.default:
                parts.append(f"{field.name}={getattr(self, field.name)}")
        return " ".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What a measurement was made on. Two devices with equal ``key`` are interchangeable.

    Attributes:
        memory_bytes: of the accelerator, or for a CPU the main memory this process may use.
        cuda: CUDA version that torch was built for; empty without one.
        threads: intra-operator CPU threads.
        clock_mhz: the clock reported when probing began; informative, not part of the key.
    """

    kind: DeviceKind
    name: str
    memory_bytes: int
    torch: str
    cuda: str = ""
    threads: int
    clock_mhz: float | None = None

    @property
    def key(self) -> str:
        """A short hash of all that must be equal for measurements to be pooled."""
        parts = (self.kind, self.name, self.memory_bytes, self.torch, self.cuda, self.threads)
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]

    @property
    def label(self) -> str:
        """For people: ``"Intel Xeon (cpu, 2 threads, torch 2.13.0)"``."""
        plural = "" if self.threads == 1 else "s"
        threads = f", {self.threads} thread{plural}" if self.kind == "cpu" else ""
        return f"{self.name} ({self.kind}{threads}, torch {self.torch})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """What one micro-step asks of any device, counted from its operators, not measured.

    Attributes:
        flops: floating-point operations of forward and backward; a multiply-add counts as two.
        bytes_moved: bytes read and written by all operators, views excluded.
        operators: dispatched operators of forward and backward.
        update_operators: dispatched operators of one optimizer update.
        parameters: parameters of the model, tied ones once.
        trainable_parameters: those that receive gradients.
        static_bytes: parameters, buffers and optimizer state, in memory at all times.
        step_peak_bytes: largest sum of live tensors during forward and backward.
        update_peak_bytes: largest sum of live tensors during the optimizer update.
        uncounted_operators: matrix-like operators without a FLOP formula, with how often each ran.
    """

    flops: int
    bytes_moved: int
    operators: int
    update_operators: int
    parameters: int
    trainable_parameters: int
    static_bytes: int
    step_peak_bytes: int
    update_peak_bytes: int
    uncounted_operators: tuple[tuple[str, int], ...] = ()

    @property
    def peak_bytes(self) -> int:
        """Largest sum of live tensors during one whole training step."""
        return max(self.step_peak_bytes, self.update_peak_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPeaks:
    """Peaks that the device itself reported during steady training steps, in bytes.

    Attributes:
        allocated_bytes: by the framework's allocator (accelerators only).
        reserved_bytes: held by the framework's allocator (accelerators only).
        device_bytes: what the device gave away: reserved plus context and libraries on an
            accelerator; the process's resident memory on a CPU.
        allocator_retries: times the allocator had to flush its cache to make room.
    """

    allocated_bytes: int | None = None
    reserved_bytes: int | None = None
    device_bytes: int
    allocator_retries: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One visit of one configuration in one worker process: raw samples, in the order taken.

    A measurement that did not succeed has a ``status`` other than ``"ok"``, a ``message``, and
    whatever had been measured by then. Lists may be empty: a measurement made elsewhere may know
    epoch times only.

    Attributes:
        workload: the name the user gave, e.g. ``"mnist-mlp"`` or ``"train.py:workload"``.
        source: fingerprint of the code that defined the workload.
        request: fingerprint of what was asked for; a sweep that continues looks for it.
        round: which pass over all configurations; every round is a fresh process.
        visit: position of this configuration within its process, from 0.
        samples: training samples per epoch.
        eval_samples: evaluation samples; 0 if the workload has no evaluation data.
        data: where the data came from, e.g. ``"synthetic"``.
        import_seconds: process start until torch, the device and the user's code are loaded.
        build_seconds: building model, data set and optimizer, and moving them to the device.
        warmup_seconds: micro-steps before the timing was stable, the first one first.
        step_seconds: steady micro-steps, data wait and (where due) optimizer update included.
        data_wait_seconds: the part of each steady micro-step spent waiting for its batch.
        update_seconds: the part of each steady micro-step spent in the optimizer's update; 0 where
            none was due. Empty where the step is the workload's own.
        steps_per_sample: micro-steps that each entry of the three series above is the mean of.
        loader_seconds: batches drawn from the loader alone, without computing.
        epoch_turn_seconds: end of one pass over the loader until the next pass's first batch.
        eval_batch_seconds: evaluation micro-steps, forward only.
        eval_turn_seconds: starting one pass over the evaluation loader until its first batch.
        save_seconds: writing one checkpoint (model and optimizer) durably to disk.
        save_bytes: size of that checkpoint.
        probe_seconds: wall-clock time this visit took, all of the above included.
        memory: what the device reported.
        footprint: what the operators say; absent where it could not be counted.
        trace: the torch.profiler trace, relative to the store's log folder.
        log: the worker's log file.
        created_at: when the visit ended, ISO 8601 in UTC.
    """

    schema: int = SCHEMA
    workload: str
    source: str = ""
    request: str = ""
    config: RunConfig
    device: Device
    status: Status = "ok"
    message: str = ""
    round: int = 0
    visit: int = 0
    samples: int
    eval_samples: int = 0
    data: str = ""
    import_seconds: float = 0.0
    build_seconds: float = 0.0
    warmup_seconds: tuple[float, ...] = ()
    step_seconds: tuple[float, ...] = ()
    data_wait_seconds: tuple[float, ...] = ()
    update_seconds: tuple[float, ...] = ()
    steps_per_sample: int = 1
    loader_seconds: tuple[float, ...] = ()
    epoch_turn_seconds: tuple[float, ...] = ()
    eval_batch_seconds: tuple[float, ...] = ()
    eval_turn_seconds: tuple[float, ...] = ()
    save_seconds: tuple[float, ...] = ()
    save_bytes: int = 0
    probe_seconds: float = 0.0
    memory: MemoryPeaks | None = None
    footprint: Footprint | None = None
    trace: str | None = None
    log: str | None = None
    created_at: str = ""

    def __post_init__(self) -> None:
        _require(self.schema <= SCHEMA, f"schema {self.schema} is newer than this epochcast reads")
        _require(self.samples >= 0, f"samples must be >= 0, but got {self.samples}")
        _require_seconds(self, *(f.name for f in fields(self) if f.name.endswith("_seconds")))
        if self.status == "ok":
            timed = bool(self.step_seconds) and min(self.step_seconds) > 0
            _require(timed, "a successful measurement needs step_seconds, all above 0")

    @property
    def key(self) -> str:
        """Identifies the visit: the same key measured again replaces the older measurement."""
        what = self.request or (self.config, self.data)
        parts = (self.workload, self.source, what, self.device.key, self.round)
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """All visits of one configuration as one row of a table; medians over visits.

    Attributes:
        visits: successful visits.
        step_seconds: one steady micro-step; None if no visit succeeded.
        step_spread: half the range of ``step_seconds`` over visits, relative to their median.
        samples_per_second: of one device, in steady training.
        data_wait_share: share of a step spent waiting for data.
        update_share: share of a step spent in the optimizer.
        loader_seconds: one batch from the loader alone.
        eval_seconds: one pass over the evaluation data.
        startup_seconds: process start until the first step can begin.
        first_steps_seconds: what the first steps took beyond steady ones.
        peak_bytes: largest sum of live tensors; None where it was not tracked.
        probe_seconds: wall-clock time of all visits, failed ones included.
    """

    workload: str
    config: RunConfig
    device: Device
    status: Status
    message: str = ""
    visits: int = 0
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantiles:
    """The 10th, 50th and 90th percentile of a quantity; its unit is in the name of the field."""

    p10: float
    p50: float
    p90: float

    def __post_init__(self) -> None:
        _require(self.p10 <= self.p50 <= self.p90, f"quantiles must be in order, but got {self}")

    def __add__(self, other: Quantiles) -> Quantiles:
        """The sum of two comonotone quantities: their quantiles add up (Dhaene et al. 2002)."""
        return Quantiles(
            p10=self.p10 + other.p10, p50=self.p50 + other.p50, p90=self.p90 + other.p90
        )

    def scaled(self, factor: float) -> Quantiles:
        """All quantiles times a factor that is not negative."""
        return Quantiles(p10=self.p10 * factor, p50=self.p50 * factor, p90=self.p90 * factor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Warning_:
    """Something the user should know; the text for each code lives in report.py."""

    code: str
    details: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """One term of a run's total time, e.g. all evaluations together.

    Attributes:
        count: how often it happens, e.g. 90 evaluations.
        seconds: all of them together.
        share: of the median total time, between 0 and 1.
    """

    name: str
    count: int
    seconds: Quantiles
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What one run is predicted to cost.

    Attributes:
        steps_per_epoch: optimizer steps of one epoch.
        step_seconds: one full micro-step.
        epoch_seconds: one steady epoch of training, evaluation and saves excluded.
        total_seconds: the run from process start to its end.
        peak_bytes: largest sum of live tensors on the device during training.
        device_bytes: what the device must have for that: caches, context and libraries included.
        cost: money, in the unit of the price; None without a price.
        probing_seconds: wall-clock time of all measurements behind this estimate.
        extrapolated: what lies outside the probed range, e.g. ``("batch_size",)``.
    """

    workload: str
    device: Device
    config: RunConfig
    samples: int
    epochs: float
    steps_per_epoch: int
    step_seconds: Quantiles
    epoch_seconds: Quantiles
    total_seconds: Quantiles
    terms: tuple[Term, ...]
    peak_bytes: Quantiles | None
    device_bytes: Quantiles | None
    cost: Quantiles | None
    probing_seconds: float
    extrapolated: tuple[str, ...] = ()
    warnings: tuple[Warning_, ...] = ()


def to_json(record: object) -> str:
    """A record as one line of JSON.

    Raises:
        StoreError: it holds what JSON cannot, such as a file name that is not Unicode.
    """
    try:
        return msgspec.json.encode(record).decode()
    except (UnicodeEncodeError, OverflowError) as error:
        raise StoreError(f"{type(record).__name__} cannot be written as JSON: {error}") from error


def from_json(text: str | bytes, kind: type[_Record]) -> _Record:
    """The record of type ``kind`` in a JSON document.

    Raises:
        StoreError: the document is not such a record, or of a newer schema.
    """
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.MsgspecError as error:
        _refuse_newer(text)  # first: it explains whatever else is unexpected
        raise StoreError(f"not a valid {kind.__name__}: {error}") from error


class _Head(msgspec.Struct):
    schema: int = SCHEMA


def _refuse_newer(text: str | bytes) -> None:
    try:
        head = msgspec.json.decode(text, type=_Head)
    except msgspec.MsgspecError:
        return
    if head.schema > SCHEMA:
        raise StoreError(
            f"written by a newer epochcast (schema {head.schema}, this one reads up to {SCHEMA}); "
            "run: pip install --upgrade epochcast"
        )


def to_builtins(record: object) -> Any:
    """A record as dictionaries, lists and numbers, for reports."""
    return msgspec.to_builtins(record)


def parse_size_value(text: str) -> SizeValue:
    """The value of a model-size knob as typed by a user: int, float, bool or else text."""
    lowered = text.strip().lower()
    if lowered in ("true", "false"):
        return lowered == "true"
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        if not math.isfinite(value):
            raise UsageError(f"a knob's value must be finite, but got {text!r}")
        return value
    return text.strip()
