"""Steps that somebody recorded on a GPU, beside what is followed without one.

Recordings: see ``recorded_gpt.py``, and highwaterlabs/torch-preflight 774b839 (MIT): peaks of real
training steps on a Tesla T4 with torch 2.11.
"""

from __future__ import annotations

import gzip
import json

import pytest

from epochcast.devices.caching_allocator import CachingAllocator

SNAPSHOT = "NiuHuangxiaozi__cs336_systems--profile_memory--{}.json.gz"
RECORDINGS = {
    "recorded 100": "forward_and_backward_memory_snapshot_100",
    "recorded 200 mixed": "forward_and_backward_memory_snapshot_200_mixed_precision",
    "recorded 200 forward mixed": "forward_memory_snapshot_200_mixed_precision",
}


def recording(evidence, name):
    """Requests in order, positive, and frees, negative."""
    path = evidence / "snapshots" / SNAPSHOT.format(RECORDINGS[name])
    with gzip.open(path) as file:
        events = json.load(file)["events"]
    signs = {"alloc": 1, "free_requested": -1}
    return [
        (signs[action], address, size) for action, address, size, *_ in events if action in signs
    ]


def ours(sequence):
    """The same of a sequence, blocks for addresses."""
    return [
        (1 if event > 0 else -1, abs(event), sequence.block_bytes[abs(event) - 1])
        for event in sequence.events
    ]


def replayed(events, start=0):
    """Peaks of allocated and reserved bytes, from an event on."""
    allocator, blocks = CachingAllocator(), {}
    for number, (sign, key, size) in enumerate(events):
        if number == start:
            allocator.reset_peaks()
        if sign > 0:
            blocks[key] = allocator.malloc(size)
        else:
            allocator.free(blocks.pop(key))
    return allocator.allocated.peak, allocator.reserved.peak


@pytest.mark.parametrize("name", RECORDINGS)
def test_every_allocation_is_in_its_order(followed, evidence, name):
    measured = recording(evidence, name)
    made = ours(followed(name))[: len(measured)]
    assert [size for sign, _, size in made if sign > 0] == [
        size for sign, _, size in measured if sign > 0
    ]


def test_every_free_is_too(followed, evidence):
    measured = recording(evidence, "recorded 100")
    made = ours(followed("recorded 100"))[: len(measured)]
    assert [(sign, size) for sign, _, size in made] == [(s, size) for s, _, size in measured]


@pytest.mark.parametrize("name", RECORDINGS)
def test_peaks_are_equal_to_the_byte(followed, evidence, name):
    measured = recording(evidence, name)
    assert replayed(ours(followed(name))[: len(measured)]) == replayed(measured)


@pytest.mark.parametrize("name", ["gpt2 8 256", "distilbert-base-uncased 4 128"])
def test_allocated_on_a_t4_is_within_half_a_percent(followed, evidence, name):
    model, batch, tokens = name.split()
    runs = json.loads((evidence / "memory" / "torch-preflight" / "measured_peaks.json").read_text())
    (run,) = (
        run
        for run in runs["runs"]
        if run["model"] == model
        and (run["config"]["batch_size"], run["config"].get("seq_len")) == (int(batch), int(tokens))
    )
    sequence = followed(name)
    last = sequence.marks[-1]
    allocated, reserved = replayed(ours(sequence), last.position)
    assert allocated == pytest.approx(run["measured_allocated_bytes"], rel=0.005)
    assert reserved == pytest.approx(run["measured_reserved_bytes"], rel=0.06)


@pytest.mark.parametrize("measured", [5217, 5633])
def test_an_encoder_with_dropout_on_an_a100_is_within_five_percent(followed, measured):
    """``nvidia-smi`` showed so many MiB of an A100 40 GB (itu-rad/GPUMemNet, 8 and 10 layers).

    What that machine used besides is learned from a small one, which showed 2,807.
    """
    besides = 2807 - reserved_mib(followed("classifier 2807"))
    said = reserved_mib(followed(f"classifier {measured}")) + besides
    assert said == pytest.approx(measured, rel=0.05)


def reserved_mib(sequence):
    _, reserved = replayed(ours(sequence))
    return reserved / 2**20
