"""Plans against worked examples with closed-form answers, and what they say."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import known
import pytest
import truths
from hypothesis import given
from hypothesis import strategies as st

import epochcast as ec
from epochcast.costmodel.fitting import fit
from epochcast.costmodel.scatter import Scatter
from epochcast.errors import DoesNotFit, PredictionError, StoreError, UsageError
from epochcast.planning.cadence import Every, Rungs, save_epochs
from epochcast.planning.planner import SHOWN, costs, plan, with_pareto, worth_keeping
from epochcast.planning.request import OBJECTIVES
from epochcast.planning.shortfall import describe
from epochcast.planning.stopping import Futility, Patience
from epochcast.records import (
    OLDEST_SCHEMA,
    SCHEMA,
    Budget,
    LearningCurve,
    Plan,
    Quantiles,
    RunConfig,
    Shortfall,
    from_json,
    to_json,
)
from epochcast.records.moments import checkpoint_at, moments_of
from epochcast.units import LONGEST_SECONDS, parse_bytes, parse_energy, parse_money, parse_seconds

EXAMPLE = known.model(**known.EXAMPLE)
CADENCE = {"evaluate": 2, "save": 5}
HOUR, KWH = 3600.0, 3.6e6
HOUR_LONG = {"deadline": HOUR}
MONEY = {"money": 2.75, "price_per_hour": 3.0}
ENERGY = {"energy": 0.25 * KWH, "watts": 300.0}
FASTEST = OBJECTIVES["time"]


@pytest.mark.parametrize(
    ("limits", "epochs", "seconds", "binding"),
    [
        (HOUR_LONG, 57, 3565, "deadline"),
        (MONEY, 52, 3262, "money"),
        (ENERGY, 47, 2967, "energy"),
        (HOUR_LONG | MONEY | ENERGY, 47, 2967, "energy"),
    ],
)
def test_the_worked_example(
    limits: dict[str, float], epochs: int, seconds: int, binding: str
) -> None:
    """120 + 30 + 55·E + 8·⌈E/2⌉ + 4·⌈E/5⌉ within 3,600 s, $2.75 at $3/h, 0.25 kWh at 300 W."""
    chosen = plan(EXAMPLE, Budget(**limits), **CADENCE).chosen
    assert (chosen.epochs, chosen.binding) == (epochs, binding)
    assert chosen.seconds == Quantiles.exactly(seconds)
    assert chosen.affordable_epochs == Quantiles.exactly(epochs)
    assert chosen.probability == 1.0


def test_slack_and_the_price_of_one_more_epoch() -> None:
    """57 epochs take 3,565 s: 35 s are left; the 58th takes 55 s and no evaluation of its own."""
    chosen = plan(EXAMPLE, Budget(**HOUR_LONG, price_per_hour=3.6), **CADENCE).chosen
    assert dict(chosen.slack) == {"deadline": pytest.approx(35)}
    assert chosen.next_epoch_seconds == 55
    assert chosen.next_epoch_money == pytest.approx(55 * 0.001)
    assert chosen.money is not None
    assert chosen.money.p50 == pytest.approx(3.565)


def test_the_timeline_adds_up() -> None:
    found = plan(EXAMPLE, Budget(**HOUR_LONG), **CADENCE)
    assert tuple(found.epochs_of("evaluate")) == (*range(2, 57, 2), 57)
    assert tuple(found.epochs_of("save")) == (*range(5, 56, 5), 57)
    assert tuple(found.epochs_of("decide")) == ()
    at = {c.epoch: c.seconds.p50 for c in found.timeline}
    assert at[2] == 150 + 110 + 8
    assert at[5] == 150 + 275 + 16 + 4
    assert at[57] == 3565
    prices = found.prices
    assert [q.p50 for q in (prices.startup, prices.first_steps)] == pytest.approx([120, 30])
    parts = (prices.epoch, prices.evaluation, prices.save)
    assert [q.p50 for q in parts] == pytest.approx([55, 8, 4])


def test_a_long_timeline_is_drawn_in_part_and_right_all_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Evaluations every 7th and saves every 10th epoch are steps in between what is drawn."""
    from epochcast.planning import timeline

    model = known.model(**known.EXAMPLE, run=Scatter(sd=0.05, dof=8), step_sd=0.5)
    asked_for = {"epochs": 2500, "evaluate": 7, "save": 10, "mtbf_seconds": 12 * HOUR}
    found = plan(model, Budget(), **asked_for)
    some = [checkpoint_at(found, epoch) for epoch in moments_of(found)]
    assert len(found.timeline) <= timeline.DRAWN
    monkeypatch.setattr(timeline, "DRAWN", 10_000)
    every = plan(model, Budget(), **asked_for).timeline
    assert [c.epoch for c in some] == [c.epoch for c in every]
    assert len(every) > 2 * 256
    for mine, exact in zip(some, every, strict=True):
        for name in ("p05", "p10", "p50", "p90", "p95"):
            assert getattr(mine.seconds, name) == pytest.approx(
                getattr(exact.seconds, name), rel=3e-3
            )


def test_a_target_within_the_budget_is_run_and_no_more() -> None:
    chosen = plan(EXAMPLE, Budget(**HOUR_LONG), epochs=40, **CADENCE).chosen
    assert (chosen.epochs, chosen.binding, chosen.target_probability) == (40, None, 1.0)
    assert chosen.affordable_epochs.p50 == 57
    more = plan(EXAMPLE, Budget(**HOUR_LONG), epochs=90, max_epochs=50, **CADENCE).chosen
    assert (more.epochs, more.target_probability) == (50, 0.0)


def test_what_limits_leave_is_spent_up_to_the_maximum() -> None:
    """57 epochs fit into an hour: a maximum above the target uses them, the target alone not."""
    beyond = plan(EXAMPLE, Budget(**HOUR_LONG), epochs=40, max_epochs=90, **CADENCE).chosen
    assert (beyond.epochs, beyond.max_epochs, beyond.binding) == (57, 90, "deadline")
    assert (beyond.target_epochs, beyond.target_probability) == (40, 1.0)
    room = plan(EXAMPLE, Budget(**HOUR_LONG), epochs=40, max_epochs=50, **CADENCE).chosen
    assert (room.epochs, room.binding) == (50, None)


