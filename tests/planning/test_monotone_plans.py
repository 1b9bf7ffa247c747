"""The law of the budget for whole plans: more of it never gives fewer epochs, disk included."""

from dataclasses import replace
from typing import Any

import known
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import epochcast as ec
from epochcast.costmodel.scatter import Scatter
from epochcast.errors import DoesNotFit

SAVE_BYTES = 1e6
MODEL = known.model(
    **(known.EXAMPLE | {"epoch": 6, "save": 2.0}),
    run=Scatter(sd=0.1, dof=8),
    step_sd=0.2,
    save_bytes=SAVE_BYTES,
)
budgets = st.builds(
    ec.Budget,
    deadline=st.floats(200, 5000),
    money=st.none() | st.floats(0.1, 5),
    price_per_hour=st.just(2.5),
    energy=st.none() | st.floats(1e4, 1e6),
    watts=st.just(300.0),
    disk=st.floats(0.5 * SAVE_BYTES, 60 * SAVE_BYTES),
    confidence=st.sampled_from([0.1, 0.5, 0.9, 0.95]),
)
requests = st.fixed_dictionaries(
    {
        "keep": st.integers(0, 4),
        "evaluate": st.sampled_from([0, 1, 3, "auto"]),
        "save": st.sampled_from(["auto", "auto", 0, 4]),
        "mtbf_seconds": st.sampled_from([None, 60.0, 600.0, 3600.0]),
        "folds": st.integers(1, 3),
        "batch_sizes": st.sampled_from([(1,), (1, 2)]),
        "max_epochs": st.none() | st.integers(1, 300),
    }
)


def _epochs(budget: ec.Budget, asked: dict[str, Any]) -> int:
    try:
        return ec.plan(MODEL, budget, **asked).chosen.epochs
    except DoesNotFit:
        return 0


@settings(max_examples=25, deadline=None)
@given(
    budgets, requests, st.sampled_from(["deadline", "money", "energy", "disk"]), st.floats(1, 12)
)
def test_more_of_a_limit_never_gives_fewer_epochs(
    budget: ec.Budget, asked: dict[str, Any], limit: str, factor: float
) -> None:
    before = getattr(budget, limit)
    richer = replace(budget, **{limit: None if before is None else before * factor})
    freed = replace(budget, **{limit: None}) if limit != "deadline" else richer
    assert _epochs(budget, asked) <= _epochs(richer, asked) <= _epochs(freed, asked)


def test_time_allows_as_many_epochs_as_saves_without_a_limit_of_disk_leave() -> None:
    """At 6 s an epoch and 2 s a save; a small disk has fewer saves, and no more epochs for it."""
    short = ec.Budget(deadline=1200.0)
    free = _epochs(short, {"evaluate": 0, "keep": 0})
    for room in (1, 2, 5, 16, 100):
        assert _epochs(replace(short, disk=room * SAVE_BYTES), {"evaluate": 0, "keep": 0}) == free


@pytest.mark.parametrize("keep", [0, 5])
def test_a_small_disk_removes_epochs_where_failures_then_undo_more(keep: int) -> None:
    asked = {"evaluate": 0, "keep": keep, "mtbf_seconds": 300.0}
    few = [_epochs(ec.Budget(deadline=3600.0, disk=n * SAVE_BYTES), asked) for n in (1, 2, 4, 99)]
    assert few == sorted(few)
    assert few[0] < few[-1] == _epochs(ec.Budget(deadline=3600.0), asked)
