"""The rounds of a sweep that chooses: candidates, counted by dry runs; then what a chooser wants.

dry-run  [worker] footprints of all configurations     kept in the store
round 0  [worker] the chooser's first, second, …       after each, it sees all measurements
round 1  [worker] …                                    until it stops, or the time does
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Protocol

from epochcast.profiler.archive import Archive, stored, with_outer_timelines
from epochcast.profiler.observer import Observer, note
from epochcast.profiler.prepare import Prepared
from epochcast.profiler.process import WorkerProcess, Workers, ask_or_refuse
from epochcast.profiler.protocol import Task, TrialSpec
from epochcast.profiler.trials import Trials
from epochcast.records import Footprint, Measurement, RunConfig, Sizes

UNTRACEABLE = "DryRunError"  # the error of a workload that runs, but not without values


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What a chooser wants: a trial of a candidate, a fresh process, or to stop.

    Attributes:
        trial: position of a candidate.
        next_round: go on in a fresh process.
        stop: why to stop; empty to go on.
    """

    trial: int | None = None
    next_round: bool = False
    stop: str = ""


class Chooser(Protocol):
    """Decides what to measure; choosing.py has one that learns."""

    @property
    def half_width(self) -> float | None: ...
    def begin(
        self, candidates: Sequence[RunConfig], footprints: Mapping[RunConfig, Footprint]
    ) -> None: ...
    def next(self, measurements: Sequence[Measurement], round_: int) -> Choice: ...


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A configuration that may be measured, and what a dry run counted of it."""

    spec: TrialSpec
    config: RunConfig
    footprint: Footprint | None = None


def chosen_rounds(chooser: Chooser, trials: Trials, workers: Workers) -> str:
    """Measure what the chooser wants, round after round; why it stopped."""
    prepared, archive = trials.prepared, trials.archive
    found = candidates(prepared, trials.observer, workers)
    done = sum(m.status == "ok" for m in stored(archive, prepared, prepared.specs))
    trials.observer.begin(None, done, prepared.device, prepared.checked.data)
    chooser.begin([c.config for c in found], _remember(prepared, archive, found))
    round_, stop = 0, ""
    while not stop:
        with workers.start(f"round-{round_}") as worker:
            choice = _choices(chooser, trials, [c.spec for c in found], worker, round_)
        stop, round_ = choice.stop, round_ + choice.next_round
    return stop


def _choices(
    chooser: Chooser,
    trials: Trials,
    specs: Sequence[TrialSpec],
    worker: WorkerProcess,
    round_: int,
) -> Choice:
    """Trials in one process, until another is needed; the choice that ended them."""
    while True:
        choice = chooser.next(stored(trials.archive, trials.prepared, specs), round_)
        if choice.trial is None:
            return choice
        if trials.limit.reached:
            return Choice(stop="max-seconds")
        if trials.make(worker, specs[choice.trial], round_).status != "ok":
            return Choice()


# -- candidates ---------------------------------------------------------------------------------


def candidates(prepared: Prepared, observer: Observer, workers: Workers) -> list[Candidate]:
    """The configurations to choose among, counted by dry runs: none that the workload cannot
    be built in, none whose tensors alone are more than the device has."""
    counted, problems, untraceable = _count(prepared, workers)
    if untraceable or not counted:
        note(observer, "no-footprints", why=untraceable or next(iter(problems.values()), ""))
    if not counted:
        return [Candidate(spec=s, config=prepared.config(s)) for s in prepared.specs]
    for sizes, why in problems.items():
        named = " ".join(f"{name}={value}" for name, value in sizes)
        note(observer, "no-such-size", sizes=named, why=why)
    fitting = [c for c in counted if _fits(c, prepared.device.memory_bytes)]
    if len(fitting) < len(counted):
        note(observer, "too-large", count=str(len(counted) - len(fitting)))
    return fitting


def _count(prepared: Prepared, workers: Workers) -> tuple[list[Candidate], dict[Sizes, str], str]:
    """Dry runs of all configurations, one model size after another.

    Returns:
        The candidates, those that cannot be traced without a footprint; why some sizes cannot be
        built; and why some cannot be traced.
    """
    found: list[Candidate] = []
    problems: dict[Sizes, str] = {}
    untraceable = ""
    with workers.start("dry-run") as worker:
        for sizes, same in groupby(prepared.specs, key=lambda spec: spec.sizes):
            group = list(same)
            batch_sizes = tuple(spec.batch_size for spec in group if spec.batch_size)
            spec = replace(group[0], batch_size=None)
            task = Task(kind="dry-run", spec=spec, batch_sizes=batch_sizes, timeline=True)
            reply = ask_or_refuse(worker, task, prepared.request.timeout_seconds)
            if reply.problem and reply.error == UNTRACEABLE:
                untraceable = reply.problem
                found += [Candidate(spec=s, config=prepared.config(s)) for s in group]
            elif reply.problem:
                problems[sizes] = reply.problem
            by_batch = {c.config.batch_size: c for c in reply.counted}
            found += [
                Candidate(spec=s, config=c.config, footprint=c.footprint)
                for s in group
                if (c := by_batch.get(s.batch_size or 0)) is not None
            ]
    return found, problems, untraceable


def _fits(candidate: Candidate, capacity: int) -> bool:
    footprint = candidate.footprint
    return footprint is None or not capacity or footprint.peak_bytes < capacity


def _remember(
    prepared: Prepared, archive: Archive, found: Sequence[Candidate]
) -> dict[RunConfig, Footprint]:
    """Keep what was counted, so that predictions know it too."""
    counted = {c.config: c.footprint for c in found if c.footprint is not None}
    footprints = with_outer_timelines(counted)
    archive.add_footprints(
        prepared.request.target, prepared.source, footprints, prepared.checked.data
    )
    return footprints
