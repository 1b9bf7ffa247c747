"""The record of a device's allocations: what it refuses, what it adds up, its way through JSON."""

from __future__ import annotations

from dataclasses import replace

import pytest

from epochcast.records import (
    DeviceSequence,
    DeviceSpec,
    StepMark,
    UnknownBytes,
    from_json,
    to_json,
)

T4 = DeviceSpec(
    name="t4",
    memory_bytes=15_634_661_376,
    capability=(7, 5),
    multiprocessors=40,
    threads_per_multiprocessor=1024,
)
TWO_BLOCKS = DeviceSequence(
    device=T4,
    block_bytes=(100, 600),
    block_kinds=("parameter", "workspace"),
    block_streams=(0, 0),
    block_operators=(0, 1),
    block_modules=(0, -1),
    block_lines=(0, -1),
    operators=("aten.empty", "aten.mm"),
    modules=("Net",),
    lines=("train.py:3",),
    events=(1, 2, -1),
    marks=(StepMark(moment="build", step=0, position=0),),
    unknown=(
        UnknownBytes(position=1, low_bytes=0, high_bytes=9, operator="aten.mm", reason="unseen"),
    ),
)


def test_live_bytes_are_a_running_sum():
    assert TWO_BLOCKS.live_bytes() == (100, 700, 600)
    assert TWO_BLOCKS.live_bytes(512) == (512, 512 + 1024, 1024)
    assert TWO_BLOCKS.peak_bytes(512) == 1536


def test_it_survives_json():
    assert from_json(to_json(TWO_BLOCKS), DeviceSequence) == TWO_BLOCKS


@pytest.mark.parametrize(
    ("said", "fields"),
    [
        ("0 bytes", {"block_bytes": (100, 0)}),
        ("origin", {"block_streams": (0,)}),
        ("unknown block", {"events": (3,)}),
        ("unknown block", {"events": (0,)}),
        (
            "in order",
            {
                "marks": (
                    StepMark(moment="build", step=0, position=2),
                    StepMark(moment="batch", step=1, position=1),
                )
            },
        ),
    ],
)
def test_what_cannot_be_is_refused(said, fields):
    with pytest.raises(ValueError, match=said):
        replace(TWO_BLOCKS, **fields)


def test_a_device_needs_memory_and_multiprocessors():
    with pytest.raises(ValueError, match="memory_bytes"):
        replace(T4, memory_bytes=0)
    with pytest.raises(ValueError, match="multiprocessors"):
        replace(T4, multiprocessors=0)


def test_an_interval_is_in_order():
    with pytest.raises(ValueError, match="low_bytes"):
        UnknownBytes(position=0, low_bytes=2, high_bytes=1, operator="", reason="")
