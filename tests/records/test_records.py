"""Records validate themselves, are frozen, and survive JSON unchanged."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import strategies
from hypothesis import given
from hypothesis import strategies as st
from strategies import make_measurement

from epochcast import records
from epochcast.errors import UsageError
from epochcast.records import Measurement, Quantiles, RunConfig, from_json, make_sizes, to_json


@given(strategies.every_record)
def test_json_identity(record):
    text = to_json(record)
    assert "\n" not in text
    assert from_json(text, type(record)) == record
    assert json.loads(text) == json.loads(json.dumps(records.to_builtins(record)))


def test_every_record_class_has_a_strategy():
    classes = {
        value
        for value in vars(records).values()
        if dataclasses.is_dataclass(value) and value.__module__.startswith("epochcast.records.")
    }
    names = {"dataset_specs", "run_configs", "devices", "footprints", "memory_peaks", "summaries"}
    names |= {"measurements", "quantiles", "warnings", "terms", "estimates", "timelines"}
    names |= {"learning_curves", "budgets", "plans", "shortfalls", "options", "checkpoints"}
    names |= {"outlooks", "stop_rules", "gradient_noises", "unit_prices", "capacities"}
    names |= {"positions", "notices", "runs_started", "epochs_done", "runs_ended", "run_outcomes"}
    names |= {"frequencies", "scripts"}
    names |= {"device_specs", "device_sequences", "step_marks", "unknown_bytes", "device_needs"}
    names |= {"shares", "live_tensors", "unseen", "memory_curves", "largest_values", "alternatives"}
    names |= {"asked_steps", "timed_rounds", "baselines", "baseline_entries", "checked_steps"}
    names |= {"changes", "epoch_ranges", "communications", "spot_offers", "powers"}
    assert len(classes) == len(names)
    assert all(hasattr(strategies, name) for name in names)


@given(strategies.every_record)
def test_frozen_and_slotted(record):
    name = dataclasses.fields(record)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(record, name, getattr(record, name))
    assert not hasattr(record, "__dict__")


@given(strategies.measurements)
def test_equal_measurements_have_equal_keys(measurement):
    assert from_json(to_json(measurement), Measurement).key == measurement.key
    later = dataclasses.replace(measurement, created_at="later", message="other", trial=9)
    assert later.key == measurement.key


@given(strategies.measurements)
def test_another_round_has_another_key(measurement):
    another = dataclasses.replace(measurement, round=measurement.round + 1)
    assert another.key != measurement.key


@pytest.mark.parametrize(
    "changes",
    [
        {"workload": "other"},
        {"source": "other"},
        {"data": "other"},
        {"batch_size": 64},
        {"width": 512},
        {"device": dataclasses.replace(strategies.CPU, threads=4)},
    ],
)
def test_what_decides_cost_decides_the_key(changes):
    assert make_measurement(**changes).key != make_measurement().key


def test_keys_do_not_change_between_processes_or_releases():
    assert make_measurement().key == "ac935f71d695c586"
    assert strategies.CPU.key == "e42c7d6169a2"


def test_a_clock_does_not_make_another_device():
    assert dataclasses.replace(strategies.CPU, clock_mhz=800.0).key == strategies.CPU.key


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"step_seconds": ()}, "a successful measurement needs step_seconds"),
        ({"step_seconds": (0.0,)}, "all above 0"),
        ({"step_seconds": (math.nan,)}, "step_seconds must be finite and not negative"),
        ({"loader_seconds": (-1.0,)}, "loader_seconds must be finite and not negative"),
        ({"save_seconds": (math.inf,)}, "save_seconds must be finite and not negative"),
        ({"import_seconds": math.nan}, "import_seconds must be finite and not negative"),
        ({"probe_seconds": -1.0}, "probe_seconds must be finite and not negative"),
        ({"samples": -1}, "samples must be >= 0, but got -1"),
    ],
)
def test_a_bad_measurement_says_why(changes, message):
    with pytest.raises(ValueError, match=message):
        make_measurement(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, but got 0"),
        ({"accumulation": 0}, "accumulation must be at least 1, but got 0"),
        ({"world_size": -1}, "world_size must be at least 1, but got -1"),
        ({"workers": -1}, "workers must be at least 0, but got -1"),
        ({"sizes": (("b", 1), ("a", 1))}, "sizes must be sorted by name: use make_sizes"),
        ({"sizes": (("a", 1), ("a", "x"))}, "sizes must be sorted by name: use make_sizes"),
        ({"sizes": (("a", math.nan),)}, "a size must be finite, but got a=nan"),
    ],
)
def test_a_bad_configuration_says_why(changes, message):
    with pytest.raises(ValueError, match=message):
        RunConfig(**({"batch_size": 32} | changes))


def test_a_price_beyond_all_plans_is_refused():
    exactly = records.Quantiles.exactly
    with pytest.raises(ValueError, match=r"epoch must be seconds between 0 and 1e\+\d+"):
        records.UnitPrices(
            startup=exactly(0),
            first_steps=exactly(0),
            epoch=exactly(1e308),
            evaluation=exactly(0),
            save=exactly(0),
            epoch_noise=0.0,
        )


def test_a_data_set_has_samples():
    with pytest.raises(ValueError, match="samples must be positive, but got 0"):
        records.DatasetSpec(name="x", samples=0, shape=(), dtype="uint8", source="x")


def test_a_label_names_what_differs_from_the_defaults():
    config = RunConfig(batch_size=64, sizes=make_sizes({"width": 512, "depth": 2}), workers=2)
    assert config.label == "batch_size=64 depth=2 width=512 workers=2"


@pytest.mark.parametrize(
    ("accumulation", "workers", "period"), [(4, 6, 12), (4, 2, 4), (3, 0, 3), (1, 5, 5)]
)
def test_a_loop_repeats_after_a_common_multiple(accumulation, workers, period):
    config = RunConfig(batch_size=1, accumulation=accumulation, workers=workers)
    assert config.period == period


def test_a_footprint_peaks_where_it_is_larger():
    zeros = {field.name: 0 for field in dataclasses.fields(records.Footprint)}
    zeros |= {"uncounted_operators": (), "step_peak_bytes": 5, "update_peak_bytes": 7}
    assert records.Footprint(**zeros).peak_bytes == 7


@given(strategies.quantiles, strategies.quantiles, st.floats(0, 1e6))
def test_quantiles_add_and_scale(left, right, factor):
    total = left + right
    assert (total.p10, total.p90) == (left.p10 + right.p10, left.p90 + right.p90)
    assert left.scaled(factor).p50 == left.p50 * factor


def test_quantiles_are_in_order():
    with pytest.raises(ValueError, match="in order"):
        Quantiles(p05=2.0, p10=2.0, p50=1.0, p90=3.0, p95=3.0)
    with pytest.raises(ValueError, match="in order"):
        Quantiles(p05=0.0, p10=0.0, p50=math.nan, p90=3.0, p95=3.0)


@pytest.mark.parametrize(
    ("text", "value"),
    [("256", 256), ("1e3", 1000.0), (" True ", True), ("false", False), (" gelu ", "gelu")],
)
def test_size_values(text, value):
    parsed = records.parse_size_value(text)
    assert parsed == value
    assert type(parsed) is type(value)


@given(st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.booleans()))
def test_size_values_round_trip(value):
    assert records.parse_size_value(str(value)) == value


@pytest.mark.parametrize("text", ["nan", "inf", "-Infinity", "1e999", "9" * 320, "-" + "9" * 4000])
def test_size_values_are_finite(text):
    with pytest.raises(UsageError, match="must be finite"):
        records.parse_size_value(text)


@given(strategies.timelines(), st.sampled_from((1, 512)))
def test_a_timeline_never_holds_less_than_nothing_and_rounding_only_adds(timeline, granularity):
    live = timeline.live_bytes(granularity)
    assert min(live, default=0) >= 0
    assert timeline.peak_bytes(granularity) == max(live, default=0)
    assert timeline.peak_bytes() <= timeline.peak_bytes(granularity)


def test_a_timeline_sums_what_is_alive():
    timeline = records.Timeline(
        block_bytes=(100, 50, 600),
        block_kinds=("parameter", "activation", "gradient"),
        block_operators=(-1, 0, 1),
        block_modules=(-1, 0, 0),
        operators=("aten.mm", "aten.mul"),
        modules=("Linear",),
        events=(1, 2, -2, 3, -3),
        forward_end=2,
        step_end=4,
    )
    assert timeline.live_bytes() == (100, 150, 100, 700, 100)
    assert timeline.peak_bytes() == 700
    assert timeline.peak_bytes(512) == 512 + 1024


def test_a_timeline_names_known_blocks():
    with pytest.raises(ValueError, match="unknown block"):
        records.Timeline(
            block_bytes=(),
            block_kinds=(),
            block_operators=(),
            block_modules=(),
            operators=(),
            modules=(),
            events=(1,),
            forward_end=0,
            step_end=0,
        )
