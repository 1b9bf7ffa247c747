"""A quiet GPU, measured by somebody else: what the accuracy of the docs is made of, replayed."""

from __future__ import annotations

import public_a100
import pytest
from comparison.cases import NOISE
from comparison.scoreboard import Score, scores_of
from public_a100 import BATCH_SIZES, BETWEEN, BEYOND, LARGEST, SPREAD, cases_of, few, splits

from epochcast.costmodel import summary

COUNTED = public_a100.counts()
KNOWN = public_a100.measurements(COUNTED)
TRIALS = summary.group_by_config(KNOWN)


def scores(name: str, position: int = 0) -> dict[str, Score]:
    """The score of each method, over the held-out configurations of one split."""
    found = [s for s in (*splits(TRIALS), *few(TRIALS, COUNTED)) if s.name == name][position]
    return {score.method: score for score in scores_of(cases_of(found, TRIALS, COUNTED))}


def test_every_run_is_imported_and_every_configuration_was_counted() -> None:
    assert (len(KNOWN), len(TRIALS)) == (159, 143)
    assert set(COUNTED) == set(TRIALS)
    assert all(len(m.step_seconds) == 2 for m in KNOWN)  # the first of three epochs is not steady


def test_the_counts_are_those_of_the_network_that_was_measured() -> None:
    """Two blocks of 16 and 32 filters at batch 32, by hand; a multiply-add is two FLOPs, and
    backward is twice forward but for the gradient of the images, which nobody needs."""
    small = min(TRIALS, key=lambda c: (c.sizes, c.batch_size))
    layers = [(32, 3, 16), (32, 16, 16), (16, 16, 32), (16, 32, 32)]  # side, channels in and out
    forward = [2 * 9 * side**2 * into * out for side, into, out in layers]
    dense = [2 * 8 * 8 * 32 * 128, 2 * 128 * 10]
    whole = 3 * (sum(forward) + sum(dense)) - forward[0]
    assert COUNTED[small].flops == small.batch_size * whole
    assert COUNTED[small].parameters == 280218  # as the file of the measurements says


def test_unseen_batch_sizes_within_2_percent_and_5_at_p90() -> None:
    table = scores(BATCH_SIZES)
    ours = table["epochcast"]
    assert ours.median < 0.01
    assert ours.p90 < 0.05
    assert 0.85 <= ours.p05_p95 <= 0.97
    assert ours.mean < min(
        row.mean for name, row in table.items() if "epochcast" not in name and name != NOISE
    )


def test_the_largest_batch_sizes_from_the_smaller_ones() -> None:
    ours = scores(LARGEST)["epochcast"]
    assert ours.median < 0.02
    assert ours.p90 < 0.05


@pytest.mark.parametrize(("name", "position"), [(BETWEEN, 0), (BEYOND, 1)])
def test_unseen_model_sizes_within_5_percent(name: str, position: int) -> None:
    table = scores(name, position)
    ours = table["epochcast"]
    assert ours.median < 0.05
    assert ours.median < table["log-linear regression"].median / 4
    assert ours.median < table["constant throughput"].median / 4


def test_eight_configurations_that_spread_predict_the_other_135_within_3_percent() -> None:
    assert scores(SPREAD)["epochcast"].mean < 0.03


def test_draws_are_shown_with_the_worst_of_them() -> None:
    good = public_a100.Drawn(mean=0.02, median=0.01, p90=0.05, held=0.94, width=1.2)
    bad = public_a100.Drawn(mean=0.20, median=0.11, p90=0.45, held=0.42, width=1.3)
    text = public_a100.draws_text([good, bad])
    assert "| mean of 2 draws | 11 % | 6.0 % | 25 % | 68 % | 1.25 |" in text
    assert "| draw held worst | 20 % | 11 % | 45 % | 42 % | 1.30 |" in text
    assert "Held in less than 80 %: 1 of 2 draws." in text
