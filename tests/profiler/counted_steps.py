"""Steps that are run for real and counted, and the same ones of fake tensors."""

from __future__ import annotations

from dataclasses import replace
from itertools import repeat

import torch
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import TensorDataset

from epochcast.profiler.device import HostTimer
from epochcast.profiler.footprint.dry_run import simulate
from epochcast.profiler.footprint.tracker import measure_footprint, track_step, with_evaluation
from epochcast.profiler.loop import TrainingLoop, config_of, largest_eval_batch
from epochcast.profiler.workload import Workload


def loop_of(model, inputs, targets, *, loss=functional.mse_loss, optimizer=None, accumulation=1):
    """A loop over batches of all the samples given, after the two updates a probe makes first."""
    torch.manual_seed(0)
    workload = Workload(
        model=model,
        train_data=TensorDataset(inputs, targets),
        optimizer=optimizer or torch.optim.SGD(model.parameters(), lr=1e-3),
        loss=loss,
        batch_size=len(inputs),
        accumulation=accumulation,
    )
    loop = TrainingLoop(workload, config_of(workload, None, ()), torch.device("cpu"))
    for batch in [(inputs, targets)] * (2 * accumulation):
        loop.micro_step(batch, HostTimer())
    return loop


def footprint_of(model, inputs, targets, **options):
    loop = loop_of(model, inputs, targets, **options)
    footprint = measure_footprint(loop, repeat((inputs, targets)))
    assert footprint is not None
    return footprint


def real_footprint(build, batch_size=None, updates=2):
    """Of the same step run for real, after the two updates that a probe makes first, or more."""
    workload = build()
    loop = TrainingLoop(workload, config_of(workload, batch_size, ()), torch.device("cpu"))
    first = next(iter(loop.train_loader()))
    for _ in range(updates):
        for _ in range(loop.config.accumulation):
            loop.backward(first)
        loop.update()
    footprint = track_step(loop, loop.train_loader(), timeline=True)
    return with_evaluation(footprint, loop, largest_eval_batch(loop))


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


def workload_of(model, *, loss=functional.cross_entropy, optimizer=None, data=None, **options):
    """Four features to three classes, eight samples, in batches of four."""
    inputs = torch.linspace(0, 1, 32).view(8, 4) if data is None else data
    return Workload(
        model=model,
        train_data=TensorDataset(inputs, torch.arange(8) % 3),
        optimizer=optimizer or torch.optim.Adam(model.parameters()),
        loss=loss,
        batch_size=4,
        shuffle=False,
        **options,
    )


def counted(build, *batch_sizes, **options):
    found = simulate(build, batch_sizes or (None,), timeline=True, **options)
    return [c.footprint for c in found] if len(found) > 1 else found[0].footprint


def memory_events(function):
    """Bytes of each allocation (positive) and release (negative), in order of time."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        function()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    return [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]


def largest_sum(changes):
    total = largest = 0
    for change in changes:
        total += change
        largest = max(largest, total)
    return largest
