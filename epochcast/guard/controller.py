"""What a run does next: functions of its state and of one moment; no clock, no disk.

    plan, policy ─┐
    RunState ─────┼─▶ Controller ─▶ the next RunState, and a Decision: stop? save? evaluate?
    Moment ───────┘

                     next_epoch                         may the next segment begin?
    elapsed ──┬──────────┬─────────────────────┬───────────────┬──────────────▶ limit
              │  step … step                   │ evaluation    │ last save    │
              │  each: now + bound < limit − reserve           │◀── reserve ─▶│

At an epoch's end the next segment (epoch, evaluation if one is planned, save) must fit into what is
left with the plan's confidence; where it does not, as many steps are taken as fit.

The end moves down when the plan's end no longer fits well enough, and up again, never beyond the
plan, when clearly more fits: a band around the confidence keeps it from moving with every epoch.
After a jump of the pace there is no band. Saves keep the plan's epochs while epochs and saves
take about what was planned, and an interval in seconds when they do not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from math import ceil, log, log2

from epochcast.costmodel.epoch import division_of
from epochcast.guard.forecast import Level, Work
from epochcast.guard.run_state import RunState
from epochcast.guard.segments import last_share
from epochcast.planning.cadence import final_save_lead, save_interval
from epochcast.records import Plan, StopReason, Warning_
from epochcast.records.epoch_ranges import EpochSequence

BAND = 0.05  # of probability, below the confidence, in which the end stays
GROWTH = 0.05  # of the plan's epochs, that must be gained for the end to move up
AS_PLANNED = log(1.25)  # how far pace and interval may be off for the planned epochs to hold
LEAVE_SECONDS = 0.1  # the last note and leaving a framework's loop: 2 to 25 ms on a busy CPU
SURE = 0.95  # of what must fit before a hard end, where the plan asks for less
MAX_STEPS = 10**9  # without any limit, as many as there are


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How a run is followed, as whoever starts it wants it.

    Attributes:
        partial_epochs: whether to use up the budget with part of an epoch, where no whole one fits.
        keep_best: whether to save whenever the plan's metric is the best so far.
        rehearse: whether to save after the very first step, to find out at once that saving works
            and how long it takes.
        all_ranks_save: whether every process writes into the checkpoint (sharded models), or the
            first alone.
        per_update: whether ``step`` is called after each update of the weights, or after each of
            the batches that are accumulated for one.
    """

    partial_epochs: bool = True
    keep_best: bool = True
    rehearse: bool = True
    all_ranks_save: bool = False
    per_update: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What is seen when something is decided.

    Attributes:
        now: in seconds of the monotonic clock.
        left: seconds until the first limit is used up.
        first_bound: seconds that the next step is not expected to exceed, and
        step_bound: each of those that follow; the first one of an epoch waits for the loader.
        signalled: whether a signal asked the run to leave.
    """

    now: float
    left: float
    first_bound: float
    step_bound: float
    signalled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What is to be done.

    Attributes:
        reason: why to stop; None to go on.
        evaluate, save: whether to do so now.
        notices: what people should know of it; texts are in report.
        error: what is wrong with the run; to be raised with a checkpoint in hand.
    """

    reason: StopReason | None = None
    evaluate: bool = False
    save: bool = False
    notices: tuple[Warning_, ...] = ()
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """After which epochs something is planned, counted from 1 and in increasing order.

    Attributes:
        last: the plan's last epoch; a run may end earlier, and is evaluated and saved there too.
        last_share: of an epoch that the last one has: less where it is a segment of steps.
        save_interval: seconds of work between two saves; None if saves are not for safety.
    """

    last: int
    evaluations: EpochSequence
    saves: EpochSequence
    save_interval: float | None
    last_share: float = 1.0

    @classmethod
    def of_plan(cls, plan: Plan) -> Schedule:
        """As it was planned."""
        return cls(
            last=plan.chosen.epochs,
            evaluations=plan.epochs_of("evaluate"),
            saves=plan.epochs_of("save"),
            save_interval=plan.save_interval_seconds,
            last_share=last_share(plan),
        )

    def share(self, epoch: int) -> float:
        """Of an ordinary epoch that this one has."""
        return self.last_share if epoch == self.last else 1.0

    def evaluates(self, epoch: int, end: int) -> bool:
        """Whether an evaluation is planned after this epoch of a run that ends after another."""
        return epoch in self.evaluations or (bool(self.evaluations) and epoch == end)

    def saves_at(
        self, epoch: int, *, since_save: float, epoch_seconds: float, pace: float, interval: float
    ) -> bool:
        """Whether a save is planned after this epoch, unless the run ends there.

        Args:
            epoch: counted from 1.
            since_save: seconds of work that a failure now would lose.
            epoch_seconds: that the next epoch takes.
            pace: actual over planned time of an epoch.
            interval: seconds of work between saves, as planned by what a save takes in this run.
        """
        if self.save_interval is None or _alike(pace, interval / self.save_interval):
            return epoch in self.saves
        return since_save + epoch_seconds / 2 >= interval

    def evaluations_between(self, done: int, end: int) -> int:
        """Planned after epoch ``done``, up to and including ``end``."""
        return _between(self.evaluations, done, end)

    def saves_between(self, done: int, end: int) -> int:
        """Planned after epoch ``done``, up to and including ``end``."""
        return max(_between(self.saves, done, end), int(end > done))


