"""The largest batch, and the largest value of a knob, that fits on a device.

Two batch sizes are followed; what lies between them is interpolated, and what is found is followed
itself, and one step above it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from math import inf, log

from epochcast.api.following import Followed, MemoryQuestion, follow, kept_workers
from epochcast.devices.need import largest_fitting, needed_bytes
from epochcast.devices.replay import between
from epochcast.errors import EpochcastError
from epochcast.profiler.process import Workers
from epochcast.profiler.request import SweepRequest
from epochcast.records import DeviceNeed, DeviceSequence, LargestValue, Sizes

MOST_DRY_RUNS = 12  # for one largest value
LARGEST_BATCH = 2**20  # that is looked for where no data set ends before
STEPS_OF_A_KNOB = 8  # into which the knob's own value is divided
REACH = 8  # times the largest value that fits: the next one that is tried, at most
GUESSES, NEAR = 3, 8  # of the largest batch by lines; the second batch of a line is an 8th below
DOUBLINGS = 3  # of the batch, until two are one sequence of events
LEAST_POWER = 0.2  # of a knob: below it two needs hardly differ, and their line leads far away


def largest_values(request: SweepRequest, question: MemoryQuestion) -> Iterator[LargestValue]:
    """The largest batch, and of each whole-numbered knob the largest value, the others as they are.
    Each is there as soon as it is found.

    Args:
        request: of one configuration.
        question: of a device.

    Raises:
        UsageError: no such knob.
        WorkloadError: the workload cannot be built, or not traced.
    """
    with kept_workers() as workers:
        search = Search(request, question, workers)
        yield search.largest_batch()
        knobs = [(name, v) for name, v in search.sizes if type(v) is int and v >= 1]
        for name, value in knobs:
            yield largest_knob(request, question, workers, name, value)


def largest_batch(request: SweepRequest, question: MemoryQuestion) -> LargestValue:
    """The largest micro-batch that fits; followed itself, and so is the one above it.

    Args:
        request: of one model size; its batch sizes are where to begin.
        question: of a device.

    Raises:
        WorkloadError: the workload cannot be built, or not traced.
    """
    with kept_workers() as workers:
        return Search(request, question, workers).largest_batch()


class Search:
    """The dry runs of one model size, remembered by their batch size."""

    def __init__(self, request: SweepRequest, question: MemoryQuestion, workers: Workers) -> None:
        self._request = request
        self._question = question
        self._run = partial(follow, device=question.device, workers=workers)
        self._known: dict[int, Followed] = {}
        self._problem = ""
        self._most = LARGEST_BATCH
        self._runs = 0
        self.sizes: Sizes = ()  # of the model, once it was followed

    def largest_batch(self) -> LargestValue:
        wanted = tuple(self._request.batch_sizes or ())[:1] or None
        first = self._run(replace(self._request, batch_sizes=wanted))[0]
        own, self.sizes = first.config.batch_size, first.config.sizes
        self._known[own] = first
        self._most = first.sequence.samples or LARGEST_BATCH
        guess = self._guess(own)
        value = largest_fitting(self._needed, self._question.free_bytes, 1, self._most, guess)
        above = self._need((value or 0) + 1)
        return LargestValue(
            name="batch_size",
            value=value,
            step=1,
            need=None if value is None else self._need(value),
            above=above,
            why_ended="" if above is not None else self._problem,
        )

    def _guess(self, own: int) -> int:
        """Where lines lead, first those of small batches, then those of two near where they led."""
        pair, guess = self._on_lines(own), own
        for _ in range(GUESSES):
            guess = max(1, self._interpolated(pair) or guess)
            self._follow((guess, guess + 1))
            if self._fits(guess) and not self._fits(guess + 1):
                break
            low = guess - max(1, guess // NEAR)
            pair = (low, guess) if low and self._is_line(low, guess) else None
        return guess

    def estimate(self) -> tuple[DeviceNeed, int | None]:
        """What the request's batch size needs, and the largest that fits, by interpolation.

        Raises:
            WorkloadError: the workload cannot be built, or not traced.
        """
        own = next(iter(self._request.batch_sizes or (1,)))
        found = self._run(replace(self._request, batch_sizes=(own, 2 * own)))
        self._known = {f.config.batch_size: f for f in found}
        self._most = found[0].sequence.samples or LARGEST_BATCH
        return self._question.need(self._known[own]), self._interpolated(
            self._on_lines(own)
        ) or None

    def _try(self, batch_size: int) -> Followed | None:
        """A dry run of a batch size; None where it cannot be built, or the data is too small."""
        if batch_size not in self._known and not self._is_refused(batch_size):
            self._follow((batch_size,))
        return self._known.get(batch_size)

    def _is_refused(self, batch_size: int) -> bool:
        if batch_size > self._most:
            self._problem = f"the training data has {self._most:,} samples"
            return True
        if self._runs >= MOST_DRY_RUNS:
            self._problem = f"{MOST_DRY_RUNS} dry runs were made"
            return True
        return False

    def _follow(self, batch_sizes: tuple[int, ...]) -> None:
        """Several at once: the workload is loaded once for them."""
        filled = tuple(b for b in batch_sizes if b <= self._most and b not in self._known)
        if not filled:
            return
        self._runs += len(filled)
        try:
            request = replace(self._request, batch_sizes=filled)
            for found in self._run(request):
                self._known[found.config.batch_size] = found
        except EpochcastError as error:
            self._problem = str(error)

    def _need(self, batch_size: int) -> DeviceNeed | None:
        followed = self._try(batch_size)
        return None if followed is None else self._question.need(followed)

    def _fits(self, batch_size: int) -> bool:
        return self._needed(batch_size) <= self._question.free_bytes

    def _needed(self, batch_size: int) -> float:
        """Without end, where it cannot be followed."""
        followed = self._try(batch_size)
        return inf if followed is None else self._needed_by(followed.sequence)

    def _interpolated(self, batch_sizes: tuple[int, int] | None) -> int | None:
        """The largest batch by the lines between two that were followed; 0 where none fits.

        None without lines.
        """
        if batch_sizes is None:
            return None
        a, b = (self._known[n].sequence for n in batch_sizes)

        def needed(batch_size: int) -> int:
            found = between(a, b, batch_sizes, batch_size)
            assert found is not None, "the two are one sequence of events"
            return self._needed_by(found)

        free = self._question.free_bytes
        return largest_fitting(needed, free, 1, self._most, batch_sizes[1]) or 0

    def _on_lines(self, own: int) -> tuple[int, int] | None:
        """Two batch sizes, one twice the other, with one sequence of events.

        Kernels are chosen by sizes, so small batches may go another way than large ones.
        """
        pairs = [(own * 2**n, own * 2 ** (n + 1)) for n in range(DOUBLINGS)]
        for low, high in (*pairs, (max(1, own // 2), own)):
            if low != high and self._is_line(low, high):
                return low, high
        return None

    def _is_line(self, low: int, high: int) -> bool:
        """Whether both can be followed, and are one sequence of events."""
        a, b = self._try(low), self._try(high)
        if a is None or b is None:
            return False
        return between(a.sequence, b.sequence, (low, high), low) is not None

    def _needed_by(self, sequence: DeviceSequence) -> int:
        q = self._question
        return needed_bytes(sequence, q.settings, q.confidence, eager=q.eager)


def largest_knob(
    request: SweepRequest, question: MemoryQuestion, workers: Workers, name: str, own: int
) -> LargestValue:
    """The largest value of a whole-numbered knob that fits, in steps of an eighth of its own.

    A knob's power is not known: each guess is where the line through two needs meets what is free,
    both on logarithmic scales.

    Args:
        request: of one configuration.
        question: of a device.
        workers: in which it is followed.
        name: of the knob.
        own: its value now.
    """
    step = max(1, own // STEPS_OF_A_KNOB)
    known: dict[int, DeviceNeed | None] = {}
    problem = ""

    def need(steps: int) -> DeviceNeed | None:
        nonlocal problem
        if steps not in known:
            sizes = {**request.sizes, name: (steps * step,)}
            try:
                changed_request = replace(request, sizes=sizes)
                (found,) = follow(changed_request, question.device, workers)
                known[steps] = question.need(found)
            except EpochcastError as error:
                problem, known[steps] = str(error), None
        return known[steps]

    good, bad, trial = 0, 0, own // step
    while good + 1 != bad and len(known) < MOST_DRY_RUNS:
        found = need(trial)
        good, bad = (trial, bad) if found is not None and found.fits else (good, trial)
        trial = _next_trial(known, question.free_bytes, good, bad)
    above = known.get(good + 1)
    return LargestValue(
        name=name,
        value=good * step or None,
        step=step,
        need=known.get(good),
        above=above,
        why_ended="" if above is not None else problem or f"{MOST_DRY_RUNS} dry runs were made",
    )


def _next_trial(known: Mapping[int, DeviceNeed | None], free: int, good: int, bad: int) -> int:
    """Between what fits and what does not, or beyond it; 0 stands for there being none yet."""
    points = sorted((n, need.needed_bytes) for n, need in known.items() if need is not None)
    most = bad - 1 if bad else REACH * max(good, 1)
    least = good + 1
    inner = [p for p in points if p[0] in (good, bad)]
    chosen = inner if len(inner) == 2 else points[-2:]
    if len(chosen) < 2:
        return min(max(2 * good or bad // 2, least), most)
    (x, p), (y, q) = chosen
    power = max(log(q / p) / log(y / x), LEAST_POWER)
    return min(max(int(x * (free / p) ** (1 / power)), least), most)
