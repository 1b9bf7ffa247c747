"""What a script does, epoch by epoch, from the events of the process that leads. Pure.

    training pass ─────────┬ evaluation ┬ save ┬ training pass ─────
    └──────────── one epoch: ``EpochSeen`` ────┘        its seconds leave out evaluations and saves

An epoch begins with a pass of the loader that is trained with, or after so many steps where there
is none to tell. Within one, blocks of steps say how fast it goes (``Pace``); what they say of the
rest is the local-level model of ``guard/forecast.py``, a block being what occurs again and again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import msgspec

from epochcast.guard.forecast import Forecast, Level, Work
from epochcast.scripts import events as e
from epochcast.scripts.timeline import OFTEN, ProcessTimeline

LASTING = (
    e.Began,
    e.TorchLoaded,
    e.ProcessGroup,
    e.Loader,
    e.Optimizer,
    e.Feature,
    e.Declared,
)  # beyond an epoch
NO_OPTIMIZER = 256  # backward calls without a step: there is none, and they are what counts
BLOCK_SECONDS = 0.5  # of steps, at least: shorter blocks tell of single steps
BLOCKS = 30  # of the time so far, in the latest block
WARM_UP = 3  # steps of a process
UNKNOWN = Level(planned=None)
MANY = 20_000  # steps of an epoch, of which every one is kept until its end
FORGOTTEN = 0.8  # of the longest gap so far, with each that follows
AT_ODDS = 1.25  # with its plan, a first epoch: its plan knows of more than steps
AHEAD = 2.0  # blocks to come, for each that was seen
ENOUGH_BLOCKS = 4  # to say something of those to come


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochSeen:
    """An epoch that is over.

    Attributes:
        number: from 1.
        began, ended: its moments.
        seconds: without evaluations and saves.
        steps: of optimizers.
        evaluations, saves: seconds of each.
        whole: whether it came to its end.
    """

    number: int
    began: float
    ended: float
    seconds: float
    steps: int
    evaluations: tuple[float, ...] = ()
    saves: tuple[float, ...] = ()
    whole: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast an epoch goes.

    Attributes:
        level: seconds of a batch, block by block.
        batches: of the latest block.
        slowest: seconds of the slowest step of late.
        mark: moment and batches at which the present block began; None while nothing is timed.
    """

    level: Level = UNKNOWN
    batches: float = 1.0
    slowest: float = 0.0
    mark: tuple[float, float] | None = None

    def interrupted(self) -> Pace:
        """Something that is no step goes on: the next block begins after it."""
        return replace(self, mark=None)

    def saw(self, at: float, batches: float, block_seconds: float) -> Pace:
        """A step was over.

        Args:
            at: when.
            batches: of the epoch by then.
            block_seconds: that a block is to last.
        """
        if self.mark is None:
            return replace(self, mark=(at, batches))
        began, before = self.mark
        seconds, done = at - began, batches - before
        if done <= 0 or seconds < block_seconds:
            return self
        level = self.level.update(seconds / done)
        slowest = max(0.7 * self.slowest, seconds / done)
        return replace(self, level=level, batches=done, slowest=slowest, mark=(at, batches))

    @property
    def is_known(self) -> bool:
        """Whether there is enough to go by, and the latest block is no surprise."""
        return self.level.seen >= ENOUGH_BLOCKS and self.level.doubt is None

    def forecast(self, others: Forecast, batches: float) -> tuple[Forecast, float]:
        """For so many batches: a forecast whose "epochs" are blocks, and how many of them.

        A level that moves from block to block may be anywhere after a thousand; so they are taken
        to be as long as makes them few times as many as were seen.

        Args:
            others: of evaluations and saves.
            batches: that are to come.
        """
        count = min(batches / self.batches, AHEAD * self.level.seen)
        planned = (self.level.planned or 0.0) * (batches / count if count else self.batches)
        return replace(others, epoch=replace(self.level, planned=planned)), count


