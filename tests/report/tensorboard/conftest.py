"""Probed configurations to show: two model sizes, three batch sizes, one out of memory."""

from __future__ import annotations

from pathlib import Path

import pytest
from board_records import DEVICE, HOSTILE, make_summary

from epochcast.records import Quantiles, RunConfig, Summary, make_sizes
from epochcast.report.plots.probed import ProbedPrediction


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
def predictions(summaries: list[Summary]) -> list[ProbedPrediction]:
    """For each good configuration: the step 10 % too long, the memory right."""
    return [
        ProbedPrediction(
            config=s.config,
            workload=s.workload,
            device=s.device,
            measured_step_seconds=s.step_seconds,
            predicted_step_seconds=_around(1.1 * s.step_seconds),
            measured_peak_bytes=s.peak_bytes,
            predicted_peak_bytes=_around(s.peak_bytes),
        )
        for s in summaries
        if s.step_seconds is not None and s.peak_bytes is not None
    ]


def _around(value: float) -> Quantiles:
    return Quantiles(
        p05=0.9 * value, p10=0.95 * value, p50=value, p90=1.05 * value, p95=1.1 * value
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A log folder that does not exist yet."""
    return tmp_path / "tensorboard"
