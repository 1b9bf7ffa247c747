"""What a plan counts in, passes over the data or optimizer steps, and what so many of either take.

    unit     so many of them are                          and begin passes over the data
    epoch    n passes                                     n
    step     seconds of the first n steps, in the order   those that they reach into
             of the loader, over those of one pass

Steps are counted as ``costmodel.epoch.taken`` does for a prediction: a last, smaller batch comes at
the end of a pass, and so does the restart of the loader. All else is the same for both, so that a
plan of steps has the same cadences, limits and rules as one of epochs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from epochcast.costmodel.epoch import Division, Whole, taken
from epochcast.costmodel.features import Array
from epochcast.costmodel.prices import Prices


class Unit(Protocol):
    """What a plan counts in."""

    @property
    def share(self) -> float:
        """Of a pass over the data, on average."""
        ...

    def passes(self, count: Whole) -> Array:
        """Passes over the data that take as long as so many."""
        ...

    def begun(self, count: Whole) -> Whole:
        """Passes over the data that so many begin."""
        ...


@dataclass(frozen=True, slots=True)
class InEpochs:
    """Whole passes over the data."""

    share: float = 1.0

    def passes(self, count: Whole) -> Array:
        return np.asarray(count)

    def begun(self, count: Whole) -> Whole:
        return count


@dataclass(frozen=True, slots=True, kw_only=True)
class InSteps:
    """Optimizer steps, in the order in which a loader hands out batches.

    Attributes:
        division: of a pass over the data.
        accumulation: micro-batches of one optimizer step.
        full, partial, update: seconds of a micro-batch of full size, of the last, smaller one and
            of an optimizer update; medians.
    """

    division: Division[int]
    accumulation: int
    full: float
    partial: float
    update: float

    @classmethod
    def of(cls, division: Division[int], accumulation: int, prices: Prices) -> InSteps:
        """As they are priced.

        Args:
            division: of a pass over the data.
            accumulation: micro-batches of one optimizer step.
            prices: of the same configuration.
        """
        updates = division.updates * prices.update_seconds
        full = prices.training.median - prices.partial_seconds - updates
        return cls(
            division=division,
            accumulation=accumulation,
            full=max(full, 0.0) / max(division.full, 1),
            partial=prices.partial_seconds,
            update=prices.update_seconds,
        )

    @property
    def share(self) -> float:
        return 1 / self.division.updates

    def passes(self, count: Whole) -> Array:
        whole = float(self._seconds(np.array(self.division.updates)))
        return np.asarray(self._seconds(count) / whole if whole else count * self.share)

    def begun(self, count: Whole) -> Whole:
        return taken(self.division, self.accumulation, count).begun

    def _seconds(self, count: Whole) -> Array:
        found = taken(self.division, self.accumulation, count)
        each = found.full * self.full + found.updates * self.update
        return np.asarray(each + found.partial * self.partial)
