"""What NVIDIA's libraries take beside tensors.

Sources: aten/src/ATen/cuda/CublasHandlePool.cpp (``getChosenWorkspaceSize``,
``parseChosenWorkspaceSize``), aten/src/ATen/native/cudnn/Conv_v8.cpp (``run_conv_plan``).
"""

from __future__ import annotations

import os
import re
from typing import Any

import torch
from torch import Tensor

from epochcast.profiler.footprint.cuda.rule import Call, Kernel

aten = torch.ops.aten

_KIB = 1024
_DEFAULT = 4096 * _KIB * 2 + 16 * _KIB * 8  # ":4096:2:16:8"
_LARGE = 4096 * _KIB * 8  # ":4096:8"
_TORCH = tuple(int(n) for n in re.findall(r"\d+", torch.__version__)[:2])
_OPERATORS = "mm addmm bmm baddbmm _addmm_activation addbmm addmv addr mv dot vdot _scaled_mm"
USES_CUBLAS = {getattr(aten, name) for name in _OPERATORS.split() if hasattr(aten, name)}


def cublas_workspace_bytes(capability: tuple[int, int]) -> int:
    """Of each handle and stream; kept for good.

    32 MiB on compute capability 9, since torch 2.12 on 10 and 12, too, since 2.13 on 11.
    ``CUBLAS_WORKSPACE_CONFIG`` in the environment decides otherwise.
    """
    configured = os.environ.get("CUBLAS_WORKSPACE_CONFIG", "")
    pairs = re.findall(r":(\d+):(\d+)", configured)
    if pairs:
        return sum(int(size) * _KIB * int(count) for size, count in pairs)
    major = capability[0]
    large = major == 9 or (major in (10, 12) and _TORCH >= (2, 12))
    return _LARGE if large or (major == 11 and _TORCH >= (2, 13)) else _DEFAULT


def convolution(kernel: Kernel, call: Call) -> Any:
    """cuDNN's workspace is the business of the algorithm that it chooses on the device.

    None is needed at least; copies of all operands in another layout, which algorithms for tensor
    cores make, are what is taken for the most.
    """
    out = call.run()
    made = [*_tensors(call.args), *_tensors(out if isinstance(out, tuple) else (out,))]
    if kernel.holds(made):
        kernel.blocks.unsure(
            0,
            sum(tensor.numel() * tensor.element_size() for tensor in made),
            call.operator,
            "cuDNN chooses the algorithm of a convolution, and with it its workspace, on the "
            "device; at most copies of all its operands are taken for it",
        )
    return out


def _tensors(values: tuple[Any, ...]) -> list[Tensor]:
    return [value for value in values if isinstance(value, Tensor)]
