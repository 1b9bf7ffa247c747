"""Memory that every step keeps is told, and what is there once is not."""

from dataclasses import replace

import pytest
from sequences import CONFIG, MIB, training

from epochcast.devices.later_steps import LEAST, growth, with_third_step
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


# -- a third step ----------------------------------------------------------------------------------


def test_a_third_step_does_what_the_second_did() -> None:
    two, three = training(unknown=True), with_third_step(training(unknown=True))
    second = next(m.position for m in two.marks if m.step == 2)
    more = len(two.events) - second
    assert len(three.events) == len(two.events) + more
    assert three.live_bytes()[-more:] == two.live_bytes()[-more:]  # gradients of step 2 are freed
    assert [m.moment for m in three.marks if m.step == 3] == [
        m.moment for m in two.marks if m.step == 2
    ]
    third = next(u for u in three.unknown if u.position > len(two.events))
    assert third.position - two.unknown[-1].position == more


def test_an_evaluation_comes_after_it() -> None:
    two = training()
    gradient = max(n for n, kind in enumerate(two.block_kinds) if kind == "gradient") + 1
    mark = replace(two.marks[-1], moment="evaluate", position=len(two.events))
    evaluated = replace(two, events=(*two.events, -gradient), marks=(*two.marks, mark))
    three = with_third_step(evaluated)
    assert three.marks[-1].position == len(three.events) - 1
    assert three.live_bytes()[-1] == evaluated.live_bytes()[-1]


def test_a_step_that_frees_what_does_not_come_again_is_not_repeated() -> None:
    two = training()
    once = replace(two, events=(*two.events, -1))  # a parameter
    assert with_third_step(once) == once
