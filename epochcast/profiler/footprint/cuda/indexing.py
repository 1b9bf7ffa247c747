"""Scratch of kernels that sort indices, so that equal ones are added in order.

Sources: aten/src/ATen/native/cuda/Indexing.cu (``index_put_with_sort_kernel``),
aten/src/ATen/native/cuda/Embedding.cu (``embedding_dense_backward_cuda``) and
EmbeddingBackwardKernel.cu (``embedding_backward_cuda_kernel``).
"""

from __future__ import annotations

from itertools import zip_longest
from math import prod
from typing import Any

import torch
from torch import Tensor

from epochcast.profiler.footprint.cuda.rule import Call, Kernel, Rule

aten = torch.ops.aten

_INDEX = 8  # bytes of an index, int64
_FEW_INDICES = 3072  # up to which an embedding's gradient needs no sorting
_SEGMENT = 10  # NROWS_PER_THREAD
_CUB_LEAST = 1  # byte: cub's own temporary storage is small for indices


def index_put(kernel: Kernel, call: Call) -> Any:
    """Adding to indexed places: linear indices, their order, both sorted, and cub's storage."""
    if call.argument(3, "accumulate") and kernel.holds(call.args[0]):
        _scratch_of_sorted_put(kernel, call.args[1], call.operator)
    return call.run()


def _scratch_of_sorted_put(kernel: Kernel, indices: Any, operator: str) -> None:
    # from the last axis on, as they are broadcast
    shapes = [reversed(index.shape) for index in indices if index is not None]
    count = prod(max(sizes) for sizes in zip_longest(*shapes, fillvalue=1))
    if not count:
        return
    size, blocks = _INDEX * count, kernel.blocks
    wrapped, linear = blocks.take(size, operator), blocks.take(size, operator)
    blocks.give(wrapped)
    kept = [linear, *(blocks.take(size, operator) for _ in range(3))]
    blocks.scratch([_CUB_LEAST], operator)
    for block in reversed(kept):
        blocks.give(block)


def embedding_backward(kernel: Kernel, call: Call) -> Any:
    """Few tokens are added at once; many are sorted, and each run of equal ones is added."""
    gradient, indices, rows, padding, scale = call.args
    count = indices.numel()
    on_device = kernel.holds(gradient)
    if not on_device or (count <= _FEW_INDICES and not scale and padding < 0):
        return call.run()
    operator, size, blocks = call.operator, _INDEX * count, kernel.blocks
    ordered, origin = blocks.take(size, operator), blocks.take(size, operator)
    blocks.scratch([size, max(1, size)], operator)
    out = kernel.watch(call.run(), call.func)
    segments = count // _SEGMENT + min(count, rows)  # each row's last one may not be full
    partial = segments * gradient.shape[-1] * 4  # float32, whatever the gradient is
    blocks.scratch([size, _INDEX, size, size, _INDEX, _INDEX * segments, partial], operator)
    blocks.give(origin)
    blocks.give(ordered)
    return out


def sorting(kernel: Kernel, call: Call) -> Any:
    """Keys and indices are copied for a sort of long rows; how often is cub's business."""
    out = kernel.watch(call.run(), call.func)
    inputs = call.args[0]
    if isinstance(inputs, Tensor) and kernel.holds(inputs) and inputs.numel():
        copies = inputs.numel() * (inputs.element_size() + _INDEX)
        kernel.blocks.unsure(
            0,
            2 * copies,
            call.operator,
            "a sort copies keys and indices for itself, as its kernel for their number asks",
        )
    return out


_SORTS = "sort topk _unique2 unique_dim unique_consecutive nonzero kthvalue median nanmedian mode"

INDEXING: dict[Any, Rule] = {
    **{getattr(aten, name): index_put for name in ("index_put", "index_put_", "_index_put_impl_")},
    aten.embedding_dense_backward: embedding_backward,
    **{getattr(aten, name): sorting for name in _SORTS.split()},
}
