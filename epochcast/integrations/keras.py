"""The guard in Keras 3, on its torch backend.

    follow = ec.integrations.keras.FollowPlan("plan.json")
    model.fit(x, y, epochs=1000, validation_data=…, callbacks=[follow],
              validation_freq=follow.validation_freq)

    on_train_begin        take up the run, its weights and its optimizer
    on_epoch_begin        begin_epoch
    on_train_batch_end    step
    on_test_begin         due? if not and there is no time for it: one batch only
    on_epoch_end          report, end_epoch
    on_train_end          end the run; leave, if signalled

Keras looks at ``stop_training`` after every batch and validates even then. Its checkpoints are
weights and optimizer in Keras' own HDF5 file: nothing is unpickled.
"""

from __future__ import annotations

from pathlib import Path
from threading import get_ident
from typing import Any

from epochcast.errors import MissingDependency, UsageError
from epochcast.guard.guard import Guard
from epochcast.integrations.follower import Follower, missing
from epochcast.records.validation import is_number, plain

try:
    from keras.callbacks import Callback
except ModuleNotFoundError as error:
    lacking = (error.name or "").partition(".")[0]
    if lacking in ("tensorflow", "jax"):
        raise MissingDependency(
            f"Keras wants {lacking}, which is not installed; next: set KERAS_BACKEND=torch in "
            "the environment, before keras is imported"
        ) from None
    raise missing("keras", error) from None

WEIGHTS = "model.weights.h5"


class FollowPlan(Follower, Callback):  # type: ignore[misc]
    """A Keras callback that follows a plan.

    The run ends where the plan, its stop rules, the budget or a signal end it, whatever
    ``fit(epochs=…)`` says; a smaller number leaves it early. Started again with the same folder it
    goes on by itself, from the epoch and with the weights and the optimizer of the newest
    checkpoint.

    Args:
        plan: what to follow, or the file that ``epochcast plan --output`` wrote; the others are
            those of ``Follower``.

    Raises:
        SystemExit: from ``fit``, where a signal asked for it.
    """

    @property
    def validation_freq(self) -> list[int]:
        """For ``fit``: validate where the plan has it.

        Left out, Keras validates where it likes, and what the plan did not ask for is not reported
        to its stop rules.
        """
        return _WhenDue(self)

    @property
    def checkpoint(self) -> Path | None:
        """The newest checkpoint's weights, for ``model.load_weights``; None where there is none."""
        path = super().checkpoint
        return path / WEIGHTS if path else None

    @property
    def best_checkpoint(self) -> Path | None:
        """The weights of when the plan's metric was at its best; None before that."""
        path = super().best_checkpoint
        return path / WEIGHTS if path else None

    @property
    def epoch(self) -> int:
        """Whole epochs done; ``fit`` is told by itself."""
        return self.position.epoch

    def on_train_begin(self, logs: Any = None) -> None:
        """Take up the run."""
        self._end(failed=True)  # a fit before this one that an error left
        session = self._new_session(self._write)
        guard = session.guard
        if guard.checkpoint is not None:
            self.model.load_weights(guard.checkpoint / WEIGHTS)
        averaged = getattr(self.model.optimizer, "use_ema", False)  # SwapEMAWeights may be there
        self._thread, self._beside = get_ident(), False
        self._skip, self._resumes = guard.resumed_step, False
        goes_on = self._begin(session, self._leave, lambda: not averaged)
        if goes_on and self._skip and self._has_caught_up(self._skip):
            self.on_epoch_begin(guard.position.epoch)  # all but the end of an epoch was done
            goes_on = guard.end_epoch() is None
        self._initial_epoch = self.model._initial_epoch
        self.model._initial_epoch = guard.position.epoch if goes_on else self.params["epochs"]

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Begin the epoch, or go on with one."""
        guard = self._guard
        if guard is None:
            return
        guard.begin_epoch()
        self._tested = self._reports = self._cut = False
        self._resumes = self._skip > 0
        if self._resumes:
            guard.skip(self._skip)
            self._skip = 0

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Notice that steps are counted elsewhere."""
        if self._beside:
            self._refuse_threads()

    def _refuse_threads(self) -> None:
        self._beside = False
        self._end(failed=True)
        raise UsageError(
            "Keras runs a callback that is not in a list beside the training, which then cannot "
            "be stopped in time: give callbacks=[follow]"
        )

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Count the step."""
        guard = self._guard
        if guard is None:
            return
        if get_ident() != self._thread:
            self._beside = True
        elif guard.step() or (self._resumes and self._has_caught_up(guard.position.step)):
            self.model.stop_training = True

    def _has_caught_up(self, step: int) -> bool:
        """Whether an epoch that is gone on with is done; never, where Keras does not know."""
        steps: int | None = self.params["steps"]
        return steps is not None and step >= steps

    def on_test_begin(self, logs: Any = None) -> None:
        """Time a validation that is planned; allow none that does not fit."""
        guard = self._guard
        if guard is None:
            return
        self._tested = True
        self._reports = guard.evaluating or _is_due(guard)
        if not self._reports and (guard.reason is not None or not guard.may_evaluate()):
            self._cut = self.model.stop_evaluating = True

    def on_test_end(self, logs: Any = None) -> None:
        """What the plan did not ask for is part of the epoch."""
        if self._guard is not None and not self._reports:
            self._guard.end_evaluation()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Report what was measured, and decide whether to go on."""
        guard = self._guard
        if guard is None:
            return
        if self._beside:
            self._refuse_threads()
        logs = {} if logs is None else logs
        if self._cut:  # of a single batch
            for name in [name for name in logs if name.startswith("val_")]:
                del logs[name]
        if guard.reason is not None:
            return
        if self._resumes:
            self.model.stop_training = False
        if self._reports or (not self._tested and self.plan.metric in logs and _is_due(guard)):
            values = {name: value for name, value in logs.items() if is_number(plain(value))}
            guard.report(values)
        try:
            if guard.end_epoch() is not None:
                self.model.stop_training = True
        except UsageError:
            self._end(failed=True)
            raise

    def on_train_end(self, logs: Any = None) -> None:
        """End the run, and leave the process where a signal asked for it."""
        if self._guard is not None:
            self._leave()

    def _leave(self) -> None:
        self.model._initial_epoch = self._initial_epoch
        super()._leave()

    def _write(self, path: Path) -> None:
        path.mkdir()
        self.model.save_weights(path / WEIGHTS)


class _WhenDue(list[int]):
    """The plan's epochs of evaluations, as Keras wants them; what it asks is answered as of now."""

    def __init__(self, follower: FollowPlan) -> None:
        super().__init__(follower.plan.epochs_of("evaluate"))
        self._follower = follower

    def __contains__(self, epoch: object) -> bool:
        guard = self._follower._guard
        return super().__contains__(epoch) if guard is None else _is_due(guard)


def _is_due(guard: Guard) -> bool:
    return guard.reason is None and guard.due("evaluate")
