"""A sweep: every configuration once a round, every round in a fresh process, every trial kept.

    request ── prepare ──▶ one TrialSpec for each configuration       (profiler/request.py)
    round 0  [worker] config 3 │ config 1 │ config 4 │ config 2       every trial is stored
    round 1  [worker] config 2 │ config 4 │ config 1 │ config 3       the moment it ends
    …
    noise    [worker] gradients at two batch sizes, of each model size, where asked for
    traces   [worker] one short profile of each configuration

A broken workload stops before the first round, and nothing is stored. A function makes the trials
of the rounds: ``every_round`` of ``rounds.py`` makes those asked for, ``adaptive.py`` chooses.

A configuration that runs out of memory, crashes or hangs costs its worker process; the next
configuration gets a new one. Trials found in the store are not made again. No torch in here.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from epochcast.errors import EpochcastError, StoreError, named
from epochcast.profiler.process import Workers, answer_of
from epochcast.profiler.protocol import Answer, Reply, Task, TrialSpec
from epochcast.profiler.request import Prepared, SweepRequest, prepare
from epochcast.profiler.rounds import (
    Observer,
    Rounds,
    SilentObserver,
    SweepEnding,
    SweepResult,
    SweepStore,
    every_round,
    require_own_name,
)
from epochcast.profiler.target import is_of_file_name
from epochcast.records import Measurement, Status

MAX_NAME_BYTES = 200  # of a folder's name; file systems allow 255


def sweep(
    request: SweepRequest,
    store: SweepStore,
    observer: Observer | None = None,
    *,
    rounds: Callable[[Sweep], SweepEnding] | None = None,
    workers: Workers | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> SweepResult:
    """Probe what a request asks for. Killed at any moment, the same request continues.

    Args:
        request: what to measure.
        store: where measurements go; what it has already is not measured again.
        observer: receives the progress of the sweep.
        rounds: makes the trials and says why it stopped; by default all of them, in every round
            asked for.
        workers: where tasks are done; by default in worker processes on this machine.
        clock: monotonic seconds.

    Raises:
        UsageError: no such workload, knob or device; its name is another's.
        WorkloadError: the workload does not run; nothing was stored.
        StoreError: the store cannot be written; what was stored before is safe.
    """
    begun = clock()
    require_own_name(request.called, request.target, store.measurements(request.called))
    workers = workers or Workers(store.folder)
    running = Sweep(
        prepared=_prepare(request, store, workers),
        store=store,
        observer=observer or SilentObserver(),
        workers=workers,
        clock=lambda: clock() - begun,
    )
    if request.fresh:
        store.remove([m.key for m in running.stored()])
    stopped, half_width = (rounds or every_round)(running)
    if stopped != "nothing-succeeded":
        if request.noise_scale:
            running.take_noise()
        if request.traces and not running.take_traces():
            stopped = "max-seconds"
    return SweepResult(
        measurements=running.stored(),
        seconds=running.clock(),
        stopped=stopped,
        half_width=half_width,
        left_out=tuple(running.left_out),
    )


def _prepare(request: SweepRequest, store: SweepStore, workers: Workers) -> Prepared:
    """Where there is no store yet, what refuses to be probed leaves none: its log is elsewhere."""
    if store.folder.is_dir():
        workers.logs = _make_log_folder(store)
        return prepare(request, workers)
    workers.logs = Path(tempfile.mkdtemp(prefix="epochcast-logs-"))
    try:
        prepared = prepare(request, workers)
    except BaseException as error:
        if str(workers.logs) not in str(error):
            shutil.rmtree(workers.logs, ignore_errors=True)
        raise
    temporary, workers.logs = workers.logs, _make_log_folder(store)
    for log in temporary.iterdir():
        shutil.move(log, workers.logs)
    temporary.rmdir()
    return prepared


def _make_log_folder(store: SweepStore) -> Path:
    stamp = datetime.now(timezone.utc).strftime("%Y%m%d-%H%M%S-%f")
    logs = store.folder / "logs" / stamp
    try:
        logs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"cannot make the log folder {logs}: {error.strerror}; name another store with --store"
        ) from error
    return logs


# -- a sweep under way ----------------------------------------------------------------------------


class Sweep(Rounds[TrialSpec]):
    """A sweep of a workload under way: what its rounds, and what comes after them, are made with.

    Args:
        prepared: the configurations, and what is known of the workload.
        store: takes each trial the moment it ends.
        observer: receives the progress of the sweep.
        workers: starts worker processes.
        clock: seconds since the sweep began.
    """

    def __init__(
        self,
        *,
        prepared: Prepared,
        store: SweepStore,
        observer: Observer,
        workers: Workers,
        clock: Callable[[], float],
    ) -> None:
        super().__init__(
            asked=prepared.request,
            specs=prepared.specs,
            store=store,
            observer=observer,
            clock=clock,
        )
        self.prepared = prepared
        self.request = prepared.request
        self.workers = workers

    def begin(self, trials: int | None, done: int) -> None:
        self.observer.begin(trials, done, self.prepared.device, self.prepared.checked.data)
        for warning in self.prepared.checked.warnings:
            self.warn_once(warning)

    def stored(self, specs: Iterable[TrialSpec] | None = None) -> tuple[Measurement, ...]:
        prepared = self.prepared
        requests = {spec.request for spec in (prepared.specs if specs is None else specs)}
        found = self.store.measurements(self.request.called, source=prepared.source)
        key = prepared.device.key
        return tuple(
            m
            for m in found
            if m.request in requests and m.device.key == key and m.status != "too-large"
        )

    def make_trials(self, order: Iterable[TrialSpec | None], round_: int) -> bool:
        """As of ``Rounds``; None waits for a trial that is under way, where several are at once."""
        begun: dict[str, float] = {}
        if self.request.is_shared:  # one world after the other: each has processes of its own
            order = sorted(order, key=lambda spec: spec.ranks if spec else 0)

        def tasks() -> Iterator[Task | None]:
            for spec in self.in_time(order):
                if spec is None:
                    yield None
                    continue
                begun[spec.request] = self.clock()
                yield Task(kind="trial", spec=spec, round=round_, folder=str(self.store.folder))

        for answer in self._answers(f"round-{round_}", tasks()):
            self._keep_trial(answer, self.clock() - begun[answer.task.spec.request])
        return not self.late

    def _answers(self, name: str, tasks: Iterable[Task | None]) -> Iterator[Answer]:
        def tell(task: Task, phase: str) -> None:
            self.observer.phase(task.spec.config.label, phase)

        return self.workers.ask_each(name, tasks, self.request.timeout_seconds, tell)

    def _keep_trial(self, answer: Answer, seconds: float) -> None:
        """Store what came of a trial that took so long, and tell of it."""
        if answer.error:
            raise named(answer.error)(answer.message)
        measurement = answer.reply.measured if answer.reply else self._failure(answer)
        if measurement is None:
            raise EpochcastError("the worker process answered without a measurement")
        if measurement.status == "ok":
            measurement = self._with_doubts(measurement)
        self.keep(measurement, seconds)

    def _with_doubts(self, measurement: Measurement) -> Measurement:
        """What the check found doubtful holds for each trial, and for what it will teach."""
        doubts = (*self.prepared.checked.warnings, *measurement.warnings)
        return replace(measurement, warnings=tuple({w.code: w for w in doubts}.values()))

    def _failure(self, answer: Answer) -> Measurement:
        """The record of a trial whose process could not write one itself."""
        task = answer.task
        return replace(
            self.unmeasured(task.spec, answer.status, answer.message),
            round=task.round,
            trial=task.trial,
            log=task.log or None,
            node=answer.node,
        )

    def unmeasured(self, spec: TrialSpec, status: Status, message: str) -> Measurement:
        """The record of a configuration of which nothing was measured.

        Args:
            spec: of it.
            status: what became of it.
            message: why.
        """
        prepared = self.prepared
        return Measurement(
            workload=self.request.called,
            target=self.request.target,
            source=prepared.source,
            request=spec.request,
            config=prepared.config(spec),
            device=prepared.device,
            status=status,
            message=message,
            samples=prepared.checked.samples,
            data=prepared.checked.data,
            sweep=self.began_at,
            created_at=datetime.now(timezone.utc).isoformat(timespec="microseconds"),
            note=self.request.note,
        )

    # -- after the rounds: each adds to a measurement that is stored already ----------------------

    def take_noise(self) -> None:
        """Gradient noise at the smallest batch of each model size that has none.

        Each in a process of its own. A failure costs no more than what it would have shown.
        """
        measured = self._measured()
        known = {m.config.sizes for m in self.stored() if m.gradient_noise is not None}
        smallest = {
            spec.sizes: (spec, m)
            for spec, m in sorted(measured, key=lambda pair: -pair[0].config.batch_size)
            if m.config.sizes not in known
        }
        for spec, measurement in smallest.values():
            with self.workers.start("noise") as worker:
                alone = replace(spec, world_size=1, sharding="ddp")
                task = Task(kind="noise", spec=alone, log=str(worker.log))
                self.observer.phase(spec.config.label, "gradient noise")
                limit = self.request.timeout_seconds
                answer = answer_of(worker, task, limit, lambda phase: None)
            reply = self._reply_or_note(answer, "no-noise-scale")
            if reply is not None:
                self.store.add(replace(measurement, gradient_noise=reply.noise))

    def take_traces(self) -> bool:
        """A trace of each measured configuration that has none; whether there was time for all."""
        root = self.store.log_folder
        missing = {
            spec.request: (spec, m)
            for spec, m in sorted(self._measured(), key=lambda pair: pair[0].ranks)
            if m.trace is None or not (root / m.trace).is_file()
        }

        def tasks() -> Iterator[Task]:
            for spec, _ in self.in_time(missing.values()):
                self.observer.phase(spec.config.label, "trace")
                name = f"{slug(spec.config.label)}-{spec.request[:6]}"
                folder = root / slug(self.request.called) / name
                yield Task(kind="trace", spec=spec, folder=str(folder))

        for answer in self._answers("traces", tasks()):
            reply = self._reply_or_note(answer, "no-trace")
            if reply is not None:
                _, measurement = missing[answer.task.spec.request]
                path = Path(reply.text).relative_to(root).as_posix()
                told = reply.communication or measurement.communication
                self.store.add(replace(measurement, trace=path, communication=told))
        return not self.late

    def _measured(self) -> list[tuple[TrialSpec, Measurement]]:
        """The configurations that were measured, with the latest good measurement of each."""
        latest = {m.request: m for m in self.stored() if m.status == "ok"}
        specs = self.prepared.specs
        return [(spec, latest[spec.request]) for spec in specs if spec.request in latest]

    def _reply_or_note(self, answer: Answer, code: str) -> Reply | None:
        """The reply to a task that a sweep survives without; None, and a warning, if it failed."""
        if answer.reply is None:
            self.note(code, config=answer.task.spec.config.label, why=answer.message)
        return answer.reply


def slug(text: str) -> str:
    """A file name for a label: letters, digits, ``=``, ``.``, ``_`` and ``-``, as names are.

    Of a long label the end, which tells most, after a fingerprint of the whole.
    """
    name = "".join(c if is_of_file_name(c) else "-" for c in text).strip("-.") or "workload"
    if len(name.encode()) <= MAX_NAME_BYTES:
        return name
    end = name.encode()[-MAX_NAME_BYTES:].decode(errors="ignore")
    return f"{hashlib.sha256(name.encode()).hexdigest()[:8]}-{end}"
