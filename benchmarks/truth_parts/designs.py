"""What is measured of a truth, under which noise, and where it is asked.

    design        batch sizes × values of the knob, with or without counts
    condition     noise, rounds, kind of device
    case          one truth drawn from a seed × design × condition: one fit
    place         one question to it

The noise s is the standard deviation of log time from run to run; epochs of a run differ by s/2.
Everything is drawn from a case's own name: it does not depend on what else is run.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import exp, log
from typing import Any

import numpy as np

from epochcast.records import Measurement

from .kinds import KINDS, Draw, Kind, Truth

SAMPLES, EPOCHS = 50_000, 4
DEVICES = {"cuda": "NVIDIA A100 (cuda)", "cpu": "AMD EPYC (cpu)"}

MEASURED, INSIDE, TWICE, FOUR_TIMES = "measured", "batch inside", "batch 2x", "batch 4x"
BETWEEN, BEYOND, BELOW = "size inside", "size 2x", "size half"
PLACES = (MEASURED, INSIDE, TWICE, FOUR_TIMES, BETWEEN, BEYOND, BELOW)


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """Batch sizes of each of so many values of the knob; epochs, or so many steps a trial."""

    name: str
    batches: tuple[int, ...] = (32, 64, 256)
    values: int = 1
    counted: bool = False
    steps: int = 0


DESIGNS = (
    Design(name="3 batches"),
    Design(name="5 batches", batches=(16, 32, 64, 128, 256)),
    Design(name="3 batches", counted=True),
    Design(name="3 x 3", values=3),
    Design(name="3 x 3", values=3, counted=True),
    Design(name="3 x 4", values=4),
    Design(name="3 x 4", values=4, counted=True),
)
STEPS = (30, 100, 300, 1000)
STEP_DESIGNS = tuple(
    Design(name=f"{n} steps, 3 x {values}", values=values, steps=n)
    for n, values in product(STEPS, (1, 3))
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """Noise as a standard deviation of log time, rounds, and the kind of device."""

    noise: float
    rounds: int
    device: str = "cuda"


USUAL = Condition(noise=0.02, rounds=2)  # in which every design is tried with every seed
CONDITIONS = (
    USUAL,
    Condition(noise=0.005, rounds=2),
    Condition(noise=0.08, rounds=2),
    Condition(noise=0.02, rounds=3),
    Condition(noise=0.08, rounds=3),
    *(Condition(noise=s, rounds=1, device=d) for d in DEVICES for s in (0.005, 0.02, 0.08)),
)
TAIL_CONDITIONS = 2  # of these, for raw steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One fit."""

    kind: str
    seed: int
    design: Design
    condition: Condition


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """The truth of a case, and what was measured of it."""

    truth: Truth
    kind: Kind
    batches: tuple[int, ...]
    values: tuple[int, ...]
    measurements: tuple[Measurement, ...]

    @property
    def knob(self) -> str:
        """What the knob is called."""
        return self.kind.knob

    def seconds(self, batch: int, size: int) -> float:
        """Of a true step, in the mean over an epoch."""
        return self.truth.seconds(batch, size) * (self.kind.tail.mean if self.kind.tail else 1.0)


def cases(
    kinds: Sequence[str], seeds: int, noises: Sequence[float] = (), rounds: Sequence[int] = ()
) -> Iterator[Case]:
    """Seed by seed: every design under the usual condition, of which the others take turns.

    Args:
        kinds: names of kinds.
        seeds: how many truths of each kind.
        noises: only these; all by default.
        rounds: likewise.
    """
    for seed, kind in product(range(seeds), kinds):
        tail = KINDS[kind].tail
        designs = STEP_DESIGNS if tail else DESIGNS
        for position, condition in enumerate(CONDITIONS[:TAIL_CONDITIONS] if tail else CONDITIONS):
            wanted = condition.noise in (noises or (condition.noise,))
            if wanted and condition.rounds in (rounds or (condition.rounds,)):
                turn = 2 * seed + position
                some = designs if condition == USUAL else _turn(designs, turn, condition.rounds)
                for design in some:
                    yield Case(kind=kind, seed=seed, design=design, condition=condition)


def _turn(designs: Sequence[Design], first: int, rounds: int) -> list[Design]:
    """Two designs where there are two rounds, else one; all have their turn."""
    return [designs[(first + i) % len(designs)] for i in range(2 if rounds == 2 else 1)]


def whole_seeds(cases: Sequence[Case], done: int) -> Sequence[Case]:
    """The cases of seeds that were ended, of which the first so many were tried."""
    if done == len(cases):
        return cases
    return [case for case in cases[:done] if case.seed != cases[done].seed]


