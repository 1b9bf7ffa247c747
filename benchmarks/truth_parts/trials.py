"""One case: fit, ask everywhere, and check two laws of a path through the predictions.

along the knob     where measured times rise with it at every batch size, predicted ones do not
                   fall, from half the least value to twice the largest; and the reverse
along the batch    likewise; and from a measured batch size to the next one the time does not
                   jump: it grows by no more than the batch does
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import log
from statistics import fmean

import numpy as np

import epochcast as ec
from epochcast.errors import PredictionError

from . import scoring
from .designs import USUAL, Case, Drawn, draw, places, question, run_sd

FALLS = 1e-3  # relative: less is rounding
KNOB_POINTS, BATCH_POINTS = 9, 12
LAWS_UNDER = (0.005, 0.02)  # noise, with two rounds
LAWS_EVERY = 4  # truth of a kind: a path asks more than all places together


@dataclass(frozen=True, slots=True, kw_only=True)
class Law:
    """Pairs of neighbours along a path, how many of them fall, and jumps at measured points."""

    pairs: int = 0
    falling: int = 0
    jumps: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a case: scores by place, refusals by place, and the laws."""

    scored: dict[str, list[scoring.Scored]] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    along_knob: Law | None = None
    along_batch: Law | None = None


def try_case(case: Case) -> Outcome:
    """Fit and ask.

    Raises:
        RuntimeError: the cost model failed; the message names the case.
    """
    try:
        return _outcome(case)
    except Exception as error:
        raise RuntimeError(f"{case} failed: {error!r}") from error


def _outcome(case: Case) -> Outcome:
    drawn = draw(case)
    model = ec.fit(drawn.measurements)
    scored: dict[str, list[scoring.Scored]] = {}
    refused: dict[str, int] = {}
    for place, batch, size in places(case, drawn):
        scored.setdefault(place, [])
        try:
            told = model.predict(**question(drawn, case, batch, size)).step_seconds
        except PredictionError:
            refused[place] = refused.get(place, 0) + 1
            continue
        truth = drawn.seconds(batch, size)
        scored[place].append(scoring.score(told, truth, run_sd(case)))
    condition = case.condition
    usual = condition.rounds == USUAL.rounds and condition.noise in LAWS_UNDER
    checked = usual and case.seed % LAWS_EVERY == 0
    return Outcome(
        scored=scored,
        refused=refused,
        along_knob=along_knob(model, drawn, case) if checked else None,
        along_batch=along_batch(model, drawn, case) if checked else None,
    )


def along_knob(model: ec.CostModel, drawn: Drawn, case: Case) -> Law | None:
    """None where the measured times neither rise nor fall with the knob at every batch size."""
    values = drawn.values
    rows = [[_measured(drawn, batch, size) for size in values] for batch in drawn.batches]
    direction = _direction(rows) if len(values) > 2 else 0
    if not direction:
        return None
    below, beyond = drawn.kind.beyond or (values[0] // 2, 2 * values[-1])
    least = values[0] if below is None else below
    path = np.unique(np.round(np.geomspace(max(1, least), beyond, KNOB_POINTS))).astype(int)
    pairs = [
        pair
        for batch in (drawn.batches[0], drawn.batches[-1])
        for pair in pairwise(
            _asked(model, drawn, case, [(batch, int(size)) for size in path[::direction]])
        )
    ]
    return Law(pairs=len(pairs), falling=_falling(pairs))


def _direction(rows: Sequence[Sequence[float]]) -> int:
    """1 where every row rises, −1 where every row falls, else 0."""
    signs = {int(np.sign(b - a)) for row in rows for a, b in pairwise(row)}
    return signs.pop() if len(signs) == 1 else 0


def along_batch(model: ec.CostModel, drawn: Drawn, case: Case) -> Law | None:
    """None where the measured times do not rise with the batch size."""
    size, batches = drawn.values[-1], drawn.batches
    if _direction([[_measured(drawn, batch, size) for batch in batches]]) != 1:
        return None
    grid = np.round(np.geomspace(batches[0] / 2, 4 * batches[-1], BATCH_POINTS)).astype(int)
    nearby = (b for measured in batches for b in (measured, measured + 1))
    path = sorted({*map(int, grid), *nearby})
    told = dict(zip(path, _asked(model, drawn, case, [(b, size) for b in path]), strict=True))
    pairs = list(pairwise(told.values()))
    return Law(
        pairs=len(pairs),
        falling=_falling(pairs),
        jumps=tuple(_jump(b, told[b], told[b + 1]) for b in batches),
    )


def _measured(drawn: Drawn, batch: int, size: int) -> float:
    """Mean seconds of a step over rounds."""
    return fmean(
        fmean(m.step_seconds)
        for m in drawn.measurements
        if m.config.batch_size == batch and dict(m.config.sizes)[drawn.knob] == size
    )


def _asked(
    model: ec.CostModel, drawn: Drawn, case: Case, path: Sequence[tuple[int, int]]
) -> list[float]:
    return [
        model.predict(**question(drawn, case, batch, size)).step_seconds.p50 for batch, size in path
    ]


def _falling(pairs: Sequence[tuple[float, float]]) -> int:
    return sum(after < before * (1 - FALLS) for before, after in pairs)


def _jump(batch: int, here: float, there: float) -> float:
    """How far log time moves beyond what one more sample explains: none to in proportion."""
    moved, proportional = log(there / here), log((batch + 1) / batch)
    return max(moved - proportional, -moved, 0.0)
