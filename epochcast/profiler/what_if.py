"""Changes to a built workload that make its training need less: asked as "what if", never measured.

    optimizer=sgd         another optimizer over the same parameter groups
    checkpointing=on      repeated blocks keep their inputs only, and are computed once more

Both are applied to the workload a dry run builds. Precision and accumulation are attributes of a
workload, and need nothing here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from epochcast.errors import WorkloadError
from epochcast.profiler.workload import Workload
from epochcast.records import SizeValue

ON, OFF = "on", "off"
LEARNING_RATE = 1e-3  # where the workload's own optimizer has none
BLOCK = 256  # values that share a scale in 8 bits (bitsandbytes 0.44, optim/optimizer.py)
LEAST_IN_8_BITS = 4096  # values: smaller tensors keep float32 states (min_8bit_size, the same file)


def _of_torch(name: str, **options: Any) -> Callable[..., torch.optim.Optimizer]:
    return lambda groups, lr: getattr(torch.optim, name)(groups, lr=lr, **options)


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": _of_torch("SGD"),
    "sgd-momentum": _of_torch("SGD", momentum=0.9),
    "adam": _of_torch("Adam"),
    "adamw": _of_torch("AdamW"),
    "adam8bit": lambda groups, lr: EightBitAdam(groups, lr),
    "adamw8bit": lambda groups, lr: EightBitAdam(groups, lr),
    "adafactor": _of_torch("Adafactor"),
    "adagrad": _of_torch("Adagrad"),
    "rmsprop": _of_torch("RMSprop"),
}


def changed(workload: Workload, changes: dict[str, SizeValue]) -> Workload:
    """The workload with another optimizer, or with checkpointed blocks.

    Args:
        workload: as its function made it.
        changes: ``optimizer`` and ``checkpointing``; neither is needed.

    Raises:
        WorkloadError: an optimizer that is not known, or nothing to checkpoint.
    """
    checkpointing = changes.get("checkpointing", OFF)
    if checkpointing not in (ON, OFF):
        raise WorkloadError(f"checkpointing must be {ON} or {OFF}, but got {checkpointing!r}")
    if checkpointing == ON:
        checkpoint_blocks(workload.model)
    name = changes.get("optimizer")
    if name is None:
        return workload
    if workload.train_step is not None:
        raise WorkloadError("optimizer cannot be changed: train_step steps its own; use a knob")
    others = [_optimizer(str(name), old) for old in workload.optimizers]
    # a scheduler holds the old optimizer, and no memory of its own
    return replace(workload, optimizer=others, scheduler=None)


def _optimizer(name: str, old: torch.optim.Optimizer) -> torch.optim.Optimizer:
    if name not in OPTIMIZERS:
        raise WorkloadError(f"optimizer must be one of {', '.join(OPTIMIZERS)}, but got {name!r}")
    groups = [{"params": list(group["params"])} for group in old.param_groups]
    rates = [group["lr"] for group in old.param_groups if "lr" in group]
    return OPTIMIZERS[name](groups, float(rates[0]) if rates else LEARNING_RATE)


class EightBitAdam(torch.optim.Optimizer):
    """Holds what bitsandbytes' 8-bit Adam holds; its update computes nothing.

    Two states of one byte a value, and a float32 scale for each 256 values of each; float32 states
    for tensors of fewer than 4,096 values (Dettmers et al. 2022, arXiv:2110.02861, section 2).
    """

    def __init__(self, groups: Any, lr: float) -> None:
        super().__init__(groups, {"lr": lr})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and parameter not in self.state:
                    self.state[parameter] = _states(parameter)


def _states(parameter: Tensor) -> dict[str, Tensor]:
    if parameter.numel() < LEAST_IN_8_BITS:
        return {n: torch.zeros_like(parameter, dtype=torch.float32) for n in ("state1", "state2")}
    scales = -(-parameter.numel() // BLOCK)
    found: dict[str, Tensor] = {}
    for n in (1, 2):
        found[f"state{n}"] = torch.zeros_like(parameter, dtype=torch.uint8)
        found[f"absmax{n}"] = torch.zeros(scales, dtype=torch.float32, device=parameter.device)
    return found


# -- checkpointing --------------------------------------------------------------------------------


def checkpoint_blocks(model: nn.Module) -> int:
    """Make repeated blocks keep nothing but their inputs; how many there are.

    A model of transformers does it in its own way. Of any other, the blocks are the members of its
    outermost lists and sequences of two or more modules of one class, each made of others.

    Raises:
        WorkloadError: it has no such blocks.
    """
    enable = getattr(model, "gradient_checkpointing_enable", None)
    if callable(enable):
        # random numbers need not be the same again where nothing is computed
        enable({"use_reentrant": False, "preserve_rng_state": False})
        return 1
    blocks = list(_repeated(model))
    if not blocks:
        raise WorkloadError("checkpointing needs repeated blocks, but the model has none in a row")
    for block in blocks:
        _checkpoint(block)
    return len(blocks)


def _repeated(module: nn.Module) -> Iterator[nn.Module]:
    """A single layer keeps nothing but its input anyway, and is no block."""
    children = list(module.children())
    is_row = isinstance(module, nn.ModuleList | nn.Sequential)
    composed = [type(child) for child in children if any(True for _ in child.children())]
    for child in children:
        if is_row and composed.count(type(child)) > 1:
            yield child
        else:
            yield from _repeated(child)


def _checkpoint(block: nn.Module) -> None:
    forward = block.forward

    def run(*args: Any, **kwargs: Any) -> Any:
        if not (block.training and torch.is_grad_enabled()):
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)

    block.forward = run
