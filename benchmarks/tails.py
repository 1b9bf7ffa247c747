"""Rare slow steps: real epochs of a simulated device beside what short trials of it predict.

    trials       3 batch sizes × 3 rounds, of 30, 100, 300 or 1,000 steps  ──▶ ec.fit ──▶ ten epochs
    real epochs  ten of each batch size, slow steps included               ──▶ the truth: their sum

A step takes 1 ms and 10 µs a sample, ± 2 %, each run ± 1 %; how steps are slow is in ``KINDS``.
Beside it: what the mean of a trial's steps says, and the median of nine block means (Lugosi &
Mendelson 2019), which epochcast used before.

    python benchmarks/tails.py
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import exp, log
from pathlib import Path
from statistics import fmean, median

import numpy as np
from comparison import report
from numpy.random import Generator
from numpy.typing import NDArray

import epochcast as ec

MARK = "benchmarks/tails.py"
RESULT = Path(__file__).parent / "results" / "tails.json"
DOCS = Path(__file__).parents[1] / "docs"

BATCH_SIZES, ROUNDS, STEPS, SEEDS = (32, 64, 256), 3, (30, 100, 300, 1000), 25
SAMPLES, EPOCHS = 50_000, 10
STEP_NOISE, RUN_NOISE = 0.02, 0.01
GLITCH = 60.0  # seconds
BLOCKS = 9

Factors = NDArray[np.float64]


def none(rng: Generator, n: int) -> Factors:
    """A quiet device."""
    return np.ones(n)


def one_in(often: int, long: float) -> Callable[[Generator, int], Factors]:
    """Independent slow steps."""
    return lambda rng, n: np.where(rng.random(n) < 1 / often, long, 1.0)


def of_any_length(rng: Generator, n: int) -> Factors:
    """One in a hundred, of lengths that differ: log-normal, σ = ½."""
    return np.where(rng.random(n) < 0.01, 10 * np.exp(rng.normal(-0.125, 0.5, n)), 1.0)


def pareto(rng: Generator, n: int) -> Factors:
    """One in a hundred, mostly short and sometimes very long: a Pareto tail of index 2.2."""
    return np.where(rng.random(n) < 0.01, 4 + 3 * rng.pareto(2.2, n), 1.0)


def lognormal(rng: Generator, n: int) -> Factors:
    """All steps alike, none of them ordinary: log-normal, σ = 1."""
    return np.exp(rng.normal(0, 1, n))


def periodic(rng: Generator, n: int) -> Factors:
    """Every fiftieth."""
    return np.where((np.arange(n) + rng.integers(50)) % 50 == 0, 10.0, 1.0)


def clustered(long: int, share: float) -> Callable[[Generator, int], Factors]:
    """So many in a row, or a share of them, from one step in a hundred times as many on."""

    def drawn(rng: Generator, n: int) -> Factors:
        starts = rng.random(n + long - 1) < 0.01 / long
        inside = np.any([starts[i : i + n] for i in range(long)], axis=0)
        return np.where(inside & (rng.random(n) < share), 10.0, 1.0)

    return drawn


KINDS: dict[str, Callable[[Generator, int], Factors]] = {
    "none": none,
    "none, and one glitch of a minute": none,
    "1 in 100 × 10": one_in(100, 10),
    "1 in 50 × 4": one_in(50, 4),
    "1 in 300 × 30": one_in(300, 30),
    "1 in 100, lengths differ": of_any_length,
    "1 in 100, Pareto": pareto,
    "log-normal": lognormal,
    "every 50th × 10": periodic,
    "5 in a row × 10": clustered(5, 1.0),
    "half of 20 in a row × 10": clustered(20, 0.5),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Ten epochs of one batch size, predicted and real.

    Attributes:
        log_ratio: log(P50 / real).
        inside_80, inside_90: whether the real ones are between P10 and P90, P5 and P95.
        width: P95 / P5.
        mean, blocks: log ratios of the mean of the trials' steps, and of their block means' median.
    """

    kind: str
    steps: int
    log_ratio: float
    inside_80: bool
    inside_90: bool
    width: float
    mean: float
    blocks: float


def step_seconds(batch_size: int) -> float:
    """Of an ordinary step."""
    return 1e-3 + 1e-5 * batch_size


def run(kind: str, batch_size: int, steps: int, rng: Generator) -> Factors:
    """Seconds of the steps of one run, (steps,)."""
    noise = np.exp(rng.normal(0, STEP_NOISE, steps)) * exp(rng.normal(0, RUN_NOISE))
    return step_seconds(batch_size) * noise * KINDS[kind](rng, steps)


