"""One trial: a configuration measured in a worker, stored the moment it ends, whatever happens.

    worker answers            ──▶  its Measurement
    worker dies or is silent  ──▶  a Measurement with status oom, crashed or timeout

A configuration that fails costs its worker process; the next one gets a new one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timezone

from epochcast.errors import EpochcastError
from epochcast.profiler.archive import Archive
from epochcast.profiler.observer import Observer, note
from epochcast.profiler.prepare import Prepared
from epochcast.profiler.process import (
    WorkerDied,
    WorkerProcess,
    Workers,
    WorkerTimeout,
    out_of_memory_kills,
)
from epochcast.profiler.protocol import Task, TrialSpec
from epochcast.records import Measurement, Status


class TimeLimit:
    """The time that a sweep has; without ``max_seconds``, all of it."""

    def __init__(self, max_seconds: float | None, clock: Callable[[], float]) -> None:
        self.max_seconds = max_seconds
        self.clock = clock
        self.begun = clock()
        self.longest_trial = 0.0

    @property
    def seconds(self) -> float:
        """Since the sweep began."""
        return self.clock() - self.begun

    @property
    def reached(self) -> bool:
        """Whether another trial, as long as the longest so far, would end too late."""
        if self.max_seconds is None:
            return False
        return self.seconds + self.longest_trial > self.max_seconds


class Trials:
    """Makes trials and stores them.

    Attributes:
        failed: requests that gave no measurement in this sweep.
    """

    def __init__(
        self, prepared: Prepared, archive: Archive, observer: Observer, limit: TimeLimit
    ) -> None:
        self.prepared = prepared
        self.archive = archive
        self.observer = observer
        self.limit = limit
        self.failed: set[str] = set()
        self._warned = False  # of a checkpoint that could not be timed

    def in_order(
        self, order: Sequence[TrialSpec], round_: int, workers: Workers
    ) -> Iterator[Measurement]:
        """Measure configurations until all are done or time is up; replace a worker that failed."""
        remaining = list(order)
        while remaining:
            with workers.start(f"round-{round_}") as worker:
                while remaining:
                    if self.limit.reached:
                        return
                    measurement = self.make(worker, remaining.pop(0), round_)
                    yield measurement
                    if measurement.status != "ok":
                        break

    def make(self, worker: WorkerProcess, spec: TrialSpec, round_: int) -> Measurement:
        """Measure one configuration in a worker, store and tell it."""
        begun = self.limit.seconds
        measurement = self._measure(worker, self._task(worker, spec, round_))
        worker.trials += 1
        seconds = self.limit.seconds - begun
        self.limit.longest_trial = max(self.limit.longest_trial, seconds)
        if measurement.status != "ok":
            self.failed.add(spec.request)
            measurement = replace(measurement, probe_seconds=seconds)
        self.archive.add(measurement)
        self.observer.finished(measurement)
        if measurement.status == "ok" and measurement.message and not self._warned:
            self._warned = True
            note(self.observer, "no-save", why=measurement.message)
        return measurement

    def _task(self, worker: WorkerProcess, spec: TrialSpec, round_: int) -> Task:
        return Task(
            kind="trial",
            spec=spec,
            round=round_,
            trial=worker.trials,
            folder=str(self.archive.folder),
            log=str(worker.log),
        )

    def _measure(self, worker: WorkerProcess, task: Task) -> Measurement:
        limit, label = self.prepared.request.timeout_seconds, task.spec.config.label
        kills = out_of_memory_kills()
        try:
            reply = worker.ask(task, limit, lambda phase: self.observer.phase(label, phase))
        except WorkerTimeout:
            return _failure(self.prepared, task, "timeout", f"no result after {limit:.0f} s")
        except WorkerDied as error:
            oom = error.exit_code == -9 and out_of_memory_kills() > kills
            reason = error.reason + (": the system ran out of memory" if oom else "")
            return _failure(self.prepared, task, "oom" if oom else "crashed", reason)
        if reply.measured is None:
            raise EpochcastError("the worker process answered without a measurement")
        return reply.measured


def _failure(prepared: Prepared, task: Task, status: Status, message: str) -> Measurement:
    """The record of a trial whose process could not write one itself."""
    return Measurement(
        workload=prepared.request.target,
        source=prepared.source,
        request=task.spec.request,
        config=prepared.config(task.spec),
        device=prepared.device,
        status=status,
        message=message,
        round=task.round,
        trial=task.trial,
        samples=prepared.checked.samples,
        data=prepared.checked.data,
        log=task.log or None,
        created_at=datetime.now(timezone.utc).isoformat(timespec="microseconds"),
    )
