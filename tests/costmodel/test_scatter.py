"""Quantiles against scipy, variance components against simulated truths."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from epochcast.costmodel.scatter import (
    ASSUMED_DOF,
    ASSUMED_SD,
    PROCESS_PRIOR,
    RoundScatter,
    Scatter,
    constant_scatter,
    of_one_round,
    round_scatter,
    student_t_quantile,
)


@given(dof=st.floats(2, 1e6), z=st.floats(-4, 4))
def test_student_quantiles_are_those_of_scipy_far_into_the_tails(dof: float, z: float) -> None:
    p = stats.norm.cdf(z)
    assert student_t_quantile(p, dof) == pytest.approx(stats.t.ppf(p, dof), rel=1.5e-3, abs=1e-5)


@given(dof=st.floats(1, 2), z=st.floats(-4, 4))
def test_below_two_degrees_of_freedom_they_are_near(dof: float, z: float) -> None:
    p = stats.norm.cdf(z)
    rel = 0.01 if 0.05 <= p <= 0.95 else 0.04
    assert student_t_quantile(p, dof) == pytest.approx(stats.t.ppf(p, dof), rel=rel, abs=1e-3)


@pytest.mark.parametrize("dof", [1, math.inf])
def test_student_quantiles_are_exact_at_both_ends(dof: float) -> None:
    assert student_t_quantile(0.9, dof) == pytest.approx(stats.t.ppf(0.9, dof), rel=1e-9)


def test_student_quantiles_end_at_cauchy_and_at_the_normal() -> None:
    """Fewer than one degree of freedom counts as one: tan(π(p − ½))."""
    assert student_t_quantile(0.9, 0.3) == pytest.approx(math.tan(math.pi * 0.4))
    assert student_t_quantile(0.9, math.inf) == pytest.approx(stats.norm.ppf(0.9), rel=1e-9)


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
    found = round_scatter([{0: 1.0}, {0: 2.0}], "cuda")
    both = found.shared + found.own
    assert both.sd == pytest.approx(ASSUMED_SD["cuda"])
    assert (found.shared.dof, found.own.dof, found.rounds) == (ASSUMED_DOF, ASSUMED_DOF, 1)


def test_repeats_that_agree_have_no_scatter() -> None:
    assert round_scatter([{0: 1.0, 1: 1.0, 2: 1.0}] * 4, "cpu").of_a_later_run().sd == 0


def _simulated(
    round_sd: float, own_sd: float, configs: int, rounds: int, seed: int
) -> RoundScatter:
    random = np.random.default_rng(seed)
    shared = random.normal(0, round_sd, rounds)
    logs = [
        {r: float(shared[r] + random.normal(0, own_sd)) for r in range(rounds)}
        for _ in range(configs)
    ]
    return round_scatter(logs, "cpu")


@pytest.mark.parametrize(
    ("round_sd", "own_sd", "above"), [(0.1, 0.01, 0.0), (0.05, 0.05, 0.0), (0.01, 0.1, 0.2)]
)
def test_the_sum_of_both_components_is_never_estimated_below(
    round_sd: float, own_sd: float, above: float
) -> None:
    """Without bias; but where rounds cannot tell what they share it is not taken for nothing."""
    found = [_simulated(round_sd, own_sd, 12, 4, seed) for seed in range(400)]
    both = [(scatter.shared + scatter.own).sd ** 2 for scatter in found]
    expected = (round_sd**2 + own_sd**2) * (1 + above)
    assert np.mean(both) == pytest.approx(expected, rel=0.15)
    own = [scatter.own.sd**2 for scatter in found]
    assert np.mean(own) == pytest.approx(own_sd**2, rel=0.15)


def test_rounds_that_are_alike_by_chance_may_still_differ() -> None:
    """Deviations ±0.2 that cancel in both rounds: analysis of variance says that nothing is shared;
    the prior, that one more round might be off by what trials are: (1·0 + 1·own²)/2."""
    found = round_scatter([{0: 1.2, 1: 0.8}, {0: 1.8, 1: 2.2}], "cpu")
    assert found.shared.sd**2 == pytest.approx(found.own.sd**2 / 2)
    assert found.shared.dof == 2


@pytest.mark.parametrize("residual", [0.001, 0.005, 0.08])
def test_residuals_say_what_one_round_is_believed_to(residual: float) -> None:
    """(1·a² + 7·told)/8 with a² half of what is assumed; of more than that a tenth is misfit."""
    assumed = round_scatter([{0: 1.0}, {0: 2.0}], "cuda")
    found = of_one_round(assumed, Scatter(sd=residual, dof=7))
    a2 = ASSUMED_SD["cuda"] ** 2 / 2
    told = residual**2 if residual**2 < a2 else residual**2 - (residual**2 - a2) / 10
    assert found.own.sd**2 == pytest.approx((a2 + 7 * told) / 8)
    assert (found.shared, found.rounds) == (found.own, 1)


def test_both_parts_of_one_round_are_known_from_the_same_residuals() -> None:
    """A single residual is one degree of freedom, however many sums it is in."""
    assumed = round_scatter([{0: 1.0}, {0: 2.0}], "cuda")
    found = of_one_round(assumed, Scatter(sd=0.1, dof=1))
    assert found.own.dof == pytest.approx(1, rel=0.02)
    assert found.of_a_later_run().dof == found.own.dof
    assert found.of_a_later_run().sd == pytest.approx(found.own.sd * math.sqrt(3))


def test_a_shared_round_effect_leaves_few_degrees_of_freedom() -> None:
    def freedom(round_sd: float, own_sd: float) -> float:
        found = (_simulated(round_sd, own_sd, 12, 3, seed) for seed in range(50))
        return float(np.median([scatter.of_a_later_run().dof for scatter in found]))

    shared, own = freedom(0.1, 0.001), freedom(0.0, 0.1)
    assert shared == pytest.approx(2, abs=0.5)
    assert own > 8


@pytest.mark.parametrize(("round_sd", "own_sd"), [(0.1, 0.01), (0.01, 0.1)])
def test_intervals_cover_a_further_run(round_sd: float, own_sd: float) -> None:
    """One more draw of round and configuration, beside the mean of the rounds that a model is
    fitted to, falls between P10 and P90 in about 80 %."""
    random, inside, trials = np.random.default_rng(1), 0, 600
    for seed in range(trials):
        q = _simulated(round_sd, own_sd, 8, 4, seed).of_a_later_run().quantiles(1.0)
        later = random.normal(0, round_sd) + random.normal(0, own_sd)
        run = math.exp(later - random.normal(0, round_sd / 4**0.5))
        inside += q.p10 <= run <= q.p90
    assert 0.74 <= inside / trials <= 0.88


def test_few_processes_do_not_make_a_start_up_certain() -> None:
    """Equal start-ups of three processes within a minute leave most of what was assumed."""
    one, three = constant_scatter([0.0]), constant_scatter([0.0, 0.0, 0.0])
    assert one.sd == pytest.approx(PROCESS_PRIOR.sd)
    assert 0.6 * PROCESS_PRIOR.sd < three.sd < PROCESS_PRIOR.sd
    many = constant_scatter([0.5, -0.5] * 200)
    assert many.sd == pytest.approx(0.5, rel=0.02)


@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_a_later_run_strays_by_its_own_draw_and_by_the_error_of_the_mean(rounds: int) -> None:
    """s_round²·(1 + 1/R) + s_own²: without 1/R the mean of few rounds would pass for the truth."""
    found = RoundScatter(shared=Scatter(sd=0.3), own=Scatter(sd=0.1), rounds=rounds)
    assert found.of_a_later_run().sd == pytest.approx(math.sqrt(0.09 * (1 + 1 / rounds) + 0.01))


def test_components_of_two_configurations_in_two_rounds_in_closed_form() -> None:
    """±0.3 and ±0.1, stretched by √2: means of rounds ±0.2·√2, variance within them 0.04.

    shared = 0.08 − 0.04/2, one-way analysis of variance; own = the rest of 0.1.
    """
    found = round_scatter([{0: 1.3, 1: 0.7}, {0: 2.1, 1: 1.9}], "cpu")
    assert found.shared.sd**2 == pytest.approx(0.06)
    assert found.own.sd**2 == pytest.approx(0.04)
    assert (found.shared.dof, found.own.dof, found.rounds) == (1, 1, 2)


@pytest.mark.parametrize(("round_sd", "own_sd"), [(0.1, 0.01), (0.1, 0.1)])
def test_the_component_shared_by_a_round_is_estimated_without_bias(
    round_sd: float, own_sd: float
) -> None:
    found = [_simulated(round_sd, own_sd, 12, 4, seed) for seed in range(400)]
    assert np.mean([s.shared.sd**2 for s in found]) == pytest.approx(round_sd**2, rel=0.15)
