"""Sparse gradients of fake tensors, with entries: torch's own rules give them none.

    gradient of an embedding   indices (1, tokens)   values (tokens, width)
    coalesced                  the same: how many tokens repeat is not known, so none are taken to
    sum of two                 the entries of both

The largest gradient that is possible, and the exact one where no token repeats.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten


def is_sparse_call(func: Any, args: tuple[Any, ...]) -> bool:
    """Whether an operator has a rule here, and a sparse argument."""
    return func in SPARSE_RULES and any(
        isinstance(arg, Tensor) and arg.layout == torch.sparse_coo for arg in args
    )


def _like(tensor: Tensor, indices: Tensor, values: Tensor, coalesced: bool | None = None) -> Tensor:
    made: Tensor = aten._sparse_coo_tensor_with_dims_and_tensors.default(
        tensor.sparse_dim(),
        tensor.dense_dim(),
        list(tensor.shape),
        indices,
        values,
        dtype=values.dtype,
        layout=torch.sparse_coo,
        device=values.device,
        is_coalesced=coalesced,
    )
    return made


def _clone(tensor: Tensor, **_: Any) -> Tensor:
    indices, values = tensor._indices().clone(), tensor._values().clone()
    return _like(tensor, indices, values, tensor.is_coalesced())


def _coalesce(tensor: Tensor) -> Tensor:
    return _like(tensor, tensor._indices().clone(), tensor._values().clone(), True)


def _sparse_mask(dense: Tensor, mask: Tensor) -> Tensor:
    values = torch.empty_like(mask._values(), dtype=dense.dtype)
    return _like(mask, mask._indices().clone(), values, mask.is_coalesced())


def _add(tensor: Tensor, other: Tensor, **_: Any) -> Tensor:
    if tensor.layout != other.layout:
        return torch.empty_like(tensor if tensor.layout == torch.strided else other)
    indices = torch.cat([tensor._indices(), other._indices()], 1)
    values = torch.cat([tensor._values(), other._values()])
    return _like(tensor, indices, values, False)


def _add_in_place(tensor: Tensor, other: Tensor, **_: Any) -> Tensor:
    if tensor.layout == torch.sparse_coo:
        tensor.data = _add(tensor, other)
    return tensor


def _in_place(tensor: Tensor, *_: Any, **__: Any) -> Tensor:
    return tensor


SPARSE_RULES: dict[Any, Callable[..., Any]] = {
    aten.clone.default: _clone,
    aten._coalesce.default: _coalesce,
    aten.sparse_mask.default: _sparse_mask,
    aten.add.Tensor: _add,
    aten.add_.Tensor: _add_in_place,
    aten.mul_.Tensor: _in_place,
}
