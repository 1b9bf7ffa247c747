"""One configuration of a script, started once: what it did, or in one line why nothing was seen.

    working place ─▶ command, watched ─▶ its end, or ours ─▶ put back ─▶ Measurement | failure

What can go wrong is told apart here: out of memory and a time that is up are findings, a command
that prints its usage or an interpreter that ignores the bootstrap is a mistake to be corrected.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from epochcast.errors import WorkloadError
from epochcast.profiler.machine import busy_seconds, machine
from epochcast.profiler.process import out_of_memory_kills
from epochcast.profiler.target import source_of_files
from epochcast.records import Device, Measurement, Status, Warning_
from epochcast.scripts import events as e
from epochcast.scripts.border import (
    BOOTSTRAP,
    VARIABLE,
    BootstrapSettings,
    read_events,
    write_settings,
)
from epochcast.scripts.command import own_files
from epochcast.scripts.hardware import busy_machine, device_of
from epochcast.scripts.monitor import LATE, Monitor
from epochcast.scripts.observed import NothingSeen, Trial, measurement_of
from epochcast.scripts.process import OverlayRefused, ScriptProcess, how_ended, tail
from epochcast.scripts.request import (
    EVALUATION_SHARE,
    ScriptRequest,
    ScriptSpec,
)
from epochcast.scripts.side_effects import Place, Undone, put_back, working_place
from epochcast.scripts.timeline import Events, of_kind
from epochcast.units import format_seconds

_OUT_OF_MEMORY = re.compile(
    r"(CUDA|HIP|MPS backend) out of memory|OutOfMemoryError|can't allocate memory|"
    r"^MemoryError|std::bad_alloc|Cannot allocate memory|CUDA_ERROR_OUT_OF_MEMORY|"
    r"(CUBLAS|CUDNN)_STATUS_ALLOC_FAILED",
    re.MULTILINE,
)
_USAGE = re.compile(r"^(usage: |Usage: )", re.MULTILINE)


class ScriptFailed(WorkloadError):
    """A command that cannot be probed; its last lines say more than we can.

    Attributes:
        lines: of its output, the last ones.
    """

    def __init__(self, message: str, lines: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.lines = tuple(lines)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Of a trial.

    Attributes:
        measurement: also of one that failed.
        is_finding: whether it says something of the configuration; a mistake in the command or in
            the script does not.
        undone: what was put back.
        traced: whether a trace was written.
    """

    measurement: Measurement
    is_finding: bool
    undone: Undone
    traced: bool = False


@dataclass(frozen=True, kw_only=True)
class _Ran:
    """How a command went."""

    started: float
    ended: float
    exit_code: int | None
    stopped: str = ""  # why we ended it
    hung_at: float | None = None  # since when it did nothing, though it was told to end
    kills: int = 0  # for want of memory, of any process of the machine


