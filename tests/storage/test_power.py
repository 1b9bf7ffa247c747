"""What a device drew: each configuration by its own trials, any other by all of them."""

from dataclasses import replace
from math import exp, hypot, sqrt
from statistics import NormalDist

import numpy as np
import pytest
import truths

from epochcast.costmodel.fitting import fit
from epochcast.costmodel.prediction import predict
from epochcast.costmodel.question import Question
from epochcast.planning.limits import Meter
from epochcast.records import Budget, Device, Measurement, Power, Quantiles, RunConfig
from epochcast.storage.power import MeasuredPower, power_of, with_energy

DEVICE = Device(kind="cuda", name="H200", memory_bytes=1 << 37, torch="2.13", threads=1)

LEVELS = {"p05": 0.05, "p10": 0.1, "p50": 0.5, "p90": 0.9, "p95": 0.95}
z = NormalDist().inv_cdf


def trial(batch: int, watts: float, seconds: float = 0.01, steps: int = 1000) -> Measurement:
    return Measurement(
        workload="net",
        config=RunConfig(batch_size=batch),
        device=DEVICE,
        samples=1000,
        step_seconds=(seconds,) * steps,
        step_joules=watts * seconds,
    )


def test_spreads_are_within_and_between_configurations() -> None:
    """Two batches, ±10 % each: s = √(4 · 0.1² / 2); means of 200 and 400 W."""
    trials = [trial(8, 180), trial(8, 220), trial(64, 360), trial(64, 440)]
    found = power_of(trials)
    within = sqrt(4 * 0.1**2 / 2)
    assert found is not None
    assert [(p.config.batch_size, p.watts) for p in found.powers] == [
        (8, pytest.approx(200)),
        (64, pytest.approx(400)),
    ]
    assert found.powers[0].spread == pytest.approx(within * sqrt(1.5))
    assert found.watts == pytest.approx(300)
    assert found.spread == pytest.approx(hypot(within, 100 * sqrt(2) / 300))


def test_one_trial_has_the_spread_of_its_counter() -> None:
    """A window of 1 s between ticks of 0.1 s, and a load that is steady to 2.5 %."""
    found = power_of([trial(8, 200, steps=100)])
    assert found is not None
    assert found.powers[0].spread == pytest.approx(hypot(0.025, 0.1 / sqrt(6)) * sqrt(2))
    assert found.spread > found.powers[0].spread * 0.99


def test_a_counter_stands_above_a_sensor() -> None:
    counted = replace(trial(8, 200), power_watts=90.0)
    sensed = replace(counted, step_joules=None)
    both, one = power_of([sensed, counted]), power_of([sensed])
    assert both is not None
    assert one is not None
    assert both.watts == pytest.approx(200)
    assert (one.watts, one.spread, one.powers) == (90.0, 0.0, ())
    assert power_of([replace(sensed, power_watts=None)]) is None


def test_energy_is_time_times_what_all_devices_draw() -> None:
    """As a plan's draws are: of seconds, and of watts by the same rule."""
    config = RunConfig(batch_size=8, world_size=4)
    seconds = Quantiles(**{n: 100 * exp(0.2 * z(x)) for n, x in LEVELS.items()})
    power = MeasuredPower(300.0, 0.5, (Power(config=config, watts=200.0, spread=0.1),))
    asked = predict(fit(truths.sweep((64, 128), rounds=2)), Question(epochs=1))
    estimate = replace(asked, config=config, total_seconds=seconds)
    found = with_energy(estimate, power)
    random = np.random.default_rng(0)
    slow, strong = random.standard_normal((2, 200_000))
    meter = Meter(Budget(watts=200.0, watts_spread=0.1), 4)
    drawn = meter.joules(100 * np.exp(0.2 * slow), meter.watts(strong))
    assert found.energy_joules is not None
    assert found.energy_joules.p50 == pytest.approx(100 * 200 * 4)
    for name, level in LEVELS.items():
        joules = getattr(found.energy_joules, name)
        assert joules == pytest.approx(np.quantile(drawn, level), rel=0.02)
    assert found.warnings == estimate.warnings
    other = with_energy(replace(estimate, config=RunConfig(batch_size=9)), power)
    assert other.energy_joules is not None
    assert other.energy_joules.p50 == pytest.approx(100 * 300)
    assert other.warnings[-1].code == "power-of-others"
    assert with_energy(estimate, MeasuredPower(0.0, 0.0)) is estimate  # as a plan has it


def test_a_power_is_a_number() -> None:
    with pytest.raises(ValueError, match="watts must lie between 0 and"):
        Power(config=RunConfig(batch_size=8), watts=-1.0)
