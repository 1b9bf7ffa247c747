"""Mixtures of normal distributions: quantiles invert probabilities."""

from statistics import NormalDist

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochcast.guard.forecast import Normal, cumulative, normalised, quantile

normals = st.builds(Normal, st.floats(0.01, 1), st.floats(-3, 3), st.floats(1e-3, 2))
mixtures = st.lists(normals, min_size=1, max_size=6).map(normalised)


@pytest.mark.parametrize("p", [1e-6, 0.1, 0.5, 0.9995])
def test_of_one_normal_it_is_the_normals(p: float) -> None:
    assert quantile([Normal(1.0, 2.0, 3.0)], p) == pytest.approx(NormalDist(2, 3).inv_cdf(p))


def test_probability_and_density_are_weighted_sums() -> None:
    mixture = [Normal(0.25, 0.0, 1.0), Normal(0.75, 1.0, 2.0)]
    one, other = NormalDist(0, 1), NormalDist(1, 2)
    below, density = cumulative(mixture, 0.5)
    assert below == pytest.approx(0.25 * one.cdf(0.5) + 0.75 * other.cdf(0.5))
    assert density == pytest.approx(0.25 * one.pdf(0.5) + 0.75 * other.pdf(0.5))


@given(mixtures, st.floats(1e-4, 1 - 1e-4))
def test_the_quantile_inverts_the_probability(mixture: list[Normal], p: float) -> None:
    x = quantile(mixture, p)
    assert cumulative(mixture, x - 1e-5)[0] <= p <= cumulative(mixture, x + 1e-5)[0]


def test_the_quantile_is_found_between_two_that_are_far_apart() -> None:
    mixture = [Normal(0.5, -100.0, 1e-3), Normal(0.5, 100.0, 1e-3)]
    assert cumulative(mixture, quantile(mixture, 0.5))[0] == pytest.approx(0.5)
    assert quantile(mixture, 0.49) == pytest.approx(-100, abs=0.01)
