"""The loop does what a careful plain PyTorch loop does, and nothing else."""

from __future__ import annotations

from collections import OrderedDict, UserDict, namedtuple
from copy import deepcopy
from dataclasses import dataclass
from types import MappingProxyType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from torch.utils.data import SequentialSampler, SubsetRandomSampler, TensorDataset

from epochcast.errors import WorkloadError
from epochcast.profiler.batches import mapped, move, tensors_in
from epochcast.profiler.device import HostTimer
from epochcast.profiler.loop import TrainingLoop, config_of
from epochcast.profiler.workload import Workload

CPU = torch.device("cpu")
Pair = namedtuple("Pair", "x y")


def data_of(samples, inputs=6, outputs=3):
    generator = torch.Generator().manual_seed(samples)
    return TensorDataset(
        torch.randn(samples, inputs, generator=generator),
        torch.randn(samples, outputs, generator=generator),
    )


def workload_of(samples=24, model=None, **options):
    torch.manual_seed(0)
    model = model or nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    steps = {"loss", "forward", "train_step"} & set(options)
    return Workload(
        **{
            "model": model,
            "train_data": data_of(samples),
            "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
            "batch_size": 4,
            **({} if steps else {"loss": functional.mse_loss}),
            **options,
        }
    )


def loop_of(**options):
    workload = workload_of(**options)
    return TrainingLoop(workload, config_of(workload, None, ()), CPU)


def weights(loop):
    return torch.cat([p.detach().flatten() for p in loop.workload.model.parameters()])


# -- accumulation -------------------------------------------------------------------------------


@given(
    accumulation=st.integers(1, 6),
    micro_batch=st.integers(1, 5),
    optimizer=st.sampled_from((torch.optim.SGD, torch.optim.Adam, torch.optim.RMSprop)),
    updates=st.integers(1, 3),
)
@settings(max_examples=25, deadline=None)
def test_accumulation_equals_one_large_batch(accumulation, micro_batch, optimizer, updates):
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    small, large = (
        loop_of(model=m, optimizer=optimizer(m.parameters()), accumulation=k)
        for m, k in ((deepcopy(model), accumulation), (deepcopy(model), 1))
    )
    data = data_of(accumulation * micro_batch)
    micro = zip(*(t.split(micro_batch) for t in data.tensors), strict=True)
    for number, batch in enumerate(list(micro) * updates, start=1):
        updates_made = small.micro_step(batch, HostTimer())
        assert len(updates_made) == (number % accumulation == 0)
    for _ in range(updates):
        assert len(large.micro_step(data.tensors, HostTimer())) == 1
    assert torch.allclose(weights(small), weights(large), atol=1e-5)


def test_gradients_are_freed_by_an_update():
    loop = loop_of(accumulation=2)
    batch = data_of(4).tensors
    loop.micro_step(batch, HostTimer())
    assert all(p.grad is not None for p in loop.model.parameters())
    loop.micro_step(batch, HostTimer())
    assert all(p.grad is None for p in loop.model.parameters())


# -- precision ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)],
)
def test_the_forward_pass_sees_the_precision(precision, dtype):
    seen = []

    def loss(outputs, targets):
        seen.append(outputs.dtype)
        return functional.mse_loss(outputs.float(), targets)

    loop = loop_of(precision=precision, loss=loss)
    loop.micro_step(data_of(4).tensors, HostTimer())
    loop.evaluate(data_of(4).tensors)
    assert seen == [dtype, dtype]
    assert all(p.dtype == torch.float32 for p in loop.model.parameters())


def test_fp16_scales_the_loss_and_unscales_the_gradients():
    batch = data_of(4).tensors
    scaled, plain = loop_of(precision="fp16"), loop_of()
    assert scaled._scaler.is_enabled()
    assert not plain._scaler.is_enabled()
    scaled.backward(batch)
    plain.backward(batch)
    ratio = scaled.model[0].weight.grad / plain.model[0].weight.grad
    assert ratio.median() == pytest.approx(scaled._scaler.get_scale(), rel=0.1)
    scaled.update()
    plain.update()
    assert torch.allclose(weights(scaled), weights(plain), atol=1e-2)


# -- what a step is -----------------------------------------------------------------------------


