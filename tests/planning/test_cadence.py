"""When to evaluate and save: counts agree with lists, intervals follow theory and exhaustion."""

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import lambertw

from epochcast.planning import cadence as c

MINUTE, HOUR = 60.0, 3600.0

cadences = st.one_of(
    st.builds(c.Every, st.integers(0, 20)),
    st.builds(c.AtMost, st.integers(1, 20), st.integers(1, 9)),
    st.builds(c.Rungs, st.integers(1, 9), st.integers(2, 5)),
    st.sets(st.integers(1, 300)).map(lambda s: c.At(tuple(sorted(s)))),
)


@given(cadences, st.integers(0, 300))
def test_counts_are_those_of_the_list(cadence: c.Cadence, last: int) -> None:
    epochs = cadence.epochs(last)
    assert cadence.count(np.array([last])).tolist() == [len(epochs)]
    assert list(epochs) == sorted(set(epochs))
    if epochs:
        assert epochs[-1] == last


def _due(cadence: c.Cadence, last: int) -> set[int]:
    """By what the cadences are said to be, epoch by epoch."""
    epochs = range(1, last + 1)
    match cadence:
        case c.Every(interval):
            return {e for e in epochs if interval and (e % interval == 0 or e == last)}
        case c.AtMost(interval, times) if last > interval * times:
            return {math.ceil(last * k / times) for k in range(1, times + 1)}
        case c.AtMost(interval):
            return _due(c.Every(interval), last)
        case c.Rungs(first, eta):
            return {e for e in (first * eta**k for k in range(10)) if e <= last} | {*epochs[-1:]}
        case c.At(chosen):
            return {e for e in chosen if e <= last} | {*epochs[-1:]}
    raise TypeError(cadence)


@given(cadences, st.integers(0, 300))
def test_ranges_are_what_the_cadence_says(cadence: c.Cadence, last: int) -> None:
    found = cadence.epochs(last)
    assert list(found) == sorted(_due(cadence, last))
    assert len(found.ranges) <= max(len(found), 2)
    if isinstance(cadence, c.Every):
        assert len(found.ranges) <= 2


@given(cadences, st.integers(0, 200))
def test_longer_runs_never_have_fewer_occasions(cadence: c.Cadence, last: int) -> None:
    fewer, more = cadence.count(np.array([last, last + 1]))
    assert fewer <= more


def test_rungs_count_with_whole_numbers() -> None:
    """R = 243, η = 3 is five rungs above the first; log(243)/log(3) in floating point is less."""
    assert math.floor(math.log(243) / math.log(3)) == 4
    assert c.integer_log(243, 3) == 5
    assert c.rung_epochs(1, 3, 243) == (1, 3, 9, 27, 81, 243)
    assert c.rung_epochs(5, 3, 4) == ()


@given(st.integers(1, 10**12), st.integers(2, 10))
def test_integer_log_is_the_largest_power(value: int, base: int) -> None:
    power = c.integer_log(value, base)
    assert base**power <= value < base ** (power + 1)


@given(st.floats(1, 300), st.floats(0.1, 100), st.floats(1, 1000), st.integers(1, 20))
def test_evaluation_intervals_minimise_their_cost(
    best: float, evaluate: float, epoch: float, patience: int
) -> None:
    def cost(v: int, delay: float) -> float:
        return evaluate * best / v + epoch * delay * v

    for p, delay in ((None, 0.5), (patience, patience + 0.5)):
        chosen = c.evaluation_interval(best, evaluate, epoch, p)
        candidates = range(1, chosen + 40)
        assert cost(chosen, delay) <= 1.13 * min(cost(v, delay) for v in candidates)


def test_evaluation_interval_in_closed_form() -> None:
    assert c.evaluation_interval(50, 8, 4) == round(math.sqrt(2 * 50 * 8 / 4))
    assert c.evaluation_interval(50, 80, 4, 5) == round(math.sqrt(50 * 80 / (5.5 * 4)))
    assert c.evaluation_interval(50, 0.001, 55) == 1
    assert c.evaluation_interval(50, 8, 0) == 1


def test_every_second_and_the_last() -> None:
    assert tuple(c.Every(2).epochs(5)) == (2, 4, 5)
    assert tuple(c.Every(0).epochs(5)) == ()
    assert tuple(c.Rungs(1, 3).epochs(20)) == (1, 3, 9, 20)
    assert tuple(c.At((2, 7)).epochs(5)) == (2, 5)


