"""What a sweep and its worker processes say to each other, one JSON document per line.

    sweep ── Task(describe | check | trial | trace | noise | dry-run | sequence) ──▶ worker
    sweep ◀── Reply(phase)* Reply(described | checked | measured | traced) ── worker
    sweep ◀── Reply(phase)* Reply(noise | counted | sequenced | failed) ── worker

A task is a serialisable specification and a worker's answer depends on nothing else, so that
another machine can run the same task.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

from epochcast.records import (
    Communication,
    Device,
    DeviceSequence,
    DeviceSpec,
    Footprint,
    GradientNoise,
    Measurement,
    RunConfig,
    Sharding,
    Sizes,
    SizeValue,
    Status,
    Warning_,
)
from epochcast.records.device_memory import SequenceSource

AUTO = "auto"  # the device: an accelerator if there is one
WHAT_IFS = ("checkpointing", "optimizer")  # overrides of a dry run alone: see what_if.py


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadSpec:
    """Where a workload comes from and what the user changed about it.

    Attributes:
        target: a built-in name, ``file.py:function`` or ``package.module:function``.
        data: folder of local data, handed to the function's ``data`` argument.
        overrides: attributes of the workload set by the user: accumulation, compile, drop_last,
            eval_batch_size, precision, workers; of a dry run also ``WHAT_IFS``.
        device: as torch names it, e.g. ``"cuda:1"``, or ``"auto"``.
        threads: intra-operator CPU threads; None leaves torch's choice.
    """

    target: str
    data: str | None = None
    overrides: tuple[tuple[str, SizeValue], ...] = ()
    device: str = "cpu"
    threads: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialSpec:
    """One configuration to measure.

    Attributes:
        workload: what is trained.
        sizes: a value for each model-size knob.
        batch_size: None is the workload's own, which is known once it was built.
        world_size: processes that train together, each with a device of its own.
        sharding: what they share.
        steady_seconds: how long steady steps are timed.
    """

    workload: WorkloadSpec
    sizes: Sizes = ()
    batch_size: int | None = None
    world_size: int = 1
    sharding: Sharding = "ddp"
    steady_seconds: float = 2.0

    @property
    def request(self) -> str:
        """Fingerprint of what is asked for, however long it is measured."""
        parts: tuple[object, ...] = (self.workload, self.sizes, self.batch_size)
        if self.ranks:
            parts = (*parts, self.world_size, self.sharding)
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

    @property
    def ranks(self) -> int:
        """Processes of a process group; 0 where there is none, as of a plain training."""
        return self.world_size if self.world_size > 1 or self.sharding == "fsdp" else 0

    @property
    def config(self) -> RunConfig:
        """As far as it is asked for; the workload decides on the rest.

        Raises:
            ValueError: the batch size is the workload's own.
        """
        if self.batch_size is None:
            raise ValueError("the workload's own batch size is not known before it is built")
        return RunConfig(
            batch_size=self.batch_size,
            sizes=self.sizes,
            world_size=self.world_size,
            sharding=self.sharding,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a worker is asked to do.

    Attributes:
        round: which pass over the configurations this is.
        trial: how many configurations this process has seen before.
        folder: where files may be written: checkpoints for a moment, traces for good.
        log: the log file of the process that runs this task.
        rank: of the process, where the spec is of several.
        meeting: file by which they find each other; its folder is theirs alone.
        batch_sizes: of a dry run, which builds the model once for all of them, instead of the
            spec's one; of a sequence, too.
        timeline: whether a dry run keeps every allocation.
        device: whose allocations a sequence has. Such a task must be a process's first, and those
            after it be of its kind.
        source: whose operators it follows.
    """

    kind: Literal["describe", "check", "trial", "trace", "noise", "dry-run", "sequence"]
    spec: TrialSpec
    round: int = 0
    trial: int = 0
    folder: str = ""
    log: str = ""
    rank: int = 0
    meeting: str = ""
    batch_sizes: tuple[int | None, ...] = ()
    timeline: bool = False
    device: DeviceSpec | None = None
    source: SequenceSource = "device"


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What a workload function says about itself before it is called.

    Attributes:
        knobs: its keyword arguments and their defaults.
        takes_data: whether it accepts a folder of local data.
        device_count: devices of that kind that this machine has; of a CPU its cores.
    """

    knobs: Sizes
    takes_data: bool
    source: str
    device: Device
    device_count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedWorkload:
    """What one first step showed: how the workload runs, or what is wrong.

    Attributes:
        config: None where the workload could not be built.
        problem: an error of the workload itself; probing it is pointless.
        fixed_batch: whether no other batch size can be probed, because the data makes the batches.
        trouble: any other error of this one configuration; the sweep will record it.
        warnings: what is doubtful about how it trains.
    """

    config: RunConfig | None = None
    samples: int = 0
    data: str = ""
    fixed_batch: bool = False
    problem: str = ""
    trouble: str = ""
    warnings: tuple[Warning_, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """One configuration that a dry run has counted; the rest as in ``Measurement``."""

    config: RunConfig
    footprint: Footprint
    data: str = ""
    samples: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a worker answers. ``kind`` says which of the other fields is set.

    Attributes:
        counted: of a dry run, in the order of the batch sizes, without those that the data set
            cannot fill; empty with a ``problem``.
        sequences: one for each batch size; empty with a ``problem``.
        communication: with ``"traced"``, of several ranks.
        problem: why the workload cannot be built, or not traced.
        error: with ``"failed"`` or a ``problem``, the name of the error's class.
    """

    kind: Literal[
        "phase",
        "described",
        "checked",
        "measured",
        "traced",
        "noise",
        "counted",
        "sequenced",
        "failed",
    ]
    text: str = ""
    error: str = ""
    described: Description | None = None
    checked: CheckedWorkload | None = None
    measured: Measurement | None = None
    communication: Communication | None = None
    noise: GradientNoise | None = None
    counted: tuple[Counted, ...] = ()
    sequences: tuple[DeviceSequence, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What became of a task.

    Attributes:
        task: as the worker was given it.
        reply: None where there is none.
        status: ``"timeout"``, ``"crashed"`` or ``"oom"`` where the worker died of it.
        message: why there is no reply.
        exit_code: of a worker that died; negative for a signal.
        error: where the worker says that the task cannot be done, the name of the error's class.
        node: of a cluster, where it was done; empty on this machine.
    """

    task: Task
    reply: Reply | None = None
    status: Status = "ok"
    message: str = ""
    exit_code: int = 0
    error: str = ""
    node: str = ""

    @property
    def is_good(self) -> bool:
        """Whether the worker can go on to another task."""
        measured = self.reply.measured if self.reply else None
        return self.reply is not None and (measured is None or measured.status == "ok")