@dataclass(frozen=True, slots=True, kw_only=True)
class Controller:
    """Decides for one plan and policy; every method is a function of its arguments.

    Attributes:
        schedule: of the plan.
        planned_steps: calls of ``Guard.step`` in an epoch.
    """

    plan: Plan
    policy: Policy
    schedule: Schedule
    planned_steps: int

    @classmethod
    def of_plan(cls, plan: Plan, policy: Policy) -> Controller:
        """For a run that follows a plan."""
        steps = planned_steps(plan, policy.per_update)
        return cls(plan=plan, policy=policy, schedule=Schedule.of_plan(plan), planned_steps=steps)

    # ── what is still to be done, and whether it fits ────────────────────────────────────────

    def segment(self, state: RunState) -> Work:
        """The next epoch and its evaluation; its save is what the reserve is for."""
        evaluates = self.schedule.evaluates(state.done + 1, state.end)
        share = self.schedule.share(state.done + 1)
        return Work(epochs=share, evaluations=float(evaluates), first=state.first)

    def rest(self, state: RunState, end: int) -> Work:
        """Everything up to the end of an epoch: the last save, and one of each best, included."""
        if end <= state.done:
            return Work()
        evaluations = self.schedule.evaluations_between(state.done, end)
        saves = self.schedule.saves_between(state.done, end)
        improving = state.metrics.improving if self.policy.keep_best else 0.0
        return Work(
            epochs=end - state.done - 1 + self.schedule.share(end),
            evaluations=evaluations,
            saves=saves + improving * max(0, evaluations - saves),
            first=state.first,
        )

    def probability(self, state: RunState, moment: Moment, end: int) -> float:
        """The probability that a run to the end of an epoch keeps all limits.

        Args:
            state: of the run, with what it has learned of its own speed.
            moment: now; what is left of the limits counts.
            end: number of the epoch after which the run would end.
        """
        return state.forecast.probability(self.rest(state, end), moment.left)

    def reserve(self, state: RunState, moment: Moment) -> float:
        """Seconds before the limit at which the last save must begin, to leave in time after it."""
        save, at_risk = state.forecast.save, moment.now - state.saved_at
        sure = max(SURE, self.plan.budget.confidence)
        upper = max(save.quantile(1, sure), self.plan.prices.save.p95)
        if at_risk > upper and save.planned is not None:
            upper = max(upper, _lead(save, 2.0 ** ceil(log2(at_risk))))
        return upper + LEAVE_SECONDS

    def last_save_at(self, state: RunState, moment: Moment) -> float:
        """When the last save must begin."""
        return moment.now + moment.left - self.reserve(state, moment)

    def steps_that_fit(self, state: RunState, moment: Moment) -> int:
        """Before the last save must begin."""
        room = moment.left - self.reserve(state, moment) - moment.first_bound
        return 0 if room < 0 else 1 + int(min(room / moment.step_bound, MAX_STEPS))

    # ── decisions ────────────────────────────────────────────────────────────────────────────

    def over_already(self, state: RunState, moment: Moment) -> StopReason | None:
        """Why an earlier process ended the run for good; None where it goes on."""
        more = state.done < self.schedule.last
        over = state.ledger.is_over(more, more and self.steps_that_fit(state, moment) > 0)
        return state.ledger.reason if over else None

    def next_epoch(self, state: RunState, moment: Moment) -> tuple[RunState, Decision]:
        """Whether a further epoch, or some steps of one, is to be trained."""
        if moment.signalled:
            return state, Decision(reason=StopReason.SIGNAL)
        if state.done >= self.schedule.last:
            return state, Decision(reason=StopReason.PLAN_DONE)
        if state.done >= state.end:  # a shorter end is reached: is there time to spare after all?
            state = replace(state, end=self._last_that_fits(state, moment, state.done + 1))
        needed = state.forecast.seconds(self.segment(state), self.plan.budget.confidence)
        if needed + self.reserve(state, moment) <= moment.left:
            return state, Decision()
        steps = self.steps_that_fit(state, moment)
        if not (self.policy.partial_epochs and steps):
            return state, Decision(reason=StopReason.BUDGET)
        of = self.steps_of(state)
        return state, Decision(notices=(Warning_.of("cut", steps=str(min(of, steps)), of=str(of)),))

    def steps_of(self, state: RunState) -> int:
        """Calls of ``Guard.step`` that the present epoch, or the next one, has."""
        usual = state.epoch_steps or self.planned_steps
        return max(1, round(usual * self.schedule.share(state.done + 1)))

    def begin_epoch(self, state: RunState, moment: Moment) -> RunState:
        """The next epoch begins: what it is to take is forecast now."""
        work = Work(epochs=self.schedule.share(state.done + 1), first=state.first)
        return state.begin_epoch(moment.now, state.forecast.quantiles(work))

    def evaluation(self, state: RunState, moment: Moment, planned: bool) -> Decision:
        """Whether to evaluate after the present epoch.

        Args:
            state: of the run.
            moment: now.
            planned: whether only if an evaluation is planned there, or wherever there is time.
        """
        epoch = state.done + 1
        if planned and not self.schedule.evaluates(epoch, state.end):
            return Decision()
        level = state.forecast.evaluation
        bound = max(level.quantile(1, SURE), self.plan.prices.evaluation.p95)
        if bound + self.reserve(state, moment) <= moment.left:
            return Decision(evaluate=True)
        return Decision(notices=(Warning_.of("evaluation-skipped", epoch=str(epoch)),))

    def saves(self, state: RunState, moment: Moment, epoch: int) -> bool:
        """Whether a save is planned after an epoch.

        Args:
            state: of the run: when it saved last, and what a save and an epoch take it.
            moment: now, as the epoch ends.
            epoch: its number, from 1; after the last one there is always a save.
        """
        level = state.forecast.epoch
        interval = save_interval(state.forecast.save.median, self.plan.mtbf_seconds)
        return epoch == state.end or self.schedule.saves_at(
            epoch,
            since_save=moment.now - state.saved_at,
            epoch_seconds=level.median,
            pace=level.ratio,
            interval=interval,
        )

    def end_epoch(self, state: RunState, moment: Moment, step: int) -> tuple[RunState, Decision]:
        """An epoch is over: learn from it, plan anew, and see whether the run ends here.

        Args:
            state: in which the epoch is in progress, its evaluation over.
            moment: now.
            step: of the epoch, the last one.
        """
        shorter = self.schedule.share(state.done + 1) < 1
        ended = state.end_epoch(moment.now, step, shorter)
        teaches = not (state.epoch.first or state.epoch.skipped or shorter)
        jumped = ended.forecast.epoch.jumped and teaches
        missed, missing = self._missing_report(ended)
        planned, replanned = self.replan(missed, moment, jumped)
        notices = (*self._steps_notice(state, step), *missing.notices)
        if jumped:
            notices = (*notices, _drift(state, ended))
        decision = replace(missing, reason=planned.verdict or self._reason_to_end(planned, moment))
        save = self.saves(planned, moment, planned.done)
        return planned, replace(
            decision,
            save=save or (planned.improved and self.policy.keep_best),
            notices=(*notices, *replanned.notices),
        )

    def replan(
        self, state: RunState, moment: Moment, jumped: bool = False
    ) -> tuple[RunState, Decision]:
        """Move the end to where it should be now.

        Args:
            state: between two epochs.
            moment: now.
            jumped: whether the pace has just changed for good.
        """
        chance = partial(self.probability, state, moment)
        confidence = self.plan.budget.confidence
        end = moved_end(state.done, state.end, self.schedule.last, chance, confidence, jumped)
        if end == state.end:
            return state, Decision()
        why = _why(end < state.end, jumped)
        notices = [Warning_.of("replanned", old=str(state.end), new=str(end), why=why)]
        if end < state.end:
            chosen = self.plan.chosen
            horizon = chosen.horizon_steps
            steps = min(end * chosen.steps_per_epoch, horizon)
            shortened = {"steps": f"{steps:,}", "horizon": f"{horizon:,}"}
            notices.append(Warning_.of("schedule-shortened", **shortened))
        return replace(state, end=end), Decision(notices=tuple(notices))

    def more(self, state: RunState, moment: Moment) -> Decision:
        """After the plan's end: whether more of what was wanted would fit now."""
        wanted = self.plan.chosen.target_epochs or self.plan.max_epochs or 0
        if wanted <= state.done:
            return Decision()
        chance = partial(self.probability, state, moment)
        reachable = last_that_fits(state.done, wanted, chance, self.plan.budget.confidence)
        offered = (Warning_.of("could-continue", epochs=str(reachable - state.done)),)
        return Decision(notices=offered if reachable > state.done else ())

    def _last_that_fits(self, state: RunState, moment: Moment, fits: int) -> int:
        chance = partial(self.probability, state, moment)
        return last_that_fits(fits, self.schedule.last, chance, self.plan.budget.confidence)

    def _reason_to_end(self, state: RunState, moment: Moment) -> StopReason | None:
        """Why an epoch was the last one, however much time is left."""
        if moment.signalled:
            return StopReason.SIGNAL
        return StopReason.PLAN_DONE if state.done >= self.schedule.last else None

    def epoch_share(self, steps: int | None) -> float:
        """Steps that an epoch has, over those that were planned; None is unknown.

        Whoever accumulates may call ``step`` after each update, or after each batch.
        """
        if steps in (None, 0, self.planned_steps, self.plan.chosen.steps_per_epoch):
            return 1.0
        return steps / self.planned_steps

    def _steps_notice(self, state: RunState, step: int) -> tuple[Warning_, ...]:
        """A run that takes other steps than planned is another run; said once."""
        known = state.epoch.skipped or state.epoch_steps is not None
        known = known or self.schedule.share(state.done + 1) < 1
        if known or self.epoch_share(step) == 1:
            return ()
        return (Warning_.of("steps-differ", planned=str(self.planned_steps), seen=str(step)),)

    def _missing_report(self, state: RunState) -> tuple[RunState, Decision]:
        """Rules that are never shown a value stop nothing; said once, an error with other values.

        The state is that after the epoch, before its end has moved.
        """
        metric, values = self.plan.metric, state.epoch.values
        watched = self.plan.stop_rules and self.schedule.evaluates(state.done, state.end)
        if not watched or metric in values or state.missed:
            return state, Decision()
        state, epoch = replace(state, missed=True), str(state.done)
        if not values:
            return state, Decision(notices=(Warning_.of("not-evaluated", epoch=epoch),))
        error = f"the plan's stop rules watch {metric}, but only {', '.join(values)} was reported"
        return state, Decision(
            notices=(Warning_.of("no-report", metric=metric, epoch=epoch),),
            error=None if state.metrics.checks else error,
        )


