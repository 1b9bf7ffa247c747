"""torch's CUDA caching allocator: what it reserves for a sequence of requests, without a GPU.

    malloc(n) ─▶ rounded ─▶ best fit among free blocks ─▶ split: low end used, rest stays free
                     └ none ─▶ a new segment (cudaMalloc) ─▶ out of memory? release, and once more
    free(b)   ─▶ merged with free neighbours; the segment stays reserved until empty_cache

    segment  ├── used ──┼─ free ─┼──── used ────┼──── free ────┤        reserved: all of it
                                                                        allocated: the used blocks

Each rule names the function that has it in c10/cuda/CUDACachingAllocator.cpp (torch 2.11; the
constants are those of 2.13). Memory pools of users and of CUDA graphs are not modelled.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable

from epochcast.devices.allocator_settings import INTERVALS, MIB, AllocatorSettings
from epochcast.devices.blocks import (
    Block,
    BlockPool,
    ExpandableSegment,
    MemoryStat,
    insert_after,
    insert_before,
)

MIN_BLOCK = 512  # kMinBlockSize
SMALL_REQUEST = MIB  # kSmallSize: up to it a request goes to the small pool
SMALL_SEGMENT = 2 * MIB  # kSmallBuffer
LARGE_REQUEST = 10 * MIB  # kMinLargeAlloc: from it on a segment is made to measure
LARGE_ROUNDING = 2 * MIB  # kRoundLarge
FIRST_ADDRESS = 0x7F0000000000  # invented, like all addresses here
UNLIMITED_RANGE = 2**42  # addresses of an expandable segment, where the device has no end


class OutOfDeviceMemory(Exception):
    """A request that the device cannot serve, after all that can be released was.

    Attributes:
        wanted_bytes: of the segment that could not be had.
    """

    def __init__(self, wanted_bytes: int) -> None:
        super().__init__(f"no room for a segment of {wanted_bytes:,} bytes")
        self.wanted_bytes = wanted_bytes


# -- sizes ----------------------------------------------------------------------------------------


def round_size(size: int, settings: AllocatorSettings) -> int:
    """What a request becomes (``round_size``)."""
    if size < MIN_BLOCK:
        return MIN_BLOCK
    if settings.divisions:
        divisions = settings.divisions[_interval(size)]
        if divisions > 1 and size > MIN_BLOCK * divisions:
            return next_division(size, divisions)
    return -(-size // MIN_BLOCK) * MIN_BLOCK


def _interval(size: int) -> int:
    """The setting that a size has: by its power of two, from 1 MiB on
    (``roundup_power2_divisions``)."""
    return min(max(size.bit_length() - MIB.bit_length(), 0), INTERVALS - 1)


def next_division(size: int, divisions: int) -> int:
    """The next of so many steps between two powers of two (``roundup_power2_next_division``)."""
    power = 1 << (size.bit_length() - 1)
    step = power // divisions
    if power == size or not step:
        return size if power == size else 2 * power
    return -(-size // step) * step


def segment_size(size: int, settings: AllocatorSettings) -> int:
    """What is asked of the device for a rounded request (``get_allocation_size``)."""
    if size <= SMALL_REQUEST:
        return SMALL_SEGMENT
    if size < LARGE_REQUEST:
        return settings.large_segment_size
    return -(-size // LARGE_ROUNDING) * LARGE_ROUNDING


class CachingAllocator:
    """One device's memory under torch's rules.

    Args:
        capacity: bytes that the device can give in all; None has no end.
        settings: as of ``PYTORCH_CUDA_ALLOC_CONF``.
        total: bytes of the device, of which ``settings.memory_fraction`` may be used; by default
            as much as the capacity.
        address: gives the address of a segment of so many bytes; by default they are invented.

    Attributes:
        allocated, active, requested, reserved, inactive_split: bytes as
            ``torch.cuda.memory_stats`` counts them, now and at most.
        retries: times that all cached memory was released for a request (``num_alloc_retries``).
        log: what was asked of the device and given back, in order: an action and its bytes.
    """

    def __init__(
        self,
        capacity: int | None = None,
        settings: AllocatorSettings | None = None,
        *,
        total: int | None = None,
        address: Callable[[int], int] | None = None,
    ) -> None:
        self.settings = settings or AllocatorSettings()
        self.capacity = capacity
        self.total = capacity if total is None else total
        self.allocated, self.active, self.requested = MemoryStat(), MemoryStat(), MemoryStat()
        self.reserved, self.inactive_split = MemoryStat(), MemoryStat()
        self.retries = 0
        self.log: list[tuple[str, int]] = []
        self.pools = {small: BlockPool(small) for small in (True, False)}
        self._address = address or self._invented
        self._next_address = FIRST_ADDRESS
        self._waiting: dict[int, deque[Block]] = {}  # stream → blocks freed while it used them
        self._done: dict[int, int] = {}  # stream → of those, how many it has finished with

    # -- what torch calls --------------------------------------------------------------------

    def malloc(self, size: int, stream: int = 0) -> Block:
        """A block for a request of so many bytes, more than none (``malloc``).

        Raises:
            OutOfDeviceMemory: the device is full.
        """
        if self._done:
            self._process_events()
        rounded = round_size(size, self.settings)
        pool = self.pools[rounded <= SMALL_REQUEST]
        block = self._find(pool, rounded, stream) or self._grow(pool, rounded, stream)
        return self._hand_out(block, rounded, size)

    def free(self, block: Block) -> None:
        """Give a block back; it waits for other streams that use it (``free``)."""
        block.allocated = False
        self.allocated.change(-block.size)
        if not block.uses:
            self._return(block)
            return
        block.events = len(block.uses)
        for stream in sorted(block.uses):
            self._waiting.setdefault(stream, deque()).append(block)
        block.uses = set()

    def record_stream(self, block: Block, stream: int) -> None:
        """Another stream uses a block (``recordStream``); its own needs no such note."""
        if stream != block.stream:
            block.uses.add(stream)

    def finish(self, stream: int) -> None:
        """A stream has done all its work so far; the next request notices (``process_events``)."""
        if self._waiting.get(stream):
            self._done[stream] = len(self._waiting[stream])

    def empty_cache(self) -> None:
        """Give the device back what is free as a whole (``release_cached_blocks``)."""
        for stream in [*self._waiting]:
            self.finish(stream)
        self._process_events()
        for is_small in (False, True):
            self._release_blocks(self.pools[is_small])

    def reset_peaks(self) -> None:
        """From now on peaks are those of what follows (``reset_peak_memory_stats``)."""
        for stat in self._stats():
            stat.peak = stat.current

    def _stats(self) -> tuple[MemoryStat, ...]:
        return self.allocated, self.active, self.requested, self.reserved, self.inactive_split

    # -- a free block ------------------------------------------------------------------------

    def _find(self, pool: BlockPool, size: int, stream: int) -> Block | None:
        """The smallest free block that is large enough, taken out (``get_free_block``)."""
        pool.searches += 1
        free = pool.free
        i = bisect_left(free, (stream, size))
        if i == len(free) or free[i][0] != stream:
            return None
        if free[i][3].expandable is not None:
            i = _expandable_fit(free, i, stream)
        block = free[i][3]
        if self._is_oversize(block, size):
            return None
        del free[i]
        return block

    def _is_oversize(self, block: Block, size: int) -> bool:
        """Whether a block may not serve a request, because it would be broken or wasted."""
        limit = self.settings.max_split_size
        if limit is None:
            return False
        if size < limit:
            return block.size >= limit
        return block.size >= size + self.settings.max_non_split_rounding

    def _should_split(self, block: Block, size: int) -> bool:
        """Whether the rest of a block is worth keeping apart (``should_split``)."""
        rest = block.size - size
        if block.pool.is_small or self.settings.expandable_segments:
            return rest >= MIN_BLOCK
        limit = self.settings.max_split_size
        return rest > SMALL_REQUEST and (limit is None or size < limit)

    def _hand_out(self, block: Block, size: int, requested: int) -> Block:
        """The low end of a block that was taken out, or all of it (``alloc_found_block``)."""
        was_split, whole = block.is_split, block.size
        counts = block.expandable is None
        if self._should_split(block, size):
            block = self._split(block, size)
            if counts:
                self.inactive_split.change(-size if was_split else whole - size)
        elif was_split and counts:
            self.inactive_split.change(-whole)
        block.allocated, block.requested = True, requested
        self.allocated.change(block.size)
        self.active.change(block.size)
        self.requested.change(requested)
        return block

    def _split(self, rest: Block, size: int) -> Block:
        """Cut the low end off a block; the rest is free."""
        block = Block(rest.pool, rest.stream, rest.address, size)
        block.expandable = rest.expandable
        insert_before(block, rest)
        rest.address += size
        rest.size -= size
        rest.pool.add(rest)
        return block

    def _return(self, block: Block) -> None:
        """A block that nobody waits for becomes free (``free_block``)."""
        size, change = block.size, 0
        for neighbour in (block.previous, block.next):
            change -= self._merge(block, neighbour)
        block.pool.add(block)
        if block.is_split:
            change += block.size
        if block.expandable is None:
            self.inactive_split.change(change)
        self.active.change(-size)
        self.requested.change(-block.requested)

    def _merge(self, block: Block, other: Block | None) -> int:
        """Take in a neighbour that is free; its bytes (``try_merge_blocks``)."""
        if other is None or not other.is_idle or other.mapped != block.mapped:
            return 0
        if other.mapped:
            other.pool.remove(other)
        else:
            other.pool.remove_unmapped(other)
        if block.previous is other:
            block.address = other.address
            block.previous = other.previous
            if block.previous is not None:
                block.previous.next = block
        else:
            block.next = other.next
            if block.next is not None:
                block.next.previous = block
        block.size += other.size
        return other.size

    # -- other streams -----------------------------------------------------------------------

    def _process_events(self) -> None:
        for stream, count in self._done.items():
            blocks = self._waiting[stream]
            for block in [blocks.popleft() for _ in range(count)]:
                block.events -= 1
                if not block.events:
                    self._return(block)
            if not blocks:
                del self._waiting[stream]
        self._done = {}

    # -- more memory -------------------------------------------------------------------------

    def _grow(self, pool: BlockPool, size: int, stream: int) -> Block:
        """Memory of the device, for which what is cached may have to go.

        ``malloc``: the pool is not searched again after a release.
        """
        self._collect_garbage()
        block = self._ask(pool, size, stream)
        if block is None and self._release_oversize(pool, size, stream):
            block = self._ask(pool, size, stream)
        if block is None:
            self.empty_cache()
            self.retries += 1
            block = self._ask(pool, size, stream)
        if block is None:
            wanted = segment_size(size, self.settings)
            self.log.append(("oom", wanted))
            raise OutOfDeviceMemory(wanted)
        return block

    def _ask(self, pool: BlockPool, size: int, stream: int) -> Block | None:
        """One attempt (``alloc_block``)."""
        wanted = segment_size(size, self.settings)
        allowed = self._allowed()
        if allowed is not None and self.reserved.current + wanted > allowed:
            return None
        if self.settings.expandable_segments:
            return self._expand(pool, size, stream)
        if not self._has_room(wanted):
            return None
        self._reserve("segment_alloc", wanted)
        return Block(pool, stream, self._address(wanted), wanted)

    def _allowed(self) -> int | None:
        """Bytes that may be reserved, where less than the device is allowed
        (``setMemoryFraction``)."""
        if self.total is None or self.settings.memory_fraction >= 1.0:
            return None
        return int(self.settings.memory_fraction * self.total)

    def _has_room(self, size: int) -> bool:
        return self.capacity is None or self.reserved.current + size <= self.capacity

    def _reserve(self, action: str, size: int) -> None:
        self.reserved.change(size)
        self.log.append((action, abs(size)))

    def _invented(self, size: int) -> int:
        address = self._next_address
        self._next_address += -(-size // LARGE_ROUNDING) * LARGE_ROUNDING
        return address

    # -- less memory -------------------------------------------------------------------------

    def _release(self, block: Block) -> None:
        """Give a whole segment back (``release_block``)."""
        block.pool.remove(block)
        self._reserve("segment_free", -block.size)

    def _release_blocks(self, pool: BlockPool) -> None:
        """All free segments of a pool, and all free pages (``release_blocks``)."""
        blocks = pool.blocks()
        for block in blocks:
            if block.expandable is None and not block.is_split:
                self._release(block)
        for block in blocks:
            if block.expandable is not None:
                self._unmap(block)

    def _release_oversize(self, pool: BlockPool, size: int, stream: int) -> bool:
        """Just enough blocks that were too large to split, the largest first
        (``release_available_cached_blocks``)."""
        limit = self.settings.max_split_size
        if limit is None:
            return False
        wanted = max(size, limit)
        i = bisect_left(pool.free, (stream, wanted))
        if i < len(pool.free) and pool.free[i][0] == stream and not pool.free[i][3].expandable:
            self._release(pool.free[i][3])
            return True
        released = 0
        for block in [entry[3] for entry in reversed(pool.free[:i])]:
            if released >= wanted or block.size < limit or block.stream != stream:
                break
            if block.expandable is None:
                released += block.size
                self._release(block)
        return released >= wanted

    def _collect_garbage(self) -> None:
        """Above the threshold, release what has been free longest
        (``garbage_collect_cached_blocks``)."""
        allowed, share = self._allowed(), self.settings.garbage_collection_threshold
        if allowed is None or not share:
            return
        pool = self.pools[False]
        threshold = int(share * allowed)
        whole = [block for block in pool.blocks() if not block.is_split]
        while whole and self.reserved.current > threshold:
            ages = [pool.searches - block.searches for block in whole]
            mean = sum(ages) / len(ages)
            old = [b for b, a in zip(whole, ages, strict=True) if a >= mean and not b.expandable]
            for block in old:
                self._release(block)
            whole = [block for block in whole if block not in old]
            if not old:
                return

    # -- expandable segments -----------------------------------------------------------------

    def _expand(self, pool: BlockPool, size: int, stream: int) -> Block | None:
        """Map pages until a free stretch is large enough (``try_allocate_expandable_block``)."""
        block = self._find_expandable(pool, size, stream)
        if not block.mapped and not self._map(block, min(block.size, size)):
            return None
        while block.size < size:
            behind = block.next
            assert behind is not None, "the stretch was long enough"
            if not self._map(behind, min(size - block.size, behind.size)):
                return None
            block = behind
        pool.remove(block)
        return block

    def _find_expandable(self, pool: BlockPool, wanted: int, stream: int) -> Block:
        """The lowest addresses with room, or a new range of them (``find_expandable_block``)."""
        for owner, _, unmapped in pool.unmapped[bisect_left(pool.unmapped, (stream,)) :]:
            if owner != stream:
                break
            before = unmapped.previous
            first = before if before is not None and before.is_idle else unmapped
            if _stretch(first) >= wanted:
                return first
        page = SMALL_SEGMENT if pool.is_small else self.settings.large_segment_size
        reach = UNLIMITED_RANGE if self.total is None else self.total + self.total // 8
        segment = ExpandableSegment(
            self._address(-(-reach // page) * page), reach // page * page, page
        )
        block = Block(pool, stream, segment.start, segment.size)
        block.mapped, block.expandable = False, segment
        pool.add_unmapped(block)
        return block

    def _map(self, block: Block, size: int) -> bool:
        """Whole pages from the start of an unmapped block on (``map_block``)."""
        segment = block.expandable
        assert segment is not None, "only expandable segments have unmapped blocks"
        mapped = segment.pages_over(block.address, block.address + size) - block.address
        if not self._has_room(mapped):
            return False
        pool = block.pool
        pool.remove_unmapped(block)
        block.mapped = True
        if mapped < block.size:
            rest = Block(pool, block.stream, block.address + mapped, block.size - mapped)
            rest.mapped, rest.expandable = False, segment
            insert_after(rest, block)
            pool.add_unmapped(rest)
            block.size = mapped
        self._merge(block, block.previous)
        self._merge(block, block.next)
        pool.add(block)
        self._reserve("segment_map", mapped)
        return True

    def _unmap(self, block: Block) -> None:
        """The whole pages inside a free block; its edges stay (``unmap_block``)."""
        segment, pool = block.expandable, block.pool
        assert segment is not None, "only expandable segments are unmapped"
        first, last = segment.pages_within(block.address, block.address + block.size)
        if first >= last:
            return
        pool.remove(block)
        edges = (block.address, first), (last, block.address + block.size)
        for (start, end), insert in zip(edges, (insert_before, insert_after), strict=True):
            if end > start:
                edge = Block(pool, block.stream, start, end - start)
                edge.expandable = segment
                insert(edge, block)
                pool.add(edge)
        block.address, block.size, block.mapped = first, last - first, False
        self._merge(block, block.previous)
        self._merge(block, block.next)
        if block.is_split:
            pool.add_unmapped(block)
        self._reserve("segment_unmap", first - last)


def _expandable_fit(free: list[tuple[int, int, int, Block]], i: int, stream: int) -> int:
    """A block that can grow counts as what it can become, so larger ones that cannot come first.

    The ``expandable_size`` loop of ``get_free_block``.
    """
    for k in range(i + 1, len(free)):
        here, there = free[i][3], free[k][3]
        if here.expandable is None or there.stream != stream:
            break
        if there.expandable_size >= here.expandable_size:
            break
        i = k
    return i


def _stretch(block: Block | None) -> int:
    """Bytes of addresses from a block on that nobody uses."""
    total = 0
    while block is not None and block.is_idle:
        total += block.size
        block = block.next
    return total
