"""Probed configurations to show: two model sizes, three batch sizes, one out of memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from epochcast.board.writer import BoardPrediction
from epochcast.records import Device, Quantiles, RunConfig, Summary, make_sizes

DEVICE = Device(kind="cpu", name="Xeon", memory_bytes=8 * 2**30, torch="2.13.0", threads=2)
HOSTILE = "<img src=x onerror=alert(1)> wanted 3 GiB"


def make_summary(batch_size: int, width: int, *, trace: str | None = None) -> Summary:
    """A configuration whose numbers follow from its sizes: 1 ms + 1 µs per sample."""
    step = 1e-3 + batch_size * 1e-6
    return Summary(
        workload="mnist-mlp",
        config=RunConfig(batch_size=batch_size, sizes=make_sizes({"width": width})),
        device=DEVICE,
        status="ok",
        visits=2,
        step_seconds=step,
        step_spread=0.02,
        samples_per_second=batch_size / step,
        peak_bytes=(width + batch_size) * 2**20,
        device_bytes=(400 + width) * 2**20,
        trace=trace,
    )


@pytest.fixture
def summaries() -> list[Summary]:
    """Five good configurations, then a failed one with a message that is HTML."""
    good = [make_summary(b, w) for w in (256, 512) for b in (32, 64, 128)][:-1]
    config = RunConfig(batch_size=128, sizes=make_sizes({"width": 512}))
    failed = Summary(
        workload="mnist-mlp", config=config, device=DEVICE, status="oom", message=HOSTILE
    )
    return [*good, failed]


@pytest.fixture
def predictions(summaries: list[Summary]) -> list[BoardPrediction]:
    """For each good configuration: the step 10 % too long, the memory right."""
    return [
        BoardPrediction(
            config=s.config,
            workload=s.workload,
            measured_step_seconds=s.step_seconds,
            predicted_step_seconds=_around(1.1 * s.step_seconds),
            measured_peak_bytes=s.peak_bytes,
            predicted_peak_bytes=_around(s.peak_bytes),
        )
        for s in summaries
        if s.step_seconds is not None and s.peak_bytes is not None
    ]


def _around(value: float) -> Quantiles:
    return Quantiles(p10=0.95 * value, p50=value, p90=1.05 * value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A log folder that does not exist yet."""
    return tmp_path / "tensorboard"
