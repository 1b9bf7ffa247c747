"""The robust fit against scipy's, on curves with spikes."""

import numpy as np
import pytest
from scipy.optimize import least_squares as scipy_least_squares

from epochcast.costmodel.features import Array
from epochcast.planning.curves import FAMILIES, _values
from epochcast.planning.robust import jacobian, least_squares


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", FAMILIES)
def test_the_cost_is_as_low_as_scipys(name: str, seed: int) -> None:
    """To 2 %, less than one unit of BIC, where an exponential is all but beyond the family."""
    random = np.random.default_rng(seed)
    x = np.arange(1, 41) / 40
    y = np.exp(-4 * x) + 0.02 * random.standard_normal(40)
    y[random.integers(40)] += 1.0

    def residuals(p: Array) -> Array:
        return _values(name, x, p) - y

    starts = FAMILIES[name].starts
    mine = [least_squares(residuals, np.array(start), 0.02, 12.0, 60) for start in starts]
    theirs = [
        scipy_least_squares(
            residuals, start, loss="soft_l1", f_scale=0.02,
            bounds=([-12.0] * len(start), [12.0] * len(start)), max_nfev=60,
        )
        for start in starts
    ]  # fmt: skip
    assert min(fit.cost for fit in mine) <= min(fit.cost for fit in theirs) * 1.02


def test_a_line_is_fitted_in_closed_form_but_for_its_spike() -> None:
    x, slope = np.arange(20.0), np.array([2.0, 0.5])
    y = slope[0] + slope[1] * x
    y[7] += 100.0
    found = least_squares(lambda p: p[0] + p[1] * x - y, np.zeros(2), 0.01, 12.0, 60)
    assert found.parameters == pytest.approx(slope, abs=0.01)


def test_derivatives_are_those_of_the_function() -> None:
    x = np.array([0.5, 1.0, 2.0])
    found = jacobian(lambda p: p[0] * np.exp(p[1] * x), np.array([2.0, -1.0]))
    assert found[:, 0] == pytest.approx(np.exp(-x))
    assert found[:, 1] == pytest.approx(2 * x * np.exp(-x))
