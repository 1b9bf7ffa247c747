"""The course of one run: what comes next, by deciding.py, and what people should know of that.

plan, books, time, timers, keeper ──▶ Situation ──▶ begin? evaluate? save? another end?
"""

from __future__ import annotations

from dataclasses import dataclass, field

from epochcast.guard.books import Books
from epochcast.guard.deciding import Situation, next_move
from epochcast.guard.keeping import Keeper
from epochcast.guard.ledger import is_over
from epochcast.guard.options import Options
from epochcast.guard.progress import Progress
from epochcast.guard.schedule import Schedule, last_that_fits
from epochcast.guard.signals import Signals
from epochcast.guard.stepping import StepTimers
from epochcast.guard.telling import Teller
from epochcast.guard.timekeeping import Timekeeper
from epochcast.planning.checkpoints import save_interval
from epochcast.records import Plan, StopReason


@dataclass(slots=True, kw_only=True)
class Course:
    """Of one run, in one process of it; every ``now`` is in monotonic seconds.

    Attributes:
        schedule: as planned now.
    """

    plan: Plan
    options: Options
    books: Books
    time: Timekeeper
    progress: Progress
    timers: StepTimers
    keeper: Keeper
    signals: Signals
    teller: Teller
    schedule: Schedule = field(init=False)

    def __post_init__(self) -> None:
        self.schedule = Schedule.of_plan(self.plan)

    def situation(self, now: float) -> Situation:
        """Where the run stands."""
        state, first = self.books.state, self.progress.first
        improving = (state.improvements + 1) / (state.checks + 2)  # Laplace's rule of succession
        return Situation(
            pace=self.books.ledger.pace,
            schedule=self.schedule,
            done=self.progress.epoch,
            first=first,
            left=self.time.left(now),
            reserve=self._reserve(now),
            confidence=self.plan.budget.confidence,
            first_bound=self.timers.first_bound(first),
            step_bound=self.timers.steady.bound,
            improving=improving if self.options.keep_best else 0.0,
        )

    def over_already(self, now: float) -> StopReason | None:
        """Why an earlier process ended the run for good; None where it goes on."""
        reason, here = self.books.ledger.reason, self.situation(now)
        more = self.progress.epoch < self.schedule.planned_end
        return reason if is_over(reason, more, more and here.steps_that_fit() > 0) else None

    def why_not_begin(self, now: float) -> StopReason | None:
        """Why no further epoch, or part of one, is to be trained; None where one is."""
        if self.signals.received is not None:
            return StopReason.SIGNAL
        here, at = self.situation(now), self.progress
        move, self.schedule = next_move(here, self.options.partial_epochs)
        if move == "steps":
            of = at.seen_steps or at.planned_steps
            self.teller.note("cut", steps=str(min(of, here.steps_that_fit())), of=str(of))
        return {"done": StopReason.PLAN_DONE, "stop": StopReason.BUDGET}.get(move)

    def why_end(self) -> StopReason | None:
        """Why an epoch was the last one, however much time is left; None where it need not be."""
        if self.signals.received is not None:
            return StopReason.SIGNAL
        done = self.progress.epoch >= self.schedule.planned_end
        return StopReason.PLAN_DONE if done else None

    def replan(self, now: float, jumped: bool = False) -> None:
        """Move the end to where it should be now."""
        old = self.schedule.end
        self.schedule = self.situation(now).replanned(jumped)
        new = self.schedule.end
        if new == old:
            return
        self.teller.note("replanned", old=str(old), new=str(new), why=_why(new < old, jumped))
        if new < old:
            steps = new * self.plan.chosen.steps_per_epoch
            horizon = self.plan.chosen.horizon_steps
            self.teller.note("schedule-shortened", steps=f"{steps:,}", horizon=f"{horizon:,}")

    def offer_more(self, now: float) -> None:
        """After the plan's end: whether more of what was wanted would fit now."""
        wanted = self.plan.chosen.target_epochs or self.plan.maximum_epochs or 0
        done = self.progress.epoch
        if wanted > done:
            here = self.situation(now)
            most = last_that_fits(done, wanted, here.probability, here.confidence)
            if most > done:
                self.teller.note("could-continue", epochs=str(most - done))

    def evaluation_is_due(self, now: float) -> bool:
        """Whether one is planned after the present epoch, and fits."""
        return self.schedule.evaluates(self.progress.epoch + 1) and self.evaluation_fits(now)

    def evaluation_fits(self, now: float) -> bool:
        """Whether there is time for one before the last save must begin."""
        bound = self.time.evaluation_bound(self.books.ledger.pace)
        fits = bound + self._reserve(now) <= self.time.left(now)
        if not fits:
            self.teller.note("evaluation-skipped", epoch=str(self.progress.epoch + 1))
        return fits

    def save_is_planned(self, now: float, epoch: int) -> bool:
        """Whether one is planned after this epoch, as long as it goes as planned."""
        pace = self.books.ledger.pace
        interval = save_interval(pace.save.median, self.plan.mtbf_seconds)
        return self.schedule.saves_at(
            epoch, now - self.keeper.at, pace.epoch.median, pace.epoch.ratio, interval
        )

    def last_save_at(self, now: float) -> float:
        """When the last save must begin."""
        return now + self.time.left(now) - self._reserve(now)

    def _reserve(self, now: float) -> float:
        """Seconds before the limit at which the last save must begin."""
        return self.time.reserve(self.books.ledger.pace, now - self.keeper.at)


def _why(shorter: bool, jumped: bool) -> str:
    if jumped:
        return "the time of an epoch has jumped"
    return "it takes more time than planned" if shorter else "there is time to spare again"
