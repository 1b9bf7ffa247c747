"""A sweep that chooses: against a machine whose truth is known (truths.py)."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import truths

from epochcast.costmodel.prediction import Question
from epochcast.errors import PredictionError
from epochcast.profiler.adaptive import FIRST, MAX_ROUNDS, Chooser, chooser_for
from epochcast.profiler.request import Range, SweepRequest
from epochcast.records import Measurement, RunConfig, make_sizes

CANDIDATES = [
    RunConfig(batch_size=b, sizes=make_sizes({"depth": 1, "width": w}))
    for w, b in product((128, 256, 512, 1024, 2048), (32, 64, 128, 256, 512))
]
FOOTPRINTS = {c: truths.footprint(c.batch_size, dict(c.sizes)["width"]) for c in CANDIDATES}
ASKED = Question(epochs=50, batch_size=128, sizes={"width": 512})


def trial(index: int, round_: int, position: int, factor: float = 1.0) -> Measurement:
    config = CANDIDATES[index]
    return truths.measure(
        config.batch_size,
        dict(config.sizes)["width"],
        round_=round_,
        trial=position,
        factor=factor,
        import_seconds=2.0,
        build_seconds=0.1,
    )


def begun(**options: object) -> Chooser:
    chooser = Chooser(**options)  # type: ignore[arg-type]
    chooser.begin(CANDIDATES, FOOTPRINTS)
    return chooser


def run(
    chooser: Chooser,
    noise: float = 0.0,
    found: list[Measurement] | None = None,
    limit: int = 200,
    kink: float = 1.0,
) -> tuple[list[Measurement], str]:
    """Everything that a sweep would trial, and why it stops.

    Args:
        kink: factor from a batch size of 128 on, which no form of the model knows.
    """
    random = np.random.default_rng(7)
    found = list(found or [])
    round_ = 0
    while len(found) < limit:
        choice = chooser.next(found, round_)
        if choice.stop:
            return found, choice.stop
        if choice.trial is None:
            round_ += 1
            continue
        factor = math.exp(random.normal(0, noise)) if noise else 1.0
        if CANDIDATES[choice.trial].batch_size >= 128:
            factor *= kink
        found.append(trial(choice.trial, round_, len(found), factor))
    return found, "limit"


def configs(found: list[Measurement]) -> set[RunConfig]:
    return {m.config for m in found}


def test_a_quiet_machine_needs_few_trials_of_few_configurations() -> None:
    chooser = begun()
    found, stop = run(chooser)
    assert stop == "sharp"
    assert FIRST <= len(configs(found)) < len(CANDIDATES) / 2
    assert {m.round for m in found} == {0, 1}
    assert chooser.half_width is not None
    assert chooser.half_width <= 0.05


def test_the_first_ones_differ_and_span_the_range() -> None:
    first = [m.config for m in run(begun(), limit=FIRST)[0]]
    assert len(set(first)) == FIRST
    assert {c.batch_size for c in first} >= {32, 512}
    assert {dict(c.sizes)["width"] for c in first} >= {128, 2048}


def test_noise_asks_for_more_rounds_and_ends_all_the_same() -> None:
    found, stop = run(begun(until=0.001), noise=0.05)
    assert stop == "max-rounds"
    assert {m.round for m in found} == set(range(MAX_ROUNDS))


def test_what_is_asked_for_is_measured_where_the_model_is_not_sure() -> None:
    found, _ = run(begun(question=ASKED, until=0.01), noise=0.002, kink=1.4)
    asked = RunConfig(batch_size=128, sizes=make_sizes({"depth": 1, "width": 512}))
    assert asked in configs(found)


def test_a_wider_tolerance_never_takes_more_trials() -> None:
    counts = [len(run(begun(until=until), noise=0.02)[0]) for until in (0.5, 0.1, 0.02)]
    assert counts == sorted(counts)


@pytest.mark.parametrize("kept", [0, 3, 7])
def test_a_sweep_that_was_stopped_goes_on_where_it_was(kept: int) -> None:
    whole, stop = run(begun(), noise=0.0)
    again, stop_again = run(begun(), noise=0.0, found=whole[:kept])
    assert stop == stop_again
    assert [(m.config, m.round) for m in again] == [(m.config, m.round) for m in whole]


@pytest.mark.parametrize("kept", [11, 14, 20])
def test_nothing_is_measured_under_the_number_of_an_earlier_round(kept: int) -> None:
    """What round 1 was the first to measure was not in round 0, and no later process is."""
    whole, _ = run(begun(until=0.003), noise=0.01, limit=kept)
    late = {m.config for m in whole if m.round == 1} - {m.config for m in whole if m.round == 0}
    assert late
    again, _ = run(begun(until=0.003), noise=0.01, found=whole)
    assert min(m.round for m in again[kept:]) >= max(m.round for m in whole)


def test_nothing_larger_is_tried_once_memory_ran_out() -> None:
    chooser = begun(until=0.001)
    largest = max(range(len(CANDIDATES)), key=lambda i: FOOTPRINTS[CANDIDATES[i]].peak_bytes)
    second = sorted(range(len(CANDIDATES)), key=lambda i: FOOTPRINTS[CANDIDATES[i]].peak_bytes)[-2]
    failed = replace(trial(second, 0, 0), status="oom", message="out of memory", step_seconds=())
    found, _ = run(chooser, noise=0.05, found=[failed])
    assert CANDIDATES[largest] not in configs(found)
    assert [m.config for m in found].count(CANDIDATES[second]) == 1


def test_a_sweep_in_which_everything_fails_stops() -> None:
    found: list[Measurement] = []
    chooser = begun()
    while not (choice := chooser.next(found, 0)).stop:
        assert choice.trial is not None
        broken = trial(choice.trial, 0, len(found))
        found.append(replace(broken, status="crashed", message="broken", step_seconds=()))
        assert len(found) <= len(CANDIDATES)
    assert choice.stop == "nothing-succeeded"


def test_without_footprints_it_chooses_by_the_knobs() -> None:
    chooser = Chooser()
    chooser.begin(CANDIDATES, {})
    assert run(chooser)[1] in ("sharp", "max-rounds")


def test_a_request_says_whether_to_choose() -> None:
    assert not SweepRequest(target="w", batch_sizes=(8,)).chooses
    for changes in (
        {"sizes": {"width": Range(1, 9)}},
        {"asked": {"epochs": 3}},
        {"until": 0.1},
    ):
        assert SweepRequest(target="w", **changes).chooses  # type: ignore[arg-type]
    with pytest.raises(PredictionError, match="epochs must be a positive"):
        chooser_for(SweepRequest(target="w", asked={"epochs": -3}))
