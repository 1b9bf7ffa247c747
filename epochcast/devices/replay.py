"""A training's allocations through the simulated allocator: peaks, and what is in use then.

    DeviceSequence ──replay──▶ Replayed: allocated and reserved at most, event by event if asked
                 ──between──▶ the same at another batch size, from two that were followed
                 ──at_peak──▶ the blocks in use at the peak

A real run differs from the sequence in what nobody saw (``UnknownBytes``) and in the addresses
that the driver gives segments, which decide between free blocks of one size. ``Variation`` is one
way in which both may have come out.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby

from epochcast.devices.allocator_settings import AllocatorSettings
from epochcast.devices.blocks import Block
from epochcast.devices.caching_allocator import (
    FIRST_ADDRESS,
    CachingAllocator,
    OutOfDeviceMemory,
)
from epochcast.records import DeviceSequence, UnknownBytes

ADDRESS_SLOTS, ADDRESS_SPAN = 2**14, 2**43  # more than segments, wider than any of them


@dataclass(frozen=True, slots=True)
class Variation:
    """One way in which what is not known may come out.

    Attributes:
        levels: where in their intervals unknown numbers of bytes lie, 0 to 1: one for each group
            of ``unknown_groups``, or a single one for all.
        seed: of the order of segments' addresses; 0 has them rise.
    """

    levels: tuple[float, ...] = (0.0,)
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What the allocator did.

    Attributes:
        allocated_bytes, reserved_bytes: at most, as torch counts them.
        requested_bytes: in use when most is allocated, without rounding.
        peak: number of events when most is allocated.
        retries: times that all cached memory was released for a request.
        reserved: after each event, where it was asked for.
        sizes: bytes of each block, rounded; 0 of blocks that were never made.
    """

    allocated_bytes: int
    reserved_bytes: int
    requested_bytes: int
    peak: int
    retries: int
    reserved: tuple[int, ...] = ()
    sizes: tuple[int, ...] = ()


def replay(
    sequence: DeviceSequence,
    settings: AllocatorSettings | None = None,
    *,
    capacity: int | None = None,
    variation: Variation | None = None,
    history: bool = False,
) -> Replayed:
    """Run a sequence through the allocator.

    Args:
        sequence: of which every event is replayed.
        settings: of the allocator; torch's own if not given.
        capacity: bytes that the device can give; without end if not given.
        variation: how what is not known came out; as little as can be if not given.
        history: keep what is reserved after each event.

    Raises:
        OutOfDeviceMemory: it does not run in the capacity.
    """
    chosen = variation or Variation()
    address = _shuffled(chosen.seed) if chosen.seed else None
    allocator = CachingAllocator(capacity, settings, address=address)
    came_out = _outcomes(sequence, chosen.levels)
    sizes = _sizes(sequence, came_out)
    moments = _momentary(sequence, came_out)
    blocks: list[Block | None] = [None] * len(sizes)
    made = [0] * len(sizes)
    most = peak = requested = 0
    reserved: list[int] = []
    for position, event in enumerate(sequence.events):
        for size in moments.get(position, ()):
            allocator.free(allocator.malloc(size))
        if event > 0:
            block = allocator.malloc(sizes[event - 1], sequence.block_streams[event - 1])
            blocks[event - 1], made[event - 1] = block, block.size
            if allocator.allocated.current > most:
                most, peak = allocator.allocated.current, position + 1
                requested = allocator.requested.current
        elif (freed := blocks[-event - 1]) is not None:
            allocator.free(freed)
            blocks[-event - 1] = None
        if history:
            reserved.append(allocator.reserved.current)
    return Replayed(
        allocated_bytes=allocator.allocated.peak,
        reserved_bytes=allocator.reserved.peak,
        requested_bytes=requested,
        peak=peak,
        retries=allocator.retries,
        reserved=tuple(reserved),
        sizes=tuple(made),
    )


def step_reserve(
    block_bytes: Sequence[int],
    events: Sequence[int],
    lasting: Sequence[int],
    states: Sequence[int],
    workspace: int,
) -> int:
    """What the allocator holds at most for three steps like one that was tracked.

    Args:
        block_bytes: of all blocks.
        events: of one step: ``n + 1`` allocates block n, ``−(n + 1)`` frees it.
        lasting: numbers of the blocks that are there before it and stay: parameters, buffers.
        states: those of the optimizer, which appear in the update of the first step.
        workspace: of cuBLAS, which the forward and the backward pass have one of each.
    """
    allocator = CachingAllocator()
    kept = {*lasting, *states}
    for block in lasting:
        _make(allocator, block_bytes[block])
    for step in (1, 2, 3):
        alive: dict[int, Block | None] = {}
        for event in events:
            block = abs(event) - 1
            if block in kept:
                continue
            if event > 0:
                alive[block] = _make(allocator, block_bytes[block])
            elif (freed := alive.pop(block, None)) is not None:
                allocator.free(freed)
        for _ in range(2 if step == 1 else 0):
            _make(allocator, workspace)
        for left in alive.values():
            if left is not None:
                allocator.free(left)  # gradients: zero_grad sets them to None
        for block in states if step == 1 else ():
            _make(allocator, block_bytes[block])
    return allocator.reserved.peak


