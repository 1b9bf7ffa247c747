"""On demand beside spot: two prices, an interruption rate, and the chance that one is cheaper."""

from __future__ import annotations

import io
from dataclasses import replace

import known
import pytest
from rich.console import Console

from epochcast.errors import DoesNotFit, UsageError
from epochcast.planning.planner import plan
from epochcast.records import Budget, Plan, from_json, to_json
from epochcast.report.text.plan import print_plan, reasons

EXAMPLE = known.model(**known.EXAMPLE)
HOUR = 3600.0
NEVER = 1e6 * HOUR
PRICED = Budget(price_per_hour=3.0, confidence=0.9)


def offered(
    budget: Budget = PRICED, price: float = 1.5, mtbf: float = NEVER, **more: object
) -> Plan:
    asked = {"epochs": 40, "evaluate": 2, "save": 5} | more
    return plan(EXAMPLE, budget, spot_price_per_hour=price, spot_mtbf_seconds=mtbf, **asked)  # type: ignore[arg-type]


def test_without_interruptions_half_the_price_is_half_the_money_for_sure() -> None:
    found = offered()
    assert found.spot is not None
    assert found.spot.option is not None
    assert found.chosen.money is not None
    assert found.spot.option.money is not None
    assert found.spot.option.money.p50 == pytest.approx(found.chosen.money.p50 / 2, rel=1e-3)
    assert found.spot.cheaper_probability == 1.0


def test_at_the_same_price_interruptions_are_only_dearer_and_worse_the_more_there_are() -> None:
    often = [offered(price=3.0, mtbf=hours * HOUR).spot for hours in (0.5, 2.0, 8.0)]
    options = [offer.option for offer in often if offer is not None and offer.option is not None]
    assert [offer.cheaper_probability for offer in often if offer is not None] == [0.0] * 3
    seconds = [option.seconds.p50 for option in options]
    assert seconds == sorted(seconds, reverse=True)
    assert len(seconds) == 3


def test_devices_that_are_taken_away_before_any_save_never_end_the_run() -> None:
    offer = offered(mtbf=1.0).spot
    assert offer is not None
    assert offer.option is None
    assert "practically never ends" in offer.why_not


def test_interruptions_come_on_top_of_failures() -> None:
    offer = offered(mtbf=3 * HOUR, mtbf_seconds=6 * HOUR).spot
    assert offer is not None
    assert offer.mtbf_seconds == pytest.approx(2 * HOUR)  # 1/3 + 1/6 an hour


def test_the_plan_itself_is_as_without_and_keeps_its_offer_in_json() -> None:
    found = offered(mtbf=HOUR)
    assert replace(found, spot=None) == plan(EXAMPLE, PRICED, epochs=40, evaluate=2, save=5)
    assert from_json(to_json(found), Plan) == found


def test_what_does_not_fit_there_says_why() -> None:
    on_demand = offered().chosen.seconds.p95
    budget = replace(PRICED, deadline=1.1 * on_demand)
    found = offered(budget, mtbf=0.1 * HOUR, min_epochs=40)
    assert found.spot is not None
    assert found.spot.option is None
    (line,) = [line for line in reasons(found) if line.startswith("Spot")]
    assert "nothing fits" in line


def test_where_nothing_fits_it_is_said_what_would_on_spot_devices() -> None:
    """Money for a tenth of the run, or for none: half the price buys so many epochs more."""
    first = plan(EXAMPLE, PRICED, epochs=1).chosen.money
    assert first is not None
    budget = replace(PRICED, money=0.6 * first.p90)
    with pytest.raises(DoesNotFit, match="nothing fits") as plain:
        plan(EXAMPLE, budget, epochs=40, evaluate=2, save=5)
    with pytest.raises(DoesNotFit, match=r"would on spot devices: .*price_per_hour 0\.3") as found:
        offered(budget, price=0.3)
    assert str(found.value).startswith(str(plain.value))
    assert found.value.shortfall == plain.value.shortfall
    with pytest.raises(DoesNotFit, match="nor does anything on spot devices"):
        offered(budget, price=2.9)


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"spot_price_per_hour": 1.0}, "give both"),
        ({"spot_mtbf_seconds": 60.0}, "give both"),
        ({"spot_price_per_hour": 1.0, "spot_mtbf_seconds": 1e-9}, "between 1 ms"),
        ({"spot_price_per_hour": -1.0, "spot_mtbf_seconds": 60.0}, "spot_price_per_hour"),
    ],
)
def test_half_an_offer_is_refused(values: dict[str, float], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        plan(EXAMPLE, PRICED, epochs=3, **values)  # type: ignore[arg-type]


def test_an_offer_needs_a_price_to_be_compared_with() -> None:
    with pytest.raises(UsageError, match="give price_per_hour too"):
        offered(Budget())


GOLDEN = """\
Spot, $2.60 an hour with an interruption every 1h 00m: $1.86, at most $2.28, and 43m 00s, at most \
52m 38s; cheaper with a probability of 78 %, with --price-per-hour 2.6 --mtbf 3600s.
"""


def test_which_is_cheaper_and_how_surely_in_words() -> None:
    found = offered(price=2.6, mtbf=HOUR)
    (line,) = [line for line in reasons(found) if line.startswith("Spot")]
    assert line + "\n" == GOLDEN
    console = Console(file=io.StringIO(), width=500)
    print_plan(console, found)
    assert line in console.file.getvalue()  # type: ignore[attr-defined]
    dearer = reasons(offered(price=3.0, mtbf=0.3 * HOUR))
    assert any("dearer with a probability of 100 %." in line for line in dearer)