@pytest.mark.parametrize("last", [0, 1])
def test_the_shortest_runs(last: int) -> None:
    assert tuple(c.Every(3).epochs(last)) == ((1,) if last else ())


@pytest.mark.parametrize(
    ("mtbf", "minutes"), [(24 * HOUR, 117), (6 * HOUR, 57), (15 * MINUTE, 9.1)]
)
def test_daly_examples(mtbf: float, minutes: float) -> None:
    """Daly 2006, C = 5 min; the exact interval is there, within his series' own error."""
    assert c.exact_interval(5 * MINUTE, mtbf) / MINUTE == pytest.approx(minutes, rel=0.01)


@given(st.floats(1e-6, 1e4), st.floats(1e-3, 1e7))
def test_the_exact_interval_is_lamberts(save: float, mtbf: float) -> None:
    ratio = save / mtbf
    if 1e-6 < ratio < 500:  # where scipy's W keeps its digits near the branch point
        expected = mtbf * (1 + lambertw(-math.exp(-ratio - 1)).real)
        assert c.exact_interval(save, mtbf) == pytest.approx(expected, rel=1e-5)


@given(st.floats(0.01, 1e3), st.floats(10, 1e6))
def test_the_exact_interval_is_a_minimum(save: float, mtbf: float) -> None:
    def overhead(tau: float) -> float:
        return math.expm1((tau + save) / mtbf) / tau

    best = c.exact_interval(save, mtbf)
    assert overhead(best) <= min(overhead(0.98 * best), overhead(1.02 * best)) * (1 + 1e-12)


def test_limits_of_the_interval() -> None:
    assert c.exact_interval(0.0, HOUR) == 0.0
    young = math.sqrt(2 * 300 * 86400)  # the first order, close where saves are short
    assert c.exact_interval(300, 86400) == pytest.approx(young, rel=0.05)
    assert c.exact_interval(1e-3, 86400) == pytest.approx(math.sqrt(2e-3 * 86400), rel=1e-3)


def test_saving_costs_at_most_the_overhead_bound() -> None:
    """3.5 %: CheckFreq, FAST'21. Where failures come, what they cost decides by itself."""
    assert c.save_interval(7.0) == pytest.approx(200.0)
    for mtbf in (60.0, 12 * HOUR):
        assert c.save_interval(7.0, mtbf) == c.exact_interval(7.0, mtbf)
    assert c.save_period(60.0, 7.0) == 4  # 200 s are more than three epochs
    assert c.save_period(100.0, 7.0) == 2