def _make(allocator: CachingAllocator, size: int) -> Block | None:
    return allocator.malloc(size) if size else None


def runs_in(
    sequence: DeviceSequence, capacity: int, settings: AllocatorSettings | None = None
) -> int | None:
    """Times that the allocator has to release everything so that it runs; None if it does not.

    Args:
        sequence: of all allocations.
        capacity: bytes that the device can give to the allocator.
        settings: of the allocator.
    """
    try:
        return replay(
            sequence, settings, capacity=capacity, variation=Variation(levels=(0.5,))
        ).retries
    except OutOfDeviceMemory:
        return None


def blocks_in_use(sequence: DeviceSequence, position: int) -> list[int]:
    """The numbers of the blocks alive after so many events."""
    alive: dict[int, None] = {}
    for event in sequence.events[:position]:
        if event > 0:
            alive[event - 1] = None
        else:
            alive.pop(-event - 1, None)
    return [*alive]


def between(
    low: DeviceSequence, high: DeviceSequence, batch_sizes: tuple[int, int], batch_size: int
) -> DeviceSequence | None:
    """The sequence at another batch size: every size on the line through two that were followed.

    Args:
        low, high: the same training at two batch sizes.
        batch_sizes: of the two.
        batch_size: wanted.

    Returns:
        None where the two are not one sequence of events.
    """
    if low.block_kinds != high.block_kinds or _order(low) != _order(high):
        return None
    share = (batch_size - batch_sizes[0]) / (batch_sizes[1] - batch_sizes[0])

    def at(a: int, b: int, least: int = 1) -> int:
        return max(least, round(a + (b - a) * share))

    def unknown(a: UnknownBytes, b: UnknownBytes) -> UnknownBytes:
        least, most = at(a.low_bytes, b.low_bytes, 0), at(a.high_bytes, b.high_bytes, 0)
        return replace(a, low_bytes=least, high_bytes=max(least, most))

    same = len(low.unknown) == len(high.unknown)
    pairs = zip(low.unknown, high.unknown, strict=True) if same else ()
    return replace(
        low,
        block_bytes=tuple(map(at, low.block_bytes, high.block_bytes)),
        unknown=tuple(unknown(a, b) for a, b in pairs) if same else high.unknown,
    )


def _order(sequence: DeviceSequence) -> list[int]:
    """The events, except that what is freed between two allocations has no order."""
    runs = groupby(sequence.events, key=lambda event: event > 0)
    return [event for made, run in runs for event in (run if made else sorted(run))]


def unknown_groups(sequence: DeviceSequence) -> list[int]:
    """The group of each unknown number of bytes, numbered as they appear: those of one operator
    with one interval come out alike, as the same layer of a network does each time."""
    numbers: dict[tuple[str, int, int], int] = {}
    keys = [(u.operator, u.low_bytes, u.high_bytes) for u in sequence.unknown]
    return [numbers.setdefault(key, len(numbers)) for key in keys]


def _outcomes(sequence: DeviceSequence, levels: Sequence[float]) -> list[int]:
    """Bytes of each unknown number."""
    groups = unknown_groups(sequence) if len(levels) > 1 else [0] * len(sequence.unknown)
    return [
        round(u.low_bytes + levels[group] * (u.high_bytes - u.low_bytes))
        for u, group in zip(sequence.unknown, groups, strict=True)
    ]


def _sizes(sequence: DeviceSequence, came_out: Sequence[int]) -> Sequence[int]:
    """Of all blocks, with those that were not known."""
    if not any(u.block for u in sequence.unknown):
        return sequence.block_bytes
    sizes = [*sequence.block_bytes]
    for u, size in zip(sequence.unknown, came_out, strict=True):
        if u.block:
            sizes[u.block - 1] = max(1, size)
    return sizes


def _momentary(sequence: DeviceSequence, came_out: Sequence[int]) -> dict[int, list[int]]:
    """Position → bytes that an operator takes there for a moment."""
    found: dict[int, list[int]] = {}
    for u, size in zip(sequence.unknown, came_out, strict=True):
        if not u.block and size:
            found.setdefault(u.position, []).append(size)
    return found


def _shuffled(seed: int) -> Callable[[int], int]:
    """Addresses in no order. Segments lie far apart, and never touch."""
    slots = reversed(_slots(seed))
    return lambda _: FIRST_ADDRESS + next(slots) * ADDRESS_SPAN


@cache
def _slots(seed: int) -> tuple[int, ...]:
    """Shuffling takes as long as a replay, and there are hundreds with the same few seeds."""
    slots = list(range(ADDRESS_SLOTS))
    random.Random(seed).shuffle(slots)
    return tuple(slots)
