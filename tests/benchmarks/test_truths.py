"""The simulated truths are what they say, and a prediction is scored as it deserves."""

from __future__ import annotations

import os
import subprocess
import sys
from math import ceil, erf, exp, log, sqrt
from pathlib import Path

import numpy as np
import pytest
from truth_parts import designs, growth, scoring, tails
from truth_parts.kinds import KINDS, Draw
from truth_parts.results import Key, Results
from truth_parts.tables import compare, document, show
from truth_parts.trials import Law, Outcome, _direction, try_case

from epochcast.records import Quantiles

NOISE = 0.02
PERFECT = Quantiles(
    **{
        name: 3 * exp(NOISE * z)
        for name, z in (
            ("p05", -1.6449),
            ("p10", -1.2816),
            ("p50", 0.0),
            ("p90", 1.2816),
            ("p95", 1.6449),
        )
    }
)


def truth(kind: str, seed: int = 0):  # type: ignore[no-untyped-def]
    return KINDS[kind].draw(Draw(designs.generator(kind, seed)))


# -- truths ---------------------------------------------------------------------------------------


def test_r4_is_the_equation_it_is_named_after() -> None:
    assert truth("r4").seconds(128, 512) == pytest.approx(5.633, abs=5e-4)
    assert truth("r4").seconds(128, 768) == pytest.approx(27.771, abs=5e-4)


@pytest.mark.parametrize(
    ("kind", "power"), [("r3", 3), ("w2.7", 2.7), ("affine", 2), ("launch", 2), ("stride", -2)]
)
def test_what_grows_with_the_batch_grows_with_the_power_of_the_knob(
    kind: str, power: float
) -> None:
    t, a, b, batch = truth(kind).seconds, 256.0, 512.0, 1e9
    slopes = [(t(2 * batch, x) - t(batch, x)) / batch for x in (a, b, 2 * b)]
    assert log((slopes[2] - slopes[1]) / (slopes[1] - slopes[0]), 2) == pytest.approx(power)


def test_a_level_doubles_the_work() -> None:
    t = truth("doubling").seconds
    assert t(64, 9) - t(64, 8) == pytest.approx(2 * (t(64, 8) - t(64, 7)))


def test_frozen_layers_are_not_computed_backwards() -> None:
    t = truth("frozen").seconds
    steps = [t(64, k) - t(64, k + 1) for k in range(12)]
    assert steps == pytest.approx([steps[0]] * 12)
    assert 0 < t(64, 12) < t(64, 0) / 1.5


def test_waves_step_where_one_more_wave_begins_and_nowhere_else() -> None:
    t = truth("waves").seconds
    assert len({round(t(b, 256), 9) for b in range(1, 300)}) < 100
    assert all(t(b + 1, 256) >= t(b, 256) for b in range(1, 300))


def test_aligned_widths_cost_what_the_next_multiple_costs() -> None:
    t = truth("alignment").seconds
    to = next(m for m in (128, 64, 8) if t(64, 129) == t(64, 128 + m) != t(64, 128))
    assert t(64, 200) == t(64, ceil(200 / to) * to)


def test_a_loader_bound_step_does_not_know_the_width() -> None:
    bound = next(t for i in range(99) if (t := truth("loader", i).seconds)(64, 1) == t(64, 2))
    assert bound(128, 1) == 2 * bound(64, 1)


RISING = sorted(KINDS.keys() - {"patch", "stride", "algorithm", "frozen", "sparsity"})


@pytest.mark.parametrize("kind", RISING)
def test_a_larger_model_or_batch_never_takes_less(kind: str) -> None:
    t = truth(kind).seconds
    assert all(t(64, x + 1) >= t(64, x) for x in range(KINDS[kind].values[0], 300))
    assert all(t(b + 1, 256) >= t(b, 256) for b in range(1, 300))


@pytest.mark.parametrize("name", tails.TAILS)
def test_the_mean_of_single_steps_is_the_one_that_is_told(name: str) -> None:
    tail = tails.TAILS[name]
    found = np.mean(tail.factors(np.random.default_rng(0), 1_000_000))
    assert found == pytest.approx(tail.mean, rel=3e-3)


