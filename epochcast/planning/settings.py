"""Single settings of a request: whole, a number, within bounds; an error names what was given."""

from __future__ import annotations

from math import inf
from typing import Any

from epochcast.errors import UsageError
from epochcast.records.validation import LARGEST_FLOAT, is_number, shown


def numbers(setting: Any) -> tuple[float, ...]:
    """Those in a setting that may be one, several, a word, a cadence or None."""
    values = setting if isinstance(setting, tuple) else (setting,)
    return tuple(value for value in values if isinstance(value, int | float))


def require_whole(name: str, value: Any, *words: str) -> None:
    if isinstance(value, str) and value in words:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        others = "".join(f" or {word!r}" for word in words if word)
        raise UsageError(f"{name} must be a whole number{others}, but got {shown(value)}")


def require_number(name: str, value: Any) -> None:
    if not is_number(value):
        raise UsageError(f"{name} must be a number, but got {shown(value)}")
    if abs(value) > LARGEST_FLOAT and isinstance(value, int):  # inf has a message of its own
        raise UsageError(f"{name} must be at most {LARGEST_FLOAT:.2g}, but got {shown(value)}")


def require_not_negative(name: str, value: float) -> None:
    if value < 0:
        raise UsageError(f"{name} must not be negative, but got {shown(value)}")
    if not value < inf:  # NaN is not either; isfinite fails for the largest whole numbers
        raise UsageError(f"{name} must be finite, but got {shown(value)}")


def require_positive(name: str, value: float | None) -> None:
    if value is not None and not 0 < value < inf:
        raise UsageError(f"{name} must be positive, but got {shown(value)}")


def require_at_most(name: str, value: float | None, most: float) -> None:
    if value is not None and value > most:
        raise UsageError(f"{name} must be at most {most:,}, but got {shown(value)}")
