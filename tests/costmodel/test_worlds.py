"""A cost model of several worlds: what is asked of devices that were measured, and of others."""

from __future__ import annotations

from dataclasses import replace

import pytest

import epochcast as ec
from epochcast.costmodel.prediction import predict
from epochcast.costmodel.question import Question
from epochcast.costmodel.scaling import World
from epochcast.costmodel.worlds import nodes_of
from epochcast.errors import PredictionError, UsageError
from epochcast.records import Measurement

SAMPLES = 64_000


def truth(batch: int, devices: int, nodes: int = 1) -> float:
    """10 ms and 1 ms a sample, and averaging that no computing hides."""
    alpha, beta = (0.04, 0.001) if nodes > 1 else (0.01, 0.0005)
    return 0.01 + 0.001 * batch + (alpha + beta * (devices - 2) if devices > 1 else 0.0)


def measured(
    *worlds: tuple[int, int], batches: tuple[int, ...] = (16, 32, 64)
) -> list[Measurement]:
    return [
        Measurement.from_epochs(
            "net",
            batch,
            step_seconds=[truth(batch, *world)] * 20,
            samples=SAMPLES,
            device="NVIDIA V100",
            config={"world_size": world[0], "nodes": world[1]},
            run=run,
            includes_first=False,
        )
        for batch in batches
        for world in worlds
        for run in range(2)
    ]


@pytest.fixture(scope="module")
def model() -> ec.CostModel:
    return ec.fit(measured((1, 1), (2, 1), (4, 1), (2, 2), (4, 2)))


@pytest.mark.parametrize("world", [(1, 1), (2, 1), (4, 1), (2, 2), (4, 2)])
def test_devices_that_were_measured_are_answered_by_their_measurements(
    model: ec.CostModel, world: tuple[int, int]
) -> None:
    asked = model.predict(1, 32, world_size=world[0], devices_per_node=world[0] // world[1])
    assert (asked.config.world_size, asked.config.nodes) == world
    assert asked.step_seconds.p50 == pytest.approx(truth(32, *world), rel=0.01)
    assert "devices" not in asked.extrapolated


@pytest.mark.parametrize("batch", [32, 48])
def test_other_devices_are_answered_by_the_law_and_flagged(model: ec.CostModel, batch: int) -> None:
    asked = model.predict(1, batch, world_size=8, devices_per_node=4, price_per_hour=3.6)
    step = asked.step_seconds
    assert step.p05 < truth(batch, 8, 2) < step.p95
    assert step.p50 == pytest.approx(truth(batch, 8, 2), rel=0.2)
    assert "devices" in asked.extrapolated
    assert "unprobed-world" in {w.code for w in asked.warnings}
    assert asked.steps_per_epoch == SAMPLES // 8 // batch + bool(SAMPLES // 8 % batch)
    assert asked.cost is not None
    assert asked.cost.p50 == pytest.approx(8 * asked.total_seconds.p50 / 1000)


def test_more_devices_are_less_sure(model: ec.CostModel) -> None:
    spans = [
        model.predict(1, 32, world_size=p, devices_per_node=4).step_seconds for p in (4, 8, 64)
    ]
    widths = [span.p95 / span.p05 for span in spans]
    assert widths == sorted(widths)


def test_accumulation_averages_once_an_update(model: ec.CostModel) -> None:
    ask = {"world_size": 8, "devices_per_node": 4}
    one, four = (model.predict(1, 32, accumulation=k, **ask) for k in (1, 4))
    assert four.epoch_seconds.p50 < one.epoch_seconds.p50
    least = SAMPLES / 8 / 32 * truth(32, 1)
    assert four.epoch_seconds.p50 > least


def test_one_number_of_devices_tells_nothing_of_others() -> None:
    alone = ec.fit(measured((1, 1)))
    with pytest.raises(PredictionError, match=r"measured on 1 device only.*torchrun"):
        predict(alone, Question(epochs=1, world_size=4))
    assert predict(alone, Question(epochs=1, world_size=1)).config.world_size == 1


def test_links_that_were_never_measured_are_said() -> None:
    within = ec.fit(measured((1, 1), (2, 1)))
    asked = within.predict(1, 32, world_size=8, devices_per_node=4)
    assert "unprobed-nodes" in {w.code for w in asked.warnings}
    assert asked.config.nodes == 2
    assert within.predict(1, 32, world_size=8).config.nodes == 1


def test_a_model_is_the_same_after_it_was_written(model: ec.CostModel, tmp_path: object) -> None:
    path = f"{tmp_path}/model.json"
    model.save(path)
    again = ec.CostModel.load(path)
    ask = {"world_size": 16, "devices_per_node": 4}
    assert again.predict(1, 32, **ask) == model.predict(1, 32, **ask)


def test_a_plan_chooses_the_devices(model: ec.CostModel) -> None:
    """Time alone takes the most of them, money the fewest; nothing is taken for free."""
    known = {"epochs": 2, "batch_sizes": (128,), "devices": (1, 2, 4), "devices_per_node": 4}
    budget = ec.Budget(price_per_hour=2.0, confidence=0.9)
    fast = ec.plan(model, budget, **known)
    cheap = ec.plan(model, budget, objective="money", **known)
    assert fast.chosen.config.world_size == 4
    assert cheap.chosen.config.world_size == 1
    assert "assumed-devices" not in {w.code for w in fast.warnings}
    ideal = 2 * SAMPLES / 128 * truth(32, 1)
    assert fast.chosen.seconds.p50 > 1.05 * ideal
    with pytest.raises(UsageError, match="averaging gradients was measured"):
        ec.plan(model, budget, bandwidth=1e9, **known)


@pytest.mark.parametrize(
    ("devices", "each", "probed", "nodes"),
    [
        (8, 4, [World(1)], 2),
        (9, 4, [World(1)], 3),
        (8, None, [World(1), World(2)], 1),
        (8, None, [World(4), World(2, 2)], 2),
        (8, None, [World(4, 2)], 4),
    ],
)
def test_machines_are_as_large_as_asked_or_as_any_that_was_measured(
    devices: int, each: int | None, probed: list[World], nodes: int
) -> None:
    assert nodes_of(devices, each, probed) == nodes


@pytest.mark.parametrize(("kind", "asked", "told"), [("cpu", 4, 1), ("cpu", 2, 0), ("cuda", 4, 0)])
def test_more_ranks_of_a_cpu_may_share_its_cores(kind: str, asked: int, told: int) -> None:
    model = ec.fit(measured((1, 1), (2, 1)))
    model = replace(model, device=replace(model.device, kind=kind, threads=2))
    found = model.predict(1, 32, world_size=asked).warnings
    notes = [dict(w.details) for w in found if w.code == "cores-of-ranks"]
    assert notes == [{"ranks": "4", "threads": "2", "cores": "8"}] * told


def test_a_knob_that_a_script_has_in_its_command_is_asked_by_its_option(
    model: ec.CostModel,
) -> None:
    with pytest.raises(PredictionError, match=r"no knob 'n'.*; the number of .* is --world-size"):
        model.predict(1, 32, n=2)
    with pytest.raises(PredictionError, match=r"no knob 'batch_size'.*; that is --batch-size"):
        predict(model, Question(epochs=1, sizes={"batch_size": 2}))
