"""Whether the guard's forecast of the next epoch holds, by simulation of runs; no clock, no torch.

    plan    says that an epoch takes 1 s, its level within ±5 % (P5–P95), its noise 0.2 … 30 %
    truth   level · exp(noise): lognormal, independent or AR(1) with φ = 0.7; the level is drawn
            as the plan has it, or lies 30 % above or 26 % below it

For each noise: how many of the epochs lay between P10 and P90 of what was forecast before them, by
the number of epochs seen until then; the width of that interval against that of somebody who knows
level and noise; the same for all epochs that are left of 20; alarms of a jump, all of them false.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from math import exp, log, sqrt
from statistics import median
from typing import Any

from epochcast.guard.forecast import Level
from epochcast.records import Quantiles

NOISES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.3)
PLANNED_NOISES = (0.002, 0.02, 0.3)
LEVELS = (None, 0.26, -0.3)  # log(true/planned); None: drawn as the plan has it
LEVEL_SD = 0.03
CARRIED = 0.7  # φ of AR(1)
EPOCHS, SHOWN = 20, (0, 1, 2, 3, 5, 9)  # of a run; after how many seen
Z90 = 1.2816


@dataclass
class Tally:
    """What was counted of many runs with one noise."""

    held: dict[int, list[bool]]
    widths: dict[int, list[float]]
    rest_held: dict[int, list[bool]]
    alarms: int = 0

    @classmethod
    def empty(cls) -> Tally:
        return cls(*({n: [] for n in SHOWN} for _ in range(3)))


def log_times(
    noise: float, level: float | None, carried: float, chance: random.Random
) -> Iterator[float]:
    """log(actual/planned) of the epochs of one run, without end."""
    mean = chance.gauss(0, LEVEL_SD) if level is None else level
    own = chance.gauss(0, noise)
    while True:
        yield mean + own
        own = carried * own + chance.gauss(0, noise * sqrt(1 - carried**2))


def follow(level: Level, logs: list[float], noise: float, tally: Tally) -> None:
    """One run, epoch by epoch."""
    for seen, x in enumerate(logs):
        if seen in SHOWN:
            low, high = level.quantile(1, 0.1), level.quantile(1, 0.9)
            tally.held[seen].append(low <= exp(x) <= high)
            tally.widths[seen].append(log(high / low) / 2 / Z90 / noise)
            left, took = len(logs) - seen, sum(map(exp, logs[seen:]))
            inside = level.quantile(left, 0.1) <= took <= level.quantile(left, 0.9)
            tally.rest_held[seen].append(inside)
        level = level.update(exp(x))
        tally.alarms += level.jumped


def forecasts(runs: int) -> list[dict[str, Any]]:
    """A row for each noise and kind of run.

    Args:
        runs: simulated for each noise that a plan may say, and each level.
    """
    kinds = (("independent", 0.0), ("AR(1)", CARRIED))
    return [_row(kind, carried, noise, runs) for kind, carried in kinds for noise in NOISES]


def _row(kind: str, carried: float, noise: float, runs: int) -> dict[str, Any]:
    tally, count = Tally.empty(), 0
    spread = exp(1.645 * LEVEL_SD)
    planned = Quantiles(p05=1 / spread, p10=1 / spread, p50=1.0, p90=spread, p95=spread)
    for planned_noise in PLANNED_NOISES:
        for level in LEVELS:
            chance = random.Random(repr((kind, noise, planned_noise, level)))
            for _ in range(runs):
                times = log_times(noise, level, carried, chance)
                logs = [next(times) for _ in range(EPOCHS)]
                follow(Level.of_plan(planned, planned_noise), logs, noise, tally)
                count += 1
    return {
        "kind": kind,
        "noise": noise,
        "runs": count,
        "held": {n: _share(found) for n, found in tally.held.items()},
        "width": {n: round(median(found), 2) for n, found in tally.widths.items()},
        "rest_held": {n: _share(found) for n, found in tally.rest_held.items()},
        "alarms_per_run": tally.alarms / count,
    }


def _share(found: list[bool]) -> float:
    return round(sum(found) / len(found), 3)


def table(rows: list[dict[str, Any]]) -> list[str]:
    """The rows as Markdown: what was held after so many epochs, and false alarms."""
    heads = [f"after {n}" for n in SHOWN]
    lines = [f"| runs | noise | {' | '.join(heads)} | all that are left, after 5 | alarms a run |"]
    lines.append("|---" * 2 + "|--:" * (len(SHOWN) + 2) + "|")
    for row in rows:
        held = {int(n): share for n, share in row["held"].items()}
        shares = " | ".join(f"{held[n]:.0%}" for n in SHOWN)
        rest = {int(n): share for n, share in row["rest_held"].items()}[5]
        lines.append(
            f"| {row['kind']} | {row['noise']:.1%} | {shares} | {rest:.0%} | "
            f"{row['alarms_per_run']:.2f} |"
        )
    return lines


if __name__ == "__main__":
    for line in table(forecasts(20)):
        print(line)
