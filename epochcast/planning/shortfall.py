"""When nothing fits: the nearest thing that would, and which limits to relax by how much.

The nearest configuration is the one whose limits must be raised least: by the smallest factor for
the limit that is missed most, and where that is the same, for the next. What each limit would have
to be is what the fewest acceptable epochs use at the confidence asked for, so that raising the
limits to it makes the plan fit. In words a need is rounded up, so that the same holds for the
number that people read and give back.

And runs that practically never end: a stretch of s seconds between two saves, after a restart of R,
is done without a failure with a probability of e^(−(R + s)/M): one attempt in e^((R + s)/M) gets
there. Where that is a large number, a run takes ages, which figures with thirty digits do not say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import exp, expm1, floor, inf, log10

from epochcast.errors import DoesNotFit
from epochcast.planning.evaluation import EvaluatedCandidate
from epochcast.planning.failures import HOPELESS
from epochcast.planning.pricing import memory_limit
from epochcast.planning.simulation import guaranteed, upper_quantile
from epochcast.records import LimitName, Shortfall, Warning_
from epochcast.units import (
    LONGEST_SECONDS,
    MAX_MONEY,
    currency_sign,
    format_bytes,
    format_money,
    format_number_of,
    format_percent,
    format_seconds,
    parse_bytes,
    parse_energy,
    parse_money,
    parse_seconds,
)

ROUNDS = 4  # in which limits are raised: cadences that follow the budget change what is needed
FINER = 5e-4  # relative: by how much a need grows until its text, read back, is enough
RARELY = 0.1  # of runs fail at all: of the others it is no use to speak
MANY_ATTEMPTS = 10.0  # of which one gets to the next save: then most of the time is lost


def _money(amount: float) -> str:
    """Three figures of less than one, without an exponent: what can be read back."""
    if amount >= 0.9995 or not amount:  # what three figures round to 1
        return format_money(amount)
    return f"{currency_sign()}{amount:.{_decimals(amount)}f}"


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
LARGEST: Mapping[LimitName, float] = {"deadline": LONGEST_SECONDS, "money": MAX_MONEY}
Miss = tuple[LimitName, float, float]  # a limit, what it is, what it would have to be


def nearest(evaluations: Sequence[EvaluatedCandidate]) -> DoesNotFit:
    """The error that says what would fit."""
    closest = min(evaluations, key=_missed_by)
    shortfall = Shortfall(
        unit=closest.request.unit,
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


def _level(candidate: EvaluatedCandidate) -> float:
    """The confidence that each limit needs for all of them to hold with the one asked for.

    Time, money and energy at a known power rise and fall together: the same. A power of its own
    does not: then what is left over is shared out (Bonferroni).
    """
    if not candidate.budget.watts_spread:
        return candidate.budget.confidence
    return 1 - (1 - candidate.budget.confidence) / len(candidate.planned.limits())


def _missed_by(candidate: EvaluatedCandidate) -> tuple[list[float], list[float]]:
    """The factors by which limits must grow, the largest first, and to what."""
    missed = [(need / has if has > 0 else inf, need) for _, has, need in misses(candidate)]
    missed.sort(reverse=True)
    return [factor for factor, _ in missed], [need for _, need in missed]


def misses(candidate: EvaluatedCandidate) -> list[Miss]:
    """The limits that a candidate's fewest epochs do not hold."""
    found: list[Miss] = []
    allowed = memory_limit(candidate.priced.setup, candidate.budget)
    if candidate.memory_needed > allowed:
        found.append(("memory", allowed, candidate.memory_needed))
    has, raised = candidate.planned.limits(), _raised(candidate).planned.limits()
    return found + [(name, has[name], need) for name, need in raised.items() if need > has[name]]


def _raised(candidate: EvaluatedCandidate) -> EvaluatedCandidate:
    """The same under limits that its fewest epochs hold."""
    for _ in range(ROUNDS):
        if candidate.epochs >= candidate.minimum:
            break
        level, least = _level(candidate), candidate.same(candidate.minimum)
        limits = {
            name: max(limit, upper_quantile(candidate.unhurried.used(name, least), level))
            for name, limit in candidate.planned.limits().items()
        }
        candidate = replace(candidate, budget=replace(candidate.budget, **limits))  # type: ignore[arg-type]
    return candidate


def describe(shortfall: Shortfall) -> str:
    """One line: what is missed, by how much, what would fit."""
    changes = " and ".join(_change(*miss) for miss in shortfall.limits)
    one = shortfall.epochs == 1
    epochs, need = format_number_of(shortfall.epochs, shortfall.unit), "need" + "s" * one
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


# -- runs that practically never end ---------------------------------------------------------------


def why_endless(candidate: EvaluatedCandidate, epochs: int, level: float) -> str | None:
    """That so many epochs take over 3,000 years in a share ``level`` of runs; None if less.

    Args:
        candidate: whose time is simulated, failures and restarts included.
        epochs: of each run.
        level: share of the draws that must end in time, between 0 and 1.
    """
    if upper_quantile(candidate.planned.seconds(candidate.same(epochs)), level) <= LONGEST_SECONDS:
        return None
    run, mtbf = format_number_of(epochs, candidate.request.unit), candidate.request.mtbf_seconds
    endless = f"{run} with {candidate.config.label} may take over 3,000 years"
    if mtbf is None:
        return f"{endless}: give fewer {candidate.request.unit}s or samples"
    return (
        f"{endless}, as failures come every {format_seconds(mtbf)}, and from a save to the next it "
        f"takes {format_seconds(stretch_seconds(candidate, epochs))}: the run practically never "
        "ends, unless failures are rarer or saves closer together"
    )


def stretch_seconds(candidate: EvaluatedCandidate, epochs: int) -> float:
    """From one save to the next, in a run of so many epochs."""
    work = work_seconds(candidate, epochs)
    fewest_saves = work / candidate.max_saves if candidate.max_saves else 0.0
    return min(max(candidate.segment_seconds, fewest_saves), work)


def work_seconds(candidate: EvaluatedCandidate, epochs: int) -> float:
    """Of a run of so many epochs, without evaluations, saves and failures."""
    return candidate.prices.ready_seconds + epochs * candidate.unit_seconds


def failure_notes(chosen: EvaluatedCandidate) -> list[Warning_]:
    """That after a failure, which is likely enough, few attempts get to the next save."""
    mtbf = chosen.request.mtbf_seconds
    if mtbf is None:
        return []
    stretch = stretch_seconds(chosen, chosen.epochs)
    attempts = exp(min((chosen.restart_seconds + stretch) / mtbf, HOPELESS))
    failing = -expm1(-work_seconds(chosen, chosen.epochs) / mtbf)
    if attempts < MANY_ATTEMPTS or failing < RARELY:
        return []
    details = {
        "mtbf": format_seconds(mtbf),
        "stretch": format_seconds(stretch),
        "restart": format_seconds(chosen.restart_seconds),
        "attempts": f"{attempts:,.0f}",
    }
    return [Warning_.of("rarely-saved", **details)]
