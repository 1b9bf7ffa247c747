"""Results of operators for which torch has no rule for fake tensors, or one that refuses too much.

An operator without a rule cannot be traced, and inside autograd it ends the process. Functions take
the operator's arguments and return what its kernel would, empty.

Sources: aten/src/ATen/native/cuda/LossCTC.cu (``ctc_loss_gpu_template``),
native/cudnn/LossCTC.cpp (``_use_cudnn_ctc_loss``), native/cuda/MultiMarginLoss.cu,
MultiLabelMarginCriterion.cu, native/GroupedMMUtils.h (``create_grouped_gemm_output_tensor``),
native/cuda/RNN.cu (``_thnn_fused_gru_cell_cuda``, ``_thnn_fused_gru_cell_backward_cuda``).
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten

_ALIGNED = 16  # bytes, to which rows of a grouped product are padded
_NO_REDUCTION = 0
_GRU_GATES, _GRU_KEPT = 3, 5  # times the hidden size; what the cell keeps for its backward pass


def _ctc_loss(log_probs: Tensor, targets: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
    """The losses, and alphas of every step and every label with blanks around it.

    Lengths of targets are values: rows count as full, and where all targets are in one row, as
    equally long.
    """
    steps, samples = log_probs.shape[:2]
    longest = targets.shape[1] if targets.dim() == 2 else -(-targets.numel() // samples)
    alphas = log_probs.new_empty(samples, steps, 2 * longest + 1)
    return log_probs.new_empty(samples), alphas


def _use_cudnn_ctc_loss(
    log_probs: Tensor, targets: Tensor, _: Any, __: Any, blank: int, *___: Any
) -> bool:
    """For targets in one row on the CPU.

    Args:
        log_probs, targets: as of the loss.
        blank: label of nothing.
    """
    in_a_row = targets.dim() == 1 and targets.dtype == torch.int32
    on_cpu = in_a_row and targets.device.type == "cpu" and log_probs.device.type != "cpu"
    return on_cpu and blank == 0 and log_probs.dtype == torch.float32


def _cudnn_ctc_loss(log_probs: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
    """The losses, and the gradient with them."""
    return log_probs.new_empty(log_probs.shape[1]), torch.empty_like(log_probs)


def _like_inputs(_: Tensor, inputs: Tensor, *__: Any, **___: Any) -> Tensor:
    """A gradient."""
    return torch.empty_like(inputs, memory_format=torch.contiguous_format)


def _margin_loss(
    inputs: Tensor,
    target: Tensor,
    p: Any = 1,
    margin: Any = 1,
    weight: Tensor | None = None,
    reduction: int = 1,
) -> Tensor:
    """A number, or one for each sample.

    Args:
        inputs, target: scores and classes.
        p, margin, weight: of which sizes do not depend.
        reduction: as torch numbers them.
    """
    del p, margin, weight
    return inputs.new_empty(target.shape if reduction == _NO_REDUCTION else ())


def _multilabel_margin_loss(inputs: Tensor, target: Tensor, reduction: int) -> tuple[Tensor, ...]:
    """The loss, and which classes are targets."""
    per_sample = inputs.shape[:-1] if reduction == _NO_REDUCTION else ()
    return inputs.new_empty(per_sample), inputs.new_empty(target.shape)


def _grouped_mm(
    a: Tensor,
    b: Tensor,
    offs: Tensor | None = None,
    bias: Tensor | None = None,
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """Products of groups of rows: torch's rule knows bfloat16 alone, its kernels all types.

    Args:
        a, b: of two or three axes each; the groups are the third, or ends of rows.
        offs: where groups end.
        bias: of which sizes do not depend.
        out_dtype: of the results; that of ``a`` by default.
    """
    del bias
    shape = [a.shape[-2], b.shape[-1]]
    if a.dim() == b.dim():
        groups = a.shape[0] if a.dim() == 3 or offs is None else offs.shape[0]
        shape = [groups, *shape]
    dtype = out_dtype or a.dtype
    each = max(1, _ALIGNED // dtype.itemsize)
    row = -(-shape[-1] // each) * each
    strides = [row * prod(shape[axis + 1 : -1]) for axis in range(len(shape) - 1)]
    return a.new_empty_strided(shape, [*strides, 1], dtype=dtype)


def _gru_cell(_: Tensor, __: Tensor, hx: Tensor, *___: Any, **____: Any) -> tuple[Tensor, Tensor]:
    """The next state, and what the backward pass needs."""
    kept = hx.new_empty(hx.shape[0], _GRU_KEPT * hx.shape[1])
    return torch.empty_like(hx, memory_format=torch.contiguous_format), kept


def _gru_cell_backward(grad: Tensor, kept: Tensor, has_bias: bool) -> tuple[Tensor | None, ...]:
    """Gradients of both products, the state and, where there are any, both biases.

    Args:
        grad: of the next state.
        kept: by the forward pass.
        has_bias: whether it adds biases.
    """
    hidden = _GRU_GATES * (kept.shape[1] // _GRU_KEPT)
    gates = [kept.new_empty(kept.shape[0], hidden) for _ in range(2)]
    biases = [kept.new_empty(hidden) if has_bias else None for _ in range(2)]
    state = torch.empty_like(grad, memory_format=torch.contiguous_format)
    return *gates, state, *biases


MISSING_RULES: dict[Any, Callable[..., Any]] = {
    aten._ctc_loss.default: _ctc_loss,
    aten._ctc_loss.Tensor: _ctc_loss,
    aten._use_cudnn_ctc_loss.default: _use_cudnn_ctc_loss,
    aten._use_cudnn_ctc_loss.Tensor: _use_cudnn_ctc_loss,
    aten._cudnn_ctc_loss.default: _cudnn_ctc_loss,
    aten._cudnn_ctc_loss.Tensor: _cudnn_ctc_loss,
    aten._ctc_loss_backward.default: _like_inputs,
    aten._ctc_loss_backward.Tensor: _like_inputs,
    aten._thnn_fused_gru_cell.default: _gru_cell,
    aten._thnn_fused_gru_cell_backward.default: _gru_cell_backward,
    aten.multi_margin_loss.default: _margin_loss,
    aten.multi_margin_loss_backward.default: _like_inputs,
    aten.multilabel_margin_loss_forward.default: _multilabel_margin_loss,
    aten.multilabel_margin_loss_backward.default: _like_inputs,
}
if hasattr(aten, "_grouped_mm"):  # since torch 2.8
    MISSING_RULES[aten._grouped_mm.default] = _grouped_mm
if hasattr(aten, "_use_miopen_ctc_loss"):  # of another vendor
    for _overload in ("default", "Tensor"):
        MISSING_RULES[getattr(aten._use_miopen_ctc_loss, _overload)] = lambda *_: False
