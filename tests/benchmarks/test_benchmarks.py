"""The accuracy benchmark: what is held out, how others predict, how errors are counted."""

from __future__ import annotations

from dataclasses import replace

import pytest
from comparison import recording, report
from comparison.alternatives import (
    Known,
    constant_throughput,
    first_epoch,
    gaussian_process,
    line,
    log_linear,
    nearest,
)
from comparison.cases import EPOCHCAST, NOISE, STEP
from comparison.evaluation import Counts, all_cases, exact_dry_runs
from comparison.scoreboard import Score, ahead, all_scores
from comparison.scores import coverage, errors, relative_error, under_estimates
from comparison.splits import BATCH_SIZES, BETWEEN, BEYOND, LARGEST, splits
from truths import footprint, measure, sweep

from epochcast.records import Quantiles, RunConfig, make_sizes

BATCHES, WIDTHS = (32, 64, 128, 256, 512), (256, 512, 1024)


def config(batch_size: int, width: int = 256) -> RunConfig:
    return RunConfig(batch_size=batch_size, sizes=make_sizes({"depth": 1, "width": width}))


GRID = [config(b, w) for w in WIDTHS for b in BATCHES]


def counts(asked: RunConfig) -> Counts:
    counted = footprint(asked.batch_size, dict(asked.sizes)["width"])
    tools = dict.fromkeys(("accelerate", "deepspeed", "torchinfo", "mem_tracker"), 1)
    return Counts(
        workload="imaginary",
        config=asked,
        footprint=counted,
        **{f"{name}_bytes": value for name, value in tools.items()},
    )


def test_every_split_holds_out_what_it_says() -> None:
    found = splits(GRID)
    assert [s.name for s in found] == [BATCH_SIZES, LARGEST, BEYOND, BETWEEN, BEYOND]
    held = [{c.batch_size for c in s.held_out} for s in found]
    assert held[:2] == [{64, 256}, {256, 512}]
    assert all(not set(s.fitted) & set(s.held_out) for s in found)
    assert [len(s.fitted) for s in found] == [9, 9, 6, 6, 6]
    left_out = [{dict(c.sizes)["width"] for c in s.held_out} for s in found[2:]]
    assert left_out == [{256}, {512}, {1024}]


def test_each_alternative_is_exact_where_its_assumption_holds() -> None:
    proportional = [Known(c, 2e-3 * c.batch_size) for c in GRID]
    assert constant_throughput(proportional, config(96)) == pytest.approx(0.192)
    straight = [Known(c, 0.1 + 2e-3 * c.batch_size) for c in GRID]
    assert line(straight, config(96)) == pytest.approx(0.292)
    power = [Known(c, 1e-3 * c.batch_size**0.7 * dict(c.sizes)["width"] ** 1.2) for c in GRID]
    truth = 1e-3 * 96**0.7 * 700**1.2
    assert log_linear(power, config(96, 700)) == pytest.approx(truth)
    assert gaussian_process(power, config(96, 700)).p50 == pytest.approx(truth, rel=0.02)


def test_a_line_says_nothing_of_another_model_size() -> None:
    assert line([Known(c, 1.0) for c in GRID], config(64, 300)) is None
    assert line([Known(config(64), 1.0)], config(64)) is None


def test_the_nearest_is_near_in_ratios() -> None:
    known = [Known(config(32), 1.0), Known(config(512), 2.0)]
    assert (nearest(known, config(100)), nearest(known, config(200))) == (1.0, 2.0)
    assert nearest(known, config(128)) == 2.0  # equally near both


def test_the_first_epoch_includes_the_first_steps() -> None:
    trial = measure(600, 256)  # an epoch of 100 steps; the first of all took half a second
    step = trial.step_seconds[0]
    assert first_epoch([trial]) == pytest.approx(step + (0.5 - step) / 100)


def test_errors_are_relative_and_summed_up() -> None:
    assert relative_error(1.1, 1.0) == pytest.approx(0.1)
    found = errors([0.0, 0.1, 0.5])
    assert found is not None
    assert (found.count, found.median, found.max) == (3, 0.1, 0.5)
    assert (found.mean, found.p90) == (pytest.approx(0.2), pytest.approx(0.42))
    assert errors([]) is None


