"""What happens when: the chosen run, moment by moment, and what its stop rules are likely to do.

    epoch     2      3      4      6      8  …  57
    evaluate  ●             ●      ●      ●     ●
    save             ●             ●            ●
    decide    ●             ●      ●      ●          stop here?  P(stop), time saved, regret

The forecast replays the rules on curves that the pilot makes likely (``FittedCurve.sample``): the
share of them that a check stops is the probability to stop there; regret is by how much the best
value by then is worse than the best by the end of the plan, on average over those. Training
losses, where a rule looks at them, are those of the same pilot, extended alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from epochcast.costmodel.epoch import Whole
from epochcast.costmodel.features import Array
from epochcast.errors import UsageError
from epochcast.planning.cadence import Epochs
from epochcast.planning.evaluation import EvaluatedCandidate
from epochcast.planning.request import PlanRequest
from epochcast.planning.stopping import Check, EarlyStopping, Futility, ProgressQuotient, Rule
from epochcast.records import Checkpoint, LearningCurve, Mode, Quantiles
from epochcast.records.estimate import LEVELS

if TYPE_CHECKING:
    from epochcast.planning.curves import FittedCurve

REPLAYS = 200  # of the rules: a probability of 10 % is then known within 2 %
MAX_CHECKS = 200_000  # looked at in all replays of one curve; fewer replays of a longer run
FEWEST_REPLAYS = 10
DRAWN = 256  # moments whose times are drawn and listed; between them, they follow the medians


class Chance(NamedTuple):
    """Of one check: how likely the run gets there and ends there, and what that costs.

    Attributes:
        regret: expected in the metric, given a stop there; None where none was seen.
    """

    reach: float
    stop: float
    regret: float | None


class Done(NamedTuple):
    """What is done by each moment."""

    epochs: Epochs
    evaluations: Epochs
    saves: Epochs


Forecast = Mapping[int, Chance]  # by the epoch of the check


def stop_forecast(
    chosen: EvaluatedCandidate, request: PlanRequest, fitted: Sequence[FittedCurve]
) -> Forecast:
    """What the rules are likely to do in this run; empty without rules or curves.

    Args:
        chosen: whose epochs and cadence say when checks are.
        request: its rules, but for futility, which would fit a curve at each check; and its seed.
        fitted: the learning curves of earlier runs, from which runs like them are drawn.
    """
    rules = [rule for rule in request.rules if not isinstance(rule, Futility)]
    epochs = chosen.evaluate.epochs(chosen.epochs)
    if not (rules and fitted and epochs):
        return {}
    random = np.random.default_rng(request.seed)
    replays = int(np.clip(MAX_CHECKS // len(epochs), FEWEST_REPLAYS, REPLAYS))
    at = np.array(epochs, dtype=float)
    watched = looks_at_training(rules)
    pilots = _with_training(fitted) if watched else fitted
    curves = np.concatenate([pilot.sample(at, replays, random) for pilot in pilots])
    training: Sequence[Array | None] = [None] * len(curves)
    if watched:
        training = [run for pilot in pilots for run in _training(pilot, at, replays, random)]
    runs = zip(curves, training, strict=True)
    stopped = np.array([_stopped_at(rules, epochs, chosen.minimum, *run) for run in runs])
    return dict(zip(epochs, _chances(stopped, curves, request.better), strict=True))


def looks_at_training(rules: Sequence[Rule]) -> bool:
    """Whether a rule needs training losses too."""
    return any(isinstance(rule, ProgressQuotient) for rule in rules)


def _with_training(fitted: Sequence[FittedCurve]) -> list[FittedCurve]:
    """The pilots whose training losses are known."""
    pilots = [pilot for pilot in fitted if pilot.seen.training]
    if not pilots:
        raise UsageError(
            "the rule pq needs training losses beside the validation losses, and the learning "
            "curve has none: give one with both, or leave out the rule"
        )
    return pilots


def _training(pilot: FittedCurve, epochs: Array, count: int, random: np.random.Generator) -> Array:
    """Possible training losses of runs like a pilot, shape (count, epochs)."""
    from epochcast.planning.curves import fit_curve

    losses = LearningCurve(epochs=pilot.seen.epochs, validation=pilot.seen.training)
    return fit_curve(losses).sample(epochs, count, random)


def _stopped_at(
    rules: Sequence[Rule],
    epochs: Sequence[int],
    min_epochs: int,
    curve: Array,
    training: Array | None,
) -> int:
    """Position of the check at which the rules stop; the number of checks if they do not.

    Args:
        rules: of the run.
        epochs: of the checks.
        min_epochs: before which no rule stops.
        curve: the metric at each check.
        training: likewise, on training data; None if it is not known.
    """
    stopping = EarlyStopping(rules, min_epochs=min_epochs)
    known = [None] * len(epochs) if training is None else training.tolist()
    for i, check in enumerate(map(Check, epochs, curve.tolist(), known)):
        if stopping.update(check) is not None:
            return i
    return len(epochs)


def _chances(stopped: Whole, curves: Array, mode: Mode) -> list[Chance]:
    """Of every check, from where each curve was stopped."""
    checks = curves.shape[1]
    best = np.minimum.accumulate(curves if mode == "min" else -curves, axis=1)
    early = np.flatnonzero(stopped < checks - 1)  # at the last check the run ends anyway
    at = stopped[early]
    counts = np.bincount(at, minlength=checks)
    lost = np.bincount(at, weights=best[early, at] - best[early, -1], minlength=checks)
    here, before = counts / len(stopped), np.cumsum(counts) - counts
    return [
        Chance(reach, stop, total / count if count else None)
        for reach, stop, total, count in zip(
            (1 - before / len(stopped)).tolist(),
            here.tolist(),
            lost.tolist(),
            counts.tolist(),
            strict=True,
        )
    ]


def timeline(chosen: EvaluatedCandidate, forecast: Forecast) -> tuple[Checkpoint, ...]:
    """When the moments are expected at which something happens in one fold of the chosen run.

    All of them where they are few; else some, and those at which a rule may end the run.
    """
    evaluated, saved = (c.epochs(chosen.epochs) for c in (chosen.evaluate, chosen.saves))
    moments = np.array(sorted({*evaluated, *saved, chosen.epochs}), dtype=np.int64)
    stops = [epoch for epoch, chance in forecast.items() if chance.stop]
    drawn = _drawn(len(moments))
    kept = np.union1d(drawn, np.searchsorted(moments, np.array(stops, dtype=np.int64)))
    if len(moments) <= DRAWN:
        kept = np.arange(len(moments))
    done = Done(
        epochs=moments[kept],
        evaluations=np.array([evaluated.until(epoch) for epoch in moments[kept].tolist()]),
        saves=np.array([saved.until(epoch) for epoch in moments[kept].tolist()]),
    )
    times = _times(chosen, done, np.searchsorted(kept, drawn))
    return tuple(
        _checkpoint(chosen, epoch, seconds, times[-1], forecast.get(epoch))
        for epoch, seconds in zip(done.epochs.tolist(), times, strict=True)
    )


def _drawn(moments: int) -> Epochs:
    """Positions of the moments whose times are drawn: close together at first, and both ends."""
    steps = np.geomspace(1, moments, min(DRAWN, moments))
    return np.unique(np.append(steps.astype(np.int64), moments)) - 1


def _times(chosen: EvaluatedCandidate, done: Done, drawn: Epochs) -> list[Quantiles]:
    """Seconds from the run's beginning to each moment.

    Drawn at some of them; in between, where a quantile is all but a straight line over the work
    done, in proportion to that.

    Args:
        chosen: whose run it is.
        done: by each moment.
        drawn: positions of the moments that are drawn.
    """
    prices, run = chosen.prices, chosen.one_fold
    draws = run.until(*(counted[drawn, None] for counted in done))
    work = (
        done.epochs * chosen.unit_seconds
        + done.evaluations * prices.evaluation.median
        + done.saves * prices.save.median
    )
    levels = [np.interp(work, work[drawn], level) for level in np.quantile(draws, LEVELS, axis=1)]
    return [Quantiles.of(row) for row in np.transpose(levels).tolist()]


def _checkpoint(
    chosen: EvaluatedCandidate,
    epoch: int,
    seconds: Quantiles,
    end: Quantiles,
    chance: Chance | None,
) -> Checkpoint:
    priced = chosen.budget.price_per_hour is not None
    money = chosen.planned.meter.money(seconds.p50) if priced else None
    if chance is None:
        return Checkpoint(epoch=epoch, seconds=seconds, money=money)
    saved = end.p50 - seconds.p50
    return Checkpoint(
        epoch=epoch,
        seconds=seconds,
        money=money,
        reach_probability=chance.reach,
        stop_probability=chance.stop,
        saved_seconds=saved,
        saved_money=chosen.money_of(saved),
        regret=chance.regret,
    )