def test_options_beyond_the_target_are_ranked_by_their_epochs() -> None:
    """All of them reach the target; the one with the most left for more epochs comes first."""
    model = known.model(micro_step=known.per_sample(1.0, 0.1), epoch=1200)
    found = plan(
        model, Budget(deadline=HOUR), epochs=1, max_epochs=90, batch_sizes=(12,), evaluate=0, save=0
    )
    epochs = [o.epochs for o in found.options]
    assert epochs == sorted(epochs, reverse=True)
    assert len(set(epochs)) > 2


def test_the_end_of_the_search_is_no_limit_and_is_said() -> None:
    """A second an epoch: 100,000 of them leave most of a year; more are looked at if asked for."""
    quick = known.model(setup=0.0, first=0.0, epoch=1, evaluation=0.0, save=0.0)
    year = Budget(deadline=365 * 24 * HOUR)
    found = plan(quick, year, evaluate=0, save=0)
    assert (found.chosen.epochs, found.chosen.binding) == (100_000, None)
    assert "search-cap" in {w.code for w in found.warnings}
    more = plan(quick, year, min_epochs=150_000, evaluate=0, save=0)
    assert (more.chosen.epochs, more.chosen.binding) == (150_000, None)
    wanted = plan(quick, year, epochs=200_000, evaluate=0, save=0)
    assert (wanted.chosen.epochs, wanted.chosen.target_probability) == (200_000, 1.0)
    assert "search-cap" not in {w.code for w in wanted.warnings}
    with pytest.raises(DoesNotFit) as caught:
        plan(quick, Budget(deadline=120_000.0), min_epochs=150_000, evaluate=0, save=0)
    assert caught.value.shortfall.limits == (("deadline", 120_000.0, 150_000.0),)


def test_time_spent_before_counts() -> None:
    """Resumed after ten minutes: 3,000 s are left, as with 0.25 kWh at 300 W."""
    budget = Budget(**HOUR_LONG, spent_seconds=600, counted_from="total")
    assert plan(EXAMPLE, budget, **CADENCE).chosen.epochs == 47
    money = Budget(**MONEY, spent_seconds=300)
    assert plan(EXAMPLE, money, **CADENCE).chosen.epochs == 47


def test_the_timeline_counts_what_was_spent_before() -> None:
    """Ten minutes and $7 before a run of 150 + 10·55 s, at a dollar an hour."""
    budget = Budget(price_per_hour=1.0, fixed_cost=7.0, spent_seconds=600.0)
    found = plan(EXAMPLE, budget, epochs=10, evaluate=0, save=0)
    assert found.chosen.money is not None
    assert found.timeline[-1].money == pytest.approx(7 + (600 + 150 + 550) / HOUR)
    assert found.timeline[-1].money == pytest.approx(found.chosen.money.p50)


def test_evaluations_are_spread_over_what_fits_and_not_over_a_target_out_of_reach() -> None:
    within = plan(EXAMPLE, Budget(deadline=HOUR), evaluate="auto", save=0)
    wished = plan(EXAMPLE, Budget(deadline=HOUR), epochs=5000, evaluate="auto", save=0)
    assert tuple(wished.epochs_of("evaluate")) == tuple(within.epochs_of("evaluate"))


def test_fixed_cost_is_paid_first() -> None:
    budget = Budget(money=2.75 + 7, price_per_hour=3.0, fixed_cost=7.0)
    assert plan(EXAMPLE, budget, **CADENCE).chosen.epochs == 52


def test_disk_limits_the_run_when_all_checkpoints_are_kept() -> None:
    budget = Budget(**HOUR_LONG, disk=5e6)
    chosen = plan(EXAMPLE, budget, keep=0, **CADENCE).chosen
    assert (chosen.epochs, chosen.binding) == (25, "disk")
    assert plan(EXAMPLE, budget, keep=3, **CADENCE).chosen.epochs == 57
    with pytest.raises(DoesNotFit, match="of disk"):
        plan(EXAMPLE, Budget(**HOUR_LONG, disk=5e5), min_epochs=10, **CADENCE)


@pytest.mark.parametrize("mtbf", [None, 3 * HOUR])
@pytest.mark.parametrize(
    ("keep", "folds", "room", "to_keep"),
    [(0, 1, 5, 4), (0, 5, 2, 1), (2, 1, 2, 1), (1, 1, 1, None)],
)
def test_what_is_said_about_the_disk_helps(
    keep: int, folds: int, room: int, to_keep: int | None, mtbf: float | None
) -> None:
    """More disk, or keeping fewer where that is possible: then saves are where they should be."""
    asked_for = {"epochs": 40, "evaluate": 0, "mtbf_seconds": mtbf, "folds": folds}
    tight = Budget(disk=(room + 0.5) * folds * 1e6)
    (note,) = [
        w
        for w in plan(EXAMPLE, tight, keep=keep, **asked_for).warnings
        if w.code == "disk-spreads-saves"
    ]
    details = dict(note.details)
    assert details["count"] == ("1 checkpoint" if room == 1 else f"{room} checkpoints")
    enough = re.match(r"--disk (\S+?)(?:, or keep fewer: --keep (\d+))?$", details["advice"])
    assert enough
    assert enough[2] == (None if to_keep is None else str(to_keep))
    free = tuple(plan(EXAMPLE, Budget(), keep=keep, **asked_for).epochs_of("save"))
    larger = Budget(disk=float(parse_bytes(enough[1])))
    advised = [plan(EXAMPLE, larger, keep=keep, **asked_for)]
    advised += [plan(EXAMPLE, tight, keep=to_keep, **asked_for)] if to_keep else []
    for found in advised:
        assert tuple(found.epochs_of("save")) == free
        assert "disk-spreads-saves" not in {w.code for w in found.warnings}


@pytest.mark.parametrize("mtbf", [None, 3 * HOUR])
def test_automatic_saves_adapt_to_the_disk(mtbf: float | None) -> None:
    """Room for five checkpoints, all kept, or for two where a third is written before one goes."""
    asked_for = {"epochs": 90, "evaluate": 0, "mtbf_seconds": mtbf}
    five = plan(EXAMPLE, Budget(disk=5.5e6), keep=0, **asked_for)
    assert (five.chosen.epochs, five.chosen.binding) == (90, None)
    saves = five.epochs_of("save")
    assert len(saves) == 5
    assert saves[-1] == 90
    assert max(b - a for a, b in zip((0, *saves), saves, strict=False)) <= 18
    assert five.save_interval_seconds is None
    assert "disk-spreads-saves" in {w.code for w in five.warnings}
    assert len(plan(EXAMPLE, Budget(disk=2e6), keep=2, **asked_for).epochs_of("save")) == 2
    roomy = plan(EXAMPLE, Budget(disk=3e6), keep=2, **asked_for)
    assert tuple(roomy.epochs_of("save")) == tuple(
        plan(EXAMPLE, Budget(), **asked_for).epochs_of("save")
    )
    assert not roomy.warnings
    with pytest.raises(DoesNotFit, match="977 KiB of disk"):
        plan(EXAMPLE, Budget(disk=5e5), keep=0, **asked_for)


