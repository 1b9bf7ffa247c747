"""Where a run evaluates, saves and ends, as planned and as re-planned."""

from hypothesis import given
from hypothesis import strategies as st
from rehearsal import make_plan

from epochcast.guard.schedule import Schedule, last_that_fits


def schedule(**plan: object) -> Schedule:
    return Schedule.of_plan(make_plan(**plan))  # type: ignore[arg-type]


def chance(fits: int):
    """Certain up to an epoch, impossible beyond."""
    return lambda end: 1.0 if end <= fits else 0.0


def test_it_begins_as_the_plan() -> None:
    plan = make_plan(epochs=10, evaluate_every=3, save_every=4)
    found = Schedule.of_plan(plan)
    epochs = range(1, 11)
    assert tuple(e for e in epochs if found.evaluates(e)) == plan.epochs_of("evaluate")
    assert tuple(e for e in epochs if found.saves_at(e, 0, 1, 1, 1)) == plan.epochs_of("save")
    assert found.evaluations_between(0, 10) == len(plan.epochs_of("evaluate"))
    assert found.saves_between(0, 10) == len(plan.epochs_of("save"))


def test_a_shorter_end_is_evaluated_and_saved() -> None:
    short = schedule(epochs=10, evaluate_every=3, save_every=4).replanned(0, chance(7), 0.9, False)
    assert short.end == 7
    assert short.evaluates(7)
    assert short.saves_at(7, 0, 1, 1, 1)
    assert short.evaluations_between(0, 7) == 3  # 3, 6 and the end
    assert short.saves_between(4, 7) == 1


def test_the_end_stays_while_the_probability_is_in_the_band() -> None:
    steady = schedule(epochs=10)
    assert steady.replanned(2, lambda end: 0.86, 0.9, False).end == 10
    assert steady.replanned(2, lambda end: 0.86, 0.9, True).end < 10  # after a jump: at once
    assert steady.replanned(2, lambda end: 0.84, 0.9, False).end < 10


def test_the_end_comes_back_only_for_a_clear_gain_and_never_beyond_the_plan() -> None:
    short = schedule(epochs=100).replanned(0, chance(50), 0.9, False)
    assert short.replanned(10, chance(53), 0.9, False).end == 50
    assert short.replanned(10, chance(60), 0.9, False).end == 60
    assert short.replanned(10, chance(1000), 0.9, False).end == 100


def test_saves_keep_their_seconds_when_epochs_get_slow() -> None:
    plan = schedule(epochs=100, save_every=10, save_interval=500.0)
    assert not plan.saves_at(5, 480, 50, 1.1, 500)  # about as planned: the plan's epochs
    assert plan.saves_at(10, 480, 50, 1.1, 500)
    assert plan.saves_at(5, 480, 150, 3.0, 500)  # three times slower: the plan's seconds
    assert not plan.saves_at(10, 100, 150, 3.0, 500)


def test_saves_that_cost_more_than_planned_are_fewer() -> None:
    plan = schedule(epochs=100, save_every=10, save_interval=500.0)
    assert not plan.saves_at(10, 500, 50, 1.0, 2000)
    assert plan.saves_at(40, 1990, 50, 1.0, 2000)
    asked_for = schedule(epochs=100, save_every=10)
    assert asked_for.saves_at(10, 500, 50, 1.0, 2000)  # at the epochs that the user gave


@given(st.integers(0, 60), st.integers(1, 60), st.integers(0, 80))
def test_the_last_that_fits_is_found(fits: int, more: int, truth: int) -> None:
    found = last_that_fits(fits, fits + more, chance(truth), 0.9)
    assert found == min(max(truth, fits), fits + more)