def test_an_own_forward_takes_any_batch():
    def forward(model, batch):
        return functional.mse_loss(model(batch["x"]), batch["y"])

    loop = loop_of(forward=forward)
    before = weights(loop)
    x, y = data_of(4).tensors
    loop.micro_step({"x": x, "y": y}, HostTimer())
    assert not torch.equal(before, weights(loop))


def test_an_own_train_step_does_everything_itself():
    seen = []
    loop = loop_of(train_step=seen.append)
    before = weights(loop)
    batch = data_of(4).tensors
    assert loop.micro_step(batch, HostTimer()) == []
    assert loop.micro_step(batch, HostTimer()) == []
    assert len(seen) == 2
    assert torch.equal(before, weights(loop))
    with pytest.raises(WorkloadError, match="no separate loss"):
        loop.loss(batch)


@pytest.mark.parametrize(
    "asked", [{"precision": "bf16"}, {"accumulation": 2}, {"compile": True}], ids=str
)
def test_what_an_own_train_step_would_not_apply_is_refused(asked):
    (name,) = asked
    with pytest.raises(
        WorkloadError, match=f"^{name}=.* would not be applied: train_step"
    ) as error:
        workload_of(train_step=print, **asked)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("batch", [torch.zeros(3, 6), {"x": 1}, 3, (1, 2, 3)])
def test_a_loss_needs_pairs(batch):
    with pytest.raises(WorkloadError, match=r"needs batches \(inputs, targets\).*use forward="):
        loop_of().loss(batch)


