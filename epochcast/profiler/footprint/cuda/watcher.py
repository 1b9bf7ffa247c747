"""Follows the operators of a fake CUDA device and writes down what each allocates.

    operator ──▶ CudaWatcher ──▶ StandIns ──▶ FakeTensorMode
                 │ a rule, where the device's kernel takes more than its results, or another branch
                 └ results ──▶ DeviceBlocks, at the operator's exit; a storage's death frees

A tensor that is made on the device is seen when its operator returns, so the order of blocks is
that of operators; within one it is that of its results, then the rule's.
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from epochcast.profiler.footprint import branches
from epochcast.profiler.footprint.allocations import OUTSIDE, operands
from epochcast.profiler.footprint.cuda.attention import ATTENTION
from epochcast.profiler.footprint.cuda.blocks import DeviceBlocks
from epochcast.profiler.footprint.cuda.convolutions import CONVOLUTIONS
from epochcast.profiler.footprint.cuda.indexing import INDEXING
from epochcast.profiler.footprint.cuda.kernels import native_dropout
from epochcast.profiler.footprint.cuda.recurrent import RECURRENT
from epochcast.profiler.footprint.cuda.reductions import REDUCTIONS
from epochcast.profiler.footprint.cuda.rule import Call, Rule
from epochcast.profiler.footprint.cuda.workspaces import (
    USES_CUBLAS,
    cublas_workspace_bytes,
    cublaslt_workspace_bytes,
)
from epochcast.profiler.footprint.fake_tensors import remembered
from epochcast.profiler.footprint.flops import flops_of, is_uncounted
from epochcast.records import DeviceSpec
from epochcast.records.footprint import BlockKind

# handles, which are of a thread each; on a device autograd has one of its own
CUBLAS = ("cuBLAS, forward", "cuBLAS, backward")
_QUESTIONS = ("prim", "profiler")
_NOT_THE_USERS = tuple(str(p) for p in (Path(torch.__file__).parent, Path(__file__).parents[3]))
_MOST_FRAMES = 60  # looked through for a line of the user's
RULES: dict[Any, Rule] = {
    **ATTENTION,
    **CONVOLUTIONS,
    **INDEXING,
    **RECURRENT,
    **REDUCTIONS,
    torch.ops.aten.native_dropout: native_dropout,
}


class CudaWatcher(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Writes down the allocations of a device that is not there.

    Args:
        device: whose kernels' habits are followed.
        mode: in which the tensors are made. What it remembers of them is forgotten after each
            operator, for it would keep them from being moved.
        module_of: names the module at work.
        device_type: of the tensors that stand for the device's.

    Attributes:
        blocks: all that was allocated.
        kind: what results are for at this moment.
        counts: whether FLOPs are counted now.
        flops: by the module at work.
        uncounted: calls of matrix-like operators without a formula, by name.
    """

    def __init__(
        self,
        device: DeviceSpec,
        mode: FakeTensorMode,
        module_of: Callable[[], str | None] = lambda: None,
        device_type: str = "cuda",
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        branches.references()  # cannot be found out while a mode is at work
        self.device = device
        self.lines = Lines()
        self.blocks = DeviceBlocks(self.lines.current, device_type)
        self.device_type = device_type
        self.kind: BlockKind = "parameter"
        self.counts = False
        self.flops: Counter[str] = Counter()
        self.uncounted: Counter[str] = Counter()
        self.module_of = module_of
        self._remembered = remembered(mode)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.namespace in _QUESTIONS:
            return func(*args, **kwargs)
        self.lines.note(self.in_backward)
        called, func = func, branches.real_branch(func, args, kwargs)
        rule = RULES.get(func._overloadpacket)
        out = rule(self, Call(func, args, kwargs)) if rule else func(*args, **kwargs)
        if func is not called:
            out = branches.as_result(out)
        if self.counts and func.namespace != "prims":
            self._count(Call(func, args, kwargs), out)
        self.blocks.refresh(operands(args))
        self.watch(out, func)
        if func._overloadpacket in USES_CUBLAS and self.holds(args):
            # a handle's workspace comes with its first product, after the result, and stays
            name = CUBLAS[self.in_backward]
            self.blocks.keep(name, cublas_workspace_bytes(self.device.capability), str(func))
            beside = cublaslt_workspace_bytes(func._overloadpacket, args)
            self.blocks.keep(f"{name}, Lt", beside, str(func))
        for memo in self._remembered:
            memo.clear()
        return out

    @property
    def in_backward(self) -> bool:
        """Whether autograd is at work."""
        return bool(torch._C._current_graph_task_id() != -1)

    def holds(self, args: Any) -> bool:
        """Whether any of an operator's arguments is on the device."""
        return any(tensor.device.type == self.device_type for tensor in operands(args))

    def _count(self, call: Call, out: Any) -> None:
        flops = flops_of(call.func, call.args, call.kwargs, out)
        if flops:
            self.flops[self.module_of() or OUTSIDE] += flops
        elif flops is None and is_uncounted(call.func):
            self.uncounted[call.operator] += 1

    def watch(self, out: Any, func: Any) -> Any:
        """Count an operator's results from now on; the same again."""
        self.blocks.watch(operands(out), self.kind, str(func), self.module_of())
        return out


class Lines:
    """Which line of the user's code is at work: from the stack, or by autograd's numbers."""

    def __init__(self) -> None:
        self._users: dict[Any, str | None] = {}  # code object → file's name, None if not the user's
        self._starts: list[int] = []
        self._noted: list[str | None] = []
        self._now: str | None = None

    def current(self) -> str | None:
        """As noted last."""
        return self._now

    def note(self, in_backward: bool) -> None:
        """Look where the program is."""
        node = torch._C._current_autograd_node() if in_backward else None
        if node is None:
            self._now = self._of(sys._getframe(2))
            if self._now is not None and (not self._noted or self._noted[-1] != self._now):
                self._starts.append(torch._C._autograd._get_sequence_nr())
                self._noted.append(self._now)
            return
        position = bisect_right(self._starts, node._sequence_nr()) - 1
        self._now = self._noted[position] if position >= 0 else None

    def _of(self, frame: FrameType | None) -> str | None:
        for _ in range(_MOST_FRAMES):
            if frame is None:
                return None
            code = frame.f_code
            if code not in self._users:
                own = not code.co_filename.startswith((*_NOT_THE_USERS, "<"))
                self._users[code] = Path(code.co_filename).name if own else None
            name = self._users[code]
            if name is not None:
                return f"{name}:{frame.f_lineno}"
            frame = frame.f_back
        return None
