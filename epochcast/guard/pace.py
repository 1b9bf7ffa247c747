"""What the rest of a run takes, from its plan and from what was seen of it so far.

One run is slow or fast in all its parts, so quantiles of the parts add up (comonotone; Dhaene et
al. 2002), as they do in the plan. The first epoch of a process has its slow first steps on top and
teaches nothing about the others.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from epochcast.guard.level import Level
from epochcast.records import Quantiles, UnitPrices

HALVINGS = 12  # of the interval in which a probability lies: known to 0.03 %
CERTAIN = 1e-4  # probabilities closer to 0 or 1 are not told apart


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is still to be done, or part of it.

    Attributes:
        epochs: steady ones; a part of one counts as such.
        first: whether the slow first steps of a process are to come.
    """

    epochs: float = 0.0
    evaluations: float = 0.0
    saves: float = 0.0
    first: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """The parts of a run: each as planned, moved by what was seen."""

    epoch: Level
    evaluation: Level
    save: Level
    first_steps: Quantiles

    @classmethod
    def of_plan(cls, prices: UnitPrices) -> Pace:
        """Before the run."""
        return cls(
            epoch=Level.of_plan(prices.epoch, prices.epoch_noise),
            evaluation=Level.of_plan(prices.evaluation, prices.epoch_noise),
            save=Level.of_plan(prices.save, prices.epoch_noise),
            first_steps=prices.first_steps,
        )

    def saw(self, kind: str, seconds: float) -> Pace:
        """Having seen one more ``"epoch"`` (a steady one), ``"evaluation"`` or ``"save"``."""
        level: Level = getattr(self, kind)
        return replace(self, **{kind: level.update(seconds)})  # type: ignore[arg-type]

    def seconds(self, work: Work, p: float) -> float:
        """Of the work, at probability ``p``."""
        parts = (
            self.epoch.quantile(work.epochs, p),
            self.evaluation.quantile(work.evaluations, p),
            self.save.quantile(work.saves, p),
            _at(self.first_steps, p) if work.first else 0.0,
        )
        return sum(parts)

    def quantiles(self, work: Work) -> Quantiles:
        """Of the work, in seconds."""
        p05, p10, p50, p90, p95 = (self.seconds(work, p) for p in (0.05, 0.1, 0.5, 0.9, 0.95))
        return Quantiles(p05=p05, p10=p10, p50=p50, p90=p90, p95=p95)

    def probability(self, work: Work, left: float) -> float:
        """That the work takes no more than ``left`` seconds."""
        low, high = CERTAIN, 1 - CERTAIN
        if self.seconds(work, low) > left:
            return 0.0
        if self.seconds(work, high) <= left:
            return 1.0
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            fits = self.seconds(work, middle) <= left
            low, high = (middle, high) if fits else (low, middle)
        return low


def _at(quantiles: Quantiles, p: float) -> float:
    """A quantile between or beyond the known ones: the nearest on the safe side."""
    known = ((0.5, quantiles.p50), (0.9, quantiles.p90), (0.95, quantiles.p95))
    return next((value for at, value in known if p <= at), quantiles.p95)
