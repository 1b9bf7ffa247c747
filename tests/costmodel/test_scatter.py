"""Quantiles against scipy, variance components against simulated truths."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from epochcast.costmodel.scatter import (
    EXPECTED,
    PROCESS_PRIOR,
    Expected,
    RoundScatter,
    Scatter,
    constant_scatter,
    expected_scatter,
    of_one_round,
    round_pace,
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


def found_in(logs: list[dict[int, float]]) -> RoundScatter:
    found = round_scatter(logs)
    assert found is not None
    return found


def test_a_single_round_says_nothing() -> None:
    assert round_scatter([{0: 1.0}, {0: 2.0}]) is None


def test_repeats_that_agree_have_no_scatter() -> None:
    found = found_in([{0: 1.0, 1: 1.0, 2: 1.0}] * 4)
    assert found.among(EXPECTED["cpu"]).of_a_later_run().sd == 0


def test_two_runs_of_one_configuration_do_not_tell_the_round_from_the_trial() -> None:
    """Variance 0.5²/2 of the pair, one degree of freedom, however many sums it is in."""
    found = found_in([{0: 1.5, 1: 1.0}, {0: 7.0}])
    assert found.shared == found.own
    assert found.shared.sd**2 + found.own.sd**2 == pytest.approx(0.125)
    assert found.of_a_later_run().dof == 1


def _simulated(
    round_sd: float, own_sd: float, configs: int, rounds: int, seed: int
) -> RoundScatter:
    random = np.random.default_rng(seed)
    shared = random.normal(0, round_sd, rounds)
    logs = [
        {r: float(shared[r] + random.normal(0, own_sd)) for r in range(rounds)}
        for _ in range(configs)
    ]
    return found_in(logs)


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
    found = found_in([{0: 1.2, 1: 0.8}, {0: 1.8, 1: 2.2}])
    assert found.shared.sd**2 == pytest.approx(found.own.sd**2 / 2)
    assert found.shared.dof == 2


# -- what is expected before any run is seen ------------------------------------------------------


@pytest.mark.parametrize("dof", [1, 2, 3, 10])
def test_a_flat_expectation_changes_nothing(dof: float) -> None:
    """log σ² of the scaled inverse-χ² has mean log(s²ν/2) − ψ(ν/2) and variance ψ'(ν/2)."""
    found = Expected(sd=0.1, below=1e3, above=1e3).given(Scatter(sd=0.1, dof=dof))
    if dof > 1:  # of one, the tail goes on beyond the grid
        assert found.sd == pytest.approx(0.1, rel=0.05)
        assert found.dof == pytest.approx(dof, rel=0.15)


def test_without_a_run_what_is_expected_is_believed() -> None:
    """A normal logarithm comes back with its mean; of much freedom what was found does."""
    expected = Expected(sd=0.1, below=0.2, above=0.2)
    alone = expected.given(Scatter(sd=0.0, dof=0))
    assert alone.sd == pytest.approx(0.1, rel=0.05)
    assert expected.given(Scatter(sd=0.3, dof=1e4)).sd == pytest.approx(0.3, rel=0.02)
    assert alone.sd < expected.given(Scatter(sd=0.3, dof=3)).sd < 0.3


@pytest.mark.parametrize(("kind", "sds"), [("cuda", (0.005, 0.02, 0.05)), ("cpu", (0.02, 0.08))])
def test_a_pair_of_runs_holds_the_next_one_and_is_of_use(kind: str, sds: tuple[float, ...]) -> None:
    """Of σ unknown, from two runs alone: the chance that a third one lies in P5–P95 beside their
    mean, over all pairs; and no interval is as wide as Student's at one degree of freedom."""
    expected, shares = EXPECTED[kind], (np.arange(40) + 0.5) / 40
    for sd in sds:
        held = []
        for variance in sd**2 * stats.chi2.ppf(shares, 1):
            part = Scatter(sd=math.sqrt(variance / 2), dof=1)
            run = RoundScatter(shared=part, own=part, rounds=2, one_source=True).among(expected)
            reach = math.log(run.of_a_later_run().quantile(1.0, 0.95))
            held.append(2 * stats.norm.cdf(reach / (sd * math.sqrt(1.5))) - 1)
            assert variance < 0.1**2 or reach < 4 * math.sqrt(variance)
        assert 0.82 <= np.mean(held) <= 0.99


def test_what_waits_for_data_strays_as_its_host() -> None:
    assert expected_scatter("cuda", 0.0) == EXPECTED["cuda"]
    assert expected_scatter("cuda", 1.0) == EXPECTED["cpu"]
    half = expected_scatter("cuda", 0.5).sd
    assert half == pytest.approx(math.hypot(EXPECTED["cuda"].sd, EXPECTED["cpu"].sd) / 2)
    assert expected_scatter("cpu", 0.7) == EXPECTED["cpu"]


def test_residuals_say_what_one_round_is_believed_to() -> None:
    """Small ones lower what is expected, large ones raise it, but for a tenth that is misfit."""
    expected = EXPECTED["cuda"]
    alone = of_one_round(expected)
    quiet, loud = (of_one_round(expected, Scatter(sd=sd, dof=7)) for sd in (0.002, 0.2))
    assert quiet.own.sd < alone.own.sd < loud.own.sd < 0.2 * math.sqrt(0.95)
    assert (loud.shared, loud.rounds) == (loud.own, 1)


def test_both_parts_of_one_round_are_known_from_the_same_residuals() -> None:
    """A single residual is one degree of freedom, however many sums it is in."""
    found = of_one_round(EXPECTED["cuda"], Scatter(sd=0.1, dof=1))
    assert found.of_a_later_run().dof == found.own.dof
    assert found.of_a_later_run().sd == pytest.approx(found.own.sd * math.sqrt(3))


def test_a_difference_that_one_configuration_shows_is_the_rounds_by_half() -> None:
    """Shrunk by n/(n + own²/shared²); one that all show is the round's, and one round has none."""
    part = Scatter(sd=0.3)
    run = RoundScatter(shared=part, own=part, rounds=2)
    pace = round_pace([{0: 0.4, 1: 0.0}, {0: 5.0}], run)
    assert pace[0] / pace[1] == pytest.approx(math.exp(0.2))
    pace = round_pace([{0: 0.4, 1: 0.0}] * 1000, run)
    assert pace[0] / pace[1] == pytest.approx(math.exp(0.4), rel=1e-3)
    assert round_pace([{0: 0.4}, {0: 5.0}], run) == {0: 1.0}


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
    found = found_in([{0: 1.3, 1: 0.7}, {0: 2.1, 1: 1.9}])
    assert found.shared.sd**2 == pytest.approx(0.06)
    assert found.own.sd**2 == pytest.approx(0.04)
    assert (found.shared.dof, found.own.dof, found.rounds) == (1, 1, 2)


@pytest.mark.parametrize(("round_sd", "own_sd"), [(0.1, 0.01), (0.1, 0.1)])
def test_the_component_shared_by_a_round_is_estimated_without_bias(
    round_sd: float, own_sd: float
) -> None:
    found = [_simulated(round_sd, own_sd, 12, 4, seed) for seed in range(400)]
    assert np.mean([s.shared.sd**2 for s in found]) == pytest.approx(round_sd**2, rel=0.15)
