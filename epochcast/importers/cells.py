"""One cell to one value, or a sentence that says what is allowed there.

Numbers are written as programs write them: ``1234.5``, ``1e-3``. A comma is refused, because
``1,234`` is a thousand to some and one and a bit to others.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import get_args

from epochcast.errors import UsageError
from epochcast.importers.table import Cell, is_empty
from epochcast.records import Precision, SizeValue, parse_size_value
from epochcast.records.validation import is_number, shown

LARGEST = 2**63 - 1  # what JSON and databases hold
TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
PRECISIONS = {
    "fp32": "32 float32 torch.float32 32-true",
    "bf16": "bfloat16 torch.bfloat16 bf16-mixed",
    "fp16": "16 float16 torch.float16 16-mixed half",
}
_PRECISION = {alias: name for name, text in PRECISIONS.items() for alias in (name, *text.split())}


def number(cell: Cell, expected: str = "a number") -> float:
    """A number, NaN and infinity included.

    Args:
        cell: as written.
        expected: what to ask for where it is none.

    Raises:
        ValueError: the cell holds none.
    """
    if isinstance(cell, str) and "," in cell:
        expected = "a number without commas, such as 1234.5"
    elif is_number(cell) or (isinstance(cell, str) and "_" not in cell):  # 1_000 is Python's own
        try:
            return float(cell)  # type: ignore[arg-type]
        except (ValueError, OverflowError):
            pass
    raise _unexpected(expected, cell)


def amount(cell: Cell) -> float:
    """A positive number.

    Raises:
        ValueError: the cell holds none.
    """
    value = number(cell, "a positive number")
    if not (math.isfinite(value) and value > 0):
        raise _unexpected("a positive number", cell)
    return value


def amounts(cell: Cell) -> tuple[float, ...]:
    """Positive numbers: a list in JSON, or divided by blanks, ``;`` or ``|`` in a cell of text.

    Raises:
        ValueError: one is no positive number, or there is none.
    """
    parts: Sequence[Cell] = cell if isinstance(cell, list) else (cell,)
    if isinstance(cell, str):
        parts = [part for part in re.split(r"[\s;|]+", cell.strip("[] \t\n")) if part]
    if not parts:
        raise _unexpected("positive numbers", cell)
    return tuple(amount(part) for part in parts)


def whole(cell: Cell, least: int = 1) -> int:
    """A whole number.

    Raises:
        ValueError: the cell holds none, or one below ``least``.
    """
    expected = f"a whole number of at least {least}"
    value = number(cell, expected)
    if not (value.is_integer() and least <= value <= LARGEST):
        raise _unexpected(expected, cell)
    return int(value)


def count(cell: Cell) -> int:
    """A whole number, perhaps 0.

    Raises:
        ValueError: the cell holds none.
    """
    return whole(cell, 0)


def truth(cell: Cell) -> bool:
    """Yes or no.

    Raises:
        ValueError: the cell says neither.
    """
    found = TRUTHS.get(str(cell).strip().lower())
    if found is None:
        raise _unexpected("true or false", cell)
    return found


def precision(cell: Cell) -> str:
    """The precision of autocast.

    Raises:
        ValueError: the cell names none that is known.
    """
    found = _PRECISION.get(str(cell).strip().lower())
    if found is None:
        raise _unexpected(f"one of {', '.join(get_args(Precision))}", cell)
    return found


def name(cell: Cell) -> str:
    """A text that is not empty.

    Raises:
        ValueError: the cell is not a text.
    """
    if isinstance(cell, list | dict) or is_empty(cell):
        raise _unexpected("a name", cell)
    return str(cell).strip()


def knob(cell: Cell) -> SizeValue:
    """The value of a model-size knob; 256.0, as pandas writes whole numbers beside gaps, is 256.

    Raises:
        ValueError: the cell is a list or an object, or a number that is too large.
    """
    try:
        value = parse_size_value(cell) if isinstance(cell, str) else cell
    except UsageError as error:
        raise ValueError(str(error)) from error
    if not isinstance(value, bool | int | float | str):
        raise _unexpected("a number or a text", cell)
    if isinstance(value, int | float) and not abs(value) <= LARGEST:
        raise _unexpected("a smaller number", cell)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _unexpected(expected: str, cell: Cell) -> ValueError:
    return ValueError(f"expected {expected}, but got {shown(cell)}")
