"""A command that trains, watched: from what its processes report to what people are told. Pure.

    script events ─▶ Tracker ─▶ EpochSeen ─┐
    plan, or what is seen ─────────────────┼─▶ Watch ─▶ RunEvents: terminal, log, TensorBoard
    now ───────────────────────────────────┘       └─▶ asks_at: when it must be asked to save

    now ──────────────────────────── asks_at ── step ── (evaluation) ── save ── leave ── deadline
                                             └───────────────── lead ──────────────────┘

Nothing of the run is decided here but one thing: when the script has to be asked to save and leave,
where there is a deadline. Everything else it does as it would alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import inf, isfinite

from epochcast.guard.controller import Schedule
from epochcast.guard.forecast import Forecast, Work
from epochcast.guard.limits import Account, Allocation
from epochcast.guard.run_state import Samples
from epochcast.planning.limits import meter_of
from epochcast.records import (
    Budget,
    EpochDone,
    LimitName,
    Notice,
    Plan,
    Position,
    Quantiles,
    RunConfig,
    RunEnded,
    RunEvent,
    RunStarted,
    StopReason,
    Warning_,
)
from epochcast.scripts import events as e
from epochcast.scripts.asking import STOPS, Asking
from epochcast.scripts.command import processes_said
from epochcast.scripts.tracker import EpochSeen, Tracker, work_left
from epochcast.scripts.unplanned import (
    config_seen,
    epochs_declared,
    epochs_said,
    options_of,
    steps_among,
    unplanned,
)
from epochcast.units import format_seconds, format_span

TIMED: tuple[LimitName, ...] = ("deadline", "money", "energy")
FIRST_WORD = 5.0  # seconds of training, before the first word on the time that is left
LATER_WORD = 2.0  # times the time of the last word, where no epoch has ended since
LEADER_WAITS = 2.0  # seconds for the process of rank 0 to show itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What is known before the command starts.

    Attributes:
        run: the run's name.
        workload: what the script is called.
        arguments: of the command.
        began, wall: when it started, by the monotonic clock and in seconds since 1970.
        before: seconds before that of which limits count too, our own start.
        plan: that it was started by; None for none.
        budget: what it may use.
        epochs: that it will train, where whoever started it said so.
        steps_per_epoch: likewise; where no loader says how long an epoch is.
        lead: seconds before the deadline at which it is to be asked; None: as long as it takes.
        allocation: of the scheduler.
    """

    run: str
    workload: str
    arguments: tuple[str, ...]
    began: float
    wall: float
    before: float = 0.0
    plan: Plan | None = None
    budget: Budget = field(default_factory=Budget)
    epochs: int | None = None
    steps_per_epoch: int | None = None
    lead: float | None = None
    allocation: Allocation = field(default_factory=Allocation)


