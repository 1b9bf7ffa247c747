"""Deep copies of fake tensors, as of a model whose weights are averaged.

``copy.deepcopy`` of a tensor copies its storage, and that of a fake one has no memory to copy: the
process ends. Here it is a clone, as of a parameter (torch/_tensor.py, ``Tensor.__deepcopy__``;
torch/nn/parameter.py, ``Parameter.__deepcopy__``).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor


@contextmanager
def cloning() -> Iterator[None]:
    """Within it, fake tensors can be copied deeply."""
    before = FakeTensor.__dict__.get("__deepcopy__")
    setattr(FakeTensor, "__deepcopy__", _deep_copy)  # noqa: B010
    try:
        yield
    finally:
        if before is None:
            del FakeTensor.__deepcopy__
        else:
            setattr(FakeTensor, "__deepcopy__", before)  # noqa: B010


def _deep_copy(tensor: Tensor, memo: dict[int, Any]) -> Tensor:
    if id(tensor) in memo:
        found: Tensor = memo[id(tensor)]
        return found
    if not tensor.is_leaf:
        raise RuntimeError(
            "Only Tensors created explicitly by the user (graph leaves) support the deepcopy "
            "protocol at the moment"
        )
    with torch.no_grad():
        made = tensor.detach().clone()
    if isinstance(tensor, nn.Parameter):
        made = nn.Parameter(made, tensor.requires_grad)
    else:
        made.requires_grad_(tensor.requires_grad)
        if tensor.grad is not None:
            made.grad = _deep_copy(tensor.grad, memo)
    memo[id(tensor)] = made
    return made
