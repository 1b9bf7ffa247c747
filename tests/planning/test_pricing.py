"""Candidates priced at once cost what each costs alone; and a hundred thousand take no second."""

from dataclasses import replace

import numpy as np
import pytest
import truths
from hypothesis import given, settings
from hypothesis import strategies as st

from epochcast.costmodel.fitting import fit
from epochcast.costmodel.prediction import predict
from epochcast.costmodel.question import Question, choose_variant, configuration
from epochcast.costmodel.scatter import Calibration, Calibrations
from epochcast.costmodel.surface import Surface
from epochcast.errors import UsageError
from epochcast.planning.planner import plan
from epochcast.planning.pricing import (
    Candidates,
    PriceList,
    Prices,
    TrainingSetup,
    candidates,
    fold_samples,
    price,
    shortlist,
)
from epochcast.planning.request import PlanRequest
from epochcast.records import Budget

MODEL = fit(truths.sweep(round_sd=0.1, trial_sd=0.05))
VARIANT = choose_variant(MODEL, Question(epochs=1))
SETUP = TrainingSetup(
    MODEL,
    VARIANT,
    configuration(MODEL, VARIANT, Question(epochs=1)),
    MODEL.samples,
    MODEL.eval_samples,
)


def one(batch_size: int, accumulation: int = 1, devices: int = 1) -> Candidates:
    return Candidates(np.array([batch_size]), np.array([accumulation]), np.array([devices]))


@given(
    st.integers(1, 300),
    st.lists(st.integers(1, 300), min_size=1, max_size=3),
    st.lists(st.integers(1, 8), min_size=1, max_size=3, unique=True),
)
def test_no_candidate_is_without_steps_when_the_last_batch_is_dropped(
    samples: int, batches: list[int], devices: list[int]
) -> None:
    """One would cost nothing, and win: a batch has no more samples than an epoch."""
    setup = replace(SETUP, samples=samples, config=replace(SETUP.config, drop_last=True))
    request = PlanRequest(batch_sizes=tuple(batches), devices=tuple(devices))
    try:
        found = price(setup, candidates(setup, request))
    except UsageError:
        return
    assert (found.division.updates >= 1).all()
    assert (found.training > 0).all()


def test_what_runs_say_is_in_the_medians_of_all_and_in_the_prices_of_one() -> None:
    runs = {"epoch": 1.3, "startup": 1.2, "evaluation": 1.1, "save": 0.9}
    found = {part: Calibration(runs=1, factor=k, weight=1.0) for part, k in runs.items()}
    setup = replace(SETUP, model=replace(MODEL, calibration=Calibrations(**found)))
    before, after = (price(j, one(96)) for j in (SETUP, setup))
    old, new = before.prices(before.cost(0)), after.prices(after.cost(0))
    assert after.training[0] / before.training[0] == pytest.approx(1.3)
    assert after.training[0] == pytest.approx(new.training.median, rel=1e-3)
    assert after.startup[0] == pytest.approx(new.ready_seconds, rel=1e-3)
    assert after.evaluation[0] / before.evaluation[0] == pytest.approx(1.1)
    assert new.epoch_seconds / old.epoch_seconds == pytest.approx(1.3)
    assert new.ready_seconds / old.ready_seconds == pytest.approx(1.2)
    assert new.evaluation.median / old.evaluation.median == pytest.approx(1.1)
    assert new.save.median / old.save.median == pytest.approx(0.9)
    assert new.first == old.first
    assert new.training.scatter == found["epoch"].scatter(old.training.scatter)


def _alone(priced: PriceList, i: int) -> Prices:
    return priced.prices(priced.cost(i))


@settings(max_examples=40)
@given(st.integers(1, 4000), st.integers(1, 8))
def test_prices_are_those_of_a_prediction(batch: int, accumulation: int) -> None:
    priced = _alone(price(SETUP, one(batch, accumulation)), 0)
    estimate = predict(
        MODEL, Question(epochs=7, batch_size=batch, accumulation=accumulation, save_every=0)
    )
    terms = {t.name: t.seconds for t in estimate.terms}
    assert priced.ready_seconds + priced.first.median == pytest.approx(
        terms["start-up"].p50 + terms["first steps"].p50
    )
    training = terms["training steps"].p50
    training += terms["last partial batches"].p50 if "last partial batches" in terms else 0.0
    assert 7 * priced.training.median == pytest.approx(training)
    assert 7 * priced.evaluation.median == pytest.approx(terms["evaluation"].p50)
    assert estimate.device_bytes is not None
    assert priced.device_bytes is not None
    ours, theirs = priced.device_bytes.quantiles(), estimate.device_bytes
    assert (ours.p10, ours.p90) == (pytest.approx(theirs.p10), pytest.approx(theirs.p90))


