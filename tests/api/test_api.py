"""The library snippet of the README, and targets made from functions."""

from pathlib import Path

import pytest

import epochcast as ec
from epochcast.errors import UsageError
from epochcast.profiler.target import target_of


def test_the_library_snippet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``ec.probe`` → ``ec.fit`` → ``predict``, as in the README, in small."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    measurements = ec.probe(
        "mnist-mlp",
        batch_sizes=(32, 64),
        sizes={"width": (16, 32)},
        rounds=1,
        seconds=0.05,
        traces=False,
    )
    assert [m.status for m in measurements] == ["ok"] * 4
    model = ec.fit(measurements)
    estimate = model.predict(epochs=90, batch_size=48, width=24)
    assert 0 < estimate.total_seconds.p50 < estimate.total_seconds.p90
    assert estimate.peak_bytes is not None
    assert estimate.peak_bytes.p90 > 3 * 4 * 24 * 784  # weights, gradients, RMSprop's state
    assert (tmp_path / ".epochcast" / "measurements.sqlite").is_file()


def workload_function() -> None:
    """Stands for a user's own."""


def test_functions_are_named_for_worker_processes() -> None:
    assert target_of(workload_function) == f"{__name__}:workload_function"
    assert target_of("./a/../train.py:workload") == "train.py:workload"
    with pytest.raises(UsageError, match="top level"):
        target_of(lambda: None)
