"""One candidate looked at closely: the disk its saves need, the epochs it may run."""

import known
import numpy as np
import pytest

import epochcast as ec
from epochcast.costmodel.prices import Prices
from epochcast.costmodel.scatter import Amount
from epochcast.planning.cadence import Every
from epochcast.planning.simulation import RunDraws, Spending, deviates
from epochcast.records import Budget

EXAMPLE = known.model(**known.EXAMPLE)
SAVE = 1e6  # bytes, of the example's checkpoints


def _disk(keep: int, evaluate: int, epochs: int, folds: int = 1) -> float:
    """Checkpoints on disk at most, in a run that saves at every epoch."""
    run = RunDraws(Prices(training=Amount(10.0)), deviates(0, 10), folds=folds)
    spending = Spending(run, Every(evaluate), Every(1), Budget(), save_bytes=1.0, keep=keep)
    (most,) = set(spending.disk_bytes(np.full(10, epochs)).tolist())
    return float(most)


def test_while_a_save_is_written_one_more_than_is_kept_is_on_disk() -> None:
    assert [_disk(keep, evaluate=0, epochs=100) for keep in (1, 2, 5)] == [2, 3, 6]


def test_an_older_best_checkpoint_stays_where_values_are_seen() -> None:
    assert [_disk(keep, evaluate=4, epochs=100) for keep in (1, 2, 5)] == [3, 4, 7]


def test_no_more_checkpoints_than_saves_and_all_where_all_are_kept() -> None:
    assert _disk(keep=5, evaluate=1, epochs=3) == 3
    assert _disk(keep=0, evaluate=1, epochs=100) == 100
    assert _disk(keep=1, evaluate=1, epochs=100, folds=5) == 15


@pytest.mark.parametrize(("evaluate", "spare"), [(0, 1), (1, 2)])
def test_saves_are_spread_unless_the_disk_has_room_for_the_spare_ones(
    evaluate: int, spare: int
) -> None:
    def saves(room: int) -> int:
        budget = Budget(disk=room * SAVE)
        found = ec.plan(EXAMPLE, budget, epochs=90, keep=2, evaluate=evaluate)
        assert found.chosen.epochs == 90  # a disk that is full spreads saves, and ends no run
        return len(found.epochs_of("save"))

    free = len(ec.plan(EXAMPLE, epochs=90, evaluate=evaluate).epochs_of("save"))
    assert saves(2 + spare) == free
    assert saves(2 + spare - 1) == 2 + spare - 1 < free


def test_a_run_has_as_many_epochs_as_fit_up_to_the_maximum() -> None:
    """150 s to begin, 50 s an epoch and 5 s of updates; nothing evaluated or saved."""
    none = {"evaluate": 0, "save": 0}
    hour = Budget(deadline=3600.0)
    assert ec.plan(EXAMPLE, hour, **none).chosen.epochs == (3600 - 150) // 55
    assert ec.plan(EXAMPLE, hour, epochs=10, **none).chosen.epochs == 10
    more = ec.plan(EXAMPLE, hour, epochs=10, max_epochs=20, **none).chosen
    assert (more.epochs, more.target_epochs, more.binding) == (20, 10, None)
