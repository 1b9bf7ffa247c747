"""Branches that torch takes only while a dispatch mode is on, turned back to those of a real step.

    real step       zeros.scatter_(…)      sum.add_(gradient)         one block
    under a mode    zeros.scatter(…)       sum + gradient             two, one of them freed at once

``at::isTensorSubclassLike`` is true of every tensor while a mode is on, and where it is, torch
prefers new tensors to changed ones. What torch's own C++ calls out of place there, on a tensor
that nothing else holds, is done in place here. Whether something else holds it, is told by how
often it is referred to; ``references`` finds out once what the dispatcher itself adds to that.

Sources: torch/csrc/autograd/input_buffer.cpp (``accumulate``, ``can_accumulate_inplace``),
torch/csrc/autograd/FunctionsManual.cpp (``index_backward``, ``gather_backward``, ``take_backward``,
``trace_backward_symint``, ``clamp_backward_min_max``, ``evenly_distribute_backward``,
``binary_cross_entropy_with_logits_backward``), aten/src/ATen/native/ReduceOps.cpp
(``value_selecting_reduction_backward_symint``), Linear.cpp (``linear``),
transformers/attention.cpp (``_scaled_dot_product_attention_math``).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

aten = torch.ops.aten

# On a tensor of zeros, which the formula of a derivative has made for it.
_ON_ZEROS: dict[Any, Any] = {
    aten.scatter.value: aten.scatter_.value,
    aten.scatter.src: aten.scatter_.src,
    aten.scatter_add.default: aten.scatter_add_.default,
    aten.index_put.default: aten.index_put_.default,
    aten.index_add.default: aten.index_add_.default,
    aten.index_fill.int_Tensor: aten.index_fill_.int_Tensor,
    aten.index_fill.int_Scalar: aten.index_fill_.int_Scalar,
    aten.masked_scatter.default: aten.masked_scatter_.default,
    aten.put.default: aten.put_.default,
}
_LOGIC: dict[Any, Any] = {
    aten.logical_and.default: aten.logical_and_.default,
    aten.logical_or.default: aten.logical_or_.default,
}
# On an intermediate result, in the formulas of these nodes.
_IN_FORMULA: dict[str, dict[Any, Any]] = {
    "BinaryCrossEntropyWithLogitsBackward0": {
        aten.sub.Tensor: aten.sub_.Tensor,
        aten.mul.Tensor: aten.mul_.Tensor,
    },
    **dict.fromkeys(("ClampBackward0", "MaxBackward1", "MinBackward1", "MedianBackward0"), _LOGIC),
}
_CHANGED = {*_ON_ZEROS, *_LOGIC, aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor}
_PRODUCTS = ("UnsafeViewBackward0", "ViewBackward0", "MmBackward0", "BmmBackward0")


@dataclass(frozen=True, slots=True)
class References:
    """How often a tensor is referred to that C++ alone holds, when a mode is shown it.

    Attributes:
        python: to its object.
        tensor: to the tensor itself.
        storage: to its storage.
    """

    python: int
    tensor: int
    storage: int


def real_branch(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The operator that a step without a dispatch mode would call with these arguments.

    Args:
        func: the operator that was called.
        args, kwargs: of the call.
    """
    if func not in _CHANGED or kwargs or sys.getrefcount(args[0]) > references().python:
        return func
    node = torch._C._current_autograd_node()
    if isinstance(node, BackwardCFunction):
        return func  # the user's own backward pass
    if node is None or torch.is_grad_enabled():
        return aten.add_.Tensor if func is aten.add.Tensor and _adds_to_product(*args) else func
    if func in _ON_ZEROS:
        return _ON_ZEROS[func]
    if func is aten.add.Tensor:
        return aten.add_.Tensor if _can_accumulate(*args) else func
    changed = _IN_FORMULA.get(type(node).__name__, {}).get(func)
    return changed if changed is not None and _is_unshared(*args) else func


def as_result(changed: Tensor) -> Tensor:
    """A tensor that was changed in place of a new one, as the result that is expected.

    Where gradients are followed, autograd must not be given its own argument back.
    """
    return aten.detach.default(changed) if torch.is_grad_enabled() else changed


@cache
def references() -> References:
    """What is counted for the sum of a linear layer, whose product C++ alone holds.

    To be called first where no dispatch mode is at work: within one no other can be.
    """
    with _disable_current_modes(), torch.no_grad(), _Counting() as counting:
        scattered = torch.ones(2, 2, 2).transpose(0, 1)  # no product with the bias at once
        torch.nn.functional.linear(scattered, torch.ones(2, 2), torch.ones(2))
    return counting.counted[0] if counting.counted else References(0, 0, 0)


@dataclass
class _Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    counted: list[References] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is aten.add.Tensor and hasattr(Tensor, "_use_count"):
            held = sys.getrefcount(args[0]), args[0]._use_count(), _holders(args[0])
            self.counted.append(References(*held))
        return func(*args, **kwargs or {})


def _holders(tensor: Tensor) -> int:
    return int(torch._C._storage_Use_Count(tensor.untyped_storage()._cdata))


def _is_unshared(held: Any, other: Any) -> bool:
    """Whether nothing else has the first operand or its storage, and the result would fit in."""
    allowed = references()
    return (
        isinstance(other, Tensor)
        and held.layout == other.layout == torch.strided
        and held.device == other.device
        and torch.result_type(held, other) == held.dtype
        and torch.broadcast_shapes(held.shape, other.shape) == held.shape  # type: ignore[no-untyped-call]
        and held._use_count() <= allowed.tensor
        and _holders(held) <= allowed.storage
    )


def _can_accumulate(held: Any, other: Any) -> bool:
    """``can_accumulate_inplace``: the sum so far is dense, and autograd's buffer alone has it."""
    return _is_unshared(held, other) and held.shape == other.shape and _is_dense(held)


def _adds_to_product(held: Any, other: Any) -> bool:
    """Of ``linear`` its bias, of attention its mask: the product is changed."""
    made_by = type(held.grad_fn).__name__
    return (held.grad_fn is None or made_by in _PRODUCTS) and _is_unshared(held, other)


def _is_dense(tensor: Tensor) -> bool:
    """Whether it covers its memory without overlap, in whatever order."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True
