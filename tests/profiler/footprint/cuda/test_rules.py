"""What kernels take inside, each rule alone: numbers by the source's formulas."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from followed_on_cards import T4

from epochcast.profiler.footprint.allocations import operands
from epochcast.profiler.footprint.cuda import workspaces
from epochcast.profiler.footprint.cuda.blocks import DeviceBlocks
from epochcast.profiler.footprint.cuda.reductions import reduction_scratch
from epochcast.profiler.footprint.cuda.rule import Call
from epochcast.profiler.footprint.cuda.watcher import RULES
from epochcast.profiler.footprint.cuda.workspaces import (
    cublas_workspace_bytes,
    cublaslt_workspace_bytes,
)

aten = torch.ops.aten
MIB = 2**20


class Kernel:
    """Takes any tensor for one of the device's."""

    def __init__(self):
        self.device, self.in_backward = T4, False
        self.blocks = DeviceBlocks(lambda: None, "meta")

    def holds(self, _):
        return True

    def watch(self, out, func):
        self.blocks.watch(operands(out), "other", str(func))
        return out


def run(func, *args, **kwargs):
    """Bytes of each block that a rule takes for itself, in order."""
    kernel = Kernel()
    RULES[func._overloadpacket](kernel, Call(func, args, kwargs))
    sequence = kernel.blocks.sequence(T4)
    pairs = zip(sequence.block_bytes, sequence.block_kinds, strict=True)
    return [size for size, kind in pairs if kind == "temporary"], sequence


def tensor(*shape, dtype=torch.float32):
    return torch.empty(shape, dtype=dtype, device="meta")


