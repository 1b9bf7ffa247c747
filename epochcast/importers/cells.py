"""One cell to one value, or a sentence that says what is allowed there.

Numbers are written as programs write them: ``1234.5``, ``1e-3``. A comma is refused, because
``1,234`` is a thousand to some and one and a bit to others.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import get_args

from epochcast.errors import UsageError
from epochcast.importers.table import Cell, is_empty
from epochcast.records import Precision, SizeValue, parse_size_value

LARGEST = 2**63 - 1  # what JSON and databases hold
TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
PRECISIONS = {
    "fp32": "32 float32 torch.float32 32-true",
    "bf16": "bfloat16 torch.bfloat16 bf16-mixed",
    "fp16": "16 float16 torch.float16 16-mixed half",
}
_PRECISION = {alias: name for name, text in PRECISIONS.items() for alias in (name, *text.split())}


def amount(cell: Cell) -> float:
    """A positive number.

    Raises:
        ValueError: the cell holds none.
    """
    if isinstance(cell, str) and "," in cell:
        raise ValueError(f"expected a number without commas, such as 1234.5, but got {cell!r}")
    try:
        value = math.nan if isinstance(cell, bool) or _odd(cell) else float(cell)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"expected a positive number, but got {_shown(cell)}")
    return value


def _odd(cell: Cell) -> bool:
    return isinstance(cell, str) and "_" in cell  # Python's own 1_000


def amounts(cell: Cell) -> tuple[float, ...]:
    """Positive numbers: a list in JSON, or divided by blanks, ``;`` or ``|`` in a cell of text.

    Raises:
        ValueError: one is no positive number, or there is none.
    """
    parts: Iterable[Cell] = (cell,)
    if isinstance(cell, str):
        parts = [part for part in re.split(r"[\s;|]+", cell.strip("[] \t\n")) if part]
    elif isinstance(cell, list):
        parts = cell
    values = tuple(amount(part) for part in parts)
    if not values:
        raise ValueError(f"expected positive numbers, but got {_shown(cell)}")
    return values


def whole(cell: Cell, least: int = 1) -> int:
    """A whole number.

    Raises:
        ValueError: the cell holds none, or one below ``least``.
    """
    expected = f"expected a whole number of at least {least}, but got {_shown(cell)}"
    if least == 0 and str(cell).strip() in ("0", "0.0"):
        return 0
    try:
        value = amount(cell)
    except ValueError as error:
        raise ValueError(expected if "," not in str(cell) else str(error)) from error
    if value != int(value) or not least <= value <= LARGEST:
        raise ValueError(expected)
    return int(value)


def truth(cell: Cell) -> bool:
    """Yes or no.

    Raises:
        ValueError: the cell says neither.
    """
    found = TRUTHS.get(str(cell).strip().lower())
    if found is None:
        raise ValueError(f"expected true or false, but got {_shown(cell)}")
    return found


def precision(cell: Cell) -> str:
    """The precision of autocast.

    Raises:
        ValueError: the cell names none that is known.
    """
    found = _PRECISION.get(str(cell).strip().lower())
    if found is None:
        allowed = ", ".join(get_args(Precision))
        raise ValueError(f"expected one of {allowed}, but got {_shown(cell)}")
    return found


def name(cell: Cell) -> str:
    """A text that is not empty.

    Raises:
        ValueError: the cell is not a text.
    """
    if isinstance(cell, list | dict) or is_empty(cell):
        raise ValueError(f"expected a name, but got {_shown(cell)}")
    return str(cell).strip()


def knob(cell: Cell) -> SizeValue:
    """The value of a model-size knob; 256.0, as pandas writes whole numbers beside gaps, is 256.

    Raises:
        ValueError: the cell is a list or an object, or a number that is too large.
    """
    try:
        value = parse_size_value(cell) if isinstance(cell, str) else cell
    except (UsageError, ValueError) as error:
        raise ValueError(str(error)) from error
    if not isinstance(value, bool | int | float | str):
        raise ValueError(f"expected a number or a text, but got {_shown(cell)}")
    if isinstance(value, int | float) and abs(value) > LARGEST:
        raise ValueError(f"expected a smaller number, but got {_shown(cell)}")
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _shown(cell: Cell) -> str:
    text = "nothing" if is_empty(cell) else repr(cell)
    return text if len(text) <= 60 else f"{text[:57]}…"
