"""When things are done: counts agree with lists, rungs are whole, intervals follow theory."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochcast.planning import cadence as c

cadences = st.one_of(
    st.builds(c.Every, st.integers(0, 20)),
    st.builds(c.AtMost, st.integers(1, 20), st.integers(1, 9)),
    st.builds(c.Rungs, st.integers(1, 9), st.integers(2, 5)),
    st.sets(st.integers(1, 300)).map(lambda s: c.At(tuple(sorted(s)))),
)


@given(cadences, st.integers(0, 300))
def test_counts_are_those_of_the_list(cadence: c.Cadence, last: int) -> None:
    epochs = cadence.epochs(last)
    assert cadence.count(np.array([last])).tolist() == [len(epochs)]
    assert list(epochs) == sorted(set(epochs))
    if epochs:
        assert epochs[-1] == last


@given(cadences, st.integers(0, 200))
def test_longer_runs_never_have_fewer_occasions(cadence: c.Cadence, last: int) -> None:
    fewer, more = cadence.count(np.array([last, last + 1]))
    assert fewer <= more


def test_rungs_count_with_whole_numbers() -> None:
    """R = 243, η = 3 is five rungs above the first; log(243)/log(3) in floating point is less."""
    assert math.floor(math.log(243) / math.log(3)) == 4
    assert c.integer_log(243, 3) == 5
    assert c.rung_epochs(1, 3, 243) == (1, 3, 9, 27, 81, 243)
    assert c.rung_epochs(5, 3, 4) == ()


@given(st.integers(1, 10**12), st.integers(2, 10))
def test_integer_log_is_the_largest_power(value: int, base: int) -> None:
    power = c.integer_log(value, base)
    assert base**power <= value < base ** (power + 1)


@given(st.floats(1, 300), st.floats(0.1, 100), st.floats(1, 1000), st.integers(1, 20))
def test_evaluation_intervals_minimise_their_cost(
    best: float, evaluate: float, epoch: float, patience: int
) -> None:
    def cost(v: int, delay: float) -> float:
        return evaluate * best / v + epoch * delay * v

    for p, delay in ((None, 0.5), (patience, patience + 0.5)):
        chosen = c.evaluation_interval(best, evaluate, epoch, p)
        candidates = range(1, chosen + 40)
        assert cost(chosen, delay) <= 1.13 * min(cost(v, delay) for v in candidates)


def test_evaluation_interval_in_closed_form() -> None:
    assert c.evaluation_interval(50, 8, 4) == round(math.sqrt(2 * 50 * 8 / 4))
    assert c.evaluation_interval(50, 80, 4, 5) == round(math.sqrt(50 * 80 / (5.5 * 4)))
    assert c.evaluation_interval(50, 0.001, 55) == 1
    assert c.evaluation_interval(50, 8, 0) == 1


def test_every_second_and_the_last() -> None:
    assert c.Every(2).epochs(5) == (2, 4, 5)
    assert c.Every(0).epochs(5) == ()
    assert c.Rungs(1, 3).epochs(20) == (1, 3, 9, 20)
    assert c.At((2, 7)).epochs(5) == (2, 5)


@pytest.mark.parametrize("last", [0, 1])
def test_the_shortest_runs(last: int) -> None:
    assert c.Every(3).epochs(last) == ((1,) if last else ())
