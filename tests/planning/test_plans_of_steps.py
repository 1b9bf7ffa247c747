"""Plans that count optimizer steps: priced in the order of the loader, exact to a step."""

from dataclasses import replace
from math import gcd

import known
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import epochcast as ec
from epochcast.costmodel.prediction import predict
from epochcast.costmodel.question import Question
from epochcast.costmodel.scatter import Amount, Scatter
from epochcast.errors import DoesNotFit, UsageError
from epochcast.planning.cadence import AtMost, Rungs
from epochcast.planning.planner import plan
from epochcast.planning.stopping import Futility, Patience
from epochcast.records import Budget, LearningCurve, Plan, Quantiles, RunConfig, from_json, to_json
from epochcast.report.text.plan import choice_line

EXAMPLE = known.model(**known.EXAMPLE)
UNEVEN = known.model(  # 0.1 s a sample: three batches of 32 and one of 4, and 2 s between passes
    setup=0.0,
    first=0.0,
    epoch=100,
    evaluation=0.0,
    save=0.0,
    micro_step=known.per_sample(0.0, 0.1),
    configurations=(RunConfig(batch_size=32),),
)
NEVER = {"evaluate": 0, "save": 0}


def test_a_deadline_allows_the_largest_number_of_steps() -> None:
    """120 + 30 + n seconds within an hour."""
    found = plan(EXAMPLE, Budget(deadline=3600.0), steps="max", **NEVER)
    assert (found.unit, found.chosen.epochs, found.chosen.binding) == ("step", 3450, "deadline")
    assert found.chosen.seconds == Quantiles.exactly(3600)
    assert (found.chosen.horizon_steps, found.chosen.steps_per_epoch) == (3450, 55)
    assert found.chosen.next_epoch_seconds == pytest.approx(1.0)
    target = plan(EXAMPLE, Budget(deadline=3600.0), steps=5000, **NEVER).chosen
    assert (target.epochs, target.target_epochs, target.target_probability) == (3450, 5000, 0.0)


def test_cadences_are_in_steps() -> None:
    """150 + n + 8 for each 500 + 4 for each 1,000, and both once more at the end."""
    found = plan(EXAMPLE, Budget(), steps=2300, evaluate=500, save=1000)
    assert tuple(found.epochs_of("evaluate")) == (500, 1000, 1500, 2000, 2300)
    assert tuple(found.epochs_of("save")) == (1000, 2000, 2300)
    assert found.chosen.seconds == Quantiles.exactly(150 + 2300 + 5 * 8 + 3 * 4)
    at = {c.epoch: c.seconds.p50 for c in found.timeline}
    assert at[1000] == pytest.approx(150 + 1000 + 2 * 8 + 4)
    assert (found.segment_steps, found.prices.epoch.p50) == (500, pytest.approx(500))


@pytest.mark.parametrize("steps", [1, 3, 4, 5, 7, 8, 401])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_steps_are_priced_as_a_prediction_prices_them(steps: int, accumulation: int) -> None:
    """In order: a smaller batch and the loader's restart come with the pass that they are of."""
    (variant,) = UNEVEN.variants
    restarts = replace(
        variant, loader_restart=Amount(2.0, known.EXACTLY), accumulation=accumulation
    )
    model = replace(UNEVEN, variants=(restarts,))
    batch = 32 * accumulation
    asked = {"micro_batch": 32, "batch_sizes": batch, **NEVER}
    found = plan(model, Budget(), steps=steps, **asked).chosen
    question = Question(
        steps=steps, batch_size=32, accumulation=accumulation, eval_every=0, save_every=0
    )
    assert found.config.accumulation == accumulation
    assert found.seconds.p50 == pytest.approx(predict(model, question).total_seconds.p50)


@settings(max_examples=20)
@given(deadline=st.floats(1, 1e6), noise=st.floats(0, 0.5), evaluate=st.integers(0, 50))
def test_one_step_more_does_not_fit(deadline: float, noise: float, evaluate: int) -> None:
    model = known.model(**known.EXAMPLE, run=Scatter(sd=0.05, dof=8), step_sd=noise)
    budget = Budget(deadline=150 + deadline)
    try:
        found = plan(model, budget, steps="max", evaluate=evaluate, save=0)
    except DoesNotFit:
        return
    steps = found.chosen.epochs
    assert found.chosen.probability >= budget.confidence
    with pytest.raises(DoesNotFit, match="steps at 90 % confidence need") as refused:
        plan(model, budget, steps="max", min_steps=steps + 1, evaluate=evaluate, save=0)
    assert refused.value.shortfall.unit == "step"


