"""The epochs after which something is done, as ranges: a run of a million epochs has a few.

    2, 4, 6, …, 1,000,000, 1,000,001   ──ranges_of──▶   2 … 1,000,000 every 2;  1,000,001

``EpochSequence`` is such ranges read as the epochs that they stand for, without listing them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise
from typing import overload

from epochcast.records.validation import require


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochRange:
    """Epochs that are evenly apart: ``first``, ``first + every``, …, ``last``."""

    first: int
    last: int
    every: int = 1

    def __post_init__(self) -> None:
        require(self.first >= 1, f"a range of epochs begins at epoch 1, but got {self.first}")
        require(self.every >= 1, f"every must be at least 1, but got {self.every}")
        whole = self.last >= self.first and (self.last - self.first) % self.every == 0
        require(
            whole,
            f"the last epoch of a range must be first, first + every and so on, but got {self}",
        )

    @property
    def epochs(self) -> range:
        """All of them."""
        return range(self.first, self.last + 1, self.every)


class EpochSequence(Sequence[int]):
    """Increasing epochs, read from their ranges: how many there are, which, and up to where.

    Raises:
        ValueError: the ranges do not follow each other.
    """

    def __init__(self, ranges: tuple[EpochRange, ...]) -> None:
        require_increasing(ranges)
        self.ranges = ranges
        self._parts = [one.epochs for one in ranges]
        self._firsts = [one.first for one in ranges]
        self._before = list(accumulate(map(len, self._parts), initial=0))

    def __repr__(self) -> str:
        return f"EpochSequence({self.ranges})"

    def __len__(self) -> int:
        return self._before[-1]

    def __iter__(self) -> Iterator[int]:
        return chain.from_iterable(self._parts)

    def __contains__(self, epoch: object) -> bool:
        if not isinstance(epoch, int):
            return False
        part = bisect_right(self._firsts, epoch) - 1
        return part >= 0 and epoch in self._parts[part]

    @overload
    def __getitem__(self, position: int) -> int: ...
    @overload
    def __getitem__(self, position: slice) -> tuple[int, ...]: ...
    def __getitem__(self, position: int | slice) -> int | tuple[int, ...]:
        if isinstance(position, slice):
            return tuple(self[i] for i in range(*position.indices(len(self))))
        at = position + len(self) if position < 0 else position
        if not 0 <= at < len(self):
            raise IndexError(position)
        part = bisect_right(self._before, at) - 1
        return self._parts[part][at - self._before[part]]

    def until(self, epoch: int) -> int:
        """How many there are up to and including an epoch."""
        part = bisect_right(self._firsts, epoch) - 1
        if part < 0:
            return 0
        of = self._parts[part]
        return self._before[part] + min(len(of), (epoch - of.start) // of.step + 1)


def require_increasing(ranges: Sequence[EpochRange]) -> None:
    """Refuse ranges that overlap, or are not in the order of their epochs."""
    in_order = all(a.last < b.first for a, b in pairwise(ranges))
    require(in_order, "ranges of epochs must follow each other")


def ranges_of(epochs: Iterable[int]) -> tuple[EpochRange, ...]:
    """The ranges that stand for increasing epochs, each as long as its steps are equal."""
    parts: list[tuple[int, int, int]] = []  # first, last, every; 0 of a single one
    for epoch in epochs:
        first, last, every = parts[-1] if parts else (epoch, epoch, -1)
        if every in (0, epoch - last):
            parts[-1] = (first, epoch, epoch - last)
        else:
            parts.append((epoch, epoch, 0))
    return tuple(EpochRange(first=a, last=b, every=every or 1) for a, b, every in parts)
