"""What cuBLAS takes beside tensors.

Sources: aten/src/ATen/cuda/CublasHandlePool.cpp (``getChosenWorkspaceSize``,
``parseChosenWorkspaceSize``, ``getCUDABlasLtWorkspace``).
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

import torch

aten = torch.ops.aten

_KIB = 1024
_DEFAULT = 4096 * _KIB * 2 + 16 * _KIB * 8  # ":4096:2:16:8"
_LARGE = 4096 * _KIB * 8  # ":4096:8"
TORCH = tuple(int(n) for n in re.findall(r"\d+", torch.__version__)[:2])
_BIASED = {aten.addmm, aten._addmm_activation}  # cuBLASLt adds a vector as it multiplies
_OPERATORS = (
    "mm addmm bmm baddbmm _addmm_activation addbmm addmv addr mv dot vdot _scaled_mm _grouped_mm"
)
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
    large = major == 9 or (major in (10, 12) and TORCH >= (2, 12))
    return _LARGE if large or (major == 11 and TORCH >= (2, 13)) else _DEFAULT


def cublaslt_workspace_bytes(func: Any, args: Sequence[Any]) -> int:
    """What cuBLASLt keeps beside, in the releases between those that took it anew each time and
    those that share cuBLAS' own: 1 MiB, as an H200 and an H100 had with torch 2.11.

    Args:
        func: the operator.
        args: of it, the bias first.
    """
    separate = (2, 8) <= TORCH < (2, 13)
    return 1024 * _KIB if separate and func in _BIASED and args[0].dim() == 1 else 0
