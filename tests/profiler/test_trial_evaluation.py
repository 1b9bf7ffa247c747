"""What evaluation takes is measured: at its own batch size, in time and in memory."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest

from epochcast.errors import WorkloadError
from epochcast.profiler.footprint.dry_run import dry_runs
from epochcast.profiler.loop import TrainingLoop, largest_eval_batch
from epochcast.profiler.protocol import Task, TrialSpec, WorkloadSpec
from epochcast.profiler.target import build, load
from epochcast.profiler.trial import run_trial
from epochcast.report.text.layout import PlainConsole
from epochcast.report.text.probing import print_footprints
from epochcast.units import format_bytes

SIDE, CHANNELS, EVAL_SIDE = 8, 4, 96
FILE = f"""
import torch
from torch import nn
from torch.utils.data import TensorDataset
from epochcast import Workload

def images(samples, side):
    return TensorDataset(torch.zeros(samples, 3, side, side), torch.zeros(samples, dtype=int))

def workload(eval_batch_size: int = 0):
    model = nn.Sequential(
        nn.Conv2d(3, {CHANNELS}, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear({CHANNELS}, 2),
    )
    return Workload(
        model=model,
        train_data=images(32, {SIDE}),
        eval_data=images(20, {EVAL_SIDE}),
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        loss=nn.functional.cross_entropy,
        batch_size=4,
        eval_batch_size=eval_batch_size or None,
    )
"""


@pytest.fixture
def spec(tmp_path: Path) -> TrialSpec:
    file = tmp_path / "wide_evaluation.py"
    file.write_text(FILE)
    load.cache_clear()
    return TrialSpec(
        workload=WorkloadSpec(target=f"{file}:workload"),
        sizes=(("eval_batch_size", 0),),
        batch_size=4,
        steady_seconds=0.01,
    )


def trial(spec: TrialSpec, folder: Path):
    measured = run_trial(Task(kind="trial", spec=spec, folder=str(folder)))
    assert measured.status == "ok", measured.message
    return measured


def live_bytes(batch: int) -> int:
    """Of evaluating a batch: parameters, images, labels, the outputs of two layers."""
    parameters = (3 * 9 + 1) * CHANNELS + (CHANNELS + 1) * 2
    pixels = batch * EVAL_SIDE**2
    return 4 * (parameters + (3 + CHANNELS) * pixels + batch * CHANNELS) + 8 * batch


def test_the_peak_of_a_run_may_be_that_of_its_evaluation(spec: TrialSpec, tmp_path: Path) -> None:
    measured = trial(spec, tmp_path)
    footprint = measured.footprint
    assert footprint is not None
    assert footprint.eval_peak_bytes == live_bytes(4)
    assert footprint.run_peak_bytes == live_bytes(4) > 10 * footprint.peak_bytes
    assert measured.memory
    assert measured.eval_memory
    assert measured.save_memory


@pytest.mark.parametrize("batch_size", [4, 16])
def test_a_dry_run_counts_the_peak_of_evaluation(spec: TrialSpec, batch_size: int) -> None:
    (counted,) = dry_runs(spec, [batch_size])
    assert counted.footprint.eval_peak_bytes == live_bytes(batch_size)


def test_the_table_of_a_dry_run_shows_the_largest_peak(spec: TrialSpec) -> None:
    (counted,) = dry_runs(spec, [4], timeline=True)
    console = PlainConsole(file=StringIO(), width=140)
    print_footprints(console, "wide", [(counted.config, counted.footprint)])
    print_footprints(console, "wide", [(counted.config, counted.footprint)] * 2)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    largest = format_bytes(live_bytes(4))
    assert f"peak, evaluation         {largest}" in text
    assert f"The peak is {largest}, in evaluation; that of a training step is" in text
    assert text.count(largest) == 4


def test_evaluation_has_a_batch_size_of_its_own(spec: TrialSpec, tmp_path: Path) -> None:
    own = replace(spec, sizes=(("eval_batch_size", 10),))
    measured = trial(own, tmp_path)
    assert measured.config.eval_batch_size == measured.config.evaluated_at_once == 10
    assert measured.footprint is not None
    assert measured.footprint.eval_peak_bytes == live_bytes(10)
    for batch_size in (4, 16):
        (counted,) = dry_runs(own, [batch_size])
        assert counted.config.eval_batch_size == 10
        assert counted.footprint.eval_peak_bytes == live_bytes(10)


def test_the_users_word_goes_before_the_workloads(spec: TrialSpec) -> None:
    asked = replace(spec.workload, overrides=(("eval_batch_size", 7),))
    workload = build(replace(spec, workload=asked))
    assert workload.eval_batch_size == 7
    with pytest.raises(WorkloadError, match="eval_batch_size must be at least 1, but got 0"):
        replace(workload, eval_batch_size=0)


def test_an_evaluation_that_cannot_be_counted_is_unknown_and_no_failure(spec: TrialSpec) -> None:
    from epochcast.profiler.footprint.dry_run import simulate
    from epochcast.profiler.workload import Workload

    def with_values() -> Workload:
        return replace(build(spec), eval_step=lambda batch: float(batch[0].sum()))

    (counted,) = simulate(with_values, [4])
    assert counted.footprint.count("eval_peak_bytes") is None
    assert counted.footprint.peak_bytes > 0


def test_the_largest_batch_counts_where_batches_differ(spec: TrialSpec) -> None:
    workload = build(spec)
    ragged = [(workload.eval_data[0][0][:, : 8 + 8 * (i % 5)], 0) for i in range(10)]
    workload = replace(workload, eval_data=ragged, eval_batch_size=1)
    config = replace(trial_config(workload), eval_batch_size=1)
    batch = largest_eval_batch(TrainingLoop(workload, config, device()))
    assert batch is not None
    assert batch[0].shape[-2] == 40


def trial_config(workload):
    from epochcast.profiler.loop import config_of

    return config_of(workload, None, ())


def device():
    import torch

    return torch.device("cpu")
