"""Whether a training fits on a device that is not here, how large it may be, what would help.

request ─ dry run ───────▶ configuration, FLOPs                     count_footprints
        ─ cuda sequence ─▶ every allocation of two steps            cuda_sequences
                           └ replayed ▶ DeviceNeed                  devices/need.py

fit        two batch sizes are followed; what lies between them is interpolated, and what is
           found is followed itself, and one step above it
what-ifs   a dry run each, side by side

All dry runs of one answer are made by two processes, ``kept_workers``, one that counts and one that
follows: importing torch takes longer than most dry runs.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from math import log
from pathlib import Path
from typing import Any

from epochcast.devices.allocator_settings import AllocatorSettings, from_environment, parse_settings
from epochcast.devices.cards import find_device
from epochcast.devices.need import device_need, largest_fitting, needed_bytes
from epochcast.devices.replay import between, replay
from epochcast.errors import EpochcastError, UsageError
from epochcast.profiler.footprint.cuda.trace import cuda_sequences
from epochcast.profiler.process import KeptWorkers, Workers
from epochcast.profiler.protocol import WHAT_IFS, Counted, TrialSpec
from epochcast.profiler.request import OVERRIDES, Range, SweepRequest, count_footprints
from epochcast.profiler.target import target_of
from epochcast.records import (
    Alternative,
    DeviceNeed,
    DeviceSequence,
    DeviceSpec,
    LargestValue,
    RunConfig,
    Sizes,
    SizeValue,
    make_sizes,
)

MOST_DRY_RUNS = 12  # for one largest value
LARGEST_BATCH = 2**20  # that is looked for where no data set ends before
STEPS_OF_A_KNOB = 8  # into which the knob's own value is divided
REACH = 8  # times the largest value that fits: the next one that is tried, at most
GUESSES, NEAR = 3, 8  # of the largest batch by lines; the second batch of a line is an 8th below
DOUBLINGS = 3  # of the batch, until two are one sequence of events
LEAST_POWER = 0.2  # of a knob: below it two needs hardly differ, and their line leads far away


@dataclass(frozen=True, kw_only=True)
class MemoryQuestion:
    """On which device, and how sure.

    Attributes:
        device: with the memory that CUDA reports of it.
        confidence: with which it shall fit.
        used_bytes: of the device, by other processes.
        settings: of torch's caching allocator.
        eager: kernels are loaded before they are used.
    """

    device: DeviceSpec
    confidence: float = 0.95
    used_bytes: int = 0
    settings: AllocatorSettings = field(default_factory=AllocatorSettings)
    eager: bool = False

    def __post_init__(self) -> None:
        if not 0.0 < self.confidence < 1.0:
            raise UsageError(f"a confidence is between 0 and 1, but got {self.confidence}")

    @property
    def free_bytes(self) -> int:
        """What there is."""
        return self.device.memory_bytes - self.used_bytes

    def need(self, followed: Followed) -> DeviceNeed:
        """The answer for what was followed."""
        return device_need(
            followed.sequence,
            followed.counted.config,
            settings=self.settings,
            used_bytes=self.used_bytes,
            confidence=self.confidence,
            eager=self.eager,
            flops=followed.counted.footprint.flops,
            seconds=followed.seconds,
        )


@dataclass(frozen=True, kw_only=True)
class Followed:
    """One configuration that was followed, and how long that took."""

    counted: Counted
    sequence: DeviceSequence
    seconds: float


@contextmanager
def kept_workers() -> Iterator[KeptWorkers]:
    """Processes for all dry runs of one answer."""
    with tempfile.TemporaryDirectory(prefix="epochcast-") as logs, KeptWorkers(Path(logs)) as kept:
        yield kept


def follow(request: SweepRequest, device: DeviceSpec, workers: Workers) -> tuple[Followed, ...]:
    """Every configuration of a request, followed on a device.

    Args:
        request: names configurations.
        device: that need not be here.
        workers: in which it is done.

    Raises:
        UsageError: no such knob.
        WorkloadError: the workload cannot be built, or not traced.
    """
    begun = time.monotonic()
    if all(len(values) == 1 for values in _values(request)):
        counted, found = _at_once(request, device, workers)
    else:
        counted = _count(request, workers)
        groups = _by_sizes(counted)
        found = [s for same in groups for s in _sequences(request, same, device, workers)]
    seconds = (time.monotonic() - begun) / len(counted)
    return tuple(
        Followed(counted=c, sequence=s, seconds=seconds)
        for c, s in zip(counted, found, strict=True)
    )


def _count(request: SweepRequest, workers: Workers) -> tuple[Counted, ...]:
    return count_footprints(request, start_worker=lambda log: workers.start("count"))


def _values(request: SweepRequest) -> list[Sequence[SizeValue]]:
    return [v.values() if isinstance(v, Range) else v for v in request.sizes.values()]


def _at_once(
    request: SweepRequest, device: DeviceSpec, workers: Workers
) -> tuple[Sequence[Counted], Sequence[DeviceSequence]]:
    """One model size is counted in one process and followed in another at the same time."""
    sizes = make_sizes({n: v[0] for n, v in zip(request.sizes, _values(request), strict=True)})
    asked = [*(request.batch_sizes or (None,))]
    with ThreadPoolExecutor(max_workers=1) as pool:
        following = pool.submit(_followed, request, sizes, asked, device, workers)
        counted = _count(request, workers)
        if len(counted) == len(asked):
            return counted, following.result()
    return counted, _sequences(
        request, counted, device, workers
    )  # without what the data cannot fill


def _by_sizes(counted: Sequence[Counted]) -> list[list[Counted]]:
    groups: dict[Any, list[Counted]] = {}
    for c in counted:
        groups.setdefault(c.config.sizes, []).append(c)
    return [*groups.values()]


def _sequences(
    request: SweepRequest, counted: Sequence[Counted], device: DeviceSpec, workers: Workers
) -> Sequence[DeviceSequence]:
    """Of several batch sizes of one model."""
    batch_sizes = [c.config.batch_size for c in counted]
    return _followed(request, counted[0].config.sizes, batch_sizes, device, workers)


def _followed(
    request: SweepRequest,
    sizes: Sizes,
    batch_sizes: Sequence[int | None],
    device: DeviceSpec,
    workers: Workers,
) -> Sequence[DeviceSequence]:
    spec = TrialSpec(workload=request.workload, sizes=sizes)
    return cuda_sequences(workers, spec, batch_sizes, device)


# -- answers --------------------------------------------------------------------------------------


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
    one = replace(request, batch_sizes=tuple(request.batch_sizes or ())[:1] or None)
    with kept_workers() as workers:
        yield _Search(request, question, workers).largest_batch()
        sizes = _count(one, workers)[0].config.sizes
        knobs = [(name, v) for name, v in sizes if type(v) is int and v >= 1]
        for name, value in knobs:
            yield largest_knob(request, question, workers, name, value)


def device_needs(request: SweepRequest, question: MemoryQuestion) -> tuple[DeviceNeed, ...]:
    """What each configuration of a request needs on a device.

    Raises:
        UsageError: no such knob.
        WorkloadError: the workload cannot be built, or not traced.
    """
    with kept_workers() as workers:
        return tuple(map(question.need, follow(request, question.device, workers)))


def largest_batch(request: SweepRequest, question: MemoryQuestion) -> LargestValue:
    """The largest micro-batch that fits; followed itself, and so is the one above it.

    Args:
        request: of one model size; its batch sizes are where to begin.
        question: of a device.

    Raises:
        WorkloadError: the workload cannot be built, or not traced.
    """
    with kept_workers() as workers:
        return _Search(request, question, workers).largest_batch()


class _Search:
    """The dry runs of one model size, remembered by their batch size."""

    def __init__(self, request: SweepRequest, question: MemoryQuestion, workers: Workers) -> None:
        self._request = request
        self._question = question
        self._run = partial(follow, device=question.device, workers=workers)
        self._known: dict[int, Followed] = {}
        self._problem = ""
        self._most = LARGEST_BATCH
        self._runs = 0

    def largest_batch(self) -> LargestValue:
        wanted = tuple(self._request.batch_sizes or ())[:1] or None
        first = self._run(replace(self._request, batch_sizes=wanted))[0]
        own = first.counted.config.batch_size
        self._known[own] = first
        self._most = first.counted.samples or LARGEST_BATCH
        guess = self._guess(own)
        value = largest_fitting(self._fits, 1, self._most, guess)
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
        self._known = {f.counted.config.batch_size: f for f in found}
        self._most = found[0].counted.samples or LARGEST_BATCH
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
                self._known[found.counted.config.batch_size] = found
        except EpochcastError as error:
            self._problem = str(error)

    def _need(self, batch_size: int) -> DeviceNeed | None:
        followed = self._try(batch_size)
        return None if followed is None else self._question.need(followed)

    def _fits(self, batch_size: int) -> bool:
        followed = self._try(batch_size)
        if followed is None:
            return False
        return self._needed(followed.sequence) <= self._question.free_bytes

    def _interpolated(self, batch_sizes: tuple[int, int] | None) -> int | None:
        """The largest batch by the lines between two that were followed; 0 where none fits.

        A plain replay leads near it, all replays of ``needed_bytes`` to it. None without lines.
        """
        if batch_sizes is None:
            return None
        a, b = (self._known[n].sequence for n in batch_sizes)
        q = self._question
        margin = self._needed(b) / replay(b, q.settings).reserved_bytes

        def at(batch_size: int) -> DeviceSequence:
            found = between(a, b, batch_sizes, batch_size)
            assert found is not None, "the two are one sequence of events"
            return found

        def nearly(batch_size: int) -> bool:
            return replay(at(batch_size), q.settings).reserved_bytes * margin <= q.free_bytes

        def fits(batch_size: int) -> bool:
            return self._needed(at(batch_size)) <= q.free_bytes

        near = largest_fitting(nearly, 1, self._most, batch_sizes[1]) or 1
        return largest_fitting(fits, 1, self._most, near) or 0

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

    def _needed(self, sequence: DeviceSequence) -> int:
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


# -- what would help ------------------------------------------------------------------------------


def alternatives(
    request: SweepRequest,
    question: MemoryQuestion,
    what_ifs: Sequence[tuple[str, Sequence[SizeValue]]],
) -> tuple[Alternative, ...]:
    """What is, and each what-if beside it, with the largest batch of each by interpolation.

    Args:
        request: of one configuration.
        question: of a device.
        what_ifs: a name and its values; see ``changed``.

    Raises:
        UsageError: nothing is called that.
        WorkloadError: what is cannot be built.
    """
    with kept_workers() as workers:
        config = _count(request, workers)[0].config
        base = replace(request, batch_sizes=(config.batch_size,))
        found = [_alternative(base, question, workers, ())]
        for name, value in [(name, value) for name, values in what_ifs for value in values]:
            changes = ((name, str(value)),)
            try:
                other = changed(base, config, name, value)
                found.append(_alternative(other, question, workers, changes))
            except EpochcastError as error:
                found.append(Alternative(changes=changes, problem=str(error)))
    return tuple(found)


def _alternative(
    request: SweepRequest,
    question: MemoryQuestion,
    workers: Workers,
    changes: tuple[tuple[str, str], ...],
) -> Alternative:
    search = _Search(request, question, workers)
    need, batch_size = search.estimate()
    return Alternative(changes=changes, need=need, largest_batch=batch_size)


def changed(request: SweepRequest, config: RunConfig, name: str, value: SizeValue) -> SweepRequest:
    """The request with one thing changed.

    Args:
        request: of one configuration.
        config: that it is.
        name: an override, a what-if, ``batch_size`` or a knob. Another accumulation keeps the
            global batch, so the micro-batch is another one, too.
        value: of it.

    Raises:
        UsageError: the global batch cannot be divided so, or the value is no whole number.
    """
    if name == "batch_size":
        return replace(request, batch_sizes=(_whole(name, value),))
    if name in WHAT_IFS:
        return replace(request, what_if={**request.what_if, name: value})
    if name not in OVERRIDES:
        return replace(request, sizes={**request.sizes, name: (value,)})
    other = replace(request, overrides={**request.overrides, name: value})
    if name != "accumulation":
        return other
    batch = config.batch_size * config.accumulation
    parts = _whole(name, value)
    if batch % parts:
        raise UsageError(f"a global batch of {batch} cannot be divided into {value} micro-batches")
    return replace(other, batch_sizes=(batch // parts,))


def _whole(name: str, value: SizeValue) -> int:
    if type(value) is not int or value < 1:
        raise UsageError(f"{name} is a whole number of at least 1, but got {value!r}")
    return value


# -- the library's own ----------------------------------------------------------------------------


def dry_run_on(
    workload: str | Callable[..., Any],
    device: str,
    batch_size: int | None = None,
    *,
    confidence: float = 0.95,
    used_bytes: int = 0,
    allocator: str | None = None,
    overrides: Mapping[str, SizeValue] | None = None,
    data: str | None = None,
    sizes: Mapping[str, SizeValue] | None = None,
) -> DeviceNeed:
    """What a training step needs on a device that need not be here.

    Args:
        workload: as for ``probe``.
        device: a card of the catalogue, e.g. ``"a100-40gb"``, or its memory, ``"24GiB"``.
        batch_size: the workload's own if not given.
        confidence: with which it shall fit.
        used_bytes: of the device, by other processes.
        allocator: as ``PYTORCH_CUDA_ALLOC_CONF``; that of this process if not given.
        overrides: of the workload, as for ``dry_run``.
        data: folder of local data for workloads that take it.
        sizes: values of model-size knobs; the others keep their defaults.

    Raises:
        UsageError: no such workload, knob, device or setting.
        WorkloadError: the workload cannot be built, or not traced without values.
    """
    request = _request(workload, batch_size, overrides, data, sizes)
    return device_needs(request, question_of(device, confidence, used_bytes, allocator))[0]


def fit_batch(
    workload: str | Callable[..., Any],
    device: str,
    *,
    confidence: float = 0.95,
    used_bytes: int = 0,
    allocator: str | None = None,
    overrides: Mapping[str, SizeValue] | None = None,
    data: str | None = None,
    sizes: Mapping[str, SizeValue] | None = None,
) -> LargestValue:
    """The largest micro-batch that fits on a device.

    Args:
        workload: as for ``probe``.
        device: as for ``dry_run_on``, like the next three.
        confidence: with which it shall fit.
        used_bytes: of the device, by other processes.
        allocator: settings of torch's allocator, as in ``PYTORCH_CUDA_ALLOC_CONF``.
        overrides: of the workload, as for ``dry_run``.
        data: folder of local data for workloads that take it.
        sizes: values of model-size knobs; the others keep their defaults.

    Raises:
        UsageError: no such workload, knob, device or setting.
        WorkloadError: the workload cannot be built, or not traced without values.
    """
    request = _request(workload, None, overrides, data, sizes)
    return largest_batch(request, question_of(device, confidence, used_bytes, allocator))


def question_of(
    device: str, confidence: float, used_bytes: int, allocator: str | None
) -> MemoryQuestion:
    """From text to a question.

    Args:
        device: a card, or a size.
        confidence: with which it shall fit.
        used_bytes: by other processes.
        allocator: settings; None takes those of this process.

    Raises:
        UsageError: no such device or setting.
    """
    given = from_environment(os.environ) if allocator is None else parse_settings(allocator)
    return MemoryQuestion(
        device=find_device(device),
        confidence=confidence,
        used_bytes=used_bytes,
        settings=given,
        eager=os.environ.get("CUDA_MODULE_LOADING") == "EAGER",
    )


def _request(
    workload: str | Callable[..., Any],
    batch_size: int | None,
    overrides: Mapping[str, SizeValue] | None,
    data: str | None,
    sizes: Mapping[str, SizeValue] | None,
) -> SweepRequest:
    return SweepRequest(
        target=target_of(workload),
        batch_sizes=None if batch_size is None else (batch_size,),
        sizes={name: (value,) for name, value in (sizes or {}).items()},
        overrides=dict(overrides or {}),
        device="cpu",
        data=data,
    )
