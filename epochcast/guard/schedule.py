"""Where a run evaluates, saves and ends: as planned, as long as it goes as planned.

The end moves down when the plan's end no longer fits well enough, and up again, never beyond the
plan, when clearly more fits: a band around the confidence keeps it from moving with every epoch.
After a jump of the pace there is no band. Saves keep the plan's epochs while epochs and saves
take about what was planned, and an interval in seconds when they do not.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import log

from epochcast.records import Plan

BAND = 0.05  # of probability, below the confidence, in which the end stays
GROWTH = 0.05  # of the plan's epochs, that must be gained for the end to move up
AS_PLANNED = log(1.25)  # how far pace and interval may be off for the planned epochs to hold


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """After which epochs something is to happen, counted from 1.

    Attributes:
        planned_end: as in the plan.
        end: as planned now.
        evaluations, saves: in increasing order; the end is among them if there are any.
        save_interval: seconds of work between two saves; None if saves are not for safety.
    """

    planned_end: int
    end: int
    evaluations: tuple[int, ...]
    saves: tuple[int, ...]
    save_interval: float | None

    @classmethod
    def of_plan(cls, plan: Plan) -> Schedule:
        """As it was planned."""
        return cls(
            planned_end=plan.chosen.epochs,
            end=plan.chosen.epochs,
            evaluations=plan.epochs_of("evaluate"),
            saves=plan.epochs_of("save"),
            save_interval=plan.save_interval_seconds,
        )

    def evaluates(self, epoch: int) -> bool:
        """Whether an evaluation is planned after this epoch."""
        return _among(self.evaluations, epoch) or (bool(self.evaluations) and epoch == self.end)

    def saves_at(
        self, epoch: int, since_save: float, epoch_seconds: float, pace: float, interval: float
    ) -> bool:
        """Whether a save is planned after this epoch.

        Args:
            since_save: seconds of work that a failure now would lose.
            epoch_seconds: that the next epoch takes.
            pace: actual over planned time of an epoch.
            interval: seconds of work between saves, as planned by what a save takes in this run.
        """
        if epoch == self.end:
            return True
        if self.save_interval is None or _alike(pace, interval / self.save_interval):
            return _among(self.saves, epoch)
        return since_save + epoch_seconds / 2 >= interval

    def evaluations_between(self, done: int, end: int) -> int:
        """Planned after epoch ``done``, up to and including ``end``."""
        return _between(self.evaluations, done, end)

    def saves_between(self, done: int, end: int) -> int:
        """Planned after epoch ``done``, up to and including ``end``."""
        return max(_between(self.saves, done, end), int(end > done))

    def replanned(
        self, done: int, probability: Callable[[int], float], confidence: float, jumped: bool
    ) -> Schedule:
        """The schedule with the end where it should be now.

        Args:
            done: whole epochs done.
            probability: that a run to the end of an epoch keeps all limits; falls with the epoch.
            jumped: whether the pace has just changed for good.
        """
        band = 0.0 if jumped else BAND
        if self.end > done and probability(self.end) < confidence - band:
            return replace(self, end=last_that_fits(done, self.end, probability, confidence))
        if self.end < self.planned_end:
            most = last_that_fits(self.end, self.planned_end, probability, confidence)
            if most - self.end >= max(1.0, GROWTH * self.planned_end):
                return replace(self, end=most)
        return self


def last_that_fits(
    fits: int, fails: int, probability: Callable[[int], float], confidence: float
) -> int:
    """The largest end from ``fits``, which is taken to fit, up to ``fails``."""
    if probability(fails) >= confidence:
        return fails
    while fails - fits > 1:
        middle = (fits + fails) // 2
        if probability(middle) >= confidence:
            fits = middle
        else:
            fails = middle
    return fits


def _alike(*ratios: float) -> bool:
    return all(ratio > 0 and abs(log(ratio)) < AS_PLANNED for ratio in ratios)


def _among(epochs: tuple[int, ...], epoch: int) -> bool:
    i = bisect_left(epochs, epoch)
    return i < len(epochs) and epochs[i] == epoch


def _between(epochs: tuple[int, ...], done: int, end: int) -> int:
    """With one more at an end that is not among them."""
    count = bisect_right(epochs, end) - bisect_right(epochs, done)
    return count + int(bool(epochs) and end > done and not _among(epochs, end))
