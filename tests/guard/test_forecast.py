"""What the rest takes: levels that are learned and jump, parts that add up, probabilities."""

from dataclasses import replace
from math import exp, pi, sqrt
from statistics import NormalDist

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rehearsal import about, make_plan

from epochcast.guard.forecast import (
    CERTAIN,
    REMEMBERED,
    Forecast,
    Level,
    LocalLevel,
    Work,
    collapsed,
)
from epochcast.records import Quantiles

seconds = st.floats(0.5, 2.0)


def seen(level: Level, *values: float) -> Level:
    for value in values:
        level = level.update(value)
    return level


def test_before_the_run_it_is_the_plans_interval() -> None:
    level = Level.of_plan(about(50.0, 0.1))
    assert level.median == 50
    assert level.quantile(1, 0.95) == pytest.approx(55, rel=0.01)
    assert level.quantile(10, 0.5) == pytest.approx(500)


def test_one_value_is_the_normal_posterior_and_weighs_what_it_was_foretold() -> None:
    model = LocalLevel(weight=0.5, noise=0.01, discount=0.9, mean=0.0, variance=0.04)
    after = model.having_seen(0.1)
    prior = NormalDist(0.0, sqrt(0.04 / 0.9 + 0.01))
    gain = 0.04 / 0.9 / prior.variance
    assert after.mean == pytest.approx(gain * 0.1)
    assert after.variance == pytest.approx(gain * 0.01)
    assert after.weight == pytest.approx(0.5**REMEMBERED * prior.pdf(0.1) * sqrt(2 * pi))


def test_two_of_a_noise_become_one_with_their_mean_and_variance() -> None:
    pair = [
        LocalLevel(weight=w, noise=0.01, discount=0.9, mean=m, variance=v)
        for w, m, v in ((0.3, 0.0, 0.1), (0.1, 1.0, 0.2))
    ]
    one = collapsed(pair)
    assert (one.weight, one.mean) == pytest.approx((0.4, 0.25))
    assert one.variance == pytest.approx(0.75 * 0.1 + 0.25 * 0.2 + 0.75 * 0.25)


def test_an_epoch_that_goes_from_390_to_890_to_1200_is_believed_at_once() -> None:
    steady = seen(Level.of_plan(about(390.0, 0.05), 0.01), 390, 392, 388)
    assert not steady.jumped
    slow = steady.update(890)
    assert slow.doubt is not None
    assert not slow.jumped
    assert slow.quantile(1, 0.4) < 400  # either that one alone was slow,
    assert slow.quantile(1, 0.6) > 580  # or all will be,
    assert slow.quantile(1, 0.9) > 1000  # and who knows whether that was all
    slower = slow.update(1200)
    assert slower.jumped
    assert slower.median == pytest.approx(1200)
    assert seen(slower, 1200, 1200, 1200).quantile(1, 0.95) < 1500


def test_single_slow_ones_move_no_level_but_are_expected_to_come_again() -> None:
    level = Level.of_plan(about(10.0, 0.05), 0.01)
    for _ in range(10):
        level = seen(level, 10, 10, 10, 10, 10, 10, 10, 10, 10, 20)
        assert not level.jumped
    level = level.update(10)
    assert (level.jumps, level.singles) == (0, 10)
    assert level.median == pytest.approx(10, rel=0.01)
    assert level.quantile(100, 0.5) == pytest.approx(1100, rel=0.02)
    assert level.quantile(100, 0.9) > 1130
    assert level.update(20).quantile(1, 0.9) < 16  # it has seen that before


def test_a_run_that_went_back_is_believed_too() -> None:
    level = seen(Level.of_plan(about(10.0, 0.05), 0.01), 10, 10, 10, 25, 25, 25, 10, 10)
    assert (level.jumps, level.singles) == (2, 0)
    assert level.median == pytest.approx(10, rel=0.05)


def test_noise_is_no_jump() -> None:
    level = Level.of_plan(about(10.0, 0.1), 0.03)
    for value in (10.2, 9.7, 10.1, 10.4, 9.8, 9.9, 10.3, 9.6):
        level = level.update(value)
        assert not level.jumped
    assert level.quantile(1, 0.05) < 9.8 < 10.3 < level.quantile(1, 0.95)


