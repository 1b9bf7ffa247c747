"""What a training step asks of any device, counted instead of measured.

block    parameter  input  activation  gradient  other     a storage, made once, freed once
event    +1  +2  +3  −3  +4  …                             in the order they happen
live     ▁▂▃▅▇█▇▅▃▂▁ │ ▂▄▂                                 their running sum of bytes
          fwd   bwd    update
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import accumulate
from typing import Any, Literal

from epochcast.records.validation import require

BlockKind = Literal[
    "parameter",
    "buffer",
    "optimizer",
    "input",
    "activation",
    "gradient",
    "other",
    "kept",
    "workspace",
    "temporary",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """Every allocation and free of one optimizer step, in order.

    Attributes:
        block_bytes: size of each block (storage), in the order they appear.
        block_kinds: what each block is for. ``"activation"`` is made in the forward pass,
            ``"gradient"`` becomes a parameter's gradient, ``"other"`` is any other tensor. Only of
            a device's sequence: ``"kept"`` was made in an earlier step and is no state of an
            optimizer's, as averages of the weights, ``"workspace"`` is kept by a library for good,
            ``"temporary"`` is what a kernel takes inside itself.
        block_operators: position in ``operators`` of the operator that made the block; −1 for
            blocks that were there before the step.
        block_modules: position in ``modules`` of the module it was made in, likewise.
        operators, modules: their names.
        events: ``n + 1`` allocates block n, ``−(n + 1)`` frees it.
        forward_end, step_end: numbers of events at the end of the first forward pass and of the
            last backward pass; what follows is the optimizer's update.
    """

    block_bytes: tuple[int, ...]
    block_kinds: tuple[BlockKind, ...]
    block_operators: tuple[int, ...]
    block_modules: tuple[int, ...]
    operators: tuple[str, ...]
    modules: tuple[str, ...]
    events: tuple[int, ...]
    forward_end: int
    step_end: int

    def __post_init__(self) -> None:
        count = len(self.block_bytes)
        columns = (self.block_kinds, self.block_operators, self.block_modules)
        require(all(len(c) == count for c in columns), "every block needs a size, kind and origin")
        require(all(0 < abs(e) <= count for e in self.events), "an event names an unknown block")
        require(
            0 <= self.forward_end <= self.step_end <= len(self.events),
            "forward_end, step_end and the number of events must be in order",
        )

    def live_bytes(self, granularity: int = 1) -> tuple[int, ...]:
        """Bytes alive after each event.

        Args:
            granularity: to which an allocator rounds every block up; 512 for CUDA's
                (pytorch, c10/cuda/CUDACachingAllocator.cpp, ``kMinBlockSize``).
        """
        sizes = [-(-size // granularity) * granularity for size in self.block_bytes]
        return tuple(accumulate(sizes[e - 1] if e > 0 else -sizes[-e - 1] for e in self.events))

    def peak_bytes(self, granularity: int = 1) -> int:
        """Largest ``live_bytes``."""
        return max(self.live_bytes(granularity), default=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """What one micro-step asks of any device, counted from its operators, not measured.

    Attributes:
        flops: floating-point operations of forward and backward; a multiply-add counts as two.
        flops_by_class: the same by class of operator, ``"matmul"``, ``"convolution"``,
            ``"attention"`` or ``"recurrent"``; empty where nobody told them apart.
        flops_by_module: the same by the module at work; only beside a timeline.
        aligned_flops: FLOPs with channels and inner dimensions rounded up to multiples of
            eight, as kernels work through them; 0 if unknown.
        bytes_moved: bytes read and written by all operators, views excluded.
        operators: dispatched operators of forward and backward.
        forward_operators: those of the forward pass alone; 0 if unknown.
        update_operators: dispatched operators of one optimizer update.
        parameters: parameters of the model, tied ones once.
        trainable_parameters: those that receive gradients.
        parameter_bytes, optimizer_bytes: in memory at all times.
        gradient_bytes: of all parameters' gradients together.
        activation_bytes: alive when the forward pass ends, beyond what is always there and the
            batch itself.
        static_bytes: parameters, buffers and optimizer state, in memory at all times.
        step_peak_bytes: largest sum of live tensors during forward and backward.
        update_peak_bytes: largest sum of live tensors during the optimizer update.
        eval_peak_bytes: largest sum of live tensors while a batch is evaluated, optimizer state
            included; 0 where none is, or where it could not be counted.
        reserve_bytes: what torch's caching allocator would hold of a CUDA device at most, for three
            such steps; simulated, 0 if unknown.
        batch_elements: elements of all tensors of the batch, padding included.
        uncounted_operators: matrix-like operators without a FLOP formula, with how often each ran.
        timeline: all allocations; only where a dry run was asked for it.
        unknown: counts that nobody made, by name; they are 0 here, and ``count`` tells them apart.
    """

    flops: int
    flops_by_class: tuple[tuple[str, int], ...] = ()
    flops_by_module: tuple[tuple[str, int], ...] = ()
    aligned_flops: int = 0
    bytes_moved: int
    operators: int
    forward_operators: int = 0
    update_operators: int
    parameters: int
    trainable_parameters: int
    parameter_bytes: int = 0
    gradient_bytes: int = 0
    optimizer_bytes: int = 0
    activation_bytes: int = 0
    static_bytes: int
    step_peak_bytes: int
    update_peak_bytes: int
    eval_peak_bytes: int = 0
    reserve_bytes: int = 0
    batch_elements: int = 0
    uncounted_operators: tuple[tuple[str, int], ...] = ()
    timeline: Timeline | None = None
    unknown: tuple[str, ...] = ()

    @classmethod
    def of_counts(cls, **known: int) -> Footprint:
        """A footprint of which only some counts are known."""
        counts = [f.name for f in fields(cls) if f.type == "int"]  # annotations are text
        unknown = tuple(name for name in counts if name not in known)
        values: dict[str, Any] = {**dict.fromkeys(unknown, 0), **known}
        return cls(**values, unknown=unknown)

    def count(self, name: str) -> int | None:
        """A count by its name, or ``"peak_bytes"``; None if it is not known."""
        parts = ("step_peak_bytes", "update_peak_bytes") if name == "peak_bytes" else (name,)
        known = not all(part in self.unknown for part in parts)
        return int(getattr(self, name)) if known else None

    @property
    def peak_bytes(self) -> int:
        """Largest sum of live tensors during one whole training step."""
        return max(self.step_peak_bytes, self.update_peak_bytes)

    @property
    def run_peak_bytes(self) -> int:
        """The same of a run, which evaluates, too."""
        return max(self.peak_bytes, self.eval_peak_bytes)
