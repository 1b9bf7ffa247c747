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
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime, timezone
from itertools import count
from pathlib import Path
from typing import TypeVar

from epochcast.errors import EpochcastError, StoreError
from epochcast.profiler.process import (
    WorkerDied,
    WorkerProcess,
    Workers,
    WorkerTimeout,
    out_of_memory_kills,
)
from epochcast.profiler.protocol import Reply, Task, TrialSpec
from epochcast.profiler.request import Prepared, SweepRequest, prepare
from epochcast.profiler.rounds import (
    Ending,
    Observer,
    Rounds,
    SilentObserver,
    SweepResult,
    SweepStore,
    every_round,
)
from epochcast.records import Measurement, Status

MAX_NAME_BYTES = 200  # of a folder's name; file systems allow 255

_Item = TypeVar("_Item")


def sweep(
    request: SweepRequest,
    store: SweepStore,
    observer: Observer | None = None,
    *,
    rounds: Callable[[Sweep], Ending] | None = None,
    start_worker: Callable[[Path], WorkerProcess] = WorkerProcess,
    clock: Callable[[], float] = time.monotonic,
) -> SweepResult:
    """Probe what a request asks for. Killed at any moment, the same request continues.

    Args:
        request: what to measure.
        store: where measurements go; what it has already is not measured again.
        observer: receives the progress of the sweep.
        rounds: makes the trials and says why it stopped; by default all of them, in every round
            asked for.
        start_worker: starts a worker process that logs to a file.
        clock: monotonic seconds.

    Raises:
        UsageError: no such workload, knob or device.
        WorkloadError: the workload does not run; nothing was stored.
        StoreError: the store cannot be written; what was stored before is safe.
    """
    begun = clock()
    workers = Workers(store.folder, start_worker)
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
        found = self.store.measurements(self.request.target, source=prepared.source)
        key = prepared.device.key
        return tuple(m for m in found if m.request in requests and m.device.key == key)

    def make_trials(self, order: Iterable[TrialSpec], round_: int) -> bool:
        def make(worker: WorkerProcess, spec: TrialSpec, number: int) -> bool:
            return self.make_trial(worker, spec, round_, number).status == "ok"

        return self._in_workers(f"round-{round_}", order, make)

    def _in_workers(
        self, name: str, items: Iterable[_Item], do: Callable[[WorkerProcess, _Item, int], bool]
    ) -> bool:
        """Do something with each of several; whether there was time for all.

        Args:
            name: what the workers are for.
            items: in order.
            do: with a worker, an item and the number of those before it in that worker; False
                where the worker must be replaced.
        """
        left = deque(items)
        while left:
            with self.workers.start(name) as worker:
                for number in count():
                    if not left:
                        return True
                    if self.out_of_time:
                        return False
                    if not do(worker, left.popleft(), number):
                        break
        return True

    def make_trial(
        self, worker: WorkerProcess, spec: TrialSpec, round_: int, number: int
    ) -> Measurement:
        """Measure one configuration in a worker; store the result and tell of it.

        Args:
            worker: a process that has not failed.
            spec: the configuration.
            round_: pass over all configurations.
            number: of trials that the process has made before.
        """
        task = Task(
            kind="trial",
            spec=spec,
            round=round_,
            trial=number,
            folder=str(self.store.folder),
            log=str(worker.log),
        )
        begun = self.clock()
        measurement = self._measure(worker, task)
        if measurement.status == "ok":
            measurement = self._with_doubts(measurement)
        return self.keep(measurement, self.clock() - begun)

    def _with_doubts(self, measurement: Measurement) -> Measurement:
        """What the check found doubtful holds for each trial, and for what it will teach."""
        doubts = (*self.prepared.checked.warnings, *measurement.warnings)
        return replace(measurement, warnings=tuple({w.code: w for w in doubts}.values()))

    def _measure(self, worker: WorkerProcess, task: Task) -> Measurement:
        limit, label = self.request.timeout_seconds, task.spec.config.label
        kills = out_of_memory_kills()
        try:
            reply = worker.ask(task, limit, lambda phase: self.observer.phase(label, phase))
        except WorkerTimeout:
            return self._failure(task, "timeout", f"no result after {limit:.0f} s")
        except WorkerDied as error:
            if error.exit_code == -9 and out_of_memory_kills() > kills:
                return self._failure(task, "oom", f"{error.reason}: the system ran out of memory")
            return self._failure(task, "crashed", error.reason)
        if reply.measured is None:
            raise EpochcastError("the worker process answered without a measurement")
        return reply.measured

    def _failure(self, task: Task, status: Status, message: str) -> Measurement:
        """The record of a trial whose process could not write one itself."""
        prepared = self.prepared
        return Measurement(
            workload=self.request.target,
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
                task = Task(kind="noise", spec=spec, log=str(worker.log))
                reply = self._ask_for_more(worker, task, "gradient noise", "no-noise-scale")
            if reply is not None:
                self.store.add(replace(measurement, gradient_noise=reply.noise))

    def take_traces(self) -> bool:
        """A trace of each measured configuration that has none; whether there was time for all."""
        root = self.store.log_folder

        def trace(worker: WorkerProcess, pair: tuple[TrialSpec, Measurement], _: int) -> bool:
            spec, measurement = pair
            name = f"{slug(spec.config.label)}-{spec.request[:6]}"
            folder = root / slug(self.request.target) / name
            task = Task(kind="trace", spec=spec, folder=str(folder))
            reply = self._ask_for_more(worker, task, "trace", "no-trace")
            if reply is not None:
                path = Path(reply.text).relative_to(root).as_posix()
                self.store.add(replace(measurement, trace=path))
            return reply is not None

        missing = [
            (spec, m)
            for spec, m in self._measured()
            if m.trace is None or not (root / m.trace).is_file()
        ]
        return self._in_workers("traces", missing, trace)

    def _measured(self) -> list[tuple[TrialSpec, Measurement]]:
        """The configurations that were measured, with the latest good measurement of each."""
        latest = {m.request: m for m in self.stored() if m.status == "ok"}
        specs = self.prepared.specs
        return [(spec, latest[spec.request]) for spec in specs if spec.request in latest]

    def _ask_for_more(
        self, worker: WorkerProcess, task: Task, phase: str, code: str
    ) -> Reply | None:
        """The answer to a task that a sweep survives without; None, and a warning, if it failed."""
        label = task.spec.config.label
        self.observer.phase(label, phase)
        try:
            return worker.ask(task, self.request.timeout_seconds)
        except (WorkerTimeout, WorkerDied, EpochcastError) as error:
            why = error.reason if isinstance(error, WorkerDied) else str(error) or "timeout"
            self.note(code, config=label, why=why)
            return None


def slug(text: str) -> str:
    """A file name for a label: letters, digits, ``=``, ``.``, ``_`` and ``-``.

    Of a long label the end, which tells most, after a fingerprint of the whole.
    """
    name = "".join(c if c.isalnum() or c in "=._-" else "-" for c in text).strip("-.") or "workload"
    if len(name.encode()) <= MAX_NAME_BYTES:
        return name
    end = name.encode()[-MAX_NAME_BYTES:].decode(errors="ignore")
    return f"{hashlib.sha256(name.encode()).hexdigest()[:8]}-{end}"