def test_one_step_in_a_hundred_takes_ten_times_as_long() -> None:
    steps = tails.stragglers(np.random.default_rng(0), 100_000)
    assert np.mean(steps > 5) == pytest.approx(0.01, abs=1e-3)
    assert np.mean(steps[steps > 5]) == pytest.approx(10, rel=0.01)


# -- what is measured and asked -------------------------------------------------------------------


def test_a_case_is_the_same_in_another_process() -> None:
    case = next(designs.cases(["waves"], 1))
    script = (
        "from truth_parts import designs as d;c = next(d.cases(['waves'], 1)); x = d.draw(c);"
        "print(x.measurements[3].step_seconds[1], d.places(c, x))"
    )
    here = designs.draw(case)
    wanted = f"{here.measurements[3].step_seconds[1]} {designs.places(case, here)}\n"
    where = f"{Path(designs.__file__).parents[1]}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": where}
    found = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert found.stdout == wanted


def test_places_lie_where_they_say() -> None:
    for case in designs.cases(["affine", "patch"], 1):
        drawn = designs.draw(case)
        for where, batch, size in designs.places(case, drawn):
            inside = drawn.batches[0] <= batch <= drawn.batches[-1]
            known = size in drawn.values
            assert (batch in drawn.batches and known) or where != designs.MEASURED
            assert (batch not in drawn.batches and inside) or where != designs.INSIDE
            assert drawn.values[0] < size < drawn.values[-1] or where != designs.BETWEEN
            assert size > drawn.values[-1] or where != designs.BEYOND
            assert size < drawn.values[0] or where != designs.BELOW
            assert known == (where not in (designs.BETWEEN, designs.BEYOND, designs.BELOW))


def test_runs_of_the_same_differ_by_the_noise_and_rounds_of_drift_by_more() -> None:
    def spread(kind: str) -> float:
        logs = []
        known = designs.cases([kind], 20, noises=[NOISE], rounds=[2])
        for case in (c for c in known if c.design.name == "3 x 3" and not c.design.counted):
            drawn = designs.draw(case)
            for m in drawn.measurements:
                size = dict(m.config.sizes)[drawn.knob]
                true = drawn.seconds(m.config.batch_size, size)
                logs.append(np.mean(np.log(np.array(m.step_seconds) / true)))
        return float(np.std(logs))

    assert spread("affine") == pytest.approx(NOISE, rel=0.15)
    assert spread("drift") == pytest.approx(sqrt(NOISE**2 + 0.05**2), rel=0.15)


def test_counts_are_proportional_to_the_work() -> None:
    t = truth("r4")
    small, large = t.footprint(32, 224), t.footprint(64, 224)
    assert large.flops == 2 * small.flops
    assert large.parameters == small.parameters


# -- scores ---------------------------------------------------------------------------------------


def test_a_perfect_prediction_holds_what_it_says() -> None:
    found = scoring.row([scoring.score(PERFECT, 3.0, NOISE)] * 3)
    assert found is not None
    assert found.count == 3
    assert (found.median, found.bias) == (pytest.approx(0), pytest.approx(0))
    assert found.p10_p90 == pytest.approx(0.8, abs=1e-4)
    assert found.p05_p95 == pytest.approx(0.9, abs=1e-4)
    assert found.above_p90 == pytest.approx(0.1, abs=1e-4)
    assert found.width == pytest.approx(exp(2 * 1.6449 * NOISE))


def test_a_biased_one_is_seen_to_be() -> None:
    low = scoring.score(PERFECT, 3.0 * exp(2 * NOISE), NOISE)
    found = scoring.row([low, scoring.score(PERFECT, 3.0, NOISE)])
    assert found is not None
    assert found.bias == pytest.approx(exp(-NOISE) - 1)
    beyond = (1 - erf((1.2816 - 2) / sqrt(2))) / 2  # P(z > 1.2816 − 2)
    assert low.above_p90 == pytest.approx(beyond)


def test_nothing_and_infinity_are_errors_and_no_crash() -> None:
    wide = Quantiles(p05=0.0, p10=0.0, p50=0.0, p90=0.0, p95=float("inf"))
    assert scoring.score(wide, 1.0, NOISE).error == -scoring.FARTHEST
    assert scoring.score(wide, 1.0, NOISE).in_p05_p95 == pytest.approx(1)


