"""Durations, sizes and money: closed forms, round trips, and every kind of bad input."""

from __future__ import annotations

import math
import re
from datetime import datetime, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochcast import units
from epochcast.errors import UsageError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90.0),
        ("0", 0.0),
        ("1e3", 1000.0),
        ("1.5h", 5400.0),
        ("1h 30m", 5400.0),
        ("1H30M", 5400.0),
        (" 2d 5h ", 2 * 86400 + 5 * 3600.0),
        ("10min", 600.0),
        ("250ms", 0.25),
        ("7µs", 7e-6),
        ("7us", 7e-6),
        ("1 day", 86400.0),
        ("2 hours 5 Minutes", 7500.0),
        ("90minutes", 5400.0),
        ("8hr", 28800.0),
        (".5h", 1800.0),
    ],
)
def test_parse_seconds(text, seconds):
    assert units.parse_seconds(text) == pytest.approx(seconds, rel=1e-12)


@pytest.mark.parametrize(
    "text",
    ["", " ", "soon", "1h 30", "5 weeks", "-1", "-1h", "inf", "nan", "1h,5m", "9" * 400 + "h"],
)
def test_parse_seconds_refuses(text):
    with pytest.raises(UsageError, match=r"a duration is a number of seconds or like '1h 30m'"):
        units.parse_seconds(text)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("1024", 1024),
        ("0", 0),
        ("24GiB", 24 * 1024**3),
        ("24 gib", 24 * 1024**3),
        (" 800 MB ", 800_000_000),
        ("1.5KiB", 1536),
        ("12B", 12),
        ("1PB", 10**15),
        ("24G", 24 * 1024**3),
        ("512m", 512 * 1024**2),
        ("12 bytes", 12),
        ("1e9", 10**9),
    ],
)
def test_parse_bytes(text, count):
    assert units.parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "GiB", "-1", "-1GiB", "1 2", "1XB", "²", "nan", "9" * 400])
def test_parse_bytes_refuses(text):
    with pytest.raises(UsageError, match="a size is a number of bytes or like"):
        units.parse_bytes(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 s"),
        (4.27e-3, "4.27 ms"),
        (7e-6, "7 µs"),
        (0.5, "500 ms"),
        (41.0, "41 s"),
        (99.4, "99.4 s"),
        (99.6, "1m 40s"),
        (3580.0, "59m 40s"),
        (3599.7, "1h 00m"),
        (5400.0, "1h 30m"),
        (3 * 3600 + 12 * 60, "3h 12m"),
        (53 * 3600.0, "2d 05h"),
        (-41.0, "-41 s"),
        (math.inf, "unbounded"),
        (math.nan, "unbounded"),
    ],
)
def test_format_seconds(seconds, text):
    assert units.format_seconds(seconds) == text


@given(st.floats(1e-6, 1e8))
def test_a_formatted_duration_reads_back_within_its_figures(seconds):
    back = units.parse_seconds(units.format_seconds(seconds))
    assert back == pytest.approx(seconds, rel=0.0105)  # half an hour of 48 h is the coarsest


@given(st.integers(0, 999 * 1024**5))
def test_a_formatted_size_reads_back_within_three_figures(count):
    assert units.parse_bytes(units.format_bytes(count)) == pytest.approx(count, rel=0.0055, abs=1)


@given(st.floats(0, 1e7), st.floats(0, 1e7))
def test_longer_durations_never_read_as_shorter(left, right):
    short, long = sorted((left, right))
    parsed = [units.parse_seconds(units.format_seconds(value)) for value in (short, long)]
    assert parsed[0] <= parsed[1] * (1 + 1e-9)


