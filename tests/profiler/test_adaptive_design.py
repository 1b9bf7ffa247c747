"""Choosing configurations: spread, then where it sharpens the answer; and what few of them buy.

The truth is simulated.py: a roofline for every operator, a launch floor, a cache, a kink.
"""

from __future__ import annotations

import numpy as np
import pytest
import simulated
from hypothesis import given, settings
from hypothesis import strategies as st

from epochcast.costmodel import features as f
from epochcast.costmodel.fitting import fit
from epochcast.costmodel.scatter import student_t_quantile
from epochcast.profiler import adaptive
from epochcast.records import RunConfig, make_sizes

POINT = simulated.GRID
CONFIGS = [RunConfig(batch_size=b, sizes=make_sizes({"depth": d, "width": w})) for d, w, b in POINT]
ROWS = [
    f.variables(c, simulated.footprint(*point)) for c, point in zip(CONFIGS, POINT, strict=True)
]
TABLE = f.tabulate(ROWS)
TRUTH = np.array([simulated.micro_seconds(*point) for point in POINT])


def chosen(count: int, seed: int) -> list[int]:
    """Five that spread, then the sharpest one at a time, as a probe chooses them."""
    taken = adaptive.spread(ROWS, 5)
    everything, equally_long = range(len(ROWS)), np.ones(len(ROWS))
    while len(taken) < count:
        model = fit(simulated.sweep([POINT[i] for i in taken], seed=seed))
        sd = model.variants[0].micro_step.learned_sds(TABLE)
        best = adaptive.sharpest(ROWS, taken, sd, everything, equally_long)
        assert best is not None
        taken.append(best)
    return taken


@pytest.fixture(scope="module")
def sweeps() -> list[tuple[np.ndarray, float]]:
    """Errors on the log scale of the 132 configurations left out, and the share inside P5–P95."""
    found = []
    for seed in range(3):
        taken = chosen(8, seed)
        surface = fit(simulated.sweep([POINT[i] for i in taken], seed=seed)).variants[0].micro_step
        rest = np.setdiff1d(np.arange(len(POINT)), taken)
        table = {name: column[rest] for name, column in TABLE.items()}
        errors = np.log(surface.values(table) / TRUTH[rest])
        reach = surface.sd_logs(table) * student_t_quantile(0.95, surface.dof)
        found.append((errors, float(np.mean(np.abs(errors) <= reach))))
    return found


def test_eight_measurements_predict_the_other_132_within_3_percent(sweeps) -> None:
    assert np.mean([np.abs(np.expm1(errors)).mean() for errors, _ in sweeps]) < 0.03


def test_intervals_know_how_little_eight_measurements_say(sweeps) -> None:
    assert np.mean([covered for _, covered in sweeps]) > 0.8


def test_random_choices_are_worse_than_chosen_ones(sweeps) -> None:
    worst = []
    for seed in range(3):
        taken = np.random.default_rng(seed).choice(len(POINT), 8, replace=False)
        surface = fit(simulated.sweep([POINT[i] for i in taken], seed=seed)).variants[0].micro_step
        worst.append(np.abs(np.expm1(np.log(surface.values(TABLE) / TRUTH))).mean())
    assert np.mean(worst) > np.mean([np.abs(np.expm1(errors)).mean() for errors, _ in sweeps])


@settings(max_examples=50)
@given(count=st.integers(1, 20))
def test_a_spread_never_repeats_and_continues_where_it_stopped(count: int) -> None:
    whole = adaptive.spread(ROWS, count)
    assert len(set(whole)) == len(whole) == count
    half = whole[: count // 2] or whole[:1]
    assert half + adaptive.spread(ROWS, count - len(half), half) == whole


def test_a_spread_of_equal_candidates_is_one() -> None:
    assert adaptive.spread([ROWS[0]] * 4, 3) == [0]
    assert adaptive.spread([], 3) == []


def test_without_counts_the_knobs_are_the_features() -> None:
    rows = [f.variables(config, None) for config in CONFIGS]
    corners = {CONFIGS[i].label for i in adaptive.spread(rows, 4)}
    assert "batch_size=16 depth=2 width=16" in corners or len(corners) == 4


def test_the_sharpest_is_near_the_question_and_cheap() -> None:
    taken = adaptive.spread(ROWS, 5)
    question = next(i for i in range(len(ROWS)) if i not in taken)
    sd, equal = np.full(len(ROWS), 0.1), np.ones(len(ROWS))
    assert adaptive.sharpest(ROWS, taken, sd, [question], equal) == question
    dear = np.where(np.arange(len(ROWS)) == question, 1e9, 1.0)
    assert adaptive.sharpest(ROWS, taken, sd, [question], dear) != question
    assert adaptive.sharpest(ROWS, range(len(ROWS)), sd, [question], equal) is None
