"""How far a run has come, counted in one of its processes.

epochs done ─────────────────┐ the present one
─────────┬─────────┬─────────┼─────────┬─────▶
                             │ skipped │ step    skipped: done by an earlier process
"""

from __future__ import annotations

from epochcast.records import Position


class Progress:
    """Of one run, in one process of it.

    Args:
        epoch, step, steps: where the run goes on.
        planned_steps: calls of ``Guard.step`` in a whole epoch.

    Attributes:
        epoch: whole epochs done.
        step: of the present epoch.
        skipped: of these, what an earlier process did.
        first: whether the present epoch is the first of this process.
        seen_steps: as ``planned_steps``, of the last whole epoch; None before its end.
    """

    __slots__ = ("_before", "epoch", "first", "planned_steps", "seen_steps", "skipped", "step")

    def __init__(self, epoch: int, step: int, steps: int, planned_steps: int) -> None:
        self.epoch, self.step, self.skipped = epoch, step, 0
        self.first = True
        self.planned_steps = planned_steps
        self.seen_steps: int | None = None
        self._before = steps - step

    @property
    def position(self) -> Position:
        """How far the run has come."""
        return Position(epoch=self.epoch, step=self.step, steps=self._before + self.step)

    @property
    def whole(self) -> bool:
        """Whether all of the present epoch is of this process."""
        return self.skipped == 0

    def begin_epoch(self) -> None:
        """The present epoch is trained from its first step."""
        self.step = self.skipped = 0

    def skip(self, steps: int) -> None:
        """It goes on where an earlier process left it."""
        self.step = self.skipped = steps

    def end_epoch(self) -> None:
        """One more is done."""
        if self.whole:
            self.seen_steps = self.step
        self._before += self.step
        self.epoch, self.step = self.epoch + 1, 0
