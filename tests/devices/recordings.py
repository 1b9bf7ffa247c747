"""Recorded histories of a real caching allocator, as data to replay.

Files are packed without stack frames: events ``[action, address, size, stream, time, …]`` in their
order, and the segments at the end with their blocks ``[address, size, requested, state]``. A
history that began late is wound back from its end to the state before its first event.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from epochcast.devices.allocator_settings import AllocatorSettings, parse_settings
from epochcast.devices.blocks import Block, ExpandableSegment
from epochcast.devices.caching_allocator import (
    SMALL_REQUEST,
    CachingAllocator,
    OutOfDeviceMemory,
    round_size,
)

BEYOND = 2**42  # bytes of addresses of an expandable segment, more than any device has
GROWS = ("segment_alloc", "segment_map")
ALIVE = ("active_allocated", "active_pending_free", "active_awaiting_free")


@dataclass
class Recording:
    """A history, and where it came from."""

    name: str
    settings: AllocatorSettings
    events: list[list[Any]]
    segments: list[dict[str, Any]]


@dataclass
class Replay:
    """How a simulation went through a history.

    Attributes:
        unlike: segments asked for at another moment or of another size than recorded.
        exhausted: requests for which there was no memory, recorded or not.
        addresses: that were as recorded, and others.
    """

    allocator: CachingAllocator
    unlike: int = 0
    exhausted: int = 0
    segments: int = 0
    same_addresses: int = 0
    other_addresses: int = 0
    frees: list[int] = field(default_factory=list)


def read_recording(path: Path) -> Recording:
    with gzip.open(path, "rt") as file:
        document = json.load(file)
    settings = document["allocator_settings"] or {}
    conf = settings.get("PYTORCH_CUDA_ALLOC_CONF", "")
    return Recording(path.name, parse_settings(conf), document["events"], document["segments"])


@dataclass
class _State:
    """Segments by address, and what lives in them: address → size of the block, and asked for."""

    segments: dict[int, tuple[int, int, bool, bool]]
    alive: dict[int, tuple[int, int]]


def _final(recording: Recording) -> _State:
    segments, alive = {}, {}
    for s in recording.segments:
        small = s["type"] == "small"
        segments[s["address"]] = s["total_size"], s["stream"], small, s.get("expandable", False)
        for address, size, requested, state in s["blocks"]:
            if state in ALIVE:
                alive[address] = size, requested
    return _State(segments, alive)


def initial_state(recording: Recording) -> _State:
    """Wound back from the end."""
    state = _final(recording)
    for action, address, size, *_ in reversed(recording.events):
        if action == "alloc":
            state.alive.pop(address, None)
        elif action == "free_completed":
            state.alive[address] = round_size(size, recording.settings), size
        elif action == "segment_alloc":
            state.segments.pop(address)
        elif action == "segment_free":
            state.segments[address] = size, 0, size <= 2 * SMALL_REQUEST, False
        elif action == "segment_map":
            start = max(first for first in state.segments if first <= address)
            mapped, *rest = state.segments.pop(start)
            if mapped > size:
                state.segments[start] = mapped - size, *rest
    return state


def adopt(allocator: CachingAllocator, state: _State) -> dict[int, Block]:
    """Put an allocator into a state; its live blocks by address."""
    found: dict[int, Block] = {}
    ordered = sorted(state.alive)
    for start, (size, stream, small, expandable) in state.segments.items():
        inside = [a for a in ordered if start <= a < start + size]
        cuts: list[tuple[int, int, int]] = []  # address, size, requested; −1 is free
        position = start
        for address in inside:
            if address > position:
                cuts.append((position, address - position, -1))
            length, requested = state.alive[address]
            cuts.append((address, length, requested))
            position = address + length
        if position < start + size:
            cuts.append((position, start + size - position, -1))
        _chain(allocator, cuts, stream, small, expandable, found)
        allocator.reserved.change(size)
    return found


def _chain(
    allocator: CachingAllocator,
    cuts: list[tuple[int, int, int]],
    stream: int,
    small: bool,
    expandable: bool,
    found: dict[int, Block],
) -> None:
    pool = allocator.pools[small]
    previous: Block | None = None
    page = 2 * SMALL_REQUEST if small else 20 * SMALL_REQUEST
    segment = ExpandableSegment(cuts[0][0], BEYOND, page) if expandable else None
    for address, size, requested in cuts:
        rest_of_block = previous is not None and previous.allocated and requested < 0
        if rest_of_block and not small and not expandable and size <= SMALL_REQUEST:
            # too little to have been split off: it belongs to the block before it
            assert previous is not None
            previous.size += size
            continue
        block = Block(pool, stream, address, size)
        block.previous, block.expandable = previous, segment
        if previous is not None:
            previous.next = block
        if requested >= 0:
            block.allocated, block.requested = True, requested
            found[address] = block
        previous = block
    block_at = previous
    if segment is not None and previous is not None:
        end = previous.address + previous.size
        rest = Block(pool, stream, end, segment.start + segment.size - end)
        rest.mapped, rest.expandable, rest.previous, previous.next = False, segment, previous, rest
        pool.add_unmapped(rest)
    while block_at is not None:
        if not block_at.allocated:
            pool.add(block_at)
        else:
            allocator.allocated.change(block_at.size)
            allocator.active.change(block_at.size)
            allocator.requested.change(block_at.requested)
        block_at = block_at.previous


def replay(
    recording: Recording, *, own_addresses: bool = False, limit: int | None = None
) -> Replay:
    """Run a history through the simulation.

    Args:
        recording: to replay.
        own_addresses: let the simulation invent the addresses of segments, as a dry run must.
        limit: bytes that may be reserved; segments are then freed for want of memory, otherwise
            because somebody emptied the cache.
    """
    expected: list[tuple[int, int]] = []  # address and size of segments recorded, not yet asked for
    allocator = CachingAllocator(
        limit,
        settings=recording.settings,
        address=None if own_addresses else lambda _: expected[0][0] if expected else 2**50,
    )
    alive = adopt(allocator, initial_state(recording))
    result, before = Replay(allocator), ""
    known = len(allocator.log)
    for action, address, size, stream, *_ in recording.events:
        if action in GROWS:
            expected.append((address, size))
        elif action == "segment_free":
            result.frees.append(size)
            if limit is None and before != action:
                allocator.empty_cache()
        elif action in ("alloc", "oom"):
            try:
                block = allocator.malloc(size, stream)
            except OutOfDeviceMemory:
                result.exhausted += 1
            made = [n for grown, n in allocator.log[known:] if grown in GROWS]
            result.segments += len(made)
            result.unlike += made != [n for _, n in expected]
            expected.clear()
            if action == "alloc":
                same = block.address == address
                result.same_addresses += same
                result.other_addresses += not same
                alive[address] = block
        elif action == "free_requested":
            allocator.free(alive.pop(address))
        known, before = len(allocator.log), action
    return result
