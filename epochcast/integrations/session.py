"""What surrounds a guard in a real process, the same for a plain loop and for every framework."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

from epochcast.errors import EpochcastError, UsageError
from epochcast.guard.checkpoints import Write
from epochcast.guard.controller import Policy
from epochcast.guard.events import Watcher
from epochcast.guard.guard import Guard
from epochcast.guard.limits import Allocation, Clock, SystemClock
from epochcast.guard.ranks import Alone, Ranks, Signals
from epochcast.guard.run_folder import Heartbeat, hold, release
from epochcast.records import Plan, StopReason

FOLDER = "epochcast-run"  # where a run is kept unless told otherwise
SIGNALLED = 128  # plus the signal's number: what a shell says of a process that a signal ended

_counted: set[int] = set()  # processes whose own start was counted already


class Session:
    """A guard with its watchers, signals and store, from a run's begin to its end.

    Args:
        plan: a plan, or the file that ``epochcast plan --output`` wrote.
        write: writes a checkpoint to the path that it is given.
        folder: of the run; the same one goes on with it.
        policy: how to follow.
        exit_code: of a process that a signal made leave; default: 128 + the signal's number.
            A scheduler that restarts on one code wants that, e.g. HTCondor's
            ``checkpoint_exit_code``.
        store: where the outcome goes; None for ``.epochcast/`` if there is one, False for nowhere.
        save_in_evaluation: whether a signal that comes in an evaluation is acted on at once, or
            after it.
        watchers: default: terminal, ``log.jsonl`` in the folder, TensorBoard if it is installed.
        clock: of tests.

    Attributes:
        may_save: whether the weights are those of the training; asked in an evaluation.

    Raises:
        UsageError: the folder belongs to another workload, or another process is in it.
        StoreError: the plan, or what is in the folder, cannot be read.
    """

    def __init__(
        self,
        plan: Plan | str | Path,
        write: Write,
        *,
        folder: str | Path = FOLDER,
        policy: Policy | None = None,
        exit_code: int | None = None,
        store: str | bool | None = None,
        save_in_evaluation: bool = True,
        watchers: Sequence[Watcher] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.folder = Path(folder)
        self._exit_code = exit_code
        self._store = store
        self.clock = clock or SystemClock()
        self.signals = Signals(at_once=self._signalled)
        self.on_signal: Callable[[], None] | None = None
        self.save_in_evaluation = save_in_evaluation
        self._heart = Heartbeat(self.folder)
        self.may_save: Callable[[], bool] = lambda: True
        ranks = current_ranks()
        plan = plan if isinstance(plan, Plan) else Plan.load(plan)
        if ranks.rank == 0:
            hold(self.folder)
        try:
            self.guard = Guard(
                plan,
                self.folder,
                write,
                policy=policy,
                allocation=Allocation.from_environment(os.environ),
                watchers=default_watchers(self.folder, ranks) if watchers is None else watchers,
                signals=self.signals,
                ranks=ranks,
                clock=self.clock,
                began=_began() if clock is None else None,
            )
        except BaseException:
            release(self.folder)
            raise

    def open(self) -> bool:
        """From here signals are watched; whether there is anything left to train."""
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
            self._heart.stop()
            release(self.folder)
            self.signals.__exit__()

    def leave_if_signalled(self) -> None:
        """End the process as its scheduler wants it, where a signal asked for it.

        Raises:
            SystemExit: it did.
        """
        if self.guard.reason is StopReason.SIGNAL and self.signals.received is not None:
            code = self._exit_code
            raise SystemExit(SIGNALLED + self.signals.received if code is None else code)

    def _signalled(self) -> None:
        """In an evaluation nothing is trained, so a checkpoint can be made at once.

        Unless it is of other weights, e.g. averaged ones: that checkpoint would be wrong.
        """
        in_evaluation = self.guard.evaluating and self.guard.ranks.size == 1
        if in_evaluation and self.save_in_evaluation and self.may_save():
            self.guard.stop(StopReason.SIGNAL)
            if self.on_signal is not None:
                self.on_signal()

    def _feed_back(self) -> None:
        outcome = self.guard.outcome
        if self._store is False or self.guard.ranks.rank > 0 or outcome is None:
            return
        try:
            from epochcast.storage.store import Store

            url = None if self._store in (None, True) else str(self._store)
            with Store.open(url, create=self._store is not None) as store:
                store.add_outcome(outcome)
        except EpochcastError as error:
            if self._store is not None:  # no store is no error where none was named
                self.guard.note("store-failed", error=str(error))


def current_ranks() -> Ranks:
    """The processes of this run: those of torch.distributed, where it is in use."""
    distributed: Any = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        if int(os.environ.get("WORLD_SIZE", "1")) > 1 and "TORCHELASTIC_RUN_ID" in os.environ:
            raise UsageError(
                "torchrun started several processes, but torch.distributed is not initialised: "
                "call init_process_group before following a plan"
            )
        return Alone()
    from epochcast.integrations.distributed import Group

    return Group() if distributed.get_world_size() > 1 else Alone()


def default_watchers(folder: Path, ranks: Ranks) -> list[Watcher]:
    """Terminal, log and, where it is installed, TensorBoard; of one process."""
    if ranks.rank > 0:
        return []
    from epochcast.guard.log import LogWriter
    from epochcast.report.tensorboard import board_watcher
    from epochcast.report.text.following import TerminalWatcher

    folder.mkdir(parents=True, exist_ok=True)
    board = board_watcher(folder / "tensorboard")
    return [TerminalWatcher(), LogWriter(folder / "log.jsonl"), *([board] if board else [])]


def _began() -> float | None:
    """When this process began to work for the run; None for now.

    Its own start is part of the first run that it follows. What it did between that and a later one
    is nobody's, and a notebook's kernel has been there for who knows how long.
    """
    if not hasattr(sys.modules["__main__"], "__file__") or os.getpid() in _counted:
        return None
    _counted.add(os.getpid())
    return psutil.Process().create_time()
