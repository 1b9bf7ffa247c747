"""Where torch's rules for fake tensors say something else than its CPU kernels return.

Each function takes what the fake operator returned and its arguments, and returns what the kernel
would. The sizes are those of torch 2.13; the tests compare them with the kernels of the torch that
is installed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._prims_common import suggest_memory_format

aten = torch.ops.aten


def _batch_norm(out: Any, inputs: Tensor, *parameters: Any, **_: Any) -> Any:
    """Dense whatever the inputs' strides; statistics in the precision of the parameters."""
    weight, _bias, running_mean = parameters[:3]
    return _dense_like(inputs), *_as_precise_as((weight, running_mean), out[1:])


def _batch_norm_backward(out: Any, gradient: Tensor, inputs: Tensor, *rest: Any, **_: Any) -> Any:
    """Dense like the outputs; no gradient of the inputs where none is asked for."""
    for_inputs = rest[7][0]
    return _dense_like(inputs) if for_inputs else None, *out[1:]


def _layer_norm(out: Any, inputs: Tensor, shape: Any, weight: Tensor | None, *_: Any) -> Any:
    return out[0], *_as_precise_as((weight,), out[1:])


def _group_norm(out: Any, inputs: Tensor, weight: Tensor | None, *_: Any) -> Any:
    return out[0], *_as_precise_as((weight,), out[1:])


def _layer_norm_backward(out: Any, gradient: Tensor, inputs: Tensor, *_: Any) -> Any:
    contiguous = torch.empty_like(inputs, memory_format=torch.contiguous_format)
    return None if out[0] is None else contiguous, *out[1:]


def _group_norm_backward(out: Any, gradient: Tensor, inputs: Tensor, *_: Any) -> Any:
    """In the precision of the inputs, whatever that of the outputs' gradient."""
    return None if out[0] is None else _dense_like(inputs), *out[1:]


def _as_precise_as(
    parameters: Sequence[Tensor | None], statistics: Sequence[Tensor]
) -> Sequence[Tensor]:
    """Statistics of bfloat16 inputs are float32 where the parameters are."""
    kept = next((p.dtype for p in parameters if p is not None), statistics[0].dtype)
    return [statistic.to(kept) for statistic in statistics]


def _dense_like(inputs: Tensor) -> Tensor:
    return torch.empty_like(inputs, memory_format=suggest_memory_format(inputs))


_PAGE = 4096  # bytes to which oneDNN aligns every part of a workspace


def _lstm_layer(out: Any, inputs: Tensor, weight: Tensor, *arguments: Any, **_: Any) -> Any:
    """One direction of one layer; its workspace, for training, is oneDNN's.

    oneDNN, src/cpu/rnn/rnn_utils.cpp, ``set_workspace_offsets``: T steps, B sequences, states of
    two layers (the input is one) before and after each step.
    """
    output, hidden, cell, workspace = out
    hidden_size = arguments[8]
    if not torch.is_grad_enabled():
        return output, hidden, cell, None
    steps, sequences, features = inputs.shape
    states = 2 * (steps + 1) * sequences
    wide, size = max(features, hidden_size), inputs.element_size()
    parts = (
        steps * sequences * _row_bytes(4 * hidden_size, size),  # gates
        steps * sequences * _row_bytes(hidden_size, size),  # projections
        states * _row_bytes(wide, size),
        states * _row_bytes(wide, 4),  # gradients are float32, of the states
        states * _row_bytes(wide, 4),  # and of the layer's inputs
        states * hidden_size * 4,
        states * hidden_size * size,  # cell states
    )
    total = sum(-(-part // _PAGE) * _PAGE for part in parts)
    return output, hidden, cell, workspace.new_empty(total)


def _row_bytes(columns: int, size: int) -> int:
    """oneDNN, ``get_good_ld``: whole cache lines of 64 bytes, but no multiple of 256 elements."""
    line = 64 // size
    rounded = -(-columns // line) * line
    return size * (rounded + line if rounded % 256 == 0 else rounded)


def _embedding_bag(out: Any, weight: Tensor, indices: Tensor, *_: Any, **__: Any) -> Any:
    """The kernel makes the map from tokens to bags one longer than it leaves it.

    aten/src/ATen/native/EmbeddingBag.cpp, ``make_offset2bag_out``.
    """
    output, to_bags, *rest = out
    if to_bags.numel():
        to_bags = to_bags.new_empty(to_bags.numel() + 1)[:-1]
    return output, to_bags, *rest


def _embedding_bag_backward(
    out: Any, gradient: Tensor, indices: Tensor, offsets: Tensor, to_bags: Tensor, *rest: Any
) -> Any:
    """A sum needs no map in the forward pass; the kernel makes it for the backward pass.

    ``_embedding_bag_backward`` in the same file.
    """
    if out.layout != torch.sparse_coo or to_bags.numel():
        return out
    made = indices.new_empty(indices.numel())
    return aten._embedding_bag_backward.default(gradient, indices, offsets, made, *rest)


AFTER: dict[Any, Callable[..., Any]] = {
    aten.native_batch_norm.default: _batch_norm,
    aten.native_batch_norm_backward.default: _batch_norm_backward,
    aten.native_layer_norm.default: _layer_norm,
    aten.native_layer_norm_backward.default: _layer_norm_backward,
    aten.native_group_norm.default: _group_norm,
    aten.native_group_norm_backward.default: _group_norm_backward,
    aten.mkldnn_rnn_layer.default: _lstm_layer,
    aten._embedding_bag.default: _embedding_bag,
    aten._embedding_bag_backward.default: _embedding_bag_backward,
}
