"""What a device must have so that a training runs on it, and what fills it.

live tensors ─ rounding ─▶ allocated ─ cached, fragmented ─▶ reserved ─ context ─▶ device bytes
└ by kind, module, operator, the largest by name            └ simulated            └ quantiles
"""

from __future__ import annotations

from dataclasses import dataclass

from epochcast.records.configuration import RunConfig
from epochcast.records.device_memory import DeviceSpec, SequenceSource
from epochcast.records.estimate import Quantiles
from epochcast.records.validation import require


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A part of the memory at the peak, by a name."""

    name: str
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveTensor:
    """A block that is in use at the peak.

    Attributes:
        bytes: asked for.
        count: of such blocks: equal in all that follows.
        kind: what it is for.
        operator, module, line: that made it; empty where nothing is known.
    """

    bytes: int
    count: int
    kind: str
    operator: str = ""
    module: str = ""
    line: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryCurve:
    """Memory along the last step, thinned: each point is the highest of a stretch of events.

    Attributes:
        kinds: names of the columns of ``live``.
        live: bytes in use, point by point and kind by kind.
        reserved: bytes of the device that the allocator holds.
        moments: where parts of the step begin: a name and the number of a point.
    """

    kinds: tuple[str, ...]
    live: tuple[tuple[int, ...], ...]
    reserved: tuple[int, ...]
    moments: tuple[tuple[str, int], ...]

    def __post_init__(self) -> None:
        require(len(self.live) == len(self.reserved), "a curve needs both of every point")
        require(all(len(row) == len(self.kinds) for row in self.live), "a point needs every kind")


@dataclass(frozen=True, slots=True, kw_only=True)
class Unseen:
    """Bytes that cannot be known without the device: an interval, and the reason.

    Attributes:
        name: what takes them, e.g. an operator.
        times: how often it does.
        low_bytes, high_bytes: of the largest of them.
    """

    name: str
    times: int
    low_bytes: int
    high_bytes: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceNeed:
    """Of one configuration on one device.

    Attributes:
        device: its memory is the limit.
        used_bytes: of it, by other processes.
        confidence: with which it shall fit.
        allocated_bytes: peak of blocks in use, as ``torch.cuda.max_memory_allocated`` counts them.
        reserved_bytes: peak of what the allocator holds (``max_memory_reserved``).
        outside_bytes: context, kernels and libraries beside it.
        device_bytes: what must be there: reserved and outside.
        needed_bytes: the same at the confidence asked for.
        probability: that it fits.
        retries: times that all cached memory has to be released for it to run in what there is; 0
            where there is room, None where it does not run.
        moment: part of the step in which the peak comes, and the operator at work.
        kinds, modules, operators: what is in use at the peak; kinds also name what is not in use.
        tensors: the largest of it.
        unseen: what only the device knows.
        source: ``"device"`` where the device's own kernels were followed, ``"cpu"`` where the
            CPU's were.
        remarks: sentences on how it was counted.
        flops: of forward and backward; 0 if unknown.
        seconds: that finding this out took.
    """

    config: RunConfig
    device: DeviceSpec
    used_bytes: int = 0
    confidence: float = 0.95
    allocated_bytes: Quantiles
    reserved_bytes: Quantiles
    outside_bytes: Quantiles
    device_bytes: Quantiles
    needed_bytes: int
    probability: float
    retries: int | None = 0
    moment: str = ""
    kinds: tuple[Share, ...] = ()
    modules: tuple[Share, ...] = ()
    operators: tuple[Share, ...] = ()
    tensors: tuple[LiveTensor, ...] = ()
    curve: MemoryCurve | None = None
    unseen: tuple[Unseen, ...] = ()
    source: SequenceSource = "device"
    remarks: tuple[str, ...] = ()
    flops: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        require(0.0 < self.confidence < 1.0, "confidence must be between 0 and 1")
        require(0.0 <= self.probability <= 1.0, "probability must be between 0 and 1")

    @property
    def free_bytes(self) -> int:
        """What there is for it."""
        return max(0, self.device.memory_bytes - self.used_bytes)

    @property
    def fits(self) -> bool:
        """With the confidence asked for."""
        return self.needed_bytes <= self.free_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class LargestValue:
    """The largest value of a knob, or batch size, with which a training fits.

    Attributes:
        name: of the knob, or ``"batch_size"``.
        value: None where not even the smallest fits.
        step: to the next value that was tried.
        need: at that value; None where there is none.
        above: one step above; None where that cannot be built, or the data set cannot fill it.
        why_ended: in words where ``above`` is None.
    """

    name: str
    value: int | None
    step: int
    need: DeviceNeed | None = None
    above: DeviceNeed | None = None
    why_ended: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """A what-if beside what is.

    Attributes:
        changes: name and value of what is changed; empty of what is.
        need: then; None where it cannot be built or followed.
        problem: why, where there is no ``need``.
        largest_batch: that fits then; None where that was not found out, or none does.
    """

    changes: tuple[tuple[str, str], ...]
    need: DeviceNeed | None = None
    problem: str = ""
    largest_batch: int | None = None
