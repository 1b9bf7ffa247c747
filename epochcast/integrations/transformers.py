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

A checkpoint is as Trainer writes its own, so that ``train(resume_from_checkpoint=…)`` reads it. A
callback is not given the Trainer, but all that the Trainer saves. Its arguments are left out: they
are a pickle, and resuming does not read them.

    model.safetensors  config.json …   model, and tokenizer or processor, as ``save_pretrained``
    optimizer.pt  scheduler.pt  scaler.pt
    trainer_state.json                 how far training is: Trainer skips what was done
    rng_state.pth                      of one process; rng_state_<rank>.pth of several
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from epochcast.errors import UsageError
from epochcast.guard.guard import Guard
from epochcast.integrations.follower import Follower, missing
from epochcast.profiler.ranks import Ranks
from epochcast.records import StopReason

try:
    from accelerate.state import AcceleratorState, DistributedType
    from safetensors.torch import save_model
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ModuleNotFoundError as error:
    raise missing("transformers", error, "accelerate") from None

WEIGHTS, OPTIMIZER, SCHEDULER, SCALER, STATE = (
    "model.safetensors",
    "optimizer.pt",
    "scheduler.pt",
    "scaler.pt",
    "trainer_state.json",
)
SHARDED = (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM)
OF_THE_EVALUATION = ("_runtime", "_per_second", "_preparation_time")  # not of the model


