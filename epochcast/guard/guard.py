"""The guard: what follows one run from its first step to its last checkpoint.

                     begin_epoch                        may the next segment begin?
    elapsed ──┬──────────┬─────────────────────┬───────────────┬──────────────▶ limit
              │  step … step                   │ evaluation    │ last save    │
              │  each: now + bound < limit − reserve           │◀── reserve ─▶│

At an epoch's end the next segment (epoch, evaluation if one is planned, save) must fit into what is
left with the plan's confidence (deciding.py); where it does not, as many steps are taken as fit.
At every step, the bound of the next one must end before the last save has to begin: one comparison.

All processes of a run call the same methods; the first one decides for all (ranks.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from epochcast.guard import lines
from epochcast.guard.archive import CONTENT
from epochcast.guard.books import Books, Write
from epochcast.guard.checking import Checks
from epochcast.guard.clock import Clock, SystemClock
from epochcast.guard.deciding import Situation, next_move
from epochcast.guard.keeping import Keeper
from epochcast.guard.ledger import is_over
from epochcast.guard.limits import Allocation
from epochcast.guard.options import Options
from epochcast.guard.ranks import Alone, Ranks, agree
from epochcast.guard.schedule import Schedule, last_that_fits
from epochcast.guard.signals import Signals, name_of
from epochcast.guard.stepping import StepTimer
from epochcast.guard.telling import Teller, Watcher
from epochcast.guard.timekeeping import Timekeeper
from epochcast.planning.checkpoints import save_interval
from epochcast.records import Action, EpochDone, Plan, Position, RunEvent, StopReason
from epochcast.units import format_seconds

BEAT_SECONDS = 1.0  # between notes of the time used: what a kill may forget
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
        self._teller = Teller(watchers if self._decides else (), self._clock)
        self._time = Timekeeper(plan, self._clock, began, allocation or Allocation())
        self.books = Books(folder, plan, self._time.began, owner=self._decides)
        self._time.count_from(self.books.ledger.began_at, self.books.spent_before)
        self._schedule = Schedule.of_plan(plan)
        self._checks = Checks(plan, self.books)
        self._take_up(write)
        self._set_timers()

    def _take_up(self, write: Write) -> None:
        """Go on from the newest checkpoint, all processes alike."""
        at, zero = self.books.position, self._time.zero
        self._epoch, step, steps = self.ranks.most([at.epoch, at.step, at.steps])
        self._step, self._steps_before, self._skipped = step, steps - step, 0
        self.resumed_step = step
        self.checkpoint = self.books.checkpoint(self.ranks)
        everyone = self.options.all_ranks_save
        self._keeper = Keeper(self.books, write, self.ranks, everyone, steps > 0, zero)
        self._seen = lines.EpochSeen(began=zero, first=True)
        self._evaluating: float | None = None
        self._missed = self._unnoted = False  # told once

    def _set_timers(self) -> None:
        """Timers of steps and of first steps, as planned."""
        config, prices = self.plan.chosen.config, self.plan.prices
        whole, rest = divmod(-(-self.plan.samples // config.world_size), config.batch_size)
        batches = max(1, whole + int(rest > 0 and not config.drop_last))
        updates = self.plan.chosen.steps_per_epoch
        self._planned_steps = updates if self.options.per_update else batches
        self._seen_steps: int | None = None  # calls of ``step`` in a whole epoch
        median, upper = (x / self._planned_steps for x in (prices.epoch.p50, prices.epoch.p95))
        self._timer = StepTimer(median, upper)
        self._turn_timer = StepTimer(median, upper)  # of the first step of an epoch
        self._beat_at = self._time.zero

    # ── what can be asked ────────────────────────────────────────────────────────────────────

    @property
    def position(self) -> Position:
        """How far the run has come."""
        return Position(epoch=self._epoch, step=self._step, steps=self._steps_before + self._step)

    @property
    def end_epochs(self) -> int:
        """After which epoch the run is to end, as planned now."""
        return self._schedule.end

    @property
    def evaluating(self) -> bool:
        """Whether an evaluation goes on, in which no weights change."""
        return self._evaluating is not None

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

    def note(self, code: str, **details: str) -> None:
        """Something that people should see; its text is in report/warnings.py."""
        self._teller.note(self.position, code, **details)

    # ── the run ──────────────────────────────────────────────────────────────────────────────

    def start(self) -> bool:
        """Whether there is anything left to train; a run that is over stays over."""
        end = self._schedule.end
        self._teller.tell(lines.started(self.plan, self.books, self._time, self.position, end))
        self._note_beginning()
        now = self._clock.monotonic()
        self.reason = self._agree(self._over_already(now))
        if self.reason is None:
            self.books.sample("startup", self._time.head_start)
            self.reason = self._agree(self._why_not_begin(now))
        if self.reason is None:
            self._replan(now)
        self._beat(now)
        return self.reason is None

    def _note_beginning(self) -> None:
        if self.books.resumed:
            spent = format_seconds(self.books.spent_before)
            self.note("resumed", epoch=str(self._epoch), step=str(self._step), spent=spent)
        if self.books.another_plan:
            self.note("other-plan")
        if self.plan.prices.save.p50 <= 0 and not self.books.resumed:
            self.note("save-time-unknown")

    def begin_epoch(self) -> bool:
        """Whether the next epoch is to be trained; False ends the run."""
        if self.reason is not None:
            return False
        now = self._clock.monotonic()
        self._seen = lines.EpochSeen(
            began=now, first=self._seen.first, predicted=self._situation(now).epoch()
        )
        self._stepped_at = now
        self._step = self._skipped = 0
        self._until_agreement = 1
        self._checks.begin_epoch()
        for timer in (self._timer, self._turn_timer):
            timer.begin_epoch()
        self._set_stop(now)
        if self._rehearses():
            self._beat_at = now
        return True

    def skip(self, steps: int) -> None:
        """The first steps of this epoch were done by an earlier process."""
        self._step = self._skipped = steps
        self._seen.began = self._stepped_at = self._clock.monotonic()

    def step(self) -> bool:
        """After every step of training; whether to stop here, with a checkpoint in hand."""
        now = self._clock.monotonic()
        if self._step > self._skipped:
            self._timer.saw(now - self._stepped_at)
        else:
            self._saw_turn(now - self._stepped_at)
        self._stepped_at = now
        self._step += 1
        self._keeper.here = False
        if self._alone:
            if (
                now < self._beat_at
                and now + self._timer.bound < self._stop_at
                and self.signals.received is None
            ):
                return False
        else:
            self._until_agreement -= 1
            if self._until_agreement > 0:
                return False
        return self._look(now)

    def _saw_turn(self, seconds: float) -> None:
        """The first step of an epoch, and in a process's first epoch, of what it warms up too."""
        if self._seen.first:
            self._turn_timer.expect(seconds - self.plan.prices.first_steps.p95)
        else:
            self._turn_timer.saw(seconds)

    def _look(self, now: float) -> bool:
        """The slow path of a step: agree, stop if need be, note the time used."""
        bound = self._timer.bound
        fitting = (self._stop_at - now) / bound
        apart = max(1, int(min(AGREE_SECONDS / bound, fitting, 1e6)))
        short = StopReason.BUDGET if fitting < 1 else None
        reason, self._until_agreement = agree(self.ranks, self.signals, short, apart)
        if reason is not None:
            seconds = self._seen.training(now)
            self.stop(reason)
            self._teller.tell(self._epoch_line(seconds, reason))
            return True
        if self._rehearses():
            self.save()
            now = self._clock.monotonic()
        if now >= self._beat_at:
            self._set_stop(now)
            self._beat(now)
        return False

    def due(self, action: Action) -> bool:
        """Whether something is planned after this epoch; of several processes, all must ask.

        From an evaluation that is due until ``report`` or the epoch's end, time is taken to be
        spent on it.
        """
        now = self._clock.monotonic()
        self._beat(now)
        if action == "evaluate":
            return self._begin_evaluation(now, self._evaluation_is_due(now))
        return self._agree_flag(self._save_is_planned(now, self._epoch + 1))

    def may_evaluate(self) -> bool:
        """Whether an evaluation fits that is not planned; of several processes, all must ask.

        Time is taken to be spent on it until ``end_evaluation``, ``report`` or the epoch's end.
        """
        now = self._clock.monotonic()
        return self._begin_evaluation(now, self._evaluation_fits(now))

    def _begin_evaluation(self, now: float, begins: bool) -> bool:
        self._evaluating = now if self._agree_flag(begins) else None
        return self.evaluating

    def _evaluation_is_due(self, now: float) -> bool:
        return self._schedule.evaluates(self._epoch + 1) and self._evaluation_fits(now)

    def _evaluation_fits(self, now: float) -> bool:
        bound = self._time.evaluation_bound(self.books.ledger.pace)
        fits = bound + self._reserve(now) <= self._time.left(now)
        if not fits:
            self.note("evaluation-skipped", epoch=str(self._epoch + 1))
        return fits

    def report(self, values: Mapping[str, float]) -> StopReason | None:
        """What an evaluation gave; may decide that the run stops after this epoch."""
        self._end_evaluation()
        self._seen.values.update({name: float(value) for name, value in values.items()})
        self._checks.report(self._epoch + 1, values, self._seen.values)
        return self._checks.verdict

    def end_evaluation(self) -> None:
        """An evaluation within an epoch is over; it is part of the epoch, but of no step."""
        if self._evaluating is not None:
            self._stepped_at += self._clock.monotonic() - self._evaluating
            self._evaluating = None

    def _end_evaluation(self) -> None:
        if self._evaluating is None:
            return
        seconds = self._clock.monotonic() - self._evaluating
        self._evaluating = None
        self._stepped_at += seconds
        self._seen.evaluation = (self._seen.evaluation or 0.0) + seconds
        self._seen.aside += seconds
        self.books.learn("evaluation", seconds)

    def end_epoch(self) -> StopReason | None:
        """After training, evaluation and report of an epoch; why the run stops here, if it does.

        Raises:
            UsageError: the plan's stop rules watch a metric that was never reported; a checkpoint
                of this moment is there.
        """
        self._end_evaluation()
        now = self._clock.monotonic()
        seconds = self._seen.training(now)
        before = self.books.ledger.pace.epoch.ratio
        jumped = self._learn_epoch(seconds)
        self._steps_before += self._step
        self._epoch, self._step = self._epoch + 1, 0
        self._keeper.here = False
        self._checks.begin_epoch()
        self._miss_reports()
        if jumped:
            after = self.books.ledger.pace.epoch.ratio
            self.note("drift", ratio_before=f"{before:.2f}", ratio_after=f"{after:.2f}")
        self._replan(now, jumped)
        reason = self._agree(self._checks.verdict or self._at_the_end())
        if reason is not None or self._agree_flag(self._save_is_due(now)):
            self._save(required=reason is not None)
        if reason is StopReason.PLAN_DONE:
            self._offer_more(now)
        reason = reason or self._agree(self._why_not_begin(self._clock.monotonic()))
        if reason is not None:
            self.stop(reason)
        self._teller.tell(self._epoch_line(seconds, reason))
        self._seen.first = self._checks.improved = False
        self._beat(self._clock.monotonic())
        return reason

    def _miss_reports(self) -> None:
        """Rules that are never shown a value stop nothing: say so, once."""
        metric, seen = self.plan.metric, self._seen.values
        watched = self._checks.needed and self._schedule.evaluates(self._epoch)
        if not watched or metric in seen or self._missed:
            return
        self._missed = True
        if not seen:
            self.note("not-evaluated", epoch=str(self._epoch))
            return
        self.note("no-report", metric=metric, epoch=str(self._epoch))
        self.save()
        self._checks.require(seen)

    def _learn_epoch(self, seconds: float) -> bool:
        """Whether the pace has jumped."""
        if self._skipped == 0:
            self._compare_steps()
        if self._seen.first or self._skipped:
            self.books.sample("first_epoch", seconds)
            return False
        self.books.learn("epoch", seconds)
        return self.books.ledger.pace.epoch.jumped

    def _compare_steps(self) -> None:
        """A run that takes other steps than planned is another run: say so, once."""
        planned = (self._planned_steps, self.plan.chosen.steps_per_epoch)
        if self._seen_steps is None and self._step not in planned:
            self.note("steps-differ", planned=str(self._planned_steps), seen=str(self._step))
        self._seen_steps = self._step

    def stop(self, reason: StopReason) -> None:
        """Stop here, with a checkpoint of this moment, whatever is planned."""
        if reason is StopReason.SIGNAL and self.signals.received is not None:
            self.note("signal", name=name_of(self.signals.received))
        self.reason = reason
        self.save()
        self._note_spent(self._clock.monotonic(), durable=True)

    def close(self, failed: bool = False) -> None:
        """The loop was left.

        Args:
            failed: by an error, so that the weights of this moment may be worth nothing.
        """
        if not failed and self.reason is None:  # the loop ended by itself, or was broken out of
            self.save()
        self._note_spent(self._clock.monotonic(), durable=True)
        if self._decides:
            end, position = self._schedule.end, self.position
            self._teller.tell(lines.ended(self.books, self._time, position, end, self.reason))
        self._teller.close()

    # ── deciding ─────────────────────────────────────────────────────────────────────────────

    def _situation(self, now: float) -> Situation:
        state = self.books.state
        warming = self.plan.prices.first_steps.p95 if self._seen.first else 0.0
        improving = (state.improvements + 1) / (state.checks + 2)  # Laplace's rule of succession
        return Situation(
            pace=self.books.ledger.pace,
            schedule=self._schedule,
            done=self._epoch,
            first=self._seen.first,
            left=self._time.left(now),
            reserve=self._reserve(now),
            confidence=self.plan.budget.confidence,
            first_bound=max(self._turn_timer.bound, self._timer.bound) + warming,
            step_bound=self._timer.bound,
            improving=improving if self.options.keep_best else 0.0,
        )

    def _over_already(self, now: float) -> StopReason | None:
        reason, here = self.books.ledger.reason, self._situation(now)
        more = self._epoch < self._schedule.planned_end
        return reason if is_over(reason, more, more and here.steps_that_fit() > 0) else None

    def _why_not_begin(self, now: float) -> StopReason | None:
        if self.signals.received is not None:
            return StopReason.SIGNAL
        here = self._situation(now)
        move, self._schedule = next_move(here, self.options.partial_epochs)
        if move == "steps":
            of = self._seen_steps or self._planned_steps
            self.note("cut", steps=str(min(of, here.steps_that_fit())), of=str(of))
        return {"done": StopReason.PLAN_DONE, "stop": StopReason.BUDGET}.get(move)

    def _at_the_end(self) -> StopReason | None:
        if self.signals.received is not None:
            return StopReason.SIGNAL
        return StopReason.PLAN_DONE if self._epoch >= self._schedule.planned_end else None

    def _replan(self, now: float, jumped: bool = False) -> None:
        old = self._schedule.end
        self._schedule = self._situation(now).replanned(jumped)
        new = self._schedule.end
        if new == old:
            return
        self.note("replanned", old=str(old), new=str(new), why=_why(new < old, jumped))
        if new < old:
            steps = new * self.plan.chosen.steps_per_epoch
            horizon = self.plan.chosen.horizon_steps
            self.note("schedule-shortened", steps=f"{steps:,}", horizon=f"{horizon:,}")

    def _offer_more(self, now: float) -> None:
        """After the plan's end: whether more of what was wanted would fit now."""
        wanted = self.plan.chosen.target_epochs or self.plan.maximum_epochs or 0
        if wanted > self._epoch:
            here = self._situation(now)
            most = last_that_fits(self._epoch, wanted, here.probability, here.confidence)
            if most > self._epoch:
                self.note("could-continue", epochs=str(most - self._epoch))

    def _reserve(self, now: float) -> float:
        """Seconds before the limit at which the last save must begin."""
        return self._time.reserve(self.books.ledger.pace, now - self._keeper.at)

    def _set_stop(self, now: float) -> None:
        """When the last save must begin, on the monotonic clock."""
        self._stop_at = now + self._time.left(now) - self._reserve(now)

    # ── saving ───────────────────────────────────────────────────────────────────────────────

    def _rehearses(self) -> bool:
        return self.options.rehearse and not self._keeper.ever

    def _save_is_planned(self, now: float, epoch: int) -> bool:
        pace = self.books.ledger.pace
        interval = save_interval(pace.save.median, self.plan.mtbf_seconds)
        return self._schedule.saves_at(
            epoch, now - self._keeper.at, pace.epoch.median, pace.epoch.ratio, interval
        )

    def _save_is_due(self, now: float) -> bool:
        best = self.options.keep_best and self._checks.improved
        return best or self._save_is_planned(now, self._epoch)

    def save(self) -> None:
        """Have a checkpoint of this moment, whatever is planned."""
        self._save(required=True)

    def _save(self, required: bool) -> None:
        """Write a checkpoint of this moment; a failure ends the run only where it must not be."""
        if self._keeper.here and not self._checks.improved:
            return
        began = self._clock.monotonic()
        try:
            self._note_spent(began)
            within = self._step > 0
            states = self._checks.states_before if within else self._checks.states
            self._keeper.save(self.position, states, self._checks.improved)
        except (OSError, RuntimeError) as error:  # torch.save says RuntimeError on a full disk
            if required or not self._keeper.ever:
                raise
            self.note("save-failed", error=f"{type(error).__name__}: {error}".splitlines()[0])
            return
        self._keeper.at = self._clock.monotonic()
        seconds = self._keeper.at - began
        self._seen.save = (self._seen.save or 0.0) + seconds
        self._seen.aside += seconds
        self._stepped_at = self._keeper.at
        self._checks.improved = False
        self.books.learn("save", seconds)

    def _beat(self, now: float) -> None:
        if now >= self._beat_at:
            self._note_spent(now)
            self._beat_at = now + BEAT_SECONDS

    def _note_spent(self, now: float, durable: bool = False) -> None:
        """Where it fails, the run goes on: a checkpoint has a copy of what it would say."""
        try:
            self.books.note(self._time.spent(now), self.position.steps, self.reason, durable)
        except OSError as error:
            if not self._unnoted:
                self._unnoted = True
                self.note("ledger-failed", error=str(error))

    # ── agreeing and telling ─────────────────────────────────────────────────────────────────

    def _agree(self, reason: StopReason | None) -> StopReason | None:
        return agree(self.ranks, self.signals, reason)[0]

    def _agree_flag(self, flag: bool) -> bool:
        return bool(self.ranks.most([int(flag and self._decides)])[0])

    def _epoch_line(self, seconds: float, reason: StopReason | None) -> EpochDone:
        here = self._situation(self._clock.monotonic())
        return lines.epoch_done(
            here, self.books, self._time, self.position, self._seen, seconds, reason
        )


def _why(shorter: bool, jumped: bool) -> str:
    if jumped:
        return "the time of an epoch has jumped"
    return "it takes more time than planned" if shorter else "there is time to spare again"
