"""The benchmark of slow steps simulates what it says, and judges predictions by real epochs."""

from __future__ import annotations

import json
from math import exp, log

import numpy as np
import pytest
import tails


@pytest.mark.parametrize(
    ("kind", "mean", "error"),
    [
        ("none", 1.0, 0.001),
        ("1 in 100 × 10", 1.09, 0.01),
        ("1 in 50 × 4", 1.06, 0.01),
        ("1 in 300 × 30", 1 + 29 / 300, 0.02),
        ("1 in 100, lengths differ", 1.09, 0.01),
        ("1 in 100, Pareto", 1 + 0.01 * (3 + 3 / 1.2), 0.01),
        ("log-normal", exp(0.5), 0.02),
        ("every 50th × 10", 1.18, 0.001),
        ("5 in a row × 10", 1 + 9 * (1 - (1 - 0.002) ** 5), 0.02),
        ("half of 20 in a row × 10", 1 + 4.5 * (1 - (1 - 0.0005) ** 20), 0.02),
    ],
)
def test_a_kind_has_the_mean_that_its_name_says(kind: str, mean: float, error: float) -> None:
    factors = tails.KINDS[kind](np.random.default_rng(0), 200_000)
    assert factors.mean() == pytest.approx(mean, rel=error)


def test_blocks_leave_out_what_is_rare() -> None:
    seconds = np.ones(90)
    seconds[[5, 25]] = 100.0
    assert tails.block_median(seconds) == 1.0


def test_a_row_says_what_its_cases_have_in_common() -> None:
    found = tails.row(
        [
            tails.Case(
                kind="none",
                steps=30,
                log_ratio=log(ratio),
                inside_80=False,
                inside_90=inside,
                width=1.5,
                mean=0.0,
                blocks=log(0.5),
            )
            for ratio, inside in ((1.1, True), (1 / 1.1, False))
        ]
    )
    assert found["bias"] == pytest.approx(0.0)
    assert (found["inside_80"], found["inside_90"], found["width"]) == (0.0, 0.5, 1.5)
    assert found["blocks_bias"] == pytest.approx(-0.5)
    line = tails.table([{"kind": "none", "steps": 1000, **found}]).splitlines()[-1]
    assert line.startswith("| none | 1,000 | +0.0 % |")
    assert "| 0 % | 50 % | 1.50 |" in line


def test_a_sweep_is_judged_by_real_epochs_of_each_batch_size() -> None:
    cases = tails.cases_of("1 in 50 × 4", 100, 0)
    assert cases == tails.cases_of("1 in 50 × 4", 100, 0)
    assert len(cases) == len(tails.BATCH_SIZES)
    assert all(abs(case.log_ratio) < 0.1 and 1 < case.width < 1.5 for case in cases)


def test_the_committed_results_keep_what_is_claimed_of_them() -> None:
    rows = json.loads(tails.RESULT.read_text())["rows"]
    assert {row["kind"] for row in rows} == set(tails.KINDS)
    assert all(abs(row["bias"]) <= 0.02 for row in rows if row["steps"] >= 300)
