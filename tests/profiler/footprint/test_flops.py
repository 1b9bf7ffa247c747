"""FLOPs of operators: closed forms written out, and what has no formula is named."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from counted_steps import counted, footprint_of, workload_of
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from epochcast.profiler.footprint.flops import alignment, class_of, is_uncounted

aten = torch.ops.aten

# A product of matrices m×k and k×n takes 2·m·k·n: a multiply and an add for each (Golub & Van Loan,
# Matrix Computations, section 1.1). Backward makes two such products per layer, for the gradient of
# the weight and of the input, and only the first one where the input needs no gradient.


def whole(dimension):
    return -(-dimension // 8) * 8


@given(
    batch=st.integers(1, 20),
    widths=st.lists(st.integers(1, 20), min_size=2, max_size=5),
)
@settings(max_examples=20, deadline=None)
def test_flops_of_an_mlp(batch, widths):
    layers = list(pairwise(widths))
    model = nn.Sequential(*(nn.Linear(a, b) for a, b in layers))
    footprint = footprint_of(model, torch.randn(batch, widths[0]), torch.randn(batch, widths[-1]))
    forward = sum(2 * batch * a * b for a, b in layers)
    first = 2 * batch * widths[0] * widths[1]
    assert footprint.flops == 3 * forward - first
    # right operands: forward Wᵀ (a×b), the weight's gradient x (B×a), the input's gradient W (b×a)
    aligned = sum(2 * batch * whole(a) * whole(b) for a, b in layers)
    aligned += sum(2 * b * whole(batch) * whole(a) for a, b in layers)
    aligned += sum(2 * batch * whole(b) * whole(a) for a, b in layers[1:])
    assert footprint.aligned_flops == pytest.approx(aligned, abs=len(layers) * 3)
    assert footprint.parameters == sum(a * b + b for a, b in layers)
    assert footprint.trainable_parameters == footprint.parameters
    assert footprint.uncounted_operators == ()


@given(
    batch=st.integers(1, 3),
    groups=st.integers(1, 4),
    per_group=st.integers(1, 3),
    kernel=st.sampled_from((1, 3)),
    stride=st.sampled_from((1, 2)),
    transposed=st.booleans(),
)
@settings(max_examples=20, deadline=None)
def test_flops_of_convolutions(batch, groups, per_group, kernel, stride, transposed):
    """2·positions·k²·(channels in)·(channels out)/groups, thrice for a layer inside a network."""
    channels = groups * per_group
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    inner = kind(channels, channels, kernel, stride=stride, groups=groups, bias=False)
    model = nn.Sequential(nn.Conv2d(channels, channels, 1, bias=False), inner, nn.Flatten())
    inputs = torch.randn(batch, channels, 7, 7)
    targets = torch.zeros_like(model(inputs))
    footprint = footprint_of(model, inputs, targets)
    first = 2 * batch * 49 * channels**2
    output_side = (7 - kernel) // stride + 1
    positions = 49 if transposed else output_side**2  # each is multiplied with the whole kernel
    second = 2 * batch * positions * kernel**2 * channels * per_group
    assert footprint.flops == 2 * first + 3 * second


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_channels_of_a_convolution_count_in_whole_steps(kind):
    def of(channels):
        model = nn.Sequential(nn.Conv2d(16, channels, 1), kind(channels, 16, 3), nn.Flatten())
        inputs = torch.randn(2, 16, 7, 7)
        return footprint_of(model, inputs, torch.zeros_like(model(inputs)))

    assert of(12).aligned_flops == of(16).aligned_flops == of(16).flops > of(12).flops


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
@pytest.mark.parametrize(
    ("per_group", "grows"),
    [(1, 16 / 12), (2, 16 / 12 * 8 / 2), (6, 16 / 12 * 8 / 6), (12, 16 / 12 * 16 / 12)],
)
def test_channels_with_a_filter_of_their_own_are_rounded_together(kind, per_group, grows):
    """Twelve channels count as sixteen; those of a group as whole steps, unless it has but one."""
    inputs = torch.randn(2, 12, 7, 7)
    model = nn.Sequential(kind(12, 12, 3, groups=12 // per_group), nn.Flatten())
    footprint = footprint_of(model, inputs, torch.zeros_like(model(inputs)))
    assert footprint.aligned_flops == pytest.approx(footprint.flops * grows, abs=2)


class Attention(nn.Module):
    """Causal self-attention alone, on queries, keys and values that are parameters times inputs."""

    def __init__(self, heads: int, width: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, nn.Parameter(torch.ones(3))

    def forward(self, inputs):
        batch, length, width = inputs.shape
        split = inputs.view(batch, length, self.heads, width // self.heads).transpose(1, 2)
        query, key, value = (split * scale for scale in self.scale)
        return functional.scaled_dot_product_attention(query, key, value, is_causal=True)


@given(
    batch=st.integers(1, 2),
    heads=st.integers(1, 3),
    length=st.integers(2, 9),
    depth=st.integers(1, 8),
)
@settings(max_examples=10, deadline=None)
def test_flops_of_attention_on_a_cpu(batch, heads, length, depth):
    """Forward QKᵀ and PV; backward dV, dP, dQ, dK and QKᵀ once more (Dao 2022, algorithm 4).

    Counted as if nothing were masked, as torch does for the other attention kernels.
    """
    inputs = torch.randn(batch, length, heads * depth)
    targets = torch.zeros(batch, heads, length, depth)
    footprint = footprint_of(Attention(heads, heads * depth), inputs, targets)
    product = 2 * batch * heads * length * length * depth
    assert footprint.flops == (2 + 5) * product
    assert footprint.aligned_flops == pytest.approx((2 + 5) * product * 8 / depth, abs=2)
    assert footprint.uncounted_operators == ()


def test_flops_are_per_micro_step():
    inputs, targets = torch.randn(4, 6), torch.randn(4, 3)
    once = footprint_of(nn.Linear(6, 3), inputs, targets)
    thrice = footprint_of(nn.Linear(6, 3), inputs, targets, accumulation=3)
    assert thrice.flops == once.flops == 2 * (2 * 4 * 6 * 3)
    assert thrice.update_operators == once.update_operators


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("batch_first", [True, False])
def test_flops_of_an_lstm(layers, batch_first):
    """Each weight once per position, a multiply and an add; twice that in the backward pass."""

    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = nn.LSTM(4, 5, layers, batch_first=batch_first)
            self.out = nn.Linear(5, 3)

        def forward(self, x):
            x = x.unsqueeze(1 if batch_first else 0).expand(4, 4, 4)
            return self.out(self.cell(x)[0].flatten(0, 1)[:4])

    weights = 4 * 5 * (4 + 5) + (layers - 1) * 4 * 5 * (5 + 5)
    footprint = counted(lambda: workload_of(Last()))
    assert dict(footprint.flops_by_class)["recurrent"] == 3 * 2 * (4 * 4) * weights
    assert footprint.uncounted_operators == ()


@pytest.mark.parametrize(
    ("operator", "kind"),
    [
        (aten.mm.default, "matmul"),
        (aten.convolution.default, "convolution"),
        (aten._scaled_dot_product_flash_attention_for_cpu.default, "attention"),
        (aten._cudnn_rnn.default, "recurrent"),
    ],
)
def test_classes_of_operators(operator, kind):
    assert class_of(operator) == kind


@pytest.mark.parametrize(
    ("operator", "uncounted"),
    [
        (aten.mv.default, True),
        (aten.dot.default, True),
        (aten._fft_r2c.default, True),
        (aten.linalg_vector_norm.default, False),
        (aten.cummax.default, False),
        (aten._thnn_fused_lstm_cell.default, False),
        (aten.add.Tensor, False),
    ],
)
def test_work_without_a_formula_is_told_by_its_name(operator, uncounted):
    assert is_uncounted(operator) == uncounted


def test_dimensions_are_rounded_up_where_kernels_do():
    """Rows and columns of the right matrix, wherever it stands; never the left one's."""
    left, right, bias = torch.empty(3, 12), torch.empty(12, 4), torch.empty(4)
    grows = (16 / 12) * (8 / 4)
    assert alignment(aten.mm.default, [left, right]) == pytest.approx(grows)
    assert alignment(aten.addmm.default, [bias, left, right]) == pytest.approx(grows)
    assert alignment(aten._cudnn_rnn.default, [left, [right]]) == 1.0
