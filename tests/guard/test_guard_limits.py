"""Every limit as the moment of this process at which it is used up."""

from dataclasses import replace

import pytest
from rehearsal import make_plan

from epochcast.errors import UsageError
from epochcast.guard.limits import Account, Allocation

DAY = 86_400.0


def limits(account: Account, allocation: Allocation | None = None, **budget: object):
    plan = make_plan(**{"deadline": None, **budget})  # type: ignore[arg-type]
    account = replace(account, plan=plan, allocation=allocation or Allocation())
    return [(limit.name, limit.seconds) for limit in account.limits()]


FIRST = Account(plan=make_plan(), allocation=Allocation(), run_began=DAY, process_began=DAY)
LATER = replace(FIRST, process_began=DAY + 1000, process_zero=50.0, spent_before=600)


def test_a_deadline_from_now_counts_the_time_between_processes() -> None:
    assert limits(FIRST, deadline=3600) == [("deadline", 3600)]
    assert limits(LATER, deadline=3600)[0] == ("deadline", 2600)


def test_a_clock_that_went_back_gives_no_time_back() -> None:
    back = replace(LATER, process_began=DAY - 3600)
    assert limits(back, deadline=3600)[0] == ("deadline", 3000)


def test_folds_share_the_time_until_a_moment() -> None:
    plan = make_plan(deadline=3000.0, deadline_at=DAY + 3000)
    account = replace(FIRST, plan=replace(plan, folds=3))
    assert account.limits()[0].seconds == 1000


def test_a_deadline_that_is_a_moment_stays_where_it_is() -> None:
    told = {"deadline": 3600.0, "deadline_at": DAY + 3000}
    assert limits(FIRST, **told) == [("deadline", 3000)]  # the run began ten minutes late
    assert limits(LATER, **told) == [("deadline", 2000)]


def test_a_deadline_in_total_does_not() -> None:
    assert limits(LATER, deadline=3600, counted_from="total") == [("deadline", 3000)]
    told = {"deadline": 3600, "counted_from": "total", "spent_seconds": 100.0}
    assert limits(LATER, **told) == [("deadline", 2900)]


def test_a_deadline_from_the_allocations_start_begins_anew_with_each() -> None:
    allocation = Allocation(start=DAY + 900)
    assert limits(LATER, allocation, deadline=3600, counted_from="start") == [("deadline", 3500)]
    assert limits(LATER, deadline=3600, counted_from="start") == [("deadline", 3600)]
    told = {"deadline": 3600, "counted_from": "start", "spent_seconds": 60.0}
    assert limits(FIRST, **told) == [("deadline", 3540)]


def test_the_allocations_end_holds_whatever_the_plan_says() -> None:
    allocation = Allocation(end=DAY + 1800)
    assert limits(FIRST, allocation) == [("deadline", 1800)]
    both = limits(FIRST, allocation, deadline=900.0)
    assert both == [("deadline", 900), ("deadline", 1800)]


def test_money_and_energy_are_time_that_they_pay_for() -> None:
    money = {"money": 3.0, "fixed_cost": 1.0, "price_per_hour": 2.0}
    assert limits(FIRST, **money) == [("money", 3600)]
    assert limits(LATER, **money) == [("money", 3000)]
    assert limits(FIRST, energy=3.6e6, watts=500.0) == [("energy", 7200)]
    uncertain = {"energy": 3.6e6, "watts": 500.0, "watts_spread": 0.1, "confidence": 0.9}
    assert limits(FIRST, **uncertain)[0][1] == pytest.approx(7200 / 1.128155, rel=1e-5)


def test_each_fold_may_use_its_share() -> None:
    plan = replace(make_plan(deadline=3000), folds=3)
    account = replace(FIRST, plan=plan)
    assert [limit.seconds for limit in account.limits()] == [1000]


def test_what_is_spent_costs_money_and_energy() -> None:
    plan = make_plan(price_per_hour=2.0, fixed_cost=1.0, watts=300.0)
    account = replace(LATER, plan=plan)
    assert account.spent(50 + 1200) == 1800
    assert account.money(1800) == 2
    assert account.joules(1800) == 540_000
    nothing = replace(LATER, plan=make_plan())
    assert nothing.money(1800) is None
    assert nothing.joules(1800) is None


def test_schedulers_tell_when_a_job_ends() -> None:
    slurm = {"SLURM_JOB_START_TIME": "100", "SLURM_JOB_END_TIME": "200"}
    assert Allocation.from_environment(slurm) == Allocation(start=100, end=200)
    assert Allocation.from_environment({}) == Allocation()
    ours = {**slurm, "EPOCHCAST_JOB_END_TIME": "150"}
    assert Allocation.from_environment(ours).end == 150
    with pytest.raises(UsageError, match="SLURM_JOB_END_TIME must be seconds since 1970"):
        Allocation.from_environment({"SLURM_JOB_END_TIME": "soon"})