def test_fewer_saves_than_failures_ask_for_cost_time() -> None:
    asked_for = {"epochs": 300, "evaluate": 0, "mtbf_seconds": HOUR, "keep": 0}
    full, little = (plan(EXAMPLE, Budget(disk=disk), **asked_for).chosen for disk in (1e9, 5e6))
    segment = (300 * 55 + 150) / 5 + 4  # seconds
    expected = 5 * HOUR * math.expm1(segment / HOUR) * math.exp(120 / HOUR)
    assert full.seconds.p90 < little.seconds.p10
    assert little.seconds.p50 == pytest.approx(expected, rel=0.1)


def test_folds_multiply_the_run() -> None:
    """Five folds of 60 samples train on 48 each and evaluate 12, at one second a sample."""
    model = known.model(**(known.EXAMPLE | {"epoch": 60}), evals=10)
    found = plan(model, Budget(), epochs=10, folds=5, evaluate=0, save=0)
    assert found.samples == 48
    assert found.chosen.seconds.p50 == 5 * (150 + 10 * 48)
    assert found.timeline[-1].seconds.p50 == pytest.approx(150 + 10 * 48)
    assert [w.code for w in found.warnings] == ["folds"]
    evaluated = plan(model, Budget(), epochs=10, folds=5, evaluate=1, save=0)
    assert evaluated.chosen.seconds.p50 == pytest.approx(5 * (150 + 10 * (48 + 12 * 8)))


def test_a_larger_data_set_is_priced_and_said() -> None:
    found = plan(EXAMPLE, Budget(), epochs=3, samples=550, evaluate=0, save=0)
    assert found.chosen.seconds.p50 == pytest.approx(150 + 3 * 550)
    assert [w.code for w in found.warnings] == ["other-samples"]


def test_devices_share_samples_and_are_all_paid() -> None:
    budget = Budget(price_per_hour=3.6)
    found = plan(
        EXAMPLE, budget, epochs=3, batch_sizes=(4,), devices=(4,), micro_batch=1, evaluate=0, save=0
    )
    seconds = 150 + 3 * math.ceil(55 / 4)
    assert found.chosen.seconds.p50 == pytest.approx(seconds)
    assert found.chosen.money is not None
    assert found.chosen.money.p50 == pytest.approx(4 * seconds * 0.001)
    assert {w.code for w in found.warnings} >= {"assumed-devices"}


def test_a_ring_averages_gradients() -> None:
    """Patarasuk & Yuan 2009: 2·(D − 1)/D · 4 bytes · parameters / bandwidth, once an update."""
    counted = (("parameters", known.constant(1e6)),)
    variant = replace(EXAMPLE.variants[0], counts=counted)
    model = replace(EXAMPLE, variants=(variant,))
    found = plan(
        model,
        Budget(),
        epochs=1,
        batch_sizes=(4,),
        devices=(4,),
        micro_batch=1,
        bandwidth=1e6,
        evaluate=0,
        save=0,
    )
    assert found.chosen.seconds.p50 == pytest.approx(150 + 14 * (1 + 2 * 3 / 4 * 4))
    assert {w.code for w in found.warnings} >= {"assumed-ring"}


def test_the_global_batch_is_kept_and_divided_fastest() -> None:
    """Per micro-step 1 s and 0.1 s a sample: fewer, larger micro-batches are faster."""
    model = known.model(micro_step=known.per_sample(1.0, 0.1), epoch=1200)
    found = plan(model, Budget(), epochs=2, batch_sizes=(12,), evaluate=0)
    assert {o.global_batch for o in found.options} == {12}
    assert found.chosen.config == RunConfig(batch_size=12)
    assert found.chosen.steps_per_epoch == 100
    assert found.chosen.horizon_steps == 200
    assert {(o.config.batch_size, o.config.accumulation) for o in found.options} == {
        (12, 1),
        (6, 2),
        (4, 3),
        (3, 4),
        (2, 6),
        (1, 12),
    }


def test_memory_decides_the_micro_batch() -> None:
    model = known.model(micro_step=known.per_sample(1.0, 0.1), epoch=1200)
    grows = replace(model.variants[0], device_bytes=known.whole(known.per_sample(1e9, 1e9)))
    model = replace(model, variants=(grows,))
    found = plan(model, Budget(memory=4.5e9), epochs=2, batch_sizes=(12,), evaluate=0)
    assert found.chosen.config.batch_size == 3
    assert all(o.config.batch_size <= 3 for o in found.options)
    with pytest.raises(DoesNotFit, match=r"1\.87 GiB of memory, 985 MiB more"):
        plan(model, Budget(memory=1e9 - 2.5e7), epochs=2, batch_sizes=(12,))


def test_more_memory_than_the_device_has_does_not_help_and_is_said() -> None:
    """16 GiB, of which 95 % can be used; a batch of 12 would need 1 + 2·12 GB."""
    model = known.model(micro_step=known.per_sample(1.0, 0.1), epoch=1200)
    grows = replace(model.variants[0], device_bytes=known.whole(known.per_sample(1e9, 2e9)))
    model = replace(model, variants=(grows,))
    found = plan(model, Budget(memory=24 * 2**30), epochs=2, batch_sizes=(12,), evaluate=0)
    assert found.chosen.config.batch_size == 6
    assert found.chosen.memory_share is not None
    assert found.chosen.memory_share < 0.95
    (note,) = [w for w in found.warnings if w.code == "memory-above-device"]
    assert dict(note.details) == {"limit": "24 GiB", "usable": "15.2 GiB", "all": "16 GiB"}
    less = plan(model, Budget(memory=15e9), epochs=2, batch_sizes=(12,), evaluate=0)
    assert less.options == found.options
    assert "memory-above-device" not in {w.code for w in less.warnings}


