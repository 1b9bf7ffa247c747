"""Operators that a CUDA build has a kernel for, and another build takes apart.

    CUDA build          silu_backward            native_dropout: a boolean mask, 1 byte an element
    without a kernel    sigmoid, four products   mask in the inputs' precision, 4 bytes kept

Where a kernel is known, even one that is never called, autograd hands the operator over whole; fake
tensors then have its rule. Dropout asks for the device by name, and is written out.

Sources: aten/src/ATen/native/native_functions.yaml (what has both a CUDA kernel and a composite
one: these three, in both builds of torch 2.13), aten/src/ATen/native/Dropout.cpp
(``is_fused_kernel_acceptable``, ``dropout``).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from epochcast.profiler.footprint.cuda.rule import Call, Kernel

aten = torch.ops.aten

_WHOLE = ("_fused_rms_norm", "mish_backward", "silu_backward")
_libraries: dict[str, torch.library.Library] = {}


def install(key: str) -> None:
    """Let operators on a device be handed over whole, as those of a CUDA build are.

    Args:
        key: of the dispatcher, ``"CUDA"``, or ``"CPU"`` for tensors that stand for a device's.
    """
    if key in _libraries:
        return
    library: Any = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
    known = torch._C._dispatch_has_kernel_for_dispatch_key
    for name in _WHOLE:
        if hasattr(aten, name) and not known(f"aten::{name}", key):
            library.impl(name, _never, key)
    if key == "CPU":
        library.impl("dropout", dropout, "AutogradCPU")
    _libraries[key] = library


def _never(*_: Any, **__: Any) -> Any:
    """Stands for a kernel of the device.

    Raises:
        NotImplementedError: a tensor that is not fake has reached it.
    """
    raise NotImplementedError("only fake tensors are on this device")


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


def native_dropout(kernel: Kernel, call: Call) -> Any:
    """The mask is made before the result (cuda/Dropout.cu, ``dropout_cuda``)."""
    out = call.run()
    kernel.watch(out[1], call.func)
    return kernel.watch(out, call.func)