class FollowPlan(Follower, TrainerCallback):
    """Follow a plan in ``transformers.Trainer``.

    Training ends where the plan, its stop rules, the budget or a signal end it, never later than
    the arguments of the Trainer say; started again, it goes on from there. Where there is a
    checkpoint, training must start from it: ``trainer.train(resume_from_checkpoint=
    follow.checkpoint)`` does so, and begins anew where there is none.

    With any ``eval_strategy`` but ``"no"``, the plan decides at which epochs' ends to evaluate,
    unless the learning rate follows the evaluations; those within an epoch stay as they are. The
    plan's metric may be called ``eval_loss``, ``val_loss`` or ``loss``: Trainer's ``eval_loss`` is
    meant. Checkpoints are those of Trainer, in the run's own folder; ``save_strategy="no"`` avoids
    a second set.
    """

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **parts: Any
    ) -> None:
        """Take up the run.

        Raises:
            UsageError: training does not start where the run stands, or cannot be followed.
        """
        self._end(failed=True)  # of a training that an error ended
        _require_whole_weights()
        session = self._new_session(self._write, all_ranks_save=True, per_update=True)
        guard = session.guard
        self._updates = _updates_of_an_epoch(args, parts["train_dataloader"])
        self._require_place(guard, args, state)
        self._parts, self._ranks = TrainerParts.of(state, parts), guard.ranks
        self._evaluates = _name(args.eval_strategy) != "no"
        reactive = isinstance(parts["lr_scheduler"], ReduceLROnPlateau)
        self._plan_evaluates = (
            self._evaluates and not reactive and bool(self.plan.epochs_of("evaluate"))
        )
        self._skip = guard.resumed_step
        self._ending = False  # whether an epoch waits for its evaluation
        self._values: dict[str, float] = {}
        self._restore: list[Callable[[], None]] = []
        if self._begin(session, self._leave) and self._skip == self._updates:
            self._catch_up(guard, args, control)
        if guard.reason is not None:
            self._stop_before_a_step(guard, control, parts["train_dataloader"])
        else:
            self._compare_horizon(guard, args, state)

    def _compare_horizon(self, guard: Guard, args: TrainingArguments, state: TrainerState) -> None:
        """A learning rate that falls over more steps than the plan has: say so."""
        end = self.plan.chosen.epochs * self._updates
        falls = not _name(args.lr_scheduler_type).startswith(("constant", "reduce_lr"))
        if falls and end < state.max_steps:
            guard.note("schedule-shortened", steps=f"{end:,}", horizon=f"{state.max_steps:,}")

    def _catch_up(self, guard: Guard, args: TrainingArguments, control: TrainerControl) -> None:
        """The run was left after an epoch's last step: what comes after it comes now."""
        guard.begin_epoch()
        guard.skip(self._skip)
        self._skip = 0
        control.should_evaluate = self._evaluates
        self._evaluate_or_end(guard, control)
        if control.should_evaluate:  # before the next epoch; on_evaluate ends this one
            self._restore.append(_set(args, "eval_on_start", True))
        control.should_evaluate = False

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **parts: Any
    ) -> None:
        """Begin the epoch."""
        guard = self._guard
        if guard is None:
            return
        if self._ending:  # the evaluation is over, and did not give the plan's metric
            self._end_epoch(guard, control)
        if not guard.begin_epoch():
            self._stop_before_a_step(guard, control, parts["train_dataloader"])
        elif self._skip:
            guard.skip(self._skip)
            self._skip = 0

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **parts: Any
    ) -> None:
        """Count the step; stop here where the run must."""
        guard = self._guard
        if guard is None:
            return
        if guard.reason is not None or guard.step():
            _stop(guard, control)
        elif control.should_evaluate:  # eval_strategy="steps"
            at_the_end = self._plan_evaluates and state.global_step % self._updates == 0
            control.should_evaluate = not at_the_end and guard.may_evaluate()

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **parts: Any
    ) -> None:
        """Evaluate, or end the epoch."""
        guard = self._guard
        if guard is None:
            return
        within = control.should_training_stop and state.global_step % self._updates
        if guard.reason is not None:
            _stop(guard, control)
        elif not within:
            self._evaluate_or_end(guard, control)

    def _evaluate_or_end(self, guard: Guard, control: TrainerControl) -> None:
        if self._plan_evaluates:
            control.should_evaluate = guard.due("evaluate")
        elif control.should_evaluate:
            control.should_evaluate = guard.may_evaluate()
        self._ending = True
        if not control.should_evaluate:
            self._end_epoch(guard, control)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **parts: Any
    ) -> None:
        """The training loss that Trainer logged last goes with the next evaluation."""
        logs = parts.get("logs") or {}
        if self._guard is not None and "loss" in logs:
            self._values["train_loss"] = float(logs["loss"])

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **parts: Any
    ) -> None:
        """Report what was measured, and decide whether to go on."""
        guard = self._guard
        if guard is None or not guard.evaluating:  # an evaluation of the user's own
            return
        if not self._ending:
            guard.end_evaluation()
            return
        self._values.update(self._named(parts["metrics"]))
        if self.plan.metric in self._values:  # of several data sets, this is the one
            self._end_epoch(guard, control)
            if guard.reason is not None:
                self._stop_before_a_step(guard, control, parts["train_dataloader"])

    def _end_epoch(self, guard: Guard, control: TrainerControl) -> None:
        self._ending = False
        if guard.evaluating:
            guard.report(self._values)
        self._values = {}
        try:
            if guard.end_epoch() is not None:
                _stop(guard, control)
        except UsageError:
            self._end(failed=True)
            raise

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **parts: Any
    ) -> None:
        """End the run.

        Raises:
            SystemExit: a signal asked for it.
        """
        if self._guard is None:
            return
        if self._ending:
            self._end_epoch(self._guard, control)
        self._leave()

    def _end(self, failed: bool = False) -> None:
        if self._guard is not None:
            for restore in self._restore:
                restore()
        super()._end(failed)

    def _write(self, path: Path) -> None:
        write_checkpoint(path, self._parts, self._ranks)

    def _named(self, metrics: Mapping[str, Any]) -> dict[str, float]:
        """What is said of the model, the plan's metric under the name that it has in the plan."""
        found = {
            name: float(value)
            for name, value in metrics.items()
            if name != "epoch" and not name.endswith(OF_THE_EVALUATION)
        }
        wanted = self.plan.metric
        plain = wanted.removeprefix("validation_").removeprefix("val_")
        if wanted not in found and f"eval_{plain}" in found:
            found[wanted] = found[f"eval_{plain}"]
        return found

    def _require_place(self, guard: Guard, args: TrainingArguments, state: TrainerState) -> None:
        """Trainer and guard must be at the same step of the same epoch."""
        at, steps = guard.position, int(state.global_step)
        if at.steps != steps:
            raise UsageError(
                f"the run in {self.folder} is at step {at.steps}, but training starts at step "
                f"{steps}: call trainer.train(resume_from_checkpoint=follow.checkpoint); to begin "
                "anew, give another folder"
            )
        if at.epoch * self._updates + at.step != steps or at.step > self._updates:
            raise UsageError(
                f"the run in {self.folder} is at step {at.step} of epoch {at.epoch}, but an epoch "
                f"has {self._updates} steps now: give it the data, the batch size and the "
                "accumulation that it began with, or give another folder"
            )
        if args.ignore_data_skip and at.step:
            raise UsageError(
                "this run goes on within an epoch, which ignore_data_skip=True would begin anew: "
                "set it to False"
            )

    def _stop_before_a_step(self, guard: Guard, control: TrainerControl, loader: Any) -> None:
        """Trainer takes a step in every epoch that it begins: let there be no batch for it."""
        _stop(guard, control)
        sampler: Any = getattr(loader, "batch_sampler", None)
        while hasattr(sampler, "batch_sampler"):  # accelerate's: one process's part
            sampler = sampler.batch_sampler
        if hasattr(sampler, "sampler"):
            self._restore.append(_set(sampler, "sampler", ()))


