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


AFTER: dict[Any, Callable[..., Any]] = {aten.native_batch_norm.default: _batch_norm}
