"""Which batches stand for an epoch where they differ in size: padded text, images of many sizes.

elements of each batch drawn     ▂▅▃▆▄▃▇▄▅ …      padding included, for it is computed too
typical                          the one nearest to their mean: what a step costs
largest                          what the memory must hold
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from statistics import fmean
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from epochcast.profiler.loop import TrainingLoop

DRAWN = 32  # batches whose sizes are compared; their mean is then known to a fifth of its scatter
ALIKE = 64  # samples in batches of one size, after which all are taken to be of that size


@dataclass(frozen=True)
class Drawn:
    """Batches that stand for all; both are the same where all are of one size.

    Attributes:
        mean_elements: of all batches drawn.
    """

    typical: Any
    largest: Any
    mean_elements: float

    @property
    def varies(self) -> bool:
        """Whether batches differ in size."""
        return self.typical is not self.largest


def elements(batch: Any) -> int:
    """Elements of all tensors of a batch, padding included."""
    return sum(leaf.numel() for leaf in tree_leaves(batch) if isinstance(leaf, Tensor))


def draw(batches: Iterator[Any], batch_size: int) -> Drawn:
    """Draw until it is clear whether batches differ, and more where they do.

    Small batches vary most, and many of them are drawn as fast as two large ones.

    Args:
        batches: at least one.
        batch_size: samples in each.
    """
    enough = min(DRAWN, max(2, -(-ALIKE // batch_size)))
    drawn, sizes = [], []
    for batch in islice(batches, DRAWN):
        drawn.append(batch)
        sizes.append(elements(batch))
        if len(drawn) == enough and len(set(sizes)) == 1:
            break
    mean = fmean(sizes)
    typical = min(range(len(drawn)), key=lambda i: abs(sizes[i] - mean))
    largest = max(range(len(drawn)), key=lambda i: sizes[i])
    return Drawn(drawn[typical], drawn[largest], mean)


def draw_for(loop: TrainingLoop) -> Drawn:
    """Draw a loop's batches in this process, the same whenever this is asked."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        return draw(iter(loop.train_loader(in_process=True)), loop.config.batch_size)