@given(st.integers(0, 2**60))
def test_plain_numbers_of_bytes_are_exact_up_to_doubles(count):
    assert units.parse_bytes(str(count)) == int(float(count))


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "0.98 KiB"),
        (1536, "1.50 KiB"),
        (10.6 * 1024**2, "10.6 MiB"),
        (24 * 1024**3, "24 GiB"),
        (-(1024**3), "-1 GiB"),
        (math.inf, "inf PiB"),
        (math.nan, "nan B"),
    ],
)
def test_format_bytes(count, text):
    assert units.format_bytes(count) == text


@pytest.mark.parametrize(
    ("count", "unit", "text"),
    [
        (1.2e9, "FLOP", "1.20 GFLOP"),
        (0, "", "0"),
        (535818, "", "536 k"),
        (-500.4, "", "-500"),
        (999.6, "", "1.00 k"),
    ],
)
def test_format_count(count, unit, text):
    assert units.format_count(count, unit) == text


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (12.4, "$12.40"),
        (0.0, "$0.00"),
        (0.00123, "$0.0012"),
        (0.0139, "$0.014"),
        (0.00996, "$0.010"),
        (0.0000694, "$0.000069"),
        (0.456, "$0.46"),
        (12345.678, "$12,345.68"),
    ],
)
def test_format_money(amount, text):
    assert units.format_money(amount) == text


@pytest.fixture
def dollars():
    yield
    units.use_currency("$")


@pytest.mark.parametrize(
    ("currency", "text"),
    [("€", "€12.40"), ("EUR", "EUR 12.40"), ("R$", "R$12.40"), ("kr.", "kr. 12.40")],
)
def test_amounts_are_of_one_currency(dollars, currency, text):
    units.use_currency(currency)
    assert units.format_money(12.4) == text
    for amount in (text, f"12.4 {currency}", "12.4", text.lower()):
        assert units.parse_money(amount) == units.parse_price(amount) == 12.4
    assert units.parse_price(f"1.212{currency}") == 1.212  # an hour's price has no groups
    with pytest.raises(UsageError, match=re.escape(f"as plans print {currency}; but got '£18'")):
        units.parse_money("£18")


@pytest.mark.parametrize("sign", ["", "1", "a b", "€1", "-", "dollars", "\x1b", ".", "k"])
def test_what_is_no_currency(sign):
    with pytest.raises(UsageError, match="a currency is like"):
        units.use_currency(sign)


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.12, "12 %"), (0.035, "3.5 %"), (0.0, "0.0 %"), (0.0996, "10 %"), (-0.05, "-5.0 %")],
)
def test_format_percent(share, text):
    assert units.format_percent(share) == text


@pytest.mark.parametrize(
    ("share", "text"), [(0.1234, "+12.34 %"), (-0.00016, "-0.02 %"), (0.0, "+0.00 %")]
)
def test_format_change(share, text):
    assert units.format_change(share) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.12, "±12 %"),
        (0.994, "±99 %"),
        (1.0, "a factor of 2 either way"),
        (1.5, "a factor of 2.50 either way"),
        (23.37, "a factor of 24.4 either way"),
    ],
)
def test_format_half_width(share, text):
    assert units.format_half_width(share) == text


@pytest.mark.parametrize(
    ("text", "joules"),
    [
        ("0.25kWh", 9e5),
        ("0.25 kWh", 9e5),
        ("900kJ", 9e5),
        ("250 Wh", 9e5),
        ("5e5", 5e5),
        ("5mJ", 5e-3),
        ("5MJ", 5e6),
        ("1MWh", 3.6e9),
        ("250mWh", 900.0),  # m is milli in any unit, M mega: a billion times as much
        ("1 KWH", 3.6e6),
        (".25kwh", 9e5),
    ],
)
def test_parse_energy(text, joules):
    assert units.parse_energy(text) == pytest.approx(joules)


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("$18", 18),
        ("18.50", 18.5),
        ("$1,200", 1200),
        ("20 $", 20),
        ("1,850.00", 1850),
        ("12,345,678", 12345678),
        (".2", 0.2),
        ("1e3", 1000),
        ("0.125", 0.125),
        ("1200", 1200),
    ],
)
def test_parse_money(text, amount):
    assert units.parse_money(text) == amount


