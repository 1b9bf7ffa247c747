"""What was recorded on an H100, fitted and predicted again: a configuration from the others."""

from functools import cache
from pathlib import Path
from statistics import fmean, median

import pytest
from comparison.splits import splits
from gpu_parts.probes import measurements_in
from gpu_parts.results import read_folder

import epochcast as ec
from epochcast.costmodel.summary import group_by_config, step_seconds, waiting_share

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


@cache
def recorded(folder: str, scenario: str) -> tuple[ec.Measurement, ...]:
    for found in read_folder(RESULTS / folder).of("probes", "measurements"):
        if found["scenario"] == scenario:
            return tuple(measurements_in(found["measurements"]))
    raise LookupError(scenario)


RESNET = recorded("h100", "cifar10-resnet")


def told(known: tuple[ec.Measurement, ...], asked: ec.Measurement) -> ec.Quantiles:
    c = asked.config
    model = ec.fit(known)
    sizes = dict(c.sizes)
    estimate = model.predict(epochs=1, batch_size=c.batch_size, footprint=asked.footprint, **sizes)
    return estimate.step_seconds


@pytest.mark.parametrize("asked", RESNET[::2], ids=lambda m: m.config.label)
def test_each_configuration_that_waits_for_data_is_told_by_the_five_others(
    asked: ec.Measurement,
) -> None:
    """One trial each, half to three quarters of a step waiting: within 6 %, held, and of use."""
    assert 0.5 < (waiting_share(asked) or 0.0) < 0.8
    others = tuple(m for m in RESNET if m is not asked)
    q = told(others, asked)
    assert q.p50 == pytest.approx(step_seconds(asked), rel=0.06)
    assert q.p05 < step_seconds(asked) < q.p95
    assert 1.1 < q.p95 / q.p05 < 1.6


def test_fetching_and_computing_follow_each_other_without_workers() -> None:
    """Batch 512 waits four times as long as 128, at either width: loading is not hidden."""
    for m in RESNET:
        wait = sum(m.data_wait_seconds) / len(m.data_wait_seconds)
        assert wait / m.config.batch_size == pytest.approx(1.03e-4, rel=0.06)
        assert m.config.workers == 0


def test_one_visit_of_one_configuration_holds_itself_and_says_little() -> None:
    (only,) = recorded("h100", "char-gpt-bf16")
    q = told((only,), only)
    assert q.p05 < step_seconds(only) < q.p95
    assert 1.1 < q.p95 / q.p05 < 1.5


def test_a_pair_of_rounds_that_differ_by_half_is_of_use() -> None:
    """An H200's steps that wait 95 % of their time took 65 ms in one round, 39 in the next."""
    known = recorded("h200", "mnist-mlp")
    (pair,) = (found for found in group_by_config(known).values() if len(found) > 1)
    q = told(known, pair[0])
    assert len(pair) == 2
    assert all(q.p05 < step_seconds(m) < q.p95 for m in pair)
    assert q.p95 / q.p05 < 5


# -- a grid of a transformer -----------------------------------------------------------------------


GRID = tuple(
    measurements_in(
        read_folder(RESULTS / "h100" / "grid").of("accuracy", "measurements")[0]["measurements"]
    )
)
TRUTH = {c: fmean(map(step_seconds, found)) for c, found in group_by_config(GRID).items()}


def test_half_of_the_grid_is_bound_by_launches() -> None:
    """Where a launch takes longer than its kernel, sixteen times the work takes no longer."""
    narrow = {c.batch_size: t for c, t in TRUTH.items() if dict(c.sizes)["width"] == 192}
    assert narrow[64] == pytest.approx(narrow[8], rel=0.15)
    assert narrow[128] > 1.5 * narrow[64]


def test_what_was_left_out_of_the_grid_lies_in_the_intervals() -> None:
    """Unseen and larger batch sizes, widths between and beyond; one trial of most."""
    held, errors = [], {}
    for split in splits(TRUTH):
        model = ec.fit([m for m in GRID if m.config in split.fitted])
        for c in split.held_out:
            estimate = model.predict(epochs=1, batch_size=c.batch_size, **dict(c.sizes))
            q, truth = estimate.step_seconds, TRUTH[c]
            held.append(q.p05 < truth < q.p95)
            errors.setdefault(split.name, []).append(abs(q.p50 / truth - 1))
    assert sum(held) >= 0.9 * len(held)
    assert {name: median(found) < 0.12 for name, found in errors.items()} == dict.fromkeys(
        errors, True
    )


def test_steps_of_the_grid_are_predicted_at_their_own_length() -> None:
    """The update takes 3 ms where the device waits for launches, 0.3 where it does not."""
    model = ec.fit(GRID)
    ratios = [
        model.predict(epochs=1, batch_size=c.batch_size, **dict(c.sizes)).step_seconds.p50 / truth
        for c, truth in TRUTH.items()
    ]
    assert fmean(ratios) == pytest.approx(1.0, abs=0.02)


def test_a_run_under_a_deadline_ended_in_time_with_a_whole_checkpoint() -> None:
    (found,) = read_folder(RESULTS / "h100" / "variants").of("guard", "followed")
    ended = found["log"][-1]
    assert ended["event"] == "ended"
    assert ended["spent_seconds"] < found["deadline"]
    assert found["checkpoint_loads"]