# -- cuBLAS ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("capability", "expected"), [((7, 5), 8_519_680), ((8, 6), 8_519_680), ((9, 0), 32 * MIB)]
)
def test_a_workspace_of_cublas(capability, expected, monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    assert cublas_workspace_bytes(capability) == expected


@pytest.mark.parametrize(
    ("version", "bias", "expected"),
    [((2, 11), 1, MIB), ((2, 11), 2, 0), ((2, 6), 1, 0), ((2, 13), 1, 0)],
)
def test_a_bias_has_a_workspace_of_its_own_in_some_releases(version, bias, expected, monkeypatch):
    monkeypatch.setattr(workspaces, "TORCH", version)
    args = (tensor(*(8,) * bias), tensor(4, 4), tensor(4, 8))
    assert cublaslt_workspace_bytes(aten.addmm, args) == expected
    assert cublaslt_workspace_bytes(aten.mm, args[1:]) == 0


def test_the_environment_decides_on_the_workspace(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    assert cublas_workspace_bytes((9, 0)) == 16 * 1024 * 8
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":0:0")
    assert cublas_workspace_bytes((9, 0)) == 0


# -- reductions ------------------------------------------------------------------------------------


def test_a_sum_of_everything_is_shared_by_many_blocks():
    """2²⁰ numbers by 512 threads with vectors of 4: 512 each, and 80 blocks that fit at once
    would have 6; 512 are needed for 16 each, so it is what keeps 256 at most: 2."""
    partial, semaphores = reduction_scratch(tensor(2**20), (), 4, T4)
    target, per_thread = 40 * (1024 // 512), 2**20 // 512
    shares = max(min(target, per_thread // 16), -(-per_thread // 256))
    assert (partial, semaphores) == (4 * shares, 4)


@pytest.mark.parametrize("shape", [(64,), (4, 8), (1,), ()])
def test_a_small_one_is_not(shape):
    assert reduction_scratch(tensor(*shape), (), 4, T4) == (0, 0)


def test_rows_that_fill_the_device_need_no_sharing():
    assert reduction_scratch(tensor(4096, 1024), (1,), 4, T4) == (0, 0)


def test_columns_are_shared_where_rows_are_many():
    partial, semaphores = reduction_scratch(tensor(2**16, 64), (0,), 4, T4)
    assert partial > 0
    assert partial % (4 * 64) == 0
    assert semaphores % 4 == 0 < semaphores


def test_axes_that_follow_each_other_are_one():
    whole = reduction_scratch(tensor(2**20), (), 4, T4)
    assert reduction_scratch(tensor(2**10, 1, 2**10), (0, 1, 2), 4, T4) == whole
    assert reduction_scratch(tensor(2**10, 2**10).t(), (), 4, T4) == whole


def test_scratch_is_given_back():
    _, sequence = run(aten.sum.default, tensor(2**20))
    assert sequence.live_bytes()[-1] == 0


def test_the_larger_of_two_tensors_is_no_reduction():
    taken, _ = run(aten.max.other, tensor(2**20), tensor(2**20))
    assert taken == []


# -- indices ---------------------------------------------------------------------------------------


def test_adding_to_indexed_places_sorts_five_times_the_indices():
    indices = [tensor(1000, dtype=torch.long)]
    taken, _ = run(aten.index_put_.default, tensor(10, 4), indices, tensor(1000, 4), True)
    assert taken == [8000] * 5 + [1]


def test_writing_to_indexed_places_sorts_nothing():
    indices = [tensor(1000, dtype=torch.long)]
    taken, _ = run(aten.index_put_.default, tensor(10, 4), indices, tensor(1000, 4))
    assert taken == []


@pytest.mark.parametrize(("tokens", "sorts"), [(3072, False), (3073, True)])
def test_the_gradient_of_an_embedding_sorts_many_tokens(tokens, sorts):
    indices = tensor(tokens, dtype=torch.long)
    taken, _ = run(
        aten.embedding_dense_backward.default, tensor(tokens, 8), indices, 100, -1, False
    )
    assert bool(taken) is sorts
    if sorts:
        segments = tokens // 10 + 100  # an H200 had 1,703 for 16,384 tokens of 65
        assert taken[-2:] == [segments * 8, segments * 8 * 4]


# -- attention -------------------------------------------------------------------------------------


def test_flash_attention_sums_in_float32_going_back():
    q = tensor(2, 8, 100, 64, dtype=torch.bfloat16)
    kernel, rule = Kernel(), RULES[aten._scaled_dot_product_flash_attention_backward]
    rule(kernel, Call(lambda *_: (q, q, q), (q, q, q, q), {}))
    rows = 2 * 8 * 128  # tokens rounded up
    sequence = kernel.blocks.sequence(T4)
    assert sequence.block_bytes[1:] == (4 * rows, 4 * rows * 64)


def test_grouped_queries_have_gradients_of_every_head():
    q, k = tensor(2, 8, 128, 64, dtype=torch.float16), tensor(2, 2, 128, 64, dtype=torch.float16)
    kernel, rule = Kernel(), RULES[aten._scaled_dot_product_flash_attention_backward]
    rule(kernel, Call(lambda *_: (q, k, k), (q, q, k, k), {}))
    sequence = kernel.blocks.sequence(T4)
    assert sequence.block_bytes[-2:] == 2 * (2 * 128 * 8 * 64 * 2,)


@pytest.mark.parametrize(("batch", "dropout", "unsure"), [(1, 0.0, 1), (1, 0.1, 0), (64, 0.0, 0)])
def test_few_queries_without_dropout_may_be_shared(batch, dropout, unsure):
    q = tensor(batch, 8, 128, 64, dtype=torch.float16)
    kernel, rule = Kernel(), RULES[aten._scaled_dot_product_flash_attention]
    rule(kernel, Call(lambda *_: (q,), (q, q, q, dropout), {}))
    assert len(kernel.blocks.sequence(T4).unknown) == unsure


# -- norms -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "unsure"), [(64 * 1024, 0), (64 * 1024 + 1, 1)])
def test_many_short_rows_have_partial_sums(rows, unsure):
    x, scale = tensor(rows, 128), tensor(128)
    statistics = tensor(rows, 1), tensor(rows, 1)
    _, sequence = run(
        aten.native_layer_norm_backward.default, x, x, [128], *statistics, scale, scale, [True] * 3
    )
    assert len(sequence.unknown) == unsure


def test_the_norms_of_a_list_have_a_partial_result_for_each_chunk():
    taken, sequence = run(aten._foreach_norm.Scalar, [tensor(65536 + 1), tensor(3)], 2)
    assert taken == [2 * 2 * 4]
    assert sequence.live_bytes()[-1] == 0


def test_efficient_attention_goes_back_in_float32_as_on_an_h200():
    """64 × 6 heads of 256 tokens × 64, after the three gradients."""
    q = tensor(64, 6, 256, 64)
    rows, seed = tensor(64, 6, 256), tensor(dtype=torch.long)
    func = aten._scaled_dot_product_efficient_attention_backward.default
    args = (q, q, q, q, None, q, rows, seed, seed, 0.1, [True, True, True, False], True)
    taken, sequence = run(func, *args)
    assert taken == [25_165_824, 393_216, 393_216, 25_190_400]
    assert not sequence.unknown


def test_a_mask_of_dropout_comes_before_its_result():
    _, sequence = run(aten.native_dropout.default, tensor(64, 384), 0.1, True)
    assert sequence.block_bytes == (64 * 384, 4 * 64 * 384)


# -- attention of cuDNN ---------------------------------------------------------------------------


def test_cudnns_attention_works_in_what_an_h200_took():
    """64 × 6 heads of 256 tokens × 64: 256 bytes forward, 25,559,296 backward."""
    q, rows = (tensor(64, 6, 256, size, dtype=torch.bfloat16) for size in (64, 1))
    none, seed = tensor(0), tensor(1, dtype=torch.long)
    out = aten._scaled_dot_product_cudnn_attention.default
    taken, _ = run(out, q, q, q, None, True, 0.1, True)
    assert taken == [256]
    back = aten._scaled_dot_product_cudnn_attention_backward.default
    rest = (seed, seed, None, none, none, 256, 256, 0.1, True)
    (unknown,) = run(back, q, q, q, q, q, rows, *rest)[1].unknown
    assert unknown.low_bytes == 25_559_296


# -- convolutions ----------------------------------------------------------------------------------


TILES = 40 * 128 * 256 * 4  # partial sums of every multiprocessor of a T4


def convolved(x, w, *, capability=(8, 0), stride=1, groups=1, backward=False):
    """Intervals, blocks that are taken, and the sequence of a convolution in order."""
    kernel = Kernel()
    kernel.device = replace(T4, capability=capability)
    settings = [stride] * 2, [1, 1], [1, 1], False, [0, 0], groups
    y = aten.convolution.default(x, w, None, *settings)
    func, args = aten.convolution.default, (x, w, None, *settings)
    if backward:
        func, args = (
            aten.convolution_backward.default,
            (y, x, w, None, *settings, [True] * 2 + [False]),
        )
    RULES[func._overloadpacket](kernel, Call(func, args, {}))
    return kernel.blocks.sequence(T4)


def test_a_convolution_on_tensor_cores_copies_its_operands():
    """256 × 64 × 32 × 32 by 3 × 3: an H200 took 134,365,331 bytes, and 147,456 × 15 more for the
    gradient of the weight, each after the result."""
    x, w = tensor(256, 64, 32, 32), tensor(64, 64, 3, 3)
    copies = 4 * (2 * x.numel() + w.numel())
    (forward,) = convolved(x, w).unknown
    assert (forward.low_bytes, forward.high_bytes) == (copies, copies + TILES)
    assert forward.position == 1
    assert forward.low_bytes <= 134_365_331 <= forward.high_bytes
    of_input, of_weight = convolved(x, w, backward=True).unknown
    assert of_input.low_bytes == copies
    assert of_weight.low_bytes == copies + 4 * w.numel() < 136_430_247 < of_weight.high_bytes
    assert (of_input.position, of_weight.position) == (1, 2)


def test_a_strided_one_may_write_its_output_in_place():
    x, w = tensor(256, 64, 32, 32), tensor(128, 64, 3, 3)
    (unknown,) = convolved(x, w, stride=2).unknown
    assert unknown.low_bytes == 4 * (x.numel() + w.numel()) <= 67_403_792  # an H200's


@pytest.mark.parametrize(("channels", "unrolled"), [(16, 9), (32, 9), (64, 1)])
def test_few_channels_may_be_unrolled_going_back(channels, unrolled):
    """512 × 16 × 32 × 32 by 3 × 3: an H100 took up to 560 MiB for a tensor of 32."""
    x, w = tensor(512, channels, 32, 32), tensor(64, channels, 3, 3)
    (forward,) = convolved(x, w).unknown
    copies = 4 * (x.numel() + x.numel() * 64 // channels)
    assert forward.high_bytes == copies + 4 * w.numel() + TILES
    for gradient in convolved(x, w, backward=True).unknown:
        assert gradient.high_bytes == unrolled * copies + 4 * w.numel() + TILES


@pytest.mark.parametrize(
    ("shapes", "settings"),
    [
        (((8, 3, 32, 32), (64, 3, 3, 3)), {}),  # the first one of an H200 had none
        (((8, 64, 32, 32), (64, 64, 1, 1)), {}),  # a product of matrices
        (((8, 64, 32, 32), (64, 64, 3, 3)), {"capability": (7, 5)}),  # no TF32 there
        (((8, 64, 32, 32), (64, 32, 3, 3)), {"groups": 2}),
    ],
)
def test_others_may_need_nothing_or_copies(shapes, settings):
    x, w = (tensor(*shape) for shape in shapes)
    (unknown,) = convolved(x, w, **settings).unknown
    x, w = (tensor(*shape).numel() for shape in shapes)
    tiles = 0 if "capability" in settings else TILES
    y = shapes[0][0] * shapes[1][0] * shapes[0][2] * shapes[0][3]
    y += shapes[0][0] * shapes[1][0] * (34**2 - 32**2) if shapes[1][2] == 1 else 0  # padded
    assert (unknown.low_bytes, unknown.high_bytes) == (0, 4 * (x + w + y) + tiles)


def test_channels_last_need_no_copies_and_what_lies_otherwise_is_copied_first():
    x, w = tensor(8, 64, 32, 32).to(memory_format=torch.channels_last), tensor(64, 64, 3, 3)
    sequence = convolved(x, w)
    (unknown,) = sequence.unknown
    assert (unknown.low_bytes, unknown.high_bytes) == (0, TILES)
    assert sequence.block_bytes[0] == 4 * w.numel()
    assert sequence.block_bytes[1] == 4 * x.numel()
    assert not convolved(x, w.to(memory_format=torch.channels_last)).block_kinds.count("temporary")


def test_channels_by_themselves_have_a_kernel_of_torchs():
    x, w = tensor(8, 64, 32, 32), tensor(64, 1, 3, 3)
    assert not convolved(x, w, groups=64).unknown
    half = (t.half() for t in (x, w))
    assert len(convolved(*half, groups=64).unknown) == 1