def test_of_no_prediction_there_is_no_row() -> None:
    assert scoring.row([], refused=2) is None


# -- results --------------------------------------------------------------------------------------


def results(told: Quantiles) -> Results:
    found = Results(about={"seeds": 1})
    case = next(designs.cases(["affine"], 1))
    scored = {designs.INSIDE: [scoring.score(told, 3.0, NOISE)] * 2}
    law = Law(pairs=8, falling=1, jumps=(0.0, 0.1))
    found.add(case, Outcome(scored=scored, refused={designs.INSIDE: 1}, along_batch=law))
    return found


def test_a_file_says_what_was_found() -> None:
    before = results(PERFECT)
    after = Results.of(before.document())
    assert after.document() == before.document()
    (row,) = after.rows(["kind", "where"]).values()
    assert (row.count, row.refused) == (2, 1)
    assert row.p05_p95 == pytest.approx(0.9, abs=1e-3)
    assert Key("affine", "3 batches", False, NOISE, 2, "cuda", designs.INSIDE) in after.groups


def test_two_versions_stand_side_by_side() -> None:
    text = compare(results(PERFECT), results(PERFECT.scaled(1.1)), ["kind", "where"])
    assert "0.0% → 10%" in text
    assert "90% → 0%" in text
    assert "never falls along the batch" in text
    assert "→" not in show(results(PERFECT), ["kind"])


def test_the_documentation_has_a_line_for_each_kind_and_noise() -> None:
    found = results(PERFECT)
    found.about = {"seeds": 1, "fits": 1}
    (line,) = [text for text in document(found).splitlines() if text.startswith("| affine | 2.0%")]
    assert "0.0% (0.0%) 90%" in line


def test_measured_times_may_rise_fall_or_do_neither() -> None:
    assert _direction([[1, 2, 3], [2, 3, 4]]) == 1
    assert _direction([[3, 2], [5, 1]]) == -1
    assert _direction([[1, 2, 2]]) == _direction([[1, 2], [2, 1]]) == 0


def test_a_case_is_fitted_asked_and_scored() -> None:
    case = next(c for c in designs.cases(["affine"], 1) if c.design.name == "3 x 3")
    outcome = try_case(case)
    found = scoring.row(outcome.scored[designs.BETWEEN])
    assert found is not None
    assert found.median < 0.03  # with 2 % of noise
    assert outcome.along_knob is not None
    assert outcome.along_batch is not None
    assert set(outcome.scored) == set(designs.PLACES)


# -- growth ---------------------------------------------------------------------------------------


def test_a_fit_is_timed_stored_and_asked() -> None:
    found = growth.one("batch, width, depth", 5, counted=True)
    assert found.fit_seconds is not None
    assert found.model_bytes is not None
    assert found.model_bytes > 1000


@pytest.mark.parametrize("name", ["batch, width, depth", "10 knobs", "20 knobs, 19 constant"])
def test_configurations_are_distinct_and_knobs_vary_as_named(name: str) -> None:
    known = growth.measurements(name, 30, counted=False)
    assert len({m.config for m in known}) == 30
    sizes = [dict(m.config.sizes) for m in known]
    varied = [knob for knob in sizes[0] if len({s[knob] for s in sizes}) > 1]
    assert len(varied) == {"b": 2, "1": 10, "2": 1}[name[0]]


def test_what_did_not_end_says_so() -> None:
    text = growth.text([growth.Grown(name="x", configurations=1000, counted=False)])
    assert "> 60 s" in text


# -- in time --------------------------------------------------------------------------------------


def test_a_run_that_is_cut_keeps_whole_seeds() -> None:
    cases = list(designs.cases(["r4"], 3))
    each = len(cases) // 3
    assert list(designs.whole_seeds(cases, 2 * each + 1)) == cases[: 2 * each]
    assert list(designs.whole_seeds(cases, 2 * each)) == cases[: 2 * each]
    assert list(designs.whole_seeds(cases, 3 * each)) == cases