class Named(nn.Module):
    """Returns its outputs by name, as models of other libraries do."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(6, 3)

    def forward(self, x):
        return {"logits": self.net(x)}


def mistaken(outputs, targets):
    raise TypeError("a mistake")


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (
            {"model": Named(), "loss": mistaken},
            r"loss= fails at test_loop\.py, line \d+ \(TypeError: a mistake\); .* given dict: if",
        ),
        ({"model": Named()}, r"model returns dict, of which loss= makes .*give forward=lambda"),
        ({"forward": lambda m, b: m(b[0]).sum().item()}, r"returned a number; leave out \.item"),
        ({"forward": lambda m, b: m(b[0])}, r"shape \(4, 3\); take its \.mean"),
        ({"forward": lambda m, b: {"loss": m(b[0]).sum()}}, r"returned dict; return its \['loss"),
    ],
    ids=["mistake", "outputs", "number", "vector", "dict"],
)
def test_what_is_no_loss_is_said_with_what_to_do(made, message):
    loop = loop_of(**made)
    with pytest.raises(WorkloadError, match=message):
        loop.backward(next(iter(loop.train_loader())))


def wrapped(model):
    """As ``torch.compile`` returns it."""
    wrapper = nn.Sequential()
    wrapper._orig_mod = model
    return wrapper


def in_place(model):
    model._compiled_call_impl = model._call_impl
    return model


@pytest.mark.parametrize("compiled", [wrapped, in_place, lambda m: nn.Sequential(in_place(m))])
def test_what_is_compiled_already_is_not_compiled_again(compiled, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda _: pytest.fail("compiled again"))
    model = compiled(nn.Linear(6, 3))
    loop = loop_of(model=model)
    assert loop.config.compiled
    assert loop.model is model
    assert not loop_of().config.compiled


def test_a_frozen_part_stays():
    model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3))
    model[0].requires_grad_(False)
    loop = loop_of(model=model, optimizer=torch.optim.SGD(model[1].parameters(), lr=0.1))
    before = model[0].weight.clone(), model[1].weight.clone()
    loop.micro_step(data_of(4).tensors, HostTimer())
    assert torch.equal(before[0], model[0].weight)
    assert not torch.equal(before[1], model[1].weight)


def test_the_model_is_put_into_training_mode():
    model = nn.Sequential(nn.Linear(6, 3), nn.Dropout()).eval()
    assert loop_of(model=model).model.training


# -- an optimizer that evaluates the loss itself ------------------------------------------------


@pytest.mark.parametrize("accumulation", [1, 3])
def test_an_optimizer_with_a_closure_does_as_in_a_loop_of_ones_own(accumulation):
    """Over all micro-batches since the last update, each at its share."""
    loop = loop_of(
        model=(model := nn.Sequential(nn.Linear(6, 3))),
        optimizer=torch.optim.LBFGS(model.parameters()),
        accumulation=accumulation,
    )
    own = deepcopy(model)
    optimizer = torch.optim.LBFGS(own.parameters())
    x, y = data_of(4 * accumulation).tensors

    def closure():
        optimizer.zero_grad()
        loss = functional.mse_loss(own(x), y)
        loss.backward()
        return loss

    for _ in range(2):
        optimizer.step(closure)
        for batch in zip(x.split(4), y.split(4), strict=True):
            assert loop.micro_step(batch, HostTimer()) == []
    ours = torch.cat([p.detach().flatten() for p in own.parameters()])
    assert torch.allclose(weights(loop), ours, atol=1e-5)
    assert not loop.splits_update
    assert loop_of().splits_update


def test_a_gradient_scaler_cannot_step_such_an_optimizer():
    model = nn.Linear(6, 3)
    with pytest.raises(WorkloadError, match=r"^LBFGS evaluates the loss itself.*use bf16 or fp32$"):
        loop_of(model=model, optimizer=torch.optim.LBFGS(model.parameters()), precision="fp16")


# -- evaluation ---------------------------------------------------------------------------------


def test_evaluation_computes_the_loss_without_gradients():
    seen = []

    def loss(outputs, targets):
        seen.append((outputs.requires_grad, torch.is_grad_enabled()))
        return functional.mse_loss(outputs, targets)

    loop = loop_of(loss=loss, eval_data=data_of(8))
    loop.evaluate(next(iter(loop.eval_loader())))
    assert seen == [(False, False)]
    assert torch.is_grad_enabled()


def test_an_own_evaluation_step():
    seen = []
    loop = loop_of(
        train_step=print, eval_data=data_of(8), eval_step=lambda b: seen.append(len(b[0]))
    )
    loop.evaluate(next(iter(loop.eval_loader())))
    assert seen == [4]


def test_no_evaluation_data_no_loader():
    assert loop_of().eval_loader() is None


def test_evaluation_is_in_order_whatever_the_training_sampler():
    data = data_of(6)
    sampler = SubsetRandomSampler(range(4))
    loop = loop_of(samples=8, eval_data=data, loader_options={"sampler": sampler})
    seen = torch.cat([x for x, _ in loop.eval_loader()])
    assert torch.equal(seen, data.tensors[0])


# -- loaders ------------------------------------------------------------------------------------


@given(samples=st.integers(1, 40), batch_size=st.integers(1, 12), drop_last=st.booleans())
@settings(deadline=None)
def test_probing_draws_full_batches_only(samples, batch_size, drop_last):
    loop = loop_of(samples=samples, batch_size=batch_size, drop_last=drop_last)
    sizes = [len(x) for x, _ in loop.train_loader()]
    assert sizes == [batch_size] * (samples // batch_size)
    assert loop.config.drop_last == drop_last


@given(samples=st.integers(1, 20), drawn=st.integers(1, 20))
@settings(deadline=None)
def test_a_sampler_says_how_long_an_epoch_is(samples, drawn):
    workload = workload_of(samples=max(samples, drawn))
    assert workload.samples_per_epoch == max(samples, drawn)
    sampler = SequentialSampler(range(drawn))
    workload = workload_of(samples=max(samples, drawn), loader_options={"sampler": sampler})
    assert workload.samples_per_epoch == drawn


def test_shuffle_and_order():
    data = data_of(64)
    ordered = loop_of(train_data=data, shuffle=False).train_loader()
    shuffled = loop_of(train_data=data).train_loader()
    assert torch.equal(torch.cat([x for x, _ in ordered]), data.tensors[0])
    assert not torch.equal(torch.cat([x for x, _ in shuffled]), data.tensors[0])


def test_the_users_collate_and_loader_options_are_used():
    loop = loop_of(collate=len, loader_options={"pin_memory": False})
    assert list(loop.train_loader()) == [4] * 6


@pytest.mark.parametrize(
    ("option", "instead"),
    [
        ({"batch_sampler": [[0, 1]]}, "batch_from_data=True .* a sampler"),
        ({"batch_size": None}, r"batch_size= \(and batch_from_data=True where .*\)"),
        ({"shuffle": False}, "shuffle="),
        ({"collate_fn": len}, "collate="),
        ({"dataset": []}, "train_data="),
    ],
    ids=lambda value: str(next(iter(value))) if isinstance(value, dict) else "",
)
def test_loader_options_that_would_be_in_conflict_are_refused(option, instead):
    (name,) = option
    message = f"^'{name}' in loader_options is in the way .* give the Workload {instead} instead$"
    with pytest.raises(WorkloadError, match=message):
        workload_of(loader_options=option)


def test_drop_last_among_the_loader_options_is_the_trainings():
    loop = loop_of(samples=10, eval_data=data_of(6), loader_options={"drop_last": True})
    assert loop.config.drop_last
    assert loop.partial_batch() is None
    assert [len(x) for x, _ in loop.eval_loader()] == [4, 2]


@given(samples=st.integers(4, 20), evaluated=st.integers(1, 20))
@settings(deadline=None)
def test_batches_of_every_size_that_a_run_has(samples, evaluated):
    loop = loop_of(samples=samples, eval_data=data_of(evaluated))
    partial = loop.partial_batch()
    assert (0 if partial is None else len(partial[0])) == samples % 4
    sizes = [len(x) for x, _ in loop.eval_batches_of_each_size()]
    assert sizes == sorted({len(x) for x, _ in loop.eval_loader()}, reverse=True)
    assert loop_of().eval_batches_of_each_size() == []


@given(
    batch_size=st.none() | st.integers(1, 9),
    accumulation=st.integers(1, 4),
    precision=st.sampled_from(("fp32", "bf16", "fp16")),
    workers=st.integers(0, 3),
    drop_last=st.booleans(),
)
@settings(deadline=None)
def test_the_configuration_is_that_of_the_workload(batch_size, workers, **options):
    workload = workload_of(loader_options={"num_workers": workers}, **options)
    config = config_of(workload, batch_size, (("width", 3),))
    assert config.batch_size == (batch_size or 4)
    assert config.workers == workers
    assert config.sizes == (("width", 3),)
    for name, value in options.items():
        assert getattr(config, name) == value


# -- move ---------------------------------------------------------------------------------------

META = torch.device("meta")  # a device that needs no hardware


class Graph:
    """Has a ``to`` of its own, as the batches of other libraries do."""

    def __init__(self, x):
        self.x = x

    def to(self, device, non_blocking=False):
        return Graph(self.x.to(device, non_blocking=non_blocking))


class Plain(Graph):
    """Its method takes a device alone."""

    def to(self, device):
        return Plain(self.x.to(device))


@dataclass(frozen=True)
class Fields:
    x: object
    name: str = ""


class Attributes(dict):
    """Keys as attributes, so that any question for one is a question for a key."""

    __getattr__ = dict.__getitem__


leaves = st.one_of(
    st.builds(torch.zeros, st.integers(0, 3)),
    st.builds(Plain, st.builds(torch.zeros, st.integers(0, 3))),
    st.builds(Graph, st.builds(torch.zeros, st.integers(0, 3))),
    st.integers(),
    st.text(max_size=3),
    st.none(),
)
batches = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.text(max_size=2), inner, max_size=3),
        st.dictionaries(st.text(max_size=2), inner, max_size=3).map(Attributes),
        st.tuples(inner, inner).map(lambda pair: Pair(*pair)),
        st.builds(Fields, inner),
    ),
    max_leaves=8,
)


def same_but_moved(before, after):
    if isinstance(before, torch.Tensor):
        return after.device == META and after.shape == before.shape
    if isinstance(before, Graph | Fields):
        return type(before) is type(after) and same_but_moved(before.x, after.x)
    if type(before) is not type(after):
        return False
    if isinstance(before, dict):
        return before.keys() == after.keys() and all(
            same_but_moved(before[key], after[key]) for key in before
        )
    if isinstance(before, tuple | list):
        return len(before) == len(after) and all(map(same_but_moved, before, after))
    return before is after or before == after


@given(batches, st.booleans())
def test_move_reaches_every_tensor_and_keeps_the_structure(batch, non_blocking):
    assert same_but_moved(batch, move(batch, META, non_blocking))


@given(batches)
def test_a_copy_has_other_tensors_wherever_there_are_some(batch):
    copied = mapped(batch, lambda tensor: tensor.to(META))
    assert same_but_moved(batch, copied)
    assert [t.shape for t in tensors_in(copied)] == [t.shape for t in tensors_in(batch)]
    assert all(tensor.device == META for tensor in tensors_in(copied))


@pytest.mark.parametrize("kind", [OrderedDict, UserDict, MappingProxyType])
def test_other_mappings_are_moved_too(kind):
    moved = move(kind({"x": [torch.zeros(2)]}), META)
    assert moved["x"][0].device == META