def test_noise_of_single_steps_averages_out_as_that_of_epochs() -> None:
    """55 steps are an epoch: the same run, however it is counted."""
    model = known.model(**known.EXAMPLE, run=Scatter(sd=0.05, dof=8), step_sd=0.4)
    epochs = plan(model, Budget(), epochs=20, **NEVER).chosen.seconds
    steps = plan(model, Budget(), steps=20 * 55, **NEVER).chosen.seconds
    assert [steps.p05, steps.p50, steps.p95] == pytest.approx([epochs.p05, epochs.p50, epochs.p95])
    interrupted = {"mtbf_seconds": 600.0, "save": 5}
    epochs = plan(model, Budget(), epochs=20, evaluate=0, **interrupted).chosen.seconds
    steps = plan(
        model, Budget(), steps=20 * 55, evaluate=0, **interrupted | {"save": 5 * 55}
    ).chosen.seconds
    assert steps.p50 == pytest.approx(epochs.p50, rel=1e-4)


@settings(max_examples=25)
@given(
    evaluate=st.one_of(st.none(), st.integers(1, 5000)),
    save=st.one_of(st.just("auto"), st.integers(1, 5000)),
    save_seconds=st.floats(0.01, 100),
    steps=st.integers(1, 100_000),
    room=st.integers(2, 9),
)
def test_a_run_is_made_of_equal_segments(
    evaluate: int | None, save: int | str, save_seconds: float, steps: int, room: int
) -> None:
    """All moments but the last are multiples of them; automatic cadences fall into step."""
    model = known.model(**known.EXAMPLE | {"save": save_seconds}, save_bytes=1.0)
    budget = Budget(disk=float(room))
    asked = {"evaluate": evaluate, "save": save, "keep": 0}
    try:
        found = plan(model, budget, steps=steps, **asked)  # type: ignore[arg-type]
    except DoesNotFit:
        return
    assert found.segment_steps
    assert all(c.epoch % found.segment_steps == 0 for c in found.timeline[:-1])
    given_ones = [every for every in (evaluate, save) if isinstance(every, int)]
    if len(given_ones) == 1 and save != "auto" and len(found.timeline) > 2:
        evaluations = found.epochs_of("evaluate")
        every = evaluations[0]
        assert every in (steps, gcd(every, given_ones[0]), given_ones[0] * (every // given_ones[0]))


def test_saves_that_the_disk_spreads_keep_to_the_segments() -> None:
    assert tuple(AtMost(100, 3, 100).epochs(1000)) == (400, 700, 1000)
    assert tuple(AtMost(100, 3).epochs(1000)) == (334, 667, 1000)
    found = plan(
        known.model(**known.EXAMPLE, save_bytes=1.0), Budget(disk=3.0), steps=5000, evaluate=100
    )
    assert found.segment_steps == 100
    assert len(found.epochs_of("save")) <= 3


def test_an_endless_sampler_is_planned_in_steps() -> None:
    """10^10 samples: there are no epochs, so that nobody is told of their length either."""
    endless = known.model(setup=0.0, first=0.0, epoch=10**10, evaluation=3.0, save=0.0)
    found = plan(endless, Budget(deadline=1000.0), steps="max", evaluate=100)
    assert found.chosen.epochs == 970
    assert "endless-epoch" not in {w.code for w in found.warnings}
    assert "endless-epoch" in {w.code for w in plan(endless, Budget(), epochs=1).warnings}


def test_rules_and_curves_count_steps() -> None:
    curve = LearningCurve(
        epochs=tuple(float(s) for s in range(100, 2100, 100)),
        validation=tuple(0.3 + s**-0.5 for s in range(1, 21)),
    )
    rules = (Patience(checks=3), Futility(probability=0.05))
    found = plan(EXAMPLE, Budget(), steps=5000, evaluate=100, rules=rules, curves=curve)
    assert found.outlook is not None
    assert found.outlook.seen_epochs == 2000
    assert dict(found.stop_rules[1].settings)["horizon"] == 5000


def test_rungs_of_steps_begin_at_a_hundred() -> None:
    found = plan(EXAMPLE, Budget(), steps=3000, evaluate="rungs", save=0)
    assert tuple(found.epochs_of("evaluate")) == (100, 300, 900, 2700, 3000)
    own = plan(EXAMPLE, Budget(), steps=3000, evaluate=Rungs(500, 2), save=0)
    assert tuple(own.epochs_of("evaluate")) == (500, 1000, 2000, 3000)


def test_a_plan_of_steps_is_a_document_and_says_steps() -> None:
    found = plan(EXAMPLE, Budget(deadline=3600.0), steps=5000, **NEVER)
    assert from_json(to_json(found), Plan) == found
    assert choice_line(found) == "Run 3,450 of 5,000 steps with batch_size=1"


def test_batch_sizes_are_not_said_to_be_compared_at_equal_epochs() -> None:
    """A plan of steps is of one batch size, and refuses a noise scale."""
    found = plan(EXAMPLE, Budget(), steps=100, batch_sizes=2, reference_batch=1, **NEVER)
    codes = {w.code for w in found.warnings}
    assert "no-optimizer" in codes
    assert "equal-epochs" not in codes


def test_too_many_moments_are_refused() -> None:
    with pytest.raises(UsageError, match=r"at most 1,000,000 moments .* would be 2,000,000"):
        plan(EXAMPLE, Budget(), steps=2_000_000, evaluate=1, save=0)
    assert ec.plan(EXAMPLE, steps=2_000_000, **NEVER).chosen.epochs == 2_000_000


def test_where_nobody_knows_what_a_save_costs_not_every_step_is_saved() -> None:
    """As of imported runs: at evaluations, a hundred times between failures, or at the end."""
    model = known.model(**known.EXAMPLE | {"save": 0.0})
    assert plan(model, Budget(), steps=5000, evaluate=500).epochs_of("save")[:2] == (500, 1000)
    assert tuple(plan(model, Budget(), steps=5000, evaluate=0).epochs_of("save")) == (5000,)
    failing = plan(model, Budget(), steps=5000, evaluate=0, mtbf_seconds=12 * 3600.0)
    assert failing.epochs_of("save")[:2] == (432, 864)
    assert tuple(plan(model, Budget(), epochs=3, evaluate=0).epochs_of("save")) == (1, 2, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"segment_steps": None}, "a plan of steps, and no other, has segment_steps"),
        ({"unit": "epoch"}, "a plan of steps, and no other, has segment_steps"),
        ({"segment_steps": 0}, "segment_steps must lie between 1 and"),
        ({"horizon_steps": -5}, "horizon_steps must lie between 1 and"),
        ({"save_bytes": -1.0}, "save_bytes must lie between 0 and"),
        ({"probability": 5.0}, "probability must lie between 0 and 1, but got 5"),
        ({"target_probability": -0.1}, "target_probability must lie between 0 and 1"),
        ({"memory_share": -2.0}, "memory_share must lie between 0 and"),
    ],
)
def test_a_plan_that_contradicts_itself_is_refused(changes: dict, message: str) -> None:
    found = plan(EXAMPLE, Budget(), steps=100, **NEVER)
    of_plan = "segment_steps" in changes or "unit" in changes
    with pytest.raises(ValueError, match=message):
        replace(found if of_plan else found.chosen, **changes)


