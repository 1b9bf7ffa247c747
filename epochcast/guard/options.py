"""How a run is followed, as whoever starts it wants it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to follow.

    Attributes:
        partial_epochs: whether to use up the budget with part of an epoch, where no whole one fits.
        keep_best: whether to save whenever the plan's metric is the best so far.
        rehearse: whether to save after the very first step, to find out at once that saving works
            and how long it takes.
        all_ranks_save: whether every process writes into the checkpoint (sharded models), or the
            first alone.
        per_update: whether ``step`` is called after each update of the weights, or after each of
            the batches that are accumulated for one.
    """

    partial_epochs: bool = True
    keep_best: bool = True
    rehearse: bool = True
    all_ranks_save: bool = False
    per_update: bool = False
