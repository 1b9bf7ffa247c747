"""Runs that practically never end are refused in words, and rare successes are counted."""

import math
import re
from dataclasses import replace

import known
import pytest

from epochcast.errors import DoesNotFit, UsageError
from epochcast.planning.curves import fit_curve
from epochcast.planning.planner import plan
from epochcast.planning.stopping import Futility, stopping_epoch
from epochcast.records import Budget, LearningCurve
from epochcast.report.text.warnings import warning_text
from epochcast.units import LONGEST_SECONDS

EXAMPLE = known.model(**known.EXAMPLE)


def test_attempts_are_counted_as_failures_come() -> None:
    """From a save to the next 10·55 + 4 s after a restart of 26 s: e^(580/M), ten at M = 252 s."""
    asked_for = {"epochs": 60, "evaluate": 0, "save": 10, "restart_seconds": 26.0}
    for mtbf, noted in ((100.0, True), (251.0, True), (253.0, False)):
        found = plan(EXAMPLE, Budget(), mtbf_seconds=mtbf, **asked_for)
        notes = [w for w in found.warnings if w.code == "rarely-saved"]
        assert bool(notes) == noted
    attempts = round(math.exp(580 / 100))
    (note,) = plan(EXAMPLE, Budget(), mtbf_seconds=100.0, **asked_for).warnings
    assert warning_text(note) == (
        "failures come every 1m 40s, but a restart takes 26 s and the way to the next save "
        f"9m 14s: after a failure about one attempt in {attempts} gets there"
    )


def test_a_disk_that_spreads_saves_makes_the_way_longer() -> None:
    asked_for = {"epochs": 60, "evaluate": 0, "mtbf_seconds": 900.0, "keep": 0}
    codes = [
        {w.code for w in plan(EXAMPLE, Budget(disk=disk), **asked_for).warnings}
        for disk in (1.5e6, 1e9)
    ]
    assert ["rarely-saved" in found for found in codes] == [True, False]


@pytest.mark.parametrize("mtbf", [0.001, 1.0])
def test_a_run_that_practically_never_ends_is_refused_in_words(mtbf: float) -> None:
    message = "may take over 3,000 years, as failures come every .*: the run practically never ends"
    with pytest.raises(UsageError, match=message):
        plan(EXAMPLE, Budget(), epochs=9, mtbf_seconds=mtbf)
    for limits in (Budget(deadline=3600.0), Budget(money=5.0, price_per_hour=1.0)):
        with pytest.raises(DoesNotFit, match=f"nothing fits: 1 epoch with batch_size=1 {message}"):
            plan(EXAMPLE, limits, mtbf_seconds=mtbf)


def test_more_than_three_thousand_years_are_no_limit() -> None:
    with pytest.raises(UsageError, match="spent_seconds must be at most 3,000 years"):
        plan(EXAMPLE, Budget(spent_seconds=1.01 * LONGEST_SECONDS), epochs=3)
    with pytest.raises(UsageError, match="deadline must be at most 3,000 years"):
        plan(EXAMPLE, Budget(deadline=1.01 * LONGEST_SECONDS), epochs=3)
    with pytest.raises(UsageError, match="over 3,000 years: give fewer epochs or samples"):
        plan(EXAMPLE, Budget(), epochs=1_000_000, samples=10**6)


def test_a_need_beyond_what_can_be_asked_for_is_said_without_digits() -> None:
    """At 1e15 an hour, 205 s cost 5.7e13; many epochs more than any amount that can be given."""
    with pytest.raises(DoesNotFit) as refused:
        plan(EXAMPLE, Budget(money=1.0, price_per_hour=1e15), min_epochs=50_000)
    assert re.search(r"need \$\d\.\d+e\+17 of money, where \$1\.00 are allowed", str(refused.value))


CURVE = LearningCurve(epochs=tuple(range(1, 13)), validation=tuple(1 / e for e in range(1, 13)))


def test_huge_values_of_a_curve_are_refused_and_stop_no_live_run() -> None:
    huge = replace(CURVE, validation=(*CURVE.validation[:-1], 1e300))
    with pytest.raises(UsageError, match=r"values of at most 1e\+100, but got 1e\+300"):
        fit_curve(huge)
    assert stopping_epoch(Futility(probability=0.01, horizon=90), huge) is None
    largest = replace(CURVE, validation=(*CURVE.validation[:-1], 1e100))
    assert math.isfinite(fit_curve(largest).value_quantiles(60).p95)


def test_a_run_that_hardly_ever_fails_is_not_told_of_attempts_after_a_failure() -> None:
    """The first attempt has no restart: a run of 55 min with a failure every 100 h fails in 1 %."""
    asked_for = {"epochs": 60, "evaluate": 0, "save": 10, "mtbf_seconds": 360_000.0}
    found = plan(EXAMPLE, Budget(), restart_seconds=3_600_000.0, **asked_for)
    assert "rarely-saved" not in {w.code for w in found.warnings}
