"""What a followed run reports: line by line while it goes on, and in one record when it has ended.

    RunStarted ─▶ EpochDone ─▶ Notice ─▶ EpochDone ─▶ … ─▶ RunEnded       the log, JSON Lines
                                                              │
                                                        RunOutcome ──▶ the store ──▶ the next fit

Times are seconds of wall-clock time; "spent" includes earlier processes of the same run.
"""

from __future__ import annotations

from dataclasses import dataclass

from epochcast.records.configuration import Device, RunConfig
from epochcast.records.documents import SCHEMA
from epochcast.records.estimate import Quantiles, Warning_
from epochcast.records.plan import LONGEST, LimitName, StopReason, UnitPrices
from epochcast.records.validation import require, require_within


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """How far a run has come.

    Attributes:
        epoch: whole epochs done.
        step: calls of ``step`` since then.
        steps: calls of ``step`` in all.
    """

    epoch: int = 0
    step: int = 0
    steps: int = 0

    def __post_init__(self) -> None:
        require_within(self, 0, LONGEST, "epoch", "step", "steps")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    """A process began to follow a plan.

    Attributes:
        run: of all processes that continue one another.
        process: how many there were, this one included.
        wall_time: seconds since 1970, UTC.
        position: where it goes on.
        spent_seconds: before this line: earlier processes, and this one's start-up.
        end_epochs: after which epoch the run is to end; 0 where nobody knows.
        predicted: of the parts of the run; 0 where nothing was.
        limits: what the run may use in all, each in its own unit; of a fold, its share.
        binding_seconds: of the run, after which each limit that time uses up is used up.
        planned_seconds: of the whole run to ``end_epochs``, as planned; None if it is not known.
        segment_steps: optimizer steps of what is called an epoch; None where that is one.
        watched: whether a command is watched from outside; else the training itself follows.
    """

    schema: int = SCHEMA
    run: str
    process: int
    wall_time: float
    workload: str
    config: RunConfig
    position: Position
    spent_seconds: float
    end_epochs: int
    confidence: float
    metric: str
    predicted: UnitPrices
    limits: tuple[tuple[LimitName, float], ...] = ()
    binding_seconds: tuple[tuple[LimitName, float], ...] = ()
    planned_seconds: Quantiles | None = None
    segment_steps: int | None = None
    watched: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochDone:
    """One epoch has ended, or was cut.

    Attributes:
        position: at its end.
        first: whether it was the first in its process, slow first steps included.
        predicted: what it was to take by what was known before it; evaluation and save excluded;
            0 where nothing was known.
        seconds: what it took; evaluation and save excluded.
        pace: run-level actual over planned time of an epoch, as learned so far.
        evaluation_seconds, save_seconds: of this epoch; None if it had none.
        spent_seconds, spent_money, spent_joules: by the run, since it began.
        projected_seconds: of the whole run, to ``end_epochs``.
        projected_money: P50.
        end_epochs: after which epoch the run is to end, as planned now; 0 where nobody knows.
        on_plan_probability: that all limits hold to that end; None where there is no limit, or no
            end is known.
        values: reported in this epoch, by name.
        best: whether the plan's metric was the best so far.
        reason: why the run stops here; None if it goes on.
    """

    wall_time: float
    position: Position
    first: bool
    predicted: Quantiles
    seconds: float
    pace: float
    evaluation_seconds: float | None
    save_seconds: float | None
    spent_seconds: float
    spent_money: float | None
    spent_joules: float | None
    projected_seconds: Quantiles
    projected_money: float | None
    end_epochs: int
    on_plan_probability: float | None
    values: tuple[tuple[str, float], ...] = ()
    best: bool = False
    reason: StopReason | None = None

    @property
    def ratio(self) -> float | None:
        """What the epoch took over what was predicted, P50; None of one that was cut."""
        if self.position.step or not self.predicted.p50:
            return None
        return self.seconds / self.predicted.p50


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Something happened that people should see; its text is in report/text/warnings.py."""

    wall_time: float
    position: Position
    notice: Warning_


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnded:
    """A process stops following.

    Attributes:
        reason: why; None if the training loop was left by an error or before its end.
        limit: that binds, where the reason is the budget.
        last_checkpoint, best_checkpoint: folders' names, or the path of what a command saved last;
            None where there is none.
        best_value: of the plan's metric, and after which epoch; None if it was never reported.
        exit_code: of a command that was watched; None where the training itself followed.
    """

    wall_time: float
    position: Position
    reason: StopReason | None
    limit: LimitName | None
    spent_seconds: float
    spent_money: float | None
    spent_joules: float | None
    end_epochs: int
    last_checkpoint: str | None
    best_checkpoint: str | None
    best_value: float | None
    best_epoch: int | None
    exit_code: int | None = None


RunEvent = RunStarted | EpochDone | Notice | RunEnded


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOutcome:
    """What one run was planned to take, and what it took: the pair that intervals are judged by.

    Attributes:
        run: the run's name; of several outcomes of one run the last counts.
        source: of the workload's code, as in a Measurement; empty if unknown.
        device: that it ran on, with the threads that it had.
        epoch_share: steps that its epochs had, over those that were planned.
        measured: whether what it took is a measurement, too, which predictions are made from: then
            it corrects nothing a second time.
        segment_steps: of a run that followed a plan of steps: what is called an epoch here is a
            segment of so many.
        predicted: of the parts, before the run; ``predicted.calibration`` is the factor that
            earlier outcomes had put into it.
        total_predicted: from process start to the end after ``epochs``; None where the run was
            resumed or left early, so that there is nothing to compare.
        first_epoch_seconds: of each process, slow first steps included.
        epoch_seconds: of each other whole epoch, evaluation and saves excluded.
        evaluation_seconds, save_seconds: of each.
        startup_seconds: from process start until the guard began, of each process.
        total_seconds: of all processes.
        epochs: whole ones that were trained.
        finished_at: seconds since 1970, UTC.
    """

    schema: int = SCHEMA
    run: str
    workload: str
    source: str = ""
    device: Device
    config: RunConfig
    samples: int
    epochs: int
    reason: StopReason | None
    predicted: UnitPrices
    total_predicted: Quantiles | None
    startup_seconds: tuple[float, ...]
    first_epoch_seconds: tuple[float, ...]
    epoch_seconds: tuple[float, ...]
    evaluation_seconds: tuple[float, ...]
    save_seconds: tuple[float, ...]
    total_seconds: float
    finished_at: float
    epoch_share: float = 1.0
    segment_steps: int | None = None
    measured: bool = False

    def __post_init__(self) -> None:
        require(self.total_seconds >= 0, f"total_seconds must be >= 0, got {self.total_seconds}")
        require(self.epoch_share > 0, f"epoch_share must be > 0, got {self.epoch_share}")
