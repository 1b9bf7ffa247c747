"""Sequences of allocations through the allocator."""

from collections import Counter
from dataclasses import replace

import pytest
from sequences import MIB, PARAMETER, STATE, WORKSPACE, training

from epochcast.devices.allocator_settings import parse_settings
from epochcast.devices.caching_allocator import OutOfDeviceMemory
from epochcast.devices.replay import (
    Variation,
    between,
    blocks_in_use,
    replay,
    runs_in,
    step_reserve,
    unknown_groups,
)

ROUNDED = 4096
WORKSPACE_BLOCK = -(-WORKSPACE // 512) * 512


def test_peaks_are_those_of_the_second_step() -> None:
    """Parameters, states, both activations, the batch and the workspace, with a gradient."""
    found = replay(training())
    expected = 2 * PARAMETER + STATE + 32 * MIB + ROUNDED + WORKSPACE_BLOCK
    assert found.allocated_bytes == expected
    assert found.requested_bytes == expected
    assert found.reserved_bytes > found.allocated_bytes


def test_history_is_what_is_reserved_after_each_event() -> None:
    found = replay(training(), history=True)
    assert len(found.reserved) == len(training().events)
    assert max(found.reserved) == found.reserved_bytes
    assert found.sizes[0] == PARAMETER


def test_the_peak_names_the_blocks_in_use() -> None:
    sequence = training()
    alive = blocks_in_use(sequence, replay(sequence).peak)
    kinds = Counter(sequence.block_kinds[block] for block in alive)
    once = ("gradient", "input", "optimizer", "parameter", "workspace")
    assert kinds == {"activation": 2, **dict.fromkeys(once, 1)}


def test_what_is_not_known_lies_in_its_interval() -> None:
    sequence = training(unknown=True)
    least, most = (replay(sequence, variation=Variation(levels=(at,))) for at in (0.0, 1.0))
    assert replay(training()).allocated_bytes == least.allocated_bytes
    # taken for a moment before the gradient is made
    assert most.allocated_bytes == least.allocated_bytes + 64 * MIB - PARAMETER


def test_an_unknown_block_has_its_size_at_the_level() -> None:
    sequence = training(unknown=True)
    unknown = [*sequence.unknown]
    sized = replace(sequence, unknown=(replace(unknown[0], block=2, low_bytes=WORKSPACE),))
    found = replay(sized, variation=Variation(levels=(1.0,)))
    assert found.sizes[1] == 64 * MIB


def test_what_has_one_operator_and_one_interval_comes_out_alike() -> None:
    sequence = training(unknown=True)
    first, second = sequence.unknown
    assert unknown_groups(sequence) == [0, 0]
    other = replace(sequence, unknown=(first, replace(second, low_bytes=1)))
    assert unknown_groups(other) == [0, 1]
    low, high = ((a, b) for a, b in ((0.0, 1.0), (1.0, 0.0)))
    peaks = [replay(other, variation=Variation(levels=levels)) for levels in (low, high)]
    # the second step has the optimizer's state, so only there does it make the peak
    assert peaks[0].allocated_bytes > peaks[1].allocated_bytes


def test_the_order_of_addresses_changes_no_allocated_byte() -> None:
    plain = replay(training())
    for seed in range(1, 6):
        varied = replay(training(), variation=Variation(seed=seed))
        assert varied.allocated_bytes == plain.allocated_bytes
        assert varied.reserved_bytes >= varied.allocated_bytes


def test_expandable_segments_reserve_less() -> None:
    settings = parse_settings("expandable_segments:True")
    plain, expandable = replay(training(24)), replay(training(24), settings)
    assert expandable.allocated_bytes <= expandable.reserved_bytes < plain.reserved_bytes


def test_it_runs_in_what_it_reserves_and_not_in_less_than_it_uses() -> None:
    found = replay(training())
    assert runs_in(training(), found.reserved_bytes) == 0
    assert runs_in(training(), found.allocated_bytes - MIB) is None
    with pytest.raises(OutOfDeviceMemory):
        replay(training(), capacity=found.allocated_bytes - MIB)


@pytest.mark.parametrize("batch_size", [1, 16, 24, 32, 100])
def test_other_batch_sizes_lie_on_a_line(batch_size) -> None:
    found = between(training(16), training(32), (16, 32), batch_size)
    assert found is not None
    assert replay(found) == replay(training(batch_size))


def test_unknown_bytes_are_on_lines_too() -> None:
    found = between(training(16, True), training(32, True), (16, 32), 64)
    assert found is not None
    assert [u.high_bytes for u in found.unknown] == [64 * MIB] * 2


def test_other_events_are_no_line() -> None:
    assert between(training(16), training(32, events=(1, 2)), (16, 32), 24) is None


def test_frees_between_two_allocations_have_no_order() -> None:
    events = training(16).events
    turned = [*events]
    at = next(n for n in range(len(events)) if events[n] < 0 and events[n + 1] < 0)
    turned[at], turned[at + 1] = turned[at + 1], turned[at]
    assert between(training(16), training(32, events=tuple(turned)), (16, 32), 24) is not None


def test_the_reserve_of_a_tracked_step_is_that_of_whole_ones() -> None:
    """Parameters, an activation and a gradient of 30 MiB each; states come after the first step."""
    sizes, events = [30 * MIB] * 4, [1, 2, 3, 4, -3]
    found = step_reserve(sizes, events, lasting=[0], states=[1], workspace=WORKSPACE)
    # cuBLAS' workspaces are cut from the room that the first step's activation has left, the
    # states take its gradient's; so the second step needs two more segments
    assert found == 5 * 30 * MIB
    assert step_reserve([], [], [], [], WORKSPACE) == 20 * MIB  # cuBLAS' two workspaces
    assert step_reserve([], [], [], [], 32 * MIB) == 64 * MIB  # those of an H100


def test_an_empty_block_is_no_request() -> None:
    assert step_reserve([0, 0], [1, 2, -2], [0], [], WORKSPACE) == 20 * MIB
