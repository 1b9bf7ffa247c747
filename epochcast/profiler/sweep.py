"""A sweep: every configuration once a round, every round in a fresh process, every visit kept.

    check    one trial step: a broken workload stops here, and nothing is stored
    round 0  [worker] config 3 │ config 1 │ config 4 │ config 2       every visit is stored
    round 1  [worker] config 2 │ config 4 │ config 1 │ config 3       the moment it ends
    …
    noise    [worker] gradients at two batch sizes, of each model size, where asked for
    traces   [worker] one short profile of each configuration

A configuration that runs out of memory, crashes or hangs costs its worker process; the next
configuration gets a new one. Visits found in the store are not made again. No torch in here.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from itertools import groupby
from pathlib import Path
from typing import Protocol

from epochcast.errors import EpochcastError, StoreError, UsageError, WorkloadError
from epochcast.profiler.process import (
    WorkerDied,
    WorkerProcess,
    WorkerTimeout,
    out_of_memory_kills,
)
from epochcast.profiler.protocol import (
    AUTO,
    CheckedWorkload,
    Description,
    Reply,
    Task,
    VisitSpec,
)
from epochcast.profiler.request import (
    SweepRequest,
    candidate_batch_sizes,
    check_knobs,
    default_batch_sizes,
    grid,
)
from epochcast.records import (
    Device,
    Footprint,
    Measurement,
    RunConfig,
    Sizes,
    Status,
    Warning_,
)

MAX_NAME_BYTES = 200  # of a folder's name; file systems allow 255


class Archive(Protocol):
    """The part of the store that a sweep needs."""

    @property
    def folder(self) -> Path: ...
    @property
    def log_folder(self) -> Path: ...
    def add(self, measurement: Measurement) -> None: ...
    def remove(self, keys: Sequence[str]) -> int: ...
    def measurements(
        self, workload: str | None = None, *, source: str | None = None
    ) -> tuple[Measurement, ...]: ...
    def add_footprints(
        self, workload: str, source: str, footprints: Mapping[RunConfig, Footprint]
    ) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A configuration that may be visited, and what a dry run counted of it."""

    config: RunConfig
    footprint: Footprint | None = None


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What a chooser wants: a visit of a candidate, a fresh process, or to stop.

    Attributes:
        visit: position of a candidate.
        next_round: go on in a fresh process.
        stop: why to stop; empty to go on.
    """

    visit: int | None = None
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


class Observer(Protocol):
    """Is told how a sweep goes; report.py has those that write to a terminal."""

    def begin(self, visits: int | None, done: int, device: Device, data: str) -> None: ...
    def phase(self, label: str, phase: str) -> None: ...
    def visited(self, measurement: Measurement) -> None: ...
    def warn(self, warning: Warning_) -> None: ...


class SilentObserver:
    """Ignores everything."""

    def begin(self, visits: int | None, done: int, device: Device, data: str) -> None:
        return

    def phase(self, label: str, phase: str) -> None:
        return

    def visited(self, measurement: Measurement) -> None:
        return

    def warn(self, warning: Warning_) -> None:
        return


@dataclass(frozen=True, kw_only=True)
class SweepResult:
    """What a sweep found and why it stopped.

    Attributes:
        measurements: of the configurations asked for, stored earlier or now.
        seconds: wall-clock time of this sweep.
        stopped: ``"complete"``, ``"max-seconds"`` or ``"nothing-succeeded"``; of a sweep that
            chooses also ``"sharp"`` or ``"max-rounds"``.
        half_width: half the relative width of the 90 % interval of the answer, when it stopped;
            None where the sweep did not choose.
    """

    measurements: tuple[Measurement, ...]
    seconds: float
    stopped: str
    half_width: float | None = None

    @property
    def succeeded(self) -> bool:
        """Whether any configuration was measured."""
        return any(m.status == "ok" for m in self.measurements)


def sweep(
    request: SweepRequest,
    archive: Archive,
    observer: Observer | None = None,
    *,
    chooser: Chooser | None = None,
    start_worker: Callable[[Path], WorkerProcess] = WorkerProcess,
    clock: Callable[[], float] = time.monotonic,
) -> SweepResult:
    """Probe what a request asks for. Killed at any moment, the same request continues.

    Args:
        archive: where measurements go; what it has already is not measured again.
        observer: is told how it goes.
        chooser: decides which of the configurations to visit; without one, all of them.
        start_worker: starts a worker process that logs to a file.
        clock: monotonic seconds.

    Raises:
        UsageError: no such workload, knob or device.
        WorkloadError: the workload does not run; nothing was stored.
        StoreError: the store cannot be written; what was stored before is safe.
    """
    observer = observer or SilentObserver()
    return _Sweep(request, archive, observer, chooser, start_worker, clock).run()


class _Sweep:
    """The state of one sweep: what is known, what is done, which worker is alive."""

    def __init__(
        self,
        request: SweepRequest,
        archive: Archive,
        observer: Observer,
        chooser: Chooser | None,
        start_worker: Callable[[Path], WorkerProcess],
        clock: Callable[[], float],
    ) -> None:
        self.request = request
        self.archive = archive
        self.observer = observer
        self.chooser = chooser
        self.start_worker = start_worker
        self.clock = clock
        self.begun = clock()
        self.visit_seconds: list[float] = []
        self.failed: set[str] = set()  # requests that gave no measurement in this sweep
        self.warned = False  # of a checkpoint that could not be timed
        self.stopped = "complete"
        stamp = datetime.now(timezone.utc).strftime("%Y%m%d-%H%M%S-%f")
        self.logs = archive.folder / "logs" / stamp

    def run(self) -> SweepResult:
        self._make_log_folder()
        known, checked, specs = self._check()
        self.source, self.device, self.trial = known.source, known.device, checked
        if self.request.fresh:
            self.archive.remove([m.key for m in self._stored(specs)])
        if self.chooser is None:
            self._every_round(specs)
        else:
            self._chosen(self.chooser, specs)
        if self.request.noise_scale and self.stopped != "nothing-succeeded":
            self._noises(specs)
        if self.request.traces and self.stopped != "nothing-succeeded":
            self._traces(specs)
        return SweepResult(
            measurements=self._stored(specs),
            seconds=self.clock() - self.begun,
            stopped=self.stopped,
            half_width=self.chooser.half_width if self.chooser else None,
        )

    def _make_log_folder(self) -> None:
        try:
            self.logs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"cannot make the log folder {self.logs}: {error.strerror}; "
                "name another store with --store"
            ) from error

    # -- before the first round ---------------------------------------------------------------

    def _check(self) -> tuple[Description, CheckedWorkload, list[VisitSpec]]:
        """Load the workload and try its first configuration, in a process of its own."""
        first = VisitSpec(workload=self.request.workload)
        with self._worker("check") as worker:
            known = self._ask(worker, Task(kind="describe", spec=first)).described
            if known is None:
                raise EpochcastError("the worker process did not describe the workload")
            check_knobs(self.request, known)
            if self.request.device == AUTO:  # so that asking for it by name continues this sweep
                self.request = replace(self.request, device=known.device.kind)
            trial = grid(self.request, known, self.request.batch_sizes[:1] or (0,))[0]
            checked = self._try(worker, replace(trial, batch_size=trial.batch_size or None))
        own = checked.config.batch_size
        batch_sizes = self.request.batch_sizes or default_batch_sizes(own, checked.samples)
        if self.request.chooses and batch_sizes:
            batch_sizes = candidate_batch_sizes(self.request, own, checked.samples)
        if checked.samples and max(batch_sizes, default=own) > checked.samples:
            raise UsageError(
                f"batch size {max(batch_sizes, default=own)} is more than the data set's "
                f"{checked.samples} samples; leave it out"
            )
        if checked.problem:
            raise WorkloadError(f"{checked.problem} (log: {worker.log})")
        if not batch_sizes:
            why = checked.trouble or "the trial step ended or blocked its process"
            raise WorkloadError(f"{why}; so its batch size is not known (log: {worker.log})")
        return known, checked, grid(self.request, known, batch_sizes)

    def _ask(self, worker: WorkerProcess, task: Task) -> Reply:
        try:
            return worker.ask(task, self.request.timeout_seconds)
        except WorkerTimeout as error:
            limit = self.request.timeout_seconds
            raise WorkloadError(f"not ready after {limit:.0f} s ({worker.log})") from error
        except WorkerDied as error:
            raise WorkloadError(f"{error.reason}; see {worker.log}") from error

    def _try(self, worker: WorkerProcess, spec: VisitSpec) -> CheckedWorkload:
        """A trial step. If it hangs or kills its process, the sweep will find out which ones do."""
        try:
            reply = worker.ask(Task(kind="check", spec=spec), self.request.timeout_seconds)
        except (WorkerTimeout, WorkerDied):
            reply = Reply(kind="checked")
        if reply.checked is not None:
            return reply.checked
        return CheckedWorkload(config=_config_asked(spec))

    # -- what the store has -------------------------------------------------------------------

    def _stored(self, specs: Sequence[VisitSpec]) -> tuple[Measurement, ...]:
        requests = {spec.request for spec in specs}
        stored = self.archive.measurements(self.request.target, source=self.source)
        return tuple(m for m in stored if m.request in requests and m.device.key == self.device.key)

    def _done(self, specs: Sequence[VisitSpec]) -> set[tuple[str, int]]:
        """Visits not to be made again: those that succeeded, and all of a request that ran out
        of memory. Crashes and timeouts are tried again."""
        done: set[tuple[str, int]] = set()
        for m in self._stored(specs):
            if m.status == "ok" and m.round < self.request.rounds:
                done.add((m.request, m.round))
            elif m.status == "oom":
                done |= {(m.request, round_) for round_ in range(self.request.rounds)}
        return done

    # -- rounds -------------------------------------------------------------------------------

    def _every_round(self, specs: list[VisitSpec]) -> None:
        """Every configuration in every round."""
        done = self._done(specs)
        todo = len(specs) * self.request.rounds - len(done)
        self.observer.begin(todo, len(done), self.device, self.trial.data)
        for round_ in range(self.request.rounds):
            if self.stopped == "complete":
                self._round(round_, specs, done)

    def _round(self, round_: int, specs: list[VisitSpec], done: set[tuple[str, int]]) -> None:
        order = [s for s in specs if (s.request, round_) not in done and not self._gave_up(s)]
        random.Random(f"{self.request.seed}/{round_}").shuffle(order)
        results = list(self._visits(order, round_))
        nothing_before = not any(m.status == "ok" for m in self._stored(specs))
        if results and nothing_before and self.stopped == "complete":
            self.stopped = "nothing-succeeded"

    def _gave_up(self, spec: VisitSpec) -> bool:
        return spec.request in self.failed

    def _visits(self, order: Sequence[VisitSpec], round_: int) -> Iterator[Measurement]:
        """Visit configurations in order; a worker that failed one is replaced."""
        remaining = list(order)
        while remaining:
            with self._worker(f"round-{round_}") as worker:
                while remaining:
                    if self._out_of_time():
                        self.stopped = "max-seconds"
                        return
                    measurement = self._visit(worker, remaining.pop(0), round_)
                    yield measurement
                    if measurement.status != "ok":
                        break

    def _out_of_time(self) -> bool:
        if self.request.max_seconds is None:
            return False
        next_visit = max(self.visit_seconds, default=0.0)
        return self.clock() - self.begun + next_visit > self.request.max_seconds

    def _visit(self, worker: WorkerProcess, spec: VisitSpec, round_: int) -> Measurement:
        begun = self.clock()
        label = _label(spec)
        task = Task(
            kind="visit",
            spec=spec,
            round=round_,
            visit=worker.visits,
            folder=str(self.archive.folder),
            log=str(worker.log),
        )
        kills = out_of_memory_kills()
        try:
            reply = worker.ask(
                task, self.request.timeout_seconds, lambda p: self.observer.phase(label, p)
            )
            measurement = reply.measured
        except WorkerTimeout:
            limit = self.request.timeout_seconds
            measurement = self._failure(task, "timeout", f"no result after {limit:.0f} s")
        except WorkerDied as error:
            oom = error.exit_code == -9 and out_of_memory_kills() > kills
            reason = error.reason + (": the system ran out of memory" if oom else "")
            measurement = self._failure(task, "oom" if oom else "crashed", reason)
        if measurement is None:
            raise EpochcastError("the worker process answered without a measurement")
        worker.visits += 1
        seconds = self.clock() - begun
        self.visit_seconds.append(seconds)
        if measurement.status != "ok":
            self.failed.add(spec.request)
            measurement = replace(measurement, probe_seconds=seconds)
        self.archive.add(measurement)
        self.observer.visited(measurement)
        if measurement.status == "ok" and measurement.message and not self.warned:
            self.warned = True
            why = (("why", measurement.message),)
            self.observer.warn(Warning_(code="no-save", details=why))
        return measurement

    def _failure(self, task: Task, status: Status, message: str) -> Measurement:
        """The record of a visit whose process could not write one itself."""
        config = self._config(task.spec)
        return Measurement(
            workload=self.request.target,
            source=self.source,
            request=task.spec.request,
            config=config,
            device=self.device,
            status=status,
            message=message,
            round=task.round,
            visit=task.visit,
            samples=self.trial.samples,
            data=self.trial.data,
            log=task.log or None,
            created_at=datetime.now(timezone.utc).isoformat(timespec="microseconds"),
        )

    # -- rounds of a sweep that chooses -------------------------------------------------------

    def _chosen(self, chooser: Chooser, specs: list[VisitSpec]) -> None:
        """Visit what the chooser wants, round after round, until it or the time stops."""
        candidates = self._candidates(specs)
        done = len([m for m in self._stored(specs) if m.status == "ok"])
        self.observer.begin(None, done, self.device, self.trial.data)
        chooser.begin([c.config for _, c in candidates], self._remember(candidates))
        round_, stop = 0, ""
        while not stop:
            with self._worker(f"round-{round_}") as worker:
                choice = self._choices(chooser, candidates, worker, round_)
            stop, round_ = choice.stop, round_ + choice.next_round
        self.stopped = stop

    def _choices(
        self,
        chooser: Chooser,
        candidates: Sequence[tuple[VisitSpec, Candidate]],
        worker: WorkerProcess,
        round_: int,
    ) -> Choice:
        """Visits in one process, until another is needed; the choice that ended them."""
        specs = [spec for spec, _ in candidates]
        while True:
            choice = chooser.next(self._stored(specs), round_)
            if choice.visit is None:
                return choice
            if self._out_of_time():
                return Choice(stop="max-seconds")
            if self._visit(worker, specs[choice.visit], round_).status != "ok":
                return Choice()

    def _candidates(self, specs: Sequence[VisitSpec]) -> list[tuple[VisitSpec, Candidate]]:
        """The configurations to choose among, counted by dry runs: none that the workload cannot
        be built in, none whose tensors alone are more than the device has."""
        counted, problems = self._count(specs)
        if not counted:
            why = next(iter(problems.values()), "")
            self._note("no-footprints", why=why)
            return [(spec, Candidate(config=self._config(spec))) for spec in specs]
        for sizes, why in problems.items():
            named = " ".join(f"{name}={value}" for name, value in sizes)
            self._note("no-such-size", sizes=named, why=why)
        fitting = [(s, c) for s, c in counted if self._fits(c)]
        if len(fitting) < len(counted):
            self._note("too-large", count=str(len(counted) - len(fitting)))
        return fitting

    def _count(
        self, specs: Sequence[VisitSpec]
    ) -> tuple[list[tuple[VisitSpec, Candidate]], dict[Sizes, str]]:
        """Dry runs of all configurations, one model size after another; and why some failed."""
        counted: list[tuple[VisitSpec, Candidate]] = []
        problems: dict[Sizes, str] = {}
        with self._worker("dry-run") as worker:
            for sizes, same in groupby(specs, key=lambda spec: spec.sizes):
                group = list(same)
                sizes_ = tuple(spec.batch_size for spec in group if spec.batch_size)
                spec = replace(group[0], batch_size=None)
                reply = self._ask(worker, Task(kind="dry-run", spec=spec, batch_sizes=sizes_))
                if reply.problem:
                    problems[sizes] = reply.problem
                found = [Candidate(config=c.config, footprint=c.footprint) for c in reply.counted]
                counted += zip(group, found, strict=False)
        return counted, problems

    def _fits(self, candidate: Candidate) -> bool:
        capacity, footprint = self.device.memory_bytes, candidate.footprint
        return footprint is None or not capacity or footprint.peak_bytes < capacity

    def _remember(
        self, candidates: Sequence[tuple[VisitSpec, Candidate]]
    ) -> dict[RunConfig, Footprint]:
        """Keep what was counted, so that predictions know it too."""
        found = {c.config: c.footprint for _, c in candidates if c.footprint is not None}
        self.archive.add_footprints(self.request.target, self.source, found)
        return found

    def _config(self, spec: VisitSpec) -> RunConfig:
        return replace(self.trial.config, batch_size=spec.batch_size or 1, sizes=spec.sizes)

    def _note(self, code: str, **details: str) -> None:
        self.observer.warn(Warning_(code=code, details=tuple(details.items())))

    # -- gradient noise -----------------------------------------------------------------------

    def _noises(self, specs: Sequence[VisitSpec]) -> None:
        """Of the smallest batch of each model size that has none; a failure costs no more."""
        good = [m for m in self._stored(specs) if m.status == "ok"]
        known = {m.config.sizes for m in good if m.gradient_noise is not None}
        latest = {m.request: m for m in good}
        smallest = {
            spec.sizes: spec
            for spec in sorted(specs, key=lambda s: -(s.batch_size or 0))
            if spec.request in latest and latest[spec.request].config.sizes not in known
        }
        for spec in smallest.values():
            with self._worker("noise") as worker:
                self._noise(worker, spec, latest[spec.request])

    def _noise(self, worker: WorkerProcess, spec: VisitSpec, measured: Measurement) -> None:
        label = _label(spec)
        self.observer.phase(label, "gradient noise")
        task = Task(kind="noise", spec=spec, log=str(worker.log))
        try:
            reply = worker.ask(task, self.request.timeout_seconds)
        except (WorkerTimeout, WorkerDied, EpochcastError) as error:
            details = (("config", label), ("why", _reason(error)))
            self.observer.warn(Warning_(code="no-noise-scale", details=details))
            return
        self.archive.add(replace(measured, gradient_noise=reply.noise))

    # -- traces -------------------------------------------------------------------------------

    def _traces(self, specs: Sequence[VisitSpec]) -> None:
        """Trace each measured configuration that has none; a failure here costs the trace only."""
        latest = {m.request: m for m in self._stored(specs) if m.status == "ok"}
        traced = {r for r, m in latest.items() if _has_trace(m, self.archive.log_folder)}
        todo = [s for s in specs if s.request in latest and s.request not in traced]
        while todo:
            with self._worker("traces") as worker:
                while todo:
                    if self._out_of_time():
                        self.stopped = "max-seconds"
                        return
                    spec = todo.pop(0)
                    if not self._trace(worker, spec, latest[spec.request]):
                        break

    def _trace(self, worker: WorkerProcess, spec: VisitSpec, measured: Measurement) -> bool:
        label = _label(spec)
        self.observer.phase(label, "trace")
        place = Path(_slug(self.request.target)) / f"{_slug(label)}-{spec.request[:6]}"
        task = Task(kind="trace", spec=spec, folder=str(self.archive.log_folder / place))
        try:
            reply = worker.ask(task, self.request.timeout_seconds)
        except (WorkerTimeout, WorkerDied, EpochcastError) as error:
            details = (("config", label), ("why", _reason(error)))
            self.observer.warn(Warning_(code="no-trace", details=details))
            return False
        path = Path(reply.text).relative_to(self.archive.log_folder)
        self.archive.add(replace(measured, trace=path.as_posix()))
        return True

    def _worker(self, name: str) -> WorkerProcess:
        number = len(list(self.logs.glob(f"{name}*.log")))
        log = self.logs / (f"{name}-{number}.log" if number else f"{name}.log")
        try:
            return self.start_worker(log)
        except OSError as error:  # no space for the log, no memory for a process
            raise EpochcastError(f"cannot start a worker process: {error}") from error


def _reason(error: Exception) -> str:
    return error.reason if isinstance(error, WorkerDied) else str(error) or "timeout"


def _has_trace(measurement: Measurement, folder: Path) -> bool:
    return measurement.trace is not None and (folder / measurement.trace).is_file()


def _config_asked(spec: VisitSpec) -> RunConfig:
    return RunConfig(batch_size=spec.batch_size or 1, sizes=spec.sizes)


def _label(spec: VisitSpec) -> str:
    return _config_asked(spec).label


def _slug(text: str) -> str:
    """A file name for a label: letters, digits, ``=``, ``.``, ``_`` and ``-``.

    Of a long label the end, which tells most, after a fingerprint of the whole.
    """
    name = "".join(c if c.isalnum() or c in "=._-" else "-" for c in text).strip("-.") or "workload"
    if len(name.encode()) <= MAX_NAME_BYTES:
        return name
    end = name.encode()[-MAX_NAME_BYTES:].decode(errors="ignore")
    return f"{hashlib.sha256(name.encode()).hexdigest()[:8]}-{end}"
