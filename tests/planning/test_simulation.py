"""Laws of the budget, and runs simulated from known truths that must keep to it."""

import math
from dataclasses import replace

import numpy as np
import pytest
import truths
from hypothesis import given, settings
from hypothesis import strategies as st

from epochcast.costmodel.fitting import fit
from epochcast.costmodel.prices import Prices
from epochcast.costmodel.scatter import Amount, Scatter
from epochcast.planning.cadence import Cadence, Every, Rungs
from epochcast.planning.failures import FailureDraws, Interruptions
from epochcast.planning.planner import plan
from epochcast.planning.simulation import (
    DRAWS,
    MAX_SEARCHED_EPOCHS,
    RunDraws,
    Spending,
    deviates,
    guaranteed,
    joint,
    student,
)
from epochcast.records import Budget

seconds = st.floats(0.01, 1000)
scatters = st.builds(Scatter, sd=st.floats(0, 0.5), dof=st.floats(2, 100))
amounts = st.builds(Amount, seconds, scatters)
all_prices = st.builds(
    Prices,
    startup=amounts,
    first=amounts,
    training=amounts,
    loader_restart=amounts,
    evaluation=amounts,
    save=amounts,
    epoch_noise=st.floats(0, 0.5),
    save_bytes=st.floats(1e3, 1e9),
)
cadences = st.one_of(
    st.builds(Every, st.integers(0, 9)), st.builds(Rungs, st.integers(1, 3), st.integers(2, 4))
)
interruptions = st.one_of(
    st.none(),
    st.builds(
        Interruptions,
        mtbf_seconds=st.floats(10, 1e6),
        restart_seconds=st.none() | st.floats(0, 900),
        period=st.sampled_from([1, 2, 7, math.inf]),
        evaluations=st.floats(0, 1),
        max_saves=st.none() | st.integers(1, 9),
    ),
)
budgets = st.builds(
    Budget,
    deadline=st.none() | st.floats(1, 1e5),
    money=st.none() | st.floats(0.1, 100),
    energy=st.none() | st.floats(1e4, 1e8),
    disk=st.none() | st.floats(1e3, 1e10),
    price_per_hour=st.floats(0.1, 10),
    watts=st.floats(1, 1000),
    watts_spread=st.floats(0, 0.3),
    confidence=st.floats(0.05, 0.95),
)
MOST = 2000


@st.composite
def spendings(draw: st.DrawFn) -> Spending:
    run = RunDraws(
        draw(all_prices),
        deviates(0, 200),
        folds=draw(st.integers(1, 3)),
        interruptions=draw(interruptions),
    )
    return Spending(
        run,
        draw(cadences),
        draw(cadences),
        draw(budgets),
        devices=draw(st.integers(1, 4)),
        reserve_seconds=draw(st.floats(0, 50)),
        save_bytes=draw(st.floats(1e3, 1e9)),
        keep=draw(st.integers(0, 3)),
    )


def most_epochs(spending: Spending, confidence: float | None = None) -> int:
    everything = joint(spending.affordable(MOST), MOST, 200)
    return guaranteed(everything, confidence or spending.budget.confidence)


@settings(max_examples=60)
@given(spendings(), st.sampled_from(["deadline", "money", "energy", "disk"]), st.floats(1, 3))
def test_more_budget_never_gives_fewer_epochs(
    spending: Spending, limit: str, factor: float
) -> None:
    before = getattr(spending.budget, limit)
    raised = None if before is None else before * factor
    richer = replace(spending, budget=replace(spending.budget, **{limit: raised}))
    assert most_epochs(richer) >= most_epochs(spending)
    freed = replace(spending, budget=replace(spending.budget, **{limit: None}))
    assert most_epochs(freed) >= most_epochs(spending)


