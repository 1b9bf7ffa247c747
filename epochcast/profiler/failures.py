"""What went wrong in a step: no memory left, or a layer that refused its input, by its name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from epochcast.errors import WorkloadError

# How CPU and MPS allocators say it; CUDA raises torch.OutOfMemoryError.
_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that the device or the host had no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(t in str(error) for t in _OUT_OF_MEMORY)


@contextmanager
def naming_layer(model: nn.Module) -> Iterator[None]:
    """Within it, an error in a forward pass becomes an error that names the layer.

    Raises:
        WorkloadError: a layer refused its input.
    """
    entered: list[tuple[str, nn.Module, str]] = []
    handles = []
    for name, module in model.named_modules():
        handles += _hooks(name, module, entered)
    try:
        yield
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        if not entered or is_out_of_memory(error):
            raise
        raise WorkloadError(_describe(*entered[-1], error)) from error
    finally:
        for handle in handles:
            handle.remove()


def _hooks(name: str, module: nn.Module, entered: list[Any]) -> list[Any]:
    def enter(_: nn.Module, args: Any, kwargs: Any) -> None:
        entered.append((name, module, _shapes((args, kwargs))))

    def leave(_: nn.Module, args: Any, output: Any) -> None:
        while entered.pop()[1] is not module:  # layers within whose error the model has caught
            continue

    return [
        module.register_forward_pre_hook(enter, with_kwargs=True),
        module.register_forward_hook(leave),
    ]


def _describe(name: str, module: nn.Module, shapes: str, error: BaseException) -> str:
    what = " ".join(repr(module).split())
    described = what if len(what) <= 80 else type(module).__name__
    where = f"layer {name!r}, {described}," if name else f"the model's own forward ({described})"
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return f"{where} failed on an input of shape {shapes}: {lines[0]}"


def _shapes(args: Any) -> str:
    shapes = [tuple(leaf.shape) for leaf in tree_leaves(args) if isinstance(leaf, Tensor)]
    return ", ".join(map(str, shapes)) or "()"
