"""The guard: what follows one run from its first step to its last checkpoint.

                     begin_epoch                        may the next segment begin?
    elapsed ──┬──────────┬─────────────────────┬───────────────┬──────────────▶ limit
              │  step … step                   │ evaluation    │ last save    │
              │  each: now + bound < limit − reserve           │◀── reserve ─▶│

At an epoch's end the next segment (epoch, evaluation if one is planned, save) must fit into what is
left with the plan's confidence (course.py); where it does not, as many steps are taken as fit.
At every step, the bound of the next one must end before the last save has to begin: one comparison.

All processes of a run call the same methods; the first one decides for all (ranks.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from epochcast.guard import lines
from epochcast.guard.archive import CONTENT
from epochcast.guard.bookkeeping import Bookkeeper
from epochcast.guard.books import Books, Write
from epochcast.guard.checking import Checks
from epochcast.guard.clock import Clock, SystemClock
from epochcast.guard.course import Course
from epochcast.guard.keeping import Keeper
from epochcast.guard.limits import Allocation
from epochcast.guard.options import Options
from epochcast.guard.progress import Progress
from epochcast.guard.ranks import Alone, Ranks, agree, agree_flag
from epochcast.guard.remarks import Remarks
from epochcast.guard.signals import Signals, name_of
from epochcast.guard.stepping import StepTimers, planned_steps
from epochcast.guard.telling import Teller, Watcher
from epochcast.guard.timekeeping import Timekeeper
from epochcast.guard.watching import EpochWatch
from epochcast.records import Action, EpochDone, Plan, Position, RunEvent, StopReason

AGREE_SECONDS = 0.25  # between agreements of several processes: well inside a grace of 2 s


class Guard:
    """Follows one run; ``integrations/`` calls it from a plain loop and from frameworks.

    Args:
        plan: what to follow.
        folder: of this run: its ledger and checkpoints; the same one to go on after a stop.
        write: writes a checkpoint to the path that it is given, a file or a folder.
        allocation: when the scheduler ends this job.
        watchers: whom to tell what happens.
        signals: that ask the run to leave.
        ranks: the processes that train together.
        began: when this process began, seconds since 1970; default: now.

    Attributes:
        reason: why the run stops; None while it goes on.
        resumed_step: of the epoch in which the run goes on; see ``skip``.
        checkpoint: what to go on from; None where the run begins.

    Raises:
        UsageError: the folder belongs to a run of another workload.
        StoreError: what is in the folder cannot be read.
    """

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        write: Write,
        *,
        options: Options | None = None,
        allocation: Allocation | None = None,
        watchers: Sequence[Watcher] = (),
        signals: Signals | None = None,
        ranks: Ranks | None = None,
        clock: Clock | None = None,
        began: float | None = None,
    ) -> None:
        self.plan = plan
        self.options = options or Options()
        self.ranks = ranks or Alone()
        self.signals = signals or Signals(())
        self.reason: StopReason | None = None
        self._clock = clock or SystemClock()
        self._alone, self._decides = self.ranks.size == 1, self.ranks.rank == 0
        self._time = Timekeeper(plan, self._clock, began, allocation or Allocation())
        self.books = Books(folder, plan, self._time.began, owner=self._decides)
        self._time.count_from(self.books.ledger.began_at, self.books.spent_before)
        self._take_up(write, watchers if self._decides else ())

    def _take_up(self, write: Write, watchers: Sequence[Watcher]) -> None:
        """Go on from the newest checkpoint, all processes alike."""
        plan, at, time = self.plan, self.books.position, self._time
        epoch, step, steps = self.ranks.most([at.epoch, at.step, at.steps])
        planned = planned_steps(plan, self.options.per_update)
        self._progress = Progress(epoch, step, steps, planned)
        self._timers = StepTimers.of_plan(plan, planned)
        self.resumed_step = step
        self.checkpoint = self.books.checkpoint(self.ranks)
        self._watch = EpochWatch(self.books, self._progress, self._timers, time.zero)
        self._teller = Teller(watchers, self._clock, self._progress)
        self._remarks = Remarks(plan, self.books, self._progress, self._teller)
        self._bookkeeper = Bookkeeper(self.books, time, self._progress, self._teller)
        self._checks = Checks(plan, self.books)
        everyone = self.options.all_ranks_save
        self._keeper = Keeper(self.books, write, self.ranks, everyone, steps > 0, time.zero)
        self._course = Course(
            plan=plan, options=self.options, books=self.books, time=time, progress=self._progress,
            timers=self._timers, keeper=self._keeper, signals=self.signals, teller=self._teller,
        )  # fmt: skip

    # ── the run ──────────────────────────────────────────────────────────────────────────────

    def start(self) -> bool:
        """Whether there is anything left to train; a run that is over stays over."""
        end = self.end_epochs
        self._teller.tell(lines.started(self.plan, self.books, self._time, self.position, end))
        self._remarks.of_beginning()
        now = self._clock.monotonic()
        self.reason = self._agree(self._course.over_already(now))
        if self.reason is None:
            self.books.sample("startup", self._time.head_start)
            self.reason = self._agree(self._course.why_not_begin(now))
        if self.reason is None:
            self._course.replan(now)
        self._bookkeeper.beat(now, self.reason)
        return self.reason is None

    def begin_epoch(self) -> bool:
        """Whether the next epoch is to be trained; False ends the run."""
        if self.reason is not None:
            return False
        now = self._clock.monotonic()
        self._watch.begin_epoch(now, self._course.situation(now).epoch())
        self._progress.begin_epoch()
        self._checks.begin_epoch()
        self._until_agreement = 1
        self._stop_at = self._course.last_save_at(now)
        if self._rehearses():
            self._bookkeeper.due_at = now
        return True

    def skip(self, steps: int) -> None:
        """The first steps of this epoch were done by an earlier process."""
        self._progress.skip(steps)
        self._watch.skip(self._clock.monotonic())

    def step(self) -> bool:
        """After every step of training; whether to stop here, with a checkpoint in hand."""
        now = self._clock.monotonic()
        self._timers.saw(now)
        self._progress.step += 1
        self._keeper.here = False
        if self._alone:
            if (
                now < self._bookkeeper.due_at
                and now + self._timers.steady.bound < self._stop_at
                and self.signals.received is None
            ):
                return False
        else:
            self._until_agreement -= 1
            if self._until_agreement > 0:
                return False
        return self._look(now)

    def _look(self, now: float) -> bool:
        """The slow path of a step: agree, stop if need be, note the time used."""
        bound = self._timers.steady.bound
        fitting = (self._stop_at - now) / bound
        apart = max(1, int(min(AGREE_SECONDS / bound, fitting, 1e6)))
        short = StopReason.BUDGET if fitting < 1 else None
        reason, self._until_agreement = agree(self.ranks, self.signals, short, apart)
        if reason is not None:
            seconds = self._watch.seen.training(now)
            self.stop(reason)
            self._teller.tell(self._epoch_line(seconds, reason))
            return True
        if self._rehearses():
            self.save()
            now = self._clock.monotonic()
        if now >= self._bookkeeper.due_at:
            self._stop_at = self._course.last_save_at(now)
            self._bookkeeper.beat(now, self.reason)
        return False

    def due(self, action: Action) -> bool:
        """Whether something is planned after this epoch; of several processes, all must ask.

        From an evaluation that is due until ``report`` or the epoch's end, time is taken to be
        spent on it.
        """
        now = self._clock.monotonic()
        self._bookkeeper.beat(now, self.reason)
        if action == "evaluate":
            return self._begin_evaluation(now, self._course.evaluation_is_due(now))
        planned = self._course.save_is_planned(now, self._progress.epoch + 1)
        return agree_flag(self.ranks, planned)

    def may_evaluate(self) -> bool:
        """Whether an evaluation fits that is not planned; of several processes, all must ask.

        Time is taken to be spent on it until ``end_evaluation``, ``report`` or the epoch's end.
        """
        now = self._clock.monotonic()
        return self._begin_evaluation(now, self._course.evaluation_fits(now))

    def _begin_evaluation(self, now: float, begins: bool) -> bool:
        begins = agree_flag(self.ranks, begins)
        self._watch.evaluating_since = now if begins else None
        return begins

    def report(self, values: Mapping[str, float]) -> StopReason | None:
        """What an evaluation gave; may decide that the run stops after this epoch."""
        self._watch.end_evaluation(self._clock.monotonic(), aside=True)
        seen = self._watch.seen.values
        seen.update({name: float(value) for name, value in values.items()})
        self._checks.report(self._progress.epoch + 1, values, seen)
        return self._checks.verdict

    def end_evaluation(self) -> None:
        """An evaluation within an epoch is over; it is part of the epoch, but of no step."""
        self._watch.end_evaluation(self._clock.monotonic(), aside=False)

    def end_epoch(self) -> StopReason | None:
        """After training, evaluation and report of an epoch; why the run stops here, if it does.

        Raises:
            UsageError: the plan's stop rules watch a metric that was never reported; a checkpoint
                of this moment is there.
        """
        now = self._clock.monotonic()
        self._watch.end_evaluation(now, aside=True)
        seconds = self._watch.seen.training(now)
        self._remarks.of_steps()
        before, jumped = self.books.ledger.pace.epoch.ratio, self._watch.learn_epoch(seconds)
        self._progress.end_epoch()
        self._keeper.here = False
        self._checks.begin_epoch()
        self._miss_reports()
        if jumped:
            self._remarks.of_drift(before)
        self._course.replan(now, jumped)
        reason = self._agree(self._checks.verdict or self._course.why_end())
        if reason is not None or agree_flag(self.ranks, self._save_is_due(now)):
            self._save(required=reason is not None)
        if reason is StopReason.PLAN_DONE:
            self._course.offer_more(now)
        reason = reason or self._agree(self._course.why_not_begin(self._clock.monotonic()))
        if reason is not None:
            self.stop(reason)
        self._teller.tell(self._epoch_line(seconds, reason))
        self._progress.first = self._checks.improved = False
        self._bookkeeper.beat(self._clock.monotonic(), self.reason)
        return reason

    def stop(self, reason: StopReason) -> None:
        """Stop here, with a checkpoint of this moment, whatever is planned."""
        if reason is StopReason.SIGNAL and self.signals.received is not None:
            self.note("signal", name=name_of(self.signals.received))
        self.reason = reason
        self.save()
        self._bookkeeper.note(self._clock.monotonic(), self.reason, durable=True)

    def close(self, failed: bool = False) -> None:
        """The loop was left.

        Args:
            failed: by an error, so that the weights of this moment may be worth nothing.
        """
        if not failed and self.reason is None:  # the loop ended by itself, or was broken out of
            self.save()
        self._bookkeeper.note(self._clock.monotonic(), self.reason, durable=True)
        if self._decides:
            end, position = self.end_epochs, self.position
            self._teller.tell(lines.ended(self.books, self._time, position, end, self.reason))
        self._teller.close()

    # ── what can be asked ────────────────────────────────────────────────────────────────────

    @property
    def position(self) -> Position:
        """How far the run has come."""
        return self._progress.position

    @property
    def end_epochs(self) -> int:
        """After which epoch the run is to end, as planned now."""
        return self._course.schedule.end

    @property
    def evaluating(self) -> bool:
        """Whether an evaluation goes on, in which no weights change."""
        return self._watch.evaluating_since is not None

    @property
    def best_checkpoint(self) -> Path | None:
        """What was written when the plan's metric was at its best; None where there is none."""
        best = self.books.archive.best()
        return best[0] / CONTENT if best else None

    @property
    def events(self) -> tuple[RunEvent, ...]:
        """What a summary is made of: the start, all notices, the latest epoch and the end."""
        return self._teller.heard

    @property
    def wall_time(self) -> float:
        """Seconds since 1970, UTC."""
        return self._clock.wall()

    # ── agreeing, saving and telling ─────────────────────────────────────────────────────────

    def _agree(self, reason: StopReason | None) -> StopReason | None:
        return agree(self.ranks, self.signals, reason)[0]

    def save(self) -> None:
        """Have a checkpoint of this moment, whatever is planned."""
        self._save(required=True)

    def _save(self, required: bool) -> None:
        """Write a checkpoint of this moment; a failure ends the run only where it must not be."""
        if self._keeper.here and not self._checks.improved:
            return
        began = self._clock.monotonic()
        try:
            self._bookkeeper.note(began, self.reason)
            states = self._checks.states_at(self._progress.step)
            self._keeper.save(self.position, states, self._checks.improved)
        except (OSError, RuntimeError) as error:  # torch.save says RuntimeError on a full disk
            if required or not self._keeper.ever:
                raise
            self.note("save-failed", error=f"{type(error).__name__}: {error}".splitlines()[0])
            return
        self._keeper.at = self._timers.at = self._clock.monotonic()
        self._checks.improved = False
        self._watch.put_aside("save", self._keeper.at - began)

    def _save_is_due(self, now: float) -> bool:
        best = self.options.keep_best and self._checks.improved
        return best or self._course.save_is_planned(now, self._progress.epoch)

    def _rehearses(self) -> bool:
        return self.options.rehearse and not self._keeper.ever

    def note(self, code: str, **details: str) -> None:
        """Something that people should see; its text is in report/warnings.py."""
        self._teller.note(code, **details)

    def _miss_reports(self) -> None:
        """Values that are not the one that the rules need: an error, with a checkpoint in hand."""
        seen, epoch = self._watch.seen.values, self._progress.epoch
        watched = self._checks.needed and self._course.schedule.evaluates(epoch)
        if watched and self._remarks.of_missing(seen):
            self.save()
            self._checks.require(seen)

    def _epoch_line(self, seconds: float, reason: StopReason | None) -> EpochDone:
        here = self._course.situation(self._clock.monotonic())
        return lines.epoch_done(
            here, self.books, self._time, self.position, self._watch.seen, seconds, reason
        )
