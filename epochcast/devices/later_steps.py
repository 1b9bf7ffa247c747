"""What the steps after the two that were followed do; a run has thousands.

    step 1 │ +90 … −90  +95          95 is there after step 2, too      a list of losses with
    step 2 │ +190 … −190  +195       and so is 195                      their graphs, a buffer
    step 3 │ +290 … −290  +295       as step 2, in a cache that both have cut up

What only the first step leaves is there once (a moving average made late), and what only the second
one leaves waits for the third (gradients, the last output).
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from epochcast.records import DeviceSequence, StepMark
from epochcast.units import format_bytes

LEAST = 2**20  # bytes a step that are told
STEADY = ("parameter", "buffer", "optimizer", "workspace", "gradient")  # kinds that do not grow


def growth(sequence: DeviceSequence) -> tuple[str, ...]:
    """A sentence, where every step keeps memory."""
    first, second = (_left(sequence, step) for step in (1, 2))
    each = min(_bytes(sequence, blocks) for blocks in (first, second))
    if each < LEAST:
        return ()
    lines = Counter[int]()
    for block in second:
        lines[sequence.block_lines[block]] += sequence.block_bytes[block]
    ((line, _),) = lines.most_common(1)
    made = f", most of it made in {sequence.lines[line]}" if line >= 0 else ""
    return (
        f"every step keeps {format_bytes(each)} that it does not give back{made}: memory grows "
        "until there is none, and three steps are in these numbers",
    )


def with_third_step(sequence: DeviceSequence) -> DeviceSequence:
    """The sequence, with what the second step did once more before the evaluation.

    The first step fills an empty cache, the second cuts up what it left, and what large blocks are
    then short of is asked for in the third: of a GPT in bfloat16 an H100 reserved 2,506 MiB, as
    three steps do, and two 2,240. More of them reserve no more.

    A sequence whose second step frees what is not there again is left as it is.
    """
    starts, end = _starts(sequence), _end(sequence)
    if 2 not in starts:
        return sequence
    second = sequence.events[starts[2] : end]
    made = [event for event in second if event > 0]
    blocks = {block: len(sequence.block_bytes) + n + 1 for n, block in enumerate(made)}
    waiting = _handed_on(sequence, second, made)
    renamed = {**{-block: -new for block, new in blocks.items()}, **blocks}
    third = [renamed.get(event) or waiting.get(event) for event in second]
    if not all(third):
        return sequence
    later = {freed: renamed[freed] for freed in waiting.values()}
    shift = len(second)

    unknown = [u for u in sequence.unknown if u.position < end]
    unknown += [
        replace(u, position=u.position + shift, block=blocks.get(u.block, u.block))
        for u in sequence.unknown
        if u.position >= starts[2]
    ]
    columns: dict[str, Any] = {name: _more(getattr(sequence, name), made) for name in _COLUMNS}
    return replace(
        sequence,
        **columns,
        events=(
            *sequence.events[:end],
            *(event for event in third if event),
            *(later.get(event, event) for event in sequence.events[end:]),
        ),
        marks=(
            *(m for m in sequence.marks if m.moment != "evaluate"),
            *(_moved(m, shift) for m in sequence.marks if m.position >= starts[2]),
        ),
        unknown=tuple(unknown),
    )


_COLUMNS = (
    "block_bytes",
    "block_kinds",
    "block_streams",
    "block_operators",
    "block_modules",
    "block_lines",
)


def _more(column: tuple[Any, ...], blocks: Sequence[int]) -> tuple[Any, ...]:
    return (*column, *(column[block - 1] for block in blocks))


def _moved(mark: StepMark, shift: int) -> StepMark:
    return replace(mark, position=mark.position + shift, step=3)


def _handed_on(
    sequence: DeviceSequence, second: Sequence[int], made: Sequence[int]
) -> dict[int, int]:
    """Frees, in the second step, of what the first left, as those of the second's own like it.

    Args:
        sequence: of which it is.
        second: the second step's events.
        made: blocks that it makes.
    """
    own, freed = set(made), {-event for event in second if event < 0}
    left: dict[tuple[object, ...], deque[int]] = defaultdict(deque)

    def kind_of(block: int) -> tuple[object, ...]:
        return tuple(getattr(sequence, name)[block - 1] for name in _COLUMNS[:-1])

    for block in made:
        if block not in freed:
            left[kind_of(block)].append(block)
    alike = ((block, left[kind_of(block)]) for block in sorted(freed - own))
    return {-block: -found.popleft() for block, found in alike if found}


def _left(sequence: DeviceSequence, step: int) -> list[int]:
    """Blocks made in a step that are there after all steps, before an evaluation."""
    end, steps = _end(sequence), _starts(sequence)
    if step not in steps:
        return []
    alive: dict[int, int] = {}
    for position, event in enumerate(sequence.events[:end]):
        if event > 0:
            alive[event - 1] = position
        else:
            alive.pop(-event - 1, None)
    until = steps.get(step + 1, end)
    return [
        block
        for block, position in alive.items()
        if steps[step] <= position < until and sequence.block_kinds[block] not in STEADY
    ]


def _starts(sequence: DeviceSequence) -> dict[int, int]:
    """Where each step begins."""
    return {m.step: m.position for m in reversed(sequence.marks) if m.moment == "batch"}


def _end(sequence: DeviceSequence) -> int:
    """Where the last step ends."""
    evaluates = (m.position for m in sequence.marks if m.moment == "evaluate")
    return next(evaluates, len(sequence.events))


def _bytes(sequence: DeviceSequence, blocks: Iterable[int]) -> int:
    return sum(sequence.block_bytes[block] for block in blocks)
