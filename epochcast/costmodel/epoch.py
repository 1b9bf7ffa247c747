"""How a loader divides an epoch, and what a run of several epochs takes: both equations, once.

    symbol   meaning
    N, D     training samples; devices, each of which sees ⌈N/D⌉, as a distributed sampler pads
    B, k     micro-batch of one device; micro-batches of one update (accumulation)
    r        samples of the last, smaller micro-batch; 0 with drop_last

    ⌈N/D⌉    = full·B + r
    updates  = ⌈(full + [r > 0]) / k⌉
    T_epoch  = full·t(B) + updates·t_update  +  [r > 0]·t(r)  +  T_loader  +  T_fixed
    T_run(E) = T_startup + T_first + E·T_epoch + n_eval·T_eval + n_save·T_save + T_finish

Everything here works on plain numbers and on arrays alike: ``predict`` asks with one configuration
and quantiles, the planner with a hundred thousand candidates or a thousand draws.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from epochcast.costmodel.features import Array
from epochcast.records import RunConfig

Whole = NDArray[np.int64]
Count = TypeVar("Count", int, Whole)
Seconds = float | Array

HOUR = 3600.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Division(Generic[Count]):
    """How one epoch is divided on each device, as a DataLoader does it.

    Attributes:
        full: micro-batches of full size.
        partial: samples in the last, smaller one; 0 if there is none.
        updates: optimizer steps.
    """

    full: Count
    partial: Count
    updates: Count

    @property
    def micro_batches(self) -> Count:
        """Full ones and the last, smaller one."""
        return self.full + (self.partial > 0)

    def full_seconds(self, step: Seconds, update: Seconds) -> Any:
        """Seconds of an epoch's full micro-batches, with all its updates.

        Args:
            step: seconds of one full micro-batch without update.
            update: seconds of one optimizer update.
        """
        return self.full * step + self.updates * update

    def partial_seconds(self, step: Seconds) -> Any:
        """Seconds of the last, smaller micro-batch, if there is one, which takes ``step``."""
        return (self.partial > 0) * step


def divide(
    samples: int, batch_size: Count, accumulation: Count, devices: Count, *, drop_last: bool = False
) -> Division[Count]:
    """Divide an epoch: 50,000 samples at 128 are 391 steps, 390 with drop_last.

    Args:
        samples: of the whole epoch, on all devices together.
        batch_size: samples of a micro-batch on one device.
        accumulation: micro-batches of one optimizer step.
        devices: that share the samples.
        drop_last: whether a last, smaller micro-batch is left out.
    """
    each = -(-samples // devices)
    full = each // batch_size
    partial = each % batch_size * (not drop_last)
    updates = -(-(full + (partial > 0)) // accumulation)
    return Division(full=full, partial=partial, updates=updates)


def division_of(samples: int, config: RunConfig) -> Division[int]:
    """How an epoch is divided in one configuration; drop_last may leave no batch at all."""
    return divide(
        samples,
        config.batch_size,
        config.accumulation,
        config.world_size,
        drop_last=config.drop_last,
    )


def evaluation_of(samples: int, config: RunConfig) -> Division[int]:
    """How the samples of an evaluation are divided, which one device makes alone."""
    return divide(samples, config.evaluated_at_once, 1, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken(Generic[Count]):
    """The first optimizer steps of a run, in the order in which a loader hands out batches.

    Attributes:
        full: micro-batches of full size.
        partial: last, smaller ones of an epoch.
        updates: optimizer steps.
        begun: epochs, the last of them perhaps not to its end.
    """

    full: Count
    partial: Count
    updates: Count
    begun: Count


def taken(division: Division[int], accumulation: int, steps: Count) -> Taken[Count]:
    """What so many optimizer steps consist of: an epoch's smaller batch comes at its end.

    Args:
        division: of an epoch.
        accumulation: micro-batches of one optimizer step.
        steps: optimizer steps, of as many epochs as they take.
    """
    whole, more = steps // division.updates, steps % division.updates
    return Taken(
        full=whole * division.full + np.minimum(more * accumulation, division.full),
        partial=whole * int(division.partial > 0),
        updates=steps,
        begun=whole + (more > 0),
    )


def price_of_a_second(price_per_hour: float, devices: int) -> float:
    """What a second of a run costs: every device is paid for, whatever it does."""
    return price_per_hour * devices / HOUR


@dataclass(frozen=True, slots=True, kw_only=True)
class RunParts:
    """Seconds of the parts of a run; each a number, or an array of draws or quantiles.

    Attributes:
        startup: process start until the first step can begin.
        first_steps: what a process's first steps take beyond steady ones.
        full_batches: one epoch's micro-batches of full size, with all updates.
        partial_batch: one epoch's last, smaller micro-batch.
        loader_restart: from one epoch to the next.
        fixed: what an epoch of a script has beside steps, evaluations and saves.
        evaluation, save: one of each.
        finish: after the last epoch.
    """

    startup: Seconds = 0.0
    first_steps: Seconds = 0.0
    full_batches: Seconds
    partial_batch: Seconds = 0.0
    loader_restart: Seconds = 0.0
    fixed: Seconds = 0.0
    evaluation: Seconds = 0.0
    save: Seconds = 0.0
    finish: Seconds = 0.0

    @property
    def epoch(self) -> Seconds:
        """One steady epoch, evaluation and saves excluded."""
        return self.full_batches + self.partial_batch + self.loader_restart + self.fixed

    def terms(self, epochs: Any, evaluations: Any, saves: Any) -> dict[str, Seconds]:
        """The terms of a run by the names that people see; their sum is the run.

        Args:
            epochs: passes over the data; a number, or an array that broadcasts with the parts.
            evaluations, saves: how many there are in the whole run, likewise.
        """
        return {
            "start-up": self.startup,
            "first steps": self.first_steps,
            "training steps": epochs * self.full_batches,
            "last partial batches": epochs * self.partial_batch,
            "starting epochs": epochs * self.loader_restart,
            "rest of epochs": epochs * self.fixed,
            "evaluation": evaluations * self.evaluation,
            "checkpoints": saves * self.save,
            "after the last epoch": self.finish,
        }

    def total(self, epochs: Any, evaluations: Any, saves: Any) -> Array:
        """Seconds of the whole run.

        Args:
            epochs, evaluations, saves: as of ``terms``, whose sum this is.
        """
        return np.asarray(sum(self.terms(epochs, evaluations, saves).values()))
