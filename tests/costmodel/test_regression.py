"""The estimator: scikit-learn's own checks, exact recovery, and what its names promise."""

from itertools import pairwise
from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import LeaveOneOut, cross_val_score
from sklearn.utils.estimator_checks import parametrize_with_checks

from epochcast.costmodel.averaging import fit_surface
from epochcast.costmodel.features import Form
from epochcast.costmodel.regression import PhysicalRegressor, Shape, solve
from epochcast.costmodel.surface import join, shares_of

B = np.array([8.0, 16, 32, 64, 128, 256])
LINE = np.stack([np.ones_like(B), B], axis=1)
FLOOR = np.stack([np.ones_like(B), np.ones_like(B), B], axis=1)
LINE_OF_BATCH = ((), (("batch_size", 1.0),))
positive = st.floats(1e-3, 1e3)


@parametrize_with_checks([PhysicalRegressor(), PhysicalRegressor(exponent=2.0)])
def test_scikit_learn_checks(estimator: object, check: object) -> None:
    check(estimator)  # type: ignore[operator]


@given(a=st.floats(1e-6, 1.0), c=st.floats(1e-9, 1e-2))
def test_a_line_is_recovered_exactly(a: float, c: float) -> None:
    y = a + c * B
    assert PhysicalRegressor().fit(LINE, y).predict(LINE) == pytest.approx(y, rel=1e-6)


@pytest.mark.parametrize("exponent", [1.0, 2.0, inf])
@settings(max_examples=40)
@given(y=st.lists(st.floats(0.01, 100), min_size=6, max_size=6))
def test_coefficients_are_never_negative(exponent: float, y: list[float]) -> None:
    fitted = PhysicalRegressor([[0], [1, 2]], exponent).fit(FLOOR, np.array(y))
    assert (fitted.coef_ >= 0).all()


@pytest.mark.parametrize("exponent", [1.0, 2.0, 4.0, inf])
@settings(max_examples=40)
@given(scale=st.floats(1e-6, 1e6))
def test_predictions_scale_with_the_unit_of_y(exponent: float, scale: float) -> None:
    y = 3.0 + 0.1 * B + 0.5 * np.sin(B)
    regressor = PhysicalRegressor([[0], [1, 2]], exponent)
    one = regressor.fit(FLOOR, y).predict(FLOOR)
    assert regressor.fit(FLOOR, scale * y).predict(FLOOR) == pytest.approx(scale * one, rel=1e-5)


@settings(max_examples=30)
@given(kink=st.integers(1, 4), slope=st.floats(0.1, 10))
def test_a_floor_under_a_slope_is_recovered(kink: int, slope: float) -> None:
    y = np.maximum(slope * B[kink], slope * B)
    fitted = PhysicalRegressor([[0], [1]], inf).fit(LINE, y)
    assert fitted.predict(LINE) == pytest.approx(y, rel=1e-6)


@settings(max_examples=50)
@given(host=positive, slope=positive, exponent=st.sampled_from((2.0, 4.0)))
def test_a_soft_floor_is_recovered(host: float, slope: float, exponent: float) -> None:
    y = join(np.stack([np.full_like(B, host), slope * B]), exponent)
    fitted = PhysicalRegressor([[0], [1]], exponent).fit(LINE, y)
    assert fitted.predict(LINE) == pytest.approx(y, rel=1e-4)


@given(st.lists(st.tuples(positive, positive), min_size=1, max_size=5))
def test_a_join_lies_between_the_maximum_and_the_sum(pairs: list[tuple[float, float]]) -> None:
    planes = np.array(pairs).T
    joined = [join(planes, p) for p in (1.0, 2.0, 4.0, inf)]
    assert joined[0] == pytest.approx(planes.sum(axis=0))
    assert joined[-1] == pytest.approx(planes.max(axis=0))
    for larger, smaller in pairwise(joined):
        assert (larger >= smaller * (1 - 1e-12)).all()


@given(st.lists(positive, min_size=3, max_size=3), st.sampled_from((1.0, 2.0, 4.0)))
def test_shares_are_the_derivatives_and_sum_to_one(beta: list[float], exponent: float) -> None:
    groups = ((0,), (1, 2))
    terms = FLOOR * np.array(beta)

    def predicted(beta: np.ndarray) -> np.ndarray:
        return join(np.stack([FLOOR[:, list(g)] @ beta[list(g)] for g in groups]), exponent)

    whole = predicted(np.array(beta))
    shares = shares_of(terms, whole, groups, exponent)
    assert shares.sum(axis=1) == pytest.approx(1.0)
    for column in range(3):
        step = np.array(beta)
        step[column] *= np.exp(1e-6)
        more = predicted(step)
        assert np.log(more / whole) / 1e-6 == pytest.approx(shares[:, column], abs=1e-4)


def test_values_that_are_not_positive_are_refused() -> None:
    with pytest.raises(ValueError, match="must be positive"):
        PhysicalRegressor().fit(LINE, np.zeros(6))


def test_groups_divide_the_columns() -> None:
    with pytest.raises(ValueError, match="must divide the 2 columns"):
        PhysicalRegressor([[0], [0, 1]]).fit(LINE, B)


def test_an_earlier_fit_is_a_good_start() -> None:
    y = join(np.stack([np.full_like(B, 1.0), 0.02 * B]), 2.0)
    shape, nothing = Shape([[0], [1]], 2.0, np.zeros((2, 0))), np.zeros((6, 0))
    whole = solve(LINE, nothing, y, shape)
    without = solve(LINE[1:], nothing[1:], y[1:], shape, whole)
    assert without.beta == pytest.approx(whole.beta, rel=1e-3)


def test_scikit_learn_cross_validates_what_fit_uses() -> None:
    """Every row of a true line is foretold by the others; so the score of each is perfect."""
    y = 0.3 + 0.002 * B
    errors = cross_val_score(
        PhysicalRegressor(), LINE, y, cv=LeaveOneOut(), scoring="neg_mean_squared_error"
    )
    assert errors == pytest.approx(0.0, abs=1e-12)
    surface = fit_surface(
        [{"batch_size": b} for b in B], y, [Form(name="line", groups=(LINE_OF_BATCH,))], []
    )
    assert surface.forms[0].coefficients == pytest.approx(PhysicalRegressor().fit(LINE, y).coef_)
