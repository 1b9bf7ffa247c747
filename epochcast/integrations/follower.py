"""What the callbacks of all frameworks have in common: their settings, and the run as it stands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from epochcast.errors import MissingDependency, UsageError
from epochcast.guard.checkpoints import CONTENT, CheckpointStore, Write
from epochcast.guard.controller import Policy
from epochcast.guard.events import Watcher
from epochcast.guard.guard import Guard
from epochcast.guard.limits import Clock
from epochcast.integrations.session import FOLDER, FollowSettings, Session
from epochcast.records import Plan, Position, StopReason


class Follower:
    """Follows a plan in the training of a framework.

    Args:
        plan: what to follow, or the file that ``epochcast plan --output`` wrote.
        folder: of this run; the same one goes on with it.
        partial_epochs: whether to use up the budget with part of an epoch, where no whole one fits.
        keep_best: whether to save whenever the plan's metric is the best so far.
        rehearse: whether to save once after the very first step, to find out at once that saving
            works and how long it takes.
        exit_code: of a process that a signal made leave; default: 128 + the signal's number.
        store: where the outcome goes; None for ``.epochcast/`` if there is one, False for nowhere.
        save_in_evaluation: whether a signal that comes in an evaluation is acted on at once, or
            after it: False if your evaluation swaps other weights into the model.
        watchers: default: terminal, ``log.jsonl`` in the folder, TensorBoard if it is installed.
        clock: of tests.

    Raises:
        StoreError: the plan cannot be read.
        UsageError: the plan counts optimizer steps.
    """

    def __init__(
        self,
        plan: Plan | str | Path,
        *,
        folder: str | Path = FOLDER,
        partial_epochs: bool = True,
        keep_best: bool = True,
        rehearse: bool = True,
        exit_code: int | None = None,
        store: str | bool | None = None,
        save_in_evaluation: bool = True,
        watchers: Sequence[Watcher] | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__()  # the framework's own callback
        self.plan = plan if isinstance(plan, Plan) else Plan.load(plan)
        if self.plan.unit == "step":
            raise UsageError(
                "this plan counts optimizer steps, and FollowPlan follows epochs: plan with "
                "--epochs (and --samples where the data have no length), or follow it in a loop of "
                "your own with ec.follow"
            )
        self.folder = Path(folder)
        self._settings = FollowSettings(
            folder=self.folder,
            policy=Policy(partial_epochs=partial_epochs, keep_best=keep_best, rehearse=rehearse),
            exit_code=exit_code,
            store=store,
            save_in_evaluation=save_in_evaluation,
            watchers=watchers,
            clock=clock,
        )
        self._checkpoints = CheckpointStore(self.folder / "checkpoints", self.plan.keep)
        self._session: Session | None = None
        self._guard: Guard | None = None  # only while the framework trains

    def _new_session(
        self, write: Write, all_ranks_save: bool = False, per_update: bool = False
    ) -> Session:
        policy = replace(
            self._settings.policy, all_ranks_save=all_ranks_save, per_update=per_update
        )
        return Session(self.plan, write, replace(self._settings, policy=policy))

    def _begin(
        self,
        session: Session,
        on_signal: Callable[[], None],
        may_save: Callable[[], bool] = lambda: True,
    ) -> bool:
        """From here the run is followed; whether there is anything left to train."""
        self._session, self._guard = session, session.guard
        return session.open(on_signal, may_save)

    def _end(self, failed: bool = False) -> None:
        """The framework trains no longer."""
        if self._guard is not None and self._session is not None:
            self._guard = None
            self._session.close(failed)

    def _leave(self) -> None:
        """End the run, and the process where a signal asked for it."""
        self._end()
        if self._session is not None:
            self._session.leave_if_signalled()

    @property
    def checkpoint(self) -> Path | None:
        """The newest checkpoint, to go on from; None where the run begins.

        Raises:
            StoreError: its state cannot be read.
        """
        last = self._checkpoints.last()
        return last[0] / CONTENT if last else None

    @property
    def best_checkpoint(self) -> Path | None:
        """The checkpoint of when the plan's metric was at its best; None before that.

        Raises:
            StoreError: its state cannot be read.
        """
        best = self._checkpoints.best()
        return best[0] / CONTENT if best else None

    @property
    def position(self) -> Position:
        """How far the run has come; between two trainings, that of the newest checkpoint.

        Raises:
            StoreError: its state cannot be read.
        """
        if self._guard is not None:
            return self._guard.position
        last = self._checkpoints.last()
        return last[1].position if last else Position()

    @property
    def reason(self) -> StopReason | None:
        """Why the run ended; None while it goes on."""
        return self._session.guard.reason if self._session is not None else None

    def summary(self) -> str:
        """What was predicted, what happened, and why it ended, in words."""
        return self._session.summary() if self._session else ""


def missing(package: str, error: ModuleNotFoundError, *needed: str) -> Exception:
    """What to raise where a framework cannot be imported: it is missing, or something of it is.

    Args:
        package: the framework, which is also the name of our extra.
        error: that the import raised.
        needed: other packages that come with the framework's extra.
    """
    name = (error.name or "").partition(".")[0]
    if name not in (package, *needed):
        return error
    return MissingDependency(f"{name} is not installed; next: pip install 'epochcast[{package}]'")
