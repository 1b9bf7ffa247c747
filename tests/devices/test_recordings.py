"""The simulated allocator beside recorded ones: every segment at its moment and of its size."""

import json
from collections import Counter
from pathlib import Path

import pytest
from gpu_parts.results import read_folder
from gpu_parts.snapshots import LIMITED_BYTES
from recordings import ALIVE, Recording, read_recording, replay

from epochcast.devices.allocator_settings import parse_settings
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


# -- on an H200, recorded by benchmarks/gpu.py -----------------------------------------------------

H200 = read_folder(Path(__file__).parents[2] / "benchmarks" / "results" / "h200")
RECORDED = {r["scenario"]: r for r in H200.of("snapshots", "snapshot")}
STAGES = {r["scenario"]: r["stages"] for r in H200.of("snapshots", "peaks")}
LIMITS = {"out-of-memory": LIMITED_BYTES}


def on_h200(name, **settings):
    """Replayed, and the snapshot."""
    recorded = RECORDED[name]
    conf = recorded["allocator_settings"]["PYTORCH_CUDA_ALLOC_CONF"]
    recording = Recording(name, parse_settings(conf), recorded["events"], recorded["segments"])
    return replay(recording, limit=LIMITS.get(name), **settings), recorded


@pytest.mark.parametrize("name", RECORDED)
def test_an_h200_asked_for_every_segment_as_replayed(name) -> None:
    """With torch 2.11: at its moment, of its size, and every block at its address; so with
    expandable segments, caches that cudnn.benchmark emptied, and exhausted memory."""
    found, recorded = on_h200(name)
    actions = Counter(action for action, *_ in recorded["events"])
    assert found.unlike == found.other_addresses == 0
    assert found.segments == actions["segment_alloc"] + actions["segment_map"] > 0
    assert found.exhausted == actions["oom"]
    freed = [n for action, n in found.allocator.log if action == "segment_free"]
    assert sorted(freed) == sorted(found.frees)


@pytest.mark.parametrize("name", RECORDED)
def test_an_h200_counted_what_the_replay_counts(name) -> None:
    found, _ = on_h200(name)
    stages, allocator = STAGES[name], found.allocator
    for kind in ("allocated", "reserved", "requested"):
        peak = max(stage[f"{kind}_bytes.all.peak"] for stage in stages)
        assert getattr(allocator, kind).peak == peak
    assert allocator.retries == stages[-1]["num_alloc_retries"]


@pytest.mark.parametrize(
    "name", [n for n in RECORDED if not {"frames", "memory"} & {*n.split("-")}]
)
def test_an_h200s_reserve_needs_no_recorded_address(name) -> None:
    found, _ = on_h200(name, own_addresses=True)
    if name != "cnn-benchmark":  # its cache is emptied of what lies elsewhere
        assert found.unlike == 0
    assert found.allocator.reserved.peak == max(s["reserved_bytes.all.peak"] for s in STAGES[name])
