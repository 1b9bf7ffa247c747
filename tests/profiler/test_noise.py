"""Gradient norms of a workload whose gradient noise is known in closed form."""

from __future__ import annotations

import sys

import pytest
import torch

from epochcast.errors import WorkloadError
from epochcast.planning.batch import noise_scale
from epochcast.profiler.noise import measure_noise
from epochcast.profiler.protocol import Task, TrialSpec, WorkloadSpec
from epochcast.profiler.target import load

# The loss ½|w − x|² has the gradient w − x: at w = 0 and rate 0 its mean is −E x, its noise x's.
# With x ~ N(0.5, 1) in 40 dimensions, tr Σ/|G|² = 40/(40·0.25) = 4 samples.
WORKLOAD = """
import torch
from epochcast import Workload

class Point(torch.nn.Module):
    def __init__(self, frozen):
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(40))
        self.unused = torch.nn.Parameter(torch.zeros(3), requires_grad=not frozen)

    def forward(self, x):
        return ((self.w - x) ** 2).sum(dim=1) / 2

def workload(samples: int = 4000, own_step: bool = False, frozen: bool = False):
    torch.manual_seed(1)
    model = Point(frozen)
    data = torch.utils.data.TensorDataset(torch.randn(samples, 40) + 0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    step = {"train_step": lambda batch: None} if own_step else {
        "forward": lambda model, batch: model(batch[0]).mean()}
    return Workload(model=model, train_data=data, optimizer=optimizer, batch_size=8, **step)
"""


@pytest.fixture
def task_of(tmp_path):
    load.cache_clear()
    threads, path = torch.get_num_threads(), list(sys.path)
    file = tmp_path / "noisy_workload.py"
    file.write_text(WORKLOAD)

    def make(batch_size=8, **sizes):
        workload = WorkloadSpec(target=f"{file}:workload", threads=1)
        return Task(
            kind="noise",
            spec=TrialSpec(
                workload=workload,
                sizes=tuple(sizes.items()),
                batch_size=batch_size,
                steady_seconds=0.05,
            ),
        )

    yield make
    torch.set_num_threads(threads)
    sys.modules.pop("noisy_workload", None)
    sys.path[:] = path


@pytest.mark.parametrize("sizes", [{}, {"frozen": True}])
def test_a_known_noise_scale_is_found(task_of, sizes):
    found = measure_noise(task_of(**sizes))
    assert (found.small_batch, found.large_batch) == (8, 128)
    assert len(found.small_norms) == 16 * len(found.large_norms)
    assert found.trained_steps >= 1
    assert noise_scale(found) == pytest.approx(4.0, rel=0.25)


def test_a_small_data_set_gives_a_smaller_large_batch(task_of):
    assert measure_noise(task_of(samples=40)).large_batch == 40


def test_what_shows_no_gradients_is_refused(task_of):
    with pytest.raises(WorkloadError, match="train_step of its own"):
        measure_noise(task_of(own_step=True))
    with pytest.raises(WorkloadError, match="needs two batches of 30"):
        measure_noise(task_of(batch_size=30, samples=40))
