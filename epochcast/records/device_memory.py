"""A device, and everything that a training run allocates on it, in order, from the model on.

    build        batch  forward     backward     update  │ batch  forward     backward     update
    +1 +2 +3 …   +90    +91 +92 …   +150 −149 …  +200 …  │ …
    └ the model         └─ step 1: optimizer state appears  └─ step 2: as all that follow

Sizes are those that are asked for; what an allocator makes of them (rounding, segments, what it
keeps) is the business of whoever replays the sequence.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from epochcast.records.configuration import RunConfig
from epochcast.records.footprint import BlockKind
from epochcast.records.validation import require

Moment = Literal["build", "batch", "forward", "backward", "update", "evaluate"]
SequenceSource = Literal["device", "cpu"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSpec:
    """A CUDA device, as far as the memory of a training depends on it.

    Attributes:
        name: as people call it, e.g. ``"a100-40gb"``.
        memory_bytes: as CUDA reports it (``total_memory``), not as the label says.
        capability: compute capability, e.g. ``(8, 0)``.
        multiprocessors: streaming multiprocessors (``multi_processor_count``).
        threads_per_multiprocessor: at once (``max_threads_per_multi_processor``).
    """

    name: str
    memory_bytes: int
    capability: tuple[int, int]
    multiprocessors: int
    threads_per_multiprocessor: int

    def __post_init__(self) -> None:
        require(self.memory_bytes > 0, "memory_bytes must be positive")
        require(min(self.capability) >= 0, "capability must not be negative")
        require(
            min(self.multiprocessors, self.threads_per_multiprocessor) > 0,
            "multiprocessors and threads_per_multiprocessor must be positive",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StepMark:
    """Where a part of the sequence begins.

    Attributes:
        moment: which part. ``"build"`` comes once, ``"batch"``, ``"forward"`` and ``"backward"``
            once for each micro-step, ``"update"`` once a step. ``"evaluate"`` comes last: one
            batch of the evaluation data, where there is any.
        step: of the optimizer, counted from 1; 0 for the build.
        position: number of events before it.
    """

    moment: Moment
    step: int
    position: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownBytes:
    """What cannot be known without the device: an interval of bytes and its reason.

    Attributes:
        position: number of events before it. Where ``block`` is 0, an operator takes the bytes
            here for a moment.
        block: number of the block (from 1) whose size it is; 0 for none. The sequence has the
            block with ``low_bytes``.
        low_bytes, high_bytes: the least and the most.
        operator: that takes them.
        reason: why they are not known, as a sentence.
    """

    position: int
    block: int = 0
    low_bytes: int
    high_bytes: int
    operator: str
    reason: str

    def __post_init__(self) -> None:
        require(0 <= self.low_bytes <= self.high_bytes, "low_bytes must not exceed high_bytes")
        require(self.position >= 0 and self.block >= 0, "no position or block is negative")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSequence:
    """Every allocation and free on a device, in order, of two whole optimizer steps, and of one
    batch that is evaluated after them.

    Attributes:
        device: for which it was made.
        block_bytes: bytes requested for each block, in the order they appear; none is 0.
        block_kinds: what each is for.
        block_streams: number of the CUDA stream each is allocated on; 0 is the default one.
        block_operators, block_modules, block_lines: positions in ``operators``, ``modules`` and
            ``lines`` of what made it; −1 where nothing is known.
        operators, modules: names.
        lines: lines of the user's code, ``file.py:12``.
        events: ``n + 1`` allocates block n, ``−(n + 1)`` frees it.
        marks: where the parts of the steps begin, in order.
        unknown: what only the device knows.
        source: ``"device"`` where the device's own kernels were followed, ``"cpu"`` where the
            CPU's were and rules translated what they keep.
        remarks: sentences on what was not followed, and why.
        flops_by_module: floating-point operations of a micro-step's forward and backward pass by
            the module at work; a multiply-add counts as two.
        config: that was followed; None where nobody noted it.
        samples: of the training data; 0 where nobody noted them.
    """

    device: DeviceSpec
    block_bytes: tuple[int, ...]
    block_kinds: tuple[BlockKind, ...]
    block_streams: tuple[int, ...]
    block_operators: tuple[int, ...]
    block_modules: tuple[int, ...]
    block_lines: tuple[int, ...]
    operators: tuple[str, ...]
    modules: tuple[str, ...]
    lines: tuple[str, ...]
    events: tuple[int, ...]
    marks: tuple[StepMark, ...]
    unknown: tuple[UnknownBytes, ...] = ()
    source: SequenceSource = "device"
    remarks: tuple[str, ...] = ()
    flops_by_module: tuple[tuple[str, int], ...] = ()
    config: RunConfig | None = None
    samples: int = 0

    def __post_init__(self) -> None:
        count, columns = len(self.block_bytes), (self.block_kinds, self.block_streams)
        origins = (self.block_operators, self.block_modules, self.block_lines)
        require(all(len(c) == count for c in (*columns, *origins)), "every block needs an origin")
        require(all(size > 0 for size in self.block_bytes), "no allocation is of 0 bytes")
        require(all(0 < abs(e) <= count for e in self.events), "an event names an unknown block")
        positions = [mark.position for mark in self.marks]
        require(positions == sorted(positions), "marks must be in order")

    @property
    def flops(self) -> int:
        """Of all modules."""
        return sum(flops for _, flops in self.flops_by_module)

    def live_bytes(self, granularity: int = 1) -> tuple[int, ...]:
        """Bytes alive after each event.

        Args:
            granularity: to which an allocator rounds every block up; 512 for CUDA's.
        """
        sizes = [-(-size // granularity) * granularity for size in self.block_bytes]
        return tuple(accumulate(sizes[e - 1] if e > 0 else -sizes[-e - 1] for e in self.events))

    def peak_bytes(self, granularity: int = 1) -> int:
        """Largest ``live_bytes``."""
        return max(self.live_bytes(granularity), default=0)
