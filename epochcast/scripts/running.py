"""``epochcast run``: a command, started as it is, watched, and asked to leave in time.

    us ──starts──▶ command ──▶ its processes, each with the bootstrap ──▶ events
     │◀──────────────── poll, twice a second ──────────────────────────────┘
     ├─▶ Watch ─▶ terminal, log.jsonl, TensorBoard
     ├─▶ asks it to save and leave, once, when a limit is near
     └─▶ the store: a measurement of what was seen, and how the plan did

Output, input, exit code and signals are the command's own. Should we be killed it goes on alone.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from epochcast.errors import UsageError
from epochcast.guard.events import EventBus, Watcher
from epochcast.guard.limits import Allocation
from epochcast.guard.run_folder import hold, release
from epochcast.records import Budget, Plan
from epochcast.scripts import events as e
from epochcast.scripts.asking import STOPS
from epochcast.scripts.border import (
    BOOTSTRAP,
    VARIABLE,
    BootstrapSettings,
    EventReader,
    write_settings,
)
from epochcast.scripts.relay import Relay
from epochcast.scripts.watch import Watch, Watched

POLL_SECONDS = 0.5
SIGNALLED = 128  # plus the signal's number: what a shell says of a process that a signal ended
KEPT_EPOCHS, KEPT_STEPS = 3, 20_000  # of which the measurement is made
MOST_BYTES = 4_000_000  # of events of one process on the disk
GRACE_SECONDS = 10.0  # between SIGTERM and SIGKILL, after the limit
SOFTLY = ("SIGTERM", "SIGUSR1")  # signals by which scripts are asked to save, the usual one first


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What is to be run, and how.

    Attributes:
        arguments: of the command.
        workload: what it is called.
        folder: for the log, and for TensorBoard.
        environment: variables that it has beside our own.
        plan: that it was started by.
        budget: what it may use.
        epochs, steps_per_epoch, lead: as of ``Watched``.
        signal: by which it is to be asked, e.g. ``"SIGUSR1"``; None finds out what it handles.
        ends_at_limit: whether it is ended when a limit is used up.
        before: seconds that limits count already.
        note: what a person says of the run.
    """

    arguments: tuple[str, ...]
    workload: str
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    plan: Plan | None = None
    budget: Budget = field(default_factory=Budget)
    epochs: int | None = None
    steps_per_epoch: int | None = None
    lead: float | None = None
    signal: str | None = None
    ends_at_limit: bool = False
    before: float = 0.0
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """What a command left.

    Attributes:
        exit_code: as a shell has it: 128 and more where a signal ended it.
        watch: what was seen of it.
        events: of its first epochs, by process.
        began, ended: by the monotonic clock.
        kept_until: of the last event in ``events``; ``ended`` where they are all.
    """

    exit_code: int
    watch: Watch
    events: Mapping[int, Sequence[e.Event]]
    began: float
    ended: float
    kept_until: float


class Kept:
    """The events of the first epochs: enough for a measurement, however long the run."""

    def __init__(self) -> None:
        self.events: dict[int, list[e.Event]] = {}
        self.until: float | None = None

    def see(self, pid: int, event: e.Event, watch: Watch) -> None:
        """One more event, if it still counts.

        Args:
            pid: of the process that reported it.
            event: what it reported.
            watch: that has seen it, too.
        """
        if self.until is not None:
            return
        self.events.setdefault(pid, []).append(event)
        leader = watch.leader
        if leader and (leader.done >= KEPT_EPOCHS or leader.steps >= KEPT_STEPS):
            self.until = event.at


def run_command(run: Run, watchers: Sequence[Watcher]) -> Finished:
    """Run a command to its end.

    Args:
        run: what, and how.
        watchers: who are told.

    Raises:
        UsageError: there is no such program, or another process is in the folder.
    """
    hold(run.folder)
    place = Path(tempfile.mkdtemp(prefix="epochcast-run-"))
    bus = EventBus(watchers)
    try:
        with Relay() as relay:
            return _Running(run, place, bus).to_its_end(relay)
    finally:
        bus.close()
        release(run.folder)
        shutil.rmtree(place, ignore_errors=True)


