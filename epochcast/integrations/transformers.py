"""The guard in Hugging Face's Trainer.

    follow = ec.integrations.transformers.FollowPlan("plan.json")
    trainer = transformers.Trainer(..., callbacks=[follow])
    trainer.train(resume_from_checkpoint=follow.checkpoint)

    on_train_begin    open
    on_epoch_begin    begin_epoch
    on_step_end       step
    on_epoch_end      due? ─ no: end_epoch
         │              └─ yes: Trainer evaluates
    on_evaluate       report, end_epoch
    on_train_end      close

Trainer evaluates after ``on_epoch_end``, so an epoch with an evaluation ends in ``on_evaluate``. A
step is an update of the weights, not a micro-batch: between the micro-batches of an update there is
nothing that training could go on from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from epochcast.errors import MissingDependency, UsageError
from epochcast.guard.clock import Clock
from epochcast.guard.guard import Guard, Options
from epochcast.guard.telling import Watcher
from epochcast.integrations.session import FOLDER, Session
from epochcast.records import Plan, StopReason

try:
    from accelerate.state import AcceleratorState, DistributedType
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ImportError as error:
    raise MissingDependency(
        "following a plan in Hugging Face's Trainer needs transformers and accelerate: "
        "pip install 'epochcast[transformers]'"
    ) from error

from epochcast.integrations.trainer_checkpoint import TrainerParts, write_checkpoint

SHARDED = (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM)
OF_THE_EVALUATION = ("_runtime", "_per_second", "_preparation_time")  # not of the model


class FollowPlan(TrainerCallback):
    """Follow a plan in ``transformers.Trainer``.

    Training ends where the plan, its stop rules, the budget or a signal end it, never later than
    the arguments of the Trainer say; started again, it goes on from there. Where there is a
    checkpoint, training must start from it: ``trainer.train(resume_from_checkpoint=
    follow.checkpoint)`` does so, and begins anew where there is none.

    With any ``eval_strategy`` but ``"no"``, the plan decides at which epochs' ends to evaluate;
    evaluations within an epoch stay as they are. The plan's metric may be called ``eval_loss``,
    ``val_loss`` or ``loss``: Trainer's ``eval_loss`` is meant. Checkpoints are those of Trainer, in
    the run's own folder; ``save_strategy="no"`` avoids a second set.

    Args:
        plan: what to follow, or the file that ``epochcast plan --output`` wrote.
        folder: of this run; the same one goes on with it.
        partial_epochs: whether to use up the budget with part of an epoch, where no whole one fits.
        keep_best: whether to save whenever the plan's metric is the best so far.
        rehearse: whether to save once after the very first step, to find out at once that saving
            works and how long it takes.
        exit_code: of a process that a signal made leave; default: 128 + the signal's number.
        store: where the outcome goes; None for ``.epochcast/`` if there is one, False for nowhere.
        watchers: default: terminal, ``log.jsonl`` in the folder, TensorBoard if it is installed.
        clock: of tests.

    Raises:
        StoreError: the plan cannot be read.
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
        watchers: Sequence[Watcher] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._plan = plan if isinstance(plan, Plan) else Plan.load(plan)
        self._folder = Path(folder)
        options = Options(
            partial_epochs=partial_epochs,
            keep_best=keep_best,
            rehearse=rehearse,
            all_ranks_save=True,  # each has its own random states
            per_update=True,
        )
        self._new_session = partial(
            Session, self._plan, self._write, folder=self._folder, options=options,
            exit_code=exit_code, store=store, watchers=watchers, clock=clock,
        )  # fmt: skip
        self._planned_evaluations = bool(self._plan.epochs_of("evaluate"))
        self._next: Session | None = None
        self._session: Session | None = None
        self._open = False

    # ── what can be asked ────────────────────────────────────────────────────────────────────

    @property
    def checkpoint(self) -> str | None:
        """For ``trainer.train(resume_from_checkpoint=…)``; None where the run begins.

        Raises:
            UsageError: the folder belongs to another workload.
            StoreError: what is in the folder cannot be read.
        """
        if self._next is None:
            self._next = self._new_session()
        found = self._next.guard.checkpoint
        return None if found is None else str(found)

    @property
    def best_checkpoint(self) -> str | None:
        """Of the moment when the plan's metric was at its best; None before that."""
        found = self._guard.best_checkpoint
        return None if found is None else str(found)

    @property
    def reason(self) -> StopReason | None:
        """Why the run ended; None while it goes on, or where Trainer ended it."""
        return self._guard.reason

    def summary(self) -> str:
        """What was predicted, what happened, and why it ended, in words."""
        from epochcast.report.following import summary_lines

        return "\n".join(summary_lines(self._guard.events))

    # ── the run, as Trainer goes through it ──────────────────────────────────────────────────

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **parts: Any
    ) -> None:
        if self._session is not None and self._open:  # an error ended the last training
            self._close(failed=True)
        self._session, self._next = self._next or self._new_session(), None
        self._parts = TrainerParts.of(state, parts)
        self._updates = _updates_of_an_epoch(args, parts["train_dataloader"])
        self._check_start(args, state)
        self._skip = self._guard.resumed_step
        self._ending = False  # whether an epoch waits for its evaluation to end
        self._values: dict[str, float] = {}
        self._restore: list[Callable[[], None]] = []
        self._session.on_signal = self._leave
        self._open = True
        if not self._session.open():
            self._stop_before_a_step(control, parts["train_dataloader"])
        elif self._skip == self._updates:  # left after an epoch's last step
            self._guard.begin_epoch()
            self._guard.skip(self._skip)
            self._skip = 0
            self._finish_epoch(args, control)
            if control.should_evaluate:
                self._restore.append(_set(args, "eval_on_start", True))
            if control.should_training_stop:
                self._stop_before_a_step(control, parts["train_dataloader"])

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **parts: Any
    ) -> None:
        if self._ending:  # the evaluation is over, and did not give the plan's metric
            self._end_epoch(control)
        if not self._guard.begin_epoch():
            self._stop_before_a_step(control, parts["train_dataloader"])
        elif self._skip:
            self._guard.skip(self._skip)
            self._skip = 0

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **parts: Any
    ) -> None:
        if self._guard.reason is not None or self._guard.step():
            self._stop(control)
        elif control.should_evaluate:  # eval_strategy="steps"
            at_the_end = self._planned_evaluations and state.global_step % self._updates == 0
            control.should_evaluate = not at_the_end and self._guard.may_evaluate()

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **parts: Any
    ) -> None:
        if self._guard.reason is not None:
            self._stop(control)
        elif not (control.should_training_stop and state.global_step % self._updates):
            self._finish_epoch(args, control)

    def _finish_epoch(self, args: TrainingArguments, control: TrainerControl) -> None:
        """All steps are done: evaluate, or end the epoch."""
        if self._planned_evaluations and _name(args.eval_strategy) != "no":
            control.should_evaluate = self._guard.due("evaluate")
        elif control.should_evaluate:
            control.should_evaluate = self._guard.may_evaluate()
        self._ending = True
        if not control.should_evaluate:
            self._end_epoch(control)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **parts: Any
    ) -> None:
        """The training loss that Trainer logged last goes with the next evaluation."""
        if self._open and "loss" in (logs := parts.get("logs") or {}):
            self._values["train_loss"] = float(logs["loss"])

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **parts: Any
    ) -> None:
        if not self._open or not self._guard.evaluating:
            return  # the user's own evaluation
        if not self._ending:
            self._guard.end_evaluation()
            return
        self._values.update(self._named(parts["metrics"]))
        if self._plan.metric in self._values:  # of several data sets, this is the one
            self._end_epoch(control)
            if control.should_training_stop:
                self._stop_before_a_step(control, parts["train_dataloader"])

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **parts: Any
    ) -> None:
        """Training is over.

        Raises:
            SystemExit: a signal asked for it.
        """
        if self._ending:
            self._end_epoch(control)
        self._leave()

    # ── how ──────────────────────────────────────────────────────────────────────────────────

    @property
    def _guard(self) -> Guard:
        if self._session is None:
            raise UsageError("training has not begun: FollowPlan knows nothing of this run yet")
        return self._session.guard

    def _write(self, path: Path) -> None:
        write_checkpoint(path, self._parts, self._guard.ranks)

    def _check_start(self, args: TrainingArguments, state: TrainerState) -> None:
        """Trainer and guard must be at the same step of the same epoch."""
        if AcceleratorState().distributed_type in SHARDED:
            raise UsageError(
                "FollowPlan cannot save models that FSDP or DeepSpeed has sharded: "
                "follow the plan in a loop of your own, with save= and all_ranks_save=True"
            )
        at, steps = self._guard.position, int(state.global_step)
        if at.steps != steps:
            raise UsageError(
                f"the run in {self._folder} is at step {at.steps}, but training starts at step "
                f"{steps}: call trainer.train(resume_from_checkpoint=follow.checkpoint); to begin "
                "anew, give another folder"
            )
        if at.epoch * self._updates + at.step != steps or at.step > self._updates:
            raise UsageError(
                f"the run in {self._folder} is at step {at.step} of epoch {at.epoch}, but an epoch "
                f"has {self._updates} steps now: give it the data, the batch size and the "
                "accumulation that it began with, or give another folder"
            )
        if args.ignore_data_skip and at.step:
            raise UsageError(
                "this run goes on within an epoch, which ignore_data_skip=True would begin anew: "
                "set it to False"
            )

    def _end_epoch(self, control: TrainerControl) -> None:
        self._ending = False
        if self._guard.evaluating:
            self._guard.report(self._values)
        self._values = {}
        if self._guard.end_epoch() is not None:
            self._stop(control)

    def _named(self, metrics: Mapping[str, Any]) -> dict[str, float]:
        """What is said of the model, the plan's metric under the name that it has in the plan."""
        found = {
            name: float(value)
            for name, value in metrics.items()
            if name != "epoch" and not name.endswith(OF_THE_EVALUATION)
        }
        wanted = self._plan.metric
        plain = wanted.removeprefix("validation_").removeprefix("val_")
        if wanted not in found and f"eval_{plain}" in found:
            found[wanted] = found[f"eval_{plain}"]
        return found

    def _stop(self, control: TrainerControl) -> None:
        control.should_training_stop = True
        if self._guard.reason in (StopReason.BUDGET, StopReason.SIGNAL):  # no time for more
            control.should_evaluate = control.should_save = False

    def _stop_before_a_step(self, control: TrainerControl, loader: Any) -> None:
        """Trainer takes a step in every epoch that it begins: let there be no batch for it."""
        self._stop(control)
        sampler: Any = getattr(loader, "batch_sampler", None)
        while hasattr(sampler, "batch_sampler"):  # accelerate's: one process's part
            sampler = sampler.batch_sampler
        if hasattr(sampler, "sampler"):
            self._restore.append(_set(sampler, "sampler", ()))

    def _leave(self) -> None:
        """Training is over.

        Raises:
            SystemExit: a signal asked for it.
        """
        self._close()
        if self._session is not None:
            self._session.leave_if_signalled()

    def _close(self, failed: bool = False) -> None:
        self._open = False
        for restore in self._restore:
            restore()
        if self._session is not None:
            self._session.close(failed)


def _updates_of_an_epoch(args: TrainingArguments, loader: Any) -> int:
    try:
        batches = len(loader)
    except TypeError as error:
        raise UsageError(
            "FollowPlan needs to know when an epoch ends, but the training data has no length"
        ) from error
    return max(1, -(-batches // int(args.gradient_accumulation_steps)))


def _name(strategy: Any) -> str:
    """Of a strategy, which is text or an enum."""
    return str(getattr(strategy, "value", strategy))


def _set(thing: Any, name: str, value: Any) -> Callable[[], None]:
    """Set an attribute; returns what sets it back."""
    before = getattr(thing, name)
    setattr(thing, name, value)
    return lambda: setattr(thing, name, before)
