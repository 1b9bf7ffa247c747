"""Evaluations as they were seen, and as they would be over whole loaders.

    seen     │ a │ e e e e ┊ cut       a until the first batch, e each batch, of every loader
    whole    │ a │ e e e e e e e e e   as many as the loader says

A measurement has one batch size of evaluation; where several loaders take part in one, their
batches are counted together, so that the sum is right.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import ceil
from statistics import median
from typing import Any

from epochcast.scripts.timeline import Occasion, Pass, ProcessTimeline


@dataclass(frozen=True)
class Evaluations:
    """All of one process.

    Attributes:
        timeline: of the process.
        batch_size: that it trains with, as measurements have it.
        loader_batch: the same as the training loader says; None without one.
    """

    timeline: ProcessTimeline
    batch_size: int
    loader_batch: int | None

    @cached_property
    def occasions(self) -> list[Occasion]:
        """Each of them."""
        return self.timeline.evaluations

    @cached_property
    def _passes(self) -> dict[int, list[Pass]]:
        """Of each loader that evaluates, without the first one where there are several."""
        found: dict[int, list[Pass]] = {}
        for one in self.occasions:
            for p in one.passes:
                found.setdefault(p.loader, []).append(p)
        return {number: of_it[1:] or of_it for number, of_it in found.items()}

    def _length(self, number: int) -> int:
        """Batches of a whole pass over a loader."""
        loader = self.timeline.loaders.get(number)
        seen = max(p.batches for p in self._passes[number])
        return max(1, (loader.batches or seen) if loader else seen)

    @cached_property
    def _main(self) -> int | None:
        """The loader with most batches; None where there is none."""
        return max(self._passes, key=self._length, default=None)

    @cached_property
    def own_batch_size(self) -> int | None:
        """Of the evaluation; None where it is that of the training."""
        if self._main is None:
            return 1 if self.occasions else None
        loader = self.timeline.loaders.get(self._main)
        found = loader.batch_size if loader else None
        if found is None and loader and loader.samples and loader.batches:
            found = ceil(loader.samples / loader.batches)
        found = found or 1
        return None if found == self.loader_batch else found

    def whole_seconds(self, one: Occasion) -> float:
        """Of an evaluation over whole loaders, at the pace of its passes; of a save its own."""
        if not one.passes:
            return one.seconds
        return sum(p.restart_seconds + self._length(p.loader) * p.batch_seconds for p in one.passes)

    @cached_property
    def fields(self) -> dict[str, Any]:
        """What a measurement has of evaluations; nothing without any."""
        typical, number = self.occasions[1:] or self.occasions, self._main
        if not typical:
            return {}
        if number is None:
            return {"eval_samples": 1, "eval_batch_seconds": tuple(x.seconds for x in typical)}
        usual = [x for x in typical if any(p.loader == number for p in x.passes)] or typical
        batches = round(median(sum(self._length(p.loader) for p in x.passes) for x in usual))
        restarts = [sum(p.restart_seconds for p in x.passes) for x in usual]
        pairs = zip(usual, restarts, strict=True)
        return {
            "eval_samples": self._samples(number, batches),
            "eval_batch_seconds": tuple(
                max(0.0, self.whole_seconds(x) - restart) / batches for x, restart in pairs
            ),
            "eval_restart_seconds": tuple(restarts),
        }

    def _samples(self, number: int, batches: int) -> int:
        """As the loader says, if that makes as many batches."""
        at_once = self.own_batch_size or self.batch_size
        loader = self.timeline.loaders.get(number)
        known = loader.samples if loader else None
        if known and ceil(known / at_once) == batches:
            return known
        return batches * at_once