class _Running:
    """A command under way.

    Args:
        run: what it is.
        place: folder for its events.
        bus: to those who are told.
    """

    def __init__(self, run: Run, place: Path, bus: EventBus) -> None:
        self._run, self._place, self._bus = run, place, bus
        self._stop_file = place / "stop"
        self._reader, self._kept = EventReader(place, MOST_BYTES), Kept()
        self._signalled, self._ends_at = "", 0.0
        began, wall = time.monotonic(), time.time()
        self._child = self._start()
        self.watch = Watch(
            Watched(
                run=uuid4().hex[:12],
                workload=run.workload,
                arguments=run.arguments,
                began=began,
                wall=wall,
                before=run.before,
                plan=run.plan,
                budget=run.budget,
                epochs=run.epochs,
                steps_per_epoch=run.steps_per_epoch,
                lead=run.lead,
                allocation=Allocation.from_environment(os.environ),
            )
        )

    def _start(self) -> subprocess.Popen[bytes]:
        settings = BootstrapSettings(
            folder=str(self._place), mode="watch", offline=False, stop_file=str(self._stop_file)
        )
        path = self._place / "settings.json"
        write_settings(settings, path)
        environment = {**os.environ, **self._run.environment, VARIABLE: str(path)}
        paths = (str(BOOTSTRAP), environment.get("PYTHONPATH", ""))
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        try:
            return subprocess.Popen(self._run.arguments, env=environment)
        except OSError as error:
            program = self._run.arguments[0]
            raise UsageError(f"cannot start {program!r}: {error.strerror}") from error

    def to_its_end(self, relay: Relay) -> Finished:
        """Watch it until it has ended."""
        while self._child.poll() is None:
            now = self._look()
            self._ask_if_due(now)
            for number in relay.wait(self._pause(now)):
                self._signalled = signal.Signals(number).name
                self._child.send_signal(number)
        ended = time.monotonic()
        self._poll()
        self._poll()  # what was put aside, and what came after
        code = self._child.returncode
        code = code if code >= 0 else SIGNALLED - code
        for event in self.watch.end(ended, code, self._signalled):
            self._bus.send(event)
        return Finished(
            exit_code=code,
            watch=self.watch,
            events=self._kept.events,
            began=self.watch.watched.began,
            ended=ended,
            kept_until=ended if self._kept.until is None else self._kept.until,
        )

    def _poll(self) -> None:
        for pid, event in self._reader.poll():
            self.watch.see(pid, event)
            self._kept.see(pid, event, self.watch)

    def _look(self) -> float:
        self._poll()
        now = time.monotonic()
        for event in self.watch.look(now):
            self._bus.send(event)
        return now

    def _pause(self, now: float) -> float:
        due = self.watch.asks_at(now) - now
        left = self.watch.account.left(now)
        soon = [seconds for seconds in (due, left) if seconds > 0]
        return max(0.01, min([POLL_SECONDS, *soon]))

    # -- the limit --------------------------------------------------------------------------------

    def _ask_if_due(self, now: float) -> None:
        if now >= self.watch.asks_at(now):
            for event in self.watch.ask(now, self._ask()):
                self._bus.send(event)
        for event in self.watch.passed(now, self._run.ends_at_limit):
            self._bus.send(event)
            self._ends_at = now + GRACE_SECONDS
            if self._run.ends_at_limit:
                self._child.terminate()
        if self._run.ends_at_limit and self._ends_at and now >= self._ends_at:
            self._child.kill()

    def _ask(self) -> str:
        """Ask the script to save and leave, in the way that it understands; which way that was."""
        stop, training = self.watch.stop, self.watch.training
        if stop is not None and self._run.signal is None:
            if len(training) < self.watch.plan.chosen.config.world_size:
                return ""  # some are on other machines: to stop here alone would hang all
            self._stop_file.touch()
            return STOPS[stop]
        for name in (self._run.signal,) if self._run.signal else SOFTLY:
            listening = [pid for pid in training if handles(pid, signal.Signals[name])]
            for pid in listening:
                os.kill(pid, signal.Signals[name])
            if listening:
                to = f" to {len(listening)} processes" if len(listening) > 1 else ""
                return f"{name}{to}"
        return ""


def handles(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal, so that it does not die of it.

    By ``SigCgt`` of proc_pid_status(5); where there is none, nobody knows, and the answer is no.
    """
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            lines = dict(line.rstrip("\n").partition(":")[::2] for line in file)
        return bool(int(lines["SigCgt"], 16) >> (number - 1) & 1)
    except (OSError, KeyError, ValueError):
        return False