def moved_end(
    done: int,
    end: int,
    last: int,
    probability: Callable[[int], float],
    confidence: float,
    jumped: bool,
) -> int:
    """After which epoch a run should end now.

    Args:
        done: whole epochs done.
        end: as planned so far.
        last: of the plan.
        probability: that a run to the end of an epoch keeps all limits; falls with the epoch.
        confidence: that is asked for.
        jumped: whether the pace has just changed for good.
    """
    band = 0.0 if jumped else BAND
    if end > done and probability(end) < confidence - band:
        return last_that_fits(done, end, probability, confidence)
    if end < last:
        reachable = last_that_fits(end, last, probability, confidence)
        if reachable - end >= max(1.0, GROWTH * last):
            return reachable
    return end


def last_that_fits(
    fits: int, fails: int, probability: Callable[[int], float], confidence: float
) -> int:
    """The largest end that keeps all limits with a confidence.

    Args:
        fits: an end that is taken to fit.
        fails: the largest that is asked for.
        probability: that a run to the end of an epoch keeps all limits.
        confidence: that is asked for.
    """
    if probability(fails) >= confidence:
        return fails
    while fails - fits > 1:
        middle = (fits + fails) // 2
        if probability(middle) >= confidence:
            fits = middle
        else:
            fails = middle
    return fits


