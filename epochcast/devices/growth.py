"""What every step keeps: of two steps that were followed, and a run has thousands.

    step 1 │ +90 … −90  +95          95 is there after step 2, too      a list of losses with
    step 2 │ +190 … −190  +195       and so is 195                      their graphs, a buffer

What only the first step leaves is there once (a moving average made late), and what only the second
one leaves waits for the third (gradients, the last output).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from epochcast.records import DeviceSequence
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
        "until there is none, and two steps are in these numbers",
    )


def _left(sequence: DeviceSequence, step: int) -> list[int]:
    """Blocks made in a step that are there after all steps, before an evaluation."""
    evaluates = (m.position for m in sequence.marks if m.moment == "evaluate")
    end = next(evaluates, len(sequence.events))
    steps = {m.step: m.position for m in reversed(sequence.marks) if m.moment == "batch"}
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


def _bytes(sequence: DeviceSequence, blocks: Iterable[int]) -> int:
    return sum(sequence.block_bytes[block] for block in blocks)
