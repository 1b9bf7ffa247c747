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

from torch import Tensor
from torch.utils._pytree import tree_leaves

DRAWN = 32  # batches whose sizes are compared; their mean is then known to a fifth of its scatter


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


def draw(batches: Iterator[Any]) -> Drawn:
    """Draw two batches, and more where those differ; ``batches`` has at least one."""
    drawn = list(islice(batches, 2))
    sizes = [elements(batch) for batch in drawn]
    if len(set(sizes)) == 1:
        return Drawn(drawn[0], drawn[0], sizes[0])
    for batch in islice(batches, DRAWN - 2):
        drawn.append(batch)
        sizes.append(elements(batch))
    mean = fmean(sizes)
    typical = min(range(len(drawn)), key=lambda i: abs(sizes[i] - mean))
    largest = max(range(len(drawn)), key=lambda i: sizes[i])
    return Drawn(drawn[typical], drawn[largest], mean)
