"""A sweep of a script: every combination of values once a round, each in a process of its own.

    recover ─▶ round 0: config 3 │ config 1 │ config 2    each stored the moment it ends
               round 1: config 2 │ config 3 │ config 1    what the store has is not made again
               traces:  one more start of each            where asked for

Measurements count as long as the files that the script consists of are as they were.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial
from itertools import count
from pathlib import Path
from typing import Protocol

from epochcast.errors import StoreError
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
from epochcast.profiler.sweep import slug
from epochcast.profiler.target import source_of_files
from epochcast.records import Device, Measurement
from epochcast.scripts.process import tail
from epochcast.scripts.request import ScriptRequest, ScriptSpec
from epochcast.scripts.side_effects import recover
from epochcast.scripts.trial import Outcome, ScriptFailed, run_trial

Start = Callable[..., Outcome]


@dataclass(frozen=True, kw_only=True)
class TrialCall:
    """A trial to be made.

    Attributes:
        spec: the configuration.
        round: pass over all configurations.
        log: takes the command's output.
        device: that a trial without any word of its own was made on, as far as is known.
        trace: file that takes a trace; the times of such a trial are no measurement.
    """

    spec: ScriptSpec
    round: int
    log: Path
    device: Device | None = None
    trace: Path | None = None


class Elsewhere(Protocol):
    """Makes trials on other machines than this."""

    @property
    def device(self) -> Device:
        """That they are made on."""

    def outcomes(
        self,
        request: ScriptRequest,
        calls: Iterable[TrialCall],
        report: Callable[[ScriptSpec, str], None],
    ) -> Iterator[tuple[TrialCall, Outcome]]:
        """What came of each, as they end.

        Args:
            request: what all have in common.
            calls: each taken when it can begin.
            report: called with what goes on.
        """


def sweep_script(
    request: ScriptRequest,
    store: SweepStore,
    observer: Observer | None = None,
    *,
    rounds: Callable[[Rounds[ScriptSpec]], SweepEnding] = every_round,
    start: Start = run_trial,
    elsewhere: Elsewhere | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> SweepResult:
    """Probe a script. Killed at any moment, the same request continues.

    Args:
        request: what to measure.
        store: where measurements go; what it has already is not measured again.
        observer: receives the progress of the sweep.
        rounds: makes the trials and says why it stopped.
        start: makes one trial on this machine.
        elsewhere: makes trials on others instead.
        clock: monotonic seconds.

    Raises:
        UsageError: its name is another's.
        ScriptFailed: the command does not train, or cannot be watched; nothing was stored.
        StoreError: the store cannot be written; what was stored before is safe.
    """
    begun = clock()
    require_own_name(request.called, request.target, store.measurements(request.called))
    running = ScriptSweep(
        request=request,
        store=store,
        observer=observer or SilentObserver(),
        start=start,
        elsewhere=elsewhere,
        clock=lambda: clock() - begun,
    )
    running.recover()
    if request.fresh:
        store.remove([m.key for m in running.stored()])
    stopped, half_width = rounds(running)
    running.settle_evaluation()
    if request.traces and stopped != "nothing-succeeded" and not running.take_traces():
        stopped = "max-seconds"
    return SweepResult(
        measurements=running.stored(),
        seconds=running.clock(),
        stopped=stopped,
        half_width=half_width,
    )


class ScriptSweep(Rounds[ScriptSpec]):
    """A sweep of a script under way.

    Args:
        request: what to measure.
        store: takes each trial the moment it ends.
        observer: receives the progress of the sweep.
        start: makes one trial on this machine.
        elsewhere: makes trials on others instead.
        clock: seconds since the sweep began.
    """

    def __init__(
        self,
        *,
        request: ScriptRequest,
        store: SweepStore,
        observer: Observer,
        start: Start,
        elsewhere: Elsewhere | None,
        clock: Callable[[], float],
    ) -> None:
        super().__init__(
            asked=request, specs=request.specs, store=store, observer=observer, clock=clock
        )
        self.request = request
        self._start = start
        self._elsewhere = elsewhere
        self._device: Device | None = None
        self._logs: Path | None = None

    def recover(self) -> None:
        """Put back what a probe left that was killed."""
        undone = recover(self.store.folder / "scripts")
        if undone.places or undone.left:
            left = "; ".join(undone.left) or "nothing"
            self.note("put-back-later", places=str(undone.places), left=left)

    def begin(self, trials: int | None, done: int) -> None:
        known = self.stored()
        self.observer.begin(trials, done, known[-1].device if known else None, "")

    def stored(self, specs: Iterable[ScriptSpec] | None = None) -> tuple[Measurement, ...]:
        requests = {spec.request for spec in (self.specs if specs is None else specs)}
        found = [m for m in self.store.measurements(self.request.called) if m.request in requests]
        good = [m for m in found if m.status == "ok" and self._is_current(m)]
        if self._elsewhere is not None:
            machine = self._elsewhere.device.machine
            found = [m for m in found if m.device.machine == machine]
            good = [m for m in good if m.device.machine == machine]
        newest = self._device or (good[-1].device if good else None)
        if newest is not None:
            good = [m for m in good if m.device.key == newest.key]
        sources = {m.source for m in good}
        failed = [m for m in found if m.status != "ok" and (m.source in sources or not good)]
        return tuple(sorted([*good, *failed], key=lambda m: m.created_at))

    def _is_current(self, m: Measurement) -> bool:
        """Whether the files of the script are as they were."""
        if m.script is None:
            return False
        return source_of_files(m.script.files, self.request.folder) == m.source

    # -- trials -----------------------------------------------------------------------------------

    def make_trials(self, order: Iterable[ScriptSpec], round_: int) -> bool:
        begun: dict[str, float] = {}

        def calls() -> Iterator[TrialCall]:
            for spec in self.in_time(order):
                begun[spec.request] = self.clock()
                log = self._log(f"round-{round_}")
                yield TrialCall(spec=spec, round=round_, log=log, device=self._device)

        for call, outcome in self._outcomes(calls()):
            found = outcome.measurement
            if found.status == "ok":
                self._device = found.device
            elif not outcome.is_finding and not any(m.status == "ok" for m in self.stored()):
                raise self._refusal(found)
            self.keep(found, self.clock() - begun[call.spec.request])
        return not self.late

    def _outcomes(self, calls: Iterable[TrialCall]) -> Iterator[tuple[TrialCall, Outcome]]:
        def report(spec: ScriptSpec, phase: str) -> None:
            self.observer.phase(spec.label, phase)

        if self._elsewhere is not None:
            return self._elsewhere.outcomes(self.request, calls, report)
        return ((call, self._made_here(call, partial(report, call.spec))) for call in calls)

    def _made_here(self, call: TrialCall, report: Callable[[str], None]) -> Outcome:
        return self._start(
            self.request,
            call.spec,
            round_=call.round,
            folder=self.store.folder,
            log=call.log,
            device=call.device,
            trace=call.trace,
            report=report,
            warn=self.observer.warn,
        )

    def _refusal(self, failed: Measurement) -> ScriptFailed:
        log = Path(failed.log or "")
        return ScriptFailed(f"{failed.message} (log: {log})", tail(log))

    def _log(self, name: str) -> Path:
        if self._logs is None:
            stamp = datetime.now(timezone.utc).strftime("%Y%m%d-%H%M%S-%f")
            self._logs = self.store.folder / "logs" / stamp
            try:
                self._logs.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StoreError(
                    f"cannot make the log folder {self._logs}: {error.strerror}; "
                    "name another store with --store"
                ) from error
        names = (f"{name}-{number}.log" for number in count())
        log = next(path for path in map(self._logs.joinpath, names) if not path.exists())
        log.touch()  # others may be under way
        return log

    def settle_evaluation(self) -> None:
        """Tell an evaluation at the training's batch size from one that happens to be as large.

        Where any configuration evaluates at another batch size, none follows the training's. A
        trial that was too short for an evaluation has that of its configuration.
        """
        good = [m for m in self.stored() if m.status == "ok"]
        seen = {m.request: m.config.eval_batch_size for m in good if m.eval_samples}
        if not any(seen.values()):
            return
        for m in good:
            own = seen[m.request] or m.config.batch_size if m.request in seen else None
            if m.config.eval_batch_size != own:
                self.store.add(replace(m, config=replace(m.config, eval_batch_size=own)))

    # -- traces -----------------------------------------------------------------------------------

    def take_traces(self) -> bool:
        """A trace of each measured configuration that has none; whether there was time for all."""
        root = self.store.log_folder
        latest = {m.request: m for m in self.stored() if m.status == "ok"}

        def calls() -> Iterator[TrialCall]:
            known = (spec for spec in self.specs if spec.request in latest)
            missing = (spec for spec in known if not _has_trace(latest[spec.request], root))
            for spec in self.in_time(missing):
                name = f"{slug(latest[spec.request].config.label)}-{spec.request[:6]}"
                path = root / slug(self.request.called) / name / "trace.json.gz"
                path.parent.mkdir(parents=True, exist_ok=True)
                log = self._log("traces")
                yield TrialCall(spec=spec, round=0, log=log, device=self._device, trace=path)

        for call, outcome in self._outcomes(calls()):
            if outcome.traced and call.trace is not None:
                trace = call.trace.relative_to(root).as_posix()
                self.store.add(replace(latest[call.spec.request], trace=trace))
            else:
                why = outcome.measurement.message or "no step was traced"
                self.note("no-trace", config=call.spec.label, why=why)
        return not self.late


def _has_trace(m: Measurement, root: Path) -> bool:
    return m.trace is not None and (root / m.trace).is_file()