@settings(max_examples=60)
@given(spendings(), st.floats(0.05, 0.95), st.floats(0.05, 0.95))
def test_higher_confidence_never_gives_more_epochs(spending: Spending, a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert most_epochs(spending, high) <= most_epochs(spending, low)


@settings(max_examples=60)
@given(spendings(), st.integers(1, MOST))
def test_the_joint_probability_never_exceeds_the_smallest_marginal(
    spending: Spending, epochs: int
) -> None:
    affordable = spending.affordable(MOST)
    together = np.mean(joint(affordable, MOST, 200) >= epochs)
    assert all(together <= np.mean(each >= epochs) for each in affordable.values())


@settings(max_examples=60)
@given(spendings(), st.integers(1, 300))
def test_time_grows_with_epochs_in_every_draw(spending: Spending, epochs: int) -> None:
    run = spending.run
    fewer, more = (np.full(200, e) for e in (epochs, epochs + 1))
    assert np.all(spending.seconds(fewer) <= spending.seconds(more) * (1 + 1e-12))
    assert run.folds * np.min(run.once) <= np.min(spending.seconds(fewer)) * (1 + 1e-12)


@settings(max_examples=60)
@given(spendings())
def test_what_is_affordable_fits_and_one_more_does_not(spending: Spending) -> None:
    for name, limit in spending.limits().items():
        epochs = spending.affordable(MOST)[name]
        used, more = spending.used(name, epochs), spending.used(name, epochs + 1)
        assert np.all((used <= limit * (1 + 1e-9)) | (epochs == 0))
        assert np.all((more > limit) | (epochs == MOST))


@settings(max_examples=60)
@given(spendings(), st.sampled_from([0.25, 0.5, 2.0, 16.0]))
def test_scaling_all_times_and_limits_together_changes_nothing(
    spending: Spending, factor: float
) -> None:
    """Powers of two, so that no rounding can tell the two apart."""
    slower = replace(
        spending,
        run=_scaled(spending.run, factor),
        budget=replace(
            spending.budget,
            **{
                name: None if (limit := getattr(spending.budget, name)) is None else limit * factor
                for name in ("deadline", "money", "energy")
            },
        ),
        reserve_seconds=spending.reserve_seconds * factor,
    )
    assert most_epochs(slower) == most_epochs(spending)


def _scaled(run: RunDraws, factor: float) -> RunDraws:
    scaled = RunDraws.__new__(RunDraws)
    scaled.__dict__ |= run.__dict__
    for name in ("startup", "first", "once", "training", "loader_restart", "evaluation", "save"):
        setattr(scaled, name, getattr(run, name) * factor)
    if run.failures is not None:
        failures, often = run.failures, run.failures.often
        restart = often.restart_seconds
        longer = replace(
            often,
            mtbf_seconds=often.mtbf_seconds * factor,
            restart_seconds=None if restart is None else restart * factor,
        )
        scaled.failures = FailureDraws(
            longer,
            failures.shared,
            failures.start * factor,
            failures.epoch * factor,
            failures.folds,
        )
    return scaled


def test_variance_is_that_of_the_equation() -> None:
    """var T(E) = E·σ² + E²·s_u², and Student's t in the run's part."""
    s_u, sigma = 0.02, 0.1
    prices = Prices(training=Amount(10.0, Scatter(sd=s_u)), epoch_noise=sigma)
    run = RunDraws(prices, deviates(0, 20_000))
    for epochs in (1, 10, 100):
        got = np.std(run.until(*(np.full(20_000, e) for e in (epochs, 0, 0))))
        expected = 10 * math.sqrt(epochs * sigma**2 + epochs**2 * s_u**2)
        assert got == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("epochs", [1, 10, 100])
def test_few_samples_of_each_part_widen_the_interval(epochs: int) -> None:
    """P05–P95 holds 90 % where σ is known from 5 epochs and s_u from 4 runs, and not only s_u.

    Of 4,000 simulated probes, each with its own estimates of both, and one run after each.
    """
    random, sigma, s_u = np.random.default_rng(epochs), 0.05, 0.01
    held = []
    for _ in range(4000):
        epoch_sd = sigma * math.sqrt(random.chisquare(4) / 4)
        run_sd = s_u * math.sqrt(random.chisquare(3) / 3)
        total = Scatter(sd=run_sd, dof=3) + Scatter(sd=epoch_sd / math.sqrt(epochs), dof=4)
        actual = (
            s_u * random.standard_normal() + sigma / math.sqrt(epochs) * random.standard_normal()
        )
        held.append(total.quantile(1.0, 0.05) <= math.exp(actual) <= total.quantile(1.0, 0.95))
    assert np.mean(held) == pytest.approx(0.9, abs=0.02)


def test_the_noise_of_epochs_is_students_too() -> None:
    """One epoch of a run whose noise was seen in five: t with 4 degrees of freedom, 2.13 σ."""
    prices = Prices(training=Amount(10.0), epoch_noise=0.0158, noise_dof=4)
    one = RunDraws(prices, deviates(0, 20_000)).until(*(np.full(20_000, e) for e in (1, 0, 0)))
    assert np.log(np.quantile(one, 0.95) / 10) == pytest.approx(2.132 * 0.0158, rel=0.02)


def test_students_scores_have_students_quantiles() -> None:
    from scipy.stats import norm, t

    z = norm.ppf([0.01, 0.1, 0.5, 0.9, 0.99])
    for dof in (4.0, 10.0, 50.0):
        assert student(z, dof) == pytest.approx(t.ppf(norm.cdf(z), dof), rel=0.02, abs=1e-6)


def _simulated_seconds(
    random: np.random.Generator, prices: Prices, epochs: int, evaluate: Cadence, save: Cadence
) -> float:
    """One run, epoch by epoch, by other code than the planner's."""
    factor = math.exp(random.standard_t(8) * 0.08)
    times = [
        prices.training.median * factor * (1 + 0.05 * random.standard_normal())
        for _ in range(epochs)
    ]
    extra = len(evaluate.epochs(epochs)) * prices.evaluation.median * factor
    extra += len(save.epochs(epochs)) * prices.save.median * factor
    return prices.startup.median + sum(times) + extra


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_nine_runs_in_ten_finish_inside_the_budget_when_the_truth_is_known(seed: int) -> None:
    """1,000 runs of a truth with Student's run-level error, planned at 90 %."""
    own = Scatter(sd=0.08, dof=8)
    prices = Prices(
        startup=Amount(120.0),
        training=Amount(55.0, own),
        evaluation=Amount(8.0, own),
        save=Amount(4.0, own),
        epoch_noise=0.05,
    )
    budget = Budget(deadline=8 * 3600.0)
    spending = Spending(RunDraws(prices, deviates(seed)), Every(2), Every(5), budget)
    epochs = guaranteed(joint(spending.affordable(), MAX_SEARCHED_EPOCHS, DRAWS), budget.confidence)
    random = np.random.default_rng(100 + seed)
    inside = sum(
        _simulated_seconds(random, prices, epochs, Every(2), Every(5)) <= 8 * 3600
        for _ in range(1000)
    )
    assert 860 <= inside <= 940


def test_nine_runs_in_ten_finish_inside_the_budget_from_probes_to_plan() -> None:
    """50 sweeps of a known truth, 20 runs each: probe, fit, plan at 90 %, and run."""
    round_sd = 0.08
    inside = 0
    for seed in range(50):
        model = fit(
            truths.sweep((32, 64, 128, 256), (256, 1024), rounds=6, round_sd=round_sd, seed=seed)
        )
        found = plan(
            model,
            Budget(deadline=1200.0),
            sizes={"width": 1024},
            batch_sizes=(128,),
            micro_batch=128,
            save=1,
        )
        random = np.random.default_rng(1000 + seed)
        times = truths.true_seconds(found.chosen.epochs) * np.exp(random.normal(0, round_sd, 20))
        inside += int(np.sum(times <= 1200.0))
    assert 860 <= inside <= 940
