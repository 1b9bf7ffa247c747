"""Several processes of torch.distributed as ``guard.ranks.Ranks``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist


class Group:
    """All processes of the default group; they agree on the CPU, whatever they train on.

    A group of its own keeps its messages apart from those of the training.
    """

    def __init__(self) -> None:
        self._group = dist.new_group(backend="gloo")
        self.rank = dist.get_rank()
        self.size = dist.get_world_size()

    def most(self, values: Sequence[int]) -> list[int]:
        """The largest of each value over all processes; all must call it."""
        shared = torch.tensor(values, dtype=torch.int64)
        dist.all_reduce(shared, op=dist.ReduceOp.MAX, group=self._group)
        return [int(value) for value in shared.tolist()]
