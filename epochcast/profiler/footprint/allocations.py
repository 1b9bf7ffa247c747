"""Every storage of one type of device, from the operator that made it until it is freed.

    watch(tensors) ──▶ +1 +2 +3 … in ``events``, and a weak reference to each storage
    storage freed  ──▶ −2
    resized        ──▶ +4 −1: a copy is made before the old block goes

What kernels allocate inside for a moment (workspaces) is not seen; a device offset accounts for it.

The module that an operator belongs to is known in the forward pass and in the backward pass:

    forward     hooks keep a stack of names                        "", "GPT", "blocks.0", …
    backward    autograd numbers its nodes as the forward pass makes them, so the number of
                the node at work falls between the numbers noted when modules began and ended
"""

from __future__ import annotations

import weakref
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from epochcast.devices.replay import step_reserve
from epochcast.profiler.footprint.cuda.workspaces import cublas_workspace_bytes
from epochcast.records import Timeline
from epochcast.records.footprint import BlockKind

Phase = Literal["forward", "backward", "update"]

OUTSIDE = ""  # of any module: the loss function, the optimizer


class Allocations:
    """Counts the live bytes of storages and writes down their order.

    Attributes:
        phase: of the training step; set by ``enter``.
        live_bytes: sum of the storages alive now.
        peak_bytes: largest ``live_bytes`` seen, by phase.
        events: number of the block + 1 for each allocation, negative for each free.
    """

    def __init__(self, device_type: str) -> None:
        self.phase: Phase = "forward"
        self.live_bytes = 0
        self.peak_bytes: Counter[Phase] = Counter()
        self.events: list[int] = []
        self._device_type = device_type
        self._alive: dict[int, tuple[Any, int]] = {}  # storage → weak reference, block
        self._bytes: list[int] = []
        self._kinds: list[BlockKind] = []
        self._operators: list[str | None] = []
        self._modules: list[str | None] = []

    def enter(self, phase: Phase) -> None:
        """What follows belongs to another phase of the step."""
        self.phase = phase
        self._note_peak()

    def watch(
        self,
        tensors: Iterable[Tensor],
        kind: BlockKind,
        operator: str | None = None,
        module: str | None = None,
    ) -> None:
        """Count the storages of some tensors from now until they are freed; known ones once.

        Args:
            tensors: of which those on this type of device are counted.
            kind: what their blocks are for.
            operator: that made them; None for what was there before the step.
            module: that the operator belongs to.
        """
        for storage in self._storages(tensors):
            if storage._cdata in self._alive:
                self._resize(storage)
            else:
                self._add(storage, kind, operator, module)

    def refresh(self, tensors: Iterable[Tensor]) -> None:
        """Notice known storages that have another size now."""
        for storage in self._storages(tensors):
            if storage._cdata in self._alive:
                self._resize(storage)

    def relabel(self, tensors: Iterable[Tensor], kind: BlockKind) -> int:
        """Say what the blocks of some tensors turned out to be for; their bytes."""
        blocks = {self._alive[s._cdata][1] for s in self._storages(tensors)}
        for block in blocks:
            self._kinds[block] = kind
        return sum(self._bytes[block] for block in blocks)

    def relabel_kept(self, first: int) -> None:
        """Say that what was made from a block on and is there still, for no purpose that is known,
        is kept for later steps: averages of the weights, say."""
        for _, block in self._alive.values():
            if block >= first and self._kinds[block] in ("activation", "other"):
                self._kinds[block] = "kept"

    @property
    def next_block(self) -> int:
        """Number of the block that will be made next."""
        return len(self._bytes)

    def alive_bytes(self, kind: BlockKind) -> int:
        """Bytes of the blocks of a kind that are there now."""
        alive = (block for _, block in self._alive.values())
        return sum(self._bytes[block] for block in alive if self._kinds[block] == kind)

    def reserve_bytes(self) -> int:
        """What torch's caching allocator would hold for three such steps, on the GPU that is here,
        or on one like most."""
        blocks = enumerate(self._kinds)
        lasting = [n for n, kind in blocks if kind in ("parameter", "buffer")]
        states = [n for n, kind in enumerate(self._kinds) if kind == "optimizer"]
        here = torch.cuda.is_available()
        workspace = cublas_workspace_bytes(torch.cuda.get_device_capability() if here else (8, 0))
        return step_reserve(self._bytes, self.events, lasting, states, workspace)

    def timeline(self, forward_end: int, step_end: int) -> Timeline:
        """All of it as a record."""
        operators, modules = _Names(), _Names()
        return Timeline(
            block_bytes=tuple(self._bytes),
            block_kinds=tuple(self._kinds),
            block_operators=tuple(map(operators.position, self._operators)),
            block_modules=tuple(map(modules.position, self._modules)),
            operators=tuple(operators.known),
            modules=tuple(modules.known),
            events=tuple(self.events),
            forward_end=forward_end,
            step_end=step_end,
        )

    def _storages(self, tensors: Iterable[Tensor]) -> Iterator[torch.UntypedStorage]:
        for tensor in tensors:
            if tensor.device.type == self._device_type:
                yield from (part.untyped_storage() for part in dense_parts(tensor))

    def _add(
        self,
        storage: torch.UntypedStorage,
        kind: BlockKind,
        operator: str | None,
        module: str | None,
    ) -> None:
        identity = storage._cdata
        block = self._open(storage.nbytes(), kind, operator, module)
        self._alive[identity] = weakref.ref(storage, partial(self._forget, identity)), block

    def _open(self, size: int, kind: BlockKind, operator: str | None, module: str | None) -> int:
        block = len(self._bytes)
        self._bytes.append(size)
        self._kinds.append(kind)
        self._operators.append(operator)
        self._modules.append(module)
        self.events.append(block + 1)
        self.live_bytes += size
        self._note_peak()
        return block

    def _forget(self, identity: int, _: Any) -> None:
        _, block = self._alive.pop(identity)
        self._free(block)

    def _free(self, block: int) -> None:
        self.events.append(-(block + 1))
        self.live_bytes -= self._bytes[block]

    def _resize(self, storage: torch.UntypedStorage) -> None:
        _, block = self._alive[storage._cdata]
        if self._bytes[block] != storage.nbytes():
            self._add(storage, self._kinds[block], self._operators[block], self._modules[block])
            self._free(block)

    def _note_peak(self) -> None:
        self.peak_bytes[self.phase] = max(self.peak_bytes[self.phase], self.live_bytes)


class _Names:
    """Texts by their first appearance; None is −1."""

    def __init__(self) -> None:
        self.known: dict[str, int] = {}

    def position(self, name: str | None) -> int:
        return -1 if name is None else self.known.setdefault(name, len(self.known))


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


def operands(value: Any) -> Iterator[Tensor]:
    """The tensors among an operator's arguments or results, which nest no deeper than lists.

    Called for every operator: a general walk of trees takes ten times as long.
    """
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from operands(item)


def dense_parts(tensor: Tensor) -> tuple[Tensor, ...]:
    """The tensors with storage of which a tensor consists: itself unless it is sparse."""
    if tensor.layout == torch.strided:
        return (tensor,)
    if tensor.layout == torch.sparse_coo:
        return tensor._indices(), tensor._values()
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return tensor.crow_indices(), tensor.col_indices(), tensor.values()
    if tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        return tensor.ccol_indices(), tensor.row_indices(), tensor.values()
    return ()  # MKL-DNN's own layout: its memory has no storage
