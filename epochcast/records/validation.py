"""Checks that records make of themselves."""

from __future__ import annotations

import math


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
