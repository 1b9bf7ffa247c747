"""Drives a loop and times it: warm-up to stability, steady steps, the loader alone, evaluation.

    one pass over the loader          │ next pass
    first batch │ step │ step │ … step │ restart, first batch │ step │ …
                  ▲ every step lasts from the end of the one before to its own end,
                    so waiting for data and queued device work are in it

Starting a pass, a loader restart, is measured apart: what the first step of a pass waits beyond an
ordinary step is taken out of it. The step itself stays in the series, so that every k-th still has
its update, and steps and restarts together are what a pass takes. Evaluation likewise.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from math import ceil
from statistics import fmean
from typing import Any

from epochcast.profiler.batches import elements
from epochcast.profiler.device import DeviceTimer, synchronize
from epochcast.profiler.loop import TrainingLoop, evaluating

STABLE_WITHIN = 0.10  # two windows differ by less: CPU medians repeat no better (benchmarks/)
WARMUP_LIMIT_SECONDS = 20.0  # then a noisy machine is measured as it is
MIN_WARMUP_UPDATES = 2  # an Adam-like optimizer allocates its state in the first
MIN_STEADY_STEPS = 5
PATIENCE = 4.0  # slow steps may stretch a phase to this many times its planned seconds
MAX_SAMPLES = 512  # beyond, consecutive steps are averaged: enough for any statistic here
MIN_EVAL_PERIODS = 3  # of loader bursts: an evaluation pass that has fewer is timed whole

Moment = tuple[Any, Any, float]  # start and end of a step on the device's timer; seconds waited


@dataclass
class StepTimes:
    """Aligned samples of steady micro-steps, in seconds; elements only where batches differ."""

    step: list[float] = field(default_factory=list)
    wait: list[float] = field(default_factory=list)
    update: list[float] = field(default_factory=list)
    elements: list[float] = field(default_factory=list)
    steps_per_sample: int = 1

    def thinned(self, period: int) -> StepTimes:
        """At most ``MAX_SAMPLES`` samples, each the mean of whole periods of consecutive steps."""
        run = _run_length(len(self.step), period)
        return StepTimes(
            step=_run_means(self.step, run),
            wait=_run_means(self.wait, run),
            update=_run_means(self.update, run),
            elements=_run_means(self.elements, run),
            steps_per_sample=run,
        )


def _run_length(count: int, period: int) -> int:
    return 1 if count <= MAX_SAMPLES else period * -(-count // (MAX_SAMPLES * period))


def _run_means(samples: list[float], run: int) -> list[float]:
    whole = len(samples) // run
    return [fmean(samples[i * run : (i + 1) * run]) for i in range(whole)]


class Stepper:
    """Steps a loop through one pass of its loader after another and marks the moments.

    Attributes:
        restarts: seconds from the end of each pass to the first batch of the next.
        updated: optimizer updates so far.
        elements: of the batch stepped last, padding included.
    """

    def __init__(self, loop: TrainingLoop, timer: DeviceTimer) -> None:
        self.loop = loop
        self.timer = timer
        self.loader = loop.train_loader()
        self.restarts: list[float] = []
        self.updated = 0
        self.elements = 0
        self._batches: Iterator[Any] = iter(self.loader)
        self._first_of_pass = True

    def step(self) -> tuple[float, list[tuple[Any, Any]], bool]:
        """A micro-step: seconds waited for data, its updates' moments, whether it began a pass."""
        batch, waited = self._next_batch()
        self.elements = elements(batch)
        began, self._first_of_pass = self._first_of_pass, False
        return waited, self.train(batch), began

    def train(self, batch: Any) -> list[tuple[Any, Any]]:
        """One micro-step on a given batch: the moments of its updates."""
        updates = self.loop.micro_step(batch, self.timer)
        # a step of the workload's own may update in ways that are not seen
        own = self.loop.workload.train_step is not None
        self.updated += bool(updates) or own or not self.loop.splits_update
        return updates

    def _next_batch(self) -> tuple[Any, float]:
        start = time.perf_counter()
        try:
            return next(self._batches), time.perf_counter() - start
        except StopIteration:
            synchronize(self.loop.device)
            start = time.perf_counter()
            batch = self._start_pass()
            self.restarts.append(time.perf_counter() - start)
            return batch, self.restarts[-1]

    def _start_pass(self) -> Any:
        self._batches = iter(())  # frees the old pass and its workers first, as a for loop does
        self._batches = iter(self.loader)
        self._first_of_pass = True
        return next(self._batches)

    def restart(self) -> None:
        """End this pass early and start the next, to time it."""
        synchronize(self.loop.device)
        start = time.perf_counter()
        self._start_pass()
        self.restarts.append(time.perf_counter() - start)

    def batches(self) -> Iterator[Any]:
        """Further batches, untimed."""
        while True:
            yield self._next_batch()[0]


