"""How fitting grows: CPU seconds, bytes of the stored model, seconds of a prediction.

    configurations   10 … 5,000 distinct ones of batch size × width × depth, with and without counts
    knobs            60 configurations of ten knobs that vary; of twenty, of which one does

Each fit has a process of its own, which the system ends after ``LIMIT`` seconds of CPU time;
more configurations are not tried then.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import exp
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import epochcast as ec
from epochcast.records import Footprint, Measurement

from .designs import DEVICES, SAMPLES, generator
from .tables import table

LIMIT = 60  # seconds of CPU time
COUNTS = (10, 30, 100, 300, 600, 1000, 2000, 5000)
SOME = 60  # configurations, where knobs are counted
VARIED, CONSTANT = 10, 19
ASKED = 20  # predictions, of which the mean is taken


@dataclass(frozen=True, slots=True, kw_only=True)
class Grown:
    """One fit; numbers are None where it did not end in time."""

    name: str
    configurations: int
    counted: bool
    fit_seconds: float | None = None
    model_bytes: int | None = None
    predict_seconds: float | None = None


def grow(counts: Sequence[int] = COUNTS, limit: int = LIMIT) -> Iterator[Grown]:
    """One fit after another; those that would take longer than one that did not end are left out.

    Args:
        counts: numbers of configurations, ascending.
        limit: seconds of CPU time of one fit.
    """
    for name in (f"{CONSTANT + 1} knobs, {CONSTANT} constant", f"{VARIED} knobs"):
        yield _apart(name, SOME, False, limit)
    for counted in (False, True):
        for n in counts:
            found = _apart("batch, width, depth", n, counted, limit)
            yield found
            if found.fit_seconds is None:
                break


def text(grown: Sequence[Grown]) -> str:
    """As a Markdown table."""
    head = ("what varies", "configurations", "counts", "fit", "model", "a prediction")
    rows = [
        (
            g.name,
            f"{g.configurations:,}",
            "yes" if g.counted else "no",
            f"> {LIMIT} s" if g.fit_seconds is None else f"{g.fit_seconds:.2f} s",
            "–" if g.model_bytes is None else f"{g.model_bytes / 1024:,.0f} KiB",
            "–" if g.predict_seconds is None else f"{1e3 * g.predict_seconds:.1f} ms",
        )
        for g in grown
    ]
    return table(head, rows)


def _apart(name: str, n: int, counted: bool, limit: int) -> Grown:
    """One fit in a process of its own."""
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, name, n, counted, limit))
    process.start()
    sender.close()
    try:
        found: Grown = receiver.recv()
    except EOFError:  # it was ended
        found = Grown(name=name, configurations=n, counted=counted)
    process.join()
    return found


def _send(sender: Any, name: str, n: int, counted: bool, limit: int) -> None:
    used = round(time.process_time())
    resource.setrlimit(resource.RLIMIT_CPU, (used + limit, used + limit))
    sender.send(one(name, n, counted))


def one(name: str, n: int, counted: bool) -> Grown:
    """Fit, store and ask.

    Args:
        name: what varies.
        n: configurations.
        counted: whether they have counts.
    """
    known = measurements(name, n, counted)
    started = time.process_time()
    model = ec.fit(known)
    fitted = time.process_time()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.json"
        model.save(path)
        size = path.stat().st_size
    asked = known[0].config
    before = time.process_time()
    for i in range(ASKED):
        model.predict(epochs=1, batch_size=asked.batch_size + i, **dict(asked.sizes))
    return Grown(
        name=name,
        configurations=n,
        counted=counted,
        fit_seconds=fitted - started,
        model_bytes=size,
        predict_seconds=(time.process_time() - before) / ASKED,
    )


def measurements(name: str, n: int, counted: bool) -> list[Measurement]:
    """So many distinct configurations, each measured once with 2 % of noise.

    Args:
        name: what varies.
        n: configurations.
        counted: whether they have counts.
    """
    rng = generator("growth", name, n)
    found: dict[tuple[object, ...], Measurement] = {}
    while len(found) < n:
        batch = int(rng.integers(8, 513))
        knobs = _knobs(rng, name)
        work = batch * float(np.prod([v / 100 for v in knobs.values()]))
        m = Measurement.from_epochs(
            "growth",
            batch,
            step_seconds=[(2e-3 + 1e-5 * work) * exp(rng.normal(0, 0.02))],
            samples=SAMPLES,
            device=DEVICES["cuda"],
            sizes=knobs,
            created_at="2026-01-01T00:00:00",
            footprint=_footprint(work, knobs) if counted else None,
        )
        found.setdefault((batch, *knobs.values()), m)
    return list(found.values())


def _knobs(rng: np.random.Generator, name: str) -> dict[str, int]:
    if name.startswith("batch"):
        return {"width": int(rng.integers(64, 1025)), "depth": int(rng.integers(2, 25))}
    varied = VARIED if name == f"{VARIED} knobs" else 1
    total = VARIED if varied == VARIED else CONSTANT + 1
    return {f"k{i:02}": int(rng.integers(50, 200)) if i < varied else 100 for i in range(total)}


def _footprint(work: float, knobs: Mapping[str, int]) -> Footprint:
    return Footprint.of_counts(
        flops=round(1e9 * work),
        aligned_flops=round(1e9 * work),
        bytes_moved=round(1e6 * work + 1e8),
        operators=50 * knobs["depth"],
        parameters=knobs["depth"] * knobs["width"] ** 2,
    )
