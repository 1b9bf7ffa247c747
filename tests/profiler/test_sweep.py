"""Sweeps: with scripted workers under a fake clock, and twice with real worker processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from itertools import product
from pathlib import Path

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import (
    KNOBS,
    NOISE,
    TRIAL_SECONDS,
    Machine,
    Noting,
    machine_of,
    measurement_of,
    request_of,
    swept,
)
from strategies import CPU

from epochcast.errors import EpochcastError, StoreError, UsageError, WorkloadError
from epochcast.profiler.process import WorkerDied, WorkerTimeout
from epochcast.profiler.protocol import CheckedWorkload
from epochcast.profiler.request import SweepRequest
from epochcast.profiler.sweep import slug, sweep
from epochcast.records import Warning_
from epochcast.storage.store import Store


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sweeps")


# -- rounds -------------------------------------------------------------------------------------


@given(
    batch_sizes=st.lists(st.integers(1, 50), min_size=1, max_size=4),
    widths=st.lists(st.integers(1, 50), min_size=1, max_size=3),
    rounds=st.integers(1, 4),
    seed=st.integers(0, 5),
)
@settings(max_examples=30, deadline=None)
def test_every_configuration_once_a_round(folder, batch_sizes, widths, rounds, seed):
    """Values given twice are one configuration."""
    machine = machine_of(folder)
    request = request_of(batch_sizes=batch_sizes, sizes={"width": widths}, rounds=rounds, seed=seed)
    result = swept(request, machine)
    others = KNOBS[:-1]
    expected = {
        (b, (*others, ("width", w)), r) for b, w, r in product(batch_sizes, widths, range(rounds))
    }
    assert Counter(machine.measured()) == Counter(expected)
    assert [task.round for task in machine.trials()] == sorted(r for _, _, r in expected)
    assert len(result.measurements) == len(expected)
    assert (result.stopped, result.succeeded) == ("complete", True)
    assert result.seconds == TRIAL_SECONDS * len(expected)


def order_of(folder, seed, round_):
    machine = machine_of(folder)
    swept(request_of(batch_sizes=range(1, 30), seed=seed), machine)
    return [batch_size for batch_size, _, r in machine.measured() if r == round_]


def test_the_order_is_the_seeds_and_another_one_in_every_round(folder):
    assert order_of(folder, 0, 0) == order_of(folder, 0, 0)
    orders = [order_of(folder, seed, round_) for seed in (0, 1) for round_ in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4
    assert sorted(orders[0]) != orders[0]


def test_a_round_is_one_fresh_worker(folder):
    machine = machine_of(folder)
    swept(request_of(), machine)
    assert [n for n, task in machine.asked if task.kind == "trial"] == [1, 1, 1, 2, 2, 2]
    assert [task.trial for task in machine.trials()] == [0, 1, 2] * 2
    assert not any(worker.alive for worker in machine.workers)
    assert len({worker.log for worker in machine.workers}) == 3


def test_each_trial_is_stored_before_the_next_begins(folder):
    machine, observer = machine_of(folder), Noting()
    result = swept(request_of(), machine, observer)
    assert machine.stored_before == list(range(6))
    assert tuple(observer.seen) == result.measurements
    assert observer.begun == (6, 0, CPU, "synthetic")
    assert {phase for _, phase in observer.phases} == {"build"}


# -- what goes wrong ----------------------------------------------------------------------------

FAILURES = {
    "crashed": (WorkerDied(3), "crashed", "ended with exit code 3"),
    "killed": (WorkerDied(-9), "crashed", "ended by SIGKILL"),
    "timeout": (WorkerTimeout(), "timeout", "no result after 600 s"),
    "exception": ("crashed", "crashed", "it failed"),
    "memory": ("oom", "oom", "it failed"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_costs_its_worker_and_is_not_tried_again_in_this_sweep(folder, name):
    outcome, status, message = FAILURES[name]
    machine = machine_of(folder, outcomes={("trial", 16): outcome})
    result = swept(request_of(rounds=3, seed=1), machine)
    assert Counter(b for b, _, _ in machine.measured()) == {8: 3, 16: 1, 32: 3}
    assert (result.stopped, result.succeeded) == ("complete", True)
    (failed,) = [m for m in result.measurements if m.status != "ok"]
    assert (failed.status, failed.round) == (status, 0)
    assert message in failed.message
    assert failed.config.batch_size == 16
    assert failed.request in {task.spec.request for task in machine.trials()}
    assert failed.probe_seconds == TRIAL_SECONDS
    assert failed.log is not None
    first = [(n, task) for n, task in machine.asked if task.kind == "trial" and task.round == 0]
    position = [task.spec.batch_size for _, task in first].index(16)
    assert position < 2  # so that others come after it: another seed, if the order ever changes
    assert [n for n, _ in first] == [1] * (position + 1) + [2] * (2 - position)


@pytest.mark.parametrize(("name", "again"), [(n, n != "memory") for n in FAILURES])
def test_only_out_of_memory_is_final(folder, name, again):
    machine = machine_of(folder, outcomes={("trial", 16): FAILURES[name][0]})
    swept(request_of(rounds=2), machine)
    later = Machine(machine.archive)
    result = swept(request_of(rounds=2), later)
    assert later.measured() == [(16, KNOBS, 0), (16, KNOBS, 1)] * again
    assert [m.status for m in result.measurements].count("ok") == 4 + 2 * again


def test_killed_by_the_system_for_want_of_memory(folder, monkeypatch):
    kills = iter(range(100))
    monkeypatch.setattr("epochcast.profiler.process.out_of_memory_kills", lambda: next(kills))
    machine = machine_of(folder, outcomes={("trial", 16): WorkerDied(-9)})
    result = swept(request_of(rounds=2), machine)
    (failed,) = [m for m in result.measurements if m.status != "ok"]
    assert failed.status == "oom"
    assert failed.message.endswith("SIGKILL: the system ran out of memory")


def test_a_checkpoint_that_could_not_be_timed_is_told_once(folder):
    machine, observer, answer = machine_of(folder), Noting(), Machine.answer

    def on_a_full_disk(task):
        reply = answer(machine, task)
        if reply.measured is None:
            return reply
        return replace(reply, measured=replace(reply.measured, message="OSError: disk full"))

    machine.answer = on_a_full_disk
    result = swept(request_of(), machine, observer)
    assert {m.status for m in result.measurements} == {"ok"}
    (warning,) = observer.warnings
    assert (warning.code, dict(warning.details)) == ("no-save", {"why": "OSError: disk full"})


def test_what_the_check_doubts_is_known_of_every_measurement(folder):
    """Whoever predicts from them later must hear of it, too."""
    machine, observer, answer = machine_of(folder), Noting(), Machine.answer
    doubt, own = Warning_(code="nothing-trained"), Warning_(code="loss-explodes")
    machine.checked = replace(machine.checked, warnings=(doubt,))

    def exploding(task):
        reply = answer(machine, task)
        if reply.measured is None:
            return reply
        return replace(reply, measured=replace(reply.measured, warnings=(own, doubt)))

    assert {m.warnings for m in swept(request_of(), machine, observer).measurements} == {(doubt,)}
    assert observer.warnings == [doubt]
    machine = machine_of(folder)
    machine.checked, machine.answer = replace(machine.checked, warnings=(doubt,)), exploding
    found = swept(request_of(), machine).measurements
    assert {m.warnings for m in found} == {(doubt, own)}


def test_a_worker_that_cannot_be_started_is_a_clear_error(folder):
    machine = machine_of(folder)

    def start(log):
        raise OSError(28, "No space left on device", str(log))

    machine.start = start
    with pytest.raises(EpochcastError, match=r"^cannot start a worker process: .*No space left"):
        swept(request_of(), machine)


def test_a_folder_that_cannot_be_written_is_a_clear_error(folder):
    place = folder / "a file"
    place.touch()
    with pytest.raises(StoreError, match=r"cannot make the log folder .*name another store"):
        swept(request_of(), machine_of(place))


def test_when_nothing_succeeds_the_sweep_says_so_and_stops(folder):
    machine = machine_of(folder, outcomes={("trial", b): WorkerDied(1) for b in (8, 16, 32)})
    result = swept(request_of(rounds=5, traces=True), machine)
    assert (result.stopped, result.succeeded) == ("nothing-succeeded", False)
    assert len(machine.measured()) == 3
    assert machine.trials("trace") == []
    assert len(result.measurements) == 3


def test_what_succeeded_earlier_counts(folder):
    done = swept(request_of(rounds=1), machine_of(folder)).measurements
    machine = machine_of(
        folder, stored=done, outcomes={("trial", b): WorkerDied(1) for b in (8, 16, 32)}
    )
    result = swept(request_of(rounds=2), machine)
    assert (result.stopped, result.succeeded) == ("complete", True)


# -- continuing ---------------------------------------------------------------------------------


@given(st.sets(st.tuples(st.sampled_from((8, 16, 32)), st.integers(0, 2))))
@settings(max_examples=40, deadline=None)
def test_a_sweep_makes_exactly_the_trials_that_are_missing(folder, have):
    everything = swept(request_of(rounds=3), machine_of(folder)).measurements
    stored = [m for m in everything if (m.config.batch_size, m.round) in have]
    machine, observer = machine_of(folder, stored=stored), Noting()
    result = swept(request_of(rounds=3), machine, observer)
    made = {(b, r) for b, _, r in machine.measured()}
    assert len(made) == len(machine.measured())
    assert made | have == set(product((8, 16, 32), range(3)))
    assert made & have == set()
    assert len(result.measurements) == 9
    assert observer.begun[:2] == (len(made), len(have))


@given(st.integers(0, 5))
@settings(max_examples=6, deadline=None)
def test_an_interrupt_keeps_what_is_stored_and_ends_the_worker(folder, after):
    machine, answer = machine_of(folder), Machine.answer

    def interrupted(task):
        if len(machine.trials()) > after:
            raise KeyboardInterrupt
        return answer(machine, task)

    machine.answer = interrupted
    with pytest.raises(KeyboardInterrupt):
        swept(request_of(), machine)
    assert len(machine.archive.kept) == after
    assert not any(worker.alive for worker in machine.workers)
    later = Machine(machine.archive)
    assert len(swept(request_of(), later).measurements) == 6
    assert len(later.measured()) == 6 - after


def test_more_rounds_continue(folder):
    done = swept(request_of(rounds=1), machine_of(folder)).measurements
    machine = machine_of(folder, stored=done)
    swept(request_of(rounds=3), machine)
    assert {r for _, _, r in machine.measured()} == {1, 2}
    again = machine_of(folder, stored=machine.archive.kept.values())
    observer = Noting()
    assert len(swept(request_of(rounds=1), again, observer).measurements) == 9
    assert again.measured() == []
    assert observer.begun[:2] == (0, 3)


@pytest.mark.parametrize(
    "changed",
    [
        {"source": "older code"},
        {"device": replace(CPU, threads=7)},
    ],
)
def test_measurements_of_other_code_or_another_device_do_not_count(folder, changed):
    tasks = machine_of(folder)
    swept(request_of(), tasks)
    other = [measurement_of(task, **changed) for task in tasks.trials()]
    machine = machine_of(folder, stored=other)
    result = swept(request_of(), machine)
    assert len(machine.measured()) == len(result.measurements) == 6
    assert len(machine.archive.kept) == 12


@pytest.mark.parametrize(
    "changes",
    [
        {"overrides": {"precision": "bf16"}},
        {"sizes": {"width": (9,)}},
        {"batch_sizes": (9, 17, 33)},
    ],
)
def test_another_request_is_measured_anew(folder, changes):
    done = swept(request_of(), machine_of(folder)).measurements
    machine = machine_of(folder, stored=done)
    swept(request_of(**changes), machine)
    assert len(machine.measured()) == 6


@pytest.mark.parametrize(
    "changes",
    [{"steady_seconds": 9.0}, {"seed": 4}, {"device": "auto"}, {"threads": 2}, {"note": "again"}],
)
def test_how_it_is_measured_does_not_make_it_another_request(folder, changes):
    done = swept(request_of(), machine_of(folder)).measurements
    machine = machine_of(folder, stored=done)
    swept(request_of(**changes), machine)
    assert machine.measured() == []


def test_a_note_is_kept_with_every_measurement(folder):
    made = swept(request_of(note="cooler fan"), machine_of(folder)).measurements
    assert {m.note for m in made} == {"cooler fan"}


def test_fresh_forgets_these_configurations_and_no_others(folder):
    machine = machine_of(folder)
    swept(request_of(batch_sizes=(8, 64)), machine)
    kept = [m for m in machine.archive.kept.values() if m.config.batch_size == 64]
    gone = [m.key for m in machine.archive.kept.values() if m.config.batch_size == 8]
    later = Machine(machine.archive)
    result = swept(request_of(batch_sizes=(8, 16), fresh=True), later)
    assert sorted(later.archive.removed) == sorted(gone)
    assert len(later.measured()) == len(result.measurements) == 4
    assert [m for m in later.archive.kept.values() if m.config.batch_size == 64] == kept


# -- time ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("limit", "trials"), [(1, 1), (10, 1), (20, 2), (39, 3), (60, 6), (99, 6)])
def test_no_trial_begins_that_would_end_too_late(folder, limit, trials):
    machine = machine_of(folder)
    result = swept(request_of(max_seconds=limit), machine)
    assert len(machine.measured()) == trials
    assert result.stopped == ("complete" if trials == 6 else "max-seconds")
    assert result.seconds <= max(limit, TRIAL_SECONDS)


def test_a_sweep_that_ran_out_of_time_continues(folder):
    machine = machine_of(folder)
    swept(request_of(max_seconds=40), machine)
    later = Machine(machine.archive)
    assert swept(request_of(max_seconds=40), later).stopped == "complete"
    assert len(later.measured()) == 2


# -- gradient noise -----------------------------------------------------------------------------


def test_each_model_size_shows_its_gradient_noise_once(folder):
    """At the smallest batch that was measured; asked again, nothing is left to do."""
    machine = machine_of(folder, outcomes={("trial", 8): "oom"})
    request = request_of(noise_scale=True, sizes={"width": (4, 8)})
    result = swept(request, machine)
    asked = [(t.spec.batch_size, dict(t.spec.sizes)["width"]) for t in machine.trials("noise")]
    assert sorted(asked) == [(16, 4), (16, 8)]
    noisy = [m for m in result.measurements if m.gradient_noise is not None]
    assert [m.gradient_noise for m in noisy] == [NOISE, NOISE]
    later = machine_of(folder, machine.archive.kept.values(), outcomes={("trial", 8): "oom"})
    swept(request, later)
    assert later.trials("noise") == []
    assert machine_of(folder).trials("noise") == []


def test_gradient_noise_that_fails_costs_itself_alone(folder):
    error = EpochcastError("no gradients")
    machine, observer = machine_of(folder, outcomes={("noise", 8): error}), Noting()
    result = swept(request_of(noise_scale=True), machine, observer)
    assert len(result.measurements) == 6
    (warning,) = observer.warnings
    assert warning.code == "no-noise-scale"
    assert dict(warning.details)["why"] == "no gradients"


# -- traces -------------------------------------------------------------------------------------


def test_each_measured_configuration_is_traced_once(folder):
    machine = machine_of(folder / "traced", outcomes={("trial", 16): "oom"})
    result = swept(request_of(traces=True), machine)
    assert {task.spec.batch_size for task in machine.trials("trace")} == {8, 32}
    assert len(machine.trials("trace")) == 2
    traced = [m for m in result.measurements if m.trace]
    assert sorted((m.config.batch_size, m.round) for m in traced) == [(8, 1), (32, 1)]
    assert all(m.trace.startswith("mine.py-workload/batch_size=") for m in traced)
    for m in traced:
        path = machine.archive.log_folder / m.trace
        path.parent.mkdir(parents=True)
        path.touch()
    later = Machine(machine.archive)
    swept(request_of(traces=True), later)
    assert later.trials("trace") == []
    path.unlink()  # of a trace that someone removed
    swept(request_of(traces=True), later)
    assert len(later.trials("trace")) == 1


@pytest.mark.parametrize(
    ("failure", "why"),
    [
        (WorkerDied(-11), "the worker process was ended by SIGSEGV"),
        (WorkerTimeout(), "no result after 600 s"),
        (EpochcastError("ValueError: mine"), "ValueError: mine"),
    ],
)
def test_a_failing_trace_costs_the_trace_alone(folder, failure, why):
    machine, observer = machine_of(folder, outcomes={("trace", 8): failure}), Noting()
    result = swept(request_of(traces=True), machine, observer)
    assert (result.stopped, result.succeeded) == ("complete", True)
    assert {m.config.batch_size for m in result.measurements if m.trace} == {16, 32}
    (warning,) = observer.warnings
    assert warning.code == "no-trace"
    assert dict(warning.details)["why"] == why
    assert "batch_size=8" in dict(warning.details)["config"]


def test_names_too_long_for_a_folder_are_cut_and_stay_apart(folder):
    long = "x" * 300
    machine = machine_of(folder)
    swept(request_of(target=f"{long}/mine.py:workload", traces=True, rounds=1), machine)
    swept(request_of(target=f"a{long}/mine.py:workload", traces=True, rounds=1), machine)
    traced = machine.trials("trace")
    parents = {
        Path(task.folder).relative_to(machine.archive.log_folder).parts[0] for task in traced
    }
    assert len(parents) == 2
    assert all(len(name.encode()) <= 255 for name in parents)
    assert all(name.endswith("mine.py-workload") for name in parents)


@pytest.mark.parametrize("text", ["", "é" * 300, "ab" * 150, "..", "\udcff" * 300])
def test_any_text_makes_a_folders_name(text):
    assert 0 < len(slug(text).encode()) <= 255


# -- before the first round ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sizes": {"wdith": (1,)}}, "has no knob 'wdith'; it has: activation, bias, rate, width"),
        ({"sizes": {"width": ("big",)}}, "knob 'width' takes values like 8 (int), but got 'big'"),
        ({"sizes": {"width": (1.5,)}}, "but got 1.5"),
        ({"sizes": {"width": (True,)}}, "but got True"),
        ({"sizes": {"bias": (1,)}}, "knob 'bias' takes values like True (bool), but got 1"),
        ({"sizes": {"activation": (3,)}}, "but got 3"),
        ({"sizes": {"rate": ("x",)}}, "but got 'x'"),
        ({"sizes": {"width": ()}}, "--set width= needs at least one value"),
        ({"data": "/somewhere"}, "has no 'data' argument"),
        ({"batch_sizes": (8, 1001)}, "batch size 1001 is more than the data set's 1000 samples"),
    ],
)
def test_the_users_mistakes(folder, changes, said):
    machine = machine_of(folder)
    with pytest.raises(UsageError) as caught:
        swept(request_of(**changes), machine)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert machine.measured() == []
    assert machine.archive.kept == {}
    assert not any(worker.alive for worker in machine.workers)


def test_whole_numbers_do_for_a_real_knob_and_data_for_who_takes_it(folder):
    machine = machine_of(folder, takes_data=True)
    swept(request_of(sizes={"rate": (1, 0.25)}, data="/somewhere"), machine)
    assert {dict(sizes)["rate"] for _, sizes, _ in machine.measured()} == {1, 0.25}
    assert {task.spec.workload.data for task in machine.trials()} == {"/somewhere"}


def test_a_workload_that_does_not_run_stores_nothing(folder):
    machine = machine_of(folder)
    machine.checked = replace(machine.checked, problem="layer '2' failed on …")
    with pytest.raises(WorkloadError, match=r"^layer '2' failed on … \(log: .*check.*\.log\)$"):
        swept(request_of(), machine)
    assert machine.measured() == []
    assert machine.archive.kept == {}


@pytest.mark.parametrize("failure", [WorkerDied(-11), WorkerTimeout()])
def test_a_trial_step_that_ends_its_process_leaves_the_verdict_to_the_sweep(folder, failure):
    machine = machine_of(folder, outcomes={("trial", 8): failure})
    machine.answer = dying("check", failure, machine.answer)
    result = swept(request_of(), machine)
    assert Counter(b for b, _, _ in machine.measured()) == {8: 1, 16: 2, 32: 2}
    assert result.succeeded


@pytest.mark.parametrize("failure", [WorkerDied(-11), WorkerTimeout()])
def test_without_batch_sizes_such_a_trial_is_an_error_and_not_an_empty_sweep(folder, failure):
    machine = machine_of(folder)
    machine.answer = dying("check", failure, machine.answer)
    with pytest.raises(WorkloadError, match="ended or blocked its process"):
        swept(request_of(batch_sizes=None), machine)
    machine = machine_of(folder)
    machine.checked = CheckedWorkload(trouble="KeyError: 'mine'")
    with pytest.raises(WorkloadError, match="KeyError: 'mine'"):
        swept(request_of(batch_sizes=None), machine)


@pytest.mark.parametrize(
    ("failure", "said"),
    [(WorkerDied(1), "exit code 1; see .*check"), (WorkerTimeout(), "not ready after 600 s")],
)
def test_code_that_cannot_even_be_loaded(folder, failure, said):
    machine = machine_of(folder)
    machine.answer = dying("describe", failure, machine.answer)
    with pytest.raises(WorkloadError, match=said):
        swept(request_of(), machine)
    assert not any(worker.alive for worker in machine.workers)


def dying(kind, failure, answer):
    def ask(task):
        if task.kind == kind:
            raise failure
        return answer(task)

    return ask


def test_default_batch_sizes_are_around_the_workloads_own(folder):
    machine = machine_of(folder)
    swept(request_of(batch_sizes=None, rounds=1), machine)
    assert sorted(b for b, _, _ in machine.measured()) == [8, 16, 32, 64]
    (trial,) = machine.trials("check")
    assert trial.spec.batch_size is None


# -- real worker processes ----------------------------------------------------------------------

REAL = """
import math
import os
import signal
from pathlib import Path

