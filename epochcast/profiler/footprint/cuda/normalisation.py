"""Scratch of norms: of layers, going back, and of lists of gradients.

Sources: aten/src/ATen/native/cuda/layer_norm_kernel.cu (``LaunchGammaBetaBackwardCUDAKernel``),
aten/src/ATen/native/cuda/ForeachReduceOp.cu (``foreach_tensor_norm_cuda``).
"""

from __future__ import annotations

from math import prod
from typing import Any

import torch

from epochcast.profiler.footprint.cuda.rule import Call, Kernel, Rule

aten = torch.ops.aten

_MANY_ROWS = 64 * 1024
_WARP = 32
_CHUNK = 65536  # elements of a tensor that one block of a foreach kernel works on: kChunkSize


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


NORMS: dict[Any, Rule] = {
    aten.native_layer_norm_backward: layer_norm_backward,
    aten._foreach_norm: foreach_norm,
}
