"""What a caching allocator is made of: blocks in a row, pools of free ones, counts of bytes."""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass


@dataclass(slots=True)
class MemoryStat:
    """A number of bytes that rises and falls, and its peak; torch's ``Stat``."""

    current: int = 0
    peak: int = 0

    def change(self, by: int) -> None:
        self.current += by
        if self.current > self.peak:
            self.peak = self.current


class Block:
    """A stretch of a segment, in use or free, between its neighbours.

    Attributes:
        size: as rounded, or with a rest that was too small to split off.
        requested: bytes asked for.
        stream: whose memory it is for good.
        uses: other streams that work with it, until it is freed.
        events: of those streams, not yet done, since it was freed.
        mapped: False of addresses of an expandable segment without memory.
        expandable: the segment it lies in, where that one can grow.
        searches: of its pool when it became free, by which its age is counted.
    """

    __slots__ = (
        "address",
        "allocated",
        "events",
        "expandable",
        "mapped",
        "next",
        "pool",
        "previous",
        "requested",
        "searches",
        "size",
        "stream",
        "uses",
    )

    def __init__(self, pool: BlockPool, stream: int, address: int, size: int) -> None:
        self.pool, self.stream, self.address, self.size = pool, stream, address, size
        self.allocated = False
        self.mapped = True
        self.requested = self.events = self.searches = 0
        self.previous: Block | None = None
        self.next: Block | None = None
        self.expandable: ExpandableSegment | None = None
        self.uses: set[int] = set()

    @property
    def is_split(self) -> bool:
        """Whether it is a part of its segment, and not all of it (``is_split``)."""
        return self.previous is not None or self.next is not None

    @property
    def is_idle(self) -> bool:
        """Whether nobody uses it, nor waits for it."""
        return not (self.allocated or self.events or self.uses)

    @property
    def expandable_size(self) -> int:
        """With the addresses behind it that can still be mapped."""
        behind = self.next
        return self.size + (behind.size if behind is not None and not behind.mapped else 0)


@dataclass(frozen=True, slots=True)
class ExpandableSegment:
    """A range of addresses of which pages are mapped as they are needed."""

    start: int
    size: int
    page: int

    def pages_over(self, start: int, end: int) -> int:
        """The end of the whole pages that cover a range beginning at one (``map``)."""
        return self.start + -(-(end - self.start) // self.page) * self.page

    def pages_within(self, start: int, end: int) -> tuple[int, int]:
        """The whole pages inside a range (``unmap``); the end may lie before the start."""
        first = self.pages_over(self.start, start)
        return first, self.start + (end - self.start) // self.page * self.page


class BlockPool:
    """The free blocks of one class of sizes, in the order of the search: stream, size, address."""

    def __init__(self, is_small: bool) -> None:
        self.is_small = is_small
        self.free: list[tuple[int, int, int, Block]] = []
        self.unmapped: list[tuple[int, int, Block]] = []
        self.searches = 0

    def add(self, block: Block) -> None:
        block.searches = self.searches
        insort(self.free, (block.stream, block.size, block.address, block))

    def remove(self, block: Block) -> None:
        del self.free[bisect_left(self.free, (block.stream, block.size, block.address))]

    def add_unmapped(self, block: Block) -> None:
        insort(self.unmapped, (block.stream, block.address, block))

    def remove_unmapped(self, block: Block) -> None:
        del self.unmapped[bisect_left(self.unmapped, (block.stream, block.address))]

    def blocks(self) -> list[Block]:
        return [entry[3] for entry in self.free]


def insert_before(block: Block, other: Block) -> None:
    """Put a block between another one and its previous one."""
    block.previous, block.next = other.previous, other
    if block.previous is not None:
        block.previous.next = block
    other.previous = block


def insert_after(block: Block, other: Block) -> None:
    """Put a block between another one and its next one."""
    block.previous, block.next = other, other.next
    if block.next is not None:
        block.next.previous = block
    other.next = block
