"""The events of one process in order: steps, passes, evaluations and saves, and where time went.

    passes       │ began ── first batch ─ … ─ last step │ evaluation │ save │ began ──
    training     └──────────────────────────────────────┘            │      │
    windows      └──────────────────── one epoch ───────────────────────────┘

A pass trains if there is a backward during it; the others are evaluations, and so are stretches in
``eval()`` mode without any pass. What happens before the first step of all is part of the start.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise, zip_longest
from statistics import median
from typing import TypeVar

from epochcast.scripts import events as e

LEAST_REGION_SECONDS = 0.005  # without gradients: shorter ones are no evaluation
OFTEN = 10  # steps: what comes more often than that is part of the steps
Events = Mapping[int, Sequence[e.Event]]
_Kind = TypeVar("_Kind")


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """From one moment to another."""

    began: float
    ended: float

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.ended - self.began


@dataclass(frozen=True, slots=True, kw_only=True)
class Boundary:
    """The end of a step after which the next batch begins, when the device was done.

    Attributes:
        batches: drawn by then in its pass; of steps without a loader, the steps so far.
        index: of optimizer steps by then, in the process.
    """

    at: float
    batches: int
    waited: float
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """One iteration over a loader.

    Attributes:
        loader: its number.
        ended: None where the end was not seen.
        batches: that were drawn.
        exhausted: whether the loader had no more.
        left: whether the script left it before its end.
        first_batch_at: when it was there.
        trains: whether there was a backward during it.
        boundaries: of its steps.
        drawn: batches drawn by each of its steps that has more of them than the one before it, the
            device done or not.
    """

    loader: int
    began: float
    ended: float | None
    batches: int = 0
    exhausted: bool = False
    left: bool = False
    first_batch_at: float | None = None
    trains: bool = False
    boundaries: tuple[Boundary, ...] = ()
    drawn: tuple[int, ...] = ()

    @property
    def interval(self) -> Interval:
        """As far as it was seen."""
        last = max((b.at for b in self.boundaries), default=self.began)
        return Interval(began=self.began, ended=last if self.ended is None else self.ended)

    @property
    def restart_seconds(self) -> float:
        """Until the first batch is there."""
        return 0.0 if self.first_batch_at is None else max(0.0, self.first_batch_at - self.began)

    @property
    def batch_seconds(self) -> float:
        """Of one batch, the first wait apart."""
        first = self.began if self.first_batch_at is None else self.first_batch_at
        return max(0.0, self.interval.ended - first) / max(1, self.batches)


@dataclass(frozen=True, slots=True, kw_only=True)
class Occasion:
    """An evaluation, or a checkpoint: what there is of it without a step in between.

    Attributes:
        parts: intervals in which it goes on.
        passes: of an evaluation over loaders.
        bytes: of a checkpoint.
        index: optimizer steps before it, in the process.
    """

    parts: tuple[Interval, ...]
    passes: tuple[Pass, ...] = ()
    bytes: int = 0
    index: int = 0

    @property
    def began(self) -> float:
        """When it began."""
        return self.parts[0].began

    @property
    def seconds(self) -> float:
        """That it took."""
        return sum(part.seconds for part in self.parts)


def leading_process(events: Events) -> int | None:
    """The process that trains; of several the one of the lowest rank."""
    counted = {pid: sum(len(x.steps) for x in _steps(of_it)) for pid, of_it in events.items()}
    training = [pid for pid, count in counted.items() if count]
    return min(training, key=lambda pid: (rank(events[pid]), -counted[pid]), default=None)


def rank(events: Sequence[e.Event]) -> int:
    """Of a process among those that train together."""
    world, began = of_kind(events, e.ProcessGroup), of_kind(events, e.Began)
    return world[-1].rank if world else (began[0].rank or 0 if began else 0)


def of_kind(events: Iterable[e.Event], kind: type[_Kind]) -> list[_Kind]:
    """The events of one kind, in order."""
    return [event for event in events if isinstance(event, kind)]


def _steps(events: Iterable[e.Event]) -> Sequence[e.Steps | e.Backwards]:
    """Optimizer steps; backward calls where there are none."""
    of_it = list(events)
    return of_kind(of_it, e.Steps) or of_kind(of_it, e.Backwards)


@dataclass(frozen=True)
class ProcessTimeline:
    """What one process did, from its events in order."""

    events: Sequence[e.Event]

    @cached_property
    def blocks(self) -> Sequence[e.Steps | e.Backwards]:
        """Steps as they were reported."""
        return _steps(self.events)

    @property
    def by_backward(self) -> bool:
        """Whether there is no optimizer that steps."""
        return not of_kind(self.events, e.Steps)

    @cached_property
    def optimizer(self) -> e.Optimizer | None:
        """The first one."""
        return next(iter(of_kind(self.events, e.Optimizer)), None)

    @cached_property
    def on_accelerator(self) -> bool:
        """Whether kernels run behind."""
        return self.optimizer is not None and not self.optimizer.device.startswith("cpu")

    @cached_property
    def loaders(self) -> dict[int, e.Loader]:
        """By number."""
        return {loader.number: loader for loader in of_kind(self.events, e.Loader)}

    @cached_property
    def fetched(self) -> e.Loader | None:
        """The one of which single batches are taken for steps, if there is one."""
        told = [x.detail for x in of_kind(self.events, e.Feature) if x.name == "fetched"]
        return self.loaders.get(int(told[-1])) if told else None

    @cached_property
    def main_loader(self) -> int | None:
        """The one that most steps were made with; None where they have none."""
        counts: Counter[int | None] = Counter()
        for block in self.blocks:
            counts[block.loader] += len(block.steps)
        return counts.most_common(1)[0][0] if counts else None

    @cached_property
    def boundaries(self) -> dict[int | None, list[Boundary]]:
        """Of the steps of each pass, by its number; None where there is none."""
        found: dict[int | None, list[Boundary]] = {}
        flat = [
            (block.pass_, step, last and block.synchronized)
            for block in self.blocks
            for step, last in zip(block.steps, _last_of(len(block.steps)), strict=True)
        ]
        for index, (pass_, step, synchronized) in enumerate(flat, 1):
            following = flat[index] if index < len(flat) else None
            same_batch = (
                pass_ is not None
                and following is not None
                and following[0] == pass_
                and following[1].batches == step.batches
            )
            if same_batch or (self.on_accelerator and not synchronized):
                continue
            batches = index if pass_ is None else step.batches
            found.setdefault(pass_, []).append(
                Boundary(at=step.at, batches=batches, waited=step.waited, index=index)
            )
        return found

    @cached_property
    def drawn(self) -> dict[int | None, list[int]]:
        """Batches drawn by steps, without repetition, by the number of their pass."""
        found: dict[int | None, list[int]] = {}
        steps = 0
        for block in self.blocks:
            for step in block.steps:
                steps += 1
                of_it = found.setdefault(block.pass_, [])
                batches = steps if block.pass_ is None else step.batches
                if not of_it or batches > of_it[-1]:
                    of_it.append(batches)
        return found

    @cached_property
    def passes(self) -> list[Pass]:
        """All, in the order in which they began."""
        ended = {event.number: event for event in of_kind(self.events, e.PassEnded)}
        found = (
            self._pass(begun, ended.get(begun.number))
            for begun in of_kind(self.events, e.PassBegan)
        )
        return sorted(found, key=lambda one: one.began)

    def _pass(self, begun: e.PassBegan, ended: e.PassEnded | None) -> Pass:
        boundaries = tuple(self.boundaries.get(begun.number, ()))
        one = Pass(
            loader=begun.loader,
            began=begun.at,
            ended=None,
            trains=begun.number in self.boundaries,
            boundaries=boundaries,
            drawn=tuple(self.drawn.get(begun.number, ())),
        )
        if ended is None:
            return replace(one, batches=boundaries[-1].batches if boundaries else 0)
        return replace(
            one,
            ended=ended.at,
            batches=ended.batches,
            exhausted=ended.outcome == "exhausted",
            left=ended.outcome == "abandoned",
            first_batch_at=ended.first_batch_at,
            trains=one.trains or ended.backwards > 0 or ended.steps > 0,
        )

    @cached_property
    def training(self) -> list[Pass]:
        """Passes of the training loader in which something was trained; one of all steps where
        there is no loader, as long as they last."""
        if self.main_loader is not None:
            mine = [p for p in self.passes if p.loader == self.main_loader and p.trains]
            return [p for p in mine if p.boundaries]
        loose = tuple(self.boundaries.get(None, ()))
        if not loose:
            return []
        return [
            Pass(
                loader=-1,
                began=self._begin_of_loop(loose),
                ended=None,
                batches=loose[-1].batches,
                trains=True,
                boundaries=loose,
                drawn=tuple(self.drawn.get(None, ())),
            )
        ]

    def _begin_of_loop(self, boundaries: Sequence[Boundary]) -> float:
        """Of steps without a loader: when the first began, what is done before it apart."""
        first = boundaries[0].at
        before = [x.at for x in of_kind(self.events, e.Mode) if x.at < first]
        before += [x.at for x in of_kind(self.events, e.NoGrad) if x.at < first]
        before += [x.at for x in of_kind(self.events, e.Save) if x.at < first]
        loaded = [x.at for x in of_kind(self.events, e.TorchLoaded)]
        return max([*before, *loaded], default=first)

    @cached_property
    def ending(self) -> float | None:
        """When a miniature was over, or a framework's training; None where neither was seen."""
        told = next((x.at for x in of_kind(self.events, e.Ending)), None)
        return self._trained_at if told is None else told

    @property
    def _trained_at(self) -> float | None:
        """When a framework said that its training is over, and none followed."""
        said = [x.at for x in of_kind(self.events, e.Feature) if x.name == "trained"]
        return said[-1] if said and self._moments and said[-1] >= self._moments[-1] else None

    @property
    def ended_itself(self) -> bool:
        """Whether the script came to its own end, after a framework was told to stop or not."""
        return not any(x.attempt for x in of_kind(self.events, e.Ending))

    @cached_property
    def windows(self) -> list[Interval]:
        """Of each training pass, until the next one begins; the last only if its end was seen."""
        begins = [p.began for p in self.training]
        last = self.training[-1] if self.training else None
        if last is not None and self.ending is not None and last.ended is not None:
            later = [p.began for p in self.passes if self._marks_the_end(p, last)]
            begins.append(min([*later, self.ending]))
        return [Interval(began=a, ended=b) for a, b in pairwise(begins)]

    def _marks_the_end(self, one: Pass, last: Pass) -> bool:
        return one.loader == last.loader and one.began > last.began and not one.trains

    # -- evaluations and saves --------------------------------------------------------------------

    @cached_property
    def first_step_began(self) -> float:
        """When training began."""
        return self.training[0].began if self.training else 0.0

    @cached_property
    def evaluations(self) -> list[Occasion]:
        """Since training began: passes that do not train, or else stretches without any."""
        end = float("inf") if self.ending is None else self.ending
        passes = [
            p
            for p in self.passes
            if not p.trains
            and p.batches
            and not (self.fetched and p.loader == self.fetched.number)
            and self.first_step_began <= p.began < end
            and not self._steps_in(p.interval)  # else one of several that feed the same steps
        ]
        regions = [r for r in self._regions() if not any(_overlap(r, p.interval) for p in passes)]
        begun: list[tuple[Interval, tuple[Pass, ...]]] = [(p.interval, (p,)) for p in passes]
        begun += [(region, ()) for region in regions]
        found = [
            Occasion(parts=(interval,), passes=of_it, index=self.steps_before(interval.began))
            for interval, of_it in sorted(begun, key=lambda pair: pair[0].began)
        ]
        return merged(found)

    def _regions(self) -> list[Interval]:
        """In which a model evaluates without a loader, between steps."""
        found, modes = [], of_kind(self.events, e.Mode)
        for mode, following in zip_longest(modes, modes[1:]):
            if not mode.training and mode.at >= self.first_step_began:
                end = following.at if following else self._last_seen(mode.at)
                found.append(Interval(began=mode.at, ended=end))
        free = [Interval(began=x.began, ended=x.at) for x in of_kind(self.events, e.NoGrad)]
        outside = [r for r in free if r.began >= self.first_step_began and not _in_any(r, found)]
        found += [r for r in outside if not self._is_within_a_pass(r)]
        least = max(LEAST_REGION_SECONDS, self._usual_step)
        quiet = (r for r in found if not self._steps_in(r) and r.seconds > least)
        return self._rare(sorted(quiet, key=lambda r: r.began))

    @cached_property
    def _usual_step(self) -> float:
        """Seconds from one optimizer step to the next; what takes less is no evaluation."""
        gaps = [b - a for a, b in pairwise(self._moments)]
        return median(gaps) if gaps else 0.0

    def _rare(self, regions: Sequence[Interval]) -> list[Interval]:
        """Without those that come with every few steps, which are part of these."""
        before = [self.steps_before(r.began) for r in regions]
        gaps = sorted(b - a for a, b in pairwise(before) if b > a)
        often = gaps and gaps[len(gaps) // 2] < OFTEN
        if often and len(gaps) > 1:
            outside = [r for r in regions if not self._is_within_a_pass(r)]
            return outside if self.main_loader is not None else []
        return list(regions)

    def _last_seen(self, began: float) -> float:
        """The end of a stretch that nothing ends: the next step, or what was without gradients."""
        later = [b.at for b in self._all_boundaries if b.at > began]
        if later:
            return began  # it trains in eval() mode: no evaluation
        free = [x.at for x in of_kind(self.events, e.NoGrad) if x.at >= began]
        return max([began, *free])

    def _is_within_a_pass(self, region: Interval) -> bool:
        return any(p.trains and _in(region, p.interval) for p in self.passes)

    def _steps_in(self, region: Interval) -> int:
        return self.steps_before(region.ended) - self.steps_before(region.began)

    @cached_property
    def saves(self) -> list[Occasion]:
        """Checkpoints since training began."""
        found = [
            Occasion(
                parts=(Interval(began=x.began, ended=x.at),),
                bytes=x.bytes,
                index=self.steps_before(x.began),
            )
            for x in of_kind(self.events, e.Save)
            if x.began >= self.first_step_began and x.began < (self.ending or float("inf"))
        ]
        return merged(sorted(found, key=lambda one: one.began))

    @cached_property
    def _all_boundaries(self) -> list[Boundary]:
        every = (b for of_it in self.boundaries.values() for b in of_it)
        return sorted(every, key=lambda b: b.at)

    @cached_property
    def _moments(self) -> list[float]:
        return [step.at for block in self.blocks for step in block.steps]

    def steps_before(self, at: float) -> int:
        """Optimizer steps made by a moment."""
        return bisect_right(self._moments, at)

    @cached_property
    def aside(self) -> list[Interval]:
        """What is neither training nor its overhead: evaluations and saves, in order, apart."""
        parts = [part for one in (*self.evaluations, *self.saves) for part in one.parts]
        joined: list[Interval] = []
        for part in sorted(parts, key=lambda one: one.began):
            if joined and part.began <= joined[-1].ended:
                ended = max(part.ended, joined[-1].ended)
                joined[-1] = Interval(began=joined[-1].began, ended=ended)
            else:
                joined.append(part)
        return joined

    def seconds(self, began: float, ended: float) -> float:
        """Between two moments, without evaluations and saves."""
        beside = sum(max(0.0, min(ended, x.ended) - max(began, x.began)) for x in self.aside)
        return max(0.0, ended - began - beside)


def merged(occasions: Sequence[Occasion]) -> list[Occasion]:
    """Those that have no step between them as one."""
    found: list[Occasion] = []
    for one in occasions:
        if found and found[-1].index == one.index:
            last = found[-1]
            found[-1] = Occasion(
                parts=(*last.parts, *one.parts),
                passes=(*last.passes, *one.passes),
                bytes=last.bytes + one.bytes,
                index=one.index,
            )
        else:
            found.append(one)
    return found


def _last_of(count: int) -> list[bool]:
    return [i == count - 1 for i in range(count)]


def _overlap(a: Interval, b: Interval) -> bool:
    return a.began < b.ended and b.began < a.ended


def _in(a: Interval, b: Interval) -> bool:
    return b.began <= a.began and a.ended <= b.ended


def _in_any(a: Interval, others: Iterable[Interval]) -> bool:
    return any(_overlap(a, b) for b in others)