@pytest.mark.parametrize(
    "text", ["18,50", "€1.200", "1.200", "18€", "¥1800", "1,85", "1,2345", "1234,567", "1,850,0"]
)
def test_money_that_may_be_two_amounts_or_another_currency_is_refused(text):
    with pytest.raises(UsageError, match="as plans print"):
        units.parse_money(text)


@pytest.mark.parametrize("text", ["1e300", "1e7 days"])
def test_deadlines_beyond_all_reason_are_refused(text):
    with pytest.raises(UsageError, match="at most 3,000 years"):
        units.parse_deadline(text, datetime(2026, 11, 30))


@pytest.mark.parametrize(
    ("text", "share"), [("90%", 0.9), ("0.9", 0.9), ("5 %", 0.05), ("95", 0.95), ("1", 1)]
)
def test_parse_share(text, share):
    assert units.parse_share(text) == pytest.approx(share)


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (units.parse_energy, "5 apples"),
        (units.parse_energy, ""),
        (units.parse_money, "free"),
        (units.parse_money, "-3"),
        (units.parse_money, "1e300"),
        (units.parse_money, ""),
        (units.parse_share, "most"),
        (units.parse_share, "90%%"),
        (units.parse_share, "90%5"),
    ],
)
def test_quantities_that_are_none_are_refused(parse, text):
    with pytest.raises(UsageError, match="is like"):
        parse(text)


def test_a_deadline_is_a_duration_or_a_time():
    now = datetime(2026, 11, 30, 20, 0)
    assert units.parse_deadline("8h", now) == 8 * 3600
    assert units.parse_deadline("2026-12-01 08:00", now) == 12 * 3600
    assert units.parse_deadline("2026-12-01T08:00:30", now) == 12 * 3600 + 30
    midnight = datetime(2026, 12, 1, tzinfo=timezone.utc)
    assert units.parse_deadline("2026-12-01T08:00+05:00", midnight) == 3 * 3600
    with pytest.raises(UsageError, match=r"has passed 1h 00m ago"):
        units.parse_deadline("2026-11-30 19:00", now)
    with pytest.raises(UsageError, match="a time is like"):
        units.parse_deadline("2026-13-01", now)


@pytest.mark.parametrize(
    ("joules", "text"), [(9e5, "250 Wh"), (4.32e6, "1.20 kWh"), (12.0, "12 J"), (0.0, "0 J")]
)
def test_format_energy(joules, text):
    assert units.format_energy(joules) == text


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (54.1, 57.2, "54.1–57.2 s"),
        (654, 762, "10m 54s–12m 42s"),
        (0.851, 1.46, "851 ms–1.46 s"),
        (1.012, 1.46, "1.01–1.46 s"),
        (0.012, 0.0205, "12–20.5 ms"),
        (1e-6, 2e-6, "1–2 µs"),
        (0, 0, "0–0 s"),
        (59, 100, "59 s–1m 40s"),
        (3e5, 4e5, "3d 11h–4d 15h"),
        (5, math.inf, "5 s–unbounded"),
    ],
)
def test_spans_share_a_unit(low, high, text):
    assert units.format_span(low, high) == text


def test_what_is_beyond_reason_has_no_digits() -> None:
    assert units.format_seconds(units.LONGEST_SECONDS).endswith("d 00h")
    assert units.format_seconds(1.001 * units.LONGEST_SECONDS) == "over 3,000 years"
    assert units.format_money(2e20) == "$2e+20"


# Lines outside units.py that write a unit themselves, and why they may.
OWN_FORMATS = {
    "costmodel/prediction.py": "detail of a warning, as its text wants it",
    "importers/elapsed.py": "quotes what was given",
    "importers/entries.py": "quotes what was given",
    "planning/planner.py": "quotes what was given",
    "planning/request.py": "quotes what was given",
    "planning/shortfall.py": "advice with all the digits that it takes to be enough",
    "profiler/process.py": "quotes what was given",
    "report/text/plan.py": "quotes the setting of a rule",
}


