"""Columns that were taken for knobs, and what their values say against it.

whole numbers beside the word gpus      4, 8                       how many? asked
a fraction of its own in every row      0.812, 0.833, 0.851        a result? asked
numbers where a device has a name       4                          how many, or which one? asked
a kind where a device has a name        cuda:0                     asked
another value from epoch to epoch       0.61, 0.66                 a result: refused
no value in some rows of a workload                                refused
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from epochcast.importers.columns import KNOB, Column
from epochcast.importers.entries import Entry
from epochcast.importers.names import MAY_COUNT
from epochcast.importers.roles import spelled
from epochcast.importers.rows import Row, as_typed

KIND = re.compile(r"(?:cuda|gpu|mps|xpu|tpu|xla|hip|npu)(?::\d+)?", re.IGNORECASE)
MANY_ROWS, MANY_FIGURES = 3, 2  # from which on a column looks measured


def require_names_of_devices(
    rows: Sequence[Row], columns: Sequence[Column], device: str | None
) -> None:
    """Ask what numbers mean in a column that may name a device, count devices or number them.

    Args:
        rows: of the training.
        columns: as they were read.
        device: as the user says it, which goes before the column.
    """
    for column in columns:
        cells = [str(row.cells.get(column.name, "")).strip() for row in rows]
        if column.role != "device" or column.said:
            continue
        kind = next(filter(KIND.fullmatch, cells), None)
        if kind and device is None:
            raise rows[0].wrong(
                f"{kind} may be any device of its kind: say which it was with --device", column.name
            )
        if all(map(str.isdigit, cells)):
            raise rows[0].wrong(
                f"{cells[0]} is no name of a device: if it is how many there were, "
                f"{as_typed('--map', 'world_size', column.name)}; if it is which one, "
                f"{as_typed('--ignore', column.name)}",
                column.name,
            )


def require_no_count_of_devices(rows: Sequence[Row], columns: Sequence[Column]) -> None:
    """Ask whether a knob that names devices counts those that share the samples."""
    for column in columns:
        words = " ".join(spelled(column.name)).partition(" per ")[0].split()
        if column.role != KNOB or column.said or MAY_COUNT.isdisjoint(words):
            continue
        cells = [str(row.cells.get(column.name, "")).strip() for row in rows]
        if all(map(str.isdecimal, cells)) and set(cells) - {"0", "1"}:
            raise rows[0].wrong(
                f"it may count devices: {as_typed('--map', 'world_size', column.name)} if these "
                f"share the samples of a run, {as_typed('--map', column.name, column.name)} if it "
                "is something else that is known before a run, else "
                f"{as_typed('--ignore', column.name)}",
                column.name,
            )


def require_known_before(rows: Sequence[Row], columns: Sequence[Column]) -> None:
    """Ask whether a column is a knob that has another value in every row, as results do.

    That is another fraction, or in a log of steps a whole number that goes on rising.
    """
    steps = [_numbers(rows, column) for column in columns if column.role == "step"]
    is_log = any(map(_rises, steps))
    for column in columns:
        if column.role == KNOB and not column.said and len(rows) >= MANY_ROWS:
            values = [row.cells.get(column.name) for row in rows]
            is_result = all(map(_is_measured, values)) and len(set(map(str, values))) == len(values)
            if is_result or (is_log and _rises(_numbers(rows, column))):
                raise rows[0].wrong(
                    "every row has another value, as a result or a count has: leave it out "
                    f"with {as_typed('--ignore', column.name)}, or say that it is known before a "
                    f"run with {as_typed('--map', column.name, column.name)}",
                    column.name,
                )


def _numbers(rows: Sequence[Row], column: Column) -> list[float]:
    """Those of a column, or none where not all are whole."""
    cells = [str(row.cells.get(column.name, "")).strip() for row in rows]
    return [float(cell) for cell in cells] if all(map(str.isdecimal, cells)) else []


def _rises(values: Sequence[float]) -> bool:
    return len(values) >= MANY_ROWS and all(a < b for a, b in pairwise(values))


def _is_measured(cell: object) -> bool:
    """Whether it is a number with a fraction, of two figures or more: 0.84, 12.3."""
    text = str(cell).strip().lower()
    digits = re.fullmatch(r"-?(\d+)\.(\d+)(e[-+]?\d+)?", text)
    return digits is not None and len((digits[1] + digits[2]).strip("0")) >= MANY_FIGURES


def require_same_knobs_everywhere(entries: Sequence[Entry], columns: Sequence[Column]) -> None:
    """A knob has a value in all rows of a workload or in none."""
    expected: dict[str, set[str]] = {}
    for entry in entries:
        knobs = {name for name, _ in entry.config.sizes}
        odd = min(knobs ^ expected.setdefault(entry.workload, knobs), default=None)
        if odd is not None:
            column = next(c.name for c in columns if c.knob == odd)
            problem = f"the knob {odd!r} needs a value in every row of {entry.workload}, or in none"
            raise entry.row.wrong(
                f"{problem}; {as_typed('--ignore', column)} leaves it out", column
            )


def require_same_knobs_within_runs(entries: Sequence[Entry], columns: Sequence[Column]) -> None:
    """A column that changes while the epochs of a run go up is a result, e.g. its accuracy.

    Runs of equal knobs begin with the same epoch, so a value that first comes later, where the row
    before has another, is of a run that has begun already.
    """
    groups: dict[object, list[Entry]] = {}
    for entry in entries:
        same = replace(entry.config, sizes=())
        groups.setdefault((entry.run, entry.workload, entry.device, same), []).append(entry)
    for group in groups.values():
        for column in columns:
            if column.role == KNOB:
                _require_no_late_value(group, column)


def _require_no_late_value(group: list[Entry], column: Column) -> None:
    first = min((e.epoch for e in group if e.epoch is not None), default=None)
    seen: set[object] = set()
    before: Entry | None = None
    for entry in group:
        value = dict(entry.config.sizes).get(column.knob)
        late = entry.epoch is not None and first is not None and entry.epoch > first
        if before and late and value not in seen and (before.epoch or 0) < (entry.epoch or 0):
            problem = f"it changes from epoch {before.epoch} of a run to {entry.epoch}, so it is no"
            raise entry.row.wrong(
                f"{problem} knob: {as_typed('--ignore', column.name)}", column.name
            )
        seen.add(value)
        before = entry


def require_counts_of_steps(entries: Sequence[Entry], columns: Sequence[Column]) -> None:
    """Ask whether FLOPs that are the same at every batch size are of one sample."""
    column = next((c for c in columns if c.role == "flops" and not c.each and not c.said), None)
    if column is None:
        return
    seen: dict[object, tuple[int, int]] = {}
    for entry in entries:
        flops = entry.footprint.flops if entry.footprint else 0
        batch = entry.config.batch_size
        before = seen.setdefault((entry.workload, entry.config.sizes), (batch, flops))
        if flops and before[1] == flops and before[0] != batch:
            raise entry.row.wrong(
                f"the same at batch sizes {before[0]} and {batch}, so not of a step: "
                f"{as_typed('--map', 'flops_per_sample', column.name)} if it is of one sample, "
                f"else {as_typed('--ignore', column.name)}",
                column.name,
            )
