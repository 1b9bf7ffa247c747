"""The guard in a training loop of one's own.

    with ec.follow("plan.json", state={"model": model, "optimizer": optimizer}) as run:
        for epoch in run.epochs():
            for batch in run.batches(loader):
                train_step(batch)
            if run.due("evaluate"):
                run.report(val_loss=evaluate(model))
    print(run.summary())

The loop ends where the plan, its stop rules, the budget or a signal end it, with a checkpoint of
that moment; started again, it goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from itertools import count, islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from epochcast.errors import UsageError
from epochcast.guard.controller import Policy
from epochcast.guard.events import Watcher
from epochcast.guard.limits import Clock
from epochcast.integrations.session import FOLDER, FollowSettings, Session, current_ranks
from epochcast.records import Action, Plan, Position, StopReason

if TYPE_CHECKING:
    from epochcast.integrations.state import TorchState

_Batch = TypeVar("_Batch")


class StopTraining(BaseException):
    """Leaves a training loop from ``run.step()``; ``follow`` catches it.

    Not an Exception, for the same reason as KeyboardInterrupt: a loop that forgives errors in a
    batch must not forgive this.
    """


def follow(
    plan: Plan | str | Path,
    *,
    save: Callable[[Path], None] | None = None,
    load: Callable[[Path], None] | None = None,
    state: Mapping[str, Any] | None = None,
    folder: str | Path = FOLDER,
    partial_epochs: bool = True,
    keep_best: bool = True,
    rehearse: bool = True,
    all_ranks_save: bool = False,
    exit_code: int | None = None,
    store: str | bool | None = None,
    save_in_evaluation: bool = True,
    watchers: Sequence[Watcher] | None = None,
    clock: Clock | None = None,
) -> FollowedRun:
    """Follow a plan in a training loop; a context manager.

    Args:
        plan: what to follow, or the file that ``epochcast plan --output`` wrote.
        save: writes a checkpoint to the path that it is given, a file or a folder.
        load: reads it; called before the first epoch where there is one to go on from.
        state: instead of both: model, optimizer, scheduler, scaler, generators …, by name.
        folder: of this run; the same one goes on with it.
        partial_epochs: whether to use up the budget with part of an epoch, where no whole one fits.
        keep_best: whether to save whenever the plan's metric is the best so far.
        rehearse: whether to save once after the very first step, to find out at once that saving
            works and how long it takes.
        all_ranks_save: whether every process calls ``save`` (sharded models), or the first alone.
            With ``state``, every process saves its random states and the first one the rest.
        exit_code: of a process that a signal made leave; default: 128 + the signal's number.
        store: where the outcome goes; None for ``.epochcast/`` if there is one, False for nowhere.
        save_in_evaluation: whether a signal that comes in an evaluation is acted on at once, or
            after it. With ``state``, one for which other weights were swapped into a module after
            ``due`` is waited for in any case; with ``save``, say False if you do that.
        watchers: default: terminal, ``log.jsonl`` in the folder, TensorBoard if it is installed.
        clock: of tests.

    Raises:
        UsageError: neither ``save`` nor ``state`` is given; or the folder is another workload's.
        StoreError: the plan, or what is in the folder, cannot be read.
        SystemExit: on leaving the block, where a signal asked for it.
    """
    ranks, torch_state = current_ranks(), None
    if state is not None:
        if save is not None or load is not None:
            raise UsageError("give either state=, or save= and load=")
        from epochcast.integrations.state import TorchState

        torch_state = TorchState(state, ranks)
        save, load = torch_state.write, torch_state.read
    if save is None:
        raise UsageError(
            "a run that is to stop in time needs a way to save: give save=, a function that writes "
            'to a path, or state={"model": model, "optimizer": optimizer}'
        )
    policy = Policy(
        partial_epochs=partial_epochs,
        keep_best=keep_best,
        rehearse=rehearse,
        all_ranks_save=all_ranks_save or torch_state is not None,
    )
    settings = FollowSettings(
        folder=Path(folder),
        policy=policy,
        exit_code=exit_code,
        store=store,
        save_in_evaluation=save_in_evaluation,
        watchers=watchers,
        clock=clock,
    )
    plan = plan if isinstance(plan, Plan) else Plan.load(plan)
    return FollowedRun(Session(plan, save, settings, ranks), load, torch_state)


class FollowedRun:
    """A run that follows a plan; ``follow`` makes one."""

    def __init__(
        self,
        session: Session,
        load: Callable[[Path], None] | None,
        torch_state: TorchState | None = None,
    ) -> None:
        self._session = session
        self._guard = session.guard
        self._load = load
        self._state = torch_state
        self._taken_up = False
        self._skip = 0  # batches of an interrupted epoch that are still to be skipped
        self._done = 0  # steps of an interrupted segment
        self._loader: Any = None  # that segments draw from, and
        self._stream: Iterator[Any] = iter(())

    def __enter__(self) -> FollowedRun:
        in_segments = self._guard.steps_left is not None
        self._skip = 0 if in_segments else self._guard.resumed_step
        self._done = self._guard.resumed_step if in_segments else 0
        found = self._guard.checkpoint
        goes_on = self._session.open(self._stop_training, self._may_save)
        if found is not None and self._load is not None:
            self._load(found)
            if self._state is not None and not (goes_on and self._skip):
                self._state.go_on()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        left = kind is not None and issubclass(kind, StopTraining)
        self._session.close(failed=kind is not None and not left)
        if kind is None or left:
            self._session.leave_if_signalled()
        return left

    def epochs(self) -> Iterator[int]:
        """The epochs to train, counted from 0, from where the run stands to where it must end.

        Of a plan of steps, its segments.

        Raises:
            UsageError: there is a checkpoint to go on from, and nobody has read it.
        """
        unread = self._load is None and not self._taken_up
        if self._guard.checkpoint is not None and unread and self._guard.reason is None:
            raise UsageError(
                "this run has a checkpoint to go on from: give load=, or read run.checkpoint "
                "before the first epoch; to begin anew, give another folder"
            )
        while self._guard.begin_epoch():
            if self._state is not None and not self._skip:
                self._state.begin_epoch()
            if self._done:
                self._guard.skip(self._done)
                self._done = 0
            yield self._guard.position.epoch
            self._skip = 0
            if self._guard.reason is None:
                self._guard.end_epoch()

    def batches(self, loader: Iterable[_Batch]) -> Iterator[_Batch]:
        """The loader's batches, each counted as a step; ends where the run must stop.

        In an epoch that was interrupted, those that were trained on already are drawn and skipped,
        from this loader and then from the next one. A sampler that shuffles by epoch
        (``set_epoch``) is told which one this is. Before a ``break``, call ``step``: nobody else
        knows whether the last batch was trained on.

        Of a plan of steps, those of a segment, from where the one before it left the loader; a
        loader that is at its end begins again. Where a run goes on, the loader begins as it is: its
        own state belongs into ``state``.

        Raises:
            UsageError: the batches of a plan of steps have ended, and cannot begin again.
        """
        if self._guard.steps_left is not None:
            yield from self._segment(loader)
            return
        sampler: Any = getattr(loader, "sampler", None)
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(self._guard.position.epoch)
        drawn = self._drawn(loader)
        if self._skip:
            self._catch_up(drawn)
        for batch in drawn:
            steps = self._guard.position.steps
            yield batch
            if self._guard.position.steps == steps and self._guard.step():
                return

    def _segment(self, loader: Iterable[_Batch]) -> Iterator[_Batch]:
        """The batches of the present segment."""
        if self._loader is not loader:
            self._loader, self._stream = loader, self._around(loader)
        for batch in self._stream:
            steps = self._guard.position.steps
            yield batch
            if self._guard.position.steps == steps and self._guard.step():
                return
            if not self._guard.steps_left:
                return
        self._guard.save()
        raise UsageError(
            f"the batches ended after step {self._guard.position.steps:,}, and the plan goes on: "
            "give a loader that can begin again, or plan for fewer steps"
        )

    def _around(self, loader: Iterable[_Batch]) -> Iterator[_Batch]:
        """The loader's batches, again and again."""
        sampler: Any = getattr(loader, "sampler", None)
        length = len(loader) if isinstance(loader, Sized) else 0
        begun = self._guard.position.steps // length if length else 0
        for number in count(begun):
            if hasattr(sampler, "set_epoch"):
                sampler.set_epoch(number)
            batches, some = iter(loader), False
            for batch in batches:
                some = True
                yield batch
            if batches is loader or not some:
                return

    def _drawn(self, loader: Iterable[_Batch]) -> Iterator[_Batch]:
        """The loader's batches, in the order that an uninterrupted run would have.

        A loader whose workers persist draws their seed with its first epoch alone, before the
        shuffle: where that was in an earlier process, the draw is undone.
        """
        late = self._guard.checkpoint is not None and self._guard.position.epoch > 0
        kept = getattr(loader, "persistent_workers", False)
        if self._state is not None and late and kept and getattr(loader, "_iterator", 0) is None:
            with self._state.undone(getattr(loader, "generator", None)):
                iter(loader)
        return iter(loader)

    def _catch_up(self, drawn: Iterator[_Batch]) -> None:
        """Skip what was done of this epoch, as far as it was done with this loader."""
        self._skip -= sum(1 for _ in islice(drawn, self._skip))
        if self._state is not None and not self._skip:
            self._state.go_on()
        self._guard.skip(self._guard.resumed_step)

    def step(self) -> None:
        """A step of training is done; leaves the loop where the run must stop.

        Raises:
            StopTraining: here, with a checkpoint in hand; ``follow`` catches it.
        """
        if self._guard.step():
            raise StopTraining

    def due(self, action: Action) -> bool:
        """Whether an ``"evaluate"`` or a ``"save"`` is planned after this epoch, and fits.

        Saves happen by themselves. Of several processes, all must ask.
        """
        due = self._guard.reason is None and self._guard.due(action)
        if due and action == "evaluate" and self._state is not None:
            self._state.begin_evaluation()
        return due

    def report(self, **values: float) -> StopReason | None:
        """What an evaluation gave, e.g. ``val_loss=0.31``; why the run ends after it, if it does.

        Raises:
            UsageError: the plan's stop rules watch a metric that was never reported.
        """
        return self._guard.report(values)

    def save(self) -> None:
        """Have a checkpoint of this moment, whatever is planned."""
        self._guard.save()

    def stop(self) -> None:
        """Leave the loop here for a reason of one's own, with a checkpoint.

        Raises:
            StopTraining: ``follow`` catches it.
        """
        self._guard.save()
        raise StopTraining

    @property
    def checkpoint(self) -> Path | None:
        """What ``save`` wrote last, to go on from; None where the run begins."""
        self._taken_up = True
        return self._guard.checkpoint

    @property
    def best_checkpoint(self) -> Path | None:
        """What ``save`` wrote when the plan's metric was at its best; None before that."""
        return self._guard.best_checkpoint

    @property
    def steps_left(self) -> int | None:
        """Batches that the present segment of a plan of steps still has; None in one of epochs."""
        return self._guard.steps_left

    @property
    def position(self) -> Position:
        """How far the run has come."""
        return self._guard.position

    @property
    def reason(self) -> StopReason | None:
        """Why the run ended; None while it goes on."""
        return self._guard.reason

    def summary(self) -> str:
        """What was predicted, what happened, and why it ended, in words."""
        return self._session.summary()

    def _may_save(self) -> bool:
        return self._state is None or self._state.as_trained

    def _stop_training(self) -> None:
        raise StopTraining
