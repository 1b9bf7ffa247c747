"""Where torch's rules for fake tensors say something else than its CPU kernels return.

Each function takes what the fake operator returned and its arguments, and returns what the kernel
would. The sizes are those of torch 2.13; the tests compare them with the kernels of the torch that
is installed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten


def _batch_norm(out: Any, inputs: Tensor, weight: Tensor | None, *_: Any, **__: Any) -> Any:
    """The statistics kept for backward have the precision of the parameters."""
    outputs, mean, deviation = out
    if weight is None or weight.dtype == mean.dtype:
        return out
    return outputs, mean.to(weight.dtype), deviation.to(weight.dtype)


def _batch_norm_backward(out: Any, *arguments: Any, **_: Any) -> Any:
    """No gradient of the inputs where none is asked for."""
    output_mask = arguments[9]
    return tuple(
        gradient if asked else None for gradient, asked in zip(out, output_mask, strict=True)
    )


_PAGE = 4096  # bytes to which oneDNN aligns every part of a workspace


def _lstm_layer(out: Any, inputs: Tensor, weight: Tensor, *arguments: Any, **_: Any) -> Any:
    """One direction of one layer; its workspace, for training, is oneDNN's.

    oneDNN, src/cpu/rnn/rnn_utils.cpp, ``set_workspace_offsets``: T steps, B sequences, states of
    two layers (the input is one) before and after each step.
    """
    output, hidden, cell, workspace = out
    hidden_size, training = arguments[8], arguments[-1]
    if not training:
        return out
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


AFTER: dict[Any, Callable[..., Any]] = {
    aten.native_batch_norm.default: _batch_norm,
    aten.native_batch_norm_backward.default: _batch_norm_backward,
    aten.mkldnn_rnn_layer.default: _lstm_layer,
}