def test_units_are_written_in_one_file_but_for_a_few_lines() -> None:
    """A number that is formatted as a percentage, or with a unit right behind it."""
    units_behind = r"s|ms|µs|seconds|minutes|hours|%|[KMGT]iB|[kMGT]B|bytes|J|k?Wh|joules|\\$"
    own = re.compile(rf"\{{[^{{}}\"]*:[^{{}}\"]*(?:%\}}|[fge]\}} ?(?:{units_behind})(?!\w))")
    package = Path(units.__file__).parent
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if path.name != "units.py" and own.search(path.read_text("utf-8"))
    }
    assert found == set(OWN_FORMATS)  # each file listed is there, and still has such a line


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1-12:00:00", 36 * 3600),
        ("2-00", 2 * 86400),
        ("0-01:30", 5400),
        ("8:00:00", 8 * 3600),
        ("00:04:39", 279),
        ("100:00:00", 360_000),
    ],
)
def test_durations_as_slurm_writes_them(text, seconds):
    assert units.parse_seconds(text) == seconds


def test_hours_or_minutes_are_asked_for():
    with pytest.raises(UsageError, match="may be hours or minutes; write '8h 30m'"):
        units.parse_seconds("08:00")


@pytest.mark.parametrize(
    ("text", "hours"),
    [
        ("08:00", 12.0),
        ("8:00", 12.0),
        ("20:30", 0.5),
        ("20:00", 24.0),
        ("19:59", 24 - 1 / 60),
        ("today 21:15", 1.25),
        ("tomorrow 8:00", 12.0),
        ("Tomorrow  21:00", 25.0),
    ],
)
def test_a_deadline_by_the_clock(text, hours):
    now = datetime(2026, 11, 30, 20, 0)
    assert units.is_time(text)
    assert units.parse_deadline(text, now) == pytest.approx(hours * 3600)


@pytest.mark.parametrize("text", ["25:00", "tomorrow 8:61", "2026-13-01"])
def test_times_that_there_are_not(text):
    with pytest.raises(UsageError, match="a time is like '2026-12-01 08:00', '08:00'"):
        units.parse_deadline(text, datetime(2026, 11, 30))


def test_a_time_of_today_may_have_passed():
    with pytest.raises(UsageError, match="has passed 12h 00m ago"):
        units.parse_deadline("today 8:00", datetime(2026, 11, 30, 20, 0))


@pytest.mark.parametrize(
    ("text", "watts"), [("300", 300), ("300W", 300), ("0.3 kW", 300), ("450 mW", 0.45)]
)
def test_parse_power(text, watts):
    assert units.parse_power(text) == pytest.approx(watts)


@pytest.mark.parametrize("text", ["-3", "", "300V", "much"])
def test_powers_that_are_none(text):
    with pytest.raises(UsageError, match="a power is a number of watts or like '300W'"):
        units.parse_power(text)


def test_a_percentage_may_have_decimals_of_its_own() -> None:
    assert units.format_percent(0.999, 1) == "99.9 %"
    assert units.format_percent(0.0034, 2) == "0.34 %"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("only 1 configurations were probed", "only 1 configuration was probed"),
        ("1 batches, 1 processes and 1 trials", "1 batch, 1 process and 1 trial"),
        ("11 rounds differ, 1 rounds differ", "11 rounds differ, 1 round differs"),
        ("corrected by 1 earlier runs: a", "corrected by 1 earlier run: a"),
        ("2.1 epochs, ×1 steps", "2.1 epochs, ×1 steps"),
    ],
)
def test_one_of_a_kind_is_said_as_one(text: str, said: str) -> None:
    assert units.with_singulars(text) == said