def test_coverage_counts_single_values() -> None:
    band = Quantiles(p05=0.8, p10=0.9, p50=1.0, p90=1.1, p95=1.2)
    pairs = [(band, value) for value in (0.85, 1.0, 1.15, 1.3)]
    assert coverage(pairs, "p10", "p90") == 0.25
    assert coverage(pairs, "p05", "p95") == 0.75
    assert under_estimates(pairs) == 0.25
    assert coverage([], "p10", "p90") is under_estimates([]) is None


def test_thinning_keeps_the_mean_and_the_number_of_steps() -> None:
    samples = tuple(0.001 * (i % 7 + 1) for i in range(700))
    trial = measure(
        64, 256, step_seconds=samples, data_wait_seconds=samples, update_seconds=samples, log="x"
    )
    thin = recording.thinned(trial)
    assert len(thin.step_seconds) <= recording.MOST_SAMPLES
    steps = len(thin.step_seconds) * thin.steps_per_sample
    assert steps <= len(samples) < steps + thin.steps_per_sample
    total = sum(thin.step_seconds) * thin.steps_per_sample
    assert total == pytest.approx(sum(samples[:steps]), rel=1e-4)
    assert (thin.log, len(thin.update_seconds)) == (None, len(thin.step_seconds))


def test_a_recording_is_read_as_written(tmp_path) -> None:
    trials = [recording.thinned(m) for m in sweep(rounds=2)]
    recording.write(tmp_path / "x.jsonl.gz", {"date": "2026-01-01"}, trials)
    about, found = recording.read(tmp_path / "x.jsonl.gz")
    assert about == {"date": "2026-01-01"}
    assert sorted(found, key=lambda m: m.key) == sorted(trials, key=lambda m: m.key)


def test_without_noise_everything_is_predicted() -> None:
    trials = sweep(BATCHES, WIDTHS, rounds=4)
    counted = [counts(c) for c in GRID]
    cases = all_cases(trials, counted)
    assert exact_dry_runs(trials, counted) == (15, 15)
    assert len(cases) == 3 * (6 + 6 + 15)  # three quantities; every model size once
    assert all(case.error(NOISE) == 0 for case in cases)
    assert max(c.error(EPOCHCAST) for c in cases if c.quantity == "step seconds") < 0.02
    assert all(c.error(EPOCHCAST) == 0 for c in cases if c.quantity == "peak bytes")


def test_the_report_names_who_is_ahead() -> None:
    trials = sweep(BATCHES, WIDTHS, rounds=4, trial_sd=0.02)
    cases = all_cases(trials, [counts(c) for c in GRID])
    scores = all_scores(cases)
    assert {score.split for score in scores} == {BATCH_SIZES, LARGEST, BETWEEN, BEYOND}
    ours = next(score for score in scores if score.method == EPOCHCAST)
    rival = replace(ours, method="oracle", median=0.0)
    (found,) = ahead([ours, rival])
    assert (found.score, found.ours, found.better) == (rival, ours, ("median",))
    assert report.figure(scores).startswith(b"\x89PNG")
    about = {"date": "2026-01-01", "machine": "a toy", "versions": {}, "command": "make bench"}
    text = report.text(about, trials, cases, (15, 15))
    assert all(title in text for title in report.TITLES.values())
    assert "15 of 15" in text
    assert "not quiet" not in text


def test_a_busy_machine_is_told() -> None:
    known = {"count": 1, "mean": 0.2, "median": 0.2, "p90": 0.2, "max": 0.2}
    shares = {"p10_p90": None, "p05_p95": None, "under_p95": None, "probing_seconds": 1.0}
    floor = Score(quantity=STEP, split=BATCH_SIZES, method=NOISE, **known, **shares)
    (told,) = report._disturbed([floor])
    assert "not quiet" in told
    assert "20 %" in told


def test_text_goes_between_the_markers(tmp_path) -> None:
    path = tmp_path / "accuracy.md"
    begin, end = "<!-- written by benchmarks/x.py: begin -->", "<!-- end -->"
    path.write_text(f"before\n{begin}\nold\n{end}\nafter\n")
    report.insert(path, "new", "benchmarks/x.py")
    report.insert(path, "newer", "benchmarks/x.py")
    assert path.read_text() == (f"before\n{begin}\n\nnewer\n\n{end}\nafter\n")


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.0, "0 %"), (1e-6, "< 0.01 %"), (0.0123, "1.2 %"), (0.21, "21 %"), (None, "–")],
)
def test_shares_show_two_digits(share: float | None, text: str) -> None:
    assert report.percent(share) == text
