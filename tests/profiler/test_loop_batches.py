"""Batches that differ in size: which stand for all, and what a probe makes of them."""

from __future__ import annotations

import math
from collections import UserDict
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset, IterableDataset, Subset, default_collate

from epochcast.errors import DryRunError
from epochcast.profiler.batches import DRAWN, draw_batches, elements, tensors_in
from epochcast.profiler.device import HostTimer
from epochcast.profiler.footprint.dry_run import simulate
from epochcast.profiler.footprint.tracker import measure_footprint
from epochcast.profiler.learning import whole_batches
from epochcast.profiler.loop import (
    TrainingLoop,
    config_of,
    draw_batches_of,
    largest_eval_batch,
)
from epochcast.profiler.timing import Stepper, steady_steps
from epochcast.profiler.workload import Workload


class Sentences(Dataset):
    """Sentence i has 1 + 7·i mod 29 tokens."""

    def __len__(self):
        return 400

    def __getitem__(self, index):
        return torch.arange(1 + (7 * index) % 29)


class Tagger(nn.Module):
    """An embedding and a linear layer; its mean output is the loss."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(64, 16), nn.Linear(16, 8)

    def forward(self, tokens):
        return self.head(functional.relu(self.embed(tokens))).mean()


def workload(batch_size=8):
    model = Tagger()
    return Workload(
        model=model,
        train_data=Sentences(),
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        forward=lambda model, batch: model(batch),
        collate=lambda sentences: pad_sequence(sentences, batch_first=True),
        batch_size=batch_size,
        shuffle=False,
    )


def loop_of(work):
    return TrainingLoop(work, config_of(work, None, ()), torch.device("cpu"))


@given(st.lists(st.integers(1, 50), min_size=1, max_size=60), st.integers(1, 200))
def test_the_typical_batch_is_nearest_the_mean_and_the_largest_is_largest(lengths, batch_size):
    drawn = draw_batches((torch.zeros(length) for length in lengths), batch_size)
    enough = min(DRAWN, max(2, math.ceil(64 / batch_size)))
    seen = lengths[:enough] if len(set(lengths[:enough])) == 1 else lengths[:DRAWN]
    mean = sum(seen) / len(seen)
    assert drawn.mean_elements == mean
    assert elements(drawn.largest) == max(seen)
    assert abs(elements(drawn.typical) - mean) == min(abs(length - mean) for length in seen)
    assert not (drawn.varies and len(set(seen)) == 1)


@pytest.mark.parametrize(("batch_size", "count"), [(1, 32), (4, 16), (32, 2), (512, 2)])
def test_small_batches_of_one_size_are_believed_later_than_large_ones(batch_size, count):
    asked = iter([torch.zeros(batch_size)] * 40)
    assert not draw_batches(asked, batch_size).varies
    assert len(list(asked)) == 40 - count


def shuffled(batch_size):
    work = workload(batch_size)
    work.shuffle = True
    return work


@pytest.mark.parametrize("batch_size", [1, 8])
def test_shuffled_batches_are_counted_alike_whenever_they_are(batch_size):
    """Two batches of one sample often have one length, and which are drawn was chance."""
    torch.manual_seed(batch_size)
    loop = loop_of(shuffled(batch_size))
    first, before = measure_footprint(loop), torch.random.get_rng_state()
    torch.randn(3)
    assert measure_footprint(loop) == first
    torch.random.set_rng_state(before)
    (fake,) = simulate(lambda: shuffled(batch_size))
    assert fake.footprint == first


def test_elements_are_those_of_all_tensors():
    assert elements({"a": torch.zeros(2, 3), "b": [torch.zeros(4), "text"]}) == 10


def test_a_footprint_counts_the_typical_batch_and_holds_the_largest():
    work = workload()
    loop = loop_of(work)
    sizes = [elements(batch) for batch in loop.train_loader()]
    assert len(set(sizes)) > 1
    found = measure_footprint(loop, loop.train_loader())
    drawn = sizes[:DRAWN]
    assert found.batch_elements == round(sum(drawn) / len(drawn))
    one = workload()
    largest = [max(loop_of(one).train_loader(), key=elements)] * 2
    assert found.step_peak_bytes == measure_footprint(loop_of(one), largest).step_peak_bytes
    assert found.step_peak_bytes > found.static_bytes


def test_a_dry_run_draws_the_same_batches():
    real = measure_footprint(loop_of(workload()), loop_of(workload()).train_loader())
    (fake,) = simulate(workload)
    assert fake.footprint == real


class Encoding(UserDict):
    """A batch as tokenizers make it: a mapping that is moved in place."""

    def to(self, device):
        self.data = {name: tensor.to(device) for name, tensor in self.data.items()}
        return self


@dataclass
class Named:
    tokens: torch.Tensor
    of: str = ""


@pytest.mark.parametrize(
    ("pack", "take"),
    [
        (lambda tokens: Encoding(tokens=tokens), lambda batch: batch.pop("tokens")),
        (Named, lambda batch: batch.__dict__.pop("tokens")),
        (lambda tokens: [tokens], lambda batch: batch.pop()),
    ],
    ids=["mapping", "dataclass", "list"],
)
def test_whatever_holds_the_tensors_they_are_counted(pack, take):
    def build():
        made, collate = workload(), workload().collate
        made.collate = lambda sentences: pack(collate(sentences))
        made.forward = lambda model, batch: model(take(batch))
        return made

    (fake,), (plain,) = simulate(build), simulate(workload)
    assert fake.footprint == measure_footprint(loop_of(build()))
    assert fake.footprint.step_peak_bytes == plain.footprint.step_peak_bytes
    assert fake.footprint.batch_elements == plain.footprint.batch_elements


def test_steps_remember_their_sizes_only_where_they_differ():
    series = steady_steps(Stepper(loop_of(workload()), HostTimer()), 0.01)
    assert len(series.elements) == len(series.step)
    assert len(set(series.elements)) > 1
    one_size = workload()
    one_size.collate = lambda sentences: torch.zeros(len(sentences), 5, dtype=torch.long)
    assert steady_steps(Stepper(loop_of(one_size), HostTimer()), 0.01).elements == []


def test_an_optimizer_that_evaluates_the_loss_itself_is_not_counted_as_if_it_did_not():
    def lbfgs():
        work = workload()
        work.optimizer = torch.optim.LBFGS(work.model.parameters())
        return work

    with pytest.raises(DryRunError, match="LBFGS evaluates the loss"):
        simulate(lbfgs)


class Stream(IterableDataset):
    """Twenty pairs, in their own order, that cannot be indexed."""

    def __len__(self):
        return 20

    def __iter__(self):
        return ((torch.full((3,), float(i)), torch.zeros(1)) for i in range(20))


def streaming():
    model = nn.Linear(3, 1)
    return Workload(
        model=model,
        train_data=Stream(),
        eval_data=Stream(),
        optimizer=torch.optim.SGD(model.parameters(), lr=1e-3),
        loss=functional.mse_loss,
        batch_size=8,
    )


def test_data_that_can_only_be_iterated_comes_in_its_own_order():
    """A loader refuses to shuffle it: "expected unspecified shuffle option"."""
    given = streaming()
    loop = TrainingLoop(given, config_of(given, None, ()), torch.device("cpu"))
    firsts = [batch[0][0, 0].item() for batch in loop.train_loader()]
    assert firsts == [0.0, 8.0]
    assert [len(b[0]) for b in loop.eval_batches_of_each_size()] == [8, 4]
    assert len(loop.partial_batch()[0]) == 4
    (counted,) = simulate(streaming)
    assert counted.footprint.eval_peak_bytes > 0


def of_items(items: list, collate=None, batch_size: int = 1, data: type = Dataset) -> TrainingLoop:
    """A loop over these items, whatever they are; nobody trains."""

    class Items(data):
        def __len__(self):
            return len(items)

        def __getitem__(self, index):
            return items[index]

    model = nn.Linear(2, 1)
    work = Workload(
        model=model,
        train_data=Items(),
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        forward=lambda model, batch: model(batch).mean(),
        collate=collate,
        batch_size=batch_size,
    )
    return loop_of(work)


FIRST = {"collate": lambda items: items[0]}
JOINED = {"collate": lambda items: [torch.cat(x) for x in zip(*items, strict=True)]}


@pytest.mark.parametrize(
    ("items", "how", "seen"),
    [
        ([(torch.zeros(64, 3), torch.zeros(64))] * 4, FIRST, ("1", "64")),
        ([(torch.zeros(64, 3), torch.zeros(64))] * 4, JOINED | {"batch_size": 2}, ("2", "128")),
        ([{"x": torch.zeros(2048, 9), "y": torch.zeros(2048)}] * 2, FIRST, ("1", "2,048")),
        ([(torch.zeros(64, 3), torch.zeros(64)), (torch.zeros(9, 3), torch.zeros(9))], FIRST, None),
        ([(torch.zeros(35, 1, 8), torch.zeros(35, 1))] * 4, FIRST, None),  # time first
        ([torch.zeros(512, dtype=torch.long)] * 4, FIRST, None),  # one sequence
        ([(torch.zeros(3), 1)] * 8, {"batch_size": 4}, None),
        ([(torch.zeros(7, 3), 1)] * 8, {"batch_size": 4}, None),
        ([("a text", 1)] * 4, FIRST, None),
    ],
)
def test_a_data_set_that_yields_whole_batches_is_said(items, how, seen) -> None:
    found = [dict(w.details) for w in whole_batches(of_items(items, **how))]
    assert found == ([{"asked": seen[0], "seen": seen[1]}] if seen else [])


class Counted(Dataset):
    """Samples of one size, which say how often they were asked for."""

    def __init__(self):
        self.asked = 0

    def __len__(self):
        return 5000

    def __getitem__(self, index):
        self.asked += 1
        return {"x": torch.zeros(3, 4), "name": "abc"}, index % 10


def classifying(data, **options):
    model = nn.Linear(4, 10)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    loss = functional.cross_entropy
    return Workload(model=model, train_data=data, optimizer=optimizer, loss=loss, **options)


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        ({}, 64),
        ({"shuffle": False}, 64),
        ({"batch_size": 64}, 2 * 64),
        ({"collate": lambda samples: default_collate(samples)}, 2 * 2000),
        ({"loader_options": {"sampler": range(5000)}}, 2 * 2000),
    ],
)
def test_a_large_batch_for_its_size_alone_is_made_of_few_samples(options, asked):
    data = Counted()
    work = classifying(data, **{"batch_size": 2000, **options})
    drawn = draw_batches_of(loop_of(work), sizes_alone=True)
    assert data.asked == asked
    whole = draw_batches_of(loop_of(work))
    assert drawn.mean_elements == whole.mean_elements
    assert not drawn.varies
    assert [t.shape for t in tensors_in(drawn.typical)] == [
        t.shape for t in tensors_in(whole.typical)
    ]
    assert drawn.typical[0]["name"] == whole.typical[0]["name"]


def test_an_evaluation_batch_is_no_larger_than_its_data():
    work = classifying(Counted(), eval_data=Subset(Counted(), range(100)), batch_size=2000)
    for sizes_alone in (True, False):
        inputs, labels = largest_eval_batch(loop_of(work), sizes_alone=sizes_alone)
        assert len(labels) == len(inputs["x"]) == len(inputs["name"]) == 100
