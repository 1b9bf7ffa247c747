"""Branches of a real step, under a mode: blocks beside those of the profiler, and equal values."""

from __future__ import annotations

import pytest
import torch
from counted_steps import largest_sum, memory_events
from torch import nn
from torch.nn import functional

from epochcast.profiler.footprint.tracker import OperatorTracker

SIDE, SMALL = 64, 1000  # a block has 64² floats; what has fewer bytes is not looked at
INDICES = torch.arange(SIDE)
TARGETS = torch.linspace(0, 1, SIDE * SIDE).view(SIDE, SIDE)
BIAS, WEIGHT = torch.zeros(SIDE), torch.eye(SIDE)


def scattered(x):
    """Of three axes, and not dense: a linear layer multiplies first and adds then."""
    return functional.linear(x.view(4, 16, SIDE).transpose(0, 1), WEIGHT, BIAS)


STEPS = {
    "largest of each row": lambda x: x.max(1)[0].sum(),
    "sorted": lambda x: x.sort(1)[0].sum(),
    "running maximum": lambda x: x.cummax(1)[0].sum(),
    "indexed": lambda x: x[INDICES[:5]].sum(),
    "gathered": lambda x: x.gather(1, INDICES.expand(SIDE, SIDE)).sum(),
    "selected": lambda x: x.index_select(0, INDICES[:9]).sum(),
    "taken": lambda x: x.take(INDICES[:9]).sum(),
    "trace": lambda x: x.trace(),
    "used three times": lambda x: (x * 2 + x * 3 + x * 4).sum(),
    "residual": lambda x: ((y := x * 1).tanh() + y).sum(),
    "a bias by itself": lambda x: scattered(x).sum(),
    "masked attention": lambda x: torch._scaled_dot_product_attention_math(
        *3 * [x.view(1, 4, 16, SIDE)], attn_mask=TARGETS[:16, :16]
    )[0].sum(),
    "clamped": lambda x: x.clamp(TARGETS, TARGETS + 1).sum(),
}


def tracked(function, x):
    tracker = OperatorTracker("cpu")
    tracker.memory.watch([x, WEIGHT, BIAS, TARGETS], "parameter")
    known = len(tracker.memory.events)
    with tracker:
        function()
    sizes = tracker.memory._bytes
    return [
        sizes[event - 1] if event > 0 else -sizes[-event - 1]
        for event in tracker.memory.events[known:]
    ]


def large(sizes):
    return sorted(size for size in sizes if size > SMALL)


@pytest.mark.parametrize("name", STEPS)
def test_no_block_is_made_that_a_real_step_does_not_make(name):
    x = torch.linspace(-1, 1, SIDE * SIDE).view(SIDE, SIDE).requires_grad_()

    def step():
        STEPS[name](x).backward()

    real = memory_events(step)
    x.grad = None
    counted = tracked(step, x)
    missing = large(real)
    for size in large(counted):
        assert size in missing
        missing.remove(size)
    assert largest_sum(counted) <= largest_sum(real) + SMALL


def test_what_python_holds_is_not_changed():
    x = torch.ones(4, SIDE, requires_grad=True)
    with OperatorTracker("cpu"):
        product = x @ WEIGHT
        total = product + BIAS + 1
        twice = (x @ WEIGHT).add(BIAS)
    assert torch.equal(product, x)
    assert torch.equal(total, x + 1)
    assert torch.equal(twice, x)


def test_a_backward_pass_of_ones_own_is_left_alone():
    kept = torch.zeros(3)

    class Own(torch.autograd.Function):
        @staticmethod
        def forward(context, x):
            return x * 1

        @staticmethod
        def backward(context, gradient):
            return torch.scatter(kept, 0, torch.arange(3), gradient)

    x = torch.ones(3, requires_grad=True)
    with OperatorTracker("cpu"):
        Own.apply(x).sum().backward()
    assert torch.equal(kept, torch.zeros(3))
    assert torch.equal(x.grad, torch.ones(3))


def test_gradients_are_those_of_a_real_step():
    torch.manual_seed(0)
    model = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
    x, goal, weights = torch.randn(3, 5, 16), torch.ones(3, 80), torch.full((80,), 2.0)

    def gradients():
        model.zero_grad()
        out = model(x)
        loss = functional.binary_cross_entropy_with_logits(out.flatten(1), goal, pos_weight=weights)
        (loss + out.max(1)[0].square().sum()).backward()
        return [p.grad.clone() for p in model.parameters()]

    real = gradients()
    with OperatorTracker("cpu"):
        counted = gradients()
    for a, b in zip(real, counted, strict=True):
        torch.testing.assert_close(a, b)