@pytest.mark.parametrize("name", ["reach_probability", "stop_probability"])
def test_a_moment_that_is_likelier_than_sure_is_refused(name: str) -> None:
    (last,) = plan(EXAMPLE, Budget(), steps=100, **NEVER).timeline
    with pytest.raises(ValueError, match=f"{name} must lie between 0 and 1, but got 7"):
        replace(last, **{name: 7.0})  # type: ignore[arg-type]


def test_cadences_without_a_common_divisor_are_said() -> None:
    """333 and 250 have none: a followed run would decide after every step."""
    found = plan(EXAMPLE, Budget(), steps=1000, evaluate=333, save=250)
    assert found.segment_steps == 1
    assert "short-segments" in {w.code for w in found.warnings}
    for save in (111, 333, 999, 0, "auto"):
        found = plan(EXAMPLE, Budget(), steps=1000, evaluate=333, save=save)  # type: ignore[arg-type]
        assert "short-segments" not in {w.code for w in found.warnings}


def test_evaluation_that_costs_nothing_is_no_reason_to_evaluate_each_step() -> None:
    free = known.model(**known.EXAMPLE | {"evaluation": 1e-9})
    found = plan(free, Budget(), steps=50_000, save=0)
    assert found.epochs_of("evaluate")[:2] == (50, 100)
