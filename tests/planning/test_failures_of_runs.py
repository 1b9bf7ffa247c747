"""Failures against the closed form, and against runs simulated failure by failure by other code."""

import math
from typing import Any

import failing_runs
import known
import numpy as np
import pytest

from epochcast.costmodel.features import Array
from epochcast.costmodel.prices import Prices
from epochcast.costmodel.scatter import Amount, Scatter
from epochcast.planning.failures import LOOKED_AT, FailureDeviates, FailureDraws, Interruptions
from epochcast.planning.planner import plan
from epochcast.planning.simulation import RunDraws, deviates
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
    draws, epoch = 20_000, segment or 1.0
    epochs = segments if segment else round(segments * mtbf)
    draw = failing(mtbf, restart, draws, epoch=epoch)
    work = np.full(draws, epochs * epoch)
    return draw.lost(work, np.full(draws, epochs)), work


def failing(
    mtbf: float,
    restart: float | None,
    draws: int,
    *,
    epoch: float,
    start: float = 0.0,
    folds: int = 1,
    period: float = 1.0,
) -> FailureDraws:
    """Runs of epochs that all take the same, saved after each of them or every few."""
    often = Interruptions(mtbf_seconds=mtbf, restart_seconds=restart, period=period)
    shared = deviates(1, draws).failures
    return FailureDraws(often, shared, np.full(draws, start), np.full(draws, epoch), folds)


def expected(mtbf: float, restart: float, segment: float) -> float:
    """Toueg & Babaoğlu's segment, beyond its work; without segments, as many short ones."""
    segment = segment or 1.0
    whole = mtbf * math.expm1(segment / mtbf) * math.exp(restart / mtbf)
    return (whole - segment) / segment


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
    runs = failing_runs.seconds(
        np.random.default_rng(2),
        start=np.zeros(9000),
        segments=np.full((segments, 9000), segment),
        restart=np.full(9000, restart),
        mtbf=mtbf,
    )
    for level in (0.1, 0.5, 0.9):
        assert np.quantile(found + work, level) == pytest.approx(np.quantile(runs, level), rel=0.04)


def test_beyond_the_failures_looked_at_one_by_one_nothing_jumps() -> None:
    draws = failing(1000.0, 100.0, 50, epoch=500.0)
    end = np.full(50, LOOKED_AT * 1000.0)
    before, after = (draws.lost(end * factor, end / 500) for factor in (1, 1 + 1e-6))
    assert after == pytest.approx(before, rel=1e-4)
    assert np.all(draws.moments[:, -1] > end)


def test_a_run_without_saves_loses_all_of_it() -> None:
    """However long a segment could be, a failure undoes no more than what was done."""
    often = Interruptions(mtbf_seconds=5000.0, restart_seconds=0.0)
    run = RunDraws(Prices(training=Amount(1000.0)), deviates(0, 4000), interruptions=often)
    one = run.until(*(np.full(4000, e) for e in (1, 0, 0)))
    assert np.mean(one) == pytest.approx(5000 * math.expm1(0.2), rel=0.01)
    folds = RunDraws(
        Prices(training=Amount(1000.0)), deviates(0, 4000), folds=5, interruptions=often
    )
    five = folds.until(*(np.full(4000, e) for e in (1, 0, 0)))
    assert np.mean(five) == pytest.approx(5 * 5000 * math.expm1(0.2), rel=0.01)


def test_many_moments_are_as_one_after_another() -> None:
    often = Interruptions(mtbf_seconds=500.0, restart_seconds=60.0, period=9)
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


def test_a_start_is_made_again_by_restarts_alone() -> None:
    """A failure undoes epochs, not the start of 900 s."""
    mtbf, start, epoch, n = 3600.0, 900.0, 600.0, 20_000
    for restart in (None, 900.0, 1500.0):
        draws = failing(mtbf, restart, n, epoch=epoch, start=start)
        found = np.mean(draws.lost(np.full(n, start + 4 * epoch), np.full(n, 4)))
        runs = failing_runs.seconds(
            np.random.default_rng(1),
            start=np.full(50_000, start),
            segments=np.full((4, 50_000), epoch),
            restart=np.full(50_000, 900.0 if restart is None else restart),
            mtbf=mtbf,
        )
        assert found + start + 4 * epoch == pytest.approx(np.mean(runs), rel=0.01)


def test_what_is_left_after_the_last_save_is_all_that_a_late_failure_undoes() -> None:
    """Seven epochs, saved every fifth: a segment of five and one of two."""
    draws, n = failing(4000.0, 50.0, 20_000, epoch=600.0, period=5), 20_000
    found = np.mean(draws.lost(np.full(n, 4200.0), np.full(n, 7)))
    mean = sum(4000 * math.exp(50 / 4000) * math.expm1(w / 4000) for w in (3000.0, 1200.0))
    assert found + 4200 == pytest.approx(mean, rel=0.01)


def test_saves_placed_unevenly_lose_what_their_segments_lose() -> None:
    often = Interruptions(mtbf_seconds=4000.0, restart_seconds=50.0, placed=(1, 6, 8))
    n, shared = 20_000, deviates(1, 20_000).failures
    draws = FailureDraws(often, shared, np.zeros(n), np.full(n, 600.0))
    found = np.mean(draws.lost(np.full(n, 4800.0), np.full(n, 8)))
    mean = sum(4000 * math.exp(50 / 4000) * math.expm1(600 * k / 4000) for k in (1, 5, 2))
    assert found + 4800 == pytest.approx(mean, rel=0.01)


@pytest.mark.parametrize("spread", [0.14, 0.3])
@pytest.mark.parametrize("save", ["auto", 6, 12])
def test_nine_slow_or_fast_runs_in_ten_are_inside_their_deadline(
    spread: float, save: int | str
) -> None:
    """Half a time between failures from save to save, and a whole one; 5,000 runs each."""
    model = known.model(
        setup=300.0, first=30.0, epoch=600, evaluation=5.0, save=20.0, run=Scatter(sd=spread)
    )
    asked_for: dict[str, Any] = {"save": save, "mtbf_seconds": 7200.0}
    deadline = plan(model, Budget(), epochs=60, **asked_for).chosen.seconds.p90
    found = plan(model, Budget(deadline=deadline), **asked_for)
    random = np.random.default_rng(3)
    factor = np.exp(spread * random.standard_normal(5000))
    kept = np.mean(failing_runs.of_plan(random, found, factor) <= deadline)
    assert kept == pytest.approx(found.chosen.probability, abs=0.02)


def test_of_the_tries_that_fail_the_last_is_drawn_and_the_others_take_their_mean() -> None:
    """A stretch of one mean time: each try fails with p = 1 − 1/e, so G = ⌊E/−log p⌋ of them do."""
    mtbf, fails = 100.0, 1 - math.exp(-1)
    tries = -math.log(fails) * np.array([[0.5, 1.5, 2.5]])
    shared = FailureDeviates(
        moments=np.ones((1, 3)),
        places=np.ones((1, 3)),
        tries=tries,
        least=-np.log(-np.expm1(-tries)),
        lengths=np.full((1, 3), 0.25),
    )
    failures = FailureDraws(Interruptions(mtbf_seconds=mtbf), shared, np.zeros(1), np.ones(1))
    costs = failures._costs(np.full((1, 3), 40.0), np.full((1, 3), 60.0), np.s_[:, :])
    last, usual = -math.log1p(-0.25 * fails), 1 - 1 / (math.e - 1)
    assert costs[0] == pytest.approx([mtbf, mtbf * (1 + last), mtbf * (1 + last + usual)])
