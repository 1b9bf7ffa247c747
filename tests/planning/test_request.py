"""Arguments as people say them are the request they mean; others are refused in one line."""

import math
from dataclasses import fields
from fractions import Fraction
from inspect import signature
from pathlib import Path
from typing import Any

import known
import numpy as np
import pytest

import epochcast as ec
from epochcast.errors import UsageError
from epochcast.planning import stopping
from epochcast.planning.batch import OPTIMIZERS, RATE_RULES
from epochcast.planning.cadence import Rungs
from epochcast.planning.request import OBJECTIVES, PlanRequest, request_from
from epochcast.planning.stopping import Patience
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
        ({"epochs": np.array(90)}, {"epochs": 90}),
        ({"batch_sizes": np.array(128)}, {"batch_sizes": (128,)}),
        ({"sizes": None}, {}),
        ({"sizes": {"width": np.int64(512)}}, {"sizes": {"width": 512}}),
        ({"mtbf_seconds": np.int64(60)}, {"mtbf_seconds": 60}),
        ({"noise_scale": np.float32(0.5)}, {"noise_scale": 0.5}),
        ({"bandwidth": np.int32(9)}, {"bandwidth": 9}),
        (
            {"mtbf_seconds": 60, "restart_seconds": Fraction(1, 2)},
            {"mtbf_seconds": 60, "restart_seconds": 0.5},
        ),
        ({"rules": PATIENCE}, {"rules": (PATIENCE,)}),
        ({"curves": CURVE}, {"curves": (CURVE,)}),
    ],
)
def test_names_and_single_values(said: dict[str, Any], meant: dict[str, Any]) -> None:
    assert request_from(**said) == PlanRequest(**meant)


def test_the_library_takes_them() -> None:
    found = ec.plan(
        EXAMPLE,
        epochs=3,
        batch_sizes=5,
        rules=PATIENCE,
        optimizer="adamw",
        objective="money",
        evaluate="rungs",
    )
    assert found.chosen.global_batch == 5
    assert (found.objective, tuple(found.epochs_of("evaluate"))) == ("money", (1, 3))
    assert "equal-epochs" not in {
        w.code for w in ec.plan(EXAMPLE, epochs=3, batch_sizes=(1, 1)).warnings
    }


def test_numbers_of_numpy_are_stored_as_plain_ones(tmp_path: Path) -> None:
    whole, real = np.int64(600), np.float64(0.5)
    found = ec.plan(
        EXAMPLE,
        ec.Budget(deadline=np.float32(1e6), money=real, price_per_hour=real, memory=whole * 10**7),
        epochs=5,
        mtbf_seconds=np.float64(600),
        restart_seconds=whole,
        noise_scale=np.float32(300),
        min_delta=real,
        rules=Patience(checks=np.int64(3), min_delta=real),
        curves=CURVE,
    )
    numbers = (found.mtbf_seconds, found.budget.deadline, found.budget.memory, found.budget.money)
    assert {type(number) for number in numbers} == {int, float}
    found.save(tmp_path / "plan.json")
    assert ec.Plan.load(tmp_path / "plan.json") == found


def test_every_optimizer_has_a_rule() -> None:
    assert set(OPTIMIZERS.values()) == set(RATE_RULES)


