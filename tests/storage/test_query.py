"""From a store to the model that answers: what is pooled, and what is kept apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import truths
from strategies import make_outcome

from epochcast.costmodel.fitting import fit
from epochcast.errors import FitError, PredictionError
from epochcast.planning.planner import plan
from epochcast.records import Budget, RunConfig, Script, make_sizes
from epochcast.records.estimate import ENDLESS
from epochcast.storage.query import fitted_model, gradient_noise, select
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


NAMED = {"target": "train.py:workload", "source": "1"}


@pytest.fixture
def named(tmp_path: Path) -> Store:
    """Of one function under two names, the older one slower; and of another that nobody named."""
    old, new = "2026-01-01T00:00:00+00:00", "2026-01-02T00:00:00+00:00"
    with Store.open(folder=tmp_path / "named") as opened:
        for m in truths.sweep():
            slow = tuple(2 * x for x in m.step_seconds)
            was = replace(m, **NAMED, workload="before", created_at=old, step_seconds=slow)
            now = replace(m, **NAMED, workload="bigger-head", created_at=new)
            opened.add_all([was, now, replace(m, workload="char-gpt", target="", created_at=old)])
        yield opened


@pytest.mark.parametrize(
    ("asked", "found", "others"),
    [
        ("before", "before", None),
        ("bigger-head", "bigger-head", None),
        ("train.py:workload", "bigger-head", "before"),  # the newest, and it is said
        ("./train.py:workload", "bigger-head", "before"),
        ("char-gpt", "char-gpt", None),
        (None, "bigger-head", "before, char-gpt"),
    ],
)
def test_two_names_of_a_target_are_two_workloads(
    named: Store, asked: str | None, found: str, others: str | None
) -> None:
    selection = select(named, asked)
    assert {m.workload for m in selection.measurements} == {found}
    said = {w.code: dict(w.details) for w in selection.warnings}
    assert said.get("chose-workload", {}).get("others") == others


def test_what_was_measured_under_a_name_is_known_by_its_target(named: Store) -> None:
    """What dry runs counted is of the target; so is what a user is told to run next."""
    config = RunConfig(batch_size=96, sizes=make_sizes({"depth": 1, "width": 700}))
    counted = replace(truths.footprint(96, 700), step_peak_bytes=123_456_789)
    named.add_footprints("train.py:workload", "1", {config: counted}, data="synthetic")
    for name in ("before", "bigger-head"):
        model, _ = fitted_model(named, name)
        peak = model.predict(epochs=1, batch_size=96, width=700).peak_bytes
        assert peak is not None
        assert (peak.p05, peak.p95) == (123_456_789, 123_456_789)
        made = plan(model, Budget(), epochs=2)
        assert (made.workload, made.target) == (name, "train.py:workload")
    again = "epochcast probe train.py:workload --name bigger-head --"
    with pytest.raises(PredictionError, match=f"{again}world-sizes"):
        model.predict(epochs=1, world_size=4)
    with pytest.raises(PredictionError, match=f"{again}device cuda"):
        select(named, "bigger-head", device="cuda")
    with pytest.raises(PredictionError, match=f"{again}noise-scale"):
        gradient_noise(named, "bigger-head")
    script = Script(arguments=("python", "train.py", "-b", "{b}"), passes=3, steps=9)
    m = truths.measure(32, 256)
    named.add(replace(m, workload="net", target="train.py", script=script))
    with pytest.raises(PredictionError, match=r"probe --name net -- python train.py -b '{b}'"):
        select(named, "net", device="cuda")


def test_a_changed_file_is_told_of_a_named_workload(
    named: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("train.py").write_text("changed")
    codes = [w.code for w in select(named, "before").warnings]
    assert codes == ["code-changed"]


def test_measurements_of_two_targets_under_one_name_are_not_mixed(named: Store) -> None:
    """As after a pull from someone who gave the same name."""
    theirs = replace(truths.measure(48, 64), **NAMED, workload="before", data="synthetic")
    theirs = replace(theirs, target="train.py:other", created_at="2026-02-01T00:00:00+00:00")
    named.add(theirs)
    assert {m.target for m in select(named, "before").measurements} == {"train.py:other"}
    with pytest.raises(FitError, match="belongs to one workload function or script, but got 2"):
        fit(named.measurements("before"))
