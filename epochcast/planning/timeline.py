"""What happens when: the chosen run, moment by moment, and what its stop rules are likely to do.

    epoch     2      3      4      6      8  …  57
    evaluate  ●             ●      ●      ●     ●
    save             ●             ●            ●
    decide    ●             ●      ●      ●          stop here?  P(stop), time saved, regret

The forecast replays the rules on curves that the pilot makes likely (``FittedCurve.sample``): the
share of them that a check stops is the probability to stop there; regret is by how much the best
value by then is worse than the best by the end of the plan, on average over those.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from epochcast.costmodel.features import Array
from epochcast.planning.appraisal import Appraisal
from epochcast.planning.cadence import Epochs
from epochcast.planning.draws import RunDraws, quantiles
from epochcast.planning.request import PlanRequest
from epochcast.planning.stopping import Check, Futility, Rule, Watch
from epochcast.records import Action, Checkpoint, LearningCurve, Mode, Quantiles

REPLAYS = 200  # of the rules: a probability of 10 % is then known within 2 %
MOST_CHECKS = 200_000  # looked at in all replays of one curve; fewer replays of a longer run
CHUNK = 64  # moments whose draws are held in memory at once


@dataclass(frozen=True, slots=True)
class StopForecast:
    """For each check: how likely the run ends there, and what that costs in the metric.

    Attributes:
        epochs: of the checks, (m,).
        stops: probability to stop at each of them, (m,).
        regret: expected, given a stop there; NaN where none was seen, (m,).
    """

    epochs: tuple[int, ...]
    stops: Array
    regret: Array

    def at(self, epoch: int) -> tuple[float, float, float | None] | None:
        """Probability to get there, to stop there, and the regret of it."""
        i = bisect_left(self.epochs, epoch)
        if i == len(self.epochs) or self.epochs[i] != epoch:
            return None
        regret = float(self.regret[i])
        return 1 - float(self.stops[:i].sum()), float(self.stops[i]), _known(regret)


def _known(value: float) -> float | None:
    return None if np.isnan(value) else value


def stop_forecast(chosen: Appraisal, request: PlanRequest) -> StopForecast | None:
    """What the rules are likely to do in this run; None without rules or curves."""
    rules = [rule for rule in request.rules if not isinstance(rule, Futility)]
    epochs = chosen.evaluate.epochs(chosen.epochs)
    if not (rules and request.curves and epochs):
        return None
    random = np.random.default_rng(request.seed)
    curves = np.concatenate(
        [_likely(curve, request.mode, epochs, random) for curve in request.curves]
    )
    training = _training(request.curves[0], epochs)
    stopped = np.array([_stopped_at(rules, epochs, curve, training) for curve in curves])
    return StopForecast(epochs, *_summarise(stopped, curves, request.mode))


def _likely(
    curve: LearningCurve, mode: Mode, epochs: Sequence[int], random: np.random.Generator
) -> Array:
    from epochcast.planning.curves import fit_curve

    replays = int(np.clip(MOST_CHECKS // len(epochs), REPLAYS // 10, REPLAYS))
    return fit_curve(curve, mode).sample(np.array(epochs, dtype=float), replays, random)


def _training(curve: LearningCurve, epochs: Sequence[int]) -> list[float | None]:
    """Training values at the checks; the last one seen persists."""
    if not curve.training:
        return [None] * len(epochs)
    return [float(v) for v in np.interp(epochs, curve.epochs, curve.training)]


def _stopped_at(
    rules: Sequence[Rule], epochs: Sequence[int], curve: Array, training: Sequence[float | None]
) -> int:
    """Position of the check at which the rules stop; the number of checks if they do not."""
    watch = Watch(rules)
    for i, (epoch, value, other) in enumerate(zip(epochs, curve, training, strict=True)):
        if watch.update(Check(epoch, float(value), other)) is not None:
            return i
    return len(epochs)


def _summarise(stopped: Array, curves: Array, mode: Mode) -> tuple[Array, Array]:
    checks = curves.shape[1]
    values = curves if mode == "min" else -curves
    best = np.minimum.accumulate(values, axis=1)
    stops, regret = np.zeros(checks), np.full(checks, np.nan)
    for i in range(checks - 1):  # at the last check the run ends anyway
        here = stopped == i
        stops[i] = here.mean()
        if here.any():
            regret[i] = float((best[here, i] - best[here, -1]).mean())
    return stops, regret


def timeline(chosen: Appraisal, forecast: StopForecast | None) -> tuple[Checkpoint, ...]:
    """Every moment at which something happens in one fold of the chosen run."""
    evaluated, saved = (
        np.array(cadence.epochs(chosen.epochs), dtype=np.int64)
        for cadence in (chosen.evaluate, chosen.saves)
    )
    moments = np.union1d(np.union1d(evaluated, saved), [chosen.epochs])
    evaluations, saves = (np.searchsorted(x, moments, side="right") for x in (evaluated, saved))
    times = _times(chosen.one_fold, moments, evaluations, saves)
    decides = bool(chosen.request.rules)
    return tuple(
        _checkpoint(
            chosen, int(epoch), seconds, times[-1],
            _actions(bool(evaluates), bool(saves), decides and bool(evaluates)),
            forecast.at(int(epoch)) if forecast else None,
        )
        for epoch, seconds, evaluates, saves in zip(
            moments, times, np.isin(moments, evaluated), np.isin(moments, saved), strict=True
        )
    )  # fmt: skip


def _times(run: RunDraws, moments: Epochs, evaluations: Epochs, saves: Epochs) -> list[Quantiles]:
    """Seconds from the run's beginning to each moment; some moments at a time."""
    found: list[Quantiles] = []
    for start in range(0, len(moments), CHUNK):
        some = slice(start, start + CHUNK)
        counts = (counted[some, None] for counted in (moments, evaluations, saves))
        found += [quantiles(row) for row in run.until(*counts)]
    return found


def _actions(evaluate: bool, save: bool, decide: bool) -> tuple[Action, ...]:
    named: tuple[tuple[Action, bool], ...] = (
        ("evaluate", evaluate), ("save", save), ("decide", decide),
    )  # fmt: skip
    return tuple(name for name, happens in named if happens)


def _checkpoint(
    chosen: Appraisal,
    epoch: int,
    seconds: Quantiles,
    end: Quantiles,
    actions: tuple[Action, ...],
    forecast: tuple[float, float, float | None] | None,
) -> Checkpoint:
    price = chosen.money_of(chosen.budget.spent_seconds + seconds.p50)
    money = None if price is None else chosen.budget.fixed_cost + price
    if forecast is None:
        return Checkpoint(epoch=epoch, seconds=seconds, money=money, actions=actions)
    reach, stop, regret = forecast
    saved = end.p50 - seconds.p50
    return Checkpoint(
        epoch=epoch,
        seconds=seconds,
        money=money,
        actions=actions,
        reach_probability=max(0.0, reach),
        stop_probability=stop,
        saved_seconds=saved,
        saved_money=chosen.money_of(saved),
        regret=regret,
    )
