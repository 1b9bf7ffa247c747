"""After the rounds: gradient noise and traces of what was measured. A failure costs no more.

    noise    [worker] gradients at two batch sizes     a process for each model size
    traces   [worker] one short profile of each configuration

Each adds to a measurement that is stored already.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from epochcast.errors import EpochcastError
from epochcast.profiler.archive import Archive, stored
from epochcast.profiler.observer import Observer, note
from epochcast.profiler.prepare import Prepared
from epochcast.profiler.process import WorkerDied, WorkerProcess, Workers, WorkerTimeout
from epochcast.profiler.protocol import Task, TrialSpec
from epochcast.profiler.trials import TimeLimit
from epochcast.records import Measurement

MAX_NAME_BYTES = 200  # of a folder's name; file systems allow 255


def take_noise(prepared: Prepared, archive: Archive, observer: Observer, workers: Workers) -> None:
    """Gradient noise at the smallest batch of each model size that has none."""
    good = [m for m in stored(archive, prepared, prepared.specs) if m.status == "ok"]
    known = {m.config.sizes for m in good if m.gradient_noise is not None}
    latest = {m.request: m for m in good}
    smallest = {
        spec.sizes: spec
        for spec in sorted(prepared.specs, key=lambda s: -(s.batch_size or 0))
        if spec.request in latest and latest[spec.request].config.sizes not in known
    }
    for spec in smallest.values():
        label = spec.config.label
        with workers.start("noise") as worker:
            observer.phase(label, "gradient noise")
            task = Task(kind="noise", spec=spec, log=str(worker.log))
            try:
                reply = worker.ask(task, prepared.request.timeout_seconds)
            except (WorkerTimeout, WorkerDied, EpochcastError) as error:
                note(observer, "no-noise-scale", config=label, why=_reason(error))
                continue
            archive.add(replace(latest[spec.request], gradient_noise=reply.noise))


class Traces:
    """Writes a trace of each measured configuration that has none."""

    def __init__(self, prepared: Prepared, archive: Archive, observer: Observer) -> None:
        self.prepared = prepared
        self.archive = archive
        self.observer = observer

    def take(self, workers: Workers, limit: TimeLimit) -> bool:
        """Whether there was time for all."""
        todo = self._missing()
        while todo:
            with workers.start("traces") as worker:
                while todo:
                    if limit.reached:
                        return False
                    if not self._trace(worker, *todo.pop(0)):
                        break
        return True

    def _missing(self) -> list[tuple[TrialSpec, Measurement]]:
        specs = self.prepared.specs
        found = stored(self.archive, self.prepared, specs)
        latest = {m.request: m for m in found if m.status == "ok"}
        pairs = [(spec, latest[spec.request]) for spec in specs if spec.request in latest]
        return [(s, m) for s, m in pairs if not _has_trace(m, self.archive.log_folder)]

    def _trace(self, worker: WorkerProcess, spec: TrialSpec, measured: Measurement) -> bool:
        request, root, label = self.prepared.request, self.archive.log_folder, spec.config.label
        self.observer.phase(label, "trace")
        place = Path(slug(request.target)) / f"{slug(label)}-{spec.request[:6]}"
        task = Task(kind="trace", spec=spec, folder=str(root / place))
        try:
            reply = worker.ask(task, request.timeout_seconds)
        except (WorkerTimeout, WorkerDied, EpochcastError) as error:
            note(self.observer, "no-trace", config=label, why=_reason(error))
            return False
        path = Path(reply.text).relative_to(root)
        self.archive.add(replace(measured, trace=path.as_posix()))
        return True


def _reason(error: Exception) -> str:
    return error.reason if isinstance(error, WorkerDied) else str(error) or "timeout"


def _has_trace(measurement: Measurement, folder: Path) -> bool:
    return measurement.trace is not None and (folder / measurement.trace).is_file()


def slug(text: str) -> str:
    """A file name for a label: letters, digits, ``=``, ``.``, ``_`` and ``-``.

    Of a long label the end, which tells most, after a fingerprint of the whole.
    """
    name = "".join(c if c.isalnum() or c in "=._-" else "-" for c in text).strip("-.") or "workload"
    if len(name.encode()) <= MAX_NAME_BYTES:
        return name
    end = name.encode()[-MAX_NAME_BYTES:].decode(errors="ignore")
    return f"{hashlib.sha256(name.encode()).hexdigest()[:8]}-{end}"
