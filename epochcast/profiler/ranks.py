"""Processes that train together, and how they agree on a number. torch is not imported here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol


class Ranks(Protocol):
    """How the processes of one run agree."""

    @property
    def rank(self) -> int:
        """Of this process; 0 decides."""
        ...

    @property
    def size(self) -> int:
        """How many processes there are."""
        ...

    def all_reduce_max(self, values: Sequence[int]) -> list[int]:
        """The largest of each value over all processes; all must call it."""
        ...


class Alone:
    """One process."""

    rank = 0
    size = 1

    def all_reduce_max(self, values: Sequence[int]) -> list[int]:
        return list(values)


class TorchRanks:
    """All processes of torch.distributed; they agree on the CPU, whatever they train on.

    A group of its own keeps its messages apart from those of the training.
    """

    def __init__(self, distributed: Any) -> None:
        self._distributed = distributed
        self._group = distributed.new_group(backend="gloo")
        self.rank: int = distributed.get_rank()
        self.size: int = distributed.get_world_size()

    def all_reduce_max(self, values: Sequence[int]) -> list[int]:
        """The largest of each value over all processes; all must call it."""
        import torch

        shared = torch.tensor(values, dtype=torch.int64)
        largest = self._distributed.ReduceOp.MAX
        self._distributed.all_reduce(shared, op=largest, group=self._group)
        return [int(value) for value in shared.tolist()]
