"""The guard in Lightning.

    follow = ec.integrations.lightning.FollowPlan("plan.json")
    trainer = lightning.Trainer(max_epochs=-1, callbacks=[follow])
    trainer.fit(model, data, ckpt_path=follow.checkpoint)         # None where the run begins

    on_train_start          take up the run
    on_train_epoch_start    begin_epoch
    on_train_batch_end      step; after the last one: is an evaluation due?
    validation              timed
    on_train_epoch_end      report, end_epoch
    on_train_end            end the run
    teardown                leave, if signalled

The callback is a ``Checkpoint`` to Lightning: the trainer adds no ``ModelCheckpoint`` of its own,
its hooks run last, and ``trainer.test(ckpt_path="best")`` finds the best checkpoint.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

from epochcast.errors import UsageError
from epochcast.guard.guard import Guard
from epochcast.integrations.follower import Follower, missing
from epochcast.records import StopReason

try:
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.callbacks import Checkpoint
    from lightning.pytorch.utilities import rank_zero_warn
except ModuleNotFoundError as error:
    raise missing("lightning", error) from None


class FollowPlan(Follower, Checkpoint):
    """A Lightning callback that follows a plan.

    The run ends where the plan, its stop rules, the budget or a signal end it, whatever
    ``max_epochs`` says; a smaller ``max_epochs`` leaves it early. Validation runs after the epochs
    for which it is planned, unless an ``EarlyStopping``, a ``ReduceLROnPlateau`` or
    ``val_check_interval`` need it elsewhere.

    Args:
        plan: what to follow, or the file that ``epochcast plan --output`` wrote; the others are
            those of ``Follower``.

    Raises:
        UsageError: from ``fit``: there is a checkpoint to go on from, and it was not loaded.
        SystemExit: from ``fit``, where a signal asked for it.
    """

    _skip = 0  # steps of an interrupted epoch
    _in_epoch = False
    _reports = False  # whether this epoch has an evaluation of the plan
    _loaded_epoch: int | None = None
    _plan_validates = False

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Remember in which epoch Lightning was."""
        self._loaded_epoch = checkpoint["epoch"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take up the run."""
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        session = self._new_session(_saved_by(trainer), all_ranks_save=trainer.world_size > 1)
        _require_loaded(trainer, session.guard.checkpoint)
        self._limits = _Limits(trainer)
        self._plan_validates = _may_move_validation(trainer) and bool(
            self.plan.epochs_of("evaluate")
        )
        self._skip = session.guard.resumed_step
        self._in_epoch = self._reports = False
        swaps, leave = _swaps_weights(trainer), session.leave_if_signalled
        if self._begin(session, leave, lambda: not swaps) and self._lightning_went_on(trainer):
            self._begin_epoch(session.guard)
            session.guard.end_epoch()
            self._in_epoch = False
        self._leave_if_over(trainer, session.guard)

    def _lightning_went_on(self, trainer: Trainer) -> bool:
        """Whether Lightning takes an interrupted epoch for done, for all but its end was."""
        began_in = self._loaded_epoch
        return self._skip > 0 and began_in is not None and trainer.current_epoch > began_in

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the epoch."""
        if self._guard is not None:
            self._begin_epoch(self._guard)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Begin an epoch that is gone on with: Lightning does not start it again."""
        if not self._in_epoch and self._guard is not None:
            self._begin_epoch(self._guard)

    def _begin_epoch(self, guard: Guard) -> None:
        if self._in_epoch:
            return
        self._in_epoch = guard.begin_epoch()
        if self._skip:
            guard.skip(self._skip)
            self._skip = 0

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Count the step; after the last one, see whether to validate."""
        guard = self._guard
        if guard is None:
            return
        if guard.step():
            self._leave_if_over(trainer, guard)
        elif trainer.is_last_batch:
            self._validate_if_due(trainer, guard)

    def _validate_if_due(self, trainer: Trainer, guard: Guard) -> None:
        if self._plan_validates:
            self._reports = guard.due("evaluate")
            self._limits.validate(trainer, self._reports, every_epoch=True)
        else:
            self._limits.validate(trainer, guard.may_evaluate())

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See whether this is an evaluation of the plan."""
        guard = self._guard
        if guard is None or self._reports:
            return
        self._begin_epoch(guard)
        self._reports = trainer.is_last_batch and guard.due("evaluate")
        if not self._reports:
            guard.may_evaluate()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What the plan did not ask for is part of the epoch."""
        if self._guard is not None and not self._reports:
            self._guard.end_evaluation()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report what was logged, and decide whether to go on."""
        guard = self._guard
        if guard is None or guard.reason is not None:
            return
        self._begin_epoch(guard)
        if self._reports:
            metrics = trainer.callback_metrics.items()
            guard.report({name: float(value) for name, value in metrics if value.numel() == 1})
        else:
            guard.end_evaluation()  # Lightning may have had none in mind
        guard.end_epoch()
        self._in_epoch = self._reports = False
        self._leave_if_over(trainer, guard)

    def _leave_if_over(self, trainer: Trainer, guard: Guard) -> None:
        if guard.reason is None:
            return
        trainer.should_stop = True
        self._limits.validate(trainer, False)
        self._limits.lift_minimum(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the run; Lightning's own handlers of signals are in force again."""
        if self._guard is None:
            return
        self._end()
        self._limits.restore(trainer)
        if self.reason is StopReason.SIGNAL:
            self._requeue()

    def _requeue(self) -> None:
        """Hand on the signal with which SLURM has Lightning requeue a job."""
        number: int | None = getattr(signal, "SIGUSR1", None)
        received = self._session.signals.received if self._session is not None else None
        if number is not None and received == number and callable(signal.getsignal(number)):
            signal.raise_signal(number)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """End the run; what the weights are worth is not known, unless we left ourselves."""
        if self._guard is None:
            return
        self._end(failed=self._guard.reason is None or not isinstance(exception, SystemExit))
        self._limits.restore(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the process, where a signal asked for it."""
        if stage == "fit" and self._session is not None:
            self._session.leave_if_signalled()

    @property
    def best_model_path(self) -> str:
        """Where Lightning finds ``ckpt_path="best"``; empty before there is one."""
        return str(self.best_checkpoint or "")

    @best_model_path.setter
    def best_model_path(self, path: str) -> None:
        """Lightning hands over what it read in another process; the folder says the same."""


class _Limits:
    """What is changed of a trainer, and how it was."""

    def __init__(self, trainer: Trainer) -> None:
        self._batches = trainer.limit_val_batches
        self._every = trainer.check_val_every_n_epoch
        self._epochs, self._steps = trainer.min_epochs, trainer.min_steps

    def validate(self, trainer: Trainer, validates: bool, every_epoch: bool = False) -> None:
        """Whether Lightning is to validate after this batch."""
        trainer.limit_val_batches = self._batches if validates else 0
        if every_epoch:
            trainer.check_val_every_n_epoch = 1

    def lift_minimum(self, trainer: Trainer) -> None:
        """Let a run end although ``min_epochs`` or ``min_steps`` want more of it."""
        wanted = trainer.current_epoch < (self._epochs or 0)
        if wanted or trainer.global_step < (self._steps or 0):
            rank_zero_warn("the followed plan ends this run before min_epochs or min_steps")
        trainer.fit_loop.min_epochs = trainer.fit_loop.epoch_loop.min_steps = None

    def restore(self, trainer: Trainer) -> None:
        trainer.limit_val_batches = self._batches
        trainer.check_val_every_n_epoch = self._every
        trainer.fit_loop.min_epochs = self._epochs
        trainer.fit_loop.epoch_loop.min_steps = self._steps


def _saved_by(trainer: Trainer) -> Any:
    def write(path: Path) -> None:
        trainer.save_checkpoint(path, weights_only=False)

    return write


def _require_loaded(trainer: Trainer, checkpoint: Path | None) -> None:
    loaded = trainer.ckpt_path
    if checkpoint is None or (loaded and Path(loaded).resolve() == checkpoint.resolve()):
        return
    raise UsageError(
        f"this run has a checkpoint to go on from, but fit loaded {loaded or 'none'}: "
        "give fit(…, ckpt_path=follow.checkpoint); to begin anew, give another folder"
    )


def _swaps_weights(trainer: Trainer) -> bool:
    """Whether a callback validates with averaged weights; not every Lightning has them all."""
    kinds = {kind.__name__ for callback in trainer.callbacks for kind in type(callback).__mro__}  # type: ignore[attr-defined]
    return not kinds.isdisjoint({"WeightAveraging", "StochasticWeightAveraging"})


def _may_move_validation(trainer: Trainer) -> bool:
    """Whether nothing else relies on when Lightning validates."""
    reactive = any(config.reduce_on_plateau for config in trainer.lr_scheduler_configs)
    whole_epochs = trainer.val_check_interval == 1.0 and trainer.check_val_every_n_epoch is not None
    return whole_epochs and not reactive and not trainer.early_stopping_callbacks
