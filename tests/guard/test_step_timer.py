"""The bound of the next step: TCP's timer, slow steps remembered, first steps by themselves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rehearsal import about

from epochcast.guard.step_timer import DurationBound, StepTimer


def timer(first: bool = False) -> StepTimer:
    """Steps of 1 s as planned, 10 s of warm-up, in an epoch that begins at 0."""
    found = StepTimer(about(10.0), steps=10, warm_up=10.0)
    found.begin_epoch(0.0, first)
    return found


def test_one_step_moves_mean_and_spread_as_rfc_6298_has_it() -> None:
    bound = DurationBound(median=1.0, upper=1.0)
    bound.saw(3.0)
    mean, spread = 1 + 2 / 8, 0 + 2 / 4
    assert bound.bound == max(mean + 4 * spread, 3.0)


@given(st.lists(st.floats(0.1, 10), max_size=20), st.floats(0.1, 2), st.floats(0, 2))
def test_it_is_never_below_the_plan_nor_the_slowest_of_late(
    steps: list[float], median: float, more: float
) -> None:
    bound = DurationBound(median, median + more)
    for seconds in steps:
        bound.saw(seconds)
    assert bound.bound >= max([median + more, *steps])
    bound.begin_epoch()
    assert bound.bound >= max([median + more, *steps])


def test_what_was_slow_two_epochs_ago_is_forgotten() -> None:
    bound = DurationBound(1.0, 1.0)
    bound.saw(100.0)
    for _ in range(200):
        bound.saw(1.0)
    bound.begin_epoch()
    assert bound.bound == 100
    bound.begin_epoch()
    assert bound.bound < 1.1


def test_an_epochs_first_step_has_a_bound_of_its_own() -> None:
    steps = timer()
    steps.saw(30.0)
    steps.saw(31.0)
    assert steps.steady.bound == pytest.approx(1.0)
    assert steps.first_bound(first=False) >= 30


def test_the_warm_up_of_a_process_is_no_restart_of_the_loader() -> None:
    steps = timer(first=True)
    steps.saw(10.5)  # of which 10 s are the warm-up
    assert steps.first_bound(first=False) == pytest.approx(1.0)
    assert steps.first_bound(first=True) == pytest.approx(11.0)


def test_steps_are_counted_and_make_what_was_saved_old() -> None:
    steps = timer()
    assert (steps.step, steps.unsaved) == (0, True)
    steps.saw(1.0)
    steps.saved(3.0)
    assert (steps.step, steps.unsaved) == (1, False)
    steps.saw(4.0)
    assert (steps.step, steps.unsaved) == (2, True)
    assert steps.steady.bound == pytest.approx(1.0)  # the save was no part of the step
    steps.end_epoch()
    assert steps.step == 0


def test_what_is_left_out_is_no_part_of_the_next_step() -> None:
    steps = timer()
    steps.saw(1.0)
    steps.leave_out(400.0)
    steps.saw(402.0)
    assert steps.steady.bound == pytest.approx(1.0)


def test_an_epoch_that_is_gone_on_with_restarts_the_loader() -> None:
    steps = timer()
    steps.skip(50.0, 7)
    steps.saw(80.0)
    assert steps.step == 8
    assert steps.steady.bound == pytest.approx(1.0)