def cases_of(kind: str, steps: int, seed: int) -> list[Case]:
    """One sweep, and what it predicts of each batch size.

    Args:
        kind: among ``KINDS``.
        steps: of each trial.
        seed: of everything drawn.
    """
    rng = np.random.default_rng([list(KINDS).index(kind), steps, seed])
    trials = {(b, r): run(kind, b, steps, rng) for b in BATCH_SIZES for r in range(ROUNDS)}
    if "glitch" in kind:
        some = list(trials.values())[rng.integers(len(trials))]
        some[rng.integers(steps)] += GLITCH
    model = ec.fit([_measurement(b, r, x) for (b, r), x in trials.items()])
    return [_case(kind, model, b, [trials[b, r] for r in range(ROUNDS)], rng) for b in BATCH_SIZES]


def _measurement(batch_size: int, round_: int, seconds: Factors) -> ec.Measurement:
    return ec.Measurement.from_epochs(
        "simulated",
        batch_size,
        step_seconds=seconds,
        samples=SAMPLES,
        device="simulated cuda device",
        includes_first=False,
        run=round_,
        created_at=f"2026-01-01T00:00:{round_:02d}.{batch_size:06d}+00:00",
    )


def _case(
    kind: str, model: ec.CostModel, batch_size: int, trials: Sequence[Factors], rng: Generator
) -> Case:
    steps = SAMPLES * EPOCHS // batch_size
    real = float(run(kind, batch_size, steps, rng).sum())
    found = model.predict(epochs=EPOCHS, batch_size=batch_size).total_seconds
    return Case(
        kind=kind,
        steps=len(trials[0]),
        log_ratio=log(found.p50 / real),
        inside_80=found.p10 <= real <= found.p90,
        inside_90=found.p05 <= real <= found.p95,
        width=found.p95 / found.p05,
        mean=log(fmean(x.mean() for x in trials) * steps / real),
        blocks=log(fmean(map(block_median, trials)) * steps / real),
    )


def block_median(seconds: Factors) -> float:
    """The median of the means of nine blocks."""
    whole = len(seconds) // BLOCKS * BLOCKS
    return float(np.median(seconds[:whole].reshape(BLOCKS, -1).mean(axis=1)))


# -- table ----------------------------------------------------------------------------------------


def row(cases: Sequence[Case]) -> dict[str, float]:
    """What cases of one kind have in common."""
    errors = sorted(abs(exp(c.log_ratio) - 1) for c in cases)
    return {
        "bias": exp(fmean(c.log_ratio for c in cases)) - 1,
        "median": median(errors),
        "p90": float(np.quantile(errors, 0.9)),
        "inside_80": fmean(c.inside_80 for c in cases),
        "inside_90": fmean(c.inside_90 for c in cases),
        "width": median(c.width for c in cases),
        "mean_bias": exp(fmean(c.mean for c in cases)) - 1,
        "blocks_bias": exp(fmean(c.blocks for c in cases)) - 1,
    }


def table(rows: Iterable[dict[str, object]]) -> str:
    """In Markdown."""
    lines = [
        "| slow steps | steps a trial | bias | median error | P90 | in P10–P90 | in P5–P95 "
        "| P95/P5 | bias of the plain mean | of block means |",
        "| --- | --: | --: | --: | --: | --: | --: | --: | --: | --: |",
    ]
    for found in rows:
        cells = [f"{found[name]:+.1%}" for name in ("bias",)]
        cells += [f"{found[name]:.1%}" for name in ("median", "p90")]
        cells += [f"{found[name]:.0%}" for name in ("inside_80", "inside_90")]
        cells += [f"{found['width']:.2f}"]
        cells += [f"{found[name]:+.1%}" for name in ("mean_bias", "blocks_bias")]
        lines.append(f"| {found['kind']} | {found['steps']:,} | {' | '.join(cells)} |")
    return "\n".join(lines).replace("%", " %")


def main() -> None:
    rows = []
    for kind in KINDS:
        for steps in STEPS:
            cases = [c for seed in range(SEEDS) for c in cases_of(kind, steps, seed)]
            rows.append({"kind": kind, "steps": steps, "cases": len(cases), **row(cases)})
            print(table(rows[-1:]).splitlines()[-1], file=sys.stderr, flush=True)
    RESULT.write_text(json.dumps({"command": f"python {MARK}", "rows": rows}, indent=1) + "\n")
    text = f"{SEEDS} sweeps a row, three batch sizes each. `python {MARK}`\n\n{table(rows)}"
    print(text)
    report.insert(DOCS / "accuracy.md", text, MARK)


if __name__ == "__main__":
    main()
