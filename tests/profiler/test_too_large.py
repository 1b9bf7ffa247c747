"""What will surely not fit a GPU is not tried, and said; nothing else is left out."""

from __future__ import annotations

from dataclasses import replace

import pytest
from scripted import CPU, Machine, Memory, Noting, request_of
from sequences import training

from epochcast.costmodel.fitting import fit
from epochcast.devices.need import needed_bytes
from epochcast.errors import UsageError, WorkloadError
from epochcast.profiler import too_large
from epochcast.profiler.adaptive import rounds_that_fit
from epochcast.profiler.process import Workers
from epochcast.profiler.sweep import sweep
from epochcast.report.text.warnings import warning_text
from epochcast.units import format_bytes

MEMORY = 4096  # of a GPU so small that the CPU's operators never fit it
GPU = replace(CPU, kind="cuda", name="Tesla T4", memory_bytes=MEMORY)


class Gpu:
    """What a GPU's own operators are said to need, of each batch size, and what was asked."""

    def __init__(self, monkeypatch, needed):
        self.needed, self.asked = needed, []
        monkeypatch.setattr(too_large, "least_bytes", self.least)

    def least(self, workers, spec, batch_size, device, timeout):
        self.asked.append((dict(spec.sizes)["width"], batch_size))
        return self.needed(batch_size)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("too-large")


def probed(folder, archive=None, device=GPU, prepare=lambda machine: None, **changes):
    machine = Machine(archive or Memory(folder))
    machine.device = device
    prepare(machine)
    observer = Noting()
    result = sweep(
        request_of(rounds=1, **changes),
        machine.archive,
        observer,
        rounds=rounds_that_fit,
        workers=Workers(machine.archive.folder, machine.start),
        clock=lambda: machine.now,
    )
    return {b for b, _, _ in machine.measured()}, result, machine, observer


def test_what_will_not_fit_is_left_out_and_said(folder, monkeypatch):
    gpu = Gpu(monkeypatch, lambda b: b * MEMORY / 10)
    tried, result, _, observer = probed(folder)
    assert tried == {8}
    assert [batch_size for _, batch_size in gpu.asked] == [32, 16, 8]
    assert [(x.config.batch_size, x.needed_bytes) for x in result.left_out] == [
        (32, 3.2 * MEMORY),
        (16, 1.6 * MEMORY),
    ]
    assert {x.device_bytes for x in result.left_out} == {MEMORY}
    said = [warning_text(w) for w in observer.warnings if w.code == "hopeless"]
    assert len(said) == 2
    told = ("batch_size=32", "--try-all", format_bytes(3.2 * MEMORY), format_bytes(MEMORY))
    assert all(words in said[0] for words in told)
    assert observer.begun[0] == 1  # trials that are announced


def test_what_is_left_out_is_kept_until_it_is_tried(folder, monkeypatch):
    Gpu(monkeypatch, lambda b: b * MEMORY / 10)
    _, result, machine, _ = probed(folder)
    archive = machine.archive
    kept = [m for m in archive.kept.values() if m.status == "too-large"]
    assert [m.config.batch_size for m in kept] == [32, 16]
    assert format_bytes(3.2 * MEMORY) in kept[0].message
    assert {m.config.batch_size for m in result.measurements} == {8}
    assert fit(archive.kept.values()).probing_seconds == fit(result.measurements).probing_seconds
    again = probed(folder, archive=archive)[1]
    assert [x.config.batch_size for x in again.left_out] == [32, 16]
    tried, all_of_it, _, _ = probed(folder, archive=archive, try_all=True)
    assert tried == {16, 32}
    assert {m.config.batch_size for m in all_of_it.measurements} == {8, 16, 32}
    assert {m.status for m in archive.kept.values()} == {"ok"}


def test_the_largest_that_may_fit_answers_for_smaller_ones_of_its_model(folder, monkeypatch):
    gpu = Gpu(monkeypatch, lambda b: MEMORY / 2)
    tried, result, _, _ = probed(folder, sizes={"width": (8, 16)})
    assert gpu.asked == [(8, 32), (16, 32)]
    assert (tried, result.left_out) == ({8, 16, 32}, ())


