"""Wishes as people say them are the request they mean, and others are refused in one line."""

import math
from typing import Any

import known
import numpy as np
import pytest

import epochcast as ec
from epochcast.errors import UsageError
from epochcast.planning import stopping
from epochcast.planning.batch import RATE_RULES
from epochcast.planning.cadence import Rungs
from epochcast.planning.optimizers import OPTIMIZERS
from epochcast.planning.request import OBJECTIVES, PlanRequest
from epochcast.planning.stopping import Patience
from epochcast.planning.wishes import request_from
from epochcast.records import LearningCurve

EXAMPLE = known.model(**known.EXAMPLE)
PATIENCE = Patience(checks=3)
CURVE = LearningCurve(epochs=tuple(range(1, 9)), validation=tuple(1 / e for e in range(1, 9)))


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ({"optimizer": "adamw"}, {"optimizer": "adaptive"}),
        ({"optimizer": "sgd"}, {"optimizer": "sgd"}),
        ({"optimizer": None}, {}),
        ({"evaluate": "rungs"}, {"evaluate": Rungs()}),
        ({"objective": "money"}, {"objective": OBJECTIVES["money"]}),
        ({"batch_sizes": 256}, {"batch_sizes": (256,)}),
        ({"batch_sizes": [128, 128, 64]}, {"batch_sizes": (128, 64)}),
        ({"batch_sizes": None}, {}),
        ({"batch_sizes": "free", "noise_scale": 9.0}, {"batch_sizes": "free", "noise_scale": 9.0}),
        ({"devices": 2}, {"devices": (2,)}),
        ({"devices": (2, 2)}, {"devices": (2,)}),
        ({"devices": np.array([1, 2])}, {"devices": (1, 2)}),
        ({"epochs": np.int64(90)}, {"epochs": 90}),
        ({"rules": PATIENCE}, {"rules": (PATIENCE,)}),
        ({"curves": CURVE}, {"curves": (CURVE,)}),
    ],
)
def test_names_and_single_values(said: dict[str, Any], meant: dict[str, Any]) -> None:
    assert request_from(**said) == PlanRequest(**meant)


def test_the_library_takes_them() -> None:
    found = ec.plan(EXAMPLE, epochs=3, batch_sizes=5, rules=PATIENCE, optimizer="adamw",
                    objective="money", evaluate="rungs")  # fmt: skip
    assert found.chosen.global_batch == 5
    assert (found.objective, found.epochs_of("evaluate")) == ("money", (1, 3))
    assert "equal-epochs" not in {
        w.code for w in ec.plan(EXAMPLE, epochs=3, batch_sizes=(1, 1)).warnings
    }


def test_every_optimizer_has_a_rule() -> None:
    assert set(OPTIMIZERS.values()) == set(RATE_RULES)


class Never:
    """A rule as ``Rule`` asks for, but none that a document could name."""

    def update(self, state: stopping.State, check: stopping.Check) -> stopping.Verdict:
        return state, None


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({"optimizer": "adamx"}, "optimizer must be one of sgd, adam, .*, but got 'adamx'"),
        ({"objective": "fame"}, "objective must be one of time, money, memory, but got 'fame'"),
        ({"objective": 3}, "objective must be one of time, money, memory, but got 3"),
        ({"evaluate": "often"}, "a whole number or 'auto' or 'rungs', but got 'often'"),
        ({"evaluate": None}, "a whole number or 'auto' or 'rungs', but got None"),
        ({"save": "rungs"}, "save must be a whole number or 'auto', but got 'rungs'"),
        ({"save": 1.5}, "save must be a whole number or 'auto', but got 1.5"),
        ({"batch_sizes": "big"}, "batch_sizes must be a whole number or 'free', but got 'big'"),
        ({"batch_sizes": (1.5,)}, "batch_sizes must be a whole number or 'free', but got 1.5"),
        ({"devices": "two"}, "devices must be a whole number, but got 'two'"),
        ({"seed": 10**400}, "seed must be at most 9,223,372,036,854,775,807"),
        ({"keep": 10**20}, "keep must be at most 1,000,000,000"),
        ({"evaluate": 10**20}, "evaluate must be at most 1,000,000,000"),
        ({"metric": None}, "metric must be a name, but got None"),
        ({"precision": 16}, "precision must be a name, but got 16"),
        ({"mode": "foo"}, "mode must be min or max, but got 'foo'"),
        ({"epochs": True}, "epochs must be a whole number, but got True"),
        ({"folds": 2.5}, "folds must be a whole number, but got 2.5"),
        ({"folds": None}, "folds must be a whole number, but got None"),
        ({"keep": 1.5}, "keep must be a whole number, but got 1.5"),
        ({"samples": 1000.5}, "samples must be a whole number, but got 1000.5"),
        ({"noise_scale": "measured"}, "noise_scale must be a number, but got 'measured'"),
        ({"mtbf_seconds": 60, "restart_seconds": math.nan}, "restart_seconds must be finite"),
        ({"mtbf_seconds": 60, "restart_seconds": math.inf}, "restart_seconds must be"),
        ({"mtbf_seconds": 1e-300}, "must lie between 1 ms and 3,000 years, but got 1e-300"),
        ({"mtbf_seconds": 1e300}, "but got 1e.300; leave it out for a run that never fails"),
        ({"restart_seconds": 60.0}, "give mtbf_seconds too"),
        ({"min_delta": 0.1}, r"Patience\(checks=5, min_delta=…\)"),
        ({"min_delta": 0.1, "rules": PATIENCE}, r"Patience\(checks=5, min_delta=…\)"),
        ({"bandwidth": 1e9}, "the plan is for 1 device alone: give others too, --devices 2"),
        (
            {"bandwidth": 1e9, "devices": (1, 7)},
            "the batch cannot be divided over devices 1, 7",
        ),
        ({"rules": Never()}, "a plan is stored as data, and knows the rules patience, gl, "),
        ({"curves": "pilot.csv"}, "read_curve, but got 'pilot.csv'"),
    ],
)
def test_what_makes_no_sense_is_refused(wishes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as refused:
        ec.plan(EXAMPLE, **{"epochs": 5} | wishes)
    assert "\n" not in str(refused.value)


def test_an_improvement_that_something_waits_for_is_none_too_many() -> None:
    for used in ({"curves": CURVE}, {"rules": Patience(checks=3, min_delta=0.1)}):
        assert ec.plan(EXAMPLE, epochs=3, min_delta=0.1, **used).chosen.epochs == 3


@pytest.mark.parametrize(
    "make",
    [
        lambda: stopping.Patience(checks=2.5),  # type: ignore[arg-type]
        lambda: stopping.SuccessiveRises(rises=2.5),  # type: ignore[arg-type]
        lambda: stopping.SuccessiveRises(rises=2, strip=1.5),  # type: ignore[arg-type]
        lambda: stopping.ProgressQuotient(quotient=1, strip=1.5),  # type: ignore[arg-type]
        lambda: stopping.Futility(probability=0.1, first_checks=8.5),  # type: ignore[arg-type]
    ],
)
def test_what_rules_count_is_whole(make: Any) -> None:
    with pytest.raises(UsageError, match=r"counts \w+: give a whole number, but got [128]\.5"):
        make()
