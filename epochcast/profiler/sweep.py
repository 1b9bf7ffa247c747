"""A sweep: every configuration once a round, every round in a fresh process, every trial kept.

    check    one first step: a broken workload stops here, and nothing is stored
    round 0  [worker] config 3 │ config 1 │ config 4 │ config 2       every trial is stored
    round 1  [worker] config 2 │ config 4 │ config 1 │ config 3       the moment it ends
    …
    noise    [worker] gradients at two batch sizes, of each model size, where asked for
    traces   [worker] one short profile of each configuration

prepare.py checks, trials.py makes the trials, chosen.py has the rounds of a sweep that chooses,
follow_ups.py takes noise and traces; here is what calls them.

A configuration that runs out of memory, crashes or hangs costs its worker process; the next
configuration gets a new one. Trials found in the store are not made again. No torch in here.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from epochcast.errors import StoreError
from epochcast.profiler.archive import Archive, stored, trials_done
from epochcast.profiler.chosen import Chooser, chosen_rounds
from epochcast.profiler.follow_ups import Traces, take_noise
from epochcast.profiler.observer import Observer, SilentObserver
from epochcast.profiler.prepare import prepare
from epochcast.profiler.process import WorkerProcess, Workers
from epochcast.profiler.request import SweepRequest
from epochcast.profiler.trials import TimeLimit, Trials
from epochcast.records import Measurement


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
        chooser: decides which of the configurations to measure; without one, all of them.
        start_worker: starts a worker process that logs to a file.
        clock: monotonic seconds.

    Raises:
        UsageError: no such workload, knob or device.
        WorkloadError: the workload does not run; nothing was stored.
        StoreError: the store cannot be written; what was stored before is safe.
    """
    observer = observer or SilentObserver()
    limit = TimeLimit(request.max_seconds, clock)
    workers = Workers(_make_log_folder(archive), start_worker)
    prepared = prepare(request, workers)
    if request.fresh:
        archive.remove([m.key for m in stored(archive, prepared, prepared.specs)])
    trials = Trials(prepared, archive, observer, limit)
    if chooser is None:
        stopped = _every_round(trials, workers)
    else:
        stopped = chosen_rounds(chooser, trials, workers)
    if request.noise_scale and stopped != "nothing-succeeded":
        take_noise(prepared, archive, observer, workers)
    if request.traces and stopped != "nothing-succeeded":
        in_time = Traces(prepared, archive, observer).take(workers, limit)
        stopped = stopped if in_time else "max-seconds"
    return SweepResult(
        measurements=stored(archive, prepared, prepared.specs),
        seconds=limit.seconds,
        stopped=stopped,
        half_width=chooser.half_width if chooser else None,
    )


def _make_log_folder(archive: Archive) -> Path:
    stamp = datetime.now(timezone.utc).strftime("%Y%m%d-%H%M%S-%f")
    logs = archive.folder / "logs" / stamp
    try:
        logs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"cannot make the log folder {logs}: {error.strerror}; name another store with --store"
        ) from error
    return logs


def _every_round(trials: Trials, workers: Workers) -> str:
    """Every configuration in every round, in an order drawn for each; why it stopped."""
    prepared, archive = trials.prepared, trials.archive
    request, specs = prepared.request, prepared.specs
    done = trials_done(archive, prepared)
    todo = len(specs) * request.rounds - len(done)
    trials.observer.begin(todo, len(done), prepared.device, prepared.checked.data)
    for round_ in range(request.rounds):
        order = [
            s for s in specs if (s.request, round_) not in done and s.request not in trials.failed
        ]
        random.Random(f"{request.seed}/{round_}").shuffle(order)
        made = list(trials.in_order(order, round_, workers))
        if len(made) < len(order):
            return "max-seconds"
        if made and not any(m.status == "ok" for m in stored(archive, prepared, specs)):
            return "nothing-succeeded"
    return "complete"