@given(st.floats(0.01, 1e5), st.floats(0.01, 500), st.floats(1, 1e6))
def test_no_other_period_costs_less(epoch: float, save: float, mtbf: float) -> None:
    """By exhaustion, of the logarithm of what a second of work takes on average."""

    def cost(period: int) -> float:
        length = (period * epoch + save) / mtbf
        return length + math.log(-math.expm1(-length)) - math.log(period)

    best = c.save_period(epoch, save, mtbf)
    others = (1, best - 1, best + 1, 2 * best, best // 2, *range(1, 20))
    assert cost(best) <= min(cost(k) for k in others if k >= 1) + 1e-9


def test_epochs_far_longer_than_the_time_between_failures_are_saved_one_by_one() -> None:
    assert c.save_period(1e6, 10.0, 60.0) == 1


def test_runs_with_failures_are_never_longer_than_with_the_best_period() -> None:
    """300 random runs against every period there is; the bound alone made the worst 3 × as long."""
    random = np.random.default_rng(3)
    for _ in range(300):
        mtbf = math.exp(random.uniform(math.log(10 * MINUTE), math.log(48 * HOUR)))
        save = math.exp(random.uniform(0.0, math.log(min(600.0, mtbf / 2))))
        epoch = math.exp(random.uniform(math.log(10), math.log(min(HOUR, mtbf))))
        n = int(random.integers(1, 60))
        every = [(*range(k, n, k), n) for k in range(1, n + 1)]
        best = min(_expected(cuts, [epoch] * n, save, mtbf) for cuts in every)
        chosen = _expected(c.save_epochs([epoch] * n, save, mtbf), [epoch] * n, save, mtbf)
        assert chosen <= best * 1.005


def _expected(cuts: tuple[int, ...], epochs: list[float], save: float, mtbf: float) -> float:
    starts = (0, *cuts[:-1])
    return sum(
        mtbf * math.expm1((sum(epochs[i:j]) + save) / mtbf)
        for i, j in zip(starts, cuts, strict=True)
    )


@given(st.lists(st.floats(1, 50), min_size=1, max_size=8), st.floats(0.1, 10), st.floats(20, 500))
def test_epoch_ends_are_chosen_as_by_trying_all(
    epochs: list[float], save: float, mtbf: float
) -> None:
    n = len(epochs)
    every = [(*cuts, n) for k in range(n) for cuts in combinations(range(1, n), k)]
    best = min(_expected(cuts, epochs, save, mtbf) for cuts in every)
    chosen = c.save_epochs(epochs, save, mtbf)
    assert chosen[-1] == n
    assert _expected(chosen, epochs, save, mtbf) == pytest.approx(best, rel=1e-9)


def test_equal_epochs_are_cut_evenly_near_the_best_interval() -> None:
    chosen = c.save_epochs([60.0] * 120, 5.0, 6 * HOUR)
    gaps = {b - a for a, b in zip((0, *chosen), chosen, strict=False)}
    best = c.exact_interval(5.0, 6 * HOUR) / 60
    assert max(gaps) - min(gaps) <= 1
    assert min(gaps) - 1 <= best <= max(gaps) + 1


def test_long_runs_and_rare_failures_do_not_overflow() -> None:
    assert c.save_epochs([1e6] * 3, 10.0, 60.0)[-1] == 3
    assert c.save_epochs([1.0] * 5, 1.0, 1e9) == (5,)


def test_the_last_save_before_a_hard_end() -> None:
    """Uniform[1, 7.5] with R = 10: X* = (R + a)/2 = 5.5 (Barbut et al. 2023)."""
    lead = c.final_save_lead(10.0, lambda p: 1 + 6.5 * p)
    assert lead == pytest.approx(5.5, abs=2e-3)
    assert c.final_save_lead(1e6, lambda p: 1 + 6.5 * p) == pytest.approx(7.5, abs=2e-3)
    assert c.final_save_lead(3600.0, lambda _: 4.0) == 4.0


def _epochs_without_a_window(
    seconds: list[float], save: float, mtbf: float, restart: float
) -> float:
    """The expected time of the best cuts, of all there are: Toueg & Babaoğlu's recursion."""
    n, best = len(seconds), [0.0] + [math.inf] * len(seconds)
    for j in range(1, n + 1):
        for i in range(j):
            work = sum(seconds[i:j])
            cost = math.exp(restart / mtbf) * mtbf * math.expm1((work + save) / mtbf)
            best[j] = min(best[j], best[i] + cost)
    return best[n]


@given(
    st.lists(st.floats(1, 60), min_size=1, max_size=60),
    st.floats(0.05, 20),
    st.floats(30, 3000),
    st.floats(0, 60),
)
@settings(deadline=None, max_examples=60)
def test_looking_no_further_back_than_a_window_loses_nothing(
    seconds: list[float], save: float, mtbf: float, restart: float
) -> None:
    chosen = c.save_epochs(seconds, save, mtbf, restart)
    cost = sum(
        math.exp(restart / mtbf) * mtbf * math.expm1((sum(seconds[i:j]) + save) / mtbf)
        for i, j in zip((0, *chosen[:-1]), chosen, strict=True)
    )
    best = _epochs_without_a_window(seconds, save, mtbf, restart)
    assert cost == pytest.approx(best, rel=1e-9)


def test_segments_longer_than_the_best_are_looked_at() -> None:
    """The best interval is 13.8 epochs; of 100 epochs seven segments of 14 or 15 are best."""
    seconds = [10.0] * 100
    chosen = c.save_epochs(seconds, 5.0, 2000.0)
    cost = sum(
        2000.0 * math.expm1((10.0 * (j - i) + 5.0) / 2000.0)
        for i, j in zip((0, *chosen[:-1]), chosen, strict=True)
    )
    assert cost == pytest.approx(_epochs_without_a_window(seconds, 5.0, 2000.0, 0.0), rel=1e-9)
    assert max(b - a for a, b in zip((0, *chosen), chosen, strict=False)) > 14