def _stop(guard: Guard, control: TrainerControl) -> None:
    control.should_training_stop = True
    if guard.reason in (StopReason.BUDGET, StopReason.SIGNAL):  # no time for more
        control.should_evaluate = control.should_save = False


def _require_whole_weights() -> None:
    if AcceleratorState().distributed_type in SHARDED:
        raise UsageError(
            "FollowPlan cannot save models that FSDP or DeepSpeed has sharded: "
            "follow the plan in a loop of your own, with save= and all_ranks_save=True"
        )


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


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerParts:
    """What a Trainer's checkpoint is made of, as callbacks are given it."""

    state: TrainerState
    model: Any
    optimizer: Any
    scheduler: Any
    processing: Any

    @classmethod
    def of(cls, state: TrainerState, given: Mapping[str, Any]) -> TrainerParts:
        """From the arguments of a callback."""
        return cls(
            state=state,
            model=given["model"],
            optimizer=given["optimizer"],
            scheduler=given["lr_scheduler"],
            processing=given.get("processing_class"),
        )


def write_checkpoint(folder: Path, parts: TrainerParts, ranks: Ranks) -> None:
    """Write a checkpoint; all processes call this, and the first one writes what they share.

    Args:
        folder: of the checkpoint; made where it is missing.
        parts: what Trainer reads again: model, optimizer, scheduler, its state, and a tokenizer or
            the like.
        ranks: this process among all: each writes its own random state, and rank 0 the rest.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = "rng_state.pth" if ranks.size == 1 else f"rng_state_{ranks.rank}.pth"
    torch.save(_random_states(ranks.size), folder / name)
    if ranks.rank > 0:
        return
    _write_model(folder, parts.model)
    if parts.processing is not None:
        parts.processing.save_pretrained(folder)
    torch.save(parts.optimizer.state_dict(), folder / OPTIMIZER)
    with warnings.catch_warnings():  # torch reminds of saving the optimizer too
        warnings.simplefilter("ignore", UserWarning)
        torch.save(parts.scheduler.state_dict(), folder / SCHEDULER)
    if getattr(parts.optimizer, "scaler", None) is not None:  # accelerate keeps it there
        torch.save(parts.optimizer.scaler.state_dict(), folder / SCALER)
    parts.state.save_to_json(str(folder / STATE))


def _write_model(folder: Path, model: Any) -> None:
    """Under the names that the model has now: Trainer reads no others (transformers#48805)."""
    if not hasattr(model, "save_pretrained"):
        save_model(model, str(folder / WEIGHTS))
    elif "save_original_format" in signature(model.save_pretrained).parameters:
        model.save_pretrained(folder, save_original_format=False)
    else:
        model.save_pretrained(folder)


def _random_states(processes: int) -> dict[str, Any]:
    """As Trainer reads them."""
    states: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "cpu": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        of_all = processes > 1
        states["cuda"] = torch.cuda.get_rng_state_all() if of_all else torch.cuda.get_rng_state()
    return states
