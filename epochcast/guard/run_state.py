"""One run as it stands: an immutable state, and how it changes; no clock, no disk.

    RunState ─┬─ Ledger         across processes: time used, what was learned, why it ended
              ├─ MetricState    across processes, as of the newest checkpoint
              ├─ Epoch          the one in progress, in this process
              └─ how far the run has come, where it is to end, what was saved

    began    step … step    evaluation    save    now       training = now − began − aside
    ├─────────────────────┼──────────── aside ───┤

Time that was used stays used when a run goes back to its last checkpoint, and so does what was
learned of its pace; what stop rules remember goes back with the weights. All moments are in seconds
of the monotonic clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from epochcast.guard.forecast import Forecast, Part
from epochcast.guard.metrics import MetricState, RuleStates
from epochcast.records import SCHEMA, Position, Quantiles, StopReason
from epochcast.records.plan import LONGEST
from epochcast.records.validation import require_seconds, require_within

KEPT_SAMPLES = 1000  # of each kind, the latest: enough to judge a prediction by


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Seconds of what was seen, of all processes; for the outcome of the run."""

    startup: tuple[float, ...] = ()
    first_epoch: tuple[float, ...] = ()
    epoch: tuple[float, ...] = ()
    evaluation: tuple[float, ...] = ()
    save: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        require_seconds(self, "startup", "first_epoch", "epoch", "evaluation", "save")

    def add(self, kind: str, seconds: float) -> Samples:
        """With one more."""
        kept = (*getattr(self, kind), seconds)[-KEPT_SAMPLES:]
        return replace(self, **{kind: kept})


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """A run's memory across its processes; written as ``ledger.json``.

    Attributes:
        run: its name, made when it began.
        plan: a hash of the plan that was followed last.
        processes: that have followed it.
        began_at: seconds since 1970, UTC.
        spent_seconds: of all processes, up to the last time this was written.
        steps: done by then, some of them perhaps lost since.
        reason: why the run ended; None while it goes on.
        saves: checkpoints made so far; the number of the newest.
    """

    schema: int = SCHEMA
    run: str
    workload: str
    plan: str
    processes: int
    began_at: float
    spent_seconds: float
    forecast: Forecast
    steps: int = 0
    samples: Samples = field(default_factory=Samples)
    reason: StopReason | None = None
    saves: int = 0

    def __post_init__(self) -> None:
        require_within(self, 0, LONGEST, "spent_seconds", "steps", "saves")
        require_within(self, 1, LONGEST, "processes")
        require_within(self, -LONGEST, LONGEST, "began_at")

    def is_over(self, epochs_left: bool, time_left: bool) -> bool:
        """Whether the run ended for good.

        Args:
            epochs_left: whether the plan has epochs left to train: another plan may.
            time_left: whether the budget has: another allocation, or another plan, may.
        """
        goes_on = {
            None: True,
            StopReason.SIGNAL: True,
            StopReason.PLAN_DONE: epochs_left,
            StopReason.BUDGET: time_left,
        }
        return not goes_on.get(self.reason, False)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSeen:
    """A file of a checkpoint as it was saved; ``crc`` is None of one that is too large for it."""

    name: str
    size: int
    crc: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointState:
    """What belongs to one checkpoint; written into it as ``state.json``.

    Attributes:
        is_best: whether it holds the best value's weights.
        ledger: as it was then, should the newer one be lost.
        files: of the checkpoint, to find damage by.
    """

    schema: int = SCHEMA
    position: Position
    metrics: MetricState = field(default_factory=MetricState)
    is_best: bool = False
    ledger: Ledger | None = None
    files: tuple[FileSeen, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """An epoch so far.

    Attributes:
        began: when its training began in this process.
        first: whether it is the first of its process, slow first steps included.
        skipped: steps that an earlier process did.
        predicted: seconds that it was to take, evaluation and saves excluded.
        aside: seconds that were not training.
        evaluating_since: when the evaluation began that goes on; None where none does.
        evaluation, save: seconds; None if there was none.
        values: reported.
        rule_states: of stop rules, at its beginning.
    """

    began: float
    first: bool = True
    skipped: int = 0
    predicted: Quantiles | None = None
    aside: float = 0.0
    evaluating_since: float | None = None
    evaluation: float | None = None
    save: float | None = None
    values: Mapping[str, float] = field(default_factory=dict)
    rule_states: RuleStates = ()

    def training(self, now: float) -> float:
        """Seconds of it that were training."""
        return now - self.began - self.aside


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """A run, as one of its processes sees it.

    Attributes:
        end: after which epoch it is to end, as planned now.
        done: whole epochs.
        steps_before: steps of the run before the present epoch.
        first: whether the next epoch to end is the first of this process.
        epoch_steps: of the last epoch that was whole in this process; None before its end.
        epoch: in progress, or the one that has just ended.
        verdict: why stop rules end the run after this epoch; None if it goes on.
        improved: whether the newest value of the metric is the best, and not saved yet.
        missed: whether a notice said that the plan's metric was not reported.
        has_checkpoint: whether there is any.
        saved_at: when the newest was made, or this process began.
        reason: why the run stops; None while it goes on.
    """

    ledger: Ledger
    metrics: MetricState
    end: int
    done: int
    steps_before: int
    epoch: Epoch
    saved_at: float
    has_checkpoint: bool
    first: bool = True
    epoch_steps: int | None = None
    verdict: StopReason | None = None
    improved: bool = False
    missed: bool = False
    reason: StopReason | None = None

    @property
    def forecast(self) -> Forecast:
        """What epochs, evaluations and saves take, as learned so far."""
        return self.ledger.forecast

    def position(self, step: int) -> Position:
        """How far the run has come with a step of the present epoch."""
        return Position(epoch=self.done, step=step, steps=self.steps_before + step)

    def checkpoint(self, step: int) -> CheckpointState:
        """What belongs to a checkpoint at a step of the present epoch.

        Within an epoch, stop rules are as at its beginning: where a run goes on there, it checks
        again.
        """
        rule_states = self.epoch.rule_states if step else self.metrics.rule_states
        return CheckpointState(
            position=self.position(step),
            metrics=replace(self.metrics, rule_states=rule_states),
            is_best=self.improved,
            ledger=self.ledger,
        )

    # ── what happens ─────────────────────────────────────────────────────────────────────────

    def begin_epoch(self, now: float, predicted: Quantiles) -> RunState:
        """The next epoch's training begins, and is to take so long."""
        rules = self.metrics.rule_states
        epoch = Epoch(began=now, first=self.first, predicted=predicted, rule_states=rules)
        return replace(self, epoch=epoch)

    def skip(self, now: float, steps: int) -> RunState:
        """The epoch goes on where an earlier process left it."""
        return replace(self, epoch=replace(self.epoch, began=now, skipped=steps))

    def evaluate_since(self, moment: float | None) -> RunState:
        """From a moment on, time is taken to be spent on an evaluation; None: on none."""
        return replace(self, epoch=replace(self.epoch, evaluating_since=moment))

    def end_evaluation(self, now: float, aside: bool) -> RunState:
        """An evaluation, if one goes on, is over.

        Args:
            now: when.
            aside: whether it was beside the training, as a planned one, or part of the epoch.
        """
        since = self.epoch.evaluating_since
        if since is None:
            return self
        ended = replace(self, epoch=replace(self.epoch, evaluating_since=None))
        return ended._put_aside("evaluation", now - since) if aside else ended

    def report(self, values: Mapping[str, float]) -> RunState:
        """Values were reported; the plan's metric may give a verdict."""
        new = {name: float(value) for name, value in values.items()}
        known = {**self.epoch.values, **new}
        reported = replace(self, epoch=replace(self.epoch, values=known))
        if self.metrics.metric not in new:
            return reported
        metrics, verdict, best = self.metrics.check(self.done + 1, known)
        return replace(
            reported,
            metrics=metrics,
            verdict=verdict or self.verdict,
            improved=best or self.improved,
        )

    def saved(self, began: float, now: float, number: int) -> RunState:
        """A checkpoint was made.

        Args:
            began: when.
            now: when it was whole.
            number: of saves so far.
        """
        ledger = replace(self.ledger, saves=number)
        saved = replace(self, ledger=ledger, saved_at=now, has_checkpoint=True, improved=False)
        return saved._put_aside("save", now - began)

    def end_epoch(self, now: float, step: int, shorter: bool = False) -> RunState:
        """Its training is over; the first of a process teaches nothing of the others.

        Args:
            now: when.
            step: after so many steps.
            shorter: whether it was planned to be shorter than the others.
        """
        seconds, whole = self.epoch.training(now), not (self.epoch.skipped or shorter)
        learned = self
        if whole and not self.epoch.first:
            learned = self.learn("epoch", seconds)
        elif not shorter:
            learned = self.sample("first_epoch", seconds)
        return replace(
            learned,
            done=self.done + 1,
            steps_before=self.steps_before + step,
            first=False,
            epoch_steps=step if whole else self.epoch_steps,
        )

    def forget_improvement(self) -> RunState:
        """What was the best in the epoch that has ended is no reason to save any more."""
        return replace(self, improved=False)

    def stopped(self, reason: StopReason | None) -> RunState:
        """The run stops, for a reason; None: it goes on."""
        return replace(self, reason=reason)

    def note(self, spent: float, step: int) -> RunState:
        """So many seconds are used by now."""
        steps = self.steps_before + step
        ledger = replace(self.ledger, spent_seconds=spent, steps=steps, reason=self.reason)
        return replace(self, ledger=ledger)

    def learn(self, kind: Part, seconds: float) -> RunState:
        """One more of a kind was seen: the forecast follows."""
        forecast = self.forecast.saw(kind, seconds)
        return replace(self, ledger=replace(self.ledger, forecast=forecast)).sample(kind, seconds)

    def sample(self, kind: str, seconds: float) -> RunState:
        """One more was seen, of which nothing is learned for the others."""
        samples = self.ledger.samples.add(kind, seconds)
        return replace(self, ledger=replace(self.ledger, samples=samples))

    def _put_aside(self, kind: Part, seconds: float) -> RunState:
        """An evaluation or a save took so long, and so may those to come."""
        so_far = getattr(self.epoch, kind) or 0.0
        aside = self.epoch.aside + seconds
        epoch = replace(self.epoch, aside=aside, **{kind: so_far + seconds})  # type: ignore[arg-type]
        return replace(self, epoch=epoch).learn(kind, seconds)
