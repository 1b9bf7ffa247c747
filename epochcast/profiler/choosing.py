"""A sweep that chooses its own configurations: what to measure next, and when to stop.

    round 0   five configurations that spread in feature space, from footprints, before anything ran
              then, while the choice of model is what is uncertain: the one that sharpens it most
    round 1…  a fresh process: all of them again, and again the sharpest where the model is at fault
    stop      when the 90 % interval of the answer is narrow enough, or nothing would narrow it

The profiler makes the trials and this decides on them (``profiler.chosen.Chooser``); the decision
is a function of the measurements, so a sweep that was stopped goes on where it was.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, log
from statistics import fmean, median
from typing import Any

import numpy as np

from epochcast.costmodel import design
from epochcast.costmodel import features as f
from epochcast.costmodel.fitting import fit
from epochcast.costmodel.model import CostModel, Variant
from epochcast.costmodel.prediction import Question, choose_variant, place, predict
from epochcast.profiler.chosen import Choice
from epochcast.profiler.request import SweepRequest
from epochcast.records import Footprint, Measurement, Quantiles, RunConfig

FIRST = 5  # configurations before the first fit: as many as a physical model has coefficients
MIN_ROUNDS = 2  # one round says nothing about how runs differ
MAX_ROUNDS = 6  # beyond, quantiles of Student's t hardly narrow any more
DEFAULT_UNTIL = 0.05


@dataclass(frozen=True, kw_only=True)
class State:
    """What the measurements so far say about every candidate.

    Attributes:
        measured: candidate → rounds in which it succeeded.
        failed: candidates that ran out of memory, crashed or hung.
        out_of_memory: those of them that ran out of memory.
        seconds: candidate → median wall-clock time of a trial.
    """

    measured: Mapping[int, frozenset[int]]
    failed: frozenset[int]
    out_of_memory: frozenset[int]
    seconds: Mapping[int, float]

    @property
    def taken(self) -> list[int]:
        """Candidates that need no first trial, in order of position."""
        return sorted({*self.measured, *self.failed})


class Chooser:
    """Chooses configurations for a question; see the module.

    Args:
        question: what will be asked of the model; None is every candidate alike.
        until: half the width of the answer's 90 % interval at which to stop, relative.
        seed: of the order of trials within a round.
    """

    def __init__(
        self, question: Question | None = None, until: float = DEFAULT_UNTIL, seed: int = 0
    ) -> None:
        self.question = question
        self.until = until
        self.seed = seed
        self.half_width: float | None = None
        self._candidates: Sequence[RunConfig] = ()
        self._footprints: Mapping[RunConfig, Footprint] = {}
        self._rows: list[dict[str, float]] = []

    def begin(
        self, candidates: Sequence[RunConfig], footprints: Mapping[RunConfig, Footprint]
    ) -> None:
        """Told what may be measured, and what dry runs counted of it."""
        self._candidates = candidates
        self._footprints = footprints
        self._rows = [f.variables(config, footprints.get(config)) for config in candidates]

    def next(self, measurements: Sequence[Measurement], round_: int) -> Choice:
        """What to do next in the process of this round."""
        if any(m.round > round_ for m in measurements):  # over: no later process is part of it
            return Choice(next_round=True)
        state = self._state(measurements)
        if len(state.measured) < FIRST:
            more = design.spread(self._rows, 1, self._excluding(state))
            if more:
                return Choice(trial=more[0])
        again = [i for i, rounds in state.measured.items() if round_ not in rounds]
        if again:
            return Choice(trial=random.Random(f"{self.seed}/{round_}/{len(again)}").choice(again))
        if not state.measured:
            return Choice(stop="nothing-succeeded")
        return self._after_round(measurements, state, round_)

    def _after_round(
        self, measurements: Sequence[Measurement], state: State, round_: int
    ) -> Choice:
        model = fit(measurements, self._footprints)
        self.half_width = self._half_width(model)
        if round_ + 1 >= MIN_ROUNDS and self.half_width <= self.until:
            return Choice(stop="sharp")
        variant, table = self._seen_through(model)
        asked, learned = self._asked(), variant.micro_step.learned_sds(table)
        if float(np.mean(learned[asked])) > variant.run.sd:
            best = design.sharpest(
                self._rows, self._excluding(state), learned, asked, self._costs(state)
            )
            if best is not None:
                return Choice(trial=best)
        if round_ + 1 >= MAX_ROUNDS:
            return Choice(stop="max-rounds")
        return Choice(next_round=True)

    # -- what is known ------------------------------------------------------------------------

    def _state(self, measurements: Sequence[Measurement]) -> State:
        position = {(c.batch_size, c.sizes): i for i, c in enumerate(self._candidates)}
        measured: dict[int, frozenset[int]] = {}
        failed: set[int] = set()
        out_of_memory: set[int] = set()
        seconds: dict[int, list[float]] = {}
        for m in measurements:
            index = position.get((m.config.batch_size, m.config.sizes))
            if index is None:
                continue
            seconds.setdefault(index, []).append(m.probe_seconds)
            if m.status == "ok":
                measured[index] = measured.get(index, frozenset()) | {m.round}
            else:
                failed.add(index)
                out_of_memory |= {index} if m.status == "oom" else set()
        return State(
            measured={i: rounds for i, rounds in measured.items() if i not in failed},
            failed=frozenset(failed),
            out_of_memory=frozenset(out_of_memory),
            seconds={i: median(values) for i, values in seconds.items()},
        )

    def _excluding(self, state: State) -> list[int]:
        """Not to be chosen: what was measured, and what is no smaller than what did not fit."""
        peaks = [row.get("peak_bytes", 0.0) for row in self._rows]
        enough = min((peaks[i] for i in state.out_of_memory if peaks[i]), default=float("inf"))
        return state.taken + [
            i for i, peak in enumerate(peaks) if peak >= enough and i not in set(state.taken)
        ]

    def _costs(self, state: State) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """Seconds of a trial of each candidate: as measured, else as the others take."""
        usual = fmean(state.seconds.values())
        return np.array([state.seconds.get(i, usual) for i in range(len(self._rows))])

    # -- what is asked ------------------------------------------------------------------------

    def _asked(self) -> list[int]:
        """Positions of the candidates that the question is about."""
        everything = list(range(len(self._candidates)))
        if self.question is None:
            return everything
        wanted = dict(self.question.sizes)
        some = [
            i
            for i, c in enumerate(self._candidates)
            if self.question.batch_size in (None, c.batch_size)
            and all(dict(c.sizes).get(name) == value for name, value in wanted.items())
        ]
        return some or everything

    def _half_width(self, model: CostModel) -> float:
        """Of the 90 % interval of the answer, relative to its median."""
        if self.question is not None:
            return _relative_half_width(predict(model, self.question).total_seconds)
        variant = model.variants[0]
        return fmean(
            _relative_half_width(at.step_scatter().quantiles(at.step()))
            for config in self._candidates
            for at in (place(model, variant, config, self._footprints.get(config)),)
        )

    def _seen_through(self, model: CostModel) -> tuple[Variant, f.Table]:
        """The variant that answers the question, and the variables of every candidate."""
        variant = choose_variant(model, self.question or Question(epochs=1))
        places = (place(model, variant, c, self._footprints.get(c)) for c in self._candidates)
        return variant, f.tabulate([at.variables for at in places])


def chooser_for(request: SweepRequest) -> Chooser | None:
    """The chooser that a request asks for; None where it wants every configuration measured.

    Raises:
        PredictionError: the question makes no sense.
    """
    if not request.chooses:
        return None
    until = DEFAULT_UNTIL if request.until is None else request.until
    return Chooser(_question(request), until, request.seed)


def _question(request: SweepRequest) -> Question | None:
    if not request.asked:
        return None
    asked: dict[str, Any] = dict(request.asked)
    counted = {name: asked.pop(name) for name in ("epochs", "steps") if name in asked}
    return Question(
        batch_size=asked.pop("batch_size", None), sizes=asked, **(counted or {"epochs": 1})
    )


def _relative_half_width(q: Quantiles) -> float:
    return exp(log(q.p95 / q.p05) / 2) - 1.0 if q.p05 > 0 else float("inf")
