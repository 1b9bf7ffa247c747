"""Summaries made by hand for the tests of this folder."""

from __future__ import annotations

from epochcast.records import Device, RunConfig, Summary, make_sizes

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
        trials=2,
        step_seconds=step,
        step_spread=0.02,
        samples_per_second=batch_size / step,
        peak_bytes=(width + batch_size) * 2**20,
        device_bytes=(400 + width) * 2**20,
        trace=trace,
    )
