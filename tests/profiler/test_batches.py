"""Where the tensors of a batch are, and what a copy of it has."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from counted_steps import assert_same, real_footprint
from torch import nn
from torch.utils.data import TensorDataset

from epochcast.profiler.batches import copied, elements, move, tensors_in
from epochcast.profiler.footprint.dry_run import simulate
from epochcast.profiler.footprint.tracker import measure_footprint
from epochcast.profiler.loop import TrainingLoop, config_of
from epochcast.profiler.workload import Workload

CPU = torch.device("cpu")


class Movable:
    """An object of another library."""

    def __init__(self, x, other=None):
        self.x, self.other = x, other

    def to(self, device):
        self.x = self.x.to(device)
        return self


class InPlace(Movable):
    def to(self, device):
        self.x = self.x.to(device)


class Slotted:
    __slots__ = ("x",)

    def __init__(self, x):
        self.x = x

    def to(self, device):
        return Slotted(self.x.to(device))


@dataclass
class Node:
    x: torch.Tensor
    other: object = None


class Pair(list):
    def __init__(self, first, second):
        super().__init__([first, second])


class Twice(tuple):
    def __new__(cls, first, second):
        return super().__new__(cls, (first, second))


def cyclic(kind):
    made = kind(torch.ones(3))
    made.other = kind(torch.ones(2), other=[made])
    return made


@pytest.mark.filterwarnings("ignore:Sparse CSR")
@pytest.mark.parametrize(
    ("make", "count"),
    [
        (lambda: cyclic(Movable), 5),
        (lambda: cyclic(Node), 5),
        (lambda: InPlace(torch.ones(3)), 3),
        (lambda: Slotted(torch.ones(3)), 3),
        (lambda: Pair(torch.ones(3), torch.ones(2)), 5),
        (lambda: Twice(torch.ones(3), torch.ones(2)), 5),
        (lambda: torch.ones(3, 2).max(dim=0), 4),
        (lambda: torch.ones(3, 3).to_sparse_csr(), 9),
        (lambda: torch.ones(3, 3).to_sparse_coo(), 9),
        (lambda: Movable(torch.ones(3), nn.Linear(2, 2)), 3),
        (lambda: torch.ones(3, requires_grad=True), 3),
        (lambda: nn.Parameter(torch.ones(3)), 3),
    ],
)
def test_a_copy_is_like_its_batch_in_memory_of_its_own(make, count):
    batch = make()
    alike = copied(batch)
    assert type(alike) in (type(batch), torch.Tensor)
    assert elements(batch) == elements(alike) == elements(move(batch, CPU)) == count
    pairs = list(zip(tensors_in(batch), tensors_in(alike), strict=True))
    assert not any(old is new for old, new in pairs)
    assert all(old.requires_grad == new.requires_grad for old, new in pairs)


def test_a_copy_holds_itself_where_its_batch_does_and_no_copy_of_a_model():
    node, model = cyclic(Node), nn.Linear(2, 2)
    again = copied(node)
    assert again.other.other[0] is again
    assert copied(Movable(torch.ones(1), model)).other is model


def of_the_inputs(inputs=True):
    """The square of the gradient of what a model makes of a point (Raissi et al. 2019)."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))

    def forward(model, x):
        outputs = model(x)
        if not inputs:
            return outputs.mean()
        (slopes,) = torch.autograd.grad(outputs.sum(), x, create_graph=True)
        return (slopes**2).mean()

    return Workload(
        model=model,
        train_data=TensorDataset(torch.randn(8, 2)),
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        collate=lambda points: torch.cat([x[None] for (x,) in points]).requires_grad_(),
        forward=forward,
        batch_size=4,
    )


@pytest.mark.parametrize("inputs", [True, False])
def test_gradients_of_a_batch_are_counted(inputs):
    def build():
        return of_the_inputs(inputs)

    (found,) = simulate(build, timeline=True)
    assert_same(found.footprint, real_footprint(build))
    if not inputs:  # of both layers: forward, of weights, of inputs
        assert found.footprint.flops == 3 * 2 * 4 * (2 * 8 + 8)


@pytest.mark.filterwarnings("ignore:Sparse CSR")
def test_a_graph_in_compressed_rows_is_counted():
    def build():
        model = nn.Linear(5, 2)
        graph = torch.eye(6).to_sparse_csr()
        return Workload(
            model=model,
            train_data=[graph] * 3,
            batch_from_data=True,
            batch_size=1,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
            forward=lambda model, graph: (graph @ model(torch.ones(6, 5))).mean(),
        )

    work, (found,) = build(), simulate(build)
    loop = TrainingLoop(work, config_of(work, None, ()), CPU)
    assert measure_footprint(loop).flops == found.footprint.flops > 0