def warm_up(stepper: Stepper, start: Any) -> list[float]:
    """Step until two successive windows agree; seconds of each step.

    Args:
        stepper: has made its first step.
        start: the moment of the stepper's timer when that step ended.
    """
    config, timer = stepper.loop.config, stepper.timer
    window = max(3, config.period)
    prefetched = ready_before_time(stepper.loader)
    seconds: list[float] = []
    begun = time.perf_counter()
    while True:
        stepper.step()
        end = timer.mark()
        seconds.append(timer.seconds(start, end))
        start = end
        if stepper.updated < MIN_WARMUP_UPDATES or len(seconds) < prefetched:
            continue
        late = time.perf_counter() - begun > WARMUP_LIMIT_SECONDS
        if _on_all(stepper.loop, late or _is_stable(seconds, window)):
            return seconds
        if stepper.loop.ranks.size > 1:
            start = timer.mark()  # agreeing is no part of a step


def _on_all(loop: TrainingLoop, done: bool) -> bool:
    """Whether all ranks are done; they must make the same number of steps."""
    return not loop.ranks.all_reduce_max([int(not done)])[0]


def _is_stable(seconds: list[float], window: int) -> bool:
    if len(seconds) < 2 * window:
        return False
    earlier, later = fmean(seconds[-2 * window : -window]), fmean(seconds[-window:])
    return abs(earlier - later) <= STABLE_WITHIN * min(earlier, later)


def ready_before_time(loader: Any) -> int:
    """Batches that a loader's workers have ready before they are asked for."""
    return int(loader.num_workers * (loader.prefetch_factor or 0))


def steady_steps(stepper: Stepper, seconds: float) -> StepTimes:
    """Samples of steady micro-steps for about ``seconds``, in whole periods of the loop."""
    timer, period = stepper.timer, stepper.loop.config.period
    moments: list[Moment] = []
    updates: list[list[tuple[Any, Any]]] = []
    sizes: list[float] = []
    began: list[bool] = []
    comparable = len(stepper.loader) == 1  # no step but first ones: there is nothing to compare to
    begun = time.perf_counter()
    start = timer.mark()
    while more := _steps_more(stepper.loop, len(moments), begun, seconds, comparable):
        if stepper.loop.ranks.size > 1:
            start = timer.mark()
        for _ in range(more):
            waited, made, is_first = stepper.step()
            end = timer.mark()
            moments.append((start, end, waited))
            updates.append(made)
            sizes.append(stepper.elements)
            began.append(is_first)
            comparable = comparable or not is_first
            start = end
    restarts = beyond_ordinary([waited for *_, waited in moments], began)
    pairs = list(zip(moments, restarts, strict=True))
    series = StepTimes(
        step=[timer.seconds(start, end) - restart for (start, end, _), restart in pairs],
        wait=[waited - restart for (*_, waited), restart in pairs],
    )
    if len(set(sizes)) > 1:
        series.elements = sizes
    if any(updates):
        series.update = [sum(timer.seconds(*update) for update in made) for made in updates]
    return series.thinned(period)


def beyond_ordinary(waits: Sequence[float], began: Sequence[bool]) -> list[float]:
    """What each step that began a pass waited beyond the mean of the others; 0 for the others."""
    ordinary = [wait for wait, first in zip(waits, began, strict=True) if not first]
    if not ordinary:
        return [0.0] * len(waits)
    usual = fmean(ordinary)
    return [
        max(0.0, wait - usual) if first else 0.0 for wait, first in zip(waits, began, strict=True)
    ]


def _enough(count: int, period: int, elapsed: float, planned: float) -> bool:
    if count == 0 or count % period:
        return False
    if elapsed >= PATIENCE * planned:
        return True
    return elapsed >= planned and count >= MIN_STEADY_STEPS


def _steps_more(
    loop: TrainingLoop, count: int, begun: float, planned: float, comparable: bool
) -> int:
    """Steps to make before this is asked again; 0 when there are enough.

    Ranks must make the same number, and agreeing on it takes longer than a small step: they do so
    after each doubling, outside what is timed.

    Args:
        loop: that is stepped.
        count: of steps so far.
        begun: when the first one did.
        planned: seconds for all.
        comparable: whether a step that began no pass is among them.
    """
    period, elapsed = loop.config.period, time.perf_counter() - begun
    if comparable and _enough(count, period, elapsed, planned):
        more = 0
    elif loop.ranks.size == 1 or not count:
        more = 1 if loop.ranks.size == 1 else period
    else:
        left = ceil(count * (planned - elapsed) / elapsed / period) * period
        more = max(period, MIN_STEADY_STEPS - count, min(count, left))
        more = ceil(more / period) * period
    return loop.ranks.all_reduce_max([more])[0]


