"""From a store to the model that answers: what is pooled, and what is kept apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import truths
from strategies import make_outcome

from epochcast.errors import PredictionError
from epochcast.planning.planner import plan
from epochcast.records import RunConfig, Script, make_sizes
from epochcast.records.estimate import ENDLESS
from epochcast.storage.query import fitted_model, select
from epochcast.storage.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    with Store.open(folder=tmp_path / ".epochcast") as opened:
        opened.add_all(truths.sweep())
        yield opened


def test_a_failure_is_no_reason_to_forget_what_succeeded(store: Store) -> None:
    """A configuration that ran out of memory before its data was known, after all others."""
    failed = truths.measure(
        64,
        10**6,
        status="oom",
        message="out of memory",
        step_seconds=(),
        data="",
        created_at="2027-01-01T00:00:00+00:00",
    )
    store.add(failed)
    model, _ = fitted_model(store)
    assert model.predict(epochs=1, batch_size=64, width=256).step_seconds.p50 > 0
    assert failed in select(store).measurements
    assert model.probing_seconds > fitted_model_without(store, failed.key)


def fitted_model_without(store: Store, key: str) -> float:
    store.remove([key])
    return fitted_model(store)[0].probing_seconds


def test_where_everything_failed_the_last_failure_is_told(tmp_path: Path) -> None:
    with Store.open(folder=tmp_path / "other") as store:
        store.add(truths.measure(8, 8, status="crashed", message="Boom", step_seconds=()))
        with pytest.raises(Exception, match=r"none of the 1 measurements succeeded.*Boom"):
            fitted_model(store)


def test_counts_of_a_dry_run_are_used_exactly_and_make_the_cached_fit_stale(store: Store) -> None:
    before = fitted_model(store)[0].predict(epochs=1, batch_size=96, width=700)
    config = RunConfig(batch_size=96, sizes=make_sizes({"depth": 1, "width": 700}))
    counted = replace(truths.footprint(96, 700), step_peak_bytes=123_456_789)
    store.add_footprints("imaginary", "", {config: counted}, data="synthetic")
    after = fitted_model(store)[0].predict(epochs=1, batch_size=96, width=700)
    assert before.peak_bytes is not None
    assert after.peak_bytes is not None
    assert before.peak_bytes.p50 != pytest.approx(123_456_789)
    assert (after.peak_bytes.p05, after.peak_bytes.p95) == (123_456_789, 123_456_789)


def test_counts_of_other_code_or_other_data_are_not(store: Store) -> None:
    config = RunConfig(batch_size=96, sizes=make_sizes({"depth": 1, "width": 700}))
    counted = replace(truths.footprint(96, 700), step_peak_bytes=123_456_789)
    store.add_footprints("imaginary", "other code", {config: counted}, data="synthetic")
    store.add_footprints("imaginary", "", {config: counted}, data="other data")
    peak = fitted_model(store)[0].predict(epochs=1, batch_size=96, width=700).peak_bytes
    assert peak is not None
    assert peak.p50 == pytest.approx(truths.footprint(96, 700).peak_bytes, rel=1e-3)


def test_a_finished_run_makes_the_cached_fit_stale_and_corrects_the_next_one(store: Store) -> None:
    before, _ = fitted_model(store)
    ran = plan(before, epochs=3, batch_sizes=(64,))
    slower = make_outcome(
        workload="imaginary",
        source="",
        device=truths.DEVICE,
        config=ran.chosen.config,
        predicted=ran.prices,
        epoch_seconds=(2 * ran.prices.epoch.p50,) * 2,
    )
    store.add_outcome(make_outcome(workload="other", device=truths.DEVICE))
    store.add_outcome(replace(slower, run="elsewhere", device=replace(truths.DEVICE, name="Other")))
    assert fitted_model(store)[0] == before
    store.add_outcome(slower)
    after, _ = fitted_model(store)
    assert after.calibration.epoch.factor == pytest.approx(2**0.5)
    assert fitted_model(store)[0] == after
    store.add_outcome(replace(slower, epoch_seconds=(ran.prices.epoch.p50,) * 2))
    assert fitted_model(store)[0].calibration.epoch.factor == pytest.approx(1.0)


def test_another_device_is_refused_with_what_to_do(store: Store) -> None:
    with pytest.raises(PredictionError, match=r"not probed on 'cuda', only on \w{6}: Imaginary"):
        select(store, device="cuda")


@pytest.mark.parametrize(
    ("counts", "fewest"),
    [
        ({16: 4816, 32: 4832}, 4816),  # 301 and 151 batches, the last one of each not full
        ({16: 4816, 32: ENDLESS * 32}, 4816),  # of which one trial saw no end
        ({16: 4816, 32: 9632}, None),  # other data
        ({16: ENDLESS * 16, 32: ENDLESS * 32}, None),
    ],
)
def test_what_trials_of_a_script_saw_of_data_without_a_length_counts_for_all(
    tmp_path: Path, counts: dict[int, int], fewest: int | None
) -> None:
    script = Script(arguments=("python", "train.py"), files=(), passes=3, steps=9)
    with Store.open(folder=tmp_path / "other") as store:
        for batch_size, samples in counts.items():
            m = truths.measure(batch_size, 8)
            store.add(replace(m, samples=samples, script=script))
        found = select(store).measurements
    assert {m.samples for m in found} == ({fewest} if fewest else set(counts.values()))


def test_a_script_that_was_not_probed_is_not_taken_for_a_workload(store: Store) -> None:
    store.add(replace(truths.measure(32, 256), workload="/home/ada/train.py"))
    with pytest.raises(PredictionError, match=r"; did you mean /home/ada/train.py[?]"):
        select(store, "rain.py")
    with pytest.raises(PredictionError, match=r"; did you mean /home/ada/train.py[?]"):
        select(store, "train")
    with pytest.raises(PredictionError, match=r"; run: epochcast probe -- python other_one.py"):
        select(store, "other_one.py")
