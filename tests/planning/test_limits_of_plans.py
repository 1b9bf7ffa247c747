"""When money, energy and time are used up, and what given seconds cost."""

from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochcast.planning.limits import Meter, share_of_fold
from epochcast.records import Budget

WHOLE = Budget(
    deadline=7200.0,
    money=5.0,
    fixed_cost=1.0,
    price_per_hour=2.0,
    energy=3.6e6,
    watts=500.0,
    spent_seconds=600.0,
)


def test_each_limit_in_closed_form() -> None:
    assert Meter(WHOLE, 1).binding_seconds() == {
        "deadline": 7200 - 600,
        "money": 3600 * (5 - 1) / 2 - 600,
        "energy": 3.6e6 / 500 - 600,
    }
    assert Meter(WHOLE, 4).binding_seconds() == {
        "deadline": 7200 - 600,
        "money": 3600 * (5 - 1) / (2 * 4) - 600,
        "energy": 3.6e6 / (500 * 4) - 600,
    }


@given(
    devices=st.integers(1, 64),
    fixed=st.floats(0, 10),
    price=st.floats(0.01, 100),
    watts=st.floats(1, 1000),
    spent=st.floats(0, 1e5),
)
def test_at_the_seconds_at_which_a_limit_binds_exactly_it_is_used(
    devices: int, fixed: float, price: float, watts: float, spent: float
) -> None:
    budget = Budget(
        money=10.0,
        price_per_hour=price,
        fixed_cost=fixed,
        energy=1e6,
        watts=watts,
        spent_seconds=spent,
    )
    meter = Meter(budget, devices)
    binding = meter.binding_seconds()
    assert meter.money(binding["money"]) == pytest.approx(10.0, abs=1e-6)
    assert meter.joules(binding["energy"]) == pytest.approx(1e6, rel=1e-6)


def test_uncertain_power_counts_at_the_confidence_asked_for_and_never_in_favour() -> None:
    uncertain = replace(WHOLE, watts_spread=0.1, spent_seconds=0.0, confidence=0.95)
    reach = 1 + 0.1 * NormalDist().inv_cdf(0.95)
    binding = Meter(uncertain, 1).binding_seconds()
    assert binding["energy"] == pytest.approx(3.6e6 / (500 * reach))
    careless = Meter(replace(uncertain, confidence=0.2), 1).binding_seconds()
    assert careless["energy"] == 3.6e6 / 500


def test_power_follows_its_deviate_and_is_never_negative() -> None:
    meter = Meter(replace(WHOLE, watts_spread=0.5), 1)
    assert meter.watts(np.array([-3.0, 0.0, 2.0])).tolist() == [0, 500, 1000]


def test_a_fold_has_its_share_of_time_money_and_energy_but_all_of_the_memory() -> None:
    budget = replace(WHOLE, memory=1e9, disk=1e10)
    third = share_of_fold(budget, 3)
    assert (third.memory, third.disk) == (1e9, 1e10)
    whole, part = Meter(budget, 2).binding_seconds(), Meter(third, 2).binding_seconds()
    assert part == pytest.approx({name: seconds / 3 for name, seconds in whole.items()})
    assert Meter(third, 2).money(100.0) == pytest.approx(Meter(budget, 2).money(300.0) / 3)


def test_what_time_does_not_use_up_is_left_out() -> None:
    assert Meter(Budget(disk=1e9, memory=1e9), 1).binding_seconds() == {}
    assert Meter(Budget(money=1.0, price_per_hour=0.0), 1).binding_seconds() == {}
    assert Meter(Budget(), 1).money(3600.0) == 0
    assert Meter(Budget(), 1).joules(3600.0) == 0