def run_trial(
    request: ScriptRequest,
    spec: ScriptSpec,
    *,
    round_: int,
    folder: Path,
    log: Path,
    device: Device | None = None,
    trace: Path | None = None,
    report: Callable[[str], None] = lambda phase: None,
    warn: Callable[[Warning_], None] = lambda warning: None,
) -> Outcome:
    """Start a configuration once, and watch it.

    Args:
        request: what all have in common.
        spec: the configuration.
        round_: pass over all configurations.
        folder: of the store, where tickets of probes under way are.
        log: takes the command's output.
        device: that a trial without any word of its own was made on, as far as is known.
        trace: file that takes a trace; the times of such a trial are no measurement.
        report: called with what goes on.
        warn: called with what is odd about it while it goes on.
    """
    overlay = request.isolation in ("auto", "overlay")
    with working_place(request.folder, folder / "scripts", overlay) as place:
        kills, busy, ours = out_of_memory_kills(), busy_seconds(), time.process_time()
        process, place = _started(request, spec, place, log, trace is not None)
        try:
            watched = Monitor(process, log, report, warn)
            stopped = watched.to_its_end(place, request.timeout_seconds)
        finally:  # Ctrl-C, too
            process.end(0.0)
            events = read_events(place.events)
            undone = Undone()
            if request.isolation != "none":
                undone = put_back(_all_of(events), place.beside)
        ran = _Ran(
            started=process.started,
            ended=time.monotonic() if process.ended is None else process.ended,
            exit_code=process.exit_code,
            stopped=stopped,
            hung_at=watched.hung_at,
            kills=out_of_memory_kills() - kills,
        )
        traced = trace is not None and _keep_trace(place, trace)
    used, own = busy_seconds() - busy, time.process_time() - ours + process.used
    beside = busy_machine(used, own, time.monotonic() - ran.started, os.cpu_count() or 1)
    hung = _hung(ran)
    if hung:
        _append(log, "epochcast: told to end, the command did nothing more, and was ended")
    trial = Trial(
        workload=request.target,
        template=request.template,
        values=dict(spec.values),
        request=spec.request,
        folder=request.folder,
        started=ran.started,
        ended=ran.ended if ran.hung_at is None else ran.hung_at,
        machine=machine(),
        steps_per_epoch=request.steps_per_epoch,
        samples=request.samples,
        round=round_,
        log=str(log),
        created_at=datetime.now(timezone.utc).isoformat(timespec="microseconds"),
    )
    found, is_finding = _found(request, spec, trial, events, ran, device)
    return Outcome(
        measurement=replace(found, warnings=(*found.warnings, *beside, *hung, *_left(undone))),
        is_finding=is_finding,
        undone=undone,
        traced=traced,
    )


def _all_of(events: Events) -> list[e.Event]:
    """Of all processes."""
    return [event for of_it in events.values() for event in of_it]


def _left(undone: Undone) -> list[Warning_]:
    if not undone.left:
        return []
    details = (("count", str(len(undone.left))), ("places", "; ".join(undone.left[:3])))
    return [Warning_(code="left-behind", details=details)]


def _hung(ran: _Ran) -> list[Warning_]:
    if ran.hung_at is None:
        return []
    waited = format_seconds(ran.ended - ran.hung_at)
    return [Warning_(code="ended-hard", details=(("seconds", waited),))]


def _append(log: Path, line: str) -> None:
    with suppress(OSError), log.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def _keep_trace(place: Place, trace: Path) -> bool:
    """Move a trace that was written to where it belongs; whether there is one."""
    if not place.trace.is_file():
        return False
    shutil.move(place.trace, trace)
    return True


# -- the command under way -------------------------------------------------------------------------


def _started(
    request: ScriptRequest, spec: ScriptSpec, place: Place, log: Path, trace: bool
) -> tuple[ScriptProcess, Place]:
    """Start it; without overlays where the system refuses them.

    Args:
        request, spec, log: as of ``run_trial``.
        place: to work in.
        trace: whether to write one.

    Returns:
        The command, and the place as it is used.
    """
    settings = BootstrapSettings(
        folder=str(place.events),
        epochs=request.epochs,
        pass_seconds=request.pass_seconds,
        evaluation_seconds=EVALUATION_SHARE * request.pass_seconds,
        journal=request.isolation != "none",
        trace=str(place.trace) if trace else "",
    )
    write_settings(settings, place.settings)
    try:
        process = ScriptProcess(
            spec.filled,
            request.folder,
            environment=environment_for(spec, place),
            log=log,
            overlays=place.overlays,
            user=place.user,
        )
    except OverlayRefused:
        if not place.overlays:
            raise
        return _started(request, spec, replace(place, overlays=()), log, trace)
    return process, place


def environment_for(spec: ScriptSpec, place: Place) -> dict[str, str]:
    """Variables that bring the bootstrap in, and keep temporary files together."""
    own = dict(spec.filled.environment)
    before = own.get("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    found = {
        VARIABLE: str(place.settings),
        "PYTHONPATH": os.pathsep.join(filter(None, (str(BOOTSTRAP), before))),
    }
    if "TMPDIR" not in own and place.has_sockets:  # else its own: the journal sees what is there
        found["TMPDIR"] = str(place.temporary)
    return found


# -- what came of it -------------------------------------------------------------------------------


