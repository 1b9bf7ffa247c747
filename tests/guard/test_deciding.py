"""Go on, cut or stop, by hand."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from rehearsal import about, make_plan

from epochcast.guard.deciding import Situation, next_move
from epochcast.guard.pace import Pace
from epochcast.guard.schedule import Schedule

PLAN = make_plan(epochs=10, evaluation=about(4.0, 0.1), evaluate_every=2, save_every=5)
HERE = Situation(
    pace=Pace.of_plan(PLAN.prices),
    schedule=Schedule.of_plan(PLAN),
    done=4,
    first=False,
    left=1000.0,
    reserve=2.5,
    confidence=0.9,
    first_bound=5.5,
    step_bound=5.5,
)


def test_the_segment_has_the_evaluation_that_is_planned() -> None:
    assert HERE.segment().evaluations == 0
    assert replace(HERE, done=5).segment().evaluations == 1
    rest = HERE.rest(10)
    assert (rest.epochs, rest.evaluations, rest.saves) == (6, 3, 2)
    assert replace(HERE, improving=0.5).rest(10).saves == 2.5
    assert HERE.rest(4).epochs == 0


def test_it_goes_on_where_the_segment_fits_with_the_confidence() -> None:
    needed = HERE.pace.seconds(HERE.segment(), 0.9) + HERE.reserve
    assert next_move(replace(HERE, left=needed + 0.01), True)[0] == "epoch"
    assert next_move(replace(HERE, left=needed - 0.01), True)[0] == "steps"
    assert next_move(replace(HERE, left=needed - 0.01), False)[0] == "stop"
    assert next_move(replace(HERE, left=7.9), True)[0] == "stop"
    assert next_move(replace(HERE, left=8.1), True)[0] == "steps"


def test_it_ends_with_the_plan() -> None:
    assert next_move(replace(HERE, done=10), True)[0] == "done"


def test_a_shorter_end_that_is_reached_with_time_to_spare_moves() -> None:
    short = replace(HERE, schedule=replace(HERE.schedule, end=4))
    move, schedule = next_move(short, True)
    assert (move, schedule.end) == ("epoch", 10)
    move, schedule = next_move(replace(short, left=130.0), True)
    assert (move, schedule.end) == ("epoch", 6)
    move, schedule = next_move(replace(short, left=40.0), True)
    assert (move, schedule.end) == ("steps", 5)


@given(st.floats(0, 2000), st.floats(0, 1000), st.booleans())
def test_more_time_never_means_less_training(left: float, more: float, partial: bool) -> None:
    order = ("stop", "steps", "epoch")
    less, later = (
        next_move(replace(HERE, left=seconds), partial)[0] for seconds in (left, left + more)
    )
    assert order.index(less) <= order.index(later)


def test_the_first_step_of_an_epoch_may_take_longer() -> None:
    slow = replace(HERE, first_bound=30.0, step_bound=0.5)
    assert replace(slow, left=32.0).steps_that_fit() == 0
    assert replace(slow, left=32.6).steps_that_fit() == 1
    assert replace(slow, left=34.6).steps_that_fit() == 5


def test_without_any_limit_all_steps_fit() -> None:
    assert replace(HERE, left=float("inf")).steps_that_fit() > 10**8
