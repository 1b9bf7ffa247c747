"""When to save, against published examples, closed forms and exhaustive search."""

import math
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import lambertw

from epochcast.planning import checkpoints as c

MINUTE, HOUR = 60.0, 3600.0


@pytest.mark.parametrize(
    ("mtbf", "minutes"), [(24 * HOUR, 117), (6 * HOUR, 57), (15 * MINUTE, 9.1)]
)
def test_daly_examples(mtbf: float, minutes: float) -> None:
    """Daly 2006, C = 5 min: the exact interval is there, within his series' own error."""
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
    assert c.exact_interval(1e-3, HOUR) == pytest.approx(math.sqrt(2 * 1e-3 * HOUR), rel=1e-3)


def test_saving_costs_at_most_the_overhead_bound() -> None:
    """3.5 %: CheckFreq, FAST'21. Frequent failures ask for more; never failing for less."""
    assert c.save_interval(7.0) == pytest.approx(200.0)
    assert c.save_interval(7.0, 60.0) == pytest.approx(200.0)
    assert c.save_interval(7.0, 12 * HOUR) == c.exact_interval(7.0, 12 * HOUR)


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


def test_saves_keep_their_distance() -> None:
    chosen = c.save_epochs([10.0] * 20, 1.0, 30.0, shortest_seconds=55.0)
    assert all(b - a >= 6 for a, b in zip((0, *chosen), chosen[:-1], strict=False))


def test_long_runs_and_rare_failures_do_not_overflow() -> None:
    assert c.save_epochs([1e6] * 3, 10.0, 60.0)[-1] == 3
    assert c.save_epochs([1.0] * 5, 1.0, 1e9) == (5,)


def test_the_last_save_before_a_hard_end() -> None:
    """Uniform[1, 7.5] with R = 10: X* = (R + a)/2 = 5.5 (Barbut et al. 2023)."""
    lead = c.final_save_lead(10.0, lambda p: 1 + 6.5 * p)
    assert lead == pytest.approx(5.5, abs=2e-3)
    assert c.final_save_lead(1e6, lambda p: 1 + 6.5 * p) == pytest.approx(7.5, abs=2e-3)
    assert c.final_save_lead(3600.0, lambda _: 4.0) == 4.0
