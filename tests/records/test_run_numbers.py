"""Runs measured elsewhere have numbers of their own, or one would stand for the other."""

from pathlib import Path

import pytest

import epochcast as ec


def run_of(seconds: float, run: int) -> ec.Measurement:
    times = [1.5 * seconds, seconds, seconds, seconds]
    return ec.Measurement.from_epochs(
        "w", 32, times, samples=6400, device="NVIDIA A100", run=run, created_at="2026-01-01T00:00Z"
    )


def test_two_runs_of_one_number_are_refused_by_fits_and_stores(tmp_path: Path) -> None:
    """Eight and twelve seconds gave ± 6 %, and a store kept one of the two, without a word."""
    runs = [run_of(8.0, 0), run_of(12.0, 0)]
    with pytest.raises(ec.EpochcastError, match="batch_size=32 are both run 0: give each its own"):
        ec.fit(runs)
    with ec.Store.open(str(tmp_path / "store.sqlite")) as store:
        with pytest.raises(ec.EpochcastError, match="both run 0"):
            store.add_all(runs)
        assert store.measurements() == ()


def test_numbered_runs_and_the_same_one_twice_are_taken(tmp_path: Path) -> None:
    runs = [run_of(8.0, 0), run_of(12.0, 1), run_of(8.0, 0)]
    assert ec.fit(runs).predict(epochs=1, batch_size=32).epoch_seconds.p50 > 0
    with ec.Store.open(str(tmp_path / "store.sqlite")) as store:
        store.add_all(runs)
        assert len(store.measurements()) == 2
