"""Recurrent layers as a CUDA build computes them, in one call of cuDNN.

    lstm │ gru │ rnn_tanh │ rnn_relu ──▶ _cudnn_rnn ───────────▶ _cudnn_rnn_backward
    weights in one flat buffer           output, states, reserve  gradients, weights' in one buffer

How large the reserve is, what cuDNN keeps for the backward pass, is its own business: at least the
activations of all gates are. Sequences that are packed have sizes that only values tell.

Sources: aten/src/ATen/native/RNN.cpp (``lstm``, ``gru``), aten/src/ATen/native/cudnn/RNN.cpp
(``_cudnn_impl``, ``_cudnn_rnn``, ``_cudnn_rnn_backward_input``, ``_cudnn_rnn_backward_weight``),
torch/nn/modules/rnn.py (``flatten_parameters``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from epochcast.profiler.footprint.cuda.rule import Call, Kernel, Rule

aten = torch.ops.aten

# cudnnRNNMode_t and the gates of a cell
_MODES = {"rnn_relu": 0, "rnn_tanh": 1, "lstm": 2, "gru": 3}
_GATES = {0: 1, 1: 1, 2: 4, 3: 3}
_LEAST_STATE, _RANDOM_STATE = 512, 48  # bytes at least; of a thread's curandState
_libraries: dict[str, torch.library.Library] = {}


def install(key: str) -> None:
    """Let recurrent layers be computed as above.

    Args:
        key: of the dispatcher, for tensors of which it is.
    """
    if key in _libraries:
        return
    library = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
    for name, mode in _MODES.items():
        made = _lstm if name == "lstm" else _plain(mode)
        library.impl(f"{name}.input", made, key)  # type: ignore[no-untyped-call]
    _libraries[key] = library
    setattr(nn.RNNBase, "flatten_parameters", _flatten_parameters)  # noqa: B010


def _flatten_parameters(layer: nn.RNNBase) -> None:
    """On a device all weights of a layer become views of one buffer."""
    weights = [w for w in layer._flat_weights if isinstance(w, Tensor)]
    if not weights or weights[0].device.type != "cuda" or len({w.dtype for w in weights}) > 1:
        return
    storages = {w.untyped_storage()._cdata for w in weights}
    if len(storages) < len(weights):
        return  # as they were made before, or shared
    with torch.no_grad():
        for weight, view in zip(weights, _views(weights[0], weights), strict=True):
            weight.data = view


def _views(like: Tensor, weights: Sequence[Tensor], zeros: bool = False) -> list[Tensor]:
    """One buffer, divided as the weights are."""
    total = sum(weight.numel() for weight in weights)
    flat = like.new_zeros(total) if zeros else like.new_empty(total)
    starts, start = [], 0
    for weight in weights:
        starts.append(start)
        start += weight.numel()
    return [
        flat.narrow(0, at, weight.numel()).view(weight.shape)
        for at, weight in zip(starts, weights, strict=True)
    ]


def _lstm(
    inputs: Tensor,
    hx: Sequence[Tensor],
    params: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    hidden, cell = hx
    settings = num_layers, dropout, train, bidirectional, batch_first
    out, hidden, cell, *_ = _cudnn(
        _MODES["lstm"], inputs, hidden, cell, params, has_biases, *settings
    )
    return out, hidden, cell


def _plain(mode: int) -> Callable[..., tuple[Tensor, Tensor]]:
    def layer(
        inputs: Tensor, hx: Tensor, params: Sequence[Tensor], has_biases: bool, *settings: Any
    ) -> tuple[Tensor, Tensor]:
        out, hidden, *_ = _cudnn(mode, inputs, hx, None, params, has_biases, *settings)
        return out, hidden

    return layer


def _cudnn(
    mode: int,
    inputs: Tensor,
    hidden: Tensor,
    cell: Tensor | None,
    params: Sequence[Tensor],
    has_biases: bool,
    layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> Any:
    """``_cudnn_impl``; under autocast everything is cast, weights too (cudnn/AutocastRNN.cpp)."""
    kind = inputs.device.type
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
        inputs, hidden = inputs.to(dtype), hidden.to(dtype)
        cell = None if cell is None else cell.to(dtype)
        params = [weight.to(dtype) for weight in params]
    size = hidden.shape[2] if cell is None else cell.shape[2]
    projected = 0 if hidden.shape[2] == size else hidden.shape[2]
    per_layer = (4 if has_biases else 2) + (1 if projected else 0)
    state = inputs.new_empty(0, dtype=torch.uint8) if dropout > 0 and train else None
    buffer = params[0].detach().flatten()  # stands for the one that all are in
    sizes = mode, size, projected, layers, batch_first, dropout, train, bidirectional
    with torch.autocast(kind, enabled=False):  # a CUDA build's would cast once more, on the device
        return aten._cudnn_rnn(inputs, params, per_layer, buffer, hidden, cell, *sizes, [], state)


# -- what its kernels make -------------------------------------------------------------------------


def forward(kernel: Kernel, call: Call) -> Any:
    """``_cudnn_rnn``: the output is made with time first, and a reserve if it trains."""
    inputs, _, _, buffer, hx, cx, mode, size, projected, layers, batch_first = call.args[:11]
    dropout, train, bidirectional = call.args[11:14]
    operator, blocks = call.operator, kernel.blocks
    directions, out_size = 2 if bidirectional else 1, projected or size
    time_first = inputs.transpose(0, 1) if batch_first else inputs
    steps, sequences = time_first.shape[:2]
    if dropout > 0 and train:
        _keep_random_state(kernel, operator)
    copied = None if time_first.is_contiguous() else blocks.take(_bytes(inputs), operator)
    out = kernel.watch(inputs.new_empty(steps, sequences, out_size * directions), call.func)
    hidden = kernel.watch(hx.new_empty(hx.shape), call.func)
    cell = hx.new_empty(0) if cx is None else kernel.watch(cx.new_empty(cx.shape), call.func)
    cells = steps * sequences * layers * directions * size * inputs.element_size()
    blocks.unsure(
        0,
        _GATES[mode] * cells,
        operator,
        "cuDNN says on the device how much a recurrent layer works in",
    )
    reserve = inputs.new_empty(_GATES[mode] * cells if train else 0, dtype=torch.uint8)
    if train:
        kernel.watch(reserve, call.func)
        blocks.unsure(
            _GATES[mode] * cells,
            2 * (_GATES[mode] + 2) * cells,
            operator,
            "cuDNN says on the device how much of a recurrent layer it keeps for the backward "
            "pass: the activations of all gates at least",
            blocks.block_of(reserve),
        )
    if copied is not None:
        blocks.give(copied)
    return out.transpose(0, 1) if batch_first else out, hidden, cell, reserve, buffer


def backward(kernel: Kernel, call: Call) -> Any:
    """``_cudnn_rnn_backward``: gradients that are missing are zeros; weights' share a buffer."""
    inputs, weights, _, _, hx, cx, output, *given = call.args[:10]
    mode, size, _, layers, batch_first = call.args[10:15]
    bidirectional, mask = call.args[17], call.args[21]
    missing = [
        kernel.watch(torch.zeros_like(like), call.func)
        for like, gradient in zip((output, hx, cx), given, strict=True)
        if gradient is None and like is not None
    ]
    cells = inputs.shape[0] * inputs.shape[1] * layers * (2 if bidirectional else 1) * size
    kernel.blocks.unsure(
        0,
        2 * _GATES[mode] * cells * inputs.element_size(),
        call.operator,
        "cuDNN says on the device how much a recurrent layer's backward pass works in",
    )
    time_first = inputs.transpose(0, 1) if batch_first else inputs
    for_inputs = kernel.watch(inputs.new_empty(time_first.shape), call.func)
    for_hidden = kernel.watch(hx.new_empty(hx.shape), call.func)
    for_cell = None if cx is None else kernel.watch(cx.new_empty(cx.shape), call.func)
    for_weights = _views(weights[0], weights, zeros=True) if mask[3] else [None] * len(weights)
    kernel.watch(for_weights, call.func)
    del missing
    turned = for_inputs.transpose(0, 1) if batch_first else for_inputs
    return turned, for_hidden, hx.new_empty(0) if for_cell is None else for_cell, for_weights


def _keep_random_state(kernel: Kernel, operator: str) -> None:
    """Dropout between layers keeps the states of random numbers, once for a process."""
    threads = kernel.device.multiprocessors * kernel.device.threads_per_multiprocessor
    block = kernel.blocks.keep("dropout of cuDNN", _LEAST_STATE, operator)
    if block is not None:
        kernel.blocks.unsure(
            _LEAST_STATE,
            _RANDOM_STATE * threads,
            operator,
            "cuDNN says on the device how much the random numbers of its dropout keep",
            block,
        )


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


RECURRENT: dict[Any, Rule] = {aten._cudnn_rnn: forward, aten._cudnn_rnn_backward: backward}
