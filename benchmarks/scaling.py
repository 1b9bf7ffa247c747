"""Steps on many devices, predicted from few: what others measured, and a simulation.

    gavel        public/gavel-scaling.csv: four networks on K80, P100 and V100, 1 … 8 devices in one
                 machine or spread over several; fitted on one and two devices, asked of 4 and 8
    simulation   truths (α, β, γ, noise, stragglers, slower links between nodes of eight), probed on
                 one to eight devices, asked of 16 … 1,024           ──▶ results/scaling.json,
                                                                         docs/scaling.md
    python benchmarks/scaling.py        from the repository root

In both, a device's batch stays what it is: a step of p devices sees p times the samples. Beside
it linear scaling (a step takes as long as on one device) and Amdahl's law, its serial part as one
and two devices say it. gavel-scaling.csv is of github.com/stanford-futuredata/gavel, commit
c4fa400 (MIT): steps of all devices together a second, so that a step takes devices / steps_per_s.
In the simulation half of the truths are Pollux's N = α + β·(p − 2), half are rings; devices differ
from step to step by σ, and the slowest is waited for.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import steps
from comparison import report

from epochcast.costmodel.scaling import Observed, World, fit_scaling, quantiles_of
from epochcast.records import Quantiles

HERE = Path(__file__).resolve().parent
TABLE, RESULT = HERE / "public" / "gavel-scaling.csv", HERE / "results" / "scaling.json"
DOCS, MARK = HERE.parent / "docs", "benchmarks/scaling.py"
METHODS = ("epochcast", "Amdahl's law", "linear scaling")
TRUTHS, SEED = 100, 18
FRESH = (101, 102)  # seeds of truths that nothing was chosen on
NODE = 8  # devices of a node in the simulation
PROBED = (World(1), World(2), World(4), World(8), World(2, 2), World(4, 2), World(8, 2))
ASKED = (16, 32, 64, 128, 256, 512, 1024)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One step that was predicted: what it took, and what each method says."""

    group: str
    devices: int
    measured: float
    answer: Quantiles
    amdahl: float
    linear: float

    @property
    def answers(self) -> tuple[float, float, float]:
        """In the order of ``METHODS``."""
        return self.answer.p50, self.amdahl, self.linear


def evaluate() -> None:
    """Predict, print, write."""
    fresh = [case for seed in FRESH for case in simulation(seed=seed)]
    parts = {"gavel": gavel(), "simulation": simulation(), "fresh": fresh}
    found = {name: summary_of(cases) for name, cases in parts.items()}
    RESULT.write_text(json.dumps(found, indent=1) + "\n")
    text = "\n\n".join(
        [
            "Fitted on one and two devices, asked of four and eight "
            f"({len(parts['gavel'])} steps that others measured):",
            markdown(found["gavel"]),
            f"{TRUTHS} simulated trainings, probed on one to eight devices in one node and on two "
            "to eight in two:",
            markdown(found["simulation"]),
            "How fast intervals widen beyond the probed worlds was chosen on these; "
            f"{len(FRESH) * TRUTHS} other trainings, drawn once it was:",
            markdown(found["fresh"]),
        ]
    )
    print(text)
    report.insert(DOCS / "scaling.md", text, MARK)


# -- what others measured ------------------------------------------------------------------------


def gavel() -> list[Case]:
    """Every step on four and eight devices of the table."""
    with TABLE.open() as file:
        rows = list(csv.DictReader(file))
    names = dict.fromkeys((row["model"], row["gpu"]) for row in rows)
    of = {n: [r for r in rows if (r["model"], r["gpu"]) == n] for n in names}
    return [case for own in of.values() for case in _of_one_training(own)]


def _of_one_training(rows: Sequence[dict[str, str]]) -> list[Case]:
    """One network on one kind of GPU, together and spread, whose single device is the same."""
    seen = [_observed(row) for row in rows]
    known = [x for x in seen if x.world.devices <= 2]
    fitted = fit_scaling(list(dict.fromkeys(known)))
    found = []
    for row, asked in zip(rows, seen, strict=True):
        if asked.world.devices > 2:
            one = _time(known, asked.configuration, World(1))
            two = _time(known, asked.configuration, _two(asked.world))
            found.append(
                Case(
                    group=f"{row['gpu']} {row['placement']}",
                    devices=asked.world.devices,
                    measured=asked.seconds,
                    answer=quantiles_of(
                        fitted.draws(asked.world, configuration=asked.configuration)
                    ),
                    amdahl=amdahl(asked.world.devices, one, two),
                    linear=one,
                )
            )
    return found


def _observed(row: dict[str, str]) -> Observed:
    """Spread devices have a node each, as far as the table tells."""
    devices = int(row["gpus"])
    return Observed(
        configuration=row["batch_size"],
        world=World(devices, devices if row["placement"] == "spread" else 1),
        seconds=devices / float(row["steps_per_s"]),
    )


def _two(world: World) -> World:
    return World(2, 2 if world.nodes > 1 else 1)


def _time(known: Iterable[Observed], configuration: str, world: World) -> float:
    return next(x.seconds for x in known if x.configuration == configuration and x.world == world)


