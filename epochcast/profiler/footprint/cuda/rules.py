"""Which operators have a rule on a CUDA device."""

from __future__ import annotations

from typing import Any

import torch

from epochcast.profiler.footprint.cuda.attention import ATTENTION
from epochcast.profiler.footprint.cuda.indexing import INDEXING
from epochcast.profiler.footprint.cuda.normalisation import NORMS
from epochcast.profiler.footprint.cuda.recurrent import RECURRENT
from epochcast.profiler.footprint.cuda.reductions import REDUCTIONS
from epochcast.profiler.footprint.cuda.rule import Rule
from epochcast.profiler.footprint.cuda.workspaces import convolution

aten = torch.ops.aten

RULES: dict[Any, Rule] = {
    **ATTENTION,
    **INDEXING,
    **NORMS,
    **RECURRENT,
    **REDUCTIONS,
    **dict.fromkeys((aten.convolution, aten.convolution_backward), convolution),
}
