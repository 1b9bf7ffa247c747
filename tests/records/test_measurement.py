"""A run that was timed elsewhere becomes a measurement like any other."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

import epochcast as ec
from epochcast.costmodel.fitting import fit
from epochcast.costmodel.summary import first_steps_seconds, step_seconds
from epochcast.records.configuration import device_named
from epochcast.storage.store import Store


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def from_epochs(*seconds: float, batch_size: int = 64, **others) -> ec.Measurement:
    known = {"samples": 6400, "device": "NVIDIA A100"}
    return ec.Measurement.from_epochs("cnn", batch_size, seconds, **{**known, **others})


def test_the_first_epoch_is_a_start_and_the_others_are_samples() -> None:
    m = from_epochs(12.0, 1.0, 1.02, 0.98)
    assert m.step_seconds == pytest.approx((0.0100, 0.0102, 0.0098))
    assert m.steps_per_sample == 100
    assert first_steps_seconds(m) == pytest.approx(11.0)
    assert m.message == ""


def test_a_first_epoch_that_is_not_slow_costs_nothing() -> None:
    m = from_epochs(0.9, 1.0, 1.0)
    assert m.warmup_seconds == ()
    assert step_seconds(m) == pytest.approx(0.01)


def test_a_single_epoch_is_used_as_it_is_and_that_is_said() -> None:
    m = from_epochs(2.0)
    assert m.step_seconds == pytest.approx((0.02,))
    assert m.warmup_seconds == ()
    assert "one time is known" in m.message
    assert from_epochs(2.0, includes_first=False).message == ""


def test_epochs_that_do_not_begin_with_the_first_are_all_samples() -> None:
    assert len(from_epochs(1.0, 1.1, 1.2, includes_first=False).step_seconds) == 3


def test_the_last_partial_batch_counts_by_its_size() -> None:
    assert from_epochs(1.0, 105.0, batch_size=100, samples=1050).step_seconds == (10.0,)
    dropped = from_epochs(1.0, 100.0, batch_size=100, samples=1050, config={"drop_last": True})
    assert dropped.step_seconds == (10.0,)
    assert dropped.steps_per_sample == 10
    with pytest.raises(ValueError, match="leaves no batch in 6400 samples"):
        from_epochs(1.0, batch_size=6401, config={"drop_last": True})


def test_steps_instead_of_epochs() -> None:
    m = from_epochs(step_seconds=(0.5, 0.01, 0.012))
    assert m.step_seconds == (0.01, 0.012)
    assert first_steps_seconds(m) == pytest.approx(0.489)
    assert m.steps_per_sample == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "give epoch_seconds or step_seconds"),
        ({"epoch_seconds": (1.0,), "step_seconds": (1.0,)}, "give epoch_seconds or step_seconds"),
        ({"epoch_seconds": (1.0, math.nan)}, "epoch_seconds must be positive, but got nan"),
        ({"epoch_seconds": (1.0, -1.0)}, "epoch_seconds must be positive, but got -1.0"),
        ({"epoch_seconds": (1.0,), "samples": 0}, "samples must be positive, but got 0"),
        ({"epoch_seconds": ("1.0",)}, "epoch_seconds must be a number, but got '1.0'"),
        ({"epoch_seconds": "12"}, "epoch_seconds must be a series of numbers, but got '12'"),
        ({"step_seconds": 0.5}, "step_seconds must be a series of numbers, but got 0.5"),
        ({"epoch_seconds": (True,)}, "epoch_seconds must be a number, but got True"),
        ({"batch_size": 64.5}, "batch_size must be a whole number, but got 64.5"),
        ({"batch_size": True}, "batch_size must be a whole number, but got True"),
        ({"batch_size": np.True_}, "batch_size must be a whole number, but got True"),
        ({"samples": np.float64(0.5)}, "samples must be a whole number, but got 0.5"),
        ({"samples": "many"}, "samples must be a whole number, but got 'many'"),
        ({"sizes": {"width": [1]}}, r"a knob must be a number or a text, but got width=\[1\]"),
        ({"config": {"workers": 1.5}}, "workers must be a whole number, but got 1.5"),
        ({"save_seconds": ("1",)}, "save_seconds must be a number, but got '1'"),
        ({"peak_bytes": "2 GiB"}, "peak_bytes must be a number, but got '2 GiB'"),
        ({"epoch_seconds": (1.0,), "device": "Box 7"}, "kind of device is not clear from 'Box 7'"),
    ],
)
def test_what_cannot_be_is_refused(changes, message) -> None:
    known = {"batch_size": 64, "samples": 6400, "device": "NVIDIA A100"}
    times = {"epoch_seconds", "step_seconds"} & set(changes) or not changes
    known |= {} if times else {"epoch_seconds": (1.0,)}
    with pytest.raises(ValueError, match=message):
        ec.Measurement.from_epochs("cnn", **{**known, **changes})


@pytest.mark.parametrize("times", [np.array, lambda seconds: [np.float64(s) for s in seconds]])
def test_numbers_of_numpy_become_plain(here: Path, times) -> None:
    def measured(number, whole, truth, text, series) -> list[ec.Measurement]:
        return [
            ec.Measurement.from_epochs(
                text("cnn"),
                whole(batch),
                series([12.0, 0.1 * batch, 0.1 * batch]),
                samples=whole(6400),
                device=text("NVIDIA A100"),
                sizes={text("width"): whole(8), "rate": number(0.5), "wide": truth(True)},
                config={"workers": whole(2), "drop_last": truth(True)},
                run=whole(1),
                peak_bytes=whole(10**9),
                eval_samples=whole(100),
                eval_batch_seconds=series([0.1, 0.2]),
                import_seconds=number(2.0),
                created_at="2026-01-01T00:00:00+00:00",
            )
            for batch in (32, 64, 128)
        ]

    found = measured(np.float64, np.int64, np.bool_, np.str_, times)
    assert repr(found) == repr(measured(float, int, bool, str, tuple))
    with Store.open() as store:
        store.add_all(found)
        assert set(store.measurements()) == set(found)
    fit(found).save("model.json")
    assert ec.CostModel.load("model.json") == fit(found)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("NVIDIA A100-SXM4-80GB", "cuda"),
        ("H100 80GB HBM3", "cuda"),
        ("Tesla T4", "cuda"),
        ("GeForce RTX 4090", "cuda"),
        ("AMD Instinct MI250X", "cuda"),
        ("cuda:0", "cuda"),
        ("AMD EPYC 7763", "cpu"),
        ("Intel(R) Xeon(R) CPU @ 2.20GHz", "cpu"),
        ("Apple M2 Max", "mps"),
        ("Apple M2, cpu", "cpu"),
    ],
)
def test_the_kind_of_a_device_is_in_its_name(name, kind) -> None:
    assert device_named(name).kind == kind


def test_a_device_known_by_name_only_is_said_to_be_so() -> None:
    assert device_named("EPYC").label == "EPYC (cpu, torch unknown)"


def test_settings_that_no_run_has_are_named() -> None:
    with pytest.raises(ValueError, match=r"config has accumulation, .* but got foo"):
        from_epochs(1.0, config={"foo": 1})