def amdahl(devices: int, one: float, two: float) -> float:
    """A step of so many devices by Amdahl's law: its serial part f from 2 / (1 + f) = 2·t₁/t₂.

    Args:
        devices: p, which see p times the samples: t = t₁·(1 + f·(p − 1)).
        one, two: steps of one and of two devices.
    """
    return one * (1 + max(0.0, two / one - 1) * (devices - 1))


# -- simulation ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """One simulated training.

    Attributes:
        fixed, each: seconds of a micro-step, and of each sample.
        alpha, beta: of averaging within a node and across nodes.
        ring: whether N grows as a ring's, not as Pollux says.
        noise: of a measured time, relative; ``straggling``: of devices from step to step.
    """

    fixed: float
    each: float
    alpha: tuple[float, float]
    beta: tuple[float, float]
    gamma: float
    ring: bool
    noise: float
    straggling: float

    def step(self, world: World, batch: int, rng: np.random.Generator) -> float:
        """Seconds of a step in the mean of many.

        Args:
            world: devices and nodes.
            batch: samples of a device.
            rng: of the stragglers.
        """
        g, p = self.fixed + self.each * batch, world.devices
        g *= float(np.mean(np.max(1 + self.straggling * rng.standard_normal((400, p)), axis=1)))
        alpha, beta = self.alpha[world.nodes > 1], self.beta[world.nodes > 1]
        sent = 2 * (1 - 1 / p) if self.ring else 1.0
        averaging = alpha * sent + beta * (p - 2) if p > 1 else 0.0
        return float((g**self.gamma + averaging**self.gamma) ** (1 / self.gamma))


def draw(rng: np.random.Generator) -> Truth:
    """One training, as wide as clusters differ: see ``docs/scaling.md``."""

    def between(low: float, high: float) -> float:
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))

    fixed, each = between(0.01, 0.1), between(0.0005, 0.005)
    within = (fixed + 64 * each) * between(0.01, 0.5)
    across = within * between(1.5, 15)
    return Truth(
        fixed=fixed,
        each=each,
        alpha=(within, across),
        beta=(within * between(0.003, 0.3), across * between(0.001, 0.1)),
        gamma=between(1, 8),
        ring=bool(rng.random() < 0.5),
        noise=between(0.003, 0.03),
        straggling=between(0.002, 0.03),
    )


def simulation(truths: int = TRUTHS, seed: int = SEED) -> list[Case]:
    """Every truth, asked of every world, at the batch size in the middle."""
    rng = np.random.default_rng(seed)
    return [case for _ in range(truths) for case in _of_one_truth(draw(rng), rng)]


def _of_one_truth(truth: Truth, rng: np.random.Generator) -> list[Case]:
    def measured(world: World, batch: int) -> Observed:
        noisy = truth.step(world, batch, rng) * float(np.exp(truth.noise * rng.standard_normal()))
        return Observed(configuration=str(batch), world=world, seconds=noisy)

    known = [measured(world, batch) for batch in (32, 64, 128) for world in PROBED]
    fitted = fit_scaling(known)
    one, two = (_time(known, "64", world) for world in (World(1), World(2, 2)))
    return [
        Case(
            group="ring" if truth.ring else "Pollux",
            devices=devices,
            measured=truth.step(World(devices, devices // NODE), 64, rng),
            answer=quantiles_of(fitted.draws(World(devices, devices // NODE), configuration="64")),
            amdahl=amdahl(devices, one, two),
            linear=one,
        )
        for devices in ASKED
    ]


# -- tables ----------------------------------------------------------------------------------------


def summary_of(cases: Sequence[Case]) -> list[dict[str, Any]]:
    """A row for all cases, for each number of devices, and for each group."""
    rows = [_row("all", cases)]
    for devices in sorted({case.devices for case in cases}):
        rows.append(_row(f"{devices:,} devices", [c for c in cases if c.devices == devices]))
    for group in dict.fromkeys(case.group for case in cases):
        rows.append(_row(group, [c for c in cases if c.group == group]))
    return rows


def _row(name: str, cases: Sequence[Case]) -> dict[str, Any]:
    errors = np.array([[abs(x / c.measured - 1) for x in c.answers] for c in cases])
    inside = [c.answer.p05 <= c.measured <= c.answer.p95 for c in cases]
    return {
        "cases": name,
        "count": len(cases),
        **dict(zip(METHODS, np.median(errors, axis=0).round(4).tolist(), strict=True)),
        "p90": round(float(np.quantile(errors[:, 0], 0.9)), 4),
        "in_p05_p95": round(float(np.mean(inside)), 4),
        "width": round(float(np.median([c.answer.p95 / c.answer.p05 for c in cases])), 2),
    }


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a table: median errors of all methods, and what epochcast's intervals hold."""
    heads = ("", "steps", *METHODS, "P90 of the error", "in P5–P95", "P95 / P5")
    lines = [f"| {' | '.join(heads)} |", f"| {' | '.join('---' for _ in heads)} |"]
    for row in rows:
        errors = [report.percent(row[name]) for name in METHODS]
        cells = [row["cases"], str(row["count"]), *errors, report.percent(row["p90"])]
        cells += [report.percent(row["in_p05_p95"], 0), f"{row['width']:.2g}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    steps.run(__doc__, evaluate)