def _found(
    request: ScriptRequest,
    spec: ScriptSpec,
    trial: Trial,
    events: Events,
    ran: _Ran,
    device: Device | None,
) -> tuple[Measurement, bool]:
    """The measurement, and whether it is one or a finding.

    Args:
        request, spec, device: as of ``run_trial``.
        trial: what was started.
        events: of its processes.
        ran: how it went.
    """
    problem, status = _problem(trial, events, ran)
    if not problem:
        try:
            return measurement_of(events, trial), True
        except NothingSeen as error:
            problem, status = f"the command {how_ended(ran.exit_code)}, and {error}", "crashed"
            if ran.exit_code == 0 and not _torch_seen(events):
                problem += "; " + _unheard_hint(spec.filled.arguments)
    every = _all_of(events)
    imported = [file for event in of_kind(every, e.Sources) for file in event.files]
    files = own_files(request.template.arguments, imported, request.folder)
    failed = Measurement(
        workload=request.target,
        source=source_of_files(files, request.folder),
        request=spec.request,
        config=spec.config,
        device=device or device_of(every, trial.machine),
        status=status,
        message=problem,
        round=trial.round,
        samples=0,
        log=trial.log,
        created_at=trial.created_at,
    )
    return failed, status in ("oom", "timeout")


def _torch_seen(events: Events) -> bool:
    return any(of_kind(of_it, e.TorchLoaded) for of_it in events.values())


def _unheard_hint(arguments: Sequence[str]) -> str:
    flags = [part for part in arguments if re.fullmatch(r"-[A-Za-z]*[IE][A-Za-z]*", part)]
    if flags:
        return f"{flags[0]} makes Python ignore PYTHONPATH, which brings the bootstrap in"
    return (
        "if it does train: an interpreter that ignores PYTHONPATH (-I, -E, env -i, a script that "
        "sets it anew) cannot be watched"
    )


def _problem(trial: Trial, events: Events, ran: _Ran) -> tuple[str, Status]:
    """In one line why there is no measurement, if there is none."""
    log = Path(trial.log) if trial.log else Path(os.devnull)
    output = "\n".join(tail(log, lines=60))
    errors = [x.error for of_it in events.values() for x in of_kind(of_it, e.Ended) if x.error]
    if ran.stopped:
        is_late = ran.stopped.startswith(LATE)
        how_far = _last_seen(events) if is_late else ""
        said = f"; its last line: {_last_line(output)}" if is_late and output else ""
        return f"the command {ran.stopped}{how_far}{said}", "timeout" if is_late else "crashed"
    if ran.exit_code == 0 or ran.hung_at is not None:
        return "", "ok"
    if ran.kills and ran.exit_code != 0:
        return "the system ended a process for want of memory", "oom"
    if _OUT_OF_MEMORY.search("\n".join([*errors, output])):
        return _line_that(_OUT_OF_MEMORY, [*errors, *output.splitlines()]), "oom"
    how = f"the command {how_ended(ran.exit_code)}"
    if ran.exit_code == 2 and _USAGE.search(output):
        return f"{how} and printed its usage: an argument is wrong", "crashed"
    if "EOFError" in output:
        return f"{how}: it waited for input, which a probe does not have", "crashed"
    why = next(iter(errors), "") or _last_line(output)
    return f"{how}{_last_seen(events)}{f': {why}' if why else ''}", "crashed"


def _last_seen(events: Events) -> str:
    """How far it came."""
    kinds: Mapping[str, bool] = {
        "in training": any(of_kind(x, e.Steps) or of_kind(x, e.Backwards) for x in events.values()),
        "after torch was imported, before its first step": _torch_seen(events),
        "before torch was imported": True,
    }
    return f" {next(name for name, seen in kinds.items() if seen)}"


def _line_that(pattern: re.Pattern[str], lines: Sequence[str]) -> str:
    return next((line.strip()[:300] for line in lines if pattern.search(line)), "out of memory")


def _last_line(output: str) -> str:
    lines = output.splitlines()
    return lines[-1].strip()[:300] if lines else ""
