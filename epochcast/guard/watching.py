"""The watch of an epoch: what of its time was training, and what is learned from it.

began    step … step    evaluation    save    now       training = now − began − aside
├─────────────────────┼──────────── aside ───┤
"""

from __future__ import annotations

from dataclasses import dataclass, field

from epochcast.guard.books import Books
from epochcast.guard.progress import Progress
from epochcast.guard.stepping import StepTimers
from epochcast.records import Quantiles


@dataclass(slots=True, kw_only=True)
class EpochSeen:
    """What happened in an epoch so far.

    Attributes:
        began: monotonic seconds.
        predicted: seconds that it was to take, evaluation and saves excluded.
        aside: seconds that were not training.
        evaluation, save: seconds; None if there was none.
        values: reported.
    """

    began: float
    predicted: Quantiles | None = None
    aside: float = 0.0
    evaluation: float | None = None
    save: float | None = None
    values: dict[str, float] = field(default_factory=dict)

    def training(self, now: float) -> float:
        """Seconds of it that were training."""
        return now - self.began - self.aside


class EpochWatch:
    """Of all epochs of one process; every ``now`` is in monotonic seconds.

    Attributes:
        seen: in the present epoch, or the one that has just ended.
        evaluating_since: when the evaluation began that goes on; None where none does.
    """

    def __init__(self, books: Books, progress: Progress, timers: StepTimers, now: float) -> None:
        self._books = books
        self._progress = progress
        self._timers = timers
        self.seen = EpochSeen(began=now)
        self.evaluating_since: float | None = None

    def begin_epoch(self, now: float, predicted: Quantiles) -> None:
        """Its training begins, and is to take so long."""
        self.seen = EpochSeen(began=now, predicted=predicted)
        self._timers.begin_epoch(now, self._progress.first)

    def skip(self, now: float) -> None:
        """Its training goes on here, where an earlier process left it."""
        self.seen.began = now
        self._timers.skip(now)

    def end_evaluation(self, now: float, aside: bool) -> None:
        """An evaluation, if one goes on, is over; it was part of no step.

        Args:
            aside: whether it was beside the training, as one that is planned, or part of the epoch.
        """
        if self.evaluating_since is None:
            return
        seconds = now - self.evaluating_since
        self.evaluating_since = None
        self._timers.at += seconds
        if aside:
            self.put_aside("evaluation", seconds)

    def put_aside(self, kind: str, seconds: float) -> None:
        """An ``"evaluation"`` or a ``"save"`` took so long, and so may those to come."""
        setattr(self.seen, kind, (getattr(self.seen, kind) or 0.0) + seconds)
        self.seen.aside += seconds
        self._books.learn(kind, seconds)

    def learn_epoch(self, seconds: float) -> bool:
        """Its training took so long; whether the pace has jumped."""
        if self._progress.first or not self._progress.whole:
            self._books.sample("first_epoch", seconds)
            return False
        self._books.learn("epoch", seconds)
        return self._books.ledger.pace.epoch.jumped