def test_slow_drift_is_followed_without_an_alarm() -> None:
    level = Level.of_plan(about(10.0, 0.05), 0.01)
    for epoch in range(60):
        level = level.update(10.0 * 1.005**epoch)
        assert not level.jumped
    now = 10.0 * 1.005**59
    assert level.median == pytest.approx(now, rel=0.06)
    assert level.quantile(1, 0.95) > now


def test_what_no_plan_knows_is_learned_from_the_first_one() -> None:
    level = Level.of_plan(Quantiles.exactly(0.0))
    assert level.quantile(3, 0.95) == 0
    known = level.update(4.0)
    assert known.median == 4
    assert known.quantile(1, 0.95) > 5


@given(st.lists(seconds, max_size=8), st.floats(0.1, 10.0))
def test_the_unit_of_time_does_not_matter(values: list[float], unit: float) -> None:
    plain = seen(Level.of_plan(about(1.0, 0.2)), *values)
    scaled = seen(Level.of_plan(about(unit, 0.2)), *(unit * v for v in values))
    assert scaled.quantile(5, 0.9) == pytest.approx(unit * plain.quantile(5, 0.9), rel=1e-6)


@given(st.lists(seconds, max_size=8), st.floats(0.02, 0.97), st.floats(0.001, 0.02))
def test_quantiles_rise_with_probability_and_count(
    values: list[float], p: float, more: float
) -> None:
    level = seen(Level.of_plan(about(1.0, 0.2)), *values)
    assert level.quantile(2, p) <= level.quantile(2, p + more)
    assert level.quantile(2, 0.5) < level.quantile(3, 0.5)


def test_many_epochs_average_their_noise_but_not_the_level() -> None:
    model = LocalLevel(weight=1.0, noise=0.04, discount=0.9, mean=0.2, variance=0.01)
    walk = 0.01 * (1 / 0.9 - 1)
    spread = sqrt(0.01 + walk * (101 * 201) / 600 + 0.0004)
    assert model.ahead(100) == pytest.approx((1.0, 0.2, spread))


PRICES = make_plan(
    epoch=about(50.0, 0.1), evaluation=about(4.0, 0.1), save=about(2.0, 0.1), first=about(9.0, 0.1)
).prices
works = st.builds(
    Work,
    epochs=st.floats(0.5, 50),
    evaluations=st.floats(0, 50),
    saves=st.floats(0, 50),
    first=st.booleans(),
)


def test_the_median_is_the_sum_of_medians() -> None:
    work = Work(epochs=3, evaluations=2, saves=1, first=True)
    assert Forecast.of_plan(PRICES).seconds(work, 0.5) == pytest.approx(3 * 50 + 2 * 4 + 2 + 9)


def test_nothing_takes_nothing() -> None:
    assert Forecast.of_plan(PRICES).quantiles(Work()).p95 == 0
    assert Forecast.of_plan(PRICES).probability(Work(), 0.0) == 1


@given(works, st.floats(0.5, 2.0))
def test_the_probability_inverts_the_quantile(work: Work, share: float) -> None:
    forecast = Forecast.of_plan(PRICES)
    left = share * forecast.seconds(work, 0.5)
    p = forecast.probability(work, left)
    if CERTAIN < p < 1:
        assert forecast.seconds(work, p) <= left
    if p < 1 - 2e-3:
        assert forecast.seconds(work, p + 1e-3) > left


@given(works, st.floats(10, 4000), st.floats(0, 1000))
def test_more_time_is_never_less_probable(work: Work, left: float, more: float) -> None:
    forecast = Forecast.of_plan(PRICES)
    assert forecast.probability(work, left) <= forecast.probability(work, left + more)


def test_each_part_learns_from_its_own_kind() -> None:
    forecast = Forecast.of_plan(PRICES)
    for _ in range(5):
        forecast = forecast.saw("evaluation", 8.0)
    assert forecast.evaluation.median == pytest.approx(8, rel=0.05)
    assert forecast.epoch.median == 50
    assert forecast.save.median == 2


def test_the_plan_knows_the_scatter_of_rounds() -> None:
    prices = make_plan(epoch=about(50.0, 0.01), epoch_noise=0.01).prices
    scattered = replace(prices, round_scatter=0.3)
    assert Forecast.of_plan(prices).quantiles(Work(epochs=1)).p90 < 51
    assert Forecast.of_plan(scattered).quantiles(Work(epochs=1)).p90 == pytest.approx(
        50 * exp(1.2816 * 0.3), rel=0.01
    )
