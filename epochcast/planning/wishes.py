"""What people ask for, as they say it, to a request: names, single values, lists.

    optimizer="adamw"              ▶  "adaptive"            batch_sizes=256      ▶  (256,)
    evaluate="rungs"               ▶  Rungs()               devices=[2, 2, 4]    ▶  (2, 4)
    objective="money"              ▶  Cheapest()            rules=Patience(…)    ▶  (Patience(…),)

The command line and ``ec.plan`` both come through here; ``PlanRequest`` refuses what is left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

from epochcast.errors import UsageError
from epochcast.planning.cadence import Rungs
from epochcast.planning.optimizers import OPTIMIZERS
from epochcast.planning.request import NUMBERS, OBJECTIVES, WHOLE, PlanRequest
from epochcast.records import Budget
from epochcast.records.validation import plain, shown


def request_from(**wishes: Any) -> PlanRequest:
    """The request that wishes make.

    Args:
        **wishes: the fields of ``PlanRequest``; those above also as names, single values or lists.

    Raises:
        UsageError: a name that is not known, or a value that makes no sense.
    """
    _require_known(wishes)
    read = {name: READERS[name](value) for name, value in wishes.items() if name in READERS}
    return PlanRequest(**wishes | read)


def _require_known(wishes: Iterable[str]) -> None:
    known = [field.name for field in fields(PlanRequest)]
    for name in (name for name in wishes if name not in known):
        if name in (field.name for field in fields(Budget)):
            raise UsageError(f"{name} is a part of the budget: give it to ec.Budget")
        near = get_close_matches(name, known, n=1)
        instead = f"did you mean {near[0]}?" if near else f"a plan knows {', '.join(known)}"
        raise UsageError(f"there is no wish {name!r}; {instead}")


def _optimizer(name: Any) -> Any:
    return name if name is None else _named("optimizer", name, OPTIMIZERS)


def _objective(asked: Any) -> Any:
    return _named("objective", asked, OBJECTIVES) if isinstance(asked, str) else asked


def _evaluate(asked: Any) -> Any:
    return Rungs() if isinstance(asked, str) and asked == "rungs" else plain(asked)


def _named(what: str, name: Any, known: Mapping[str, Any]) -> Any:
    if not (isinstance(name, str) and name in known):
        raise UsageError(f"{what} must be one of {', '.join(known)}, but got {shown(name)}")
    return known[name]


def _several(asked: Any) -> Any:
    """One value is a tuple of one; None is none."""
    if asked is None:
        return ()
    if not isinstance(asked, str):
        with suppress(TypeError):  # no list, or a numpy array without a dimension
            return tuple(asked)
    return (asked,)


def _different(asked: Any) -> Any:
    """Each once; a word stays one."""
    if isinstance(asked, str):
        return asked
    values = tuple(map(plain, _several(asked)))
    with suppress(TypeError):  # lists in a list: for the request to refuse
        return tuple(dict.fromkeys(values))
    return values


def _sizes(asked: Any) -> Any:
    if not isinstance(asked, Mapping):
        return {} if asked is None else asked
    return {name: plain(value) for name, value in asked.items()}


READERS: Mapping[str, Callable[[Any], Any]] = {
    **dict.fromkeys(WHOLE + NUMBERS, plain),
    "optimizer": _optimizer,
    "objective": _objective,
    "evaluate": _evaluate,
    "save": plain,
    "sizes": _sizes,
    "batch_sizes": _different,
    "devices": _different,
    "rules": _several,
    "curves": _several,
}
