"""Outcomes of followed runs in a fit, in predictions and in plans: one factor, the same in all."""

from __future__ import annotations

from dataclasses import replace
from math import log, pi

import numpy as np
import pytest
import truths
from hypothesis import given
from hypothesis import strategies as st
from strategies import spread

import epochcast as ec
from epochcast.costmodel.cost import ConfigurationCost
from epochcast.costmodel.model import CostModel
from epochcast.costmodel.outcomes import (
    actual_seconds,
    calibrate,
    comparison,
    probed_seconds,
)
from epochcast.costmodel.scatter import Calibrations
from epochcast.planning.planner import plan
from epochcast.records import RunConfig, RunOutcome, UnitPrices, from_json, make_sizes, to_json
from epochcast.report.text.warnings import warning_text

SWEEP = truths.sweep(round_sd=0.03, trial_sd=0.02)
MODEL = ec.fit(SWEEP)
PLAN = plan(MODEL, epochs=10, batch_sizes=(64,))


def outcome(run: str = "1", slower: float = 1.0, **changes: object) -> RunOutcome:
    """A run of ``PLAN`` of which everything took ``slower`` times what was predicted."""
    prices = PLAN.prices
    values: dict[str, object] = {
        "run": run,
        "workload": MODEL.workload,
        "device": MODEL.device,
        "config": PLAN.chosen.config,
        "samples": PLAN.samples,
        "epochs": 10,
        "reason": "plan-done",
        "predicted": prices,
        "total_predicted": PLAN.chosen.seconds,
        "startup_seconds": (slower * prices.startup.p50,),
        "first_epoch_seconds": (slower * prices.epoch.p50 * 2,),
        "epoch_seconds": (slower * prices.epoch.p50,) * 9,
        "evaluation_seconds": (slower * prices.evaluation.p50,) * 10,
        "save_seconds": (slower * prices.save.p50,) * 10,
        "total_seconds": slower * PLAN.chosen.seconds.p50,
        "finished_at": 1_767_000_000.0 + float(run),
    }
    return RunOutcome(**(values | changes))  # type: ignore[arg-type]


def outcomes(count: int, slower: float = 1.0, **changes: object) -> list[RunOutcome]:
    return [outcome(str(i), slower, **changes) for i in range(count)]


def calibrated(*found: RunOutcome) -> CostModel:
    return replace(MODEL, calibration=calibrate(MODEL, found))


def test_without_outcomes_nothing_changes_at_all() -> None:
    again = ec.fit(SWEEP, outcomes=())
    assert again == MODEL
    assert MODEL.calibration == Calibrations()
    assert again.predict(epochs=10, batch_size=64) == MODEL.predict(epochs=10, batch_size=64)
    assert plan(again, epochs=10, batch_sizes=(64,)) == PLAN
    assert PLAN.prices.calibration == 1.0


def test_fit_predict_and_plan_agree_on_one_factor() -> None:
    model = ec.fit(SWEEP, outcomes=outcomes(4, 1.25))
    factor = model.calibration.epoch.factor
    assert factor == pytest.approx(1.25**0.8, rel=0.01)  # 4 of 4 + 1
    before, after = (m.predict(epochs=10, batch_size=64) for m in (MODEL, model))
    for old, new in zip(before.terms, after.terms, strict=True):
        expected = 1.0 if old.name == "first steps" else factor
        assert new.seconds.p50 / old.seconds.p50 == pytest.approx(expected, rel=0.01), old.name
    assert after.epoch_seconds.p50 == pytest.approx(factor * before.epoch_seconds.p50)
    assert after.step_seconds.p50 == pytest.approx(factor * before.step_seconds.p50)
    planned = plan(model, epochs=10, batch_sizes=(64,))
    assert planned.prices.calibration == factor
    assert planned.prices.epoch.p50 == pytest.approx(after.epoch_seconds.p50, rel=1e-3)
    assert planned.prices.startup_calibration == model.calibration.startup.factor
    assert planned.chosen.seconds.p50 == pytest.approx(after.total_seconds.p50, rel=0.01)
    assert from_json(to_json(model), CostModel) == model