class Tracker:
    """Follows one process.

    Args:
        steps_per_epoch: where no loader says how long an epoch is.
        in_segments: whether so many steps are an epoch whatever a loader says.

    Attributes:
        per_epoch: steps of an epoch, where no loader says how long one is; None if nobody knows.
        steps: of optimizers, in all.
        batches: of the present epoch.
        begun_at: when the present epoch began; None before the first step.
        last_at: when the last step was over.
        pace: of the present epoch and those before it.
        gap_after: seconds between the last step of a pass and the first of the next, the longest of
            late; ``gap_within`` of two steps in a pass, with something else in between.
        saved: what was saved last, and how long that took; None before.
    """

    def __init__(self, steps_per_epoch: int | None = None, in_segments: bool = False) -> None:
        self.per_epoch, self._in_segments = steps_per_epoch, in_segments
        self._lasting: list[e.Event] = []
        self._window: list[e.Event] = []
        self._loader: int | None = None
        self._pass: int | None = None
        self._steps_before = 0
        self._backwards = self._regions = 0
        self._number = 1
        self._quiet = False
        self._new: list[EpochSeen] = []
        self.steps = 0
        self.batches = 0.0
        self.begun_at: float | None = None
        self.last_at = 0.0
        self.first_at = 0.0
        self.pace = Pace()
        self.gap_after = self.gap_within = 0.0
        self.saved: e.Save | None = None
        self.ended: e.Ended | None = None

    # -- what is known ----------------------------------------------------------------------------

    def of_kind(self, kind: type[e.Event]) -> list[e.Event]:
        """What was said once and lasts: loaders, optimizers, features, …"""
        return [event for event in self._lasting if isinstance(event, kind)]

    @property
    def lasting(self) -> Sequence[e.Event]:
        """What was said once and lasts."""
        return self._lasting

    @property
    def rank(self) -> int:
        """Of this process among those that train together."""
        worlds = [event.rank for event in self._lasting if isinstance(event, e.ProcessGroup)]
        began = [event.rank for event in self._lasting if isinstance(event, e.Began)]
        return worlds[-1] if worlds else next((rank for rank in began if rank is not None), 0)

    @property
    def loader(self) -> e.Loader | None:
        """That is trained with."""
        found = (x for x in self._lasting if isinstance(x, e.Loader) and x.number == self._loader)
        return next(found, None)

    @property
    def by_steps(self) -> bool:
        """Whether epochs are so many steps, no loader having any that end."""
        loader = self.loader
        if self._in_segments:
            return True
        return loader is None or (loader.batches is None and self.per_epoch is not None)

    @property
    def batches_an_epoch(self) -> int | None:
        """As the loader says, or as was given; None if nobody knows."""
        loader = self.loader
        return self.per_epoch if loader is None or self.by_steps else loader.batches

    @property
    def epoch_steps(self) -> int:
        """Optimizer steps of the present epoch."""
        return self.steps - self._steps_before

    @property
    def done(self) -> int:
        """Epochs that are over."""
        return self._number - 1

    @property
    def share_done(self) -> float:
        """Of the present epoch; 0 if it is not known how long it is."""
        whole = self.batches_an_epoch
        return min(1.0, self.batches / whole) if whole else 0.0

    @property
    def evaluating(self) -> bool:
        """Whether something other than training goes on."""
        return self._quiet

    def take(self) -> list[EpochSeen]:
        """The epochs that ended since the last call."""
        new, self._new = self._new, []
        return new

    # -- what happens -----------------------------------------------------------------------------

    def see(self, event: e.Event) -> None:
        """One more event of the process, in order."""
        if isinstance(event, LASTING):
            self._lasting.append(event)
            return
        self._remember(event)
        if isinstance(event, e.Steps):
            self._stepped(event)
        elif isinstance(event, e.Backwards):
            self._backwards += len(event.steps)
            if not self._optimizes and self._backwards > NO_OPTIMIZER:
                self._stepped(event)
        elif isinstance(event, e.Save):
            self.saved = event
            self.pace = self.pace.interrupted()
        elif isinstance(event, e.SaveRenamed) and self.saved is not None:
            self.saved = msgspec.structs.replace(self.saved, path=event.path)
        elif isinstance(event, e.Mode):
            self._quiet = not event.training
            self.pace = self.pace.interrupted()
        elif isinstance(event, e.PassBegan):
            self._quiet = event.loader != self._loader and self._loader is not None
            self.pace = self.pace.interrupted()
        elif isinstance(event, e.Ended):
            self.ended = event

    def _remember(self, event: e.Event) -> None:
        """For the end of the epoch: everything, but of very many steps only some."""
        if self.epoch_steps <= MANY:
            self._window.append(event)
        elif isinstance(event, e.Steps | e.Backwards):
            self._window.append(_thinned(event))
        elif not isinstance(event, e.NoGrad) or self._regions < self.epoch_steps / OFTEN / 2:
            self._window.append(event)  # what is without gradients that often is part of the steps
        self._regions += isinstance(event, e.NoGrad)

    @property
    def _optimizes(self) -> bool:
        return any(isinstance(event, e.Optimizer) for event in self._lasting)

    def _stepped(self, block: e.Steps | e.Backwards) -> None:
        if self.begun_at is None:
            self._loader, self._pass = block.loader, block.pass_
            self.begun_at = self._began(block.pass_, block.steps[0].at)
            self.first_at = self.begun_at
        elif not self.by_steps and self._begins_another(block):
            self._close(self._began(block.pass_, block.steps[0].at), block.pass_)
        for step in block.steps:
            self._step(step, block)
        self._quiet = False

    def _begins_another(self, block: e.Steps | e.Backwards) -> bool:
        return block.loader == self._loader and block.pass_ != self._pass

    def _step(self, step: e.Step, block: e.Steps | e.Backwards) -> None:
        if self.by_steps and self.per_epoch and self.epoch_steps >= self.per_epoch:
            self._close(self.last_at, None)
        self.steps += 1
        if self.pace.mark is None and self.steps > 1:
            self._gap(step.at - self.last_at)
        own = self.by_steps or block.loader != self._loader
        self.batches = float(self.epoch_steps) if own else float(step.batches)
        self.last_at = step.at
        if self.steps > WARM_UP:
            lasts = max(BLOCK_SECONDS, (step.at - self.first_at) / BLOCKS)
            self.pace = self.pace.saw(step.at, self.batches, lasts)

    def _gap(self, seconds: float) -> None:
        """Something that was no step lay between two steps: in which a script does not listen."""
        name = "gap_after" if self.epoch_steps == 1 and not self.by_steps else "gap_within"
        setattr(self, name, max(seconds, FORGOTTEN * getattr(self, name)))

    def _began(self, pass_: int | None, otherwise: float) -> float:
        for event in self._window:
            if isinstance(event, e.PassBegan) and event.number == pass_:
                return event.at
        before = [x.at for x in self._window if isinstance(x, e.Mode | e.NoGrad | e.Save)]
        before += [x.at for x in self._lasting if isinstance(x, e.TorchLoaded)]
        return max((at for at in before if at < otherwise), default=otherwise)

    def _close(self, ended: float, next_pass: int | None) -> None:
        """The present epoch is over, and another begins with a pass or where steps end."""
        self._new.append(self._seen(ended, whole=True))
        self._number += 1
        self._steps_before, self._pass = self.steps, next_pass
        self.begun_at, self.batches, self._regions = ended, 0.0, 0
        self._window = [x for x in self._window if _reaches(x, ended)]
        self.pace = self.pace.interrupted()

    def _seen(self, ended: float, whole: bool) -> EpochSeen:
        began = self.begun_at or 0.0
        own = [event for event in self._window if _begins(event) <= ended]
        timeline = ProcessTimeline([*self._lasting, *own])

        def of(occasions: Sequence[object]) -> tuple[float, ...]:
            return tuple(x.seconds for x in occasions if began <= x.began < ended)  # type: ignore[attr-defined]

        return EpochSeen(
            number=self._number,
            began=began,
            ended=ended,
            seconds=timeline.seconds(began, ended),
            steps=self.epoch_steps,
            evaluations=of(timeline.evaluations),
            saves=of(timeline.saves),
            whole=whole,
        )

    def finish(self) -> None:
        """The process has ended: so has its epoch, whole or not."""
        if self.begun_at is None or not self.epoch_steps:
            return
        kinds = e.Steps | e.PassEnded | e.Save | e.NoGrad | e.Mode | e.Backwards
        ended = max(x.at for x in self._window if isinstance(x, kinds))
        said = [x.at for x in self._lasting if isinstance(x, e.Feature) and x.name == "trained"]
        ended = min([ended, *(at for at in said if at >= self.last_at)])
        whole = self._is_whole()
        self._new.append(self._seen(max(ended, self.last_at), whole))
        self._number += whole
        self._steps_before = self.steps if whole else self._steps_before

    def _is_whole(self) -> bool:
        ends = [x for x in self._window if isinstance(x, e.PassEnded) and x.number == self._pass]
        if ends and ends[-1].outcome == "exhausted":
            return True
        return self.share_done >= 1.0


