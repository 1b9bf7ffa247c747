"""When nothing fits: the nearest thing that would, and which limits to relax by how much.

The nearest configuration is the one whose limits must be raised least: by the smallest factor for
the limit that is missed most. What each limit would have to be is what the fewest acceptable
epochs use at the confidence asked for, so that raising the limits to it makes the plan fit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf

from epochcast.errors import EpochcastError
from epochcast.planning.appraisal import Appraisal
from epochcast.planning.budget import guaranteed, upper_quantile
from epochcast.planning.candidates import memory_limit
from epochcast.records import LimitName, Shortfall
from epochcast.units import (
    format_bytes,
    format_energy,
    format_money,
    format_percent,
    format_seconds,
)

FORMS: dict[LimitName, Callable[[float], str]] = {
    "deadline": format_seconds,
    "money": format_money,
    "energy": format_energy,
    "disk": format_bytes,
    "memory": format_bytes,
}
Miss = tuple[LimitName, float, float]  # a limit, what it is, what it would have to be


class DoesNotFit(EpochcastError):
    """No configuration fits the budget; ``shortfall`` is the nearest one."""

    exit_code = 3

    def __init__(self, message: str, shortfall: Shortfall) -> None:
        super().__init__(message)
        self.shortfall = shortfall


def nearest(appraisals: Sequence[Appraisal]) -> DoesNotFit:
    """The error that says what would fit."""
    closest = min(appraisals, key=lambda a: _missed_by(a))
    shortfall = Shortfall(
        epochs=closest.minimum,
        confidence=closest.budget.confidence,
        config=closest.config,
        limits=tuple(misses(closest)),
        fitting_epochs=guaranteed(closest.affordable_epochs, closest.budget.confidence)
        if closest.fits_memory
        else 0,
    )
    return DoesNotFit(describe(shortfall), shortfall)


def _level(a: Appraisal) -> float:
    """The confidence that each limit needs for all of them to hold with the one asked for.

    Time, money and energy at a known power rise and fall together: the same. A power of its own
    does not: then what is left over is shared out (Bonferroni).
    """
    if not a.budget.watts_spread:
        return a.budget.confidence
    return 1 - (1 - a.budget.confidence) / len(a.planned.limits())


def _missed_by(a: Appraisal) -> float:
    """The factor by which the limit that is missed most must grow."""
    return max((need / has if has > 0 else inf for _, has, need in misses(a)), default=1.0)


def misses(a: Appraisal) -> list[Miss]:
    """The limits that an appraisal's fewest epochs do not hold."""
    found: list[Miss] = []
    allowed = memory_limit(a.priced.job, a.budget)
    if a.memory_needed > allowed:
        found.append(("memory", allowed, a.memory_needed))
    if a.epochs >= a.minimum:
        return found
    has, level = a.planned.limits(), _level(a)
    needs = {name: upper_quantile(a.planned.used(name, a.same(a.minimum)), level) for name in has}
    return found + [(name, has[name], need) for name, need in needs.items() if need > has[name]]


def describe(shortfall: Shortfall) -> str:
    """One line: what is missed, by how much, what would fit."""
    changes = " and ".join(_change(*miss) for miss in shortfall.limits)
    epochs = "1 epoch" if shortfall.epochs == 1 else f"{shortfall.epochs:,} epochs"
    instead = f"; {shortfall.fitting_epochs:,} fit as it is" if shortfall.fitting_epochs else ""
    return (
        f"nothing fits: the nearest to it is {shortfall.config.label}, where {epochs} at "
        f"{format_percent(shortfall.confidence)} confidence need {changes}{instead}"
    )


def _change(name: LimitName, has: float, need: float) -> str:
    form = FORMS[name]
    return f"{form(need)} of {name}, {form(need - has)} more than the {form(has)} allowed"
