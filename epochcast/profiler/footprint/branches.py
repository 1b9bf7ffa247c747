"""Branches that torch takes only while a dispatch mode is on, turned back to those of a real step.

    real step       zeros.scatter_(…)      sum.add_(gradient)         one block
    under a mode    zeros.scatter(…)       sum + gradient             two, one of them freed at once

``at::isTensorSubclassLike`` is true of every tensor while a mode is on, and where it is, torch
prefers new tensors to changed ones. What autograd's own code calls out of place there, on a tensor
that nothing else holds, is done in place here.

Sources: torch/csrc/autograd/input_buffer.cpp (``accumulate``, ``can_accumulate_inplace``),
torch/csrc/autograd/FunctionsManual.cpp (``index_backward``, ``gather_backward``),
aten/src/ATen/native/ReduceOps.cpp (``value_selecting_reduction_backward_symint``).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction

aten = torch.ops.aten

# For a sum of gradients the storage must have one more holder at most than the buffer of autograd:
# the tensor that the dispatcher shows to Python.
_HOLDERS_OF_STORAGE = 2
_HOLDERS_OF_TENSOR = 4

_IN_PLACE: dict[Any, Any] = {
    aten.scatter.value: aten.scatter_.value,
    aten.scatter.src: aten.scatter_.src,
    aten.scatter_add.default: aten.scatter_add_.default,
    aten.index_put.default: aten.index_put_.default,
    aten.index_add.default: aten.index_add_.default,
}


def real_branch(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The operator that a step without a dispatch mode would call with these arguments.

    Args:
        func: the operator that was called.
        args, kwargs: of the call.
    """
    if func is not aten.add.Tensor and func not in _IN_PLACE:
        return func
    node = torch._C._current_autograd_node()
    if node is None or isinstance(node, BackwardCFunction) or torch.is_grad_enabled():
        return func  # not autograd's own code
    if func is not aten.add.Tensor:
        return _IN_PLACE[func]
    return aten.add_.Tensor if not kwargs and _can_accumulate(*args) else func


def _can_accumulate(held: Any, other: Any) -> bool:
    """``can_accumulate_inplace``: nothing but autograd's buffer holds the sum so far."""
    return (
        isinstance(other, Tensor)
        and held.layout == other.layout == torch.strided
        and held.shape == other.shape
        and held.dtype == other.dtype
        and held.device == other.device
        and _is_dense(held)
        and held._use_count() <= _HOLDERS_OF_TENSOR
        and torch._C._storage_Use_Count(held.untyped_storage()._cdata) <= _HOLDERS_OF_STORAGE
    )


def _is_dense(tensor: Tensor) -> bool:
    """Whether it covers its memory without overlap, in whatever order."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True