def test_where_the_cpus_operators_fit_the_gpus_are_not_followed(folder, monkeypatch):
    gpu = Gpu(monkeypatch, lambda b: MEMORY * 2)
    roomy = replace(GPU, memory_bytes=2**50)
    assert probed(folder, device=roomy)[0] == {8, 16, 32}
    assert gpu.asked == []


def test_a_cpu_is_not_asked_at_all(folder, monkeypatch):
    gpu = Gpu(monkeypatch, lambda b: MEMORY * 2)
    tried, _, machine, _ = probed(folder, device=replace(CPU, memory_bytes=MEMORY))
    assert tried == {8, 16, 32}
    assert (gpu.asked, machine.trials("dry-run")) == ([], [])


def test_all_is_tried_where_that_is_asked_for(folder, monkeypatch):
    gpu = Gpu(monkeypatch, lambda b: MEMORY * 2)
    tried, result, machine, _ = probed(folder, try_all=True)
    assert (tried, result.left_out) == ({8, 16, 32}, ())
    assert (gpu.asked, machine.trials("dry-run")) == ([], [])


def _never_counted(machine):
    machine.problem = lambda sizes: "it has a custom kernel"


def test_what_cannot_be_counted_is_tried(folder, monkeypatch):
    Gpu(monkeypatch, lambda b: MEMORY * 2)
    tried, result, _, _ = probed(folder, prepare=_never_counted)
    assert (tried, result.left_out) == ({8, 16, 32}, ())


def test_what_cannot_be_followed_is_tried(folder, monkeypatch):
    def fail(batch_size):
        raise WorkloadError("cannot be followed")

    Gpu(monkeypatch, fail)
    tried, result, _, _ = probed(folder)
    assert (tried, result.left_out) == ({8, 16, 32}, ())


def test_what_is_compiled_is_tried_because_its_least_is_not_known(folder, monkeypatch):
    gpu = Gpu(monkeypatch, lambda b: MEMORY * 2)
    count = Machine.count

    def compiled(machine, task):
        reply = count(machine, task)
        counted = (replace(c, config=replace(c.config, compiled=True)) for c in reply.counted)
        return replace(reply, counted=tuple(counted))

    monkeypatch.setattr(Machine, "count", compiled)
    assert (probed(folder)[0], gpu.asked) == ({8, 16, 32}, [])


def test_what_was_measured_before_is_not_asked_about_again(folder, monkeypatch):
    gpu = Gpu(monkeypatch, lambda b: MEMORY / 2)
    archive = probed(folder, batch_sizes=(32,))[2].archive
    gpu.needed = lambda b: MEMORY * 2
    tried, result, _, _ = probed(folder, archive=archive, batch_sizes=(16, 32))
    assert [batch_size for _, batch_size in gpu.asked] == [32, 16]
    assert tried == set()
    assert [x.config.batch_size for x in result.left_out] == [16]
    assert [m.config.batch_size for m in result.measurements] == [32]


def test_where_nothing_fits_nothing_succeeds(folder, monkeypatch):
    Gpu(monkeypatch, lambda b: MEMORY * 2)
    tried, result, _, _ = probed(folder)
    assert tried == set()
    assert (result.stopped, result.succeeded, len(result.left_out)) == (
        "nothing-succeeded",
        False,
        3,
    )


def test_the_least_is_the_low_quantile_of_the_devices_own_operators(monkeypatch):
    sequence, followed = training(16), []

    def follow(workers, spec, batch_sizes, device, timeout):
        followed.append((batch_sizes, device.name, device.memory_bytes, device.multiprocessors))
        return (sequence,)

    monkeypatch.setattr(too_large, "cuda_sequences", follow)
    assert too_large.least_bytes(None, None, 64, GPU) == needed_bytes(sequence, confidence=0.05)
    assert too_large.least_bytes(None, None, 64, GPU) < needed_bytes(sequence, confidence=0.5)
    assert followed[0][:3] == ([64], "Tesla T4", MEMORY)


def test_a_sweep_that_chooses_cannot_be_told_to_try_all():
    with pytest.raises(UsageError, match="leave out --try-all"):
        request_of(try_all=True, until=0.1)