def test_a_free_batch_finds_the_time_optimal_one() -> None:
    """√(a·φ/c) = √(1·400/0.1) = 63.2 with a step of 1 s + 0.1 s·B and a noise scale of 400."""
    probed = (RunConfig(batch_size=1), RunConfig(batch_size=512))
    model = known.model(micro_step=known.per_sample(1.0, 0.1), epoch=100_000, configurations=probed)
    found = plan(
        model,
        Budget(),
        epochs=50,
        batch_sizes="free",
        noise_scale=400.0,
        reference_batch=32,
        optimizer="sgd",
        evaluate=0,
        save=0,
    )
    best = found.chosen
    assert best.global_batch == pytest.approx(63.2, rel=0.15)  # epochs are whole: a flat optimum
    assert best.config.accumulation == 1
    assert best.efficiency == pytest.approx(432 / (400 + best.global_batch))
    assert best.target_epochs == math.ceil(50 / best.efficiency)
    assert best.learning_rate_factor == best.global_batch / 32


def test_the_fewest_epochs_worth_running_are_one_of_any_batch_unless_they_are_given() -> None:
    """An epoch at 32 has the progress of 51 at 4,096 with a noise scale of 50."""
    model = known.model(epoch=10_000, evaluation=0.0, save=0.0)
    asked_for = {
        "batch_sizes": (4096,),
        "micro_batch": 4096,
        "reference_batch": 32,
        "noise_scale": 50.0,
    }
    found = plan(model, Budget(deadline=180.0), **asked_for)
    assert (found.chosen.epochs, found.min_epochs) == (10, 1)
    with pytest.raises(DoesNotFit, match="51 epochs"):
        plan(model, Budget(deadline=180.0), min_epochs=1, **asked_for)


def test_a_run_of_more_epochs_than_can_be_listed_is_refused() -> None:
    model = known.model(epoch=10_000)
    with pytest.raises(UsageError, match="would have 50,560,976; give fewer"):
        plan(
            model,
            Budget(),
            epochs=1_000_000,
            batch_sizes=(4096,),
            reference_batch=32,
            noise_scale=50.0,
            evaluate=0,
            save=0,
        )


