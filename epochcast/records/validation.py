"""Checks that records make of themselves, and the one place that knows what a number is.

    np.float32(0.5)  ──plain──▶  0.5  ──is_number──▶  True       True, "5", [5], None  ──▶  False

``number``, ``whole`` and ``numbers`` make a value of any library Python's own, or say by its name
what was expected. A number in a text is read by ``importers.columns`` and ``units``.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from numbers import Real
from operator import index
from typing import Any, TypeGuard

LARGEST_FLOAT = sys.float_info.max


def require(condition: bool, message: str) -> None:
    """Refuse what a record must not hold.

    Raises:
        ValueError: the condition does not hold.
    """
    if not condition:
        raise ValueError(message)


def require_seconds(record: object, *names: str) -> None:
    """Refuse fields of a record that are no times, or series with one that is none.

    Raises:
        ValueError: a time is negative or not finite.
    """
    for name in names:
        value = getattr(record, name)
        samples = (value,) if isinstance(value, int | float) else value
        require(
            all(math.isfinite(x) and x >= 0 for x in samples),
            f"{name} must be finite and not negative",
        )


def require_within(record: object, low: float, high: float, *names: str) -> None:
    """Refuse fields of a record that are no finite numbers within bounds; None is unknown.

    Args:
        record: whose fields are looked at.
        low: the least that makes sense.
        high: the most.
        names: of the fields.

    Raises:
        ValueError: one is not.
    """
    for name in names:
        value = getattr(record, name)
        within = value is None or low <= value <= high
        require(within, f"{name} must lie between {low:g} and {high:g}, but got {shown(value)}")


def plain(value: Any) -> Any:
    """A scalar of numpy, torch or any other kind as one of Python's; anything else as it is."""
    if hasattr(value, "item") and not getattr(value, "shape", ()):
        value = value.item()
    if isinstance(value, bool):
        return value
    try:
        return index(value)
    except TypeError:
        return float(value) if isinstance(value, Real) else value


def is_number(value: object) -> TypeGuard[float]:
    """Whether a plain value is a number, and not a yes or no."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_integer(value: object) -> TypeGuard[int]:
    """Whether a plain value is a whole number as Python writes one: 2.0 is none, nor is True."""
    return is_number(value) and isinstance(value, int)


def is_finite(number: float) -> bool:
    """As ``math.isfinite``, which fails for whole numbers beyond those of floating point."""
    return -LARGEST_FLOAT <= number <= LARGEST_FLOAT


def number(name: str, value: object) -> float:
    """A number of whatever library.

    Raises:
        ValueError: it is none.
    """
    found = plain(value)
    is_float = is_number(found) and (isinstance(found, float) or is_finite(found))
    require(is_float, f"{name} must be a number, but got {shown(found)}")
    return float(found)


def whole(name: str, value: object) -> int:
    """A whole number of whatever library.

    Raises:
        ValueError: it is none.
    """
    found = plain(value)
    is_whole = is_number(found) and (isinstance(found, int) or found.is_integer())
    require(is_whole, f"{name} must be a whole number, but got {shown(found)}")
    return int(found)


def numbers(name: str, values: Iterable[object]) -> tuple[float, ...]:
    """A series of numbers of whatever library.

    Raises:
        ValueError: it is no series, or one of them is no number.
    """
    is_series = not isinstance(values, str) and hasattr(values, "__iter__")
    require(is_series, f"{name} must be a series of numbers, but got {shown(values)}")
    return tuple(number(name, value) for value in values)


def shown(value: Any) -> str:
    """What was given, for the line of an error: never long, never more than that line."""
    if isinstance(value, int) and not is_finite(value):
        return "a number of over 300 digits"
    return f"{' '.join(repr(value).split()):.60}"
