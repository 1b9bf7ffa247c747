"""What is compared: one quantity of one configuration, as measured and as everyone predicts it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from comparison.scores import relative_error
from epochcast.records import Quantiles, RunConfig
from epochcast.records.documents import to_builtins

EPOCHCAST, WITHOUT = "epochcast", "epochcast, no dry run"
NOISE = "measured again"
STEP, PEAK, DEVICE = QUANTITIES = ("step seconds", "peak bytes", "device bytes")

Answer = float | Quantiles | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One quantity of one held-out configuration, as measured and as everyone predicts it.

    Attributes:
        quantity: ``"step seconds"``, ``"peak bytes"`` or ``"device bytes"``.
        measured: its median over the later rounds.
        later: of each later round.
        answers: by method.
        probing_seconds: of everything that was fitted on.
    """

    workload: str
    split: str
    quantity: str
    config: RunConfig
    measured: float
    later: tuple[float, ...]
    answers: dict[str, Answer]
    probing_seconds: float

    def error(self, method: str) -> float | None:
        """Of the median that a method predicts."""
        answer = self.answers.get(method)
        if answer is None:
            return None
        middle = answer.p50 if isinstance(answer, Quantiles) else answer
        return relative_error(middle, self.measured)


def document(head: Mapping[str, Any], cases: Sequence[Case]) -> str:
    """JSON with a case on each line, so that versions of it can be compared."""
    lines = ",\n".join(json.dumps(_rounded(to_builtins(case))) for case in cases)
    return (
        json.dumps(_rounded(head), indent=1).removesuffix("\n}")
        + f',\n "cases": [\n{lines}\n]\n}}\n'
    )


def _rounded(value: Any) -> Any:
    """The same document with numbers of six digits."""
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(part) for part in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value
