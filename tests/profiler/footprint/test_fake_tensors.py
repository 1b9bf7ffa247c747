"""Fake tensors: what they answer where values are asked for, and what CPU kernels return."""

from __future__ import annotations

import pytest
import torch
from counted_steps import assert_same, counted, real_footprint, workload_of
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException
from torch.nn import functional
from torch.utils.data import TensorDataset

from epochcast.profiler.footprint.dry_run import simulate
from epochcast.profiler.footprint.fake_tensors import AFTER, StandIns, fake_mode
from epochcast.profiler.workload import Workload

aten = torch.ops.aten


def test_a_gradient_scaler_finds_no_infinities():
    def build():
        torch.manual_seed(0)
        model = nn.Linear(4, 3)
        return workload_of(model, loss=lambda y, _: 1e-4 * y.mean(), precision="fp16")

    assert_same(counted(build), real_footprint(build))


@pytest.mark.parametrize("foreach", [False, True])
def test_radam_is_counted_as_in_the_steps_of_a_long_run(foreach):
    """From its sixth step on RAdam divides by the second moment too; nearly all steps do."""

    def build():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
        return workload_of(model, optimizer=torch.optim.RAdam(model.parameters(), foreach=foreach))

    fake = counted(build)
    assert_same(fake, real_footprint(build, updates=8))
    early = real_footprint(build, updates=2)
    assert foreach or fake.update_operators > early.update_operators


def test_batches_whose_tensors_share_a_storage():
    """As of a text and the same text shifted by one."""

    def collate(items):
        text = torch.stack([tokens for tokens, _ in items])
        return text[:, :-1], text[:, 1:]

    def build():
        model = nn.Sequential(nn.Embedding(32, 8), nn.Linear(8, 32))
        loss = lambda y, targets: functional.cross_entropy(y.transpose(1, 2), targets)  # noqa: E731
        data = torch.arange(32).view(8, 4)
        return workload_of(model, loss=loss, data=data, collate=collate, accumulation=2)

    fake = counted(build)
    assert_same(fake, real_footprint(build))
    assert fake.batch_elements == 2 * 4 * 3
    inputs = [
        size
        for size, kind in zip(fake.timeline.block_bytes, fake.timeline.block_kinds, strict=True)
        if kind == "input"
    ]
    assert inputs == [4 * 4 * 8, 4 * 4 * 8]  # of two micro-steps, int64


class Bags(nn.Module):
    def __init__(self, mode, sparse):
        super().__init__()
        self.bag = nn.EmbeddingBag(96, 8, mode=mode, sparse=sparse)

    def forward(self, tokens):
        return self.bag(tokens)


@pytest.mark.parametrize(
    ("mode", "optimizer"),
    [
        ("mean", torch.optim.SparseAdam),
        ("sum", torch.optim.SparseAdam),
        ("mean", torch.optim.SGD),
        ("sum", torch.optim.SGD),
        ("max", torch.optim.Adam),
    ],
)
def test_bags_of_embeddings(mode, optimizer):
    """Once 8 bytes short, and without entries in the gradient of a sum."""

    def build():
        model = Bags(mode, sparse=optimizer is not torch.optim.Adam)
        tokens = torch.arange(96).reshape(24, 4)
        return Workload(
            model=model,
            train_data=TensorDataset(tokens),
            optimizer=optimizer(model.parameters(), lr=0.1),
            forward=lambda model, batch: model(batch[0]).sum(),
            batch_size=4,
        )

    (fake,) = simulate(build, timeline=True)
    assert_same(fake.footprint, real_footprint(build))


# -- operators alone ------------------------------------------------------------------------------


def layout(out):
    """What a footprint sees of results: types, shapes, strides and bytes."""
    return [
        None
        if tensor is None
        else (tensor.dtype, tensor.shape, tensor.stride(), tensor.untyped_storage().nbytes())
        for tensor in out
    ]


def image(dtype, memory_format):
    return torch.ones(2, 8, 3, 3, dtype=dtype).to(memory_format=memory_format)


FORMATS = (torch.contiguous_format, torch.channels_last)


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("operator", "arguments"),
    [
        (aten.native_batch_norm.default, (True, 0.1, 1e-5)),
        (aten.native_group_norm.default, (2, 8, 9, 4, 1e-5)),
    ],
    ids=["batch", "group"],
)
def test_normalisation_returns_what_its_kernel_returns(operator, arguments, dtype, memory_format):
    """Of parameters in float32, as under autocast, and of inputs in any precision and layout."""
    x, ones = image(dtype, memory_format), torch.ones(8)
    parameters = (ones, ones)
    if operator is aten.native_batch_norm.default:
        parameters = (ones, ones, ones.clone(), ones.clone())
    assert operator in AFTER
    real = operator(x, *parameters, *arguments)
    with StandIns(fake_mode()).on():
        assert layout(operator(x, *parameters, *arguments)) == layout(real)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_layers_are_normalised_in_the_precision_of_their_weights(dtype):
    arguments = (torch.ones(4, 6, dtype=dtype), [6], torch.ones(6), torch.ones(6), 1e-5)
    real = aten.native_layer_norm.default(*arguments)
    with StandIns(fake_mode()).on():
        assert layout(aten.native_layer_norm.default(*arguments)) == layout(real)


def test_a_real_tensor_has_one_fake_and_a_batch_its_own():
    stand_ins, real = StandIns(fake_mode()), torch.ones(3)
    assert stand_ins.fake(real) is stand_ins.fake(real)
    first, second = stand_ins.fresh((real, real[1:]))
    assert first.untyped_storage()._cdata == second.untyped_storage()._cdata
    assert stand_ins.fresh(real).untyped_storage()._cdata != first.untyped_storage()._cdata


def test_values_are_refused_but_for_an_optimizer_that_updates():
    parameter = nn.Parameter(torch.ones(2))

    class Asking(torch.optim.SGD):
        def step(self, closure=None):
            closure()
            asked.append(number.item())
            super().step()

    optimizer = Asking([parameter])
    asked, of_closure = [], []
    with StandIns(fake_mode()).on():
        number = torch.ones(())
        with pytest.raises(DataDependentOutputException):
            float(number)
        assert repr(number.item()) == "?"
        optimizer.step(lambda: of_closure.append(repr(number.item())))
        assert of_closure == ["?"]  # the evaluation's own
    assert asked == [1000.0]


LOSSES = {
    functional.mse_loss: (torch.randn, torch.randn),
    functional.l1_loss: (torch.randn, torch.randn),
    functional.smooth_l1_loss: (torch.randn, torch.randn),
    functional.huber_loss: (torch.randn, torch.randn),
    functional.binary_cross_entropy_with_logits: (torch.randn, torch.rand),
    functional.binary_cross_entropy: (torch.rand, torch.rand),
    functional.soft_margin_loss: (torch.randn, torch.rand),
    functional.kl_div: (torch.randn, torch.rand),
    functional.multilabel_soft_margin_loss: (torch.randn, torch.rand),
}


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__)
def test_a_loss_is_in_a_block_of_its_real_size(loss, reduction):
    inputs, targets = (make(6, 5) for make in LOSSES[loss])
    real = loss(inputs, targets, reduction=reduction)
    mode = fake_mode()
    stand_ins = StandIns(mode)
    with stand_ins.on():
        fake = loss(stand_ins.fake(inputs), stand_ins.fake(targets), reduction=reduction)
    assert (fake.shape, fake.dtype) == (real.shape, real.dtype)
    assert fake.untyped_storage().nbytes() == real.untyped_storage().nbytes()
