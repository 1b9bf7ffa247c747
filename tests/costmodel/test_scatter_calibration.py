"""What runs say about the next one: laws of the factor and of its interval, and real coverage."""

from __future__ import annotations

from math import exp, log, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochcast.costmodel.scatter import (
    ASSUMED_DOF,
    KNOWN_DOF,
    Calibration,
    Error,
    Scatter,
    calibration,
    student_t_quantile,
)

ratios = st.floats(-3, 3)
sds = st.floats(0.001, 0.5)
errors = st.builds(lambda r, s: Error(log_ratio=r, sd=s), ratios, sds)
scatters = st.builds(
    lambda sd, dof: Scatter(sd=sd, dof=dof),
    st.floats(0, 0.5),
    st.floats(1, 50) | st.just(KNOWN_DOF),
)


def runs_of(ratio: float, count: int, sd: float = 0.05) -> Calibration:
    return calibration([Error(log_ratio=log(ratio), sd=sd)] * count)


def reach(scatter: Scatter, p: float = 0.95) -> float:
    return student_t_quantile(p, scatter.dof) * scatter.sd


@given(scatters)
def test_without_runs_nothing_changes(probed: Scatter) -> None:
    found = calibration([])
    assert found == Calibration()
    assert found.scatter(probed) is probed
    assert found.factor == 1.0
    assert found.width_change(probed) == 1.0


def test_two_runs_by_hand() -> None:
    """s = 0.1 and 0.2: v = 1 and ¼, m = 1.25; b̂ = (0.3 + 0.2/4)/2.25; Q, f and the rest follow."""
    found = calibration([Error(log_ratio=0.3, sd=0.1), Error(log_ratio=0.2, sd=0.2)])
    shared = 0.35 / 2.25
    squares = 2 * ((0.3 - shared) ** 2 / 0.01 + (0.2 - shared) ** 2 / 0.04)
    freedom = ASSUMED_DOF + 2 - 1.25 / 2.25
    assert found.factor == pytest.approx(exp(shared))
    assert found.squares == pytest.approx(squares)
    scale = (ASSUMED_DOF + squares) / freedom * (1 + 1 / 2.25) / 2
    wider = found.scatter(Scatter(sd=0.1, dof=4))
    assert wider.sd == pytest.approx(0.1 * sqrt(scale))
    assert wider.dof == pytest.approx(freedom)


@given(st.lists(sds, min_size=1, max_size=12), scatters)
def test_runs_that_went_as_predicted_change_no_time_and_widen_nothing(
    known: list[float], probed: Scatter
) -> None:
    found = calibration([Error(log_ratio=0.0, sd=sd) for sd in known])
    assert found.factor == 1.0
    after = found.scatter(probed)
    for p in (0.9, 0.95):
        assert reach(after, p) <= reach(probed, p) * (1 + 1e-12)


@given(st.lists(errors, min_size=1, max_size=8), st.floats(0.1, 10), st.floats(0.1, 10))
def test_slower_runs_raise_the_factor(found: list[Error], a: float, b: float) -> None:
    low, high = sorted((a, b))
    factors = [
        calibration([Error(log_ratio=e.log_ratio + log(k), sd=e.sd) for e in found]).factor
        for k in (low, high)
    ]
    assert factors[0] <= factors[1] * (1 + 1e-12)


@given(st.floats(0.2, 5), sds)
def test_the_factor_moves_to_the_ratio_and_never_beyond(ratio: float, sd: float) -> None:
    logs = [log(runs_of(ratio, count, sd).factor) for count in (1, 2, 5, 20, 1000)]
    distances = [abs(log(ratio) - found) for found in logs]
    assert distances == sorted(distances, reverse=True)
    assert all(found * log(ratio) >= 0 for found in logs)
    assert distances[-1] <= abs(log(ratio)) / 1000


@given(st.lists(errors, min_size=2, max_size=8), st.randoms())
def test_the_order_of_runs_does_not_matter(found: list[Error], random: object) -> None:
    shuffled = list(found)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert calibration(shuffled) == calibration(found)


def test_a_run_predicted_with_less_certainty_counts_less() -> None:
    near, far = Error(log_ratio=0.0, sd=0.05), Error(log_ratio=0.5, sd=0.5)
    assert log(calibration([near, far]).factor) < 0.01
    assert calibration([near, far]).weight == pytest.approx(1.01)


@pytest.mark.parametrize(("inside", "wider"), [(0.3, False), (3.0, True)])
def test_runs_outside_widen_and_runs_well_inside_narrow_slowly(inside: float, wider: bool) -> None:
    """Runs around a right median, so many standard deviations away from it."""
    probed = Scatter(sd=0.05, dof=4)
    runs = [Error(log_ratio=sign * inside * 0.05, sd=0.05) for sign in (1, -1)]
    change = [calibration(runs * pairs).width_change(probed) for pairs in (1, 2, 5)]
    if wider:
        assert min(change) > 1.3
    else:
        assert sorted(change, reverse=True) == change
        assert change[0] > 0.6
        assert change[-1] > 0.3


def test_the_quietest_probes_are_no_reason_to_ignore_runs() -> None:
    """Probes without any scatter, runs that differ by 5 %: the interval gets some width."""
    runs = [Error(log_ratio=sign * 0.05, sd=0.0) for sign in (1, -1)] * 5
    after = calibration(runs).scatter(Scatter(sd=0.0))
    assert after.sd == pytest.approx(0.05, rel=0.2)
    assert after.dof < 20


@pytest.mark.parametrize("sd", [0.01, 0.02, 0.05])
def test_after_ten_runs_the_90_percent_interval_holds_in_about_90_percent(sd: float) -> None:
    """Real runs are 15 % slower than probes, and differ by 5 %; the model has no idea of either."""
    random = np.random.default_rng(5)
    probed = Scatter(sd=sd, dof=6)
    hits = {0: [], 10: []}  # type: dict[int, list[bool]]
    for _ in range(2000):
        *past, new = (log(1.15) + random.normal(0, 0.05, 11)).tolist()
        for count, held in hits.items():
            found = calibration([Error(log_ratio=r, sd=sd) for r in past[:count]])
            held.append(abs(new - log(found.factor)) <= reach(found.scatter(probed)))
    assert 0.85 <= np.mean(hits[10]) <= 0.95
    assert np.mean(hits[0]) < 0.3
