"""What physics misses: textbook identities, and that sd means what it says."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epochcast.costmodel.discrepancy import (
    MISSED_SD,
    UNKNOWN_SD,
    Discrepancy,
    _Solved,
    fit_discrepancy,
    kernel,
)
from epochcast.records import from_json, to_json

Z = np.linspace(0, 8, 12)[:, None]
J = np.stack([1 / (1 + 2.0 ** Z[:, 0]), 2.0 ** Z[:, 0] / (1 + 2.0 ** Z[:, 0])], axis=1)


def test_without_a_smooth_part_it_is_linear_regression() -> None:
    """s² = RSS/(n − p) and var = s²(1 + leverage): any textbook, e.g. Seber & Lee 2003, 5.3."""
    random = np.random.default_rng(1)
    r = random.normal(0, 0.05, len(Z))
    found = fit_discrepancy(Z, J, r)
    assert found.length_scale is None
    residuals = r - J @ np.linalg.lstsq(J, r, rcond=None)[0]
    assert found.scale**2 == pytest.approx(residuals @ residuals / (len(r) - 2))
    leverage = np.einsum("ij,jk,ik->i", J, np.linalg.inv(J.T @ J), J)
    assert found.sd(Z + 0.363, J) == pytest.approx(found.scale * np.sqrt(1 + leverage))


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.sampled_from((1.0, 3.0)))
def test_closed_form_leave_one_out_equals_leaving_one_out(seed: int, length: float) -> None:
    r = np.random.default_rng(seed).normal(0, 1, len(Z))
    U = np.linalg.qr(J)[0]
    R = kernel(Z, Z, length) + 0.1 * np.eye(len(Z))
    closed = _Solved(R, U, r).left_out
    for i in range(0, len(r), 4):
        rest = np.arange(len(r)) != i
        part = _Solved(R[np.ix_(rest, rest)], U[rest], r[rest])
        predicted = R[i, rest] @ part.weights + U[i] @ part.offsets
        assert closed[i] == pytest.approx(r[i] - predicted, rel=1e-6, abs=1e-9)


def test_a_smooth_residual_is_followed_and_known_best_where_it_was_seen() -> None:
    r = 0.3 * np.sin(Z[:, 0])
    found = fit_discrepancy(Z, J, r)
    assert found.length_scale is not None
    between = (Z[:-1] + Z[1:]) / 2
    shares = (J[:-1] + J[1:]) / 2
    assert found.correction(between, shares) == pytest.approx(0.3 * np.sin(between[:, 0]), abs=0.04)
    far = np.array([[40.0]])
    assert found.sd(far, J[:1]) > 3 * found.sd(Z, J).max()


def test_noise_alone_is_not_followed() -> None:
    random = np.random.default_rng(0)
    found = [fit_discrepancy(Z, J, random.normal(0, 0.03, len(Z))) for _ in range(60)]
    assert np.mean([missed.length_scale is not None for missed in found]) < 0.35


def test_with_no_row_to_spare_neighbours_are_assumed_to_differ() -> None:
    found = fit_discrepancy(Z[:2], J[:2], np.zeros(2))
    assert found.scale == UNKNOWN_SD
    assert found.sd(Z[:2], J[:2]) == pytest.approx(0.0, abs=1e-3)
    assert found.sd(Z[-1:], J[-1:]) == pytest.approx(UNKNOWN_SD, rel=1e-3)


def test_measurement_noise_is_no_error_of_the_model() -> None:
    """But what was measured is never exactly physics: a prior of 3 % counts as one row."""
    r = np.random.default_rng(1).normal(0, 0.05, len(Z))
    plain, told = fit_discrepancy(Z, J, r), fit_discrepancy(Z, J, r, noise_sd=0.02)
    away, n = Z + 0.363, len(Z) - 2
    scale2 = (n * plain.scale**2 + MISSED_SD**2) / (n + 1)
    assert told.dof == plain.dof + 1
    expected = scale2 / plain.scale**2 * plain.sd(away, J) ** 2 - 0.02**2
    assert told.sd(away, J) ** 2 == pytest.approx(expected)


def test_what_was_measured_exactly_is_predicted_as_measured() -> None:
    r = np.random.default_rng(1).normal(0, 0.05, len(Z))
    exact = fit_discrepancy(Z, J, r)
    assert exact.correction(Z, J) == pytest.approx(r, abs=1e-9)
    assert exact.sd(Z, J) == pytest.approx(0.0, abs=1e-6)
    fitted = J @ np.linalg.lstsq(J, r, rcond=None)[0]
    assert exact.correction(Z + 0.363, J) == pytest.approx(fitted, abs=1e-9)


def test_what_was_measured_with_noise_alone_says_nothing_of_one_place() -> None:
    r = np.random.default_rng(1).normal(0, 0.05, len(Z))
    noisy = fit_discrepancy(Z, J, r, noise_sd=0.2)
    assert noisy.own == 0.0
    fitted = J @ np.linalg.lstsq(J, r, rcond=None)[0]
    assert noisy.correction(Z, J) == pytest.approx(fitted, abs=1e-9)


def test_it_is_plain_json() -> None:
    found = fit_discrepancy(Z, J, 0.3 * np.sin(Z[:, 0]))
    assert from_json(to_json(found), Discrepancy) == found


GRID = np.array([(b, w) for b in range(0, 9, 2) for w in range(5)], float)
SHARES = np.stack([1 / (1 + 2.0 ** GRID[:, 0]), 2.0 ** GRID[:, 0] / (1 + 2.0 ** GRID[:, 0])], 1)


def bent(places: np.ndarray) -> np.ndarray:
    """What is missed changes slowly along the first axis, quickly along the second."""
    return 0.2 * np.sin(places[:, 0] / 8) * np.cos(1.5 * places[:, 1])


def test_each_axis_has_a_length_scale_of_its_own() -> None:
    found = fit_discrepancy(GRID, SHARES, bent(GRID))
    slow, quick = found.stretches
    assert slow >= 4 * quick
    between = GRID[:-5] + np.array([1.0, 0.0])  # half-way along the slow axis
    shares = (SHARES[:-5] + SHARES[5:]) / 2
    error = found.correction(between, shares) - bent(between)
    assert np.abs(error).max() < 0.02
    assert np.sqrt(np.mean(error**2)) < 2 * found.sd(between, shares).mean()


def test_a_correction_is_believed_as_far_as_what_is_missed_stays_the_same() -> None:
    found = fit_discrepancy(GRID, SHARES, bent(GRID))
    outside = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [100.0, 0.0], [0.0, 100.0]])
    inside, along_slow, along_quick, *far = found.believed(outside)
    assert inside == 1.0
    assert along_slow > along_quick
    assert far == [0.0, 0.0]


@settings(max_examples=10)
@given(st.permutations(range(len(GRID))), st.sampled_from((0.001, 1.0, 50.0)))
def test_neither_order_nor_size_of_what_is_missed_matters(order: list[int], size: float) -> None:
    r = size * bent(GRID)
    found, mixed = (fit_discrepancy(GRID[o], SHARES[o], r[o]) for o in (range(len(r)), order))
    assert mixed.stretches == found.stretches
    at, shares = GRID + 0.3, SHARES
    expected = found.correction(at, shares)
    assert mixed.correction(at, shares) == pytest.approx(expected, rel=1e-4, abs=1e-6 * size)


def test_models_of_before_had_one_length_scale_for_all_axes() -> None:
    found = fit_discrepancy(GRID, SHARES, bent(GRID))
    document = json.loads(to_json(found))
    del document["stretches"]
    old = from_json(json.dumps(document), Discrepancy)
    assert old.stretches == ()
    same = replace(found, stretches=(1.0, 1.0))
    assert old.correction(GRID, SHARES) == pytest.approx(same.correction(GRID, SHARES))
    assert old.believed(np.array([[1.0, 1.0]])) == same.believed(np.array([[1.0, 1.0]]))
