"""The guard: what follows one run from its first step to its last checkpoint.

    loop or framework ─▶ Guard ─┬─▶ Controller    what to do: a function of state and moment
                                ├─▶ clock, StepTimer, Account      what time it is, and is left
                                ├─▶ CheckpointStore, ledger        what survives
                                ├─▶ EventBus                       what people see
                                └─▶ Ranks                          all processes do the same

This is the shell: it looks at the clock, asks the controller, and does what was decided. At every
step, the bound of the next one must end before the last save has to begin: one comparison.

All processes of a run call the same methods; the first one decides for all (ranks.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from shutil import disk_usage

from epochcast.errors import StoreError, UsageError
from epochcast.guard import events
from epochcast.guard.checkpoints import CONTENT, CheckpointStore, Write
from epochcast.guard.controller import Controller, Moment, Policy
from epochcast.guard.events import EventBus, Watcher
from epochcast.guard.limits import Account, Allocation, Clock, SystemClock
from epochcast.guard.ranks import Signals, agree, agree_flag
from epochcast.guard.run_folder import begin, resume, write_ledger
from epochcast.guard.run_state import Epoch, RunState
from epochcast.guard.segments import in_segments
from epochcast.guard.step_timer import StepTimer
from epochcast.planning.shortfall import enough
from epochcast.profiler.ranks import Alone, Ranks
from epochcast.records import (
    Action,
    Notice,
    Plan,
    Position,
    RunEvent,
    RunOutcome,
    StopReason,
    Warning_,
)
from epochcast.units import format_bytes, format_seconds

AGREE_SECONDS = 0.25  # between agreements of several processes: well inside a grace of 2 s
NOTE_SECONDS = 1.0  # between notes of the time used in the ledger: what a kill may forget


class Guard:
    """Follows one run; ``integrations/`` calls it from a plain loop and from frameworks.

    Args:
        plan: what to follow; one of steps in segments, which are called epochs here.
        folder: of this run: its ledger and checkpoints; the same one to go on after a stop.
        write: writes a checkpoint to the path that it is given, a file or a folder.
        policy: how to follow.
        allocation: when the scheduler ends this job.
        watchers: whom to tell what happens.
        signals: that ask the run to leave.
        ranks: the processes that train together.
        clock: where time comes from.
        began: when this process began, seconds since 1970; default: now.

    Attributes:
        state: of the run, as it stands.
        account: of its time, money and energy.
        checkpoints: that were written.
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
        policy: Policy | None = None,
        allocation: Allocation | None = None,
        watchers: Sequence[Watcher] = (),
        signals: Signals | None = None,
        ranks: Ranks | None = None,
        clock: Clock | None = None,
        began: float | None = None,
    ) -> None:
        self.plan, self.policy = in_segments(plan), policy or Policy()
        self.ranks, self.signals = ranks or Alone(), signals or Signals(())
        self._clock, self._folder, self._write = clock or SystemClock(), folder, write
        self._alone, self._decides = self.ranks.size == 1, self.ranks.rank == 0
        self._bus = EventBus(watchers if self._decides else ())
        self._asked = False
        self._controller = Controller.of_plan(self.plan, self.policy)
        self._ledger_failed = False
        now, wall = self._clock.monotonic(), self._clock.wall()
        began = wall if began is None else min(began, wall)
        self._resume(allocation or Allocation(), began, now - (wall - began))
        self._note_at = now

    def _resume(self, allocation: Allocation, began: float, zero: float) -> None:
        """Go on from the newest checkpoint, all processes alike."""
        plan, ranks = self.plan, self.ranks
        self.checkpoints = CheckpointStore(
            self._folder / "checkpoints",
            plan.keep,
            limit=None if plan.budget.disk is None else plan.budget.disk / plan.folds,
            expected=plan.chosen.save_bytes or 0.0,
        )
        self._told_of_disk: set[str] = set()
        self._has_room_at_start = True
        found = (
            resume(self._folder, self.checkpoints, plan, began)
            if self._decides
            else begin(plan, began)
        )
        at = found.checkpoint.position
        number, epoch, step, steps = ranks.all_reduce_max(
            [found.number, at.epoch, at.step, at.steps]
        )
        self.checkpoint = self.checkpoints.saved(number, steps) if steps else None
        self.resumed_step, self._resumed = step, found
        self.account = Account(
            plan=plan,
            allocation=allocation,
            run_began=found.ledger.began_at,
            process_began=began,
            process_zero=zero,
            spent_before=found.ledger.spent_seconds,
        )
        self.state = RunState(
            ledger=found.ledger,
            metrics=found.checkpoint.metrics.followed_by(plan),
            end=plan.chosen.epochs,
            done=epoch,
            steps_before=steps - step,
            epoch=Epoch(began=zero),
            saved_at=self._clock.monotonic(),
            has_checkpoint=steps > 0,
        )
        planned = self._controller.planned_steps
        self._timer = StepTimer(plan.prices.epoch, planned, plan.prices.first_steps.p95)
        self._timer.resume(step, unsaved=steps == 0)

    # ── the run ──────────────────────────────────────────────────────────────────────────────

    def start(self) -> bool:
        """Whether there is anything left to train; a run that is over stays over.

        Raises:
            UsageError: there is a checkpoint, and the disk limit has no room for another one.
        """
        moment = self._moment()
        spent, wall = self.account.spent(moment.now), self._clock.wall()
        self._bus.send(
            events.run_started(self.plan, self.state, self.position, spent=spent, wall_time=wall)
        )
        self._tell(self._first_notices())
        reason = self._agree(self._controller.over_already(self.state, moment))
        if reason is None:
            self._look_for_room()
            startup = moment.now - self.account.process_zero
            self.state = self.state.sample("startup", startup)
            reason = self._decide_next_epoch(moment)
        if reason is None:
            self.state, decision = self._controller.replan(self.state, moment)
            self._tell(decision.notices)
        self.state = self.state.stopped(reason)
        self._note_if_due(moment.now)
        return reason is None

    def _first_notices(self) -> Iterable[Warning_]:
        """Where the run goes on, and by which plan."""
        found, spent = self._resumed, format_seconds(self.account.spent_before)
        if found.number:
            epoch, step = str(self.state.done), str(self.resumed_step)
            yield Warning_.of("resumed", epoch=epoch, step=step, spent=spent)
        if found.another_plan:
            yield Warning_.of("other-plan")
        if self.plan.prices.save.p50 <= 0 and not found.number:
            yield Warning_.of("save-time-unknown")
        yield from found.damage

    def _look_for_room(self) -> None:
        """Refuse to go on where the next checkpoint could not be written beside the one there."""
        self._has_room_at_start = self._has_room()
        if self._has_room_at_start:
            return
        if self.state.has_checkpoint:
            raise UsageError(
                "the plan's disk limit has no room for another checkpoint beside the one in "
                f"{self._folder}: plan with --disk {self._disk_of_two()} or more"
            )
        self._tell_of_disk()

    def _has_room(self) -> bool:
        """Whether the disk limit has room for two checkpoints, so that none is left out."""
        if self.plan.budget.disk is None:
            return True
        return agree_flag(self.ranks, self.checkpoints.room() >= 2)

    def begin_epoch(self) -> bool:
        """Whether the next epoch is to be trained; False ends the run."""
        if self.state.reason is not None:
            return False
        moment = self._moment()
        self.state = self._controller.begin_epoch(self.state, moment)
        self._timer.begin_epoch(moment.now, self.state.first)
        self._until_agreement = 1
        self._stop_at = self._controller.last_save_at(self.state, moment)
        if self._rehearses():
            self._note_at = moment.now
        return True

    def skip(self, steps: int) -> None:
        """The first steps of this epoch were done by an earlier process."""
        now = self._clock.monotonic()
        self.state = self.state.skip(now, steps)
        self._timer.skip(now, steps)

    def step(self) -> bool:
        """After every step of training; whether to stop here, with a checkpoint in hand."""
        now, timer = self._clock.monotonic(), self._timer
        timer.saw(now)
        if self._alone:
            if (
                now < self._note_at
                and now + timer.steady.bound < self._stop_at
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
        bound = self._timer.steady.bound
        fitting = (self._stop_at - now) / bound
        apart = max(1, int(min(AGREE_SECONDS / bound, fitting, 1e6)))
        short = StopReason.BUDGET if fitting < 1 else None
        short = StopReason.SIGNAL if self._asked else short
        reason, self._until_agreement = agree(self.ranks, self.signals, short, apart)
        if reason is not None:
            seconds = self.state.epoch.training(now)
            self.stop(reason)
            self._send_epoch(seconds)
            return True
        if self._rehearses():
            self._save(required=False)
            self._look_for_room()  # a checkpoint may be larger than planned
            now = self._clock.monotonic()
        if now >= self._note_at:
            self._stop_at = self._controller.last_save_at(self.state, self._moment(now))
            self._note_if_due(now)
        return False

    def due(self, action: Action) -> bool:
        """Whether something is planned after this epoch; of several processes, all must ask.

        From an evaluation that is due until ``report`` or the epoch's end, time is taken to be
        spent on it.
        """
        moment = self._moment()
        self._note_if_due(moment.now)
        if action == "evaluate":
            return self._begin_evaluation(moment, planned=True)
        planned = self._controller.saves(self.state, moment, self.state.done + 1)
        return agree_flag(self.ranks, planned)

    def may_evaluate(self) -> bool:
        """Whether an evaluation fits that is not planned; of several processes, all must ask.

        Time is taken to be spent on it until ``end_evaluation``, ``report`` or the epoch's end.
        """
        return self._begin_evaluation(self._moment(), planned=False)

    def _begin_evaluation(self, moment: Moment, planned: bool) -> bool:
        decision = self._controller.evaluation(self.state, moment, planned)
        self._tell(decision.notices)
        begins = agree_flag(self.ranks, decision.evaluate)
        self.state = self.state.evaluate_since(moment.now if begins else None)
        return begins

    def report(self, values: Mapping[str, float]) -> StopReason | None:
        """What an evaluation gave; may decide that the run stops after this epoch."""
        self._end_evaluation(self._clock.monotonic(), aside=True)
        self.state = self.state.report(values)
        return self.state.verdict

    def end_evaluation(self) -> None:
        """An evaluation within an epoch is over; it is part of the epoch, but of no step."""
        self._end_evaluation(self._clock.monotonic(), aside=False)

    def _end_evaluation(self, now: float, aside: bool) -> None:
        since = self.state.epoch.evaluating_since
        if since is not None:
            self._timer.leave_out(now - since)
            self.state = self.state.end_evaluation(now, aside)

    def end_epoch(self) -> StopReason | None:
        """After training, evaluation and report of an epoch; why the run stops here, if it does.

        Raises:
            UsageError: the plan's stop rules watch a metric that was never reported; a checkpoint
                of this moment is there.
        """
        moment, step = self._moment(), self._timer.step
        self._end_evaluation(moment.now, aside=True)
        seconds = self.state.epoch.training(moment.now)
        self.state, decision = self._controller.end_epoch(self.state, moment, step)
        self._timer.end_epoch()
        self._tell(decision.notices)
        if decision.error is not None:
            self.save()
            raise UsageError(decision.error)
        reason = self._agree(decision.reason)
        if reason is not None or agree_flag(self.ranks, decision.save):
            self._save(required=reason is not None)
        if reason is StopReason.PLAN_DONE:
            self._tell(self._controller.more(self.state, moment).notices)
        reason = reason or self._decide_next_epoch(self._moment())
        if reason is not None:
            self.stop(reason)
        self._send_epoch(seconds)
        self.state = self.state.forget_improvement()
        self._note_if_due(self._clock.monotonic())
        return reason

    def _decide_next_epoch(self, moment: Moment) -> StopReason | None:
        """Why no further epoch, or part of one, is to be trained; None where one is."""
        self.state, decision = self._controller.next_epoch(self.state, moment)
        self._tell(decision.notices)
        return self._agree(decision.reason)

    def stop(self, reason: StopReason) -> None:
        """Stop here, with a checkpoint of this moment, whatever is planned."""
        if reason is StopReason.SIGNAL and self.signals.received is not None:
            self.note("signal", name=self.signals.name)
        self.state = self.state.stopped(reason)
        self.save()
        self._note(self._clock.monotonic(), durable=True)

    def ask_to_leave(self) -> None:
        """The next step is the last, as after a signal, but the process goes on to its own end.

        Processes that train together have to be asked before the same step.
        """
        self._asked, self._note_at, self._until_agreement = True, self._clock.monotonic(), 1

    def close(self, failed: bool = False) -> None:
        """The loop was left.

        Args:
            failed: by an error, so that the weights of this moment may be worth nothing.
        """
        if not failed and self.reason is None:  # the loop ended by itself, or was broken out of
            self.save()
        now = self._clock.monotonic()
        self._note(now, durable=True)
        if self._decides:
            ended = events.run_ended(
                self.state,
                self.account,
                self.checkpoints,
                position=self.position,
                now=now,
                wall_time=self._clock.wall(),
            )
            self._bus.send(ended)

    def close_watchers(self) -> None:
        """Nothing more will be told."""
        self._bus.close()

    # ── what can be asked ────────────────────────────────────────────────────────────────────

    @property
    def reason(self) -> StopReason | None:
        """Why the run stops; None while it goes on."""
        return self.state.reason

    @property
    def position(self) -> Position:
        """How far the run has come."""
        return self.state.position(self._timer.step)

    @property
    def steps_left(self) -> int | None:
        """Calls of ``step`` until the present segment ends; None in a plan of epochs."""
        if self.plan.segment_steps is None:
            return None
        return max(0, self._controller.steps_of(self.state) - self._timer.step)

    @property
    def evaluating(self) -> bool:
        """Whether an evaluation goes on, in which no weights change."""
        return self.state.epoch.evaluating_since is not None

    @property
    def best_checkpoint(self) -> Path | None:
        """What was written when the plan's metric was at its best; None where there is none."""
        best = self.checkpoints.best()
        return best[0] / CONTENT if best else None

    @property
    def events(self) -> tuple[RunEvent, ...]:
        """All that this process has seen of the run."""
        return self._bus.sent

    @property
    def outcome(self) -> RunOutcome | None:
        """What the run teaches later predictions; None where nothing was trained."""
        return events.run_outcome(self._controller, self.state, self.position, self._clock.wall())

    # ── agreeing, saving and reporting ─────────────────────────────────────────────────────────

    def _moment(self, now: float | None = None) -> Moment:
        now = self._clock.monotonic() if now is None else now
        return Moment(
            now=now,
            left=self.account.left(now),
            first_bound=self._timer.first_bound(self.state.first),
            step_bound=self._timer.steady.bound,
            signalled=self.signals.received is not None,
        )

    def _agree(self, reason: StopReason | None) -> StopReason | None:
        return agree(self.ranks, self.signals, reason)[0]

    def save(self) -> None:
        """Have a checkpoint of this moment, whatever is planned."""
        self._save(required=True)

    def _save(self, required: bool) -> None:
        """Write a checkpoint of this moment; a failure ends the run only where it must not be."""
        if not self._timer.unsaved and not self.state.improved:
            return
        if not required and not self._has_room():
            self._tell_of_disk()
            return
        began = self._clock.monotonic()
        try:
            self._note(began)
            checkpoint = self.state.checkpoint(self._timer.step)
            number = self.checkpoints.save(
                self._write, checkpoint, self.ranks, self.policy.all_ranks_save
            )
        except (OSError, RuntimeError) as error:  # torch.save says RuntimeError on a full disk
            why = f"{type(error).__name__}: {error}".splitlines()[0]
            if self._alone:
                self.checkpoints.abandon()  # what was written of it takes room
            if required or not self.state.has_checkpoint:
                raise StoreError(self._save_failed(why)) from error
            self.note("save-failed", error=why)
            return
        now = self._clock.monotonic()
        self._timer.saved(now)
        self.state = self.state.saved(began, now, number)
        if self.checkpoints.overfilled > 0:
            over = format_bytes(self.checkpoints.overfilled)
            self._tell_once("disk-overfilled", over=over, need=self._disk_of_two())
        elif self.checkpoints.gave_way:
            self._tell_of_disk()

    def _tell_of_disk(self) -> None:
        """That the disk limit has no room for all that would be saved and kept."""
        size, room = self.checkpoints.next_bytes(), self.checkpoints.room()
        if room < 1:
            self._tell_once("disk-no-checkpoint", size=format_bytes(size), need=self._disk_of_two())
        elif room < 2:
            self._tell_once("disk-one-checkpoint", need=self._disk_of_two())
        else:
            many = {"count": f"{room:,.0f}", "size": format_bytes(size)}
            self._tell_once("disk-limits-checkpoints", **many)

    def _tell_once(self, code: str, **details: str) -> None:
        if self._decides and code not in self._told_of_disk:
            self._told_of_disk.add(code)
            self.note(code, **details)

    def _disk_of_two(self) -> str:
        """A limit with room for two checkpoints, in each fold."""
        need = 2 * self.checkpoints.next_bytes() * self.plan.folds
        return enough("disk", need).replace(" ", "")

    def _save_failed(self, why: str) -> str:
        folder = self._folder.absolute()
        there = next(place for place in (folder, *folder.parents) if place.exists())
        free = format_bytes(disk_usage(there).free)
        return (
            f"a checkpoint could not be saved in {self._folder}, where {free} are free ({why}): "
            "make room or give another folder, and start again"
        )

    def _rehearses(self) -> bool:
        return self.policy.rehearse and not self.state.has_checkpoint and self._has_room_at_start

    def _note_if_due(self, now: float) -> None:
        if now >= self._note_at:
            self._note(now)
            self._note_at = now + NOTE_SECONDS

    def _note(self, now: float, durable: bool = False) -> None:
        """Write down the time used; where that fails, the run goes on: a checkpoint has a copy."""
        self.state = self.state.note(self.account.spent(now), self._timer.step)
        if not self._decides:
            return
        try:
            write_ledger(self._folder, self.state.ledger, durable)
        except OSError as error:
            if not self._ledger_failed:
                self._ledger_failed = True
                self.note("ledger-failed", error=str(error))

    def note(self, code: str, **details: str) -> None:
        """Something that people should see; its text is in report."""
        self._tell((Warning_.of(code, **details),))

    def _tell(self, notices: Iterable[Warning_]) -> None:
        for warning in notices:
            wall, position = self._clock.wall(), self.position
            self._bus.send(Notice(wall_time=wall, position=position, notice=warning))

    def _send_epoch(self, seconds: float) -> None:
        done = events.epoch_done(
            self._controller,
            self.state,
            self._moment(),
            self.account,
            position=self.position,
            seconds=seconds,
            wall_time=self._clock.wall(),
        )
        self._bus.send(done)
