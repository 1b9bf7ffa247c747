"""What a cell holds: numbers, times and sizes as people and programs write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochcast.importers.cells import (
    parse_bytes_cell,
    parse_counted,
    parse_knob,
    parse_name,
    parse_number,
    parse_times,
)
from epochcast.importers.rows import Missing


@pytest.mark.parametrize(
    ("cell", "seconds"),
    [
        ("04:39", (279,)),
        ("0:10:31", (631,)),
        ("100:00:00", (360_000,)),
        ("0:00:09.83", (9.83,)),
        ("1-02:03:04", (93_784,)),
        ("1-02:03", (93_780,)),
        ("1 day, 2:03:04", (93_784,)),
        ("10.5s", (10.5,)),
        ("10.5 s", (10.5,)),
        ("50.4ms", (0.0504,)),
        ("2m14s", (134,)),
        ("1h 30m", (5400,)),
        ("10.5s 10.7s", (10.5, 10.7)),
        ("1m 2m", (60, 120)),
        ("04:39;05:00", (279, 300)),
        ("3 4|5", (0.003, 0.004, 0.005)),
        ([3, "4", "5s"], (0.003, 0.004, 5)),
    ],
)
def test_times(cell, seconds) -> None:
    """A value without a unit is in the column's, here milliseconds."""
    assert parse_times(cell, 1e-3) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "cell", ["4:61", "1:2", "10:00:99", "-04:39", "0:00", "10x", "s", "", [], "1,5", "0s", True, {}]
)
def test_what_is_no_time(cell) -> None:
    with pytest.raises(ValueError, match=r"expected .* but got"):
        parse_times(cell, 1.0)


@given(st.integers(0, 99), st.integers(0, 59), st.integers(1, 59))
def test_a_clock_is_its_seconds(hours: int, minutes: int, seconds: int) -> None:
    total = 3600 * hours + 60 * minutes + seconds
    assert parse_times(f"{hours}:{minutes:02}:{seconds:02}", 60) == (total,)
    assert parse_times(f"{60 * hours + minutes}:{seconds:02}", 60) == (
        60 * (60 * hours + minutes) + seconds,
    )


def test_numbers() -> None:
    assert parse_number("45.1%") == pytest.approx(0.451)
    assert parse_number("1e-3") == 1e-3
    for nothing in ("NA", "n/a", "null", "None", "-", "<NA>"):
        with pytest.raises(Missing):
            parse_number(nothing)
    for wrong in ("1,5", "1_000", "0x10", "", "4:30", True, None, 10**400):
        with pytest.raises(ValueError, match="expected"):
            parse_number(wrong)


def test_sizes_and_counts_with_a_unit_of_their_own() -> None:
    assert parse_bytes_cell("512MiB", None) == 512 * 2**20
    assert parse_bytes_cell("24G", None) == 24 * 2**30  # as SLURM writes it
    assert parse_bytes_cell("1.5 GB", 1.0) == 1.5e9
    assert parse_bytes_cell("100", None) is None
    assert parse_counted("25.6M", 1.0) == 25_600_000
    assert parse_counted("4.1", 1e9) == 4_100_000_000
    for wrong in ("25.6", "0", "-1", "1e30", "M"):
        with pytest.raises(ValueError, match=r"whole number of at (least 1|most 9\.2e\+18)"):
            parse_counted(wrong, 1.0)


def test_texts_do_not_steer_a_terminal() -> None:
    for parse in (parse_name, parse_knob):
        with pytest.raises(ValueError, match=r"without control characters, but got '\\x1b\[31m'"):
            parse("\x1b[31m")