def _thinned(block: e.Steps | e.Backwards) -> e.Steps | e.Backwards:
    """With its first and last steps alone: as many as tell what is rare from what is not."""
    ends = OFTEN + 2
    if len(block.steps) <= 2 * ends:
        return block
    return msgspec.structs.replace(block, steps=(*block.steps[:ends], *block.steps[-ends:]))


def _begins(event: e.Event) -> float:
    return event.steps[0].at if isinstance(event, e.Steps | e.Backwards) else event.at


def _reaches(event: e.Event, moment: float) -> bool:
    """Whether an event is of what comes after a moment, or is the last step before it."""
    if isinstance(event, e.Steps | e.Backwards):
        return event.steps[-1].at >= moment
    return event.at >= moment


def work_left(
    tracker: Tracker, forecast: Forecast, epochs: int, work: Work
) -> tuple[Forecast, Work] | None:
    """What is still to be done until the end of a run, and how long its parts take.

    Args:
        tracker: of the run.
        forecast: what was planned, and learned of whole epochs.
        epochs: of the run.
        work: evaluations and saves that are still to come.
    """
    later = max(0, epochs - tracker.done - 1)
    share = 1.0 - tracker.share_done if tracker.done < epochs else 0.0
    batches = tracker.batches_an_epoch
    if batches and _goes_by_steps(tracker.pace, forecast.epoch, batches):
        known, blocks = tracker.pace.forecast(forecast, (later + share) * batches)
        return known, replace(work, epochs=blocks)
    if forecast.epoch.planned is None:
        return None
    return forecast, replace(work, epochs=later + share)


def _goes_by_steps(pace: Pace, epoch: Level, batches: int) -> bool:
    """Whether the steps so far say more of epochs than what was planned, or seen of whole ones."""
    if epoch.seen or not pace.is_known:
        return False
    if epoch.planned is None:
        return True
    return not 1 / AT_ODDS < pace.level.median * batches / epoch.planned < AT_ODDS
