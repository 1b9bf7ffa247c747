"""A sweep that chooses: against a machine whose truth is known (truths.py)."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import truths
from scripted import CPU, TRIAL_SECONDS, Noting, machine_of, request_of, swept
from sequences import training

from epochcast.costmodel.question import Question
from epochcast.errors import PredictionError, UsageError
from epochcast.profiler import adaptive, too_large
from epochcast.profiler.adaptive import FIRST, MAX_ROUNDS, Choice, Chooser, chooser_for
from epochcast.profiler.request import Range, SweepRequest
from epochcast.records import Measurement, RunConfig, make_sizes


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("adaptive")


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


@pytest.mark.parametrize("kept", [17, 20, 26])
def test_nothing_is_measured_under_the_number_of_an_earlier_round(kept: int) -> None:
    """What round 1 was the first to measure was not in round 0, and no later process is."""
    whole, _ = run(begun(until=0.003), noise=0.01, limit=kept)
    late = {m.config for m in whole if m.round == 1} - {m.config for m in whole if m.round == 0}
    assert late
    again, _ = run(begun(until=0.003), noise=0.01, found=whole, limit=kept + 10)
    assert min(m.round for m in again[kept:]) >= max(m.round for m in whole)


def several_begun(found: list[Measurement], round_: int) -> tuple[list[int], Choice]:
    """What is begun at once in a round, until a decision waits for an answer."""
    chooser, started = begun(), list[int]()
    while (choice := chooser.next(found, round_, started)).trial is not None:
        started.append(choice.trial)
    return started, choice


def test_several_trials_are_begun_at_once_where_no_answer_decides_between_them() -> None:
    """The first ones, and those of a later round; each is the one a sequence would have begun."""
    first, choice = several_begun([], 0)
    found = [trial(index, 0, position) for position, index in enumerate(first)]
    assert choice.wait
    in_turn, _ = run(begun(), limit=FIRST)
    assert configs(found) == configs(in_turn)
    again, choice = several_begun(found, 1)
    assert choice.wait
    assert sorted(again) == sorted(first)
    assert several_begun(found[:2], 0)[0] != first  # what has ended is not begun again


def test_nothing_larger_is_tried_once_memory_ran_out() -> None:
    chooser = begun(until=0.001)
    largest = max(range(len(CANDIDATES)), key=lambda i: FOOTPRINTS[CANDIDATES[i]].peak_bytes)
    second = sorted(range(len(CANDIDATES)), key=lambda i: FOOTPRINTS[CANDIDATES[i]].peak_bytes)[-2]
    failed = replace(trial(second, 0, 0), status="oom", message="out of memory", step_seconds=())
    found, _ = run(chooser, noise=0.05, found=[failed], limit=30)
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
    with pytest.raises(PredictionError, match="epochs must be a number above 0"):
        chooser_for(SweepRequest(target="w", asked={"epochs": -3}))


# -- sweeps that choose -------------------------------------------------------------------------


class Script:
    """A chooser that wants what it was told to want, then stops."""

    half_width = 0.04

    def __init__(self, *choices):
        self.choices = list(choices)
        self.candidates, self.footprints, self.known = (), {}, []

    def begin(self, candidates, footprints):
        self.candidates, self.footprints = tuple(candidates), dict(footprints)

    def next(self, measurements, round_, begun=()):
        self.known.append((len(measurements), round_))
        return self.choices.pop(0) if self.choices else Choice(stop="sharp")


def trials(*positions):
    return [Choice(trial=position) for position in positions]


WIDTHS = {"sizes": {"width": Range(8, 32)}}


def test_a_chooser_gets_counted_candidates_and_its_trials_in_processes_by_round(folder):
    machine, observer = machine_of(folder), Noting()
    script = Script(*trials(0, 3), Choice(next_round=True), *trials(3))
    result = swept(request_of(**WIDTHS), machine, observer, script)
    assert len(script.candidates) == 9  # three widths of a doubling each, three batch sizes
    assert script.footprints == machine.archive.counted
    assert set(script.footprints) == set(script.candidates)
    assert script.known == [(0, 0), (1, 0), (2, 0), (2, 1), (3, 1)]
    assert [(b, r) for b, _, r in machine.measured()] == [(8, 0), (8, 0), (8, 1)]
    processes = [number for number, task in machine.asked if task.kind == "trial"]
    assert processes[0] == processes[1] != processes[2]
    assert (result.stopped, result.half_width) == ("sharp", 0.04)
    assert observer.begun[0] is None


def test_a_failure_costs_a_choosing_sweep_its_worker_only(folder):
    machine = machine_of(folder, outcomes={("trial", 16): "oom"})
    result = swept(request_of(**WIDTHS), machine, None, Script(*trials(1, 0)))
    assert [m.status for m in result.measurements] == ["oom", "ok"]
    processes = [number for number, task in machine.asked if task.kind == "trial"]
    assert processes[0] != processes[1]


def test_a_choosing_sweep_keeps_to_its_time(folder):
    machine = machine_of(folder)
    limited = request_of(**WIDTHS, max_seconds=2.5 * TRIAL_SECONDS)
    result = swept(limited, machine, None, Script(*trials(0, 1, 2, 3, 4)))
    assert (result.stopped, len(machine.trials())) == ("max-seconds", 2)


def test_sizes_that_cannot_be_built_are_left_out_and_named(folder):
    machine, observer = machine_of(folder), Noting()
    machine.problem = lambda sizes: "not 16" if dict(sizes)["width"] == 16 else ""
    script = Script()
    swept(request_of(**WIDTHS), machine, observer, script)
    assert {dict(c.sizes)["width"] for c in script.candidates} == {8, 32}
    (warning,) = observer.warnings
    assert warning.code == "no-such-size"
    assert "width=16" in dict(warning.details)["sizes"]


def test_a_workload_that_cannot_be_counted_is_chosen_for_without_counts(folder):
    machine, observer = machine_of(folder), Noting()
    machine.problem = lambda sizes: "it asks for values"
    script = Script()
    swept(request_of(**WIDTHS), machine, observer, script)
    assert (len(script.candidates), script.footprints) == (9, {})
    assert [w.code for w in observer.warnings] == ["no-footprints"]


def test_a_size_that_cannot_be_traced_is_measured_all_the_same(folder):
    machine, observer = machine_of(folder), Noting()
    machine.error = "DryRunError"
    machine.problem = lambda sizes: "values" if dict(sizes)["width"] == 16 else ""
    script = Script()
    swept(request_of(**WIDTHS), machine, observer, script)
    assert {dict(c.sizes)["width"] for c in script.candidates} == {8, 16, 32}
    assert {dict(c.sizes)["width"] for c in script.footprints} == {8, 32}
    assert [w.code for w in observer.warnings] == ["no-footprints"]


def test_a_batch_that_the_data_cannot_fill_costs_its_size_nothing_else(folder):
    machine = machine_of(folder)
    machine.too_large = 32
    script = Script()
    swept(request_of(**WIDTHS), machine, None, script)
    assert {c.batch_size for c in script.candidates} == {8, 16}
    assert {dict(c.sizes)["width"] for c in script.candidates} == {8, 16, 32}


def test_what_cannot_fit_the_device_is_no_candidate(folder):
    machine, observer = machine_of(folder), Noting()
    script = Script()
    huge = {"sizes": {"width": (8, 10**8)}, "until": 0.1}
    swept(request_of(**huge), machine, observer, script)
    assert {dict(c.sizes)["width"] for c in script.candidates} == {8}
    assert [dict(w.details) for w in observer.warnings] == [{"count": "3"}]


class _OnAGpu:
    """As much of a sweep as tells what fits: a T4, and what its operators are said to need."""

    def __init__(self, memory_bytes: int) -> None:
        device = replace(CPU, kind="cuda", name="Tesla T4", memory_bytes=memory_bytes)
        self.prepared = SimpleNamespace(device=device)
        self.workers = None


@pytest.mark.parametrize(
    ("peak_mib", "memory_mib", "is_followed", "fits"),
    [
        (10, 1000, False, True),  # the CPU's operators fit
        (2000, 1000, True, True),  # the GPU's alone do
        (2000, 100, True, False),  # neither
    ],
)
def test_a_gpu_is_followed_before_a_candidate_is_left_out(
    monkeypatch, peak_mib, memory_mib, is_followed, fits
):
    asked = []

    def follow(workers, spec, batch_sizes, device, timeout):
        asked.append((batch_sizes, device.multiprocessors))
        return (training(16),)

    monkeypatch.setattr(too_large, "cuda_sequences", follow)
    footprint = replace(truths.footprint(16, 128), step_peak_bytes=peak_mib * 2**20)
    candidate = adaptive.Candidate(spec=None, config=CANDIDATES[0], footprint=footprint)
    assert adaptive._fits(_OnAGpu(memory_mib * 2**20), candidate) is fits
    assert bool(asked) is is_followed


def test_the_question_is_among_the_candidates(folder):
    script = Script()
    asked = {"epochs": 9, "batch_size": 100, "width": 24}
    swept(request_of(**WIDTHS, asked=asked), machine_of(folder), None, script)
    assert {c.batch_size for c in script.candidates} == {8, 16, 32, 100}
    assert {dict(c.sizes)["width"] for c in script.candidates} == {8, 16, 32, 24}


def test_a_question_about_an_unknown_knob_is_refused(folder):
    with pytest.raises(UsageError, match=r"--for knows epochs, steps, batch_size, .*width.*height"):
        swept(request_of(asked={"height": 3}), machine_of(folder), None, Script())
