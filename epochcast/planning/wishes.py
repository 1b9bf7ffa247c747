"""What people ask for, as they say it, to a request: names, single values, lists.

    optimizer="adamw"              ▶  "adaptive"            batch_sizes=256      ▶  (256,)
    evaluate="rungs"               ▶  Rungs()               devices=[2, 2, 4]    ▶  (2, 4)
    objective="money"              ▶  Cheapest()            rules=Patience(…)    ▶  (Patience(…),)

The command line and ``ec.plan`` both come through here; ``PlanRequest`` refuses what is left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from operator import index
from typing import Any

from epochcast.errors import UsageError
from epochcast.planning.cadence import Rungs
from epochcast.planning.optimizers import OPTIMIZERS
from epochcast.planning.request import OBJECTIVES, WHOLE, PlanRequest


def request_from(**wishes: Any) -> PlanRequest:
    """The request that wishes make.

    Args:
        **wishes: the fields of ``PlanRequest``; those above also as names, single values or lists.

    Raises:
        UsageError: a name that is not known, or a value that makes no sense.
    """
    read = {name: READERS[name](value) for name, value in wishes.items() if name in READERS}
    return PlanRequest(**wishes | read)


def _optimizer(name: Any) -> Any:
    return name if name is None else _named("optimizer", name, OPTIMIZERS)


def _objective(asked: Any) -> Any:
    return _named("objective", asked, OBJECTIVES) if isinstance(asked, str) else asked


def _evaluate(asked: Any) -> Any:
    return Rungs() if isinstance(asked, str) and asked == "rungs" else _plain(asked)


def _named(what: str, name: Any, known: Mapping[str, Any]) -> Any:
    if not (isinstance(name, str) and name in known):
        raise UsageError(f"{what} must be one of {', '.join(known)}, but got {name!r}")
    return known[name]


def _several(asked: Any) -> Any:
    """One value is a tuple of one; None is none."""
    if asked is None:
        return ()
    several = isinstance(asked, Iterable) and not isinstance(asked, str)
    return tuple(asked) if several else (asked,)


def _different(asked: Any) -> Any:
    """Each once; a word stays one."""
    if isinstance(asked, str):
        return asked
    return tuple(dict.fromkeys(map(_plain, _several(asked))))


def _plain(number: Any) -> Any:
    """A whole number of numpy's as one of Python's; anything else as it is."""
    whole = hasattr(number, "__index__") and not isinstance(number, bool)
    return index(number) if whole else number


READERS: Mapping[str, Callable[[Any], Any]] = {
    **dict.fromkeys(WHOLE, _plain),
    "optimizer": _optimizer,
    "objective": _objective,
    "evaluate": _evaluate,
    "save": _plain,
    "batch_sizes": _different,
    "devices": _different,
    "rules": _several,
    "curves": _several,
}
