"""What the parts of one configuration's run cost: what planning and the guard reckon with."""

from __future__ import annotations

from dataclasses import dataclass
from math import hypot, sqrt

from epochcast.costmodel.scatter import KNOWN_DOF, NO_COST, NOTHING, Amount, Scatter

EPOCH_NOISE_CAP = 0.5  # of one epoch, relative: more is not noise but a broken measurement


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """What the parts of one configuration's run cost.

    Attributes:
        startup: process start until the user's code is loaded.
        build: building model, data and optimizer.
        first: what the first steps take beyond steady ones.
        training: the steps of one epoch.
        partial_seconds: of them, the last, smaller micro-batch.
        update_seconds: of them, one optimizer update.
        loader_restart: from one epoch to the next.
        fixed: what an epoch of a script has beside steps, evaluations and saves.
        evaluation, save: one of each.
        finish: after the last epoch.
        epoch_noise: relative scatter of one epoch around its run's mean.
        noise_dof: degrees of freedom with which that is known.
        mean_error: of the epochs that were measured, by that noise alone.
        save_bytes: of one checkpoint; None if unknown.
        device_bytes: that the device must have; None if unknown.
    """

    startup: Amount = NO_COST
    build: Amount = NO_COST
    first: Amount = NO_COST
    training: Amount
    partial_seconds: float = 0.0
    update_seconds: float = 0.0
    loader_restart: Amount = NO_COST
    fixed: Amount = NO_COST
    evaluation: Amount = NO_COST
    save: Amount = NO_COST
    finish: Amount = NO_COST
    epoch_noise: float = 0.0
    noise_dof: float = KNOWN_DOF
    mean_error: Scatter = NOTHING
    save_bytes: float | None = None
    device_bytes: Amount | None = None

    def training_scatter(self, epochs: float) -> Scatter:
        """Of the mean of so many epochs of a run.

        Rounds may be alike by chance, but the mean of n epochs is no better known than their noise
        lets it be, and then both errors come of one source, with its few degrees of freedom:
        t·s·√(1/n + 1/m) of m further ones (Hahn & Meeker 1991, "Statistical intervals", 4.7).
        """
        own = Scatter(sd=self.epoch_noise / sqrt(epochs), dof=self.noise_dof)
        alike = Scatter(sd=hypot(own.sd, self.mean_error.sd), dof=self.noise_dof)
        return (self.training.scatter + own).or_wider(alike)

    @property
    def ready_seconds(self) -> float:
        """Process start until the first step can begin; median."""
        return self.startup.median + self.build.median

    @property
    def epoch_seconds(self) -> float:
        """One steady epoch, evaluation and saves excluded; median."""
        return self.training.median + self.loader_restart.median + self.fixed.median
