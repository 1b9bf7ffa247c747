"""The estimators: scikit-learn's own checks, exact recovery, and what their names promise."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.estimator_checks import parametrize_with_checks

from epochcast.costmodel.regression import PhysicalRegressor, ResidualSmoother

B = np.array([8.0, 16, 32, 64, 128, 256])
LINE = np.stack([np.ones_like(B), B], axis=1)


@parametrize_with_checks([PhysicalRegressor(), ResidualSmoother()])
def test_scikit_learn_checks(estimator: object, check: object) -> None:
    check(estimator)  # type: ignore[operator]


@given(a=st.floats(1e-6, 1.0), c=st.floats(1e-9, 1e-2))
def test_a_line_is_recovered_exactly(a: float, c: float) -> None:
    y = a + c * B
    assert PhysicalRegressor().fit(LINE, y).predict(LINE) == pytest.approx(y, rel=1e-6)


@given(st.lists(st.floats(0.01, 100), min_size=6, max_size=6))
def test_coefficients_are_never_negative(y: list[float]) -> None:
    fitted = PhysicalRegressor().fit(LINE, np.array(y))
    assert all((c >= 0).all() for c in fitted.coef_)


@given(scale=st.floats(1e-6, 1e6))
def test_predictions_scale_with_the_unit_of_y(scale: float) -> None:
    y = 3.0 + 0.1 * B + 0.5 * np.sin(B)
    one = PhysicalRegressor().fit(LINE, y).predict(LINE)
    assert PhysicalRegressor().fit(LINE, scale * y).predict(LINE) == pytest.approx(scale * one)


@settings(max_examples=30)
@given(kink=st.integers(1, 4), slope=st.floats(0.1, 10))
def test_a_floor_under_a_slope_is_recovered(kink: int, slope: float) -> None:
    y = np.maximum(slope * B[kink], slope * B)
    fitted = PhysicalRegressor([[0], [0, 1]]).fit(LINE, y)
    assert fitted.predict(LINE) == pytest.approx(y, rel=1e-6)


def test_values_that_are_not_positive_are_refused() -> None:
    with pytest.raises(ValueError, match="must be positive"):
        PhysicalRegressor().fit(LINE, np.zeros(6))


def test_smoother_interpolates_without_noise_and_forgets_far_away() -> None:
    Z = np.log2(B)[:, None]
    r = np.sin(Z[:, 0])
    fitted = ResidualSmoother(length_scale=1.0, noise=1e-9).fit(Z, r)
    assert fitted.predict(Z) == pytest.approx(r, abs=1e-4)
    assert fitted.predict(np.array([[60.0]])) == pytest.approx([0.0])


def test_closed_form_leave_one_out_equals_leaving_one_out() -> None:
    Z = np.log2(B)[:, None]
    r = np.cos(Z[:, 0])
    closed = ResidualSmoother(2.0, 0.1).fit(Z, r).loo_residuals()
    for i in range(len(r)):
        rest = np.arange(len(r)) != i
        left_out = ResidualSmoother(2.0, 0.1).fit(Z[rest], r[rest])
        assert closed[i] == pytest.approx(r[i] - left_out.predict(Z[i : i + 1])[0])
