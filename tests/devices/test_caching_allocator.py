"""The rules of torch's caching allocator, each by itself, and the laws they keep together."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochcast.devices.allocator_settings import MIB, AllocatorSettings, parse_settings
from epochcast.devices.caching_allocator import (
    CachingAllocator,
    OutOfDeviceMemory,
    next_division,
    round_size,
    segment_size,
)

PLAIN = AllocatorSettings()
SETTINGS = [
    "",
    "expandable_segments:True",
    "max_split_size_mb:20",
    "roundup_power2_divisions:4",
    "max_split_size_mb:20,roundup_power2_divisions:[4:2,>:8]",
]


@pytest.mark.parametrize(
    ("asked", "rounded"),
    [(1, 512), (511, 512), (512, 512), (513, 1024), (MIB, MIB), (MIB + 1, MIB + 512)],
)
def test_requests_are_rounded_to_512_bytes(asked, rounded) -> None:
    assert round_size(asked, PLAIN) == rounded


@pytest.mark.parametrize(
    ("asked", "divisions", "rounded"),
    [
        (1200, 4, 1280),  # pytorch, docs/source/notes/cuda.rst: 1024, 1280, 1536, 1792
        (1024, 4, 1024),
        (1793, 4, 2048),
        (3, 4, 4),  # steps of less than a byte: the next power
        (MIB + 1, 1, 2 * MIB),
    ],
)
def test_steps_between_powers_of_two(asked, divisions, rounded) -> None:
    assert next_division(asked, divisions) == rounded


def test_divisions_begin_above_512_bytes_each() -> None:
    four = parse_settings("roundup_power2_divisions:4")
    assert round_size(2048, four) == 2048
    assert round_size(2049, four) == 2560
    assert round_size(1200, four) == 1536  # not above 512 × 4: a multiple of 512


def test_divisions_go_by_the_power_of_two_of_a_size() -> None:
    """Below 1 MiB the first holds, from 64 GiB on the last."""
    settings = parse_settings("roundup_power2_divisions:[1:2,2:4,>:0]")
    assert round_size(700 * 1024, settings) == 768 * 1024  # halves of a step of 512 KiB
    assert round_size(MIB + 1, settings) == 3 * MIB // 2
    assert round_size(2 * MIB + 1, settings) == 5 * MIB // 2
    assert round_size(4 * MIB + 1, settings) == 4 * MIB + 512
    assert round_size(2**40 + 1, settings) == 2**40 + 512


@pytest.mark.parametrize(
    ("rounded", "segment"),
    [
        (512, 2 * MIB),
        (MIB, 2 * MIB),
        (MIB + 512, 20 * MIB),
        (10 * MIB - 512, 20 * MIB),
        (10 * MIB, 10 * MIB),
        (10 * MIB + 512, 12 * MIB),
    ],
)
def test_segments(rounded, segment) -> None:
    assert segment_size(rounded, PLAIN) == segment
    assert CachingAllocator().malloc(rounded).size in (rounded, segment)


def test_the_low_end_is_used_and_the_rest_serves_the_next() -> None:
    allocator = CachingAllocator()
    first, second = allocator.malloc(3 * MIB), allocator.malloc(4 * MIB)
    assert second.address == first.address + 3 * MIB
    assert allocator.reserved.current == 20 * MIB
    assert allocator.inactive_split.current == 13 * MIB


def test_a_rest_of_a_large_segment_up_to_1_mib_belongs_to_the_block() -> None:
    allocator = CachingAllocator()
    whole = allocator.malloc(11 * MIB)
    assert (whole.size, whole.requested) == (12 * MIB, 11 * MIB)
    assert allocator.allocated.current == 12 * MIB
    assert allocator.requested.current == 11 * MIB


def test_the_best_fit_is_the_smallest_then_the_lowest() -> None:
    allocator = CachingAllocator()
    blocks = [allocator.malloc(n * MIB) for n in (12, 14, 12)]
    low, large, high = (block.address for block in blocks)
    for block in reversed(blocks):
        allocator.free(block)
    found = [allocator.malloc(11 * MIB + 512).address for _ in range(3)]
    assert found == [low, high, large]


def test_small_and_large_requests_share_no_segment() -> None:
    allocator = CachingAllocator()
    allocator.free(allocator.malloc(20 * MIB))
    allocator.malloc(MIB)
    assert allocator.reserved.current == 22 * MIB


def test_free_neighbours_merge() -> None:
    allocator = CachingAllocator()
    a, b, c = (allocator.malloc(6 * MIB) for _ in range(3))
    for block in (a, c, b):
        allocator.free(block)
    assert allocator.malloc(20 * MIB).address == a.address
    assert allocator.reserved.current == 20 * MIB
    assert allocator.inactive_split.current == 0


def test_oversize_blocks_are_neither_split_nor_wasted() -> None:
    """A request below the limit gets no block above it; one above it none 20 MiB too large."""
    allocator = CachingAllocator(settings=parse_settings("max_split_size_mb:100"))
    allocator.free(allocator.malloc(120 * MIB))
    allocator.malloc(50 * MIB)
    assert allocator.reserved.current == 170 * MIB
    allocator.malloc(100 * MIB)  # 120 is refused: 20 MiB too large
    assert allocator.reserved.current == 270 * MIB
    block = allocator.malloc(101 * MIB)
    assert (allocator.reserved.current, block.size) == (270 * MIB, 120 * MIB)


def test_when_full_cached_segments_go_and_the_request_is_tried_again() -> None:
    allocator = CachingAllocator(capacity=100 * MIB)
    allocator.free(allocator.malloc(60 * MIB))
    allocator.malloc(80 * MIB)
    assert allocator.log == [
        ("segment_alloc", 60 * MIB),
        ("segment_free", 60 * MIB),
        ("segment_alloc", 80 * MIB),
    ]
    assert allocator.retries == 1
    with pytest.raises(OutOfDeviceMemory, match="23,068,672"):
        allocator.malloc(21 * MIB)


def test_when_full_oversize_segments_go_first_and_only_as_many_as_needed() -> None:
    settings = parse_settings("max_split_size_mb:20")
    allocator = CachingAllocator(capacity=200 * MIB, settings=settings)
    for block in [allocator.malloc(n * MIB) for n in (30, 40, 50, 60)]:
        allocator.free(block)
    allocator.malloc(100 * MIB)  # no single block is as large: 60 and 50 are released
    assert [n // MIB for action, n in allocator.log if action == "segment_free"] == [60, 50]
    assert allocator.retries == 0


def test_a_memory_fraction_is_a_limit_of_its_own() -> None:
    settings = parse_settings("per_process_memory_fraction:0.5")
    allocator = CachingAllocator(capacity=90 * MIB, total=100 * MIB, settings=settings)
    allocator.malloc(50 * MIB)
    with pytest.raises(OutOfDeviceMemory):
        allocator.malloc(MIB)


def test_garbage_collection_releases_what_is_oldest() -> None:
    """Above 0.5 × 0.8 × 200 MiB; the youngest block stays."""
    text = "garbage_collection_threshold:0.5,per_process_memory_fraction:0.8"
    allocator = CachingAllocator(capacity=200 * MIB, settings=parse_settings(text))
    old, young = allocator.malloc(50 * MIB), allocator.malloc(40 * MIB)
    allocator.free(old)
    for _ in range(3):
        allocator.free(allocator.malloc(40 * 1024))
    allocator.free(young)
    allocator.malloc(60 * MIB)
    assert ("segment_free", 50 * MIB) in allocator.log
    assert ("segment_free", 40 * MIB) not in allocator.log


def test_another_stream_has_blocks_of_its_own() -> None:
    allocator = CachingAllocator()
    allocator.free(allocator.malloc(20 * MIB, stream=0))
    allocator.malloc(20 * MIB, stream=1)
    assert allocator.reserved.current == 40 * MIB


def test_a_block_waits_for_the_streams_that_use_it() -> None:
    """Free for its owner, but active until the other stream has done."""
    allocator = CachingAllocator()
    block = allocator.malloc(20 * MIB)
    allocator.record_stream(block, 0)  # its own: no note
    allocator.record_stream(block, 1)
    allocator.free(block)
    assert (allocator.allocated.current, allocator.active.current) == (0, 20 * MIB)
    allocator.malloc(20 * MIB)
    assert allocator.reserved.current == 40 * MIB
    allocator.finish(1)
    allocator.malloc(20 * MIB)
    assert allocator.reserved.current == 40 * MIB
    assert allocator.active.current == allocator.allocated.current == 40 * MIB


def test_emptying_waits_for_every_stream() -> None:
    allocator = CachingAllocator()
    block = allocator.malloc(20 * MIB)
    allocator.record_stream(block, 1)
    allocator.record_stream(block, 2)
    allocator.free(block)
    allocator.empty_cache()
    assert allocator.reserved.current == allocator.active.current == 0


def test_expandable_segments_grow_by_pages() -> None:
    """30 MiB are two pages of 20; 30 more are the 10 left and one more page."""
    allocator = CachingAllocator(settings=parse_settings("expandable_segments:True"))
    first, second = allocator.malloc(30 * MIB), allocator.malloc(30 * MIB)
    assert second.address == first.address + 30 * MIB
    assert allocator.log == [("segment_map", 40 * MIB), ("segment_map", 20 * MIB)]
    assert (first.size, allocator.inactive_split.current) == (30 * MIB, 0)


def test_the_tail_of_an_expandable_segment_counts_as_what_it_can_become() -> None:
    """A hole of 12 MiB serves 9 although 10 are free at the end."""
    allocator = CachingAllocator(settings=parse_settings("expandable_segments:True"))
    hole, _, _ = (allocator.malloc(n * MIB) for n in (12, 8, 10))
    address = hole.address
    allocator.free(hole)
    assert allocator.malloc(9 * MIB).address == address


def test_expandable_segments_give_whole_pages_back() -> None:
    allocator = CachingAllocator(settings=parse_settings("expandable_segments:True"))
    kept, freed = allocator.malloc(5 * MIB), allocator.malloc(70 * MIB)
    allocator.free(freed)
    allocator.empty_cache()
    assert allocator.reserved.current == 20 * MIB  # the page that is used in part
    again = allocator.malloc(70 * MIB)
    assert again.address == kept.address + 5 * MIB
    assert allocator.reserved.current == 80 * MIB


def test_expandable_segments_end_with_the_device() -> None:
    settings = parse_settings("expandable_segments:True")
    allocator = CachingAllocator(capacity=60 * MIB, settings=settings)
    first = allocator.malloc(50 * MIB)
    with pytest.raises(OutOfDeviceMemory):
        allocator.malloc(20 * MIB)
    allocator.free(first)
    allocator.malloc(60 * MIB)
    assert allocator.reserved.current == 60 * MIB


def test_peaks_are_those_since_the_last_reset() -> None:
    allocator = CachingAllocator()
    allocator.free(allocator.malloc(40 * MIB))
    allocator.empty_cache()
    allocator.reset_peaks()
    allocator.malloc(20 * MIB)
    assert allocator.allocated.peak == allocator.reserved.peak == 20 * MIB


# -- laws -----------------------------------------------------------------------------------------

sizes = st.one_of(st.integers(1, 4096), st.integers(1, 2 * MIB), st.integers(1, 120 * MIB))
actions = st.lists(
    st.one_of(
        st.tuples(st.just("malloc"), sizes, st.integers(0, 1)),
        st.tuples(st.just("free"), st.integers(0, 99), st.integers(0, 1)),
        st.tuples(st.just("empty"), st.just(0), st.just(0)),
    ),
    max_size=60,
)


@given(
    actions=actions,
    text=st.sampled_from(SETTINGS),
    capacity=st.sampled_from([None, 400 * MIB]),
)
def test_laws_of_any_history(actions, text, capacity) -> None:
    """No two live blocks overlap; what is used fits into the reserve; all can be given back."""
    allocator = CachingAllocator(capacity, parse_settings(text))
    alive = []
    for action, number, stream in actions:
        if action == "malloc":
            try:
                alive.append(allocator.malloc(number, stream))
            except OutOfDeviceMemory:
                assert capacity is not None
        elif action == "free" and alive:
            block = alive.pop(number % len(alive))
            if stream:
                allocator.record_stream(block, 1 - block.stream)
            allocator.free(block)
        elif action == "empty":
            allocator.empty_cache()
        _holds(allocator, alive)
    for block in alive:
        allocator.free(block)
    allocator.empty_cache()
    levels = (allocator.reserved, allocator.active, allocator.requested, allocator.inactive_split)
    assert [level.current for level in levels] == [0, 0, 0, 0]


def _holds(allocator, alive) -> None:
    ordered = sorted(alive, key=lambda block: block.address)
    assert all(a.address + a.size <= b.address for a, b in pairwise(ordered))
    assert all(block.size >= block.requested for block in alive)
    assert allocator.allocated.current == sum(block.size for block in alive)
    assert allocator.requested.current >= sum(block.requested for block in alive)
    active, reserved = allocator.active.current, allocator.reserved.current
    assert allocator.allocated.current <= active <= reserved
    assert allocator.capacity is None or reserved <= allocator.capacity
    free = sum(size for pool in allocator.pools.values() for _, size, _, _ in pool.free)
    assert active + free == reserved
    split = sum(
        block.size
        for pool in allocator.pools.values()
        for block in pool.blocks()
        if block.is_split and block.expandable is None
    )
    assert allocator.inactive_split.current == split
