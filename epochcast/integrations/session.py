"""What surrounds a guard in a real process, the same for a plain loop and for every framework.

Session ─┬─ Guard           follows the plan
         ├─ watchers        terminal, log.jsonl, TensorBoard
         ├─ Signals         noted, acted on where a checkpoint is whole
         ├─ lock, heartbeat one process at a time, and a sign of life
         └─ store           what the run teaches the next prediction
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from epochcast.errors import EpochcastError, StoreError, UsageError
from epochcast.guard.checkpoints import Write
from epochcast.guard.controller import Policy
from epochcast.guard.events import Watcher
from epochcast.guard.guard import Guard
from epochcast.guard.limits import Allocation, Clock
from epochcast.guard.log import LOG_NAME, LogWriter, read_log
from epochcast.guard.ranks import Signals
from epochcast.guard.run_folder import Heartbeat, hold, release
from epochcast.profiler.machine import process_age
from epochcast.profiler.ranks import Alone, Ranks, TorchRanks
from epochcast.records import Device, Plan, RunEvent, RunStarted, StopReason

FOLDER = "epochcast-run"  # where a run is kept unless told otherwise
SIGNALLED = 128  # plus the signal's number: what a shell says of a process that a signal ended

_counted: set[int] = set()  # processes whose own start was counted already


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowSettings:
    """How a process follows a run.

    Attributes:
        folder: of the run; the same one goes on with it.
        policy: how its guard follows.
        exit_code: of a process that a signal made leave; default: 128 + the signal's number.
            A scheduler that restarts on one code wants that, e.g. HTCondor's
            ``checkpoint_exit_code``.
        store: where the outcome goes; None for ``.epochcast/`` if there is one, False for nowhere.
        save_in_evaluation: whether a signal that comes in an evaluation is acted on at once, or
            after it.
        watchers: default: terminal, ``log.jsonl`` in the folder, TensorBoard if it is installed.
        clock: of tests.
    """

    folder: Path
    policy: Policy
    exit_code: int | None = None
    store: str | bool | None = None
    save_in_evaluation: bool = True
    watchers: Sequence[Watcher] | None = None
    clock: Clock | None = None


class Session:
    """A guard with its watchers, signals and store, from a run's begin to its end.

    Args:
        plan: to follow.
        write: writes a checkpoint to the path that it is given.
        settings: of this process.
        ranks: the processes of this run; default: those of torch.distributed.

    Raises:
        UsageError: the folder belongs to another workload, or another process is in it.
        StoreError: what is in the folder cannot be read.
    """

    def __init__(
        self, plan: Plan, write: Write, settings: FollowSettings, ranks: Ranks | None = None
    ) -> None:
        self._settings = settings
        self.signals = Signals(at_once=self._signalled)
        self._on_signal: Callable[[], None] | None = None
        self._may_save: Callable[[], bool] = lambda: True
        self._heart = Heartbeat(settings.folder)
        self.guard = self._new_guard(plan, write, ranks or current_ranks())

    def _new_guard(self, plan: Plan, write: Write, ranks: Ranks) -> Guard:
        settings = self._settings
        if ranks.rank == 0:
            hold(settings.folder)
        try:
            watchers = settings.watchers
            if watchers is None:
                watchers = default_watchers(settings.folder, ranks)
            return Guard(
                plan,
                settings.folder,
                write,
                policy=settings.policy,
                allocation=Allocation.from_environment(os.environ),
                watchers=watchers,
                signals=self.signals,
                ranks=ranks,
                clock=settings.clock,
                began=_began() if settings.clock is None else None,
            )
        except BaseException:
            release(settings.folder)
            raise

    def open(
        self,
        on_signal: Callable[[], None] | None = None,
        may_save: Callable[[], bool] = lambda: True,
    ) -> bool:
        """From here signals are watched; whether there is anything left to train.

        Args:
            on_signal: called after a checkpoint that a signal in an evaluation asked for.
            may_save: whether the weights are those of the training; asked in an evaluation.
        """
        self._on_signal, self._may_save = on_signal, may_save
        if self._settings.store is not False:  # as the run ends there is no time to load it
            import epochcast.storage.store  # noqa: F401
        self.signals.__enter__()
        goes_on = self.guard.start()
        if self.guard.ranks.rank == 0:
            self._heart.start()
        return goes_on

    def close(self, failed: bool = False) -> None:
        """The run has ended, or was left.

        Args:
            failed: by an error.
        """
        try:
            self.guard.close(failed)
            if not failed:
                self._feed_back()
        finally:
            self.guard.close_watchers()
            self._heart.stop()
            release(self._settings.folder)
            self.signals.__exit__()

    def leave_if_signalled(self) -> None:
        """End the process as its scheduler wants it, where a signal asked for it.

        Raises:
            SystemExit: it did.
        """
        if self.guard.reason is StopReason.SIGNAL and self.signals.received is not None:
            code = self._settings.exit_code
            raise SystemExit(SIGNALLED + self.signals.received if code is None else code)

    def summary(self) -> str:
        """What was predicted and what happened, in the words of ``follow-log``."""
        from epochcast.report.text.following import summary_lines
        from epochcast.report.text.terminal import encodable

        return encodable("\n".join(summary_lines(self._events())))

    def _events(self) -> tuple[RunEvent, ...]:
        """Of the whole run: those of earlier processes are in its log, if it has one."""
        own = self.guard.events
        try:
            logged = read_log(self._settings.folder / LOG_NAME)
        except StoreError:
            return own
        begun = [i for i, event in enumerate(logged) if isinstance(event, RunStarted)]
        earlier = [i for i in begun if logged[i] in own]
        return (*logged[: earlier[0]], *own) if earlier else own

    def _signalled(self) -> None:
        """In an evaluation nothing is trained, so a checkpoint can be made at once.

        Unless it is of other weights, e.g. averaged ones: that checkpoint would be wrong.
        """
        in_evaluation = self.guard.evaluating and self.guard.ranks.size == 1
        if in_evaluation and self._settings.save_in_evaluation and self._may_save():
            self.guard.stop(StopReason.SIGNAL)
            if self._on_signal is not None:
                self._on_signal()

    def _feed_back(self) -> None:
        store, outcome = self._settings.store, self.guard.outcome
        if store is False or self.guard.ranks.rank > 0 or outcome is None:
            return
        planned, outcome = outcome.device, replace(outcome, device=device_in_use(outcome.device))
        if outcome.device.key != planned.key:
            labels = {"planned": planned.label, "ran": outcome.device.label}
            self.guard.note("other-device", **labels)
        try:
            from epochcast.storage.store import Store

            url = None if store in (None, True) else str(store)
            with Store.open(url, create=store is not None) as opened:
                opened.add_outcome(outcome)
        except EpochcastError as error:
            if store is not None:  # no store is no error where none was named
                self.guard.note("store-failed", error=str(error))


def current_ranks() -> Ranks:
    """The processes of this run: those of torch.distributed, where it is in use.

    Raises:
        UsageError: torchrun started several processes, but they are no process group yet.
    """
    distributed: Any = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        if int(os.environ.get("WORLD_SIZE", "1")) > 1 and "TORCHELASTIC_RUN_ID" in os.environ:
            raise UsageError(
                "torchrun started several processes, but torch.distributed is not initialised: "
                "call init_process_group before following a plan"
            )
        return Alone()
    return TorchRanks(distributed) if distributed.get_world_size() > 1 else Alone()


def device_in_use(planned: Device) -> Device:
    """What this process trained on, with its threads; the plan's device where torch was not used.

    Args:
        planned: that the plan is for.
    """
    torch: Any = sys.modules.get("torch")
    if torch is None:
        return planned
    from epochcast.profiler.device import fingerprint

    on_cuda = torch.cuda.is_initialized() and torch.cuda.max_memory_allocated() > 0
    on_mps = torch.backends.mps.is_available() and torch.mps.driver_allocated_memory() > 0
    return fingerprint(torch.device("cuda" if on_cuda else "mps" if on_mps else "cpu"))


def default_watchers(folder: Path, ranks: Ranks) -> list[Watcher]:
    """Terminal, log and, where it is installed, TensorBoard; of one process."""
    if ranks.rank > 0:
        return []
    from epochcast.report.tensorboard import board_watcher
    from epochcast.report.text.following import TerminalWatcher

    folder.mkdir(parents=True, exist_ok=True)
    board = board_watcher(folder / "tensorboard")
    return [TerminalWatcher(), LogWriter(folder / LOG_NAME), *([board] if board else [])]


def _began() -> float | None:
    """When this process began to work for the run; None for now.

    Its own start is part of the first run that it follows. What it did between that and a later one
    is nobody's, and a notebook's kernel has been there for who knows how long.
    """
    if not hasattr(sys.modules["__main__"], "__file__") or os.getpid() in _counted:
        return None
    _counted.add(os.getpid())
    return time.time() - process_age()
