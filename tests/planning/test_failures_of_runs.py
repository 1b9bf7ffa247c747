"""Failures against the closed form, and against runs simulated second by second by other code."""

import math

import known
import numpy as np
import pytest

from epochcast.costmodel.cost import Prices
from epochcast.costmodel.features import Array
from epochcast.costmodel.scatter import Amount
from epochcast.planning.planner import plan
from epochcast.planning.simulation import (
    LOOKED_AT,
    FailureDraws,
    Interruptions,
    RunDraws,
    deviates,
)
from epochcast.records import Budget

HOUR = 3600.0
CASES = [  # mean time between failures, restart, segment; rarely, about once, and often a segment
    (12 * HOUR, 120.0, 600.0),
    (2 * HOUR, 120.0, 4 * HOUR),
    (1000.0, 400.0, 2500.0),
    (1000.0, 100.0, 0.0),
]


def lost(mtbf: float, restart: float, segment: float, segments: int) -> tuple[Array, Array]:
    """Seconds that runs of so many segments lose, and the work they do."""
    draws = 20_000
    often = Interruptions(mtbf_seconds=mtbf, restart_seconds=restart, segment_seconds=segment)
    work = np.full(draws, segments * segment if segment else segments * mtbf)
    return FailureDraws(often, deviates(1, draws)).lost(work, work), work


def expected(mtbf: float, restart: float, segment: float) -> float:
    """Toueg & Babaoğlu's segment, beyond its work; without segments, as many short ones."""
    segment = segment or 1.0
    whole = mtbf * math.expm1(segment / mtbf) * math.exp(restart / mtbf)
    return (whole - segment) / segment


def simulated(random: np.random.Generator, mtbf: float, restart: float, segment: float) -> float:
    """Seconds to get through one segment: a failure begins it again, during restarts too."""
    clock, needed = 0.0, segment
    while True:
        left = random.exponential(mtbf)
        if left >= needed:
            return clock + needed
        clock += left
        needed = restart + segment


@pytest.mark.parametrize(("mtbf", "restart", "segment"), CASES)
@pytest.mark.parametrize("segments", [1, 10, 1000])
def test_a_segment_takes_what_toueg_and_babaoglu_say(
    mtbf: float, restart: float, segment: float, segments: int
) -> None:
    """Within four standard errors."""
    found, work = lost(mtbf, restart, segment, segments)
    error = np.std(found) / math.sqrt(len(found))
    assert np.mean(found / work[0]) == pytest.approx(
        expected(mtbf, restart, segment), abs=4 * error / work[0] + 1e-3
    )


@pytest.mark.parametrize(("mtbf", "restart", "segment"), CASES[:3])
@pytest.mark.parametrize("segments", [1, 10, 100])
def test_runs_spread_as_simulated(
    mtbf: float, restart: float, segment: float, segments: int
) -> None:
    found, work = lost(mtbf, restart, segment, segments)
    random = np.random.default_rng(2)
    runs = [
        sum(simulated(random, mtbf, restart, segment) for _ in range(segments)) for _ in range(1500)
    ]
    for level in (0.1, 0.5, 0.9):
        assert np.quantile(found + work, level) == pytest.approx(np.quantile(runs, level), rel=0.06)


def test_beyond_the_failures_looked_at_one_by_one_nothing_jumps() -> None:
    often = Interruptions(mtbf_seconds=1000.0, restart_seconds=100.0, segment_seconds=500.0)
    draws = FailureDraws(often, deviates(1, 50))
    end = np.full(50, LOOKED_AT * 1000.0)
    before, after = (draws.lost(end * factor, end) for factor in (1, 1 + 1e-6))
    assert after == pytest.approx(before, rel=1e-4)
    assert np.all(draws.moments[:, -1] > end)


def test_a_run_without_saves_loses_all_of_it() -> None:
    """However long a segment could be, a failure undoes no more than what was done."""
    often = Interruptions(mtbf_seconds=5000.0, segment_seconds=1e9)
    run = RunDraws(Prices(training=Amount(1000.0)), deviates(0, 4000), interruptions=often)
    one = run.until(*(np.full(4000, e) for e in (1, 0, 0)))
    assert np.mean(one) == pytest.approx(5000 * math.expm1(0.2), rel=0.01)
    folds = RunDraws(
        Prices(training=Amount(1000.0)), deviates(0, 4000), folds=5, interruptions=often
    )
    five = folds.until(*(np.full(4000, e) for e in (1, 0, 0)))
    assert np.mean(five) == pytest.approx(5 * 5000 * math.expm1(0.2), rel=0.01)


def test_many_moments_are_as_one_after_another() -> None:
    often = Interruptions(mtbf_seconds=500.0, restart_seconds=60.0, segment_seconds=900.0)
    run = RunDraws(Prices(training=Amount(100.0)), deviates(0, 100), interruptions=often)
    counts = np.array([[1], [5], [50], [5000]])
    together = run.until(counts, 0 * counts, 0 * counts)
    for row, (count,) in zip(together, counts, strict=True):
        assert np.array_equal(row, run.until(*(np.full(100, e) for e in (count, 0, 0))))


@pytest.mark.parametrize(("mtbf", "hours"), [(2 * HOUR, 126), (10_000.0, 88)])
def test_epochs_longer_than_the_time_between_failures_are_planned(
    mtbf: float, hours: float
) -> None:
    """Ten epochs of 4 h; the medians of simulations that know nothing of this package."""
    model = known.model(setup=0, first=0, epoch=14_400, evaluation=0.0, save=4.0)
    found = plan(model, Budget(), epochs=10, mtbf_seconds=mtbf, restart_seconds=120.0)
    assert found.chosen.seconds.p50 / HOUR == pytest.approx(hours, rel=0.04)