def planned_steps(plan: Plan, per_update: bool) -> int:
    """Calls of ``Guard.step`` in an epoch: one for each update, or for each of its batches."""
    if per_update:
        return plan.chosen.steps_per_epoch
    return max(1, division_of(plan.samples, plan.chosen.config).micro_batches)


def _drift(before: RunState, after: RunState) -> Warning_:
    was, now = before.forecast.epoch.ratio, after.forecast.epoch.ratio
    return Warning_.of("drift", ratio_before=f"{was:.2f}", ratio_after=f"{now:.2f}")


def _why(shorter: bool, jumped: bool) -> str:
    if jumped:
        return "the time of an epoch has jumped"
    return "it takes more time than planned" if shorter else "there is time to spare again"


@lru_cache(maxsize=64)
def _lead(save: Level, at_risk: float) -> float:
    return final_save_lead(at_risk, lambda p: save.quantile(1, p))


def _alike(*ratios: float) -> bool:
    return all(ratio > 0 and abs(log(ratio)) < AS_PLANNED for ratio in ratios)


def _between(epochs: EpochSequence, done: int, end: int) -> int:
    """With one more at an end that is not among them."""
    count = epochs.until(end) - epochs.until(done)
    return count + int(bool(epochs) and end > done and end not in epochs)
