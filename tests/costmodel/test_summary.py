"""Steady means are robust and exact where they must be; a summary has a row per configuration."""

from __future__ import annotations

from statistics import fmean
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochcast.costmodel import summary
from epochcast.costmodel.summary import steady_mean, summarise
from epochcast.records import Device, Footprint, Measurement, MemoryPeaks, RunConfig

CPU = Device(kind="cpu", name="Test CPU", memory_bytes=2**33, torch="2.13.0", threads=2)
durations = st.floats(1e-6, 1e3)


def trial(**changes: Any) -> Measurement:
    values: dict[str, Any] = {
        "workload": "mnist-mlp",
        "config": RunConfig(batch_size=100),
        "device": CPU,
        "samples": 1000,
        "step_seconds": (0.5,) * 9,
    }
    return Measurement(**(values | changes))


@given(durations, st.integers(1, 200), st.integers(1, 8))
def test_a_constant_series_gives_the_constant(value, length, period):
    assert steady_mean([value] * length, period) == pytest.approx(value, rel=1e-12)


@given(st.data(), st.lists(durations, min_size=36, max_size=120))
def test_four_glitches_stay_within_the_clean_values(data, clean):
    places = data.draw(st.lists(st.integers(0, len(clean) - 1), max_size=4))
    glitched = list(clean)
    for place in places:
        glitched[place] = 1e9
    assert min(clean) * (1 - 1e-9) <= steady_mean(glitched) <= max(clean) * (1 + 1e-9)


@given(st.lists(durations, min_size=1, max_size=8), st.integers(1, 30), st.data())
def test_a_periodic_series_gives_the_mean_of_its_period(pattern, repeats, data):
    rest = data.draw(st.integers(0, len(pattern) - 1))
    series = pattern * repeats + pattern[:rest]
    assert steady_mean(series, len(pattern)) == pytest.approx(fmean(pattern), rel=1e-9)


@given(st.lists(durations, min_size=1, max_size=100), st.floats(1e-3, 1e3), st.integers(1, 5))
def test_scaling_the_samples_scales_the_mean(samples, factor, period):
    scaled = steady_mean([factor * sample for sample in samples], period)
    assert scaled == pytest.approx(factor * steady_mean(samples, period), rel=1e-9)


def test_nothing_has_no_mean():
    with pytest.raises(ValueError, match="samples must not be empty"):
        steady_mean([])


def test_first_steps_are_what_they_took_beyond_steady_ones():
    assert summary.first_steps_seconds(trial(warmup_seconds=(3.0, 1.0))) == pytest.approx(3.0)
    assert summary.first_steps_seconds(trial(warmup_seconds=(0.1,))) == 0.0
    assert summary.first_steps_seconds(trial()) == 0.0


def test_an_evaluation_is_its_batches_and_its_turn():
    measured = trial(eval_samples=250, eval_batch_seconds=(0.2,) * 3, eval_restart_seconds=(0.1,))
    assert summary.eval_seconds(measured) == pytest.approx(0.1 + 3 * 0.2)
    assert summary.eval_seconds(trial()) is None


def test_a_row_for_each_configuration_in_order():
    large, small = RunConfig(batch_size=200), RunConfig(batch_size=100)
    rows = summarise([trial(config=large), trial(config=small), trial(config=large, round=1)])
    assert [(row.config.batch_size, row.trials) for row in rows] == [(100, 1), (200, 2)]


def test_devices_and_workloads_are_not_mixed():
    other = Device(kind="cpu", name="Other", memory_bytes=2**33, torch="2.13.0", threads=2)
    rows = summarise([trial(), trial(device=other), trial(workload="char-gpt")])
    assert len(rows) == 3


def test_a_row_takes_medians_over_trials():
    rounds = [trial(round=i, step_seconds=(value,) * 9) for i, value in enumerate((0.4, 0.5, 0.8))]
    (row,) = summarise(rounds)
    assert row.step_seconds == pytest.approx(0.5)
    assert row.step_spread == pytest.approx(0.4)  # (0.8 − 0.4) / 2 / 0.5
    assert row.samples_per_second == pytest.approx(200.0)


def test_a_row_of_one_full_trial():
    zeros = dict.fromkeys(
        ("bytes_moved", "operators", "update_operators", "trainable_parameters"), 0
    )
    full = trial(
        data_wait_seconds=(0.1,) * 9,
        update_seconds=(0.05,) * 9,
        loader_seconds=(0.02,) * 9,
        save_seconds=(1.0, 3.0),
        save_bytes=10,
        import_seconds=2.0,
        build_seconds=1.0,
        probe_seconds=9.0,
        trace="a.json.gz",
        log="a.log",
        memory=MemoryPeaks(device_bytes=50),
        footprint=Footprint(
            flops=7, parameters=3, static_bytes=1, step_peak_bytes=20, update_peak_bytes=30, **zeros
        ),
    )
    (row,) = summarise([full])
    assert row.step_spread is None  # of one there is none
    assert row.data_wait_share == pytest.approx(0.2)
    assert row.update_share == pytest.approx(0.1)
    assert row.loader_seconds == pytest.approx(0.02)
    assert (row.save_seconds, row.save_bytes) == (2.0, 10)
    assert row.startup_seconds == pytest.approx(3.0)
    assert (row.peak_bytes, row.device_bytes) == (30, 50)
    assert (row.parameters, row.flops, row.probe_seconds) == (3, 7, 9.0)
    assert (row.trace, row.log) == ("a.json.gz", "a.log")


def test_a_failed_trial_does_not_hide_a_good_one():
    failed = trial(
        status="oom", message="out of memory", step_seconds=(), round=1, probe_seconds=2.0
    )
    (row,) = summarise([trial(probe_seconds=1.0), failed])
    assert (row.status, row.trials, row.probe_seconds) == ("ok", 1, 3.0)


def test_only_failed_trials_show_the_latest_failure():
    failures = [
        trial(status="oom", message="first", step_seconds=()),
        trial(status="timeout", message="second", step_seconds=(), round=1),
    ]
    (row,) = summarise(failures)
    assert (row.status, row.message, row.step_seconds, row.trials) == ("timeout", "second", None, 0)


def test_nothing_has_no_rows():
    assert summarise([]) == ()


def test_configurations_with_and_without_a_knob_have_an_order():
    """``epochcast tensorboard`` compared a name with a batch size."""
    sizes = [
        (),
        (("act", "relu"),),
        (("act", 3),),
        (("depth", 2),),
        (("act", "relu"), ("depth", 2)),
    ]
    configs = [RunConfig(batch_size=b, sizes=s) for s in sizes for b in (200, 100)]
    rows = [row.config for row in summarise(trial(config=c) for c in configs)]
    assert set(rows) == set(configs)
    assert rows == [row.config for row in summarise(trial(config=c) for c in configs[::-1])]
    assert [c.batch_size for c in rows] == [100, 200] * len(sizes)
