"""How many floating-point operations an operator takes, where it does matrix work.

    matmul         (m, k) × (k, n)                      2·m·k·n
    convolution    positions, kernel                    2·positions·k²·C_in·C_out / groups
    attention      Q·Kᵀ and P·V                         2 · 2·B·H·T²·D
    recurrent      each weight once at each position    2·positions·Σ|W|

A multiply-add counts as two. Everything else is element-wise, a reduction or a copy, whose cost is
in the bytes that it moves. An operator that does matrix work and has no formula is not zero but
unknown: ``is_uncounted`` tells.

Kernels work through channels and inner dimensions in steps: eight float32 fill a vector register of
AVX2 and a block of oneDNN's ``nChw8c`` layout, and the fragments that tensor cores multiply have
sides of eight and sixteen (PTX ISA, "Matrix multiply-accumulate using mma instruction"). Twelve
channels take as long as sixteen, hence the second count, ``aligned_flops``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import (
    conv_flop_count,
    flop_registry,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

aten = torch.ops.aten
STEP = 8  # elements that a kernel works on together


def _cpu_attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query.shape, key.shape, value.shape))  # type: ignore[no-untyped-call]


def _cpu_attention_backward(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any
) -> int:
    shapes = (gradient.shape, query.shape, key.shape, value.shape)
    return int(sdpa_backward_flop_count(*shapes))  # type: ignore[no-untyped-call]


def _convolution_backward(
    gradient: Tensor, inputs: Tensor, weight: Tensor, *options: Any, **_: Any
) -> int:
    """Each gradient asked for takes the multiply-adds of the forward pass once more."""
    transposed, output_mask = options[4], options[7]
    shapes = (list(inputs.shape), list(weight.shape), list(gradient.shape))
    return int(conv_flop_count(*shapes, transposed=transposed) * sum(output_mask[:2]))


def _recurrent(inputs: Tensor, weights: Sequence[Tensor]) -> int:
    """``inputs`` (T, B, I), or (positions, I) when packed; biases have one dimension."""
    positions = inputs.shape[:-1].numel()
    return 2 * positions * sum(w.numel() for w in weights if w.dim() == 2)


def _mkldnn_rnn(inputs: Tensor, *arguments: Any, **_: Any) -> int:
    return _recurrent(inputs, arguments[:2])


def _mkldnn_rnn_backward(inputs: Tensor, *arguments: Any, **_: Any) -> int:
    return 2 * _recurrent(inputs, arguments[:2])


def _cudnn_rnn(inputs: Tensor, weights: Sequence[Tensor], *_: Any, **__: Any) -> int:
    return _recurrent(inputs, weights)


def _cudnn_rnn_backward(inputs: Tensor, weights: Sequence[Tensor], *_: Any, **__: Any) -> int:
    return 2 * _recurrent(inputs, weights)


# torch's registry has no formula for the CPU attention kernel (pytorch#195460) nor for recurrent
# layers, and its formula for the weight's gradient of a grouped convolution forgets to divide by
# the groups.
FORMULAS: dict[Any, Callable[..., int]] = {
    **flop_registry,
    aten._scaled_dot_product_flash_attention_for_cpu: _cpu_attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _cpu_attention_backward,
    aten.convolution_backward: _convolution_backward,
    aten.mkldnn_rnn_layer: _mkldnn_rnn,
    aten.mkldnn_rnn_layer_backward: _mkldnn_rnn_backward,
    aten._cudnn_rnn: _cudnn_rnn,
    aten._cudnn_rnn_backward: _cudnn_rnn_backward,
}

_CLASSES = (("conv", "convolution"), ("attention", "attention"), ("rnn", "recurrent"))

_MATRIX_WORDS = ("rnn", "lstm", "gru", "fft", "linalg", "attention", "cdist", "conv", "mm")
_VECTOR_WORDS = ("mv", "dot")
# Contain a word from above and do no matrix work; the fused cells get their products ready-made.
_OTHER_WORDS = ("vector_norm", "gamma", "cumm", "_thnn_fused")


def flops_of(func: Any, args: Any, kwargs: Any, out: Any) -> int | None:
    """FLOPs of one call of an operator; None if no formula is known.

    Args:
        func: the operator, an overload of ``torch.ops``.
        args, kwargs: of the call.
        out: what it returned.
    """
    formula = FORMULAS.get(func._overloadpacket)
    return None if formula is None else int(formula(*args, **kwargs, out_val=out))


def alignment(func: Any, args: Sequence[Any]) -> float:
    """By how much an operator's FLOPs grow when dimensions are rounded up to whole steps.

    Of a convolution its channels, except where each has a filter of its own; of products of
    matrices the rows and columns of the right one; of attention the width of a head. Recurrent
    weights are packed by the library, and count as they are.
    """
    name, kind = func._overloadpacket.__name__, class_of(func)
    if kind == "attention" and args:
        return _rounded(args[0].shape[-1:])
    # the right operand or the weight comes second, or third after a gradient or a bias
    position = 2 if "backward" in name or name in ("addmm", "baddbmm") else 1
    if kind == "recurrent" or len(args) <= position:
        return 1.0
    right = args[position].shape
    if kind == "matmul":
        return _rounded(right[-2:])
    c_out, c_in = right[:2]
    return _rounded((c_out, c_in) if c_in > 1 else (c_out,))


def _rounded(dimensions: Sequence[int]) -> float:
    """The product of dimensions when each is rounded up, over their product."""
    return prod(-(-d // STEP) * STEP / d for d in dimensions if d)


def class_of(func: Any) -> str:
    """Of an operator with a formula: matmul, convolution, attention or recurrent."""
    name = func._overloadpacket.__name__
    return next((kind for word, kind in _CLASSES if word in name), "matmul")


def is_uncounted(func: Any) -> bool:
    """Whether an operator without a formula may do matrix work: by its name, or not torch's own."""
    return func.namespace != "aten" or _is_matrix_like(func._overloadpacket.__name__)


def _is_matrix_like(name: str) -> bool:
    return any(word in name for word in _MATRIX_WORDS + _VECTOR_WORDS) and not any(
        word in name for word in _OTHER_WORDS
    )
