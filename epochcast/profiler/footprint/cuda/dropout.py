"""Dropout as CUDA has it, for tensors of the CPU that stand for a device's.

    CPU     mask drawn in the inputs' precision, scaled, multiplied         4 bytes an element kept
    CUDA    native_dropout: output and a boolean mask at once               1 byte

Source: aten/src/ATen/native/Dropout.cpp (``is_fused_kernel_acceptable``, ``dropout``).
"""

from __future__ import annotations

import torch
from torch import Tensor

aten = torch.ops.aten

_libraries: list[torch.library.Library] = []


def dropout(inputs: Tensor, p: float, train: bool) -> Tensor:
    """``dropout`` of a CUDA build.

    Args:
        inputs: of any shape.
        p: probability of zero.
        train: whether it does anything.
    """
    if not train or p == 0 or not inputs.numel():
        return inputs
    if p == 1:
        return inputs.mul(torch.zeros((), dtype=inputs.dtype, device=inputs.device))
    out: Tensor = aten.native_dropout(inputs, p, train)[0]
    return out


def install() -> None:
    """Let dropout on the CPU be computed as above."""
    if not _libraries:
        library = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
        library.impl("dropout", dropout, "AutogradCPU")  # type: ignore[no-untyped-call]
        _libraries.append(library)
