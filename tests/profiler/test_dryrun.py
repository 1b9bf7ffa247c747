"""A dry run counts what the real step counts: every field, and every allocation in its order."""

from __future__ import annotations

from dataclasses import replace

import torch
from hypothesis import given, settings
from random_workloads import workloads

from epochcast.profiler.dryrun import simulate
from epochcast.profiler.loop import TrainingLoop, config_of
from epochcast.profiler.tracker import track_step


def real_footprint(build, batch_size=None):
    """Of the same step run for real, after the two updates that a probe makes first."""
    workload = build()
    loop = TrainingLoop(workload, config_of(workload, batch_size, ()), torch.device("cpu"))
    first = next(iter(loop.train_loader()))
    for _ in range(2):
        for _ in range(loop.config.accumulation):
            loop.backward(first)
        loop.update()
    return track_step(loop, loop.train_loader(), timeline=True)


def history(timeline):
    """Allocations in their order; what is freed at one moment has no order."""
    moments, freed = [], []
    for event in timeline.events:
        if event < 0:
            freed.append(event)
        else:
            moments += [sorted(freed), event]
            freed = []
    return [*moments, sorted(freed)]


def assert_same(fake, real):
    assert replace(fake, timeline=None) == replace(real, timeline=None)
    assert history(fake.timeline) == history(real.timeline)
    for name in ("block_bytes", "block_kinds", "block_modules", "modules", "operators"):
        assert getattr(fake.timeline, name) == getattr(real.timeline, name), name
    assert fake.timeline.peak_bytes() == fake.peak_bytes


@given(drawn=workloads())
@settings(max_examples=60, deadline=None)
def test_random_modules(drawn):
    (counted,) = simulate(drawn.build, timeline=True)
    assert_same(counted.footprint, real_footprint(drawn.build))