def test_an_estimate_and_a_plan_say_so() -> None:
    model = ec.fit(SWEEP, outcomes=outcomes(4, 1.25))
    said = [
        [warning_text(w) for w in found.warnings if w.code == "calibrated"]
        for found in (model.predict(epochs=1, batch_size=64), plan(model, epochs=1))
    ]
    for (text,) in said:
        assert text.startswith("corrected by 4 earlier runs")
        assert "epochs × 1.2" in text
        assert "start-up × 1.2" in text


def test_corrections_do_not_compound() -> None:
    """Runs planned with a factor in their prediction tell the same as runs planned without it."""
    factor = 1.25
    prices = PLAN.prices
    corrected = replace(
        prices,
        epoch=prices.epoch.scaled(factor),
        calibration=factor,
        startup=prices.startup.scaled(factor),
        startup_calibration=factor,
        evaluation=prices.evaluation.scaled(factor),
        evaluation_calibration=factor,
        save=prices.save.scaled(factor),
        save_calibration=factor,
    )
    plain = calibrate(MODEL, outcomes(5, factor))
    again = calibrate(MODEL, [replace(o, predicted=corrected) for o in outcomes(5, factor)])
    for part in ("epoch", "startup", "evaluation", "save"):
        assert getattr(again, part).factor == pytest.approx(getattr(plain, part).factor)


@given(st.integers(1, 12))
def test_runs_as_predicted_leave_times_alone_and_do_not_widen(count: int) -> None:
    before = MODEL.predict(epochs=10, batch_size=64).total_seconds
    after = calibrated(*outcomes(count)).predict(epochs=10, batch_size=64).total_seconds
    assert after.p50 == pytest.approx(before.p50)
    assert before.p10 <= after.p10 * (1 + 1e-9)
    assert after.p90 <= before.p90 * (1 + 1e-9)


@given(st.lists(st.floats(0.5, 2), min_size=1, max_size=6), st.randoms())
def test_the_order_of_outcomes_does_not_matter(ratios: list[float], random: object) -> None:
    found = [outcome(str(i), ratio) for i, ratio in enumerate(ratios)]
    shuffled = list(found)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert calibrate(MODEL, shuffled) == calibrate(MODEL, found)


def test_a_run_without_a_whole_steady_epoch_says_nothing_about_epochs() -> None:
    cut = outcome("1", 3.0, epoch_seconds=(), epochs=1, reason="signal", total_predicted=None)
    found = calibrate(MODEL, [cut])
    assert found.epoch.runs == 0
    assert found.startup.runs == 1
    nothing = replace(cut, startup_seconds=(), evaluation_seconds=(), save_seconds=())
    assert calibrate(MODEL, [nothing]) == Calibrations()


def test_a_run_with_one_noisy_epoch_counts_less_than_a_long_one() -> None:
    noisy = replace(PLAN.prices, epoch_noise=0.2)
    long = outcome("1", 1.0, predicted=noisy)
    short = outcome("2", 2.0, predicted=noisy, epoch_seconds=(2 * PLAN.prices.epoch.p50,))
    assert log(calibrated(long, short).calibration.epoch.factor) < log(2) / 3


@pytest.mark.parametrize(
    "changes",
    [
        {"workload": "other"},
        {"source": "other code", "config": PLAN.chosen.config},
        {"device": replace(MODEL.device, name="Other")},
        {"config": replace(PLAN.chosen.config, precision="bf16")},
        {"config": RunConfig(batch_size=64, sizes=make_sizes({"layers": 3}))},
        {
            "predicted": UnitPrices(
                **{
                    n: spread(0.0)
                    for n in ("startup", "first_steps", "epoch", "evaluation", "save")
                },
                epoch_noise=0.0,
            )
        },
        {"measured": True},
    ],
)
def test_what_does_not_belong_is_left_out(changes: dict[str, object]) -> None:
    known = replace(MODEL, source="this code")
    assert calibrate(known, [outcome("1", 2.0, **changes)]) == Calibrations()


