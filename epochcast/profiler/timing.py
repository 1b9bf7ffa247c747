"""Drives a loop and times it: warm-up to stability, steady steps, the loader alone, evaluation.

    one pass over the loader          │ next pass
    first batch │ step │ step │ … step │ turn, first batch │ step │ …
                  ▲ every step lasts from the end of the one before to its own end,
                    so waiting for data and queued device work are in it

The first step of a pass is not a sample: starting the loader is, as ``epoch_turn_seconds``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from epochcast.profiler.device import Clock, synchronize
from epochcast.profiler.loop import TrainingLoop

STABLE_WITHIN = 0.10  # two windows differ by less: CPU medians repeat no better (benchmarks/)
WARMUP_LIMIT_SECONDS = 20.0  # then a noisy machine is measured as it is
MIN_WARMUP_UPDATES = 2  # an Adam-like optimizer allocates its state in the first
MIN_STEADY_STEPS = 5
PATIENCE = 4.0  # slow steps may stretch a phase to this many times its planned seconds
MAX_SAMPLES = 512  # beyond, consecutive steps are averaged: enough for any statistic here


@dataclass
class Series:
    """Aligned samples of steady micro-steps, in seconds."""

    step: list[float] = field(default_factory=list)
    wait: list[float] = field(default_factory=list)
    update: list[float] = field(default_factory=list)
    steps_per_sample: int = 1

    def thinned(self, period: int) -> Series:
        """At most ``MAX_SAMPLES`` samples, each the mean of whole periods of consecutive steps."""
        if len(self.step) <= MAX_SAMPLES:
            return self
        run = period * -(-len(self.step) // (MAX_SAMPLES * period))
        return Series(
            step=_run_means(self.step, run),
            wait=_run_means(self.wait, run),
            update=_run_means(self.update, run),
            steps_per_sample=run,
        )


def _run_means(samples: list[float], run: int) -> list[float]:
    whole = len(samples) // run
    return [fmean(samples[i * run : (i + 1) * run]) for i in range(whole)]


class Stepper:
    """Steps a loop through one pass of its loader after another and marks the moments.

    Attributes:
        turns: seconds from the end of each pass to the first batch of the next.
        updated: optimizer updates so far.
    """

    def __init__(self, loop: TrainingLoop, clock: Clock) -> None:
        self.loop = loop
        self.clock = clock
        self.loader = loop.train_loader()
        self.turns: list[float] = []
        self.updated = 0
        self._batches: Iterator[Any] = iter(self.loader)
        self._first_of_pass = True

    def step(self) -> tuple[float, tuple[Any, Any] | None, bool]:
        """One micro-step: seconds waited for data, the update's moments, whether it is a sample."""
        batch, waited = self._next_batch()
        update = self.loop.micro_step(batch, self.clock)
        self.updated += update is not None or self.loop.workload.train_step is not None
        is_sample = not self._first_of_pass or len(self.loader) == 1
        self._first_of_pass = False
        return waited, update, is_sample

    def _next_batch(self) -> tuple[Any, float]:
        start = time.perf_counter()
        try:
            return next(self._batches), time.perf_counter() - start
        except StopIteration:
            synchronize(self.loop.device)
            start = time.perf_counter()
            batch = self._start_pass()
            self.turns.append(time.perf_counter() - start)
            return batch, self.turns[-1]

    def _start_pass(self) -> Any:
        self._batches = iter(())  # frees the old pass and its workers first, as a for loop does
        self._batches = iter(self.loader)
        self._first_of_pass = True
        return next(self._batches)

    def turn(self) -> None:
        """End this pass early and start the next, to time it."""
        synchronize(self.loop.device)
        start = time.perf_counter()
        self._start_pass()
        self.turns.append(time.perf_counter() - start)

    def batches(self) -> Iterator[Any]:
        """Further batches, untimed."""
        while True:
            yield self._next_batch()[0]


