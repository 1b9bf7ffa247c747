"""Memory that every step keeps is told, and what is there once is not."""

from dataclasses import replace

import pytest
from sequences import CONFIG, MIB, training

from epochcast.devices.growth import LEAST, growth
from epochcast.devices.need import device_need


def keeping(steps=(1, 2), size=3 * MIB, kind="activation"):
    """A training that keeps one block more in each of some steps, made in its forward pass."""
    plain = training()
    marks = [m for m in plain.marks if m.moment == "backward" and m.step in steps]
    events, blocks = [*plain.events], len(plain.block_bytes)
    for number, mark in enumerate(marks):
        events.insert(mark.position + number, blocks + number + 1)
    more = len(marks)
    starts = [m.position for m in marks]
    return replace(
        plain,
        events=tuple(events),
        marks=tuple(
            replace(m, position=m.position + sum(m.position > start for start in starts))
            for m in plain.marks
        ),
        block_bytes=plain.block_bytes + (size,) * more,
        block_kinds=plain.block_kinds + (kind,) * more,
        block_streams=plain.block_streams + (0,) * more,
        block_operators=plain.block_operators + (0,) * more,
        block_modules=plain.block_modules + (-1,) * more,
        block_lines=plain.block_lines + (0,) * more,
        lines=("train.py:12",),
    )


def test_what_every_step_keeps_is_told_with_its_line() -> None:
    (remark,) = growth(keeping())
    assert remark.startswith("every step keeps 3 MiB that it does not give back")
    assert "most of it made in train.py:12" in remark
    assert remark in device_need(keeping(), CONFIG).remarks


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": ()},
        {"steps": (1,)},  # there once, as a moving average that is made late
        {"steps": (2,)},  # gone when the third step makes its own
        {"kind": "optimizer"},
        {"size": LEAST - 1},
    ],
)
def test_what_does_not_grow_is_not(changes) -> None:
    assert growth(keeping(**changes)) == ()
