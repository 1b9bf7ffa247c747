"""What a run may use, what it should do, and what that is expected to give.

    Budget ──plan──▶ Plan ─┬─ options    ranked configurations, the first is chosen
                           ├─ evaluations, saves   after which epochs of the chosen one
                           ├─ timeline   Checkpoint: when and for how much it gets there
                           ├─ stop_rules StopRule: when to end early
                           └─ outlook    what learning curves promise, where there are some

Every limit is in SI units, or in the currency of the price; None is no limit.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import Enum
from itertools import pairwise
from math import ceil
from pathlib import Path
from typing import Literal, get_args

from epochcast.records.configuration import Device, RunConfig
from epochcast.records.documents import SCHEMA, read_document, write_document
from epochcast.records.epoch_ranges import EpochRange, EpochSequence, require_increasing
from epochcast.records.estimate import Quantiles, Warning_
from epochcast.records.validation import (
    is_finite,
    is_number,
    plain,
    require,
    require_within,
    shown,
)

Action = Literal["evaluate", "save", "decide"]
CountedFrom = Literal["now", "start", "total"]
LimitName = Literal["deadline", "money", "energy", "disk", "memory"]
Mode = Literal["min", "max"]
CountUnit = Literal["epoch", "step"]  # what a plan counts in
RuleKind = Literal["patience", "gl", "pq", "up", "target", "divergence", "futility"]
Fit = Literal["underfitting", "overfitting", "diverging", "settled"]
RateRule = Literal["linear", "square-root"]
MAX_RATE = 1e15  # of a price, a power or a share of them: more is a slip of the pen, or overflows
LONGEST = 1e16  # of anything that is counted, or lasts seconds: what is more, nobody meant
LARGEST_NOISE = 100.0  # relative
LARGEST_CALIBRATION = 1e30  # beyond exp(50), at which the cost model cuts them off
LEAST_FACTOR = 1e-9  # of what others are multiplied with or divided by
RATES = ("price_per_hour", "fixed_cost", "watts", "watts_spread", "carbon_per_kwh")


class StopReason(str, Enum):
    """Why a run ends."""

    TARGET = "target"
    NON_FINITE = "non-finite"
    DIVERGED = "diverged"
    PATIENCE = "patience"
    FUTILE = "futile"
    BUDGET = "budget"
    PLAN_DONE = "plan-done"
    SIGNAL = "signal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Power:
    """What one device draws while it trains in one configuration.

    Attributes:
        config: with its micro-batch; how often it updates is of no account.
        watts: mean over steady steps.
        spread: relative standard deviation of ``watts`` from run to run.
    """

    config: RunConfig
    watts: float
    spread: float = 0.0

    def __post_init__(self) -> None:
        for name in ("watts", "spread"):
            value = getattr(self, name)
            ok = is_finite(value) and 0 <= value <= MAX_RATE
            require(ok, f"{name} must lie between 0 and {MAX_RATE:g}, but got {shown(value)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a run may use.

    Attributes:
        deadline: seconds of wall-clock time, all folds and restarts included.
        deadline_at: the same as a moment, seconds since 1970, UTC, where it was given as one:
            whoever follows the plan keeps to the moment, however late the run begins.
        money: in the unit of the price.
        energy: joules, of all devices together.
        memory: bytes of one device; default: what the device has, less what fragmentation takes.
        disk: bytes for checkpoints.
        confidence: probability with which all of them together must hold.
        price_per_hour: of one device.
        fixed_cost: money that is spent whatever the run does.
        watts: that one device draws while it trains.
        watts_spread: relative standard deviation of ``watts`` from run to run.
        carbon_per_kwh: grams of CO₂ equivalent.
        spent_seconds: used already: by earlier runs, or since the allocation began.
        counted_from: what ``deadline`` counts from: now, the allocation's start, or in total over
            resumed runs; for people and for whoever continues the run.
    """

    deadline: float | None = None
    money: float | None = None
    energy: float | None = None
    memory: float | None = None
    disk: float | None = None
    confidence: float = 0.9
    price_per_hour: float | None = None
    fixed_cost: float = 0.0
    watts: float | None = None
    watts_spread: float = 0.0
    carbon_per_kwh: float | None = None
    spent_seconds: float = 0.0
    counted_from: CountedFrom = "now"
    deadline_at: float | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.name != "counted_from":
                self._require_amount(field.name, optional=field.default is None)
        counts = self.counted_from in get_args(CountedFrom)
        known = ", ".join(get_args(CountedFrom))
        require(counts, f"counted_from must be one of {known}, but got {self.counted_from!r}")
        between = 0 < self.confidence < 1
        require(between, f"confidence must lie between 0 and 1, but got {self.confidence}")
        priced = self.money is None or self.price_per_hour is not None or self.fixed_cost > 0
        require(priced, "a limit of money needs price_per_hour, or a fixed_cost alone to hold")
        metered = self.energy is None or bool(self.watts)
        require(
            metered,
            "a limit of energy needs watts: give --watts 300, or probe with the extra energy",
        )

    def _require_amount(self, name: str, optional: bool) -> None:
        """A number of any kind becomes a plain one; what is none, or makes no sense, is refused."""
        value = plain(getattr(self, name))
        object.__setattr__(self, name, value)
        if value is None and optional:
            return
        require(is_number(value), f"{name} must be a number, but got {shown(value)}")
        ok = is_finite(value) and value >= 0
        require(ok, f"{name} must be finite and >= 0, but got {shown(value)}")
        largest = MAX_RATE if name in RATES else value
        require(value <= largest, f"{name} must be at most {MAX_RATE:g}, but got {shown(value)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningCurve:
    """Losses or scores of one run, check by check.

    Attributes:
        epochs: at which it was evaluated, increasing.
        validation: the metric that decides.
        training: the same metric on training data; empty if unknown.
        non_finite_epoch: the first at which the metric was NaN or infinite, where a followed run
            stops; such values are left out. None if it never was.
    """

    epochs: tuple[float, ...]
    validation: tuple[float, ...]
    training: tuple[float, ...] = ()
    non_finite_epoch: float | None = None

    def __post_init__(self) -> None:
        n = len(self.epochs)
        require(n > 0, "a learning curve needs at least one value")
        require(len(self.validation) == n, "a learning curve needs one value for each epoch")
        require(len(self.training) in (0, n), "training must have as many values as validation")
        increasing = all(a < b for a, b in zip(self.epochs, self.epochs[1:], strict=False))
        require(increasing, "the epochs of a learning curve must increase")


@dataclass(frozen=True, slots=True, kw_only=True)
class StopRule:
    """A rule for ending early, as data; ``planning.stopping.rule_from`` makes it run.

    Attributes:
        kind: which rule, e.g. ``"patience"``.
        settings: its numbers, by name.
    """

    kind: RuleKind
    mode: Mode = "min"
    settings: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One configuration and what the budget buys with it.

    In a plan of steps, "epochs" are optimizer steps (``Plan.unit``).

    Attributes:
        epochs: to run: ``max_epochs`` where they fit with the confidence asked for, else what
            does.
        affordable_epochs: how many fit; P10 is what nine runs in ten can afford.
        target_epochs: epochs at this batch size that are worth the target at the reference.
        target_probability: that those fit.
        max_epochs: at which the run ends if limits allow: the maximum asked for, else the target,
            at this batch size; None without either.
        probability: that ``epochs`` fit, all limits together.
        seconds, money, energy_joules, carbon_grams: of ``epochs``, all devices and folds.
        memory_share: P90 of the device's memory in use; ``device_bytes`` over what it has.
        save_bytes: of one checkpoint.
        binding: the limit that stops the next epoch; None if the target, the maximum or the end
            of the search does.
        slack: what each limit leaves at the confidence asked for, in its own unit.
        next_epoch_seconds, next_epoch_money: what one more epoch would take, P50.
        efficiency: progress per sample, relative to the reference batch.
        learning_rate_factor: to multiply the reference's learning rate with.
        learning_rate_rule: how that follows the batch.
        horizon_steps: optimizer steps of the run: what a schedule must span.
        pareto: no other option is better in time and money an epoch, memory and epochs at once,
            at P90, by which options are ranked.
        extrapolated: what lies outside the probed range.
    """

    config: RunConfig
    epochs: int
    affordable_epochs: Quantiles
    target_epochs: int | None
    target_probability: float | None
    probability: float
    seconds: Quantiles
    money: Quantiles | None
    energy_joules: Quantiles | None
    carbon_grams: Quantiles | None
    device_bytes: Quantiles | None
    memory_share: float | None
    save_bytes: float | None
    binding: LimitName | None
    slack: tuple[tuple[LimitName, float], ...]
    next_epoch_seconds: float
    next_epoch_money: float | None
    efficiency: float | None
    learning_rate_factor: float | None
    steps_per_epoch: int
    horizon_steps: int
    max_epochs: int | None = None
    learning_rate_rule: RateRule | None = None
    pareto: bool = False
    extrapolated: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require(self.epochs >= 1, f"an option has at least one epoch, but got {self.epochs}")
        counts = ("epochs", "steps_per_epoch", "horizon_steps", "target_epochs", "max_epochs")
        require_within(self, 1, LONGEST, *counts)
        require_within(self, 0, LONGEST, "save_bytes", "memory_share")
        require_within(self, 0, 1, "probability", "target_probability")
        require_within(self, LEAST_FACTOR, 1 / LEAST_FACTOR, "efficiency")

    @property
    def global_batch(self) -> int:
        """Samples of one optimizer step."""
        return self.config.batch_size * self.config.accumulation * self.config.world_size


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitPrices:
    """What the parts of the chosen run take, in seconds; run to run, not epoch to epoch.

    Attributes:
        startup: process start until the first step can begin.
        first_steps: what the first steps take beyond steady ones.
        epoch: one steady epoch of training, evaluation and saves excluded; in a plan of steps, a
            segment of so many.
        evaluation, save: one of each; zero where there is none.
        epoch_noise: relative standard deviation of one epoch around its run's mean, by the steps
            of single trials.
        round_scatter: that of the rounds of the probe, of which epochs of one run may have as much.
        calibration: the factor that outcomes of earlier runs have put into ``epoch``.
        startup_calibration, evaluation_calibration, save_calibration: likewise.
    """

    startup: Quantiles
    first_steps: Quantiles
    epoch: Quantiles
    evaluation: Quantiles
    save: Quantiles
    epoch_noise: float
    round_scatter: float = 0.0
    calibration: float = 1.0
    startup_calibration: float = 1.0
    evaluation_calibration: float = 1.0
    save_calibration: float = 1.0

    def __post_init__(self) -> None:
        require_within(self, 0, LARGEST_NOISE, "epoch_noise", "round_scatter")
        require_within(self, 0, LARGEST_CALIBRATION, "calibration", "startup_calibration")
        require_within(self, 0, LARGEST_CALIBRATION, "evaluation_calibration", "save_calibration")
        for name in ("startup", "first_steps", "epoch", "evaluation", "save"):
            seconds = getattr(self, name)
            ok = seconds.p05 >= 0 and seconds.p95 <= LONGEST
            require(ok, f"{name} must be seconds between 0 and {LONGEST:g}, but got {seconds}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SpotOffer:
    """The same work on devices that may be taken away, beside the plan's own.

    Attributes:
        price_per_hour: of one device.
        mtbf_seconds: between interruptions and failures of the run.
        option: what would be run there; None where it does not fit.
        cheaper_probability: that an epoch (step) of it costs less; None where it does not fit.
        why_not: what it fails by; empty where it fits.
    """

    price_per_hour: float
    mtbf_seconds: float
    option: Option | None = None
    cheaper_probability: float | None = None
    why_not: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """One moment of the timeline: an epoch's end at which something happens (``Plan.epochs_of``).

    The last five need learning curves, and are None without any.

    Attributes:
        epoch: whole epochs done by then, or steps (``Plan.unit``).
        seconds: since the run began, what happens here included.
        money: spent by then, P50; with what was spent before the run.
        reach_probability: that no stop rule has ended the run before.
        stop_probability: that one ends it here.
        saved_seconds, saved_money: if it does, P50.
        regret: expected loss of the metric against running on to the plan's end, if it does.
    """

    epoch: int
    seconds: Quantiles
    money: float | None
    reach_probability: float | None = None
    stop_probability: float | None = None
    saved_seconds: float | None = None
    saved_money: float | None = None
    regret: float | None = None

    def __post_init__(self) -> None:
        require(self.epoch >= 1, f"a timeline begins at epoch 1, but got {self.epoch}")
        require_within(self, 0, 1, "reach_probability", "stop_probability")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What the learning curves say about the run.

    Attributes:
        families: curve families in the average, with their weights.
        seen_epochs: how far the curves reach.
        best_value, best_epoch: so far.
        final_value: the metric expected at the plan's last epoch.
        improve_probability: that training to the plan's end beats ``best_value`` by ``min_delta``.
        fit: what training and validation curves show.
        turning_epoch: where validation was best, when it has turned since.
    """

    mode: Mode
    families: tuple[tuple[str, float], ...]
    seen_epochs: float
    best_value: float
    best_epoch: float
    final_value: Quantiles
    min_delta: float
    improve_probability: float
    fit: Fit
    turning_epoch: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortfall:
    """Why nothing fits, and the nearest thing that would.

    Attributes:
        unit: what "epochs" counts.
        epochs: that were asked for at least.
        config: the configuration that comes nearest.
        limits: each limit that is too low: its name, what it is, what it would have to be.
        fitting_epochs: what fits with the limits as they are; 0 if not one epoch does.
    """

    epochs: int
    confidence: float
    config: RunConfig
    limits: tuple[tuple[LimitName, float, float], ...]
    fitting_epochs: int
    unit: CountUnit = "epoch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to run, decided before the run.

    Attributes:
        unit: what everything that is called epochs here counts: passes over the data, or
            optimizer steps.
        segment_steps: of a plan of steps: the equal parts after which something may happen; what
            follows the plan takes one for an epoch. None in a plan of epochs.
        samples: training samples per epoch, of one fold.
        folds: runs of the same plan, as in k-fold cross-validation.
        options: ranked; the first one is chosen.
        evaluations, saves: of the chosen option and one fold, after which epochs, as ranges;
            stop rules decide after each evaluation.
        timeline: when those are expected, from the start of the run, its last epoch included; of
            many moments some, between which ``records.moments`` interpolates, and all at which a
            stop rule may end the run.
        prices: of the parts that the timeline is the sum of.
        min_epochs: fewer, at the reference batch, are not worth running.
        metric: that stop rules watch.
        mode: whether a smaller or a larger metric is better.
        stop_rules: whichever fires first ends the run.
        final_save_seconds: before a hard end, how early to begin the last save.
        save_interval_seconds: what failures and the cost of a save ask for; None if not asked.
        keep: checkpoints kept on disk; 0 keeps all.
        probing_seconds: wall-clock time of the measurements behind all this.
        spot: what the same costs on devices that may be taken away, where that was asked.
        seed: of the draws; the same question with the same seed has the same answer.
        target: what was measured, which may have got the name of ``workload``; as of a measurement.
    """

    schema: int = SCHEMA
    workload: str
    device: Device
    samples: int
    folds: int
    budget: Budget
    min_epochs: int
    target_epochs: int | None
    max_epochs: int | None
    objective: str
    options: tuple[Option, ...]
    evaluations: tuple[EpochRange, ...]
    saves: tuple[EpochRange, ...]
    timeline: tuple[Checkpoint, ...]
    prices: UnitPrices
    metric: str
    stop_rules: tuple[StopRule, ...]
    final_save_seconds: float
    save_interval_seconds: float | None
    mtbf_seconds: float | None
    keep: int
    outlook: Outlook | None
    probing_seconds: float
    seed: int
    mode: Mode = "min"
    warnings: tuple[Warning_, ...] = ()
    unit: CountUnit = "epoch"
    segment_steps: int | None = None
    spot: SpotOffer | None = None
    target: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "target", self.target or self.workload)
        require_within(self, 1, LONGEST, "segment_steps")
        segmented = (self.unit == "step") == (self.segment_steps is not None)
        require(segmented, "a plan of steps, and no other, has segment_steps")
        require(bool(self.options), "a plan needs at least one option, and has none")
        counts = ("folds", "min_epochs", "target_epochs", "max_epochs")
        require_within(self, 1, LONGEST, *counts)
        require_within(self, 0, LONGEST, "samples", "keep", "final_save_seconds", "probing_seconds")
        require_within(self, LEAST_FACTOR, LONGEST, "save_interval_seconds", "mtbf_seconds")
        epochs = [checkpoint.epoch for checkpoint in self.timeline]
        in_order = all(a < b for a, b in pairwise(epochs))
        require(in_order, "the epochs of a timeline must increase")
        require_increasing(self.evaluations)
        require_increasing(self.saves)

    @property
    def chosen(self) -> Option:
        """The configuration to run."""
        return self.options[0]

    @property
    def least_epochs(self) -> int:
        """``min_epochs`` at the batch of the chosen configuration; no stop rule ends a run before.

        As ``planning.batch.equivalent_epochs``, and never beyond the plan's last epoch.
        """
        at_this_batch = ceil(self.min_epochs / (self.chosen.efficiency or 1.0) - 1e-9)
        return min(at_this_batch, self.chosen.epochs)

    def epochs_of(self, action: Action) -> EpochSequence:
        """The epochs after which something is done."""
        if action == "decide" and not self.stop_rules:
            return EpochSequence(())
        return EpochSequence(self.saves if action == "save" else self.evaluations)

    def save(self, path: str | Path) -> None:
        """Write the plan as JSON.

        Raises:
            UsageError: the file cannot be written.
        """
        write_document(self, path, "plan")

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Read a plan written by ``save``.

        Raises:
            StoreError: there is no such file, or it is not a plan that this version reads.
        """
        return read_document(path, cls, "a plan")