def warm_up(stepper: Stepper, start: Any) -> list[float]:
    """Step until two successive windows agree; seconds of each step.

    Args:
        stepper: has made its first step.
        start: the moment of the stepper's clock when that step ended.
    """
    config, clock = stepper.loop.config, stepper.clock
    window = max(3, config.period)
    prefetched = 2 * config.workers  # DataLoader's default prefetch: batches ready before time
    seconds: list[float] = []
    begun = time.perf_counter()
    while True:
        stepper.step()
        end = clock.mark()
        seconds.append(clock.seconds(start, end))
        start = end
        if stepper.updated < MIN_WARMUP_UPDATES or len(seconds) < prefetched:
            continue
        late = time.perf_counter() - begun > WARMUP_LIMIT_SECONDS
        if late or _is_stable(seconds, window):
            return seconds


def _is_stable(seconds: list[float], window: int) -> bool:
    if len(seconds) < 2 * window:
        return False
    earlier, later = fmean(seconds[-2 * window : -window]), fmean(seconds[-window:])
    return abs(earlier - later) <= STABLE_WITHIN * min(earlier, later)


def steady_steps(stepper: Stepper, seconds: float) -> Series:
    """Samples of steady micro-steps for about ``seconds``, in whole periods of the loop."""
    clock, period = stepper.clock, stepper.loop.config.period
    moments: list[tuple[Any, Any, float, tuple[Any, Any] | None]] = []
    begun = time.perf_counter()
    start = clock.mark()
    while not _enough(len(moments), period, time.perf_counter() - begun, seconds):
        waited, update, is_sample = stepper.step()
        end = clock.mark()
        if is_sample:
            moments.append((start, end, waited, update))
        start = end
    series = Series(
        step=[clock.seconds(start, end) for start, end, _, _ in moments],
        wait=[waited for _, _, waited, _ in moments],
    )
    if stepper.loop.workload.train_step is None:
        updates = (update for *_, update in moments)
        series.update = [clock.seconds(*update) if update else 0.0 for update in updates]
    return series.thinned(period)


def _enough(count: int, period: int, elapsed: float, planned: float) -> bool:
    if count == 0 or count % period:
        return False
    if elapsed >= PATIENCE * planned:
        return True
    return elapsed >= planned and count >= MIN_STEADY_STEPS


def loader_alone(stepper: Stepper, seconds: float) -> list[float]:
    """Seconds per batch of the training loader when nothing else is done with the batches."""
    ready_before_time = 2 * stepper.loop.config.workers
    samples: list[float] = []
    begun = start = time.perf_counter()
    for _ in stepper.loader:
        end = time.perf_counter()
        samples.append(end - start)
        start = end
        if end - begun > seconds and len(samples) > ready_before_time + 2:
            break
    return samples[1 + ready_before_time :] or samples


def evaluation(loop: TrainingLoop, clock: Clock, seconds: float) -> tuple[list[float], list[float]]:
    """Seconds per full evaluation batch, and of starting passes over the evaluation data.

    Two passes: a short one warms up, the second is timed.
    """
    loader = loop.eval_loader()
    if loader is None:
        return [], []
    samples: list[float] = []
    turns: list[float] = []
    loop.workload.model.eval()
    for planned in (0.0, seconds):
        samples, turn = _evaluation_pass(loop, loader, clock, planned)
        turns.append(turn)
    loop.workload.model.train()
    return samples, turns[1:]


def _evaluation_pass(
    loop: TrainingLoop, loader: Any, clock: Clock, seconds: float
) -> tuple[list[float], float]:
    synchronize(loop.device)
    samples: list[float] = []
    begun = time.perf_counter()
    turn, start = 0.0, clock.mark()
    for index, batch in enumerate(loader):
        if index == 0:
            turn, start = time.perf_counter() - begun, clock.mark()
        loop.evaluate(batch)
        end = clock.mark()
        samples.append(clock.seconds(start, end))
        start = end
        if time.perf_counter() - begun >= seconds and len(samples) >= 2:
            break
    has_partial = len(samples) == len(loader) and len(loader.dataset) % loop.config.batch_size
    return samples[:-1] if has_partial and len(samples) > 1 else samples, turn
