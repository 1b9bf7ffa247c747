"""The blocks of a CUDA device: tensors' storages, and what kernels and libraries take besides.

storages      as in allocations.py; an empty one takes nothing
take, give    a workspace, for good; scratch of a kernel, for a moment
unsure        an interval where nobody can know without the device
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from epochcast.profiler.footprint.allocations import Allocations
from epochcast.records import DeviceSequence, DeviceSpec, Moment, StepMark, UnknownBytes
from epochcast.records.device_memory import SequenceSource
from epochcast.records.footprint import BlockKind

_DEFAULT_STREAM = 0


class DeviceBlocks(Allocations):
    """Writes down the blocks of a device, with the line of the user's code that made each.

    Args:
        line: the user's line at work.
        device_type: whose storages are counted.
    """

    def __init__(self, line: Callable[[], str | None], device_type: str = "cuda") -> None:
        super().__init__(device_type)
        self.marks: list[StepMark] = []
        self._line = line
        self._lines: list[str | None] = []
        self._unknown: list[UnknownBytes] = []
        self._kept: set[str] = set()

    def mark(self, moment: Moment, step: int) -> None:
        """What follows belongs to another part of a step."""
        self.marks.append(StepMark(moment=moment, step=step, position=len(self.events)))

    def take(self, size: int, operator: str, kind: BlockKind = "temporary") -> int:
        """Allocate what no tensor holds; its block.

        Args:
            size: bytes, more than none.
            operator: that takes it.
            kind: what it is for.
        """
        return self._open(size, kind, operator, None)

    def give(self, block: int) -> None:
        """Free what was taken."""
        self._free(block)

    def scratch(self, sizes: Iterable[int], operator: str) -> None:
        """Take all of these, then give them back, the last one first."""
        taken = [self.take(size, operator) for size in sizes if size > 0]
        for block in reversed(taken):
            self.give(block)

    def keep(self, name: str, size: int, operator: str) -> int | None:
        """Allocate what a library takes once for good; its block, None if it was there, or is
        nothing.

        Args:
            name: of what is taken.
            size: bytes.
            operator: that needs it first.
        """
        if name in self._kept or not size:
            return None
        self._kept.add(name)
        return self.take(size, operator, "workspace")

    def unsure(
        self, low: int, high: int, operator: str, reason: str, block: int | None = None
    ) -> None:
        """Only bounds are known of what an operator takes now, or of a block's size.

        Args:
            low: bytes at least; those of the block, if it is one.
            high: bytes at most.
            operator: that takes it.
            reason: why nobody can know, as a sentence.
            block: whose size it is; None if it is given back at once.
        """
        self._unknown.append(
            UnknownBytes(
                position=len(self.events),
                block=0 if block is None else block + 1,
                low_bytes=low,
                high_bytes=max(low, high),
                operator=operator,
                reason=reason,
            )
        )

    def block_of(self, tensor: Tensor) -> int:
        """The block of a tensor that is watched and not empty."""
        return self._alive[tensor.untyped_storage()._cdata][1]

    def name(self, tensors: Iterable[Tensor], module: str) -> None:
        """Say to which module the blocks of some tensors belong."""
        for storage in self._storages(tensors):
            self._modules[self._alive[storage._cdata][1]] = module

    def sequence(
        self,
        device: DeviceSpec,
        *,
        source: SequenceSource = "device",
        remarks: tuple[str, ...] = (),
    ) -> DeviceSequence:
        """All of it as a record.

        Args:
            device: for which it was made.
            source: whose operators were followed.
            remarks: sentences on what was not followed.
        """
        timeline = self.timeline(0, 0)
        lines: dict[str, int] = {}
        positions = [
            -1 if line is None else lines.setdefault(line, len(lines)) for line in self._lines
        ]
        return DeviceSequence(
            device=device,
            block_bytes=timeline.block_bytes,
            block_kinds=timeline.block_kinds,
            block_streams=(_DEFAULT_STREAM,) * len(timeline.block_bytes),
            block_operators=timeline.block_operators,
            block_modules=timeline.block_modules,
            block_lines=tuple(positions),
            operators=timeline.operators,
            modules=timeline.modules,
            lines=tuple(lines),
            events=timeline.events,
            marks=tuple(self.marks),
            unknown=tuple(self._unknown),
            source=source,
            remarks=remarks,
        )

    def _storages(self, tensors: Iterable[Tensor]) -> Iterator[torch.UntypedStorage]:
        """An allocator never hears of an empty storage; one that was emptied is freed."""
        for storage in super()._storages(tensors):
            if storage.nbytes() > 0:
                yield storage
            elif storage._cdata in self._alive:
                self._forget(storage._cdata, None)

    def _open(self, size: int, kind: BlockKind, operator: str | None, module: str | None) -> int:
        self._lines.append(self._line())
        return super()._open(size, kind, operator, module)
