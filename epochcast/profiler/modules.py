"""Which module of a model is at work, in the forward pass and in the backward pass.

forward     hooks keep a stack of names                        "", "GPT", "blocks.0", …
backward    autograd numbers its nodes as the forward pass makes them, so the number of
            the node at work falls between the numbers noted when modules began and ended
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

OUTSIDE = ""  # the loss function, the optimizer


class ModuleScopes:
    """Names the module at work. Hooks are on this model's modules alone and only while ``on``.

    The model itself goes by the name of its class, its modules by their path in it.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._stack: list[str] = []
        self._starts: list[int] = []  # autograd's numbers, rising, and who began there
        self._names: list[str] = []

    @contextmanager
    def on(self) -> Iterator[None]:
        """Follow the model's modules."""
        handles: list[Any] = []
        for path, module in self._model.named_modules():
            name = path or type(self._model).__name__
            handles += [
                module.register_forward_pre_hook(self._enter(name)),
                # also after an error: checkpointing ends a recomputation by raising one
                module.register_forward_hook(self._leave, always_call=True),
            ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def current(self) -> str:
        """The module that the running operator belongs to."""
        if self._stack:
            return self._stack[-1]
        node = torch._C._current_autograd_node()
        if node is None:
            return OUTSIDE
        position = bisect_right(self._starts, node._sequence_nr()) - 1
        return self._names[position] if position >= 0 else OUTSIDE

    def _enter(self, name: str) -> Any:
        def enter(*_: Any) -> None:
            self._stack.append(name)
            self._note(name)

        return enter

    def _leave(self, *_: Any) -> None:
        self._stack.pop()
        self._note(self._stack[-1] if self._stack else OUTSIDE)

    def _note(self, name: str) -> None:
        self._starts.append(torch._C._autograd._get_sequence_nr())
        self._names.append(name)
