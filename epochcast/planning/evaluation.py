"""One candidate looked at closely: its cadences, what it can afford, where it saves.

    prices ──▶ cadences ──▶ affordable epochs, draw by draw ──▶ epochs ──▶ saves ──▶ Option

Properties are computed when they are first asked for, each from those above it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil, gcd, inf, sqrt
from typing import Any, Literal

import numpy as np

from epochcast.costmodel.cost import ConfigurationCost
from epochcast.costmodel.epoch import division_of
from epochcast.costmodel.features import Array
from epochcast.costmodel.prices import EPOCH_NOISE_CAP, Prices
from epochcast.planning import batch as b
from epochcast.planning.cadence import (
    At,
    AtMost,
    Cadence,
    Epochs,
    Every,
    evaluation_interval,
    final_save_lead,
    save_epochs,
    save_interval,
    save_period,
)
from epochcast.planning.failures import Interruptions
from epochcast.planning.limits import KWH
from epochcast.planning.pricing import PriceList, memory_limit, reference_batch
from epochcast.planning.request import LONGEST_STEPS, PlanRequest
from epochcast.planning.simulation import (
    ROUNDING,
    RunDraws,
    Spending,
    deviates,
    guaranteed,
    joint,
    quantiles,
    upper_quantile,
)
from epochcast.planning.stopping import Patience
from epochcast.planning.unit import InEpochs, InSteps, Unit
from epochcast.records import Budget, LimitName, Option, Quantiles, RunConfig, UnitPrices
from epochcast.records.estimate import LEVELS
from epochcast.records.plan import LEAST_FACTOR

MANY = np.array([1000])  # epochs over which a cadence shows its rate, and
MANY_STEPS = np.array([10_000_000])
MOST_CHECKS = 1000  # of a run of steps, of itself: more show nothing that fewer do not
SEGMENTS = 100  # of a run of steps in which nothing happens before its end
LONGEST_PLACED = 10_000  # epochs: placing saves takes their square where intervals are long


@dataclass(frozen=True)
class EvaluatedCandidate:
    """One candidate under a budget and a request; see the module.

    Attributes:
        chosen: to be run: its saves are placed one by one, which takes a second for long runs;
            others save periodically.
    """

    priced: PriceList
    position: int
    budget: Budget
    request: PlanRequest
    chosen: bool = False

    @cached_property
    def cost(self) -> ConfigurationCost:
        return self.priced.cost(self.position)

    @cached_property
    def prices(self) -> Prices:
        return self.priced.prices(self.cost)

    @cached_property
    def config(self) -> RunConfig:
        return self.priced.config(self.position)

    @cached_property
    def global_batch(self) -> int:
        return int(self.priced.candidates.global_batch[self.position])

    @cached_property
    def reference(self) -> int:
        """The batch at which epochs and learning rate are known."""
        return reference_batch(self.priced.setup, self.request)

    def at_this_batch(self, epochs: int | None) -> int | None:
        """Epochs that are worth so many at the reference batch."""
        if epochs is None or self.request.noise_scale is None:
            return epochs
        return b.equivalent_epochs(
            epochs, self.global_batch, self.reference, self.request.noise_scale
        )

    @cached_property
    def target(self) -> int | None:
        """Epochs wanted, at this batch."""
        return self.at_this_batch(self.request.epochs)

    @cached_property
    def max_epochs(self) -> int | None:
        """Where the run ends if limits allow, at this batch."""
        return self.at_this_batch(self.request.epochs_limit)

    @cached_property
    def searched(self) -> int:
        """The most epochs looked at: no limit is asked whether it allows more."""
        return max(self.request.searched, self.minimum, self.max_epochs or 0)

    @cached_property
    def unit(self) -> Unit:
        """What is counted: "epochs" below are so many of it."""
        if self.request.unit == "epoch":
            return InEpochs()
        division = division_of(self.priced.setup.samples, self.config)
        return InSteps.of(division, self.config.accumulation, self.prices)

    @property
    def unit_seconds(self) -> float:
        """One epoch or step, evaluation and saves excluded; median."""
        return self.unit.share * self.prices.epoch_seconds

    # -- cadences -------------------------------------------------------------------------------

    @cached_property
    def evaluate(self) -> Cadence:
        """When to evaluate: as asked, or where stopping early pays for it."""
        asked = self.request.evaluate
        if not self.prices.evaluation.median:
            return Every(0)
        if asked is None:  # a request that the planner has not completed
            return Every(1)
        if asked != "auto":
            return Every(asked) if isinstance(asked, int) else asked
        checks = next((r.checks for r in self.request.rules if isinstance(r, Patience)), None)
        best = self._best_epoch()
        interval = evaluation_interval(
            best, self.prices.evaluation.median, self.unit_seconds, checks
        )
        if self.request.unit == "step":
            interval = max(interval, ceil(best / MOST_CHECKS))
        saved = self.request.save
        return Every(self._in_line(interval, saved if isinstance(saved, int) else 0))

    def _in_line(self, interval: int, other: int) -> int:
        """In a plan of steps, an interval that is a multiple of another one or divides it.

        So that the run is made of equal segments, after which something happens. Rounded up: what
        is done less often costs less. 0 is no other one.
        """
        if self.request.unit == "epoch" or not other:
            return interval
        if interval >= other:
            return -(-interval // other) * other
        return next(other // n for n in range(other // interval, 0, -1) if other % n == 0)

    def _best_epoch(self) -> float:
        """Of the learning curves seen; without any, the run is taken to improve until its end.

        No later than limits allow.
        """
        affordable = self._bare.affordable(self.searched)
        everything = joint(affordable, self.searched, len(self._bare.run.once))
        fits = max(1, guaranteed(everything, self.budget.confidence))
        if self.request.curves:
            best = max if self.request.better == "max" else min
            found = [c.epochs[c.validation.index(best(c.validation))] for c in self.request.curves]
            return min(float(np.median(found)), self.max_epochs or fits, fits)
        return min(self.max_epochs or fits, fits)

    @cached_property
    def _bare(self) -> Spending:
        """The run without evaluations, saves and failures."""
        run = RunDraws(
            self.prices, deviates(self.request.seed), folds=self.request.folds, unit=self.unit
        )
        return Spending(run, Every(0), Every(0), self.budget, self.config.world_size)

    @property
    def asked_save(self) -> int | Literal["auto"] | Cadence:
        """When to save, as asked for; where it was left open, as often as pays."""
        return "auto" if self.request.save is None else self.request.save

    @cached_property
    def save_interval_seconds(self) -> float | None:
        """Between saves, at least; None where the cadence was given."""
        if self.prices.save.median < LEAST_FACTOR or self.asked_save != "auto":
            return None
        return save_interval(self.prices.save.median, self.request.mtbf_seconds)

    @cached_property
    def paid_saves(self) -> Cadence:
        """When to save if the disk were not limited: what time and money must suffice for.

        Otherwise a smaller disk, with fewer saves, would leave time for more epochs.
        """
        asked = self.asked_save
        if asked != "auto":
            return Every(asked) if isinstance(asked, int) else asked
        return Every(self._epochs_between_saves)

    @cached_property
    def save_every(self) -> Cadence:
        """When to save, as long as it is not known how long the run will be."""
        if self.max_saves is None:
            return self.paid_saves
        every = self.evaluate.interval if isinstance(self.evaluate, Every) else 0
        grid = gcd(every, self._epochs_between_saves) if self.request.unit == "step" else 1
        return AtMost(self._epochs_between_saves, self.max_saves, grid)

    @cached_property
    def _epochs_between_saves(self) -> int:
        """As far as time is concerned."""
        if self.save_interval_seconds is None:
            return 1 if self.request.unit == "epoch" else self._steps_between_free_saves
        period = save_period(
            self._steady_seconds, self.prices.save.median, self.request.mtbf_seconds
        )
        return self._in_line(
            period, self.evaluate.interval if isinstance(self.evaluate, Every) else 0
        )

    @property
    def _steps_between_free_saves(self) -> int:
        """Where a save costs nothing, or nobody knows what: at evaluations, or a hundred times
        between two failures; else at the end alone."""
        if isinstance(self.evaluate, Every) and self.evaluate.interval:
            return self.evaluate.interval
        mtbf = self.request.mtbf_seconds
        if mtbf is None or not self.unit_seconds:
            return LONGEST_STEPS
        return max(1, min(round(mtbf / 100 / self.unit_seconds), LONGEST_STEPS))

    @cached_property
    def max_saves(self) -> int | None:
        """In one fold, as long as saves are to adapt to the disk; None where there is room.

        A disk without room for a single one is a limit that is not met.
        """
        size, disk = self.prices.save_bytes, self.budget.disk
        if self.asked_save != "auto" or disk is None or not size:
            return None
        room = int(disk / (size * self.request.folds) * (1 + ROUNDING))
        return None if room < 1 or 0 < self.request.keep <= room - self.spare_saves else room

    @property
    def spare_saves(self) -> int:
        """Checkpoints on disk beside those kept: one being written, and an older best one."""
        return 2 if self.evaluate.count(self._many)[0] else 1

    @property
    def disk_spreads_saves(self) -> bool:
        """Whether saves of this run are further apart than they would be on a larger disk."""
        saves = self.max_saves
        return saves is not None and self.epochs > saves * self._epochs_between_saves

    @cached_property
    def _steady_seconds(self) -> float:
        """One epoch with its share of the evaluations."""
        share = self._evaluations_an_epoch
        return max(self.unit_seconds + share * self.prices.evaluation.median, 1e-9)

    @cached_property
    def _evaluations_an_epoch(self) -> float:
        return float(self.evaluate.count(self._many)[0] / self._many[0])

    @cached_property
    def _many(self) -> Epochs:
        """Epochs or steps over which a cadence shows its rate."""
        return MANY if self.request.unit == "epoch" else MANY_STEPS

    # -- what it can afford ---------------------------------------------------------------------

    @cached_property
    def _period(self) -> float:
        """Epochs from one save to the next, on average; inf for none."""
        if self.asked_save == "auto":
            return self._epochs_between_saves
        saves = self.save_every.count(self._many)[0]
        return float(self._many[0] / saves) if saves else inf

    @cached_property
    def segment_seconds(self) -> float:
        """Work from one save to the next, the save included; median."""
        epochs = min(self._period, self.request.searched)
        return float(epochs * self._steady_seconds + self.prices.save.median)

    @property
    def interruptions(self) -> Interruptions | None:
        """Failures, and what lies between two saves."""
        if self.request.mtbf_seconds is None:
            return None
        often = Interruptions(
            mtbf_seconds=self.request.mtbf_seconds,
            restart_seconds=self.request.restart_seconds,
            period=self._period,
            evaluations=self._evaluations_an_epoch,
            max_saves=self.max_saves,
        )
        if isinstance(self.paid_saves, Every):
            return often
        return replace(often, placed=tuple(self.paid_saves.epochs(self.searched)))

    @property
    def restart_seconds(self) -> float:
        """From a failure until training goes on: another start, and slower first steps; median."""
        asked = self.request.restart_seconds
        return self.prices.ready_seconds + self.prices.first.median if asked is None else asked

    @cached_property
    def reserve_seconds(self) -> float:
        """Beyond the median save: how much earlier the last one must begin before a deadline."""
        return self._reserve(inf if self.budget.deadline is None else self.budget.deadline)

    def _reserve(self, deadline: float) -> float:
        saves = self.prices.save.median and self.save_every.count(self._many)[0]
        if self.budget.deadline is None or not saves:
            return 0.0
        at_stake = min(self.segment_seconds, deadline)
        lead = final_save_lead(at_stake, self.prices.save.quantile)
        return max(0.0, lead - self.prices.save.median)

    @cached_property
    def run(self) -> RunDraws:
        """All folds."""
        return RunDraws(
            self.prices,
            deviates(self.request.seed),
            folds=self.request.folds,
            interruptions=self.interruptions,
            unit=self.unit,
        )

    @cached_property
    def planned(self) -> Spending:
        """A run of any length."""
        return Spending(
            run=self.run,
            evaluate=self.evaluate,
            save=self.paid_saves,
            budget=self.budget,
            devices=self.config.world_size,
            reserve_seconds=self.reserve_seconds,
            save_bytes=self.prices.save_bytes or 0.0,
            keep=self.request.keep,
            max_saves=self.max_saves,
        )

    @cached_property
    def unhurried(self) -> Spending:
        """As planned, with what is kept for the last save before a deadline that suffices."""
        return replace(self.planned, reserve_seconds=self._reserve(inf))

    @cached_property
    def affordable(self) -> dict[LimitName, Epochs]:
        return self.planned.affordable(self.searched)

    @cached_property
    def affordable_epochs(self) -> Epochs:
        return joint(self.affordable, self.searched, len(self.run.once))

    @cached_property
    def epochs(self) -> int:
        """To run: what fits with the confidence asked for, up to the maximum, else the target."""
        fits = guaranteed(self.affordable_epochs, self.budget.confidence)
        return fits if self.max_epochs is None else min(fits, self.max_epochs)

    @cached_property
    def fits(self) -> bool:
        """Whether the fewest epochs worth running fit all limits, memory included."""
        return self.fits_memory and self.epochs >= self.minimum

    @cached_property
    def minimum(self) -> int:
        """The fewest epochs worth running, at this batch."""
        return self.at_this_batch(self.request.min_epochs) or 1

    @cached_property
    def fits_memory(self) -> bool:
        return self.memory_needed <= memory_limit(self.priced.setup, self.budget)

    @cached_property
    def memory_needed(self) -> float:
        """Bytes of one device, with the confidence asked for."""
        memory = self.prices.device_bytes
        return memory.quantile(self.budget.confidence) if memory else 0.0

    # -- a run of that length -------------------------------------------------------------------

    @cached_property
    def saves(self) -> Cadence:
        """Which epoch ends to save at, once the number of epochs is known.

        Against failures, by dynamic programming in the chosen run; never more often than was paid
        for. Periodically elsewhere, and in runs so long that it makes no difference.
        """
        mtbf = self.request.mtbf_seconds
        if self.asked_save != "auto" or mtbf is None or self.save_interval_seconds is None:
            return self.save_every
        if not self.chosen or self.epochs > LONGEST_PLACED or self.request.unit == "step":
            return self.save_every
        evaluated = set(self.evaluate.epochs(self.epochs))
        seconds = [
            self.prices.epoch_seconds + (e in evaluated) * self.prices.evaluation.median
            for e in range(1, self.epochs + 1)
        ]
        chosen = save_epochs(seconds, self.prices.save.median, mtbf, self.restart_seconds)
        paid = len(self.save_every.epochs(self.epochs))
        return At(chosen) if len(chosen) <= paid else self.save_every

    @cached_property
    def spent(self) -> Spending:
        """A run of the length decided, with its saves placed."""
        return replace(self.planned, run=self._with_saves(self.run), save=self.saves)

    @cached_property
    def one_fold(self) -> RunDraws:
        """The first of the folds of that run."""
        run = RunDraws(
            self.prices,
            deviates(self.request.seed),
            interruptions=self.interruptions,
            unit=self.unit,
        )
        return self._with_saves(run)

    def _with_saves(self, run: RunDraws) -> RunDraws:
        """The same run, with its saves placed."""
        often = self.interruptions
        if often is None or not isinstance(self.saves, At):
            return run
        evaluations = len(self.evaluate.epochs(self.epochs)) / self.epochs
        placed = tuple(self.saves.epochs(self.epochs))
        often = replace(often, placed=placed, max_saves=None, evaluations=evaluations)
        return RunDraws(self.prices, run.shared, folds=run.folds, interruptions=often)

    @property
    def moments(self) -> int:
        """At which something happens, at most."""
        counts = (c.count(np.array([self.epochs]))[0] for c in (self.evaluate, self.saves))
        return int(sum(counts))

    @cached_property
    def segment_steps(self) -> int | None:
        """Of the equal parts of a run of steps after which something may happen; None of epochs.

        All moments but the run's end are multiples of them; without any, there are a hundred.
        """
        if self.request.unit == "epoch":
            return None
        planned = (*self.evaluate.epochs(self.epochs), *self.saves.epochs(self.epochs))
        return gcd(*(step for step in planned if step < self.epochs)) or -(-self.epochs // SEGMENTS)

    def same(self, epochs: int) -> Epochs:
        """The same number in every draw."""
        return np.full(len(self.run.once), epochs, dtype=np.int64)

    @cached_property
    def binding(self) -> LimitName | None:
        """The limit that the next epoch would break; None where something else ends the run."""
        if not self.affordable or self.epochs >= (self.max_epochs or self.searched):
            return None
        q = self.budget.confidence
        return min(
            self.affordable,
            key=lambda name: (
                guaranteed(self.affordable[name], q),
                float(np.mean(self.affordable[name])),
            ),
        )

    def money_of(self, seconds: float) -> float | None:
        """What some seconds cost by themselves; None without a price."""
        return None if self.budget.price_per_hour is None else self.planned.meter.price(seconds)


def option_of(candidate: EvaluatedCandidate) -> Option:
    """What a run of this candidate takes, and how sure that is."""
    steps = int(candidate.priced.division.updates[candidate.position])
    more = candidate.planned.seconds(
        candidate.same(candidate.epochs + 1)
    ) - candidate.planned.seconds(candidate.same(candidate.epochs))
    next_seconds = float(np.median(more))
    return Option(
        config=candidate.config,
        epochs=candidate.epochs,
        affordable_epochs=_whole_quantiles(candidate.affordable_epochs),
        target_epochs=candidate.target,
        target_probability=None
        if candidate.target is None
        else _probability(candidate, candidate.target),
        max_epochs=candidate.max_epochs,
        probability=_probability(candidate, candidate.epochs),
        save_bytes=candidate.prices.save_bytes,
        binding=candidate.binding,
        slack=_slack(candidate),
        next_epoch_seconds=next_seconds,
        next_epoch_money=candidate.money_of(next_seconds),
        **_at_this_batch(candidate),
        steps_per_epoch=steps,
        horizon_steps=candidate.epochs * (1 if candidate.request.unit == "step" else steps),
        extrapolated=tuple(name for name, _ in candidate.cost.extrapolated()),
        **_totals(candidate),
        **_memory(candidate),
    )


def unit_prices_of(candidate: EvaluatedCandidate) -> UnitPrices:
    """What each part of its run takes: what a followed run is held against."""
    run, calibrations = candidate.run, candidate.priced.setup.model.calibration
    passes = (candidate.segment_steps or 1) * candidate.unit.share
    return UnitPrices(
        startup=quantiles(run.startup),
        first_steps=quantiles(run.first),
        epoch=quantiles(passes * (run.training + run.beside)),
        evaluation=quantiles(run.evaluation),
        save=quantiles(run.save),
        epoch_noise=min(run.noise / sqrt(passes), EPOCH_NOISE_CAP),
        round_scatter=candidate.cost.variant.run.sd,
        calibration=calibrations.epoch.factor,
        startup_calibration=calibrations.startup.factor,
        evaluation_calibration=calibrations.evaluation.factor,
        save_calibration=calibrations.save.factor,
    )


def _totals(candidate: EvaluatedCandidate) -> dict[str, Any]:
    """Time, money, energy and carbon of the run, as quantiles where they are known."""
    budget, spent = candidate.budget, candidate.spent
    seconds = spent.seconds(candidate.same(candidate.epochs))
    joules = spent.joules(seconds) if budget.watts else None
    money = spent.meter.money(seconds) if budget.price_per_hour is not None else None
    grams = None
    if joules is not None and budget.carbon_per_kwh is not None:
        grams = joules / KWH * budget.carbon_per_kwh
    named = {"seconds": seconds, "money": money, "energy_joules": joules, "carbon_grams": grams}
    return {name: None if x is None else quantiles(x) for name, x in named.items()}


def money_each(candidate: EvaluatedCandidate) -> Array:
    """Draws of what an epoch, or step, of the run costs, all its other costs shared out."""
    seconds = candidate.spent.seconds(candidate.same(candidate.epochs))
    return np.asarray(candidate.spent.meter.money(seconds) / candidate.epochs)


def _memory(candidate: EvaluatedCandidate) -> dict[str, Any]:
    memory = candidate.prices.device_bytes
    if memory is None:
        return {"device_bytes": None, "memory_share": None}
    capacity = candidate.priced.setup.model.device.memory_bytes  # 0 where it is not known
    share = memory.quantile(0.9) / capacity if capacity else None
    return {"device_bytes": memory.quantiles(), "memory_share": share}


def _probability(candidate: EvaluatedCandidate, epochs: int) -> float:
    return float(np.mean(candidate.affordable_epochs >= epochs))


def _slack(candidate: EvaluatedCandidate) -> tuple[tuple[LimitName, float], ...]:
    """What each limit leaves over, with the confidence asked for."""
    confidence, epochs = candidate.budget.confidence, candidate.same(candidate.epochs)
    return tuple(
        (name, limit - upper_quantile(candidate.spent.used(name, epochs), confidence))
        for name, limit in candidate.spent.limits().items()
    )


def _at_this_batch(candidate: EvaluatedCandidate) -> dict[str, Any]:
    """Progress per sample, and how the learning rate changes, where that is known."""
    noise_scale, optimizer = candidate.request.noise_scale, candidate.request.optimizer
    batch, reference = candidate.global_batch, candidate.reference
    known: dict[str, Any] = {"efficiency": None, "learning_rate_factor": None}
    if noise_scale is not None:
        known["efficiency"] = b.efficiency(batch, reference, noise_scale)
    if optimizer is not None:
        known["learning_rate_factor"] = b.learning_rate_factor(batch, reference, optimizer)
        known["learning_rate_rule"] = b.RATE_RULES[optimizer]
    return known


def _whole_quantiles(epochs: Epochs) -> Quantiles:
    """Of whole numbers; P10 is what nine draws in ten can afford."""
    return Quantiles.of(float(guaranteed(epochs, 1 - level)) for level in LEVELS)