def generator(*name: object) -> np.random.Generator:
    """Random numbers that depend on a name alone, in every process alike."""
    return np.random.default_rng(zlib.crc32(repr(name).encode()))


def draw(case: Case) -> Drawn:
    """The truth of a case, measured."""
    kind = KINDS[case.kind]
    rng = generator(case.kind, case.seed)
    truth = kind.draw(Draw(rng))
    scale = kind.scales[rng.integers(len(kind.scales))]
    four = tuple(round(v * scale) for v in kind.values)
    one = (four[rng.integers(len(four))],)
    values = {1: one, 3: (four[0], four[1], four[3]), 4: four}[case.design.values]
    return Drawn(
        truth=truth,
        kind=kind,
        batches=case.design.batches,
        values=values,
        measurements=tuple(_measure(case, kind, truth, values)),
    )


def _measure(case: Case, kind: Kind, truth: Truth, values: Sequence[int]) -> Iterator[Measurement]:
    design, condition = case.design, case.condition
    rng = generator(case)
    grid = list(product(values, design.batches))
    glitch = rng.integers(len(grid) * condition.rounds)  # the trial that has it, if any
    for round_ in range(condition.rounds):
        shared = rng.normal(0, kind.drift)
        for position, (size, batch) in enumerate(grid, round_ * len(grid)):
            step = truth.seconds(batch, size) * exp(shared + rng.normal(0, condition.noise))
            yield Measurement.from_epochs(
                f"truth-{case.kind}",
                batch,
                **_timed(rng, kind, case, step, batch, position == glitch),
                samples=SAMPLES,
                device=DEVICES[condition.device],
                sizes={kind.knob: size},
                run=round_,
                includes_first=False,
                created_at=f"2026-01-01T00:00:0{round_}",
                config={"precision": kind.precision},
                footprint=truth.footprint(batch, size) if design.counted else None,
            )


def _timed(
    rng: np.random.Generator, kind: Kind, case: Case, step: float, batch: int, glitch: bool
) -> dict[str, Any]:
    """Epochs or steps of one trial whose usual step is known.

    Args:
        rng: for noise.
        kind: whose tail the steps have.
        case: the condition and the number of steps.
        step: seconds.
        batch: samples of a step.
        glitch: whether this is the trial that has one.
    """
    if kind.tail is None:
        noise = np.exp(rng.normal(0, case.condition.noise / 2, EPOCHS))
        return {"epoch_seconds": step * SAMPLES / batch * noise}
    steps = step * kind.tail.factors(rng, case.design.steps)
    steps[rng.integers(len(steps))] += kind.tail.glitch * glitch
    return {"step_seconds": steps}


def places(case: Case, drawn: Drawn) -> list[tuple[str, int, int]]:
    """What is asked: where it lies, the batch size, and the value of the knob."""
    rng = generator(case, "places")
    batches, values = drawn.batches, drawn.values
    some = [values[i] for i in rng.permutation(len(values))]
    found = [(MEASURED, int(rng.choice(batches)), some[i % len(some)]) for i in range(3)]
    found += [(INSIDE, _inside(rng, batches), some[i % len(some)]) for i in range(3)]
    found += [(TWICE, 2 * batches[-1], value) for value in some]
    found += [(FOUR_TIMES, 4 * batches[-1], value) for value in some]
    if len(values) > 1:
        below, beyond = drawn.kind.beyond or (values[0] // 2, 2 * values[-1])
        unseen = [_inside(rng, values) for _ in range(5)]
        found += [(BETWEEN, int(rng.choice(batches)), value) for value in unseen[:3]]
        found += [(BETWEEN, _inside(rng, batches), value) for value in unseen[3:]]
        outside = (*batches, _inside(rng, batches))
        found += [(BEYOND, batch, beyond) for batch in outside]
        found += [(BELOW, batch, below) for batch in outside if below is not None]
    return found


def _inside(rng: np.random.Generator, known: Sequence[int]) -> int:
    """A whole number within the range that is none of those known, log-uniformly from 1 on."""
    while True:
        value = round(exp(rng.uniform(log(max(1, known[0])), log(known[-1]))))
        if value not in known:
            return value


def question(drawn: Drawn, case: Case, batch: int, size: int) -> dict[str, Any]:
    """The arguments of ``predict``.

    Args:
        drawn: what was measured.
        case: that it belongs to.
        batch: the batch size asked for.
        size: the value of the knob asked for.
    """
    footprint = drawn.truth.footprint(batch, size) if case.design.counted else None
    return {"epochs": 1, "batch_size": batch, "footprint": footprint, drawn.knob: size}


def run_sd(case: Case) -> float:
    """Of the logarithm of a later run's time."""
    return float(np.hypot(case.condition.noise, KINDS[case.kind].drift))
