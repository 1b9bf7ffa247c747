"""How many epochs limits allow, draw by draw.

    E_q = largest E with P(time + reserve ≤ deadline, money, energy, disk all hold) ≥ q

A limit of money or energy is a limit of time, because both are proportional to it. In each draw
the largest number of epochs that fits under each limit is found by bisection (time grows with
epochs); what fits under all is the smallest of them; E_q is then an order statistic. So more
budget never gives fewer epochs, higher confidence never more, and the joint probability is never
above the smallest marginal, exactly and not only on average.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from epochcast.costmodel.features import Array
from epochcast.planning.cadence import Cadence, Epochs
from epochcast.planning.draws import RunDraws
from epochcast.records import Budget, LimitName

MOST_EPOCHS = 100_000  # where the search ends, unless more epochs are asked for
ROUNDING = 1e-9  # relative: a limit met exactly is met
HOUR, KWH = 3600.0, 3.6e6  # seconds, joules


@dataclass(frozen=True, slots=True)
class Spending:
    """One configuration's run with its cadences, under a budget.

    Attributes:
        devices: that are paid and powered.
        reserve_seconds: kept before the deadline for the last save.
        save_bytes: of one checkpoint; 0 if unknown.
        most_saves: that are on disk, however many are paid for; None for all that ``keep`` leaves.
        keep: checkpoints on disk at once; 0 keeps all.
    """

    run: RunDraws
    evaluate: Cadence
    save: Cadence
    budget: Budget
    devices: int = 1
    reserve_seconds: float = 0.0
    save_bytes: float = 0.0
    keep: int = 0
    most_saves: int | None = None

    def seconds(self, epochs: Epochs) -> Array:
        """Of the run, shape (S,)."""
        return self.run.seconds(epochs, self.evaluate, self.save)

    def money(self, seconds: Array) -> Array:
        """That a run of so many seconds costs, with what was spent before."""
        price = self.budget.price_per_hour or 0.0
        paid = seconds + self.budget.spent_seconds
        return self.budget.fixed_cost + price * self.devices * paid / HOUR

    def watts(self) -> Array:
        """Of all devices, in each draw."""
        spread = 1 + self.budget.watts_spread * self.run.shared.power
        return np.asarray((self.budget.watts or 0.0) * self.devices * np.maximum(spread, 0.0))

    def joules(self, seconds: Array) -> Array:
        """That a run of so many seconds uses, with what was used before."""
        return self.watts() * (seconds + self.budget.spent_seconds)

    def disk_bytes(self, epochs: Epochs) -> Array:
        """For checkpoints, one that is being written included."""
        saves = self.save.count(epochs)
        held = saves if self.keep == 0 else np.minimum(saves, self.keep + 1)
        if self.most_saves is not None:
            held = np.minimum(held, self.most_saves)
        return np.asarray(self.run.folds * held * self.save_bytes)

    def limits(self) -> dict[LimitName, float]:
        """Those that are set and depend on the epochs."""
        names: tuple[LimitName, ...] = ("deadline", "money", "energy", "disk")
        known = {name: getattr(self.budget, name) for name in names}
        return {name: limit for name, limit in known.items() if limit is not None}

    def used(self, name: LimitName, epochs: Epochs) -> Array:
        """Of a limit, by a run of so many epochs in each draw, in the limit's unit."""
        if name == "disk":
            return self.disk_bytes(epochs)
        seconds = self.seconds(epochs)
        if name == "money":
            return self.money(seconds)
        if name == "energy":
            return self.joules(seconds)
        return np.asarray(seconds + self.reserve_seconds + self.budget.spent_seconds)

    def affordable(self, most: int = MOST_EPOCHS) -> dict[LimitName, Epochs]:
        """The largest number of epochs that each limit allows in each draw, up to ``most``."""
        return {name: self._affordable(name, limit, most) for name, limit in self.limits().items()}

    def _affordable(self, name: LimitName, limit: float, most: int) -> Epochs:
        fits = np.zeros(len(self.run.once), dtype=np.int64)
        fails = np.full_like(fits, most + 1)
        while np.any(fails - fits > 1):
            middle = (fits + fails) // 2
            holds = self.used(name, middle) <= limit * (1 + ROUNDING)
            fits, fails = np.where(holds, middle, fits), np.where(holds, fails, middle)
        return np.asarray(fits)


def guaranteed(epochs: Epochs, confidence: float) -> int:
    """The most epochs that fit in a share ``confidence`` of the draws."""
    position = int(len(epochs) * (1 - confidence) + ROUNDING)
    return int(np.sort(epochs)[position])


def joint(affordable: dict[LimitName, Epochs], most: int, draws: int) -> Epochs:
    """What all limits together allow in each draw."""
    everything = np.full(draws, most, dtype=np.int64)
    return np.asarray(np.minimum.reduce([everything, *affordable.values()]))


def upper_quantile(samples: Array, confidence: float) -> float:
    """The smallest value that a share ``confidence`` of the draws does not exceed."""
    return float(np.quantile(samples, confidence, method="inverted_cdf"))
