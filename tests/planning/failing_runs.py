"""Runs simulated failure by failure, many at once, by code that knows nothing of the planner's.

    clock ──── start ──┬── segment ──┬── segment ──┬ …      each with its save at the end
               again:  R             R + segment           until no failure comes in between

Failures come at an exponential rate, during restarts and repeated work too.
"""

from __future__ import annotations

import numpy as np

from epochcast.costmodel.features import Array
from epochcast.records import Plan


def through(random: np.random.Generator, needed: Array, again: Array, mtbf: float) -> Array:
    """Seconds until a stretch is done without a failure, (n,).

    Args:
        random: where failures come from.
        needed: seconds of the first try, (n,).
        again: seconds of each further one, (n,).
        mtbf: mean seconds between failures.
    """
    clock, needed = np.zeros(len(needed)), needed.copy()
    pending = np.arange(len(needed))
    while len(pending):
        left, stretch = random.exponential(mtbf, len(pending)), needed[pending]
        clock[pending] += np.minimum(left, stretch)
        pending = pending[left < stretch]
        needed[pending] = again[pending]
    return clock


def seconds(
    random: np.random.Generator, start: Array, segments: Array, restart: Array, mtbf: float
) -> Array:
    """Seconds of whole runs, (n,).

    Args:
        random: where failures come from.
        start: seconds until the first steady step, (n,); a restart takes its place.
        segments: seconds from save to save, saves included, (K, n).
        restart: seconds from a failure until training goes on, (n,).
        mtbf: mean seconds between failures.
    """
    clock = through(random, start, restart, mtbf)
    for work in segments:
        clock += through(random, work, restart + work, mtbf)
    return clock


def of_plan(
    random: np.random.Generator,
    plan: Plan,
    factor: Array,
    *,
    restart: float | None = None,
    noise: float = 0.0,
) -> Array:
    """Seconds of runs that do what a plan says at its own prices, each slow by its factor, (n,).

    Args:
        random: where failures and the noise of epochs come from.
        plan: of one fold, without scatter in its start.
        factor: how slow each run is, (n,).
        restart: seconds of one; None for another start with its first steps.
        noise: relative, of one epoch.
    """
    prices, n = plan.prices, len(factor)
    start = np.full(n, prices.startup.p50 + prices.first_steps.p50)
    evaluated, segments, work = set(plan.epochs_of("evaluate")), [], np.zeros(n)
    saved = set(plan.epochs_of("save"))
    for epoch in range(1, plan.chosen.epochs + 1):
        own = np.exp(noise * random.standard_normal(n)) if noise else 1.0
        work = work + factor * prices.epoch.p50 * own
        work += factor * prices.evaluation.p50 * (epoch in evaluated)
        if epoch in saved or epoch == plan.chosen.epochs:
            segments.append(work + factor * prices.save.p50 * (epoch in saved))
            work = np.zeros(n)
    again = start if restart is None else np.full(n, restart)
    return seconds(random, start, np.array(segments), again, plan.mtbf_seconds or np.inf)
