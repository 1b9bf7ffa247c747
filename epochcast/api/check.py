"""A training step held to what it cost when somebody last agreed to it: a gate for CI.

    baseline ──▶ what was asked for ── dry run ──▶ counts ──┐
        │                           └─ sweep ────▶ seconds ─┤ compare ──▶ changes, each
        └──────── what was counted and timed ───────────────┘             better or worse

Counts are exact and need no device: parameters, samples, FLOPs, bytes, operators, peaks. Seconds
are compared by the logarithms of a step in several processes, each round being a draw of what the
machine is like: the interval of their ratio is that of Welch (1947, Biometrika 34, 28-35), and a
step is slower where all of it lies beyond the limit.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from math import exp, hypot, inf, log
from statistics import fmean, variance

from epochcast.errors import EpochcastError, UsageError
from epochcast.profiler.protocol import Counted
from epochcast.profiler.request import SweepRequest, count_footprints
from epochcast.profiler.target import target_of
from epochcast.records import (
    AskedStep,
    Baseline,
    BaselineEntry,
    Change,
    CheckedStep,
    RunConfig,
    SizeValue,
    TimedRounds,
    Timeline,
    Verdict,
    make_sizes,
    read_document,
    write_document,
)

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

BASELINE = "epochcast-baseline.json"
ROUNDS = 5  # of a timed check: quantiles of Student's t are then half of what three rounds give
LEVEL = 0.95  # one-sided
IDENTITY = ("parameters", "trainable_parameters", "samples")  # any change is another training
MEMORY = ("peak_bytes", "eval_peak_bytes")
WORK = ("flops", "bytes_moved", "operators", "update_operators")
CULPRITS = 3  # modules that are named for a changed peak, or changed FLOPs


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """By how much a step may become more costly, as shares; less costly it may become at will.

    Attributes:
        memory: of the peaks of live tensors.
        work: of FLOPs, bytes moved and operators.
        time: of the seconds of a step, where they are compared.
    """

    memory: float = 0.0
    work: float = 0.0
    time: float = 0.05

    def __post_init__(self) -> None:
        for name in ("memory", "work", "time"):
            value = getattr(self, name)
            if not value >= 0:
                raise UsageError(f"a limit must be 0% or more, but got {value!r} for {name}")


def check(
    workload: str | None = None,
    batch_size: int | None = None,
    *,
    sizes: Mapping[str, SizeValue] | None = None,
    overrides: Mapping[str, SizeValue] | None = None,
    baseline: str = BASELINE,
    update: bool = False,
    limits: Limits | None = None,
    timed: bool = False,
) -> tuple[CheckedStep, ...]:
    """Compare training steps with a committed baseline.

    Args:
        workload: as for ``probe``; without one, every entry of the baseline is checked.
        batch_size: micro-batch; the workload's own if not given.
        sizes: values of model-size knobs.
        overrides: of the workload: accumulation, compile, drop_last,
            eval_batch_size, precision, workers.
        baseline: the file.
        update: write what is found into it.
        limits: by how much a step may become more costly; by default nothing but 5 % of its time.
        timed: measure the step, too, and compare with what was timed on this device.

    Raises:
        UsageError: no such workload or knob, or nothing to compare with.
        WorkloadError: the workload cannot be built or traced.
        StoreError: the baseline cannot be read or written.
    """
    with _alone_with(baseline):
        known = read_baseline(baseline)
    if workload is None and (batch_size or sizes or overrides):
        raise UsageError("name the workload whose batch size or knobs these are")
    steps = [entry.asked for entry in known.entries]
    if workload is not None:
        ways = make_sizes(overrides or {})
        target = target_of(workload)
        knobs = make_sizes(sizes or {})
        steps = [AskedStep(workload=target, batch_size=batch_size, sizes=knobs, overrides=ways)]
    if not steps:
        raise UsageError(
            f"{_said(baseline)}; name a step to begin it with, as in: "
            "epochcast check train.py:workload --batch-size 32 --update"
        )
    missing = [asked.label for asked in steps if known.entry(asked) is None]
    if missing and not update:
        raise UsageError(f"{_said(baseline, missing[0])}; --update adds it")
    checked = []
    for asked in steps:
        try:
            checked.append(_check(asked, known, limits or Limits(), timed))
        except EpochcastError as error:
            if workload is not None:
                raise
            raise type(error)(f"{asked.label}, an entry of {baseline}: {error}") from error
    if update:
        _write(checked, baseline)
    return tuple(checked)


def _said(baseline: str, step: str = "") -> str:
    """What a baseline does not have: a step, any, or itself."""
    if not os.path.exists(baseline):
        return f"there is no {baseline} in {os.getcwd()}"
    return f"{baseline} has no entry of {step}" if step else f"{baseline} has no entries"


def _write(checked: Sequence[CheckedStep], baseline: str) -> None:
    """Put steps into the baseline as it is by now."""
    with _alone_with(baseline):
        known = read_baseline(baseline)
        for step in checked:
            known = known.with_entry(step.after)
        write_document(known, baseline, "baseline", indent=2)


@contextmanager
def _alone_with(baseline: str) -> Iterator[None]:
    """Within it, no other process reads or writes the baseline here: pytest-xdist has several."""
    folder = os.path.dirname(os.path.abspath(baseline))
    if fcntl is None or not os.path.isdir(folder):
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def read_baseline(path: str) -> Baseline:
    """The baseline of a file; an empty one where there is no file.

    Raises:
        StoreError: it is no baseline, or cannot be read.
    """
    return read_document(path, Baseline, "a baseline") if os.path.exists(path) else Baseline()


def _check(asked: AskedStep, known: Baseline, limits: Limits, timed: bool) -> CheckedStep:
    before, after = known.entry(asked), _counted(asked)
    if timed:
        after = replace(after, timed=(_timed(asked),))
    changes = compare(before, after, limits) if before is not None else ()
    if before is not None:  # what was timed elsewhere stays in the file
        here = {timed.device for timed in after.timed}
        kept = tuple(timed for timed in before.timed if timed.device not in here)
        after = replace(after, timed=(*kept, *after.timed))
    return CheckedStep(asked=asked, before=before, after=after, changes=changes)


# -- what a step costs now ------------------------------------------------------------------------


def _request(asked: AskedStep, **options: object) -> SweepRequest:
    return SweepRequest(
        target=asked.workload,
        batch_sizes=None if asked.batch_size is None else (asked.batch_size,),
        sizes={name: (value,) for name, value in asked.sizes},
        overrides=dict(asked.overrides),
        **options,  # type: ignore[arg-type]
    )


def _counted(asked: AskedStep) -> BaselineEntry:
    (counted,) = count_footprints(_request(asked, device="cpu"), timeline=True)
    found = counted.footprint
    timeline = found.timeline
    return BaselineEntry(
        asked=asked,
        config=counted.config,
        torch=version("torch"),
        counts=_counts(counted),
        peak_by_module=dict(sorted(peak_by_module(timeline).items())) if timeline else {},
        flops_by_module={name or "(outside the model)": n for name, n in found.flops_by_module},
    )


def _counts(counted: Counted) -> dict[str, int]:
    names = (*IDENTITY[:2], *WORK, *MEMORY)
    counts = {name: counted.footprint.count(name) for name in names}
    return {"samples": counted.samples} | {n: c for n, c in counts.items() if c is not None}


def peak_by_module(timeline: Timeline) -> dict[str, int]:
    """Bytes alive at the peak of a step, by the module that made them.

    What was there before the step is told by its kind: ``"(parameter)"``.
    """
    live = timeline.live_bytes()
    at_peak = max(range(len(live)), key=live.__getitem__, default=-1) + 1
    alive = {abs(e) - 1 for e in timeline.events[:at_peak] if e > 0}
    alive -= {-e - 1 for e in timeline.events[:at_peak] if e < 0}
    found: Counter[str] = Counter()
    for block in alive:
        module = timeline.block_modules[block]
        kind = f"({timeline.block_kinds[block]})"
        name = kind if module < 0 else timeline.modules[module] or kind
        found[name] += timeline.block_bytes[block]
    return dict(found)


def _timed(asked: AskedStep) -> TimedRounds:
    """The step as five fresh processes run it, in a store of its own."""
    from epochcast.api.probe import run_sweep
    from epochcast.costmodel.summary import step_seconds
    from epochcast.storage.store import Store

    with tempfile.TemporaryDirectory() as folder:
        request = _request(asked, rounds=ROUNDS, traces=False)
        if request.batch_sizes is None:
            request = replace(request, batch_sizes=(_counted(asked).config.batch_size,))
        with Store.open(os.path.join(folder, "check.sqlite"), create="late") as store:
            trials = run_sweep(request, store).measurements
    good = [trial for trial in trials if trial.status == "ok"]
    if len(good) < 2:
        why = trials[-1].message if trials else "nothing was measured"
        raise UsageError(f"{asked.label} cannot be timed here: {why}")
    device = good[-1].device
    return TimedRounds(
        device=device.key, label=device.label, step_seconds=tuple(map(step_seconds, good))
    )


# -- beside what it was ---------------------------------------------------------------------------


def compare(before: BaselineEntry, after: BaselineEntry, limits: Limits) -> tuple[Change, ...]:
    """What is different, and whether it is worse.

    Args:
        before: from the baseline.
        after: the same step now.
        limits: by how much it may become more costly.
    """
    settings = _settings_changed(before.config, after.config)
    counts = [
        _count_change(name, before, after, limits)
        for name in (*IDENTITY, *MEMORY, *WORK)
        if before.counts.get(name) != after.counts.get(name)
    ]
    times = [
        _time_change(earlier, later, limits.time)
        for later in after.timed
        if (earlier := before.timed_on(later.device)) is not None
    ]
    return (*settings, *counts, *times)


def _settings_changed(before: RunConfig, after: RunConfig) -> list[Change]:
    """What was asked for runs in another way: a default of the workload has changed."""
    old, new = (dict(c.sizes) | {n: c.setting(n) for n in _SETTINGS} for c in (before, after))
    return [
        Change(name=n, before=str(old.get(n, "–")), after=str(new.get(n, "–")), verdict="worse")
        for n in {**old, **new}
        if old.get(n) != new.get(n)
    ]


_SETTINGS = ("batch_size", "accumulation", "precision", "compiled", "workers", "drop_last")


def _count_change(name: str, before: BaselineEntry, after: BaselineEntry, limits: Limits) -> Change:
    old, new = before.counts.get(name), after.counts.get(name)
    if old is None or new is None:  # nobody can say that it did not grow
        was, found = ("unknown" if count is None else str(count) for count in (old, new))
        return Change(name=name, before=was, after=found, verdict="worse")
    allowed = old * (1 + (limits.memory if name in MEMORY else limits.work))
    worse = name in IDENTITY or new > allowed
    verdict: Verdict = "worse" if worse else "better" if new < old else "allowed"
    by_module = {"peak_bytes": "peak_by_module", "flops": "flops_by_module"}.get(name)
    culprits: tuple[tuple[str, int], ...] = ()
    if by_module is not None:
        culprits = _culprits(getattr(before, by_module), getattr(after, by_module))
    return Change(name=name, before=old, after=new, verdict=verdict, culprits=culprits)


def _culprits(before: Mapping[str, int], after: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    if not before or not after:  # of one side nobody knows
        return ()
    moved = {n: after.get(n, 0) - before.get(n, 0) for n in {**before, **after}}
    largest = sorted(moved, key=lambda name: (-abs(moved[name]), name))[:CULPRITS]
    return tuple((name, moved[name]) for name in largest if moved[name])


def _time_change(before: TimedRounds, after: TimedRounds, limit: float) -> Change:
    low, _, high = ratio(before.step_seconds, after.step_seconds)
    verdict: Verdict = "same"
    if low > 1 + limit:
        verdict = "worse"
    elif high < 1:
        verdict = "better"
    elif high > 1 + limit:
        verdict = "unclear"
    return Change(
        name="step_seconds",
        before=exp(fmean(map(log, before.step_seconds))),
        after=exp(fmean(map(log, after.step_seconds))),
        verdict=verdict,
        interval=(low, high) if high < inf else None,
    )


def ratio(before: Sequence[float], after: Sequence[float]) -> tuple[float, float, float]:
    """How many times as long a step takes, and the bounds of the 90 % interval of that.

    Welch's interval of the difference of two means, of logarithms.

    Args:
        before, after: seconds of the step, one of each process; at least one each.

    Returns:
        P5, P50 and P95 of the ratio; with one process on a side nothing bounds it.
    """
    from scipy.special import stdtrit

    old, new = [log(x) for x in before], [log(x) for x in after]
    middle = fmean(new) - fmean(old)
    if min(len(old), len(new)) < 2:
        return 0.0, exp(middle), inf
    parts = [(variance(x) / len(x), len(x) - 1) for x in (old, new)]
    error = hypot(*(part**0.5 for part, _ in parts))
    if error == 0.0:
        return exp(middle), exp(middle), exp(middle)
    dof = error**4 / sum(part**2 / n for part, n in parts)
    reach = float(stdtrit(dof, LEVEL)) * error
    return exp(middle - reach), exp(middle), exp(middle + reach)