class Never:
    """A rule as ``Rule`` asks for, but none that a document could name."""

    def update(self, state: stopping.State, check: stopping.Check) -> stopping.Verdict:
        return state, None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"optimizer": "adamx"}, "optimizer must be one of sgd, adam, .*, but got 'adamx'"),
        ({"objective": "fame"}, "objective must be one of time, money, memory, but got 'fame'"),
        ({"objective": 3}, "objective must be one of time, money, memory, but got 3"),
        ({"evaluate": "often"}, "a whole number or 'auto' or 'rungs', but got 'often'"),
        ({"steps": 5}, "epochs must be left out where a plan counts steps"),
        ({"epochs": None, "steps": "all"}, "steps must be a whole number or 'max', but got 'all'"),
        ({"epochs": None, "steps": 0}, "steps must be positive, but got 0"),
        ({"epochs": None, "steps": 10**10}, "steps must be at most 1,000,000,000, but got 1000000"),
        ({"epochs": None, "steps": 5, "min_steps": 6}, "min_steps must not be above the target"),
        ({"epochs": None, "min_steps": 1.5}, "min_steps must be a whole number, but got 1.5"),
        ({"epochs": None, "steps": 5, "batch_sizes": (1, 2)}, "of one batch size: give one"),
        ({"epochs": None, "steps": "max"}, "nothing ends the run: give steps, or a limit"),
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
        ({"bandwidth": 1e9}, "the plan is for 1 device alone: give others too, --devices 2"),
        (
            {"bandwidth": 1e9, "devices": (1, 7)},
            "the batch cannot be divided over devices 1, 7",
        ),
        ({"min_delta": 0.1, "rules": PATIENCE}, "min_delta is 0.1, but the rule patience waits"),
        ({"mtbf_seconds": 60, "restart_seconds": 1e12}, "at most 3,000 years, but got 1e.12 sec"),
        ({"mtbf_seconds": 10**400}, "mtbf_seconds must be at most 1.8e.308, but got a number of"),
        ({"mtbf_seconds": True}, "mtbf_seconds must be a number, but got True"),
        ({"epochs": 10**5000}, "epochs must be at most 1,000,000, but got a number of over 300"),
        ({"epochs": np.array([5])}, r"epochs must be a whole number, but got array\(\[5\]\)"),
        ({"batch_sizes": [[64]]}, r"a whole number or 'free', but got \[64\]"),
        ({"devices": np.zeros((40, 40))}, r"a whole number, but got array\(\[0., 0., "),
        ({"sizes": [("width", 512)]}, "sizes are values by name, like {'width': 512}, but got"),
        ({"sizes": {"width": [512]}}, r"a plan is for one value of width, but got \[512\]"),
        ({"rules": Never()}, "a plan is stored as data, and knows the rules patience, gl, "),
        ({"curves": "pilot.csv"}, "read_curve, but got 'pilot.csv'"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as refused:
        ec.plan(EXAMPLE, **{"epochs": 5} | arguments)
    assert "\n" not in str(refused.value)


def test_every_field_of_a_request_is_an_argument_of_plan_with_the_same_default() -> None:
    named = {
        p.name: p.default
        for p in signature(ec.plan).parameters.values()
        if p.kind is p.KEYWORD_ONLY
    }
    steps = {"steps", "min_steps"}  # what is counted in that unit
    assert {*named} - steps == {field.name for field in fields(PlanRequest)} - {"unit"}
    assert request_from(**named) == PlanRequest()


@pytest.mark.parametrize("name", ["foo", "batch_size", "deadline"])
def test_an_argument_that_is_not_known_is_refused(name: str) -> None:
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{name}'"):
        ec.plan(EXAMPLE, **{"epochs": 5, name: 1})  # type: ignore[arg-type]


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


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"checks": "5"}, "patience needs a number for checks, but got '5'"),
        ({"checks": None}, "needs a number for checks, but got None"),
        ({"checks": True}, "needs a number for checks, but got True"),
        ({"checks": 3, "min_delta": "a"}, "needs a number for min_delta, but got 'a'"),
        (
            {"checks": 3, "min_delta": 10**400},
            "number of at least 0 for min_delta, but got",
        ),
    ],
)
def test_settings_of_rules_are_numbers(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Patience(**settings)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"confidence": None}, "confidence must be a number, but got None"),
        ({"spent_seconds": None}, "spent_seconds must be a number, but got None"),
        ({"fixed_cost": None}, "fixed_cost must be a number, but got None"),
        ({"deadline": True}, "deadline must be a number, but got True"),
        ({"deadline": "8h"}, "deadline must be a number, but got '8h'"),
        ({"deadline": 10**400}, "deadline must be finite and >= 0, but got a number of over 300"),
        ({"price_per_hour": 1e308}, "price_per_hour must be at most 1e.15, but got 1e.308"),
        ({"watts": 10**18}, "watts must be at most 1e.15"),
        ({"carbon_per_kwh": 1e16}, "carbon_per_kwh must be at most 1e.15"),
        ({"money": 5}, "a limit of money needs price_per_hour"),
    ],
)
def test_limits_that_make_no_sense_are_refused(limits: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        ec.Budget(**limits)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["price_per_hour", "fixed_cost", "watts"])
def test_the_largest_prices_and_powers_can_be_planned_with(name: str) -> None:
    found = ec.plan(EXAMPLE, ec.Budget(**{name: 1e15}, carbon_per_kwh=1e15), epochs=5)
    assert found.chosen.epochs == 5


def test_a_metric_whose_direction_is_not_known_is_asked() -> None:
    with pytest.raises(
        UsageError, match=r"'quality' is better its name does not tell.* --mode max"
    ):
        PlanRequest(metric="quality")
    assert PlanRequest(metric="quality", mode="max").better == "max"
    assert PlanRequest(metric="val_mean_io_u").better == "max"
