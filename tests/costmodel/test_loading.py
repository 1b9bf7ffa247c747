"""Computing and loading data: which rules, and what more workers change."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import truths
from hypothesis import given
from hypothesis import strategies as st

from epochcast.costmodel.cost import ConfigurationCost
from epochcast.costmodel.fitting import fit
from epochcast.costmodel.model import CostModel
from epochcast.costmodel.surface import TIME_SD_PER_DOUBLING
from epochcast.records import Measurement

PER_SAMPLE = 200e-6  # the loader alone, in one process


def trial(batch_size: int, width: int, workers: int, round_: int = 0) -> Measurement:
    """The slower of computing and loading rules; without workers they add up."""
    compute, update = truths.compute_seconds(batch_size, width), truths.update_seconds(width)
    loader = PER_SAMPLE * batch_size / max(1, workers)
    micro = max(compute, loader) if workers else compute + loader
    m = truths.measure(
        batch_size,
        width,
        round_=round_,
        step_seconds=(micro + update,) * 60,
        update_seconds=(update,) * 60,
        data_wait_seconds=(micro - compute,) * 60,
        loader_seconds=(loader,) * 60,
    )
    return replace(m, config=replace(m.config, workers=workers))


def model_of(*workers: int) -> CostModel:
    return fit(
        [trial(b, w, n) for n in workers for b in (16, 32, 64, 128) for w in (256, 1024, 4096)]
    )


def truth(batch_size: int, width: int, workers: int) -> float:
    return truths.update_seconds(width) + (
        sum(trial(batch_size, width, workers).step_seconds) / 60 - truths.update_seconds(width)
    )


TWO = model_of(2)


@given(batch_size=st.integers(16, 128), width=st.sampled_from((256, 1024, 2048, 4096)))
def test_the_slower_one_rules_each_configuration(batch_size: int, width: int) -> None:
    estimate = TWO.predict(epochs=1, batch_size=batch_size, width=width)
    assert estimate.step_seconds.p50 == pytest.approx(truth(batch_size, width, 2), rel=0.02)
    assert estimate.compute_seconds == pytest.approx(
        truths.compute_seconds(batch_size, width), rel=0.02
    )
    assert estimate.loader_seconds == pytest.approx(PER_SAMPLE * batch_size / 2, rel=0.02)


@pytest.mark.parametrize("workers", [1, 4, 8])
def test_a_number_of_workers_never_probed_is_priced_and_said_to_be(workers: int) -> None:
    estimate = TWO.predict(epochs=1, batch_size=64, width=256, workers=workers)
    assert estimate.config.workers == workers
    assert estimate.step_seconds.p50 == pytest.approx(truth(64, 256, workers), rel=0.03)
    assert "workers" in estimate.extrapolated


def test_workers_are_priced_from_a_loop_without_them() -> None:
    estimate = model_of(0).predict(epochs=1, batch_size=64, width=256, workers=4)
    assert estimate.step_seconds.p50 == pytest.approx(truth(64, 256, 4), rel=0.03)


def test_what_was_probed_is_used_as_probed() -> None:
    both = model_of(0, 2)
    for workers in (0, 2):
        estimate = both.predict(epochs=1, batch_size=64, width=256, workers=workers)
        assert estimate.step_seconds.p50 == pytest.approx(truth(64, 256, workers), rel=0.02)
        assert "workers" not in estimate.extrapolated


def test_two_numbers_of_workers_show_how_loading_scales() -> None:
    """Where four workers are no faster than two, eight are not either."""
    slow = [
        replace(m, loader_seconds=(PER_SAMPLE * m.config.batch_size / 2,) * 60)
        for m in (trial(b, 256, n) for n in (2, 4) for b in (16, 32, 64, 128))
    ]
    estimate = fit(slow).predict(epochs=1, batch_size=64, width=256, workers=8)
    assert estimate.loader_seconds == pytest.approx(PER_SAMPLE * 32, rel=0.05)


def test_apart_is_better_only_if_what_is_left_out_is_predicted_better() -> None:
    """Where computing rules every step, computing and loading explain the very steps that they
    were measured in, and predict others no better than the steps' own surface does."""
    random = np.random.default_rng(5)
    better = []
    for _ in range(10):
        noisy = []
        for m in (trial(b, w, 2) for b in (16, 32, 64, 128) for w in (1024, 2048, 4096)):
            factor = math.exp(random.normal(0, 0.1))
            waits = tuple(w * factor for w in m.data_wait_seconds)
            steps = tuple(s * factor for s in m.step_seconds)
            updates = tuple(u * factor for u in m.update_seconds)
            noisy.append(
                replace(m, step_seconds=steps, data_wait_seconds=waits, update_seconds=updates)
            )
        loading = fit(noisy).variants[0].loading
        assert loading is not None
        better.append(loading.better)
    assert sum(better) <= 2


@pytest.mark.parametrize(("workers", "distance"), [(2, 0), (5, 1), (11, 2)])
def test_scatter_grows_with_every_doubling_of_the_workers(workers: int, distance: int) -> None:
    """With the loop itself 3, 6, 12 processes: what is known of 2 workers strays once more each."""
    loading = TWO.variants[0].loading
    assert loading is not None
    far = replace(TWO.variants[0].typical, batch_size=300)
    known = ConfigurationCost(TWO, TWO.variants[0], far).variables
    compute, load = loading.compute.value(known), loading.loader_seconds(known, workers)
    ruling = loading.compute if compute > load else loading.loader
    own = math.hypot(loading.error, ruling.sd_log(known))
    expected = math.hypot(own * (1 + distance), TIME_SD_PER_DOUBLING * distance)
    assert loading.sd_log(known, workers) == pytest.approx(expected, rel=1e-6)
