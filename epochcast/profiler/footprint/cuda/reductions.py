"""Scratch of reductions that many blocks of threads share, norms among them.

    inputs ─▶ ctas_per_output blocks each ─▶ partial results (scratch) ─▶ the last block adds them
                                              └ and a counter per output (semaphores)

Source: aten/src/ATen/native/cuda/Reduce.cuh, ``setReduceConfig``, ``ReduceConfig`` and
``gpu_reduce_kernel`` (``global_memory_size``, ``semaphore_size``), for one output of an operator;
layer_norm_kernel.cu (``LaunchGammaBetaBackwardCUDAKernel``), ForeachReduceOp.cu
(``foreach_tensor_norm_cuda``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from epochcast.profiler.footprint.cuda.rule import Call, Kernel, Rule
from epochcast.records import DeviceSpec

aten = torch.ops.aten

_WARP = 32
_MOST_THREADS = 512  # max_reduce_threads of four bytes or less: MAX_NUM_THREADS
_INPUT_VECTOR = 4  # input_vec_size
_FEW_PER_THREAD, _MANY_PER_THREAD = 16, 256  # of ``setReduceConfig``: block.y, and global reduce
_SEMAPHORE = 4  # bytes
_MANY_ROWS = 64 * 1024  # of a layer norm
_CHUNK = 65536  # elements of a tensor that one block of a foreach kernel works on: kChunkSize


@dataclass(frozen=True, slots=True)
class _Axis:
    """Axes of a tensor that can be walked as one."""

    stride: int
    size: int


def reduction_scratch(
    inputs: Tensor, dims: Sequence[int], accumulator: int, device: DeviceSpec
) -> tuple[int, int]:
    """Bytes of partial results and of semaphores.

    Args:
        inputs: what is reduced.
        dims: over which; empty is all.
        accumulator: bytes of one partial result (``arg_t``).
        device: whose multiprocessors share the work.
    """
    reduced, kept = _axes(inputs, [d % inputs.dim() for d in dims])
    if not reduced:
        return 0, 0
    outputs, per_output = prod(a.size for a in kept), prod(a.size for a in reduced)
    fast = not kept or reduced[0].stride < kept[0].stride  # reduction_on_fastest_striding_dimension
    first, second = (per_output, outputs) if fast else (outputs, per_output)
    contiguous = (reduced if fast else kept)[0].stride == 1
    vector = 1  # outputs a thread works on (output_vec_size)
    if contiguous and fast and first > 128 and len(reduced) == 1:
        first //= _INPUT_VECTOR
    elif contiguous and not fast:
        vector = _output_vector(inputs, reduced, kept)
        first //= vector
    most = _MOST_THREADS // vector
    first_threads, second_threads = _threads(first, most), _threads(second, most)
    width = min(first_threads, _WARP)
    height = min(second_threads, most // width)
    width = min(first_threads, most // height)
    step_input, step_output = (width, 1) if fast else (1, width)
    per_thread = -(-per_output // step_input)
    if over_height := per_thread >= height * _FEW_PER_THREAD or per_thread >= _MANY_PER_THREAD:
        step_input *= height
    else:
        step_output *= height
    per_thread = -(-per_output // step_input)
    blocks = -(-(outputs // vector) // step_output)
    target = device.multiprocessors * (device.threads_per_multiprocessor // (width * height))
    if not over_height or per_thread < _MANY_PER_THREAD or blocks > target:
        return 0, 0
    shares = min(-(-target // blocks), -(-per_thread // _FEW_PER_THREAD))
    shares = max(shares, -(-per_thread // _MANY_PER_THREAD))  # ctas_per_output
    if shares <= 1:
        return 0, 0
    partial = accumulator * outputs * shares * (1 if fast else width * vector)
    return partial, _SEMAPHORE * blocks


def _axes(inputs: Tensor, dims: Sequence[int]) -> tuple[list[_Axis], list[_Axis]]:
    """Reduced and kept axes, fastest first, those that follow each other in memory made one."""
    over = set(dims) or set(range(inputs.dim()))
    reduced: list[_Axis] = []
    for stride, size in sorted((inputs.stride(d), inputs.shape[d]) for d in over):
        if reduced and reduced[-1].stride * reduced[-1].size == stride:
            reduced[-1] = _Axis(reduced[-1].stride, reduced[-1].size * size)
        elif size != 1:
            reduced.append(_Axis(stride, size))
    kept: list[_Axis] = []  # in the order of the output, which is dense: last axis first
    for d in reversed(range(inputs.dim())):
        stride, size = inputs.stride(d), inputs.shape[d]
        if d in over or size == 1:
            continue
        if kept and kept[-1].stride * kept[-1].size == stride:
            kept[-1] = _Axis(kept[-1].stride, kept[-1].size * size)
        else:
            kept.append(_Axis(stride, size))
    return reduced, kept


def _output_vector(inputs: Tensor, reduced: Sequence[_Axis], kept: Sequence[_Axis]) -> int:
    """``get_output_vec_size``: what every offset is a multiple of, at most 4."""
    strides = [a.stride for a in reduced] + [a.stride for a in kept[1:]]
    vector = _INPUT_VECTOR
    for number in (inputs.storage_offset(), kept[0].size, *strides):
        while number % vector:
            vector //= 2
    return vector


def _threads(work: int, most: int) -> int:
    """``last_pow2``, not more than there are."""
    return most if work >= most else 1 << max(work.bit_length() - 1, 0)


def reducing(dims_position: int, accumulator: int | None = None) -> Rule:
    """A rule for an operator that reduces.

    Args:
        dims_position: of its axes among the arguments.
        accumulator: bytes of a partial result; None is the inputs' type, float at least.
    """

    def rule(kernel: Kernel, call: Call) -> Any:
        out = kernel.watch(call.run(), call.func)
        inputs, dims = call.args[0], call.argument(dims_position, "dim")
        if not kernel.holds(inputs) or not inputs.numel() or isinstance(dims, Tensor):
            return out  # of two tensors, maximum is no reduction
        wanted = [dims] if isinstance(dims, int) else list(dims or ()) if inputs.dim() else []
        size = accumulator or max(4, inputs.element_size())
        scratch = reduction_scratch(inputs, wanted, size, kernel.device)
        kernel.blocks.scratch(scratch, call.operator)
        return out

    return rule


def layer_norm_backward(kernel: Kernel, call: Call) -> Any:
    """Many short rows are divided among blocks, whose sums of the weights' gradients are added.

    How many blocks share a column is a matter of the kernel's version: a sum for 32 rows at most.
    """
    out = kernel.watch(call.run(), call.func)
    inputs, shape = call.args[1:3]
    columns = prod(shape)
    rows = inputs.numel() // max(columns, 1)
    few_columns = columns // _WARP < kernel.device.multiprocessors // 2
    if rows > _MANY_ROWS and few_columns and kernel.holds(inputs):
        sums = -(-rows // _WARP) * columns * max(4, inputs.element_size())
        kernel.blocks.unsure(
            0, 2 * sums, call.operator, "partial sums of a layer norm's weights and biases"
        )
    return out


def foreach_norm(kernel: Kernel, call: Call) -> Any:
    """A partial result for every chunk of the longest tensor, for each tensor."""
    tensors = call.args[0]
    if not tensors or not kernel.holds(tensors):
        return call.run()
    chunks = -(-max(tensor.numel() for tensor in tensors) // _CHUNK)
    size = max(4, tensors[0].element_size())
    partial = kernel.blocks.take(max(1, len(tensors) * chunks) * size, call.operator)
    out = kernel.watch(call.run(), call.func)
    kernel.blocks.give(partial)
    return out


# accumulators: a value and its position for max and min; a boolean for any and all
REDUCTIONS: dict[Any, Rule] = {
    **{getattr(aten, name): reducing(1) for name in ("sum", "mean", "amax", "amin", "prod")},
    **{getattr(aten, name): reducing(1, 16) for name in ("max", "min", "argmax", "argmin")},
    **{getattr(aten, name): reducing(1, 1) for name in ("any", "all")},
    aten.linalg_vector_norm: reducing(2),
    aten.native_layer_norm_backward: layer_norm_backward,
    aten._foreach_norm: foreach_norm,
}
