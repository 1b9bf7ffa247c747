"""Checks that records make of themselves, and the one place that knows what a number is.

np.float32(0.5)  ──plain──▶  0.5  ──is_number──▶  True        True, "5", [5], None  ──▶  False
"""

from __future__ import annotations

import math
import sys
from numbers import Real
from operator import index
from typing import Any

LARGEST_FLOAT = sys.float_info.max


def require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def require_seconds(record: object, *names: str) -> None:
    for name in names:
        value = getattr(record, name)
        samples = (value,) if isinstance(value, int | float) else value
        require(
            all(math.isfinite(x) and x >= 0 for x in samples),
            f"{name} must be finite and not negative",
        )


def plain(value: Any) -> Any:
    """A number of numpy's, or of any other kind, as one of Python's; anything else as it is."""
    if isinstance(value, bool):
        return value
    try:
        return index(value)
    except TypeError:
        return float(value) if isinstance(value, Real) else value


def is_number(value: Any) -> bool:
    """Whether a plain value is a number, and not a yes or no."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_finite(number: float) -> bool:
    """As ``math.isfinite``, which fails for whole numbers beyond those of floating point."""
    return -LARGEST_FLOAT <= number <= LARGEST_FLOAT


def shown(value: Any) -> str:
    """What was given, for the line of an error: never long, never more than that line."""
    if isinstance(value, int) and not is_finite(value):
        return "a number of over 300 digits"
    return f"{' '.join(repr(value).split()):.60}"
