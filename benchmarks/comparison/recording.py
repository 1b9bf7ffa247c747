"""Measurements of the accuracy benchmark as a file: one line about the machine, one per trial.

Long series are thinned by averaging neighbours, which is what ``steps_per_sample`` is for, and
numbers are cut to six digits: the file is for a repository.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from epochcast.records import Measurement
from epochcast.records.documents import from_json, to_json

MOST_SAMPLES = 60  # of a series: six and more in each of the nine blocks that are averaged
DIGITS = 6


def write(path: Path, about: dict[str, Any], measurements: Iterable[Measurement]) -> None:
    """Write a header and the measurements, in the order they were made.

    Args:
        path: of the file.
        about: where and when it was measured.
        measurements: in any order.
    """
    ordered = sorted(measurements, key=lambda m: m.created_at)
    lines = [json.dumps(about), *(to_json(thinned(m)) for m in ordered)]
    # without name and time, so that the same measurements make the same file
    with path.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as packed:
        packed.write(("\n".join(lines) + "\n").encode())


def read(path: Path) -> tuple[dict[str, Any], list[Measurement]]:
    """The header and the measurements."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        about = json.loads(next(lines))
        return about, [from_json(line, Measurement) for line in lines]


def thinned(m: Measurement) -> Measurement:
    """The same trial in fewer samples, without what only makes sense on its own machine."""
    every = max(1, -(-len(m.step_seconds) // MOST_SAMPLES))
    series = ("step_seconds", "data_wait_seconds", "update_seconds")
    changes: dict[str, Any] = {name: averaged(getattr(m, name), every) for name in series}
    changes["steps_per_sample"] = m.steps_per_sample * every
    for name in ("loader_seconds", "eval_batch_seconds"):
        samples = getattr(m, name)
        changes[name] = averaged(samples, max(1, -(-len(samples) // MOST_SAMPLES)))
    for name in (f.name for f in fields(m) if f.name.endswith("_seconds")):
        changes[name] = _short(changes.get(name, getattr(m, name)))
    return replace(m, log=None, trace=None, **changes)


def averaged(samples: Sequence[float], every: int) -> tuple[float, ...]:
    """Means of so many neighbours; a rest that does not fill one is left out."""
    if every == 1:
        return tuple(samples)
    whole = len(samples) // every
    return tuple(fmean(samples[i * every : (i + 1) * every]) for i in range(whole))


def _short(seconds: Any) -> Any:
    if isinstance(seconds, tuple):
        return tuple(_short(value) for value in seconds)
    return float(f"{seconds:.{DIGITS}g}")
