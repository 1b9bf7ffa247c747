"""Data without a length or an end, and data that makes its batches itself."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import BatchSampler, Dataset, IterableDataset, RandomSampler, TensorDataset

from epochcast.errors import WorkloadError
from epochcast.profiler.device import HostTimer
from epochcast.profiler.footprint.dry_run import simulate
from epochcast.profiler.learning import whole_batches
from epochcast.profiler.loop import TrainingLoop, config_of
from epochcast.profiler.timing import Stepper, evaluation
from epochcast.profiler.workload import Workload

PAIR = (torch.ones(3), torch.zeros(1))


class Stream(IterableDataset):
    """So many pairs, or without an end; it does not say."""

    def __init__(self, count=None):
        self.count = count

    def __iter__(self):
        return itertools.islice(itertools.repeat(PAIR), self.count)


class Batches(Dataset):
    """Six batches of four pairs."""

    def __len__(self):
        return 6

    def __getitem__(self, index):
        if index >= 6:
            raise IndexError(index)
        return torch.full((4, 3), float(index)), torch.zeros(4, 1)


class Forever(torch.utils.data.Sampler):
    def __iter__(self):
        return itertools.cycle(range(20))


def workload_of(data, **options):
    model = nn.Linear(3, 1)
    return Workload(
        **{
            "model": model,
            "train_data": data,
            "optimizer": torch.optim.SGD(model.parameters(), lr=1e-3),
            "loss": functional.mse_loss,
            "batch_size": 4,
            **options,
        }
    )


def loop_of(workload, batch_size=None):
    return TrainingLoop(workload, config_of(workload, batch_size, ()), torch.device("cpu"))


PAIRS = TensorDataset(torch.ones(20, 3), torch.zeros(20, 1))
ENDLESS = {
    "a stream of 22": lambda: workload_of(Stream(22), samples=22),
    "a stream without an end": lambda: workload_of(Stream(), samples=22),
    "a sampler without an end": lambda: workload_of(
        PAIRS, steps_per_epoch=5, loader_options={"sampler": Forever()}
    ),
    "fewer samples than there are": lambda: workload_of(PAIRS, samples=21),
    "whole batches": lambda: workload_of(Batches(), batch_from_data=True),
    "whole batches in a stream": lambda: workload_of(
        iter_of(Batches()), batch_from_data=True, steps_per_epoch=5
    ),
    "indices of a batch": lambda: workload_of(
        Batched(), batch_from_data=True, loader_options={"sampler": sampler_of_five()}
    ),
    "a batch sampler": lambda: workload_of(
        PAIRS, batch_from_data=True, loader_options={"batch_sampler": sampler_of_five()}
    ),
}


class Batched(Dataset):
    """Takes the indices of a whole batch."""

    def __getitem__(self, indices):
        return PAIRS[indices]

    def __len__(self):
        return 20


def sampler_of_five():
    return BatchSampler(RandomSampler(PAIRS), 4, drop_last=False)


def iter_of(data):
    class Yielding(IterableDataset):
        def __iter__(self):
            return (data[i] for i in range(len(data)))

    return Yielding()


@pytest.mark.parametrize("name", ENDLESS)
def test_an_epoch_has_the_batches_that_it_is_said_to_have(name):
    workload = ENDLESS[name]()
    loop = loop_of(workload)
    samples = workload.samples_per_epoch
    assert [len(batch[0]) for batch in loop.train_loader()] == [4] * (samples // 4)
    assert len(loop.train_loader()) == samples // 4
    partial = loop.partial_batch()
    assert (0 if partial is None else len(partial[0])) == samples % 4
    stepper = Stepper(loop, HostTimer())
    began = [stepper.step()[2] for _ in range(samples // 4 + 1)]
    assert began == [True, *[False] * (samples // 4 - 1), True]
    (counted,) = simulate(ENDLESS[name])
    assert (counted.samples, counted.footprint.batch_elements) == (samples, 16)
    assert whole_batches(loop) == ()


@pytest.mark.parametrize(
    "given", [{"eval_data": Stream(10), "eval_samples": 10}, {}], ids=["stream", "batches"]
)
def test_evaluations_of_streams_and_of_whole_batches(given):
    whole = {"eval_data": Batches(), "batch_from_data": True}
    workload = workload_of(Batches() if not given else Stream(), samples=24, **(given or whole))
    loop = loop_of(workload)
    sizes = [len(batch[0]) for batch in loop.eval_loader()]
    assert sum(sizes) == workload.samples_per_evaluation == (10 if given else 24)
    assert [len(b[0]) for b in loop.eval_batches_of_each_size()] == ([4, 2] if given else [4])
    samples, restarts = evaluation(loop, HostTimer(), 0.001)
    assert samples
    assert restarts


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: workload_of(Stream()), "Stream has none: give samples=.*or steps_per_epoch="),
        (
            lambda: workload_of(PAIRS, loader_options={"sampler": Forever()}),
            "Forever has none: give samples=.*or steps_per_epoch=",
        ),
        (
            lambda: workload_of(PAIRS, eval_data=Stream()),
            "eval_data needs a length, but got Stream without __len__: give eval_samples=",
        ),
        (lambda: workload_of(PAIRS, samples=8, steps_per_epoch=2), "say the same: give one"),
        (lambda: workload_of(PAIRS, samples=0), "samples must be at least 1, but got 0"),
        (lambda: workload_of(3), "train_data must be a data set, .* but got int"),
        (
            lambda: workload_of(PAIRS, loader_options={"batch_sampler": sampler_of_five()}),
            "'batch_sampler' in loader_options .*batch_from_data=True beside it",
        ),
        (
            lambda: config_of(workload_of(Batches(), batch_from_data=True), 8, ()),
            "batch_size=4 samples, so none of 8 can be probed: leave .* or make it a knob",
        ),
        (
            lambda: list(loop_of(workload_of(Stream(9), samples=20)).train_loader()),
            "ended after 2 batches, but its epoch was said to have 20 samples, which are 5",
        ),
    ],
)
def test_refusals(build, message):
    with pytest.raises(WorkloadError, match=message):
        build()
