"""Go on, cut or stop: functions of where a run stands; no clock, no disk.

left      seconds until the first limit is used up
reserve   of these, what the last save needs
segment   the next epoch, with its evaluation if one is planned
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from epochcast.guard.pace import Pace, Work
from epochcast.guard.schedule import Schedule, last_that_fits
from epochcast.records import Quantiles

MOST_STEPS = 10**9  # without any limit, as many as there are
Move = Literal["epoch", "steps", "done", "stop"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """Where a run stands at the end of an epoch, or before its first.

    Attributes:
        done: whole epochs.
        first: whether the next epoch is the first of its process.
        first_bound: seconds that the next step is not expected to exceed, and
        step_bound: each of those that follow; the first one of an epoch waits for the loader.
        improving: share of the evaluations to come that are expected to be the best so far, each
            with a save of its own.
    """

    pace: Pace
    schedule: Schedule
    done: int
    first: bool
    left: float
    reserve: float
    confidence: float
    first_bound: float
    step_bound: float
    improving: float = 0.0

    def epoch(self) -> Quantiles:
        """Seconds of the next one, evaluation and saves excluded."""
        return self.pace.quantiles(Work(epochs=1.0, first=self.first))

    def segment(self) -> Work:
        """The next epoch and its evaluation; its save is what the reserve is for."""
        evaluates = self.schedule.evaluates(self.done + 1)
        return Work(epochs=1.0, evaluations=float(evaluates), first=self.first)

    def rest(self, end: int) -> Work:
        """Everything up to the end of an epoch, the last save included."""
        if end <= self.done:
            return Work()
        evaluations = self.schedule.evaluations_between(self.done, end)
        saves = self.schedule.saves_between(self.done, end)
        of_bests = self.improving * max(0, evaluations - saves)
        return Work(
            epochs=end - self.done,
            evaluations=evaluations,
            saves=saves + of_bests,
            first=self.first,
        )

    def probability(self, end: int) -> float:
        """That a run to the end of an epoch keeps all limits."""
        return self.pace.probability(self.rest(end), self.left)

    def steps_that_fit(self) -> int:
        """Before the last save must begin."""
        room = self.left - self.reserve - self.first_bound
        return 0 if room < 0 else 1 + int(min(room / self.step_bound, MOST_STEPS))

    def replanned(self, jumped: bool) -> Schedule:
        """The schedule, with its end where it should be now."""
        return self.schedule.replanned(self.done, self.probability, self.confidence, jumped)


def next_move(here: Situation, partial_epochs: bool) -> tuple[Move, Schedule]:
    """What to do next, and the schedule by which.

    Args:
        partial_epochs: whether steps may be taken where no whole epoch fits.

    Returns:
        ``"epoch"`` where the next segment fits with the confidence; ``"steps"`` where only some
        steps of it do; ``"done"`` after the plan's last epoch; ``"stop"`` where nothing fits.
    """
    schedule = here.schedule
    if here.done >= schedule.planned_end:
        return "done", schedule
    if here.done >= schedule.end:  # a shorter end was reached: is there time to spare after all?
        most, confidence = schedule.planned_end, here.confidence
        end = last_that_fits(here.done + 1, most, here.probability, confidence)
        schedule = replace(schedule, end=end)
        here = replace(here, schedule=schedule)
    needed = here.pace.seconds(here.segment(), here.confidence)
    if needed + here.reserve <= here.left:
        return "epoch", schedule
    if partial_epochs and here.steps_that_fit() >= 1:
        return "steps", schedule
    return "stop", schedule
