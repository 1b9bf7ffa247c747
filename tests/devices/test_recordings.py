"""The simulated allocator beside recorded ones: every segment at its moment and of its size."""

import json
from pathlib import Path

import pytest
from recordings import ALIVE, read_recording, replay

from epochcast.devices.caching_allocator import CachingAllocator

INPUTS = Path(__file__).parents[1] / "inputs"
SNAPSHOTS = Path(__file__).parents[3] / "shared" / "gpu" / "snapshots"
if not SNAPSHOTS.is_dir():  # a worktree lies deeper than the checkout
    SNAPSHOTS = Path(__file__).parents[4] / "shared" / "gpu" / "snapshots"
FILES = sorted(SNAPSHOTS.glob("*.json.gz"))
# live blocks at its start have an unsplit rest that nothing in the file shows
HIDDEN_REST = "Wedsonlin__results--medium_512_training_memory_snapshot.json.gz"


def test_sizes_in_order_give_the_recorded_segments() -> None:
    """From the first allocation on, with addresses of our own, as a dry run has them."""
    recorded = json.loads((INPUTS / "gpt_forward_allocations.json").read_text("utf-8"))
    allocator, blocks, segments = CachingAllocator(), [], []
    for event in recorded["events"]:
        if event < 0:
            allocator.free(blocks[-event - 1])
            continue
        known = len(allocator.log)
        blocks.append(allocator.malloc(event))
        segments += [[len(blocks) - 1, size] for _, size in allocator.log[known:]]
    assert segments == recorded["segments"]
    assert allocator.reserved.current == allocator.reserved.peak == recorded["reserved_bytes"]
    assert allocator.allocated.current == recorded["allocated_bytes"]


@pytest.mark.skipif(not FILES, reason="the recordings are not here")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name[:-8])
def test_recorded_histories(path) -> None:
    recording = read_recording(path)
    found = replay(recording)
    reserved = sum(segment["total_size"] for segment in recording.segments)
    blocks = [block for segment in recording.segments for block in segment["blocks"]]
    assert found.unlike == 0
    assert found.segments == sum(event[0] == "segment_alloc" for event in recording.events)
    assert found.allocator.reserved.current == reserved
    freed = [n for action, n in found.allocator.log if action == "segment_free"]
    assert sorted(freed) == sorted(found.frees)
    if path.name != HIDDEN_REST:
        assert found.other_addresses == 0
        alive = sum(size for _, size, _, state in blocks if state in ALIVE)
        assert found.allocator.allocated.current == alive


@pytest.mark.skipif(not FILES, reason="the recordings are not here")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name[:-8])
def test_reserved_memory_needs_no_recorded_address(path) -> None:
    recording = read_recording(path)
    found = replay(recording, own_addresses=True)
    assert found.unlike == 0
    reserved = sum(segment["total_size"] for segment in recording.segments)
    assert found.allocator.reserved.current == reserved