def loader_alone(stepper: Stepper, seconds: float) -> list[float]:
    """Seconds per batch of the training loader when nothing else is done with the batches."""
    ready = ready_before_time(stepper.loader)
    samples: list[float] = []
    begun = start = time.perf_counter()
    for _ in stepper.loader:
        end = time.perf_counter()
        samples.append(end - start)
        start = end
        if end - begun > seconds and len(samples) > ready + 2:
            break
    return samples[1 + ready :] or samples


def evaluation(
    loop: TrainingLoop, timer: DeviceTimer, seconds: float
) -> tuple[list[float], list[float]]:
    """Seconds per evaluation batch, and of starting a pass beyond an ordinary wait for a batch.

    A long pass is sampled batch by batch, once those that were ready before time are used up, and
    without its partial batch. A pass of few batches is timed whole, again and again: each sample
    is the mean over a pass, the partial batch included. So restart + batches × sample is the pass.

    Args:
        loop: whose evaluation data is used; without any, both lists are empty.
        timer: of the loop's device.
        seconds: for which it is timed, about.
    """
    loader = loop.eval_loader()
    if loader is None:
        return [], []
    period = max(1, loader.num_workers)
    enough = max(MIN_STEADY_STEPS, MIN_EVAL_PERIODS * period)
    few = len(loader) <= ready_before_time(loader) + enough
    timed = _whole_evaluations if few else _long_evaluation
    with evaluating(loop.workload.model):
        for _ in islice(_evaluate(loop, loader, timer), 2):  # warms up
            pass
        samples, restarts = timed(loop, loader, timer, seconds)
    return _run_means(samples, _run_length(len(samples), period)), restarts


def _whole_evaluations(
    loop: TrainingLoop, loader: Any, timer: DeviceTimer, seconds: float
) -> tuple[list[float], list[float]]:
    """Mean seconds per batch of each of several whole passes, and what starting each took.

    Full batches alone say what an ordinary wait is; where there is one at most, none is known.
    """
    full = loader.samples // loop.config.evaluated_at_once
    samples: list[float] = []
    restarts: list[float] = []
    begun = time.perf_counter()
    while not _on_all(loop, _enough(len(samples), 1, time.perf_counter() - begun, seconds)):
        moments = list(_evaluate(loop, loader, timer))
        restarts.append(_restart(moments[: max(1, full)]))
        whole = timer.seconds(moments[0][0], moments[-1][1])
        samples.append((whole - restarts[-1]) / len(moments))
    return samples, restarts


def _long_evaluation(
    loop: TrainingLoop, loader: Any, timer: DeviceTimer, seconds: float
) -> tuple[list[float], list[float]]:
    """Seconds of full batches of one pass, once the loader is in its stride; and its restart."""
    ready, period = 1 + ready_before_time(loader), max(1, loader.num_workers)
    moments: list[Moment] = []
    begun = time.perf_counter()
    for moment in _evaluate(loop, loader, timer):
        moments.append(moment)
        if len(moments) <= ready:
            begun = time.perf_counter()
            continue
        elapsed = time.perf_counter() - begun
        if _on_all(loop, _enough(len(moments) - ready, period, elapsed, seconds)):
            break
    if len(moments) == len(loader) and loader.samples % loop.config.evaluated_at_once:
        moments.pop()
    steady = moments[ready:]
    return [timer.seconds(s, e) for s, e, _ in steady], [_restart([moments[0], *steady])]


def _evaluate(loop: TrainingLoop, loader: Any, timer: DeviceTimer) -> Iterator[Moment]:
    """Evaluate a pass batch by batch; starting the pass is in the first one's wait."""
    synchronize(loop.device)
    start, begun = timer.mark(), time.perf_counter()
    for batch in loader:
        waited = time.perf_counter() - begun
        loop.evaluate(batch)
        end = timer.mark()
        yield start, end, waited
        start, begun = timer.mark() if loop.ranks.size > 1 else end, time.perf_counter()


def _restart(moments: Sequence[Moment]) -> float:
    """What the first step of a pass waited beyond the others; 0 where there are no others."""
    began = [True] + [False] * (len(moments) - 1)
    return beyond_ordinary([waited for *_, waited in moments], began)[0]


def first_evaluations(loop: TrainingLoop, timer: DeviceTimer) -> list[float]:
    """Seconds of the first evaluation batch of each size, without its data: a compiled model
    compiles for each."""
    synchronize(loop.device)
    moments = []
    with evaluating(loop.workload.model):
        for batch in loop.eval_batches_of_each_size():
            start = timer.mark()
            loop.evaluate(batch)
            moments.append((start, timer.mark()))
    return [timer.seconds(*moment) for moment in moments]