def test_without_a_noise_scale_other_batches_count_as_equal_and_that_is_said() -> None:
    found = plan(EXAMPLE, Budget(), epochs=3, batch_sizes=(1, 5))
    assert "equal-epochs" in {w.code for w in found.warnings}
    assert found.chosen.efficiency is None
    assert {o.target_epochs for o in found.options} == {3}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objectives_order_by_what_they_say(name: str) -> None:
    model = fit(truths.sweep(round_sd=0.05))
    found = plan(
        model,
        Budget(price_per_hour=1.0),
        epochs=5,
        batch_sizes=(256,),
        devices=(1, 2, 4),
        objective=OBJECTIVES[name],
    )
    keys = [OBJECTIVES[name].key(o) for o in found.options]
    assert keys == sorted(keys)
    assert found.objective == name
    best = {"time": (256 // 4, 4), "money": (256, 1)}
    chosen = found.chosen.config
    assert name not in best or best[name] == (chosen.batch_size, chosen.world_size)


def test_pareto_options_are_beaten_by_none() -> None:
    model = fit(truths.sweep())
    options = plan(model, Budget(), epochs=5, batch_sizes=(256,), devices=(1, 2)).options
    assert options[0].pareto
    marked = with_pareto(
        [options[0], replace(options[0], seconds=options[0].seconds.scaled(2))], FASTEST
    )
    assert [o.pareto for o in marked] == [True, False]


def test_fewer_epochs_in_less_time_are_no_merit_and_alike_memory_is_none() -> None:
    """Ten in 10 s beat nine in 9.5 s; ten in 9 s at a twentieth more memory beat ten in 10 s."""
    whole = replace(plan(EXAMPLE, Budget(**HOUR_LONG), **CADENCE).chosen, epochs=10)
    assert whole.device_bytes is not None
    ten = replace(whole, seconds=Quantiles.exactly(10), device_bytes=Quantiles.exactly(100))
    nine = replace(ten, epochs=9, seconds=Quantiles.exactly(9.5))
    assert [o.pareto for o in with_pareto([ten, nine], FASTEST)] == [True, False]
    small = replace(nine, device_bytes=Quantiles.exactly(80))
    assert [o.pareto for o in with_pareto([ten, small], FASTEST)] == [True, True]
    quick = replace(ten, seconds=Quantiles.exactly(9), device_bytes=Quantiles.exactly(104))
    assert [o.pareto for o in with_pareto([ten, quick], FASTEST)] == [False, True]
    alike = replace(ten, device_bytes=Quantiles.exactly(99))
    assert [o.pareto for o in with_pareto([ten, alike], FASTEST)] == [False, True]
    assert [o.pareto for o in with_pareto([ten, quick], OBJECTIVES["memory"])] == [True, True]


@given(
    rows=st.lists(
        st.tuples(st.integers(1, 3), *[st.sampled_from([98, 100, 104, 150])] * 4, st.booleans()),
        min_size=1,
        max_size=6,
    ),
    name=st.sampled_from(sorted(OBJECTIVES)),
)
def test_the_option_that_is_recommended_is_beaten_by_none(
    rows: list[tuple[int, int, int, int, int, bool]], name: str
) -> None:
    """Whatever was asked to be saved, and however P50 and P90 disagree."""
    some = plan(EXAMPLE, Budget(**HOUR_LONG), **CADENCE).chosen
    options = [
        replace(
            some,
            epochs=epochs,
            seconds=replace(Quantiles.exactly(p90), p05=0, p10=0, p50=min(p50, p90)),
            money=Quantiles.exactly(money) if priced else None,
            device_bytes=Quantiles.exactly(memory),
        )
        for epochs, p50, p90, money, memory, priced in rows
    ]
    objective = OBJECTIVES[name]
    ranked = sorted(options, key=lambda option: costs(option, objective))
    assert with_pareto(ranked, objective)[0].pareto


def test_probed_batches_compete_out_of_micro_batches_that_were_probed() -> None:
    """Of a batch that is smaller than all probed, only the whole; where memory asks, any."""
    model = fit(truths.sweep())
    probed = {c.batch_size for c in model.variants[0].configurations}
    found = plan(model, Budget(), epochs=5)
    assert {o.global_batch for o in found.options} <= probed
    assert len({o.global_batch for o in found.options}) > 1
    assert all(o.config.batch_size >= min(probed) for o in found.options)
    small = plan(model, Budget(), epochs=5, batch_sizes=min(probed) // 2)
    assert [o.config.batch_size for o in small.options] == [min(probed) // 2]
    (steps,) = {o.global_batch for o in plan(model, Budget(), steps=5).options}
    assert steps in probed


def test_where_memory_asks_micro_batches_are_smaller_than_any_probed() -> None:
    """10 MB and 1 MB a sample: 32 were probed, and 16 fit into 30 MB."""
    configs = tuple(RunConfig(batch_size=b) for b in (32, 64))
    model = known.model(epoch=640, configurations=configs)
    memory = known.whole(known.per_sample(1e7, 1e6))
    model = replace(model, variants=(replace(model.variants[0], device_bytes=memory),))
    assert plan(model, Budget(), epochs=2).chosen.config.batch_size == 64
    assert plan(model, Budget(memory=5e7), epochs=2).chosen.config.batch_size == 32
    assert plan(model, Budget(memory=3e7), epochs=2).chosen.config.batch_size == 16


def test_all_that_nothing_beats_is_kept_and_the_rest_as_long_as_there_is_room() -> None:
    """Twice the devices cost more and are faster at P90, up to 16: from 32 on, a step is mostly
    overhead, in batches smaller than any probed, of which less is known."""
    model = fit(truths.sweep())
    found = plan(model, Budget(price_per_hour=2.0), epochs=90, devices=(1, 2, 4, 8, 16, 32, 64))
    assert {o.config.world_size for o in found.options if o.pareto} == {1, 2, 4, 8, 16}
    option = found.options[0]
    ranked = [replace(option, epochs=i, pareto=i in (9, 15, 20)) for i in range(1, 21)]
    kept = [o.epochs for o in worth_keeping(ranked)]
    assert kept == [1, 2, 3, 4, 5, 9, 15, 20]
    assert len(kept) == SHOWN
    crowded = [replace(o, pareto=o.epochs > 1) for o in ranked]
    assert worth_keeping(crowded) == tuple(crowded)


def test_saves_follow_failures_and_cost() -> None:
    """12 h between failures, 4 s a save: Daly asks for one every 9.8 min, about 11 epochs."""
    found = plan(EXAMPLE, Budget(), epochs=100, evaluate=0, mtbf_seconds=12 * HOUR)
    assert found.save_interval_seconds == pytest.approx(math.sqrt(2 * 4 * 12 * HOUR), rel=0.01)
    saves = found.epochs_of("save")
    gaps = [b - a for a, b in zip((0, *saves), saves, strict=False)]
    assert set(gaps) <= {8, 9, 10, 11, 12}
    never = plan(EXAMPLE, Budget(), epochs=100, evaluate=0)
    assert never.save_interval_seconds == pytest.approx(4 / 0.035)
    assert never.epochs_of("save")[:2] == (3, 6)


def test_saves_are_placed_in_the_chosen_run_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not where so many epochs would take long, and the best period is as good."""
    from epochcast.planning import evaluation

    placed: list[int] = []

    def count(seconds: list[float], *args: float) -> tuple[int, ...]:
        placed.append(len(seconds))
        return save_epochs(seconds, *args)

    monkeypatch.setattr(evaluation, "save_epochs", count)
    model = known.model(micro_step=known.per_sample(1.0, 0.1), epoch=1200)
    asked_for = {"batch_sizes": (12,), "evaluate": 0, "mtbf_seconds": 12 * HOUR}
    found = plan(model, Budget(), epochs=50, **asked_for)
    assert len(found.options) == 6
    assert placed == [50]
    assert found.chosen.pareto  # compared as the others are, before its saves were placed
    monkeypatch.setattr(evaluation, "LONGEST_PLACED", 49)
    saves = plan(model, Budget(), epochs=50, **asked_for).epochs_of("save")
    assert placed == [50]
    first, second = saves[:2]
    assert second == 2 * first


def test_failures_take_time_and_widen_it() -> None:
    calm = plan(EXAMPLE, Budget(), epochs=200, evaluate=0).chosen.seconds
    often = plan(EXAMPLE, Budget(), epochs=200, evaluate=0, mtbf_seconds=HOUR).chosen.seconds
    assert calm.p10 == calm.p90
    assert often.p10 < often.p90
    mean_lost = often.p50 - calm.p50
    assert 2 * 120 < mean_lost < 6 * 600  # about three failures of a restart and half a segment


def test_the_last_save_has_a_reserve_before_a_deadline() -> None:
    variant = replace(EXAMPLE.variants[0], save_seconds=known.constant(60.0, sd=0.3))
    model = replace(EXAMPLE, variants=(variant,))
    hard = plan(model, Budget(deadline=HOUR), evaluate=0, save=20)
    assert 60 < hard.final_save_seconds < 60 * math.exp(3.5 * 0.3)
    soft = plan(model, Budget(money=1.0, price_per_hour=1.0), evaluate=0, save=20)
    assert soft.final_save_seconds == pytest.approx(60.0)
    assert soft.chosen.epochs >= hard.chosen.epochs


def test_evaluations_where_stopping_early_pays_for_them() -> None:
    """√(2·T·e/t) with T = 50, e = 8, t = 55 is 4; with patience of 5 checks √(T·e/(5.5·t)) is 1."""
    free = plan(EXAMPLE, Budget(), epochs=50, evaluate="auto")
    assert free.epochs_of("evaluate")[:2] == (4, 8)
    patient = plan(EXAMPLE, Budget(), epochs=50, evaluate="auto", rules=(Patience(checks=5),))
    assert patient.epochs_of("decide")[:2] == (1, 2)
    rungs = plan(EXAMPLE, Budget(), epochs=50, evaluate=Rungs(1, 3), save=Every(0))
    assert tuple(rungs.epochs_of("evaluate")) == (1, 3, 9, 27, 50)
    assert tuple(rungs.epochs_of("save")) == ()
    budgeted = plan(EXAMPLE, Budget(**HOUR_LONG), evaluate="auto")
    assert budgeted.epochs_of("evaluate")[0] == round(math.sqrt(2 * 62 * 8 / 55))


FALLING = LearningCurve(
    epochs=tuple(range(1, 31)),
    validation=tuple(0.3 + 2 / math.sqrt(e) + 0.01 * (-1) ** e for e in range(1, 31)),
)
TURNED = LearningCurve(
    epochs=tuple(range(1, 31)),
    validation=tuple(0.5 + 0.002 * (e - 12) ** 2 for e in range(1, 31)),
    training=tuple(1 / e for e in range(1, 31)),
)


def test_a_pilot_tells_where_the_run_will_stop() -> None:
    found = plan(
        EXAMPLE,
        Budget(price_per_hour=3.0),
        epochs=30,
        curves=(TURNED,),
        rules=(Patience(checks=3),),
    )
    stops = {c.epoch: c.stop_probability for c in found.timeline}
    assert stops[15] == max(s for s in stops.values() if s is not None)
    assert sum(s for s in stops.values() if s is not None) == pytest.approx(1.0)
    at = next(c for c in found.timeline if c.epoch == 15)
    end = found.timeline[-1].seconds.p50
    assert at.saved_seconds == pytest.approx(end - at.seconds.p50)
    assert at.saved_money == pytest.approx(3.0 / 3600 * (end - at.seconds.p50))
    assert at.regret == pytest.approx(0.0, abs=1e-3)
    reach = [c.reach_probability for c in found.timeline if c.reach_probability is not None]
    assert reach == sorted(reach, reverse=True)
    assert found.outlook is not None
    assert (found.outlook.fit, found.outlook.turning_epoch) == ("overfitting", 12)
    assert found.outlook.improve_probability < 0.05


def _until(curve: LearningCurve, count: int) -> LearningCurve:
    values = {name: getattr(curve, name)[:count] for name in ("epochs", "validation", "training")}
    return LearningCurve(**values)


@pytest.mark.parametrize("curve", [FALLING, TURNED])
@pytest.mark.parametrize("last", [5, 10, 20, 29])
def test_a_curve_is_judged_no_further_than_the_plan_goes(curve: LearningCurve, last: int) -> None:
    """As if the pilot had ended with the plan: what it did later is another run's business."""
    longer = plan(EXAMPLE, Budget(), epochs=last, curves=(curve,))
    assert (
        longer.outlook
        == plan(EXAMPLE, Budget(), epochs=last, curves=(_until(curve, last),)).outlook
    )
    assert longer.outlook is not None
    assert longer.outlook.best_epoch <= longer.outlook.seen_epochs == last
    assert [w.code for w in longer.warnings] == ["curve-beyond-plan"]
    assert dict(longer.warnings[0].details) == {
        "end": "30",
        "last": str(last),
        "unit": "epoch",
    }


def test_too_few_checks_within_the_plan_are_said() -> None:
    found = plan(EXAMPLE, Budget(), epochs=4, curves=(FALLING,), rules=(Patience(checks=2),))
    assert found.outlook is None
    assert [w.code for w in found.warnings] == ["curve-beyond-plan", "few-checks-in-plan"]
    assert all(moment.stop_probability is None for moment in found.timeline)
    shorter = _until(FALLING, 6)
    other = plan(
        EXAMPLE,
        Budget(),
        epochs=6,
        curves=(replace(FALLING, epochs=tuple(10.0 * e for e in FALLING.epochs)), shorter),
    )
    assert other.outlook == plan(EXAMPLE, Budget(), epochs=6, curves=(shorter,)).outlook


def test_evaluations_suit_a_best_epoch_within_the_plan() -> None:
    """A pilot that was best at its end, epoch 30, is one of a run of 10 epochs, best at 10."""
    found = plan(EXAMPLE, Budget(), epochs=10, curves=(FALLING,), evaluate="auto")
    assert found.epochs_of("evaluate")[0] == round(math.sqrt(2 * 10 * 8 / 55))


def test_a_falling_curve_is_not_stopped() -> None:
    found = plan(EXAMPLE, Budget(), epochs=60, curves=(FALLING,), rules=(Patience(checks=20),))
    assert found.outlook is not None
    assert found.outlook.fit == "underfitting"
    assert found.outlook.final_value.p50 < FALLING.validation[-1] + 0.02
    assert found.timeline[-1].reach_probability == pytest.approx(1.0, abs=0.1)


def test_a_pilot_that_failed_is_said() -> None:
    failed = replace(FALLING, non_finite_epoch=31.0)
    found = plan(EXAMPLE, Budget(), epochs=60, curves=(failed,))
    assert [w.code for w in found.warnings] == ["curve-not-finite"]
    assert dict(found.warnings[0].details)["at"] == "epoch 31"


def test_futility_is_not_replayed_and_that_is_said() -> None:
    rules = (Futility(probability=0.05, horizon=30),)
    found = plan(EXAMPLE, Budget(), epochs=30, curves=(FALLING,), rules=rules)
    assert "futility-not-replayed" in {w.code for w in found.warnings}
    assert found.timeline[0].stop_probability is None


def test_futility_looks_ahead_to_the_planned_end() -> None:
    """57 epochs fit of 90 wanted; a horizon of one's own is kept."""
    rules = (Futility(probability=0.05), Futility(probability=0.05, horizon=70))
    found = plan(EXAMPLE, Budget(**HOUR_LONG), epochs=90, rules=rules, **CADENCE)
    assert [dict(rule.settings)["horizon"] for rule in found.stop_rules] == [57, 70]


def test_carbon_without_power_is_said() -> None:
    unknown = plan(EXAMPLE, Budget(carbon_per_kwh=400), epochs=3)
    assert unknown.chosen.carbon_grams is None
    assert "carbon-without-watts" in {w.code for w in unknown.warnings}
    measured = plan(EXAMPLE, Budget(carbon_per_kwh=400, watts=300), epochs=3)
    assert measured.chosen.carbon_grams is not None
    assert "carbon-without-watts" not in {w.code for w in measured.warnings}


def test_one_epoch_needs() -> None:
    with pytest.raises(DoesNotFit, match="where 1 epoch at 90 % confidence needs 3m 37s of"):
        plan(EXAMPLE, Budget(deadline=60), epochs=90)
    with pytest.raises(DoesNotFit, match=r"2 epochs at 90 % confidence need .*; 1 fits as it is"):
        plan(EXAMPLE, Budget(deadline=230), min_epochs=2)


def test_nothing_fits_and_the_nearest_thing_is_said() -> None:
    with pytest.raises(DoesNotFit) as caught:
        plan(EXAMPLE, Budget(deadline=HOUR), epochs=90, min_epochs=90, **CADENCE)
    shortfall = caught.value.shortfall
    needed = 120 + 30 + 90 * 55 + 45 * 8 + 18 * 4
    assert shortfall.limits == (("deadline", HOUR, pytest.approx(needed)),)
    assert shortfall.fitting_epochs == 57
    assert caught.value.exit_code == 3
    assert str(caught.value) == (
        "nothing fits: the nearest to it is batch_size=1, where 90 epochs at 90 % confidence need "
        "1h 33m of deadline, 33m 00s more than the 1h 00m allowed; 57 fit as it is"
    )


def test_relaxing_what_is_named_makes_it_fit() -> None:
    model = fit(truths.sweep(round_sd=0.1))
    budget = Budget(deadline=60.0, money=0.001, price_per_hour=1.0)
    with pytest.raises(DoesNotFit) as caught:
        plan(model, budget, min_epochs=20)
    needed = {name: need for name, _, need in caught.value.shortfall.limits}
    assert set(needed) == {"deadline", "money"}
    assert plan(model, replace(budget, **needed), min_epochs=20).chosen.epochs >= 20


def test_relaxing_what_is_named_makes_it_fit_when_power_is_uncertain_too() -> None:
    model = fit(truths.sweep(round_sd=0.1))
    budget = Budget(deadline=95.0, energy=2e4, watts=200.0, watts_spread=0.2)
    with pytest.raises(DoesNotFit) as caught:
        plan(model, budget, min_epochs=20, max_epochs=20)
    needed = {name: need for name, _, need in caught.value.shortfall.limits}
    assert needed
    assert plan(model, replace(budget, **needed), min_epochs=20).chosen.epochs >= 20


@pytest.mark.parametrize("deadline", [1e-3, 1.0, 20.0, 150.0])
@pytest.mark.parametrize("evaluate", [1, "auto"])
def test_the_need_does_not_depend_on_how_little_there_was(
    deadline: float, evaluate: int | str
) -> None:
    """A short deadline has little at stake in its last save; a sufficient one has more."""
    save = known.constant(4.0, sd=0.5)
    variant = replace(EXAMPLE.variants[0], save_seconds=save)
    uncertain = replace(EXAMPLE, variants=(variant,))
    asked_for = {"min_epochs": 20, "evaluate": evaluate, "save": 5}
    with pytest.raises(DoesNotFit) as caught:
        plan(uncertain, Budget(deadline=deadline), **asked_for)
    ((_, _, need),) = caught.value.shortfall.limits
    assert plan(uncertain, Budget(deadline=need), **asked_for).chosen.epochs >= 20


READ_BACK = {
    "deadline": parse_seconds,
    "money": parse_money,
    "energy": parse_energy,
    "disk": parse_bytes,
    "memory": parse_bytes,
}


@given(st.sampled_from(sorted(READ_BACK)), st.floats(1e-4, 1e13))
def test_a_need_in_words_is_enough_when_given_back(name: str, need: float) -> None:
    whole = 1.0 if name in ("disk", "memory") else 0.0  # bytes
    need = max(need, whole)
    if name == "deadline":
        need = min(need, 0.999 * LONGEST_SECONDS)  # no deadline is further away
    text = describe(
        Shortfall(
            epochs=1,
            confidence=0.9,
            config=RunConfig(batch_size=1),
            limits=((name, need / 2, need),),
            fitting_epochs=0,
        )
    )
    words = re.search(rf"confidence needs (.+?) of {name}", text)
    assert words
    assert need <= READ_BACK[name](words[1]) <= 1.03 * need + whole


def test_the_nearest_to_no_time_at_all_is_the_fastest() -> None:
    """Every division misses a deadline of nothing by an infinite factor."""
    model = known.model(micro_step=known.per_sample(1.0, 0.1), epoch=1200)
    for deadline in (0.0, 1.0):
        with pytest.raises(DoesNotFit) as caught:
            plan(model, Budget(deadline=deadline), batch_sizes=(720,), min_epochs=3)
        assert caught.value.shortfall.config.batch_size >= 600  # two steps; smaller take more


def test_where_one_limit_is_missed_alike_the_others_decide_what_is_nearest() -> None:
    """No disk for a checkpoint, whatever is run; of the rest, one device is missed by least."""
    model = known.model(micro_step=known.per_sample(1.0, 0.1), epoch=1200)
    limits = Budget(disk=1e3, money=0.1, price_per_hour=1.0)
    with pytest.raises(DoesNotFit) as caught:
        plan(model, limits, batch_sizes=(12,), devices=(1, 2, 4), min_epochs=3, save=1)
    assert caught.value.shortfall.config == RunConfig(batch_size=12)


def test_memory_is_decided_by_the_close_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rough look that takes everything to need far more must not leave out what fits."""
    from epochcast.planning import pricing

    model = known.model(micro_step=known.per_sample(1.0, 0.1), epoch=1200)
    grows = replace(model.variants[0], device_bytes=known.whole(known.per_sample(1e9, 1e9)))
    model = replace(model, variants=(grows,))
    rough = lambda prices, budget: prices.device_bytes * 10  # noqa: E731
    monkeypatch.setattr(pricing, "_cautious_bytes", rough)
    found = plan(model, Budget(memory=7.5e9), epochs=2, batch_sizes=(12,), evaluate=0)
    assert found.chosen.config.batch_size == 6


def test_limits_that_nobody_can_keep_to_are_said() -> None:
    variant = replace(EXAMPLE.variants[0], save_bytes=None, device_bytes=None)
    unknown = replace(EXAMPLE, variants=(variant,))
    limits = Budget(disk=1.0, memory=1.0)
    found = plan(unknown, limits, epochs=3).warnings
    assert [dict(w.details)["limit"] for w in found if w.code == "unknown-use"] == [
        "disk",
        "memory",
    ]
    without_saves = plan(unknown, replace(limits, memory=None), epochs=3, save=0).warnings
    assert not [w for w in without_saves if w.code == "unknown-use"]


def test_rules_that_never_look_are_said() -> None:
    rules = (Patience(checks=3),)
    never = plan(EXAMPLE, Budget(), epochs=3, rules=rules, evaluate=0)
    assert "no-checks" in {w.code for w in never.warnings}
    often = plan(EXAMPLE, Budget(), epochs=3, rules=rules)
    assert "no-checks" not in {w.code for w in often.warnings}


def test_no_memory_at_all_is_a_limit() -> None:
    with pytest.raises(DoesNotFit, match="more than the 0 B allowed"):
        plan(EXAMPLE, Budget(memory=0.0), epochs=2)


@pytest.mark.parametrize(
    ("asked_for", "message"),
    [
        ({}, "nothing ends the run"),
        ({"epochs": 0}, "epochs must be positive"),
        ({"epochs": 5, "min_epochs": 6}, "min_epochs must not be above"),
        ({"epochs": 5, "batch_sizes": "free"}, "epochcast probe --noise-scale"),
        ({"epochs": 5, "batch_sizes": (0,)}, "batch_sizes must be positive"),
        ({"epochs": 5, "batch_sizes": (5, 100)}, "at most the 55 samples of an epoch, but got 100"),
        ({"epochs": 5, "folds": 2, "batch_sizes": (28,)}, "at most the 27 samples of an epoch"),
        ({"epochs": 5, "folds": 56}, "folds must be at most the 55 samples, but got 56"),
        ({"epochs": 5, "batch_sizes": (10**10,)}, "batch_sizes must be at most 1,000,000,000"),
        ({"epochs": 5, "devices": (10**7,)}, "devices must be at most 1,000,000"),
        ({"epochs": 5, "devices": (56,)}, "no batch to choose from"),
        ({"epochs": 5, "keep": -1}, "keep must not be negative"),
        ({"epochs": 5, "evaluate": -1}, "evaluate must not be negative"),
        ({"epochs": 5, "batch_sizes": (4,), "micro_batch": 3}, "no batch to choose from"),
        ({"epochs": 5, "mtbf_seconds": 0}, "mtbf_seconds, .* must lie between 1 ms and"),
        ({"epochs": 5, "folds": 0}, "folds must be positive"),
    ],
)
def test_requests_that_make_no_sense_are_refused(
    asked_for: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        plan(EXAMPLE, Budget(), **asked_for)


@pytest.mark.parametrize("confidence", [0.9995, 0.0005])
def test_a_confidence_that_the_draws_cannot_tell_from_certainty_is_refused(
    confidence: float,
) -> None:
    with pytest.raises(UsageError, match=r"between 0\.1 % and 99\.9 %, which 1,000 draws"):
        plan(EXAMPLE, Budget(deadline=HOUR, confidence=confidence))
    assert plan(EXAMPLE, Budget(deadline=HOUR, confidence=0.999), **CADENCE).chosen.epochs == 57


def test_leave_one_out_is_a_cross_validation() -> None:
    found = plan(EXAMPLE, Budget(), epochs=2, folds=55, evaluate=0, save=0)
    assert found.chosen.seconds.p50 == pytest.approx(55 * (150 + 2 * 54))


def test_an_unknown_knob_is_refused() -> None:
    with pytest.raises(PredictionError, match="no knob 'height'"):
        plan(EXAMPLE, Budget(), epochs=3, sizes={"height": 3})


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"money": 3}, "needs price_per_hour"),
        ({"energy": 3}, "needs watts"),
        ({"deadline": -1}, "deadline must be finite"),
        ({"deadline": math.inf}, "deadline must be finite"),
        ({"confidence": 1.0}, "between 0 and 1"),
        ({"counted_from": "x"}, "counted_from must be one of now, start, total, but got 'x'"),
        ({"deadline": "8h"}, "deadline must be a number, but got '8h'"),
    ],
)
def test_budgets_that_make_no_sense_are_refused(limits: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Budget(**limits)


def test_the_library_offers_it() -> None:
    model = fit(truths.sweep())
    found = ec.plan(model, ec.Budget(deadline=3600), epochs=5)
    assert isinstance(found, ec.Plan)
    assert from_json(to_json(found), Plan) == found
    assert ec.stopping_epoch(Patience(checks=2), [3.0, 2.0, 2.5, 2.1, 1.0]) == 4


def test_a_size_of_which_nothing_is_known_is_not_planned() -> None:
    model = fit(truths.sweep(widths=(256,)))
    with pytest.raises(PredictionError, match="width was never varied"):
        plan(model, Budget(deadline=HOUR), epochs=3, sizes={"width": 4096})


def test_the_direction_is_what_the_metric_says_and_is_told() -> None:
    epochs = tuple(float(e) for e in range(1, 11))
    rising = LearningCurve(epochs=epochs, validation=tuple(1 - 1 / e for e in epochs))
    asked_for = {"epochs": 20, "curves": (rising,), "metric": "val_accuracy"}
    found = plan(EXAMPLE, Budget(), rules=(Patience(checks=3, mode="max"),), **asked_for)
    assert (found.mode, found.outlook and found.outlook.best_value) == ("max", pytest.approx(0.9))
    assert "larger-is-better" in [note.code for note in found.warnings]
    asked = plan(EXAMPLE, Budget(), mode="min", **asked_for)
    assert (asked.mode, asked.outlook and asked.outlook.best_value) == ("min", 0.0)
    assert "larger-is-better" not in [note.code for note in asked.warnings]


def test_a_rule_in_the_other_direction_is_refused() -> None:
    with pytest.raises(UsageError, match="takes the min of val_accuracy as best, and the plan its"):
        plan(EXAMPLE, Budget(), epochs=5, metric="val_accuracy", rules=(Patience(checks=3),))


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("options",), [], "at least one option"),
        (("options", 0, "epochs"), -90, "at least one epoch, but got -90"),
        (("timeline", 0, "epoch"), -1, "begins at epoch 1"),
        (("schema",), SCHEMA + 1, "written by a newer epochcast"),
        (("schema",), OLDEST_SCHEMA - 1, "written by an earlier epochcast"),
        (("stop_rules", 0, "kind"), "luck", "luck"),
    ],
)
def test_a_document_that_is_no_plan_is_refused(
    path: tuple[str | int, ...], value: object, says: str, tmp_path: Path
) -> None:
    document = json.loads(to_json(plan(EXAMPLE, Budget(), epochs=5, rules=(Patience(checks=3),))))
    *outer, last = path
    place = document
    for step in outer:
        place = place[step]
    place[last] = value
    (tmp_path / "plan.json").write_text(json.dumps(document))
    with pytest.raises(StoreError, match=says) as refused:
        Plan.load(tmp_path / "plan.json")
    assert "\n" not in str(refused.value)