import torch
from epochcast import Workload

HERE = Path(__file__).parent

def note_call():
    with (HERE / "calls").open("a") as file:
        file.write("called\\n")
    return len((HERE / "calls").read_text().splitlines())

def workload(width: int = 3):
    if note_call() == 3 and (HERE / "gate").exists():
        (HERE / "waiting").touch()
        signal.pause()
    model = torch.nn.Sequential(torch.nn.Linear(6, width), torch.nn.Linear(width, 2))

    def loss(outputs, targets):
        if len(outputs) == 13:
            os._exit(3)
        return torch.nn.functional.mse_loss(outputs, targets)

    return Workload(
        model=model,
        train_data=torch.utils.data.TensorDataset(torch.zeros(60, 6), torch.zeros(60, 2)),
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        loss=loss,
        batch_size=4,
    )
"""


@pytest.fixture
def real(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "real.py").write_text(REAL)
    return tmp_path


def test_a_real_sweep_with_a_configuration_that_crashes(real):
    request = SweepRequest(
        target="real.py:workload",
        batch_sizes=(4, 13),
        rounds=1,
        steady_seconds=0.05,
        device="cpu",
        threads=1,
    )
    with Store.open(folder=real / ".epochcast") as store:
        result = sweep(request, store)
        stored = store.measurements()
        trace = store.log_folder / next(m.trace for m in stored if m.trace)
    assert {m.key: m for m in result.measurements} == {m.key: m for m in stored}
    assert (result.stopped, result.succeeded) == ("complete", True)
    by_size = {m.config.batch_size: m for m in stored}
    good, bad = by_size[4], by_size[13]
    assert (good.status, bad.status) == ("ok", "crashed")
    assert good.footprint.parameters == 6 * 3 + 3 + 3 * 2 + 2
    assert good.import_seconds > 0
    assert good.config.sizes == bad.config.sizes == (("width", 3),)
    assert bad.message == "the worker process ended with exit code 3"
    assert trace.is_file()
    assert bad.trace is None


def test_kill_9_in_the_middle_of_a_sweep_and_the_same_command_again(real):
    if os.name != "posix":
        pytest.skip("needs SIGKILL")
    command = [
        *(sys.executable, "-m", "epochcast", "probe", "real.py:workload"),
        *("--batch-sizes", "4,5,6", "--rounds", "1", "--seconds", "0.05", "--no-traces"),
        *("--device", "cpu", "--threads", "1"),
    ]
    (real / "gate").touch()
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(real / "waiting", first)
        workers = psutil.Process(first.pid).children(recursive=True)
        first.send_signal(signal.SIGKILL)
    finally:
        with suppress(ProcessLookupError):
            first.kill()
        first.wait()
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert [p for p in alive if p.status() != psutil.STATUS_ZOMBIE] == []
    with Store.open(folder=real / ".epochcast", create=False) as store:
        (finished,) = store.measurements()
    (real / "gate").unlink()
    subprocess.run(command, check=True, capture_output=True)
    with Store.open(folder=real / ".epochcast", create=False) as store:
        measurements = store.measurements()
    assert finished in measurements
    assert sorted(m.config.batch_size for m in measurements) == [4, 5, 6]
    assert {m.status for m in measurements} == {"ok"}
    calls = (real / "calls").read_text().splitlines()
    assert len(calls) == (1 + 1 + 1) + (1 + 2)  # trial, trial, killed trial; trial, two trials


def wait_for(path, running):
    """Until a file is there; the process that should make it must be running meanwhile."""
    deadline = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < deadline
        with pytest.raises(subprocess.TimeoutExpired):
            running.wait(timeout=0.05)


# -- several devices -------------------------------------------------------------------------------


def test_worlds_are_measured_by_groups_of_ranks_and_continued(folder):
    machine = machine_of(folder, device_count=4)
    request = request_of(batch_sizes=(8,), world_sizes=(1, 2, 4), rounds=2)
    result = swept(request, machine)
    assert (result.stopped, len(result.measurements)) == ("complete", 6)
    ranks = Counter((t.spec.world_size, t.rank) for t in machine.trials())
    assert ranks == {(w, r): 2 for w in (1, 2, 4) for r in range(w)}
    assert not any(worker.alive for worker in machine.workers)
    assert all(t.spec.workload.threads == 1 for t in machine.trials())
    again = Machine(machine.archive, device_count=4)
    swept(replace(request, world_sizes=(1, 2)), again)
    assert not again.trials()


def test_a_check_is_of_a_plain_training_and_so_is_gradient_noise(folder):
    machine = machine_of(folder, device_count=4)
    swept(request_of(batch_sizes=(8,), world_sizes=(2,), noise_scale=True, traces=True), machine)
    plain = [t for _, t in machine.asked if t.kind in ("check", "noise")]
    assert [t.spec.ranks for t in plain] == [0, 0]
    assert {t.rank for t in machine.trials("trace")} == {0, 1}


@pytest.mark.parametrize(
    ("device", "asked", "match"),
    [
        ("cuda", "auto", "needs 4 CUDA devices, but torch sees 2 here"),
        ("cuda", "cuda:1", "CUDA_VISIBLE_DEVICES"),
        ("mps", "mps", "cannot train on mps"),
    ],
)
def test_worlds_that_this_machine_has_no_devices_for_are_refused(folder, device, asked, match):
    machine = machine_of(folder, device_count=2)
    machine.device = replace(CPU, kind=device)
    with pytest.raises(UsageError, match=match):
        swept(request_of(world_sizes=(1, 4), device=asked), machine)
    assert not machine.trials()


# -- names --------------------------------------------------------------------------------------


def test_a_name_is_kept_beside_the_target_and_continues_by_itself(folder):
    """What was measured without it, or under another, is not taken for it."""
    machine = machine_of(folder)
    unnamed = swept(request_of(rounds=1), machine).measurements
    named = swept(request_of(rounds=1, name=" wide "), machine).measurements
    assert [(m.workload, m.target) for m in named] == [("wide", "mine.py:workload")] * 3
    assert len(machine.measured()) == len(machine.archive.kept) == 6
    swept(request_of(rounds=2, name="wide"), machine)
    swept(request_of(rounds=1), machine)
    assert len(machine.measured()) == 9
    assert {m.key for m in unnamed}.isdisjoint(m.key for m in named)


def test_a_failure_has_the_name_too(folder):
    machine = machine_of(folder, outcomes={("trial", 8): WorkerDied(-9)})
    found = swept(request_of(name="wide"), machine).measurements
    assert {(m.workload, m.target) for m in found} == {("wide", "mine.py:workload")}
    assert "crashed" in {m.status for m in found}


def test_the_name_of_another_is_refused_before_anything_runs(folder):
    machine = machine_of(folder)
    swept(request_of(name="wide", rounds=1), machine)
    asked = len(machine.asked)
    message = "'wide' is the name of mine.py:workload in this store, not of mine.py:other: give"
    with pytest.raises(UsageError, match=message):
        swept(request_of(name="wide", target="mine.py:other"), machine)
    with pytest.raises(UsageError, match=r"measure it by epochcast probe mine.py:workload --name"):
        swept(request_of(target="wide"), machine)
    assert len(machine.asked) == asked
