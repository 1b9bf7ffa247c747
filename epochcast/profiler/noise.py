"""Squared gradient norms at two batch sizes, for the gradient noise scale.

    train a while │ g₁ g₂ … g_k │ g₁ g₂ … g_k │ …        gradients of micro-batches, weights fixed
                  └ |g_i|² at b ┘
                  └ |mean g|² at B = k·b

The noise scale follows from the means of both (McCandlish et al. 2018, appendix A.1; the formula is
in ``planning/batch.py``). It grows while a model trains: at the first steps every sample pulls the
same way. So some steps are trained before, and how many is recorded.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from epochcast.errors import WorkloadError
from epochcast.profiler.loop import TrainingLoop
from epochcast.profiler.protocol import Task
from epochcast.profiler.timing import Stepper
from epochcast.profiler.trial import ready
from epochcast.records import GradientNoise

MICRO_BATCHES = 16  # of one large batch: the two sizes must differ by much
GROUPS = 24  # large batches: |G|² is a small difference of large numbers
MAX_STEADY_TIMES = 10  # the steady time of a trial, for each of training and gradients


def measure_noise(task: Task) -> GradientNoise:
    """Train a configuration for a while, then take gradients without moving its weights.

    Raises:
        WorkloadError: it has a step of its own, or too few samples for two batch sizes.
    """
    stepper = ready(task)
    loop, batch_size = stepper.loop, stepper.loop.config.batch_size
    if loop.workload.train_step is not None:
        raise WorkloadError(
            "a workload with a train_step of its own shows no gradients; give loss= or forward="
        )
    samples = loop.workload.samples_per_epoch
    count = min(MICRO_BATCHES, samples // batch_size)
    if count < 2:
        raise WorkloadError(
            f"the noise scale needs two batches of {batch_size} from the data set's "
            f"{samples} samples; probe a smaller batch size"
        )
    seconds = MAX_STEADY_TIMES * task.spec.steady_seconds
    steps = _train(stepper, seconds)
    small, large = _norms(loop, stepper.batches(), count, seconds)
    return GradientNoise(
        small_batch=batch_size,
        large_batch=count * batch_size,
        small_norms=tuple(small),
        large_norms=tuple(large),
        trained_steps=steps,
    )


def _train(stepper: Stepper, seconds: float) -> int:
    """Optimizer steps made in so many seconds, one at least."""
    accumulation = stepper.loop.config.accumulation
    end, steps = time.perf_counter() + seconds, 0
    while steps == 0 or time.perf_counter() < end:
        for _ in range(accumulation):
            stepper.step()
        steps += 1
    return steps


def _norms(
    loop: TrainingLoop, batches: Iterator[Any], count: int, seconds: float
) -> tuple[list[float], list[float]]:
    small: list[float] = []
    large: list[float] = []
    end = time.perf_counter() + seconds
    while len(large) < GROUPS and (not large or time.perf_counter() < end):
        total: list[Tensor] = []
        for _ in range(count):
            gradient = _gradient(loop, next(batches))
            small.append(_squared_norm(gradient))
            total = [a + b for a, b in zip(total, gradient, strict=True)] if total else gradient
        large.append(_squared_norm(total) / count**2)
    return small, large


def _gradient(loop: TrainingLoop, batch: Any) -> list[Tensor]:
    """Of the mean loss of one batch, without the gradient scaler: nothing is updated."""
    parameters = [p for p in loop.workload.model.parameters() if p.requires_grad]
    with loop.autocast():
        loss = loop.loss(loop.transfer(batch))
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return [g.detach().float() for g in found if g is not None]


def _squared_norm(gradient: list[Tensor]) -> float:
    return float(torch.stack([g.square().sum() for g in gradient]).sum())
