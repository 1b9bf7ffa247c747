"""Which operators have a rule on a CUDA device."""

from __future__ import annotations

from typing import Any

import torch

from epochcast.profiler.footprint.cuda.attention import ATTENTION
from epochcast.profiler.footprint.cuda.convolutions import CONVOLUTIONS
from epochcast.profiler.footprint.cuda.indexing import INDEXING
from epochcast.profiler.footprint.cuda.kernels import native_dropout
from epochcast.profiler.footprint.cuda.normalisation import NORMS
from epochcast.profiler.footprint.cuda.recurrent import RECURRENT
from epochcast.profiler.footprint.cuda.reductions import REDUCTIONS
from epochcast.profiler.footprint.cuda.rule import Rule

RULES: dict[Any, Rule] = {
    **ATTENTION,
    **CONVOLUTIONS,
    **INDEXING,
    **NORMS,
    **RECURRENT,
    **REDUCTIONS,
    torch.ops.aten.native_dropout: native_dropout,
}
