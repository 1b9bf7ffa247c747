"""Steps of many devices: the equation's terms, what is recovered, and how honest the rest is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from epochcast.costmodel.scaling import (
    Compute,
    Observed,
    Scaling,
    World,
    computes_of,
    fit_scaling,
    quantiles_of,
)
from epochcast.errors import FitError

WITHIN, ACROSS = (0.02, 0.002), (0.08, 0.004)  # α, β


def pollux(world: World, batch: int, gamma: float = 1.5, accumulation: int = 1) -> float:
    """Equations 8 to 11 of Pollux (OSDI'21), with g = 20 ms + 1 ms a sample."""
    g = 0.02 + 0.001 * batch
    alpha, beta = ACROSS if world.nodes > 1 else WITHIN
    averaging = alpha + beta * (world.devices - 2) if world.devices > 1 else 0.0
    return (accumulation - 1) * g + (g**gamma + averaging**gamma) ** (1 / gamma)


def seen(*worlds: World, batches: tuple[int, ...] = (16, 64), **other: float) -> list[Observed]:
    return [
        Observed(configuration=str(b), world=w, seconds=pollux(w, b, **other))  # type: ignore[arg-type]
        for b in batches
        for w in worlds
    ]


NODE = (World(1), World(2), World(4), World(8))
NODES = (World(2, 2), World(4, 2), World(8, 2))


@pytest.fixture(scope="module")
def fitted() -> Scaling:
    return fit_scaling(seen(*NODE, *NODES))


@pytest.mark.parametrize("world", [*NODE, *NODES])
def test_what_was_measured_is_answered_as_it_was(fitted: Scaling, world: World) -> None:
    assert median(fitted, world) == pytest.approx(pollux(world, 64), rel=0.05)


@pytest.mark.parametrize("devices", [16, 32, 64])
def test_more_devices_than_were_probed_are_within_the_interval(
    fitted: Scaling, devices: int
) -> None:
    world, truth = World(devices, devices // 8), pollux(World(devices, devices // 8), 64)
    found = quantiles_of(fitted.draws(world, configuration="64"))
    assert found.p05 < truth < found.p95
    if devices == 16:
        assert found.p50 == pytest.approx(truth, rel=0.1)


def median(fitted: Scaling, world: World, **other: object) -> float:
    return quantiles_of(fitted.draws(world, configuration="64", **other)).p50  # type: ignore[arg-type]


def width(fitted: Scaling, world: World) -> float:
    found = quantiles_of(fitted.draws(world, configuration="64"))
    return found.p95 / found.p05


def test_intervals_widen_beyond_what_was_probed(fitted: Scaling) -> None:
    widths = [width(fitted, World(p, p // 4)) for p in (8, 16, 64, 256, 1024)]
    assert widths == sorted(widths)
    assert widths[-1] > 2 * widths[0]


def test_it_is_said_how_far_a_world_is_from_those_probed(fitted: Scaling) -> None:
    assert [fitted.doublings(World(p, 2)) for p in (2, 8, 32)] == [0.0, 0.0, 2.0]
    assert fitted.doublings(World(1)) == 0.0
    assert not fitted.is_unseen(World(64, 8))
    within = fit_scaling(seen(World(1), World(2)))
    assert within.is_unseen(World(8, 2))
    assert not within.is_unseen(World(8))
    assert not within.is_unseen(World(1))


def test_links_that_were_never_probed_are_slower_and_wide() -> None:
    within = fit_scaling(seen(World(1), World(2)))
    assert median(within, World(2, 2)) > median(within, World(2))
    assert width(within, World(2, 2)) > 2 * width(within, World(2))


def test_accumulated_micro_steps_average_nothing(fitted: Scaling) -> None:
    """(k − 1)·g more, whatever the world."""
    more = median(fitted, World(8, 2), accumulation=5) - median(fitted, World(8, 2))
    assert more == pytest.approx(4 * (0.02 + 0.064), rel=0.02)


def test_a_larger_model_averages_longer(fitted: Scaling) -> None:
    times = [median(fitted, World(8, 2), payload=payload) for payload in (0.5, 1.0, 4.0)]
    assert times == sorted(times)
    assert times[-1] > 1.5 * times[0]
    assert median(fitted, World(1), payload=100.0) == pytest.approx(pollux(World(1), 64), rel=0.02)


def test_another_batch_is_answered_by_its_compute(fitted: Scaling) -> None:
    draws = fitted.draws(World(8, 2), configuration="40", compute=Compute(seconds=0.06, sd=0.01))
    assert quantiles_of(draws).p50 == pytest.approx(pollux(World(8, 2), 40), rel=0.1)
    with pytest.raises(FitError, match="'40' was not measured"):
        fitted.draws(World(8, 2), configuration="40")


def test_overlap_is_learned_from_batches_of_different_size() -> None:
    """Behind a long backward pass little is left of the averaging, unless nothing overlaps."""
    hidden, open_ = (
        fit_scaling(seen(World(1), World(2, 2), batches=(4, 16, 64, 256), gamma=gamma))
        for gamma in (4.0, 1.0)
    )
    extra = [
        quantiles_of(x.draws(World(4, 4), configuration="256")).p50 / pollux(World(1), 256)
        for x in (hidden, open_)
    ]
    assert extra[0] < 1.06 < extra[1]


def test_one_odd_time_does_not_carry_the_rest() -> None:
    times = seen(*NODE, *NODES, batches=(16, 32, 64, 128))
    odd = [replace(x, seconds=3 * x.seconds) if i == 10 else x for i, x in enumerate(times)]
    assert median(fit_scaling(odd), World(16, 2)) == pytest.approx(
        pollux(World(16, 2), 64), rel=0.2
    )


def test_a_single_device_that_was_never_probed_is_known_less_well() -> None:
    without = fit_scaling(seen(World(2), World(4), World(8)))
    truth = pollux(World(1), 64)
    draws = without.draws(World(1), configuration="64")
    assert np.quantile(draws, 0.02) < truth < np.quantile(draws, 0.98)
    assert width(without, World(1)) > 1.05
    assert computes_of(seen(World(4)))["64"].seconds < pollux(World(4), 64)


def test_the_order_of_measurements_does_not_matter(fitted: Scaling) -> None:
    times = seen(*NODE, *NODES)
    again = fit_scaling([*times[7:], *times[:7]])
    assert median(again, World(32, 4)) == pytest.approx(median(fitted, World(32, 4)), rel=0.02)


def test_the_same_question_has_the_same_answer(fitted: Scaling) -> None:
    asked = [fitted.draws(World(16, 2), configuration="16") for _ in range(2)]
    assert np.array_equal(*asked)


@pytest.mark.parametrize("world", [(1, 2), (0, 1), (4, 0)])
def test_a_world_has_no_more_nodes_than_devices(world: tuple[int, int]) -> None:
    with pytest.raises(FitError, match="cannot be spread"):
        World(*world)


def test_nothing_is_learned_of_nothing() -> None:
    for times in ([], [Observed(configuration="", world=World(1), seconds=0.0)]):
        with pytest.raises(FitError, match="positive step times"):
            fit_scaling(times)
