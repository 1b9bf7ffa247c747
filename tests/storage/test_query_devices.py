"""Which device answers a question, how people name it, and what is said where there are several."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import truths
from click.testing import CliRunner

from epochcast.cli import cli
from epochcast.errors import PredictionError, StoreError
from epochcast.profiler.protocol import Description
from epochcast.profiler.request import SweepRequest, grid, resolved
from epochcast.records import Device, Measurement
from epochcast.report.text.warnings import warning_text
from epochcast.storage.query import fitted_model, probed_devices, select
from epochcast.storage.store import Store

TWO = truths.DEVICE
ONE = replace(TWO, threads=1)
PATCHED = replace(TWO, torch="2.13.1")
MINOR = replace(TWO, torch="2.14.0")
GPU = Device(kind="cuda", name="NVIDIA A100-40GB", memory_bytes=2**35, torch="2.13.0", threads=9)
LATER = "2027-01-01T00:00:00+00:00"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(folder=tmp_path) as opened:
        opened.add_all(truths.sweep(round_sd=0.02))
        yield opened


def one_trial(device: Device, **changes: object) -> Measurement:
    return truths.measure(64, 512, device=device, factor=25.0, created_at=LATER, **changes)


def notes(selection) -> str:
    return "\n".join(map(warning_text, selection.warnings))


def test_one_trial_with_another_number_of_threads_changes_nothing(store: Store) -> None:
    """It turned 5m 54s into 2h 29m."""
    before = fitted_model(store)[0].predict(epochs=90).total_seconds.p50
    store.add(one_trial(ONE))
    selection = select(store)
    assert selection.newest.device == TWO
    assert fitted_model(store)[0].predict(epochs=90).total_seconds.p50 == before
    assert notes(selection) == (
        f"using {TWO.label}, 36 trials; also probed: {ONE.id} (1 thread; 1 trial); "
        "for another, --device with its id"
    )


@pytest.mark.parametrize("words", [ONE.id, ONE.key, ONE.id[:4], "1 thread", "cpu, 1 Thread", "1"])
def test_a_device_is_chosen_by_its_id_or_by_words(store: Store, words: str) -> None:
    store.add(one_trial(ONE))
    assert select(store, device=words).newest.device == ONE
    assert select(store, device="2 threads").newest.device == TWO


@pytest.mark.parametrize("words", ["12 threads", "2 thread", "", "imag inary", ONE.id[:3], "cuda"])
def test_words_that_mean_none(store: Store, words: str) -> None:
    with pytest.raises(PredictionError, match=f"only on {TWO.id}: Imaginary"):
        select(store, device=words)


def test_part_of_a_name_in_any_case() -> None:
    assert GPU.answers_to("a100")
    assert GPU.answers_to("cuda:0")
    assert GPU.answers_to("40gb")
    assert not GPU.answers_to("H100")
    assert not replace(TWO, threads=12).answers_to("2 threads")


def test_another_machine_probed_last_is_the_one_meant(store: Store) -> None:
    store.add(one_trial(GPU))
    selection = select(store)
    assert selection.newest.device == GPU
    assert f"{TWO.id} ({TWO.label}; 36 trials)" in notes(selection)


def test_newer_code_goes_before_more_trials(store: Store) -> None:
    store.add(one_trial(ONE, source="newer"))
    assert select(store).newest.device == ONE


def test_a_patch_release_of_torch_forgets_nothing_and_is_said(store: Store) -> None:
    assert TWO.key == PATCHED.key != MINOR.key
    assert replace(TWO, torch="2.13.0+cpu").key != replace(TWO, torch="2.13.0+cu126").key
    store.add(one_trial(PATCHED, round_=7))
    selection = select(store)
    assert len(selection.measurements) == 37
    assert "measured with torch 2.13.0 and 2.13.1, which are taken for one" in notes(selection)
    assert fitted_model(store)[0].device.torch == "2.13.1"


def test_what_differs_is_said_of_one_machine_alone() -> None:
    assert ONE.unlike(TWO) == "1 thread"
    assert MINOR.unlike(ONE) == "2 threads, torch 2.14.0"
    assert replace(TWO, memory_bytes=2**35).unlike(TWO) == "memory 32 GiB"
    assert GPU.unlike(TWO) == GPU.label


@pytest.mark.parametrize(("device", "threads"), [("auto", None), ("cpu", 2), ("CPU:0", None)])
def test_asking_for_what_is_there_anyway_is_the_same_request(device: str, threads: int) -> None:
    """``--threads 2`` on a device of two threads measured all again."""
    plain = SweepRequest(target="mnist-mlp")
    asked = SweepRequest(target="mnist-mlp", device=device, threads=threads)
    known = Description(knobs=(("width", 8),), takes_data=False, source="", device=TWO)
    (expected,), (found,) = (
        grid(resolved(request, TWO), known, (32,)) for request in (plain, asked)
    )
    assert found.request == expected.request
    (other,) = grid(resolved(plain, ONE), known, (32,))
    assert other.request != expected.request


def test_devices_are_listed_by_their_ids(store: Store, tmp_path: Path) -> None:
    store.add(one_trial(ONE, workload="other"))
    found = probed_devices(store.measurements())
    assert [(d.id, d.trials, d.workloads) for d in found] == [
        (TWO.id, 36, ("imaginary",)),
        (ONE.id, 1, ("other",)),
    ]
    where = ["--store", str(tmp_path / "measurements.sqlite")]
    lines = CliRunner().invoke(cli, ["devices", *where]).stdout.splitlines()
    assert lines[1].split()[0] == TWO.id
    assert "36" in lines[1].split()
    assert "1 thread, torch" in lines[2]
    nothing = CliRunner().invoke(cli, ["devices", "third", *where])
    assert nothing.stderr == "no measurements of 'third'\n"
    assert CliRunner().invoke(cli, ["devices", "--json", *where]).stdout.startswith('{\n  "schema"')


def test_rows_that_disagree_with_their_documents_are_said_in_one_line(tmp_path: Path) -> None:
    with Store.open(folder=tmp_path) as store:
        store.add(truths.measure(32, 256))
    with sqlite3.connect(tmp_path / "measurements.sqlite") as database:
        database.execute("UPDATE epochcast_measurements SET device_key = 'another'")
    with Store.open(folder=tmp_path) as store, pytest.raises(StoreError, match="edit by hand"):
        select(store)