def test_the_last_outcome_of_a_run_counts() -> None:
    early, late = outcome("1", 3.0), replace(outcome("1", 1.0), finished_at=2e9)
    assert calibrate(MODEL, [late, early]) == calibrate(MODEL, [late])


def test_the_ratio_is_of_medians_of_a_part() -> None:
    found = outcome("1", 1.0, epoch_seconds=(1.0, 2.0, 50.0))
    assert actual_seconds(found) == 2.0
    halved = replace(found, predicted=replace(PLAN.prices, calibration=2.0))
    assert probed_seconds(halved, "epoch") == pytest.approx(PLAN.prices.epoch.p50 / 2)
    assert (
        probed_seconds(replace(found, predicted=replace(PLAN.prices, calibration=0.0)), "epoch")
        is None
    )


def test_intervals_of_a_fitted_model_hold_after_ten_runs() -> None:
    """Real runs 15 % slower than probes, differing by 5 %: 300 times ten runs and one."""
    random = np.random.default_rng(7)
    held = {0: 0, 10: 0}
    for _ in range(300):
        factors = (1.15 * np.exp(random.normal(0, 0.05, 11))).tolist()
        actual = factors[-1] * PLAN.prices.epoch.p50
        past = [outcome(str(i), k) for i, k in enumerate(factors[:10])]
        for count in held:
            epoch = calibrated(*past[:count]).predict(epochs=1, batch_size=64).epoch_seconds
            held[count] += epoch.p05 <= actual <= epoch.p95
    assert 0.85 <= held[10] / 300 <= 0.95
    assert held[0] / 300 < 0.5


def test_the_median_of_few_noisy_epochs_has_the_variance_of_a_median() -> None:
    """πσ²/2n beside the run's own s²; a run counts by the inverse of both, m = Σ (s_min/s_i)²."""
    prices = replace(PLAN.prices, epoch_noise=0.2)
    at = ConfigurationCost(MODEL, MODEL.variants[0], PLAN.chosen.config)
    own = at.probed_step_scatter().sd ** 2
    few, many = (
        outcome(str(n), predicted=prices, epoch_seconds=(prices.epoch.p50,) * n) for n in (1, 9)
    )
    variances = [own + pi * 0.2**2 / 2 / n for n in (1, 9)]
    found = calibrate(MODEL, [few, many]).epoch
    assert found.weight == pytest.approx(1 + variances[1] / variances[0])


def test_a_smoke_run_says_nothing_about_epochs() -> None:
    short = PLAN.prices.epoch.p50 * 10 / 94
    smoke = outcome("0", epoch_seconds=(short,) * 9, epoch_share=10 / 94)
    found = calibrate(MODEL, [smoke])
    assert (found.epoch.runs, found.evaluation.runs) == (0, 0)
    assert (found.startup.runs, found.save.runs) == (1, 1)
    assert comparison(smoke).ratio is None


def test_epochs_of_other_steps_are_compared_step_by_step() -> None:
    shorter = PLAN.prices.epoch.p50 * 80 / 94
    run = outcome("0", epoch_seconds=(shorter,) * 9, epoch_share=80 / 94)
    assert calibrate(MODEL, [run]).epoch.factor == pytest.approx(1)
    assert comparison(run).ratio == pytest.approx(1)


def test_epochs_that_scattered_more_than_planned_say_less() -> None:
    middle = 1.2 * PLAN.prices.epoch.p50
    steady = outcome("0", epoch_seconds=(middle,) * 9)
    noisy = outcome("1", epoch_seconds=(0.6 * middle, middle, 1.7 * middle) * 3)
    sure, unsure = (calibrate(MODEL, [run]).epoch.weight for run in (steady, noisy))
    assert sure == unsure == 1  # of one run, relative to itself
    both = calibrate(MODEL, [steady, noisy]).epoch
    assert 1 < both.weight < 1.5


def test_a_run_on_another_device_or_with_other_threads_corrects_nothing() -> None:
    threads = PLAN.device.threads + 1
    other = outcome("0", 2.0, device=replace(PLAN.device, threads=threads))
    assert calibrate(MODEL, [other]).epoch.runs == 0
