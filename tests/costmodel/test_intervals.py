"""Quantiles against scipy, variance components against simulated truths."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from epochcast.costmodel.intervals import (
    ASSUMED_DOF,
    ASSUMED_SD,
    Scatter,
    round_scatter,
    student_t_quantile,
)


@given(dof=st.floats(3, 1000), p=st.floats(0.05, 0.95))
def test_student_quantiles_agree_with_scipy(dof: float, p: float) -> None:
    assert student_t_quantile(p, dof) == pytest.approx(stats.t.ppf(p, dof), rel=0.01, abs=1e-3)


@pytest.mark.parametrize("dof", [1, 2, math.inf])
def test_student_quantiles_are_exact_in_closed_form(dof: float) -> None:
    assert student_t_quantile(0.9, dof) == pytest.approx(stats.t.ppf(0.9, dof), rel=1e-9)


@given(a=st.floats(1, 500), b=st.floats(1, 500))
def test_fewer_degrees_of_freedom_never_narrow(a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert student_t_quantile(0.9, low) >= student_t_quantile(0.9, high) - 1e-9


@given(sd=st.floats(0, 3), dof=st.floats(1, 100), median=st.floats(1e-6, 1e6))
def test_quantiles_are_in_order_around_the_median(sd: float, dof: float, median: float) -> None:
    q = Scatter(sd=sd, dof=dof).quantiles(median)
    assert 0 < q.p10 <= q.p50 == median <= q.p90
    assert q.p50 / q.p10 == pytest.approx(q.p90 / q.p50)


@given(a=st.floats(0, 2), b=st.floats(0, 2), n=st.floats(1, 50), m=st.floats(1, 50))
def test_variances_add_and_freedom_lies_between(a: float, b: float, n: float, m: float) -> None:
    both = Scatter(sd=a, dof=n) + Scatter(sd=b, dof=m)
    assert both.sd == pytest.approx(math.hypot(a, b))
    assert min(n, m) - 1e-9 <= both.dof <= n + m + 1e-6


def test_one_round_falls_back_to_what_is_documented() -> None:
    scatter = round_scatter([{0: 1.0}, {0: 2.0}], "cuda")
    assert (scatter.sd, scatter.dof) == (ASSUMED_SD["cuda"], ASSUMED_DOF)


def test_repeats_that_agree_have_no_scatter() -> None:
    assert round_scatter([{0: 1.0, 1: 1.0, 2: 1.0}] * 4, "cpu").sd == 0


def _simulated(round_sd: float, own_sd: float, configs: int, rounds: int, seed: int) -> Scatter:
    random = np.random.default_rng(seed)
    shared = random.normal(0, round_sd, rounds)
    logs = [
        {r: float(shared[r] + random.normal(0, own_sd)) for r in range(rounds)}
        for _ in range(configs)
    ]
    return round_scatter(logs, "cpu")


@pytest.mark.parametrize(("round_sd", "own_sd"), [(0.1, 0.01), (0.01, 0.1), (0.05, 0.05)])
def test_the_sum_of_both_components_is_estimated_without_bias(
    round_sd: float, own_sd: float
) -> None:
    variances = [_simulated(round_sd, own_sd, 12, 4, seed).sd ** 2 for seed in range(400)]
    assert np.mean(variances) == pytest.approx(round_sd**2 + own_sd**2, rel=0.15)


def test_a_shared_round_effect_leaves_few_degrees_of_freedom() -> None:
    shared = np.median([_simulated(0.1, 0.001, 12, 3, seed).dof for seed in range(50)])
    own = np.median([_simulated(0.0, 0.1, 12, 3, seed).dof for seed in range(50)])
    assert shared == pytest.approx(2, abs=0.5)
    assert own > 8


@pytest.mark.parametrize(("round_sd", "own_sd"), [(0.1, 0.01), (0.01, 0.1)])
def test_intervals_cover_a_further_run(round_sd: float, own_sd: float) -> None:
    """One more draw of round and configuration falls between P10 and P90 in about 80 %."""
    random, inside, trials = np.random.default_rng(1), 0, 600
    for seed in range(trials):
        q = _simulated(round_sd, own_sd, 8, 4, seed).quantiles(1.0)
        run = math.exp(random.normal(0, round_sd) + random.normal(0, own_sd))
        inside += q.p10 <= run <= q.p90
    assert 0.74 <= inside / trials <= 0.88