@settings(max_examples=30)
@given(st.lists(st.integers(1, 2000), min_size=1, max_size=20))
def test_all_at_once_costs_what_each_costs_alone(batches: list[int]) -> None:
    """Where nothing was counted exactly; a configuration that was may differ by a rounding."""
    sizes = np.array(batches)
    many = price(SETUP, Candidates(sizes, np.ones_like(sizes), np.ones_like(sizes)))
    alone = [_alone(many, i) for i in range(len(batches))]
    for name, ours in (("training", many.training), ("device_bytes", many.device_bytes)):
        assert list(ours) == pytest.approx([getattr(p, name).median for p in alone], rel=0.01)
    assert list(many.startup) == pytest.approx([p.ready_seconds for p in alone])
    whole = [p.evaluation.median for p in alone]
    assert list(many.evaluation) == pytest.approx(whole, rel=0.25)  # a part of a batch is its share


def test_loading_apart_is_priced_in_one_pass_too() -> None:
    """Probed with two worker processes and asked for four: computing and loading meet anew."""
    measured = [
        truths.measure(
            b,
            w,
            config=replace(truths.measure(b, w).config, workers=2),
            loader_seconds=(0.0004 * b / 32,) * 20,
            trial=n,
        )
        for n, (b, w) in enumerate((b, w) for b in (32, 64, 128, 256) for w in (256, 1024))
    ]
    model = fit(measured)
    assert model.variants[0].loading is not None
    variant = choose_variant(model, Question(epochs=1, workers=4))
    config = configuration(model, variant, Question(epochs=1, workers=4))
    setup = TrainingSetup(model, variant, config, 60_000, 0)
    sizes = np.array([40, 100, 200])
    many = price(setup, Candidates(sizes, np.ones_like(sizes), np.ones_like(sizes)))
    assert setup.apart
    alone = [_alone(many, i).training.median for i in range(3)]
    assert list(many.training) == pytest.approx(alone, rel=0.01)


def test_a_fold_trains_on_all_parts_but_one() -> None:
    assert fold_samples(60_000, 5) == (48_000, 12_000)
    assert fold_samples(10, 3) == (6, 4)


def test_the_shortlist_has_the_best_of_all() -> None:
    """Every candidate is priced: none beats the one that was chosen from the shortlist."""
    budget = Budget(deadline=300.0)
    request = PlanRequest(batch_sizes=(256,))
    chosen = plan(MODEL, budget, batch_sizes=(256,)).chosen
    every = [
        plan(MODEL, budget, batch_sizes=(256,), micro_batch=m).chosen
        for m in (8, 16, 32, 64, 128, 256)
    ]
    best = min(every, key=request.objective.key)
    assert chosen.config == best.config


def test_memory_limits_the_shortlist() -> None:
    priced = price(SETUP, Candidates(np.arange(1, 500), np.ones(499, int), np.ones(499, int)))
    limit = float(np.median(priced.device_bytes))
    request = PlanRequest(epochs=3)
    found = shortlist(priced, Budget(memory=limit), request)
    assert np.all(priced.device_bytes[found] <= limit)
    smallest = shortlist(priced, Budget(memory=1.0), request)
    assert int(np.argmin(priced.device_bytes)) in smallest


def test_a_hundred_thousand_candidates_are_looked_at_in_one_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every micro-batch is looked up once; the time is in benchmarks/planning.py."""
    asked: list[int] = []

    def values(self: Surface, table: dict[str, np.ndarray]) -> np.ndarray:  # type: ignore[type-arg]
        asked.append(len(table["batch_size"]))
        return original(self, table)

    original = Surface.values
    monkeypatch.setattr(Surface, "values", values)
    n = 100_000
    random = np.random.default_rng(0)
    many = Candidates(
        random.integers(1, 1024, n), random.integers(1, 64, n), random.integers(1, 8, n)
    )
    found = shortlist(price(SETUP, many), Budget(deadline=3600.0), PlanRequest(epochs=90))
    assert 0 < len(found) <= 36
    assert max(asked) < 1024
    assert len(asked) < 40
