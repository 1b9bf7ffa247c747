"""Counts the operators of a training step and the tensors alive during it.

A dispatch mode sees every operator that reaches a kernel, after autograd and autocast. Each new
storage is counted when an operator returns it and forgotten when it is freed (weak references),
so the sum of live storages and its peak are exact for all tensors that operators make:

    live bytes    ▁▂▃▅▇█▇▅▃▂▁│▂▄▂        "step": forward and backward, "update": the optimizer
                  forward backward update

What kernels allocate inside for a moment (workspaces) is not seen; a device offset accounts for it.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from itertools import chain
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import (
    conv_flop_count,
    flop_registry,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

from epochcast.profiler.loop import TrainingLoop
from epochcast.records import Footprint

aten = torch.ops.aten

Phase = Literal["step", "update"]


def _cpu_attention_flops(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query.shape, key.shape, value.shape))  # type: ignore[no-untyped-call]


def _cpu_attention_backward_flops(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any
) -> int:
    shapes = (gradient.shape, query.shape, key.shape, value.shape)
    return int(sdpa_backward_flop_count(*shapes))  # type: ignore[no-untyped-call]


def _convolution_backward_flops(
    gradient: Tensor, inputs: Tensor, weight: Tensor, *options: Any, **_: Any
) -> int:
    """Each gradient asked for takes the multiply-adds of the forward pass once more."""
    transposed, output_mask = options[4], options[7]
    shapes = (list(inputs.shape), list(weight.shape), list(gradient.shape))
    return int(conv_flop_count(*shapes, transposed=transposed) * sum(output_mask[:2]))


# torch's registry has no formula for the CPU attention kernel (pytorch#195460), and its formula
# for the weight's gradient of a grouped convolution forgets to divide by the groups.
FLOP_FORMULAS: dict[Any, Callable[..., int]] = {
    **flop_registry,
    aten._scaled_dot_product_flash_attention_for_cpu: _cpu_attention_flops,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _cpu_attention_backward_flops,
    aten.convolution_backward: _convolution_backward_flops,
}

# Operators that do matrix work without a formula in the registry; others are element-wise,
# reductions or copies, whose cost is in the bytes they move.
_BOOKKEEPING = ("profiler", "prim", "prims")
_MATRIX_WORDS = ("rnn", "lstm", "gru", "fft", "linalg", "attention", "cdist", "conv", "mm")
_VECTOR_WORDS = ("mv", "dot")
_OTHER_WORDS = ("vector_norm", "gamma", "cumm")  # contain a word from above and do no matrix work


class OperatorTracker(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operators, FLOPs, bytes moved and live tensor bytes on one type of device.

    Attributes:
        live_bytes: sum of the storages alive now.
        peak_bytes: largest ``live_bytes`` seen, by phase.
        operators: dispatched operators by phase, views excluded.
        flops: of all operators so far.
        bytes_moved: read and written by all operators so far.
        uncounted: names of matrix-like operators without a formula.
    """

    def __init__(self, device_type: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.phase: Phase = "step"
        self.live_bytes = 0
        self.peak_bytes: Counter[Phase] = Counter()
        self.operators: Counter[Phase] = Counter()
        self.flops = 0
        self.bytes_moved = 0
        self.uncounted: Counter[str] = Counter()
        self._device_type = device_type
        self._alive: dict[int, Any] = {}

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        results = _tensors(out)
        self.watch(results)
        if func.namespace not in _BOOKKEEPING and not _is_view(func):
            self.operators[self.phase] += 1
            self.bytes_moved += sum(_nbytes(t) for t in chain(_tensors((args, kwargs)), results))
            self._count_flops(func, args, kwargs, out)
        return out

    def watch(self, tensors: Iterable[Tensor]) -> None:
        """Count the storages of some tensors from now until they are freed."""
        for tensor in tensors:
            if tensor.device.type == self._device_type:
                self._watch_storage(tensor.untyped_storage())
        self.peak_bytes[self.phase] = max(self.peak_bytes[self.phase], self.live_bytes)

    def _watch_storage(self, storage: torch.UntypedStorage) -> None:
        identity = storage._cdata
        if identity in self._alive:
            return
        size = storage.nbytes()
        self._alive[identity] = weakref.ref(storage, partial(self._forget, identity, size))
        self.live_bytes += size

    def _forget(self, identity: int, size: int, _: Any) -> None:
        if self._alive.pop(identity, None) is not None:
            self.live_bytes -= size

    def _count_flops(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        packet = func._overloadpacket
        formula = FLOP_FORMULAS.get(packet)
        if formula is not None:
            self.flops += int(formula(*args, **kwargs, out_val=out))
        elif func.namespace != "aten" or _is_matrix_like(packet.__name__):
            self.uncounted[str(func)] += 1


def measure_footprint(loop: TrainingLoop, batches: Iterable[Any]) -> Footprint | None:
    """The footprint of one optimizer step, run for real; None if the step is the workload's own.

    Must run after at least one update, when the optimizer's state exists. FLOPs, bytes and
    operators of forward and backward are means over the micro-steps of the accumulation.
    """
    if loop.workload.train_step is not None:
        return None
    loop.optimizer.zero_grad(set_to_none=True)  # what an unfinished accumulation has left
    model, micro_steps = loop.workload.model, loop.config.accumulation
    static = [*model.parameters(), *model.buffers(), *_optimizer_tensors(loop.optimizer)]
    tracker = OperatorTracker(loop.device.type)
    tracker.watch(static)
    static_bytes = tracker.live_bytes
    source = iter(batches)
    for _ in range(micro_steps):
        batch = loop.transfer(next(source))
        tracker.watch(_tensors(batch))
        with tracker:
            loop.backward(batch)
        del batch
    flops, bytes_moved = tracker.flops, tracker.bytes_moved
    tracker.phase = "update"
    with tracker:
        loop.update()
    parameters = list(model.parameters())
    return Footprint(
        flops=flops // micro_steps,
        bytes_moved=bytes_moved // micro_steps,
        operators=tracker.operators["step"] // micro_steps,
        update_operators=tracker.operators["update"],
        parameters=sum(p.numel() for p in parameters),
        trainable_parameters=sum(p.numel() for p in parameters if p.requires_grad),
        static_bytes=static_bytes,
        step_peak_bytes=tracker.peak_bytes["step"],
        update_peak_bytes=tracker.peak_bytes["update"],
        uncounted_operators=tuple(sorted(tracker.uncounted.items())),
    )


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [leaf for state in optimizer.state.values() for leaf in _tensors(state)]


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _nbytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _is_matrix_like(name: str) -> bool:
    return any(word in name for word in _MATRIX_WORDS + _VECTOR_WORDS) and not any(
        word in name for word in _OTHER_WORDS
    )


def _is_view(func: Any) -> bool:
    returns = func._schema.returns
    return bool(returns) and all(
        r.alias_info is not None and not r.alias_info.is_write for r in returns
    )
