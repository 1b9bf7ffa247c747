"""When nothing fits: the nearest thing that would, and which limits to relax by how much.

The nearest configuration is the one whose limits must be raised least: by the smallest factor for
the limit that is missed most, and where that is the same, for the next. What each limit would have
to be is what the fewest acceptable epochs use at the confidence asked for, so that raising the
limits to it makes the plan fit. In words a need is rounded up, so that the same holds for the
number that people read and give back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import floor, inf, log10

from epochcast.errors import DoesNotFit
from epochcast.planning.appraisal import Appraisal
from epochcast.planning.budget import guaranteed, upper_quantile
from epochcast.planning.candidates import memory_limit
from epochcast.planning.endless import why_endless
from epochcast.records import LimitName, Shortfall
from epochcast.units import (
    LONGEST_SECONDS,
    MOST_MONEY,
    format_bytes,
    format_money,
    format_percent,
    format_seconds,
    parse_bytes,
    parse_energy,
    parse_money,
    parse_seconds,
)

ROUNDS = 4  # in which limits are raised: cadences that follow the budget change what is needed
FINER = 5e-4  # relative: by how much a need grows until its text, read back, is enough


def _money(amount: float) -> str:
    """Three figures of less than one, without an exponent: what can be read back."""
    if amount >= 0.9995 or not amount:  # what three figures round to 1
        return format_money(amount)
    return f"${amount:.{_decimals(amount)}f}"


def _decimals(amount: float) -> int:
    return 2 - floor(log10(abs(amount)))


def _energy(joules: float) -> str:
    if joules < 3600:
        return f"{joules:.4g} J"
    return f"{joules / 3600:.4g} Wh" if joules < 3.6e6 else f"{joules / 3.6e6:.4g} kWh"


FORMS: dict[LimitName, tuple[Callable[[float], str], Callable[[str], float]]] = {
    "deadline": (format_seconds, parse_seconds),
    "money": (_money, parse_money),
    "energy": (_energy, parse_energy),
    "disk": (format_bytes, parse_bytes),
    "memory": (format_bytes, parse_bytes),
}
LARGEST: Mapping[LimitName, float] = {"deadline": LONGEST_SECONDS, "money": MOST_MONEY}
Miss = tuple[LimitName, float, float]  # a limit, what it is, what it would have to be


def nearest(appraisals: Sequence[Appraisal]) -> DoesNotFit:
    """The error that says what would fit."""
    closest = min(appraisals, key=_missed_by)
    shortfall = Shortfall(
        epochs=closest.minimum,
        confidence=closest.budget.confidence,
        config=closest.config,
        limits=tuple(misses(closest)),
        fitting_epochs=guaranteed(closest.affordable_epochs, closest.budget.confidence)
        if closest.fits_memory
        else 0,
    )
    endless = why_endless(closest, closest.minimum, closest.budget.confidence)
    return DoesNotFit(f"nothing fits: {endless}" if endless else describe(shortfall), shortfall)


def _level(a: Appraisal) -> float:
    """The confidence that each limit needs for all of them to hold with the one asked for.

    Time, money and energy at a known power rise and fall together: the same. A power of its own
    does not: then what is left over is shared out (Bonferroni).
    """
    if not a.budget.watts_spread:
        return a.budget.confidence
    return 1 - (1 - a.budget.confidence) / len(a.planned.limits())


def _missed_by(a: Appraisal) -> tuple[list[float], list[float]]:
    """The factors by which limits must grow, the largest first, and to what."""
    missed = [(need / has if has > 0 else inf, need) for _, has, need in misses(a)]
    missed.sort(reverse=True)
    return [factor for factor, _ in missed], [need for _, need in missed]


def misses(a: Appraisal) -> list[Miss]:
    """The limits that an appraisal's fewest epochs do not hold."""
    found: list[Miss] = []
    allowed = memory_limit(a.priced.job, a.budget)
    if a.memory_needed > allowed:
        found.append(("memory", allowed, a.memory_needed))
    has, raised = a.planned.limits(), _raised(a).planned.limits()
    return found + [(name, has[name], need) for name, need in raised.items() if need > has[name]]


def _raised(a: Appraisal) -> Appraisal:
    """The same under limits that its fewest epochs hold."""
    for _ in range(ROUNDS):
        if a.epochs >= a.minimum:
            break
        level, least = _level(a), a.same(a.minimum)
        limits = {
            name: max(limit, upper_quantile(a.unhurried.used(name, least), level))
            for name, limit in a.planned.limits().items()
        }
        a = replace(a, budget=replace(a.budget, **limits))  # type: ignore[arg-type]
    return a


def describe(shortfall: Shortfall) -> str:
    """One line: what is missed, by how much, what would fit."""
    changes = " and ".join(_change(*miss) for miss in shortfall.limits)
    one = shortfall.epochs == 1
    epochs, need = ("1 epoch", "needs") if one else (f"{shortfall.epochs:,} epochs", "need")
    fits = "fits" if shortfall.fitting_epochs == 1 else "fit"
    instead = f"; {shortfall.fitting_epochs:,} {fits} as it is" if shortfall.fitting_epochs else ""
    return (
        f"nothing fits: the nearest to it is {shortfall.config.label}, where {epochs} at "
        f"{format_percent(shortfall.confidence)} confidence {need} {changes}{instead}"
    )


def enough(name: LimitName, need: float) -> str:
    """A need in words, rounded up so that they suffice when they are given back."""
    form, read = FORMS[name]
    rounded = need
    while read(form(rounded)) < need:
        rounded *= 1 + FINER
    return form(rounded)


def _change(name: LimitName, has: float, need: float) -> str:
    form, read = FORMS[name]
    if need * (1 + FINER) > LARGEST.get(name, inf):
        return f"{form(need)} of {name}, where {form(has)} are allowed"
    text = enough(name, need)
    more = form(read(text) - has)
    return f"{text} of {name}, {more} more than the {form(has)} allowed"
