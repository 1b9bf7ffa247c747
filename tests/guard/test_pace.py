"""What the rest of a run takes: quantiles of the parts add up, and probabilities invert them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rehearsal import about, make_plan

from epochcast.guard.pace import CERTAIN, Pace, Work

PRICES = make_plan(
    epoch=about(50.0, 0.1), evaluation=about(4.0, 0.1), save=about(2.0, 0.1), first=about(9.0, 0.1)
).prices
works = st.builds(
    Work,
    epochs=st.floats(0.5, 50),
    evaluations=st.floats(0, 50),
    saves=st.floats(0, 50),
    first=st.booleans(),
)


def test_the_median_is_the_sum_of_medians() -> None:
    work = Work(epochs=3, evaluations=2, saves=1, first=True)
    assert Pace.of_plan(PRICES).seconds(work, 0.5) == pytest.approx(3 * 50 + 2 * 4 + 2 + 9)


def test_nothing_takes_nothing() -> None:
    assert Pace.of_plan(PRICES).quantiles(Work()).p95 == 0
    assert Pace.of_plan(PRICES).probability(Work(), 0.0) == 1


@given(works, st.floats(0.5, 2.0))
def test_the_probability_inverts_the_quantile(work: Work, share: float) -> None:
    pace = Pace.of_plan(PRICES)
    left = share * pace.seconds(work, 0.5)
    p = pace.probability(work, left)
    if CERTAIN < p < 1:
        assert pace.seconds(work, p) <= left
    if p < 1 - 2e-3:
        assert pace.seconds(work, p + 1e-3) > left


@given(works, st.floats(10, 4000), st.floats(0, 1000))
def test_more_time_is_never_less_probable(work: Work, left: float, more: float) -> None:
    pace = Pace.of_plan(PRICES)
    assert pace.probability(work, left) <= pace.probability(work, left + more)


def test_each_part_learns_from_its_own_kind() -> None:
    pace = Pace.of_plan(PRICES)
    for _ in range(5):
        pace = pace.saw("evaluation", 8.0)
    assert pace.evaluation.median == pytest.approx(8, rel=0.05)
    assert pace.epoch.median == 50
    assert pace.save.median == 2