class Watch:
    """One run.

    Args:
        watched: what is known of it.

    Attributes:
        forecast: what epochs, evaluations and saves take, as learned so far.
        samples: seconds of what was seen.
        asked: when the script was asked to leave; None while it was not.
        trained_until: the end of the last epoch, its evaluation and its save included.
    """

    def __init__(self, watched: Watched) -> None:
        self.watched = watched
        self._trackers: dict[int, Tracker] = {}
        self._leader: int | None = None
        self.plan = watched.plan or unplanned(watched.workload, watched.budget)
        self.forecast = Forecast.of_plan(self.plan.prices)
        self.samples = Samples()
        self.asked: float | None = None
        self._unaskable = False  # that this was said
        self.trained_until = watched.began
        self._schedule = Schedule.of_plan(self.plan)
        self._started = False
        self._predicted = self.forecast.quantiles(Work(epochs=1.0, first=True))
        self._spoke_at = 0.0
        self._told_of_end = False
        self._steps = 0

    # -- what is seen -----------------------------------------------------------------------------

    def see(self, pid: int, event: e.Event) -> None:
        """One more event of a process."""
        if pid not in self._trackers:
            steps = self.plan.segment_steps or self.watched.steps_per_epoch
            self._trackers[pid] = Tracker(steps, self.plan.segment_steps is not None)
        self._trackers[pid].see(event)

    @property
    def leader(self) -> Tracker | None:
        """The process whose epochs count: of those that train together the one of rank 0."""
        return None if self._leader is None else self._trackers[self._leader]

    @property
    def training(self) -> tuple[int, ...]:
        """The processes that train and have not ended."""
        every = self._trackers.items()
        return tuple(pid for pid, one in every if one.steps and one.ended is None)

    @property
    def stop(self) -> str | None:
        """Whose own stop makes the script leave, of ``STOPS``; None where none of them trains."""
        every = (event for one in self._trackers.values() for event in one.lasting)
        seen = {event.name for event in every if isinstance(event, e.Feature)}
        return next((name for name in STOPS if name in seen), None)

    def _choose_leader(self, now: float) -> Tracker | None:
        if self._leader is not None:
            return self._trackers[self._leader]
        found = [pid for pid, tracker in self._trackers.items() if tracker.steps]
        if not found:
            return None
        first = min(found, key=lambda pid: self._trackers[pid].rank)
        tracker = self._trackers[first]
        if tracker.rank and now - tracker.first_at < LEADER_WAITS:
            return None
        self._leader = first
        return tracker

    @property
    def epochs(self) -> int | None:
        """That the run will have: as planned, as was said, or as its own options say."""
        if self.watched.plan is not None:
            return self.watched.plan.chosen.epochs
        return self.watched.epochs or epochs_said(self.leader, self.watched.arguments)

    # -- what is said -----------------------------------------------------------------------------

    def look(self, now: float) -> list[RunEvent]:
        """What there is to tell at a moment, since the last look.

        Args:
            now: by the monotonic clock.
        """
        tracker = self._choose_leader(now)
        if tracker is None:
            return []
        told: list[RunEvent] = [] if self._started else list(self._start(tracker))
        for epoch in tracker.take():
            told += self._epoch(epoch, now)
            self._spoke_at = now
        return [*told, *self._words(tracker, now)]

    def _start(self, tracker: Tracker) -> Sequence[RunEvent]:
        """The first step was seen: what runs is known."""
        self._started, w = True, self.watched
        if tracker.by_steps and tracker.per_epoch is None:
            tracker.per_epoch = steps_among(options_of(tracker))  # one segment, of the whole run
        seen = config_seen(tracker)
        if self.watched.plan is None:
            self.plan = unplanned(w.workload, w.budget, tracker, self.epochs)
        self._spoke_at = tracker.first_at
        startup = tracker.first_at - self.watched.began
        self.samples = self.samples.add("startup", startup)
        meter, planned = meter_of(self.plan), self.watched.plan is not None
        limits = ((name, getattr(meter.budget, name)) for name in TIMED)
        timeline = self.plan.timeline
        start = RunStarted(
            run=self.watched.run,
            process=1,
            wall_time=self._wall(tracker.first_at),
            workload=self.watched.workload,
            config=self.plan.chosen.config,
            position=Position(),
            spent_seconds=max(0.0, startup),
            end_epochs=self.epochs or 0,
            confidence=self.plan.budget.confidence,
            metric="",
            predicted=self.plan.prices,
            limits=tuple((name, limit) for name, limit in limits if limit is not None),
            binding_seconds=tuple(meter.binding_seconds().items()),
            planned_seconds=timeline[-1].seconds if planned and timeline else None,
            segment_steps=self.plan.segment_steps,
            watched=True,
        )
        return start, *self._notices(self._differences(tracker, seen), tracker.first_at)

    def _differences(self, tracker: Tracker, seen: RunConfig) -> list[Warning_]:
        """What is otherwise than planned, or only assumed."""
        plan, found = self.watched.plan, []
        said = processes_said(self.watched.arguments)
        if said is not None and said > seen.world_size:
            found.append(Warning_.of("fewer-processes", said=str(said), seen=str(seen.world_size)))
        if plan is None:
            if self.epochs is not None and not (self.watched.epochs or epochs_declared(tracker)):
                found.append(Warning_.of("epochs-by-options", epochs=str(self.epochs)))
            return found
        planned = plan.chosen.config
        if tracker.loader is not None and seen.batch_size != planned.batch_size:
            batches = {"planned": str(planned.batch_size), "seen": str(seen.batch_size)}
            found.append(Warning_.of("batch-differs", **batches))
        if plan.workload != self.watched.workload:
            names = {"planned": plan.workload, "seen": self.watched.workload}
            found.append(Warning_.of("script-differs", **names))
        return found

    def _epoch(self, epoch: EpochSeen, now: float) -> list[RunEvent]:
        """An epoch is over: learn from it, and say what it took."""
        told = self._learn(epoch)
        self._steps += epoch.steps
        self.trained_until = epoch.ended
        outlook = self._outlook(now)
        spent = epoch.ended - self.watched.began
        if outlook is None:
            projected = Quantiles.exactly(spent)
        else:
            forecast, work = outlook
            over = work == Work()
            at = spent if over else now - self.watched.began
            projected = forecast.quantiles(work) + Quantiles.exactly(at)
        account = self.account
        done = EpochDone(
            wall_time=self._wall(epoch.ended),
            position=self._position(epoch),
            first=epoch.number == 1,
            predicted=self._predicted,
            seconds=epoch.seconds,
            pace=self.forecast.epoch.ratio,
            evaluation_seconds=sum(epoch.evaluations) if epoch.evaluations else None,
            save_seconds=sum(epoch.saves) if epoch.saves else None,
            spent_seconds=spent,
            spent_money=account.money(spent),
            spent_joules=account.joules(spent),
            projected_seconds=projected,
            projected_money=account.money(projected.p50),
            end_epochs=self.epochs or 0,
            on_plan_probability=self.on_plan(now),
            reason=StopReason.BUDGET if self.asked is not None and not epoch.whole else None,
        )
        self._predicted = self._next_epoch()
        return [*told, done]

    def _position(self, epoch: EpochSeen) -> Position:
        if epoch.whole:
            return Position(epoch=epoch.number, steps=self._steps)
        return Position(epoch=epoch.number - 1, step=epoch.steps, steps=self._steps)

    def _learn(self, epoch: EpochSeen) -> list[RunEvent]:
        """What an epoch took; the first of a process says nothing of the others."""
        told: list[Warning_] = []
        before = self.forecast.epoch
        for part in ("evaluation", "save"):
            for seconds in getattr(epoch, f"{part}s"):
                self.forecast = self.forecast.saw(part, seconds)
                self.samples = self.samples.add(part, seconds)
        if epoch.whole and epoch.number == 1:
            self.samples = self.samples.add("first_epoch", epoch.seconds)
            told += self._steps_differ(epoch)
        elif epoch.whole:
            self.forecast = self.forecast.saw("epoch", epoch.seconds)
            self.samples = self.samples.add("epoch", epoch.seconds)
        after = self.forecast.epoch
        if after.jumped and before.seen:
            ratios = {"ratio_before": f"{before.ratio:.2f}", "ratio_after": f"{after.ratio:.2f}"}
            told.append(Warning_.of("drift", **ratios))
        return self._notices(told, epoch.ended)

    def _steps_differ(self, epoch: EpochSeen) -> list[Warning_]:
        planned = self.plan.chosen.steps_per_epoch
        batches = planned * self.plan.chosen.config.accumulation  # where each has a step
        if self.watched.plan is None or epoch.steps in (planned, batches):
            return []
        return [Warning_.of("steps-differ", planned=str(planned), seen=str(epoch.steps))]

    def _next_epoch(self) -> Quantiles:
        """What the next one is to take, by what is known now."""
        tracker = self.leader
        batches = tracker.batches_an_epoch if tracker else None
        unknown = self.forecast.epoch.planned is None
        if unknown and tracker and tracker.pace.is_known and batches:
            forecast, blocks = tracker.pace.forecast(self.forecast, batches)
            return forecast.quantiles(Work(epochs=blocks))
        return self._best_forecast.quantiles(Work(epochs=1.0))

    # -- what is left -----------------------------------------------------------------------------

    @property
    def account(self) -> Account:
        """Of time, money and energy."""
        w = self.watched
        return Account(
            plan=self.plan,
            allocation=w.allocation,
            run_began=w.wall - w.before,
            process_began=w.wall - w.before,
            process_zero=w.began - w.before,
        )

    def _outlook(self, now: float) -> tuple[Forecast, Work] | None:
        """What is still to be done, and how long its parts take; None if nobody knows."""
        tracker, epochs = self.leader, self.epochs
        if tracker is None or epochs is None:
            return None
        return work_left(tracker, self._best_forecast, epochs, self._others(tracker, epochs))

    @property
    def _best_forecast(self) -> Forecast:
        """Where nobody knows better, an epoch takes as long as the first did, slow as it was."""
        first, epoch, tracker = self.samples.first_epoch, self.forecast.epoch, self.leader
        by_steps = tracker is not None and tracker.pace.is_known and tracker.batches_an_epoch
        if epoch.planned is not None or by_steps or not first:
            return self.forecast
        return replace(self.forecast, epoch=epoch.update(first[-1]))

    def _others(self, tracker: Tracker, epochs: int) -> Work:
        """Evaluations and saves still to come: as often as before, or as planned."""
        done, left = tracker.done, max(0, epochs - tracker.done)
        if done:
            evaluations = len(self.samples.evaluation) / done * left
            saves = len(self.samples.save) / done * left
        elif self.watched.plan is None:
            return Work()
        else:
            evaluations = float(self._schedule.evaluations_between(done, epochs))
            saves = float(self._schedule.saves_between(done, epochs))
        return Work(evaluations=evaluations, saves=saves)

    def on_plan(self, now: float) -> float | None:
        """The probability that all limits hold to the last epoch; None without limits."""
        left, outlook = self.account.left(now), self._outlook(now)
        if not isfinite(left) or outlook is None:
            return None
        forecast, work = outlook
        return forecast.probability(work, left)

    def _words(self, tracker: Tracker, now: float) -> list[RunEvent]:
        """On the time that is left, where no epoch has said so for long."""
        since = now - tracker.first_at
        due = max(FIRST_WORD, LATER_WORD * (self._spoke_at - tracker.first_at))
        if since < due or not tracker.pace.is_known or tracker.ended is not None:
            return []
        self._spoke_at = now
        return self._notices([self._time_left(tracker, now)], now)

    def _time_left(self, tracker: Tracker, now: float) -> Warning_:
        outlook, steps = self._outlook(now), f"{tracker.steps:,}"
        if outlook is None:
            needs = ", --steps-per-epoch" if tracker.batches_an_epoch is None else ""
            seconds = format_seconds(tracker.pace.level.median)
            return Warning_.of(
                "time-left-unknown", steps=steps, seconds=seconds, steps_per_epoch=needs
            )
        forecast, work = outlook
        left = forecast.quantiles(work)
        unseen = not (work.evaluations or work.saves or tracker.done)
        beside = (
            "; evaluations and saves, of which none was seen yet, come on top" if unseen else ""
        )
        span = format_span(left.p10, left.p90)
        return Warning_.of(
            "time-left", steps=steps, span=span, epochs=str(self.epochs), beside=beside
        )

    # -- the deadline -----------------------------------------------------------------------------

    def asks_at(self, now: float) -> float:
        """When the script has to be asked to save and leave; infinite without a limit on time."""
        left, tracker = self.account.left(now), self.leader
        if not isfinite(left) or self.asked is not None:
            return inf
        if tracker is None:  # nothing was trained that could be saved
            return now + left
        asking = Asking(
            tracker=tracker,
            forecast=self.forecast,
            samples=self.samples,
            planned=self.plan.prices,
            startup=tracker.first_at - self.watched.began,
            processes=self.plan.chosen.config.world_size,
            way=self.stop,
        )
        return asking.at(now, now + left, self.watched.lead)

    def ask(self, now: float, way: str) -> list[RunEvent]:
        """The script was asked, in some way; what there is to tell.

        Args:
            now: when.
            way: in words; empty where it cannot be asked.
        """
        if not way and self._unaskable:
            return []
        left = format_seconds(max(0.0, self.account.left(now)))
        details = {"left": left, "limit": self._limit()}
        if not way:  # yet: it is tried again
            self._unaskable = True
            return self._notices([Warning_.of("cannot-be-asked", **details)], now)
        self.asked = now
        return self._notices([Warning_.of("asked-to-leave", way=way, **details)], now)

    def _limit(self) -> str:
        """The one that binds, in words."""
        return f"the {self.account.binding or 'time'}"

    def passed(self, now: float, ends: bool) -> list[RunEvent]:
        """Once, that a limit is used up and the command still runs.

        Args:
            now: when.
            ends: whether it is ended for that.
        """
        if self.account.left(now) > 0 or self._told_of_end:
            return []
        self._told_of_end = True
        code = "limit-ends" if ends else "limit-passed"
        return self._notices([Warning_.of(code, limit=self._limit())], now)

    # -- the end ----------------------------------------------------------------------------------

    def end(self, now: float, exit_code: int, signalled: str = "") -> list[RunEvent]:
        """The command has ended.

        Args:
            now: when.
            exit_code: its own; 128 and more where a signal ended it.
            signalled: the signal that was passed on to it, if any.
        """
        told = self.look(now) if self.leader else self.look(now + LEADER_WAITS)
        tracker = self.leader
        if tracker is not None:
            tracker.finish()
            told += self.look(now)
        if signalled:
            told += self._notices([Warning_.of("signal-passed-on", name=signalled)], now)
        if tracker is None:
            return told
        saved = tracker.saved
        account, spent = self.account, now - self.watched.began
        asked = self.asked is not None
        reason = StopReason.SIGNAL if signalled else StopReason.BUDGET if asked else None
        if reason is None and exit_code == 0 and tracker.done >= (self.epochs or 0):
            reason = StopReason.PLAN_DONE
        ended = RunEnded(
            wall_time=self._wall(now),
            position=self._here(tracker),
            reason=reason,
            limit=account.binding if reason is StopReason.BUDGET else None,
            spent_seconds=spent,
            spent_money=account.money(spent),
            spent_joules=account.joules(spent),
            end_epochs=self.epochs or 0,
            last_checkpoint=saved.path if saved else None,
            best_checkpoint=None,
            best_value=None,
            best_epoch=None,
            exit_code=exit_code,
        )
        return [*told, ended]

    # -- words ------------------------------------------------------------------------------------

    def _wall(self, at: float) -> float:
        return self.watched.wall + at - self.watched.began

    def _here(self, tracker: Tracker) -> Position:
        return Position(epoch=tracker.done, step=tracker.epoch_steps, steps=tracker.steps)

    def _notices(self, found: Sequence[Warning_], at: float) -> list[RunEvent]:
        tracker = self.leader
        position = self._here(tracker) if tracker else Position()
        return [Notice(wall_time=self._wall(at), position=position, notice=x) for x in found]
