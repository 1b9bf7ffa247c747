"""A workload out of a Trainer of transformers, which is not started.

    model                        model, its checkpointing turned on where asked for
    get_train_dataloader         data, sampler, collator with its removed columns, workers
    create_optimizer, _scheduler as for the run that the arguments describe
    compute_loss                 forward; label smoothing, a loss function of one's own included
    TrainingArguments            precision, accumulation, clipping, compilation, evaluation

What callbacks, logging and metrics cost is not in it; nor what is done with the logits of an
evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils.data import ConcatDataset

from epochcast.errors import WorkloadError
from epochcast.profiler.lifting import has_length
from epochcast.profiler.lifting.loaders import evaluation_of, made_of, overridden

_BY_HAND = "write the Workload by hand for it"
_METHODS = ("training_step", "_inner_training_loop", "_clip_grad_norm", "optimizer_step")
_ARGUMENTS = (  # what makes another step of it, unless it is false
    "deepspeed",
    "fsdp",
    "neftune_noise_alpha",
    "predict_with_generate",
    "torch_empty_cache_steps",
    "parallelism_config",
)
_OPTIMIZERS = ("lomo", "adalomo")  # update in the backward pass, as all that are layerwise do


def taken_from(trainer: Any) -> dict[str, Any]:
    """The attributes of the Workload that a Trainer trains.

    Args:
        trainer: a ``transformers.Trainer``, or one that derives from it.

    Raises:
        WorkloadError: what it does cannot be taken over; says what.
    """
    args = getattr(trainer, "args", None)
    if args is None or not hasattr(trainer, "compute_loss"):
        raise WorkloadError(
            f"from_trainer needs a transformers.Trainer, but got {type(trainer).__name__}"
        )
    if trainer.train_dataset is None and not overridden(
        trainer, "get_train_dataloader", "transformers"
    ):
        raise WorkloadError("the Trainer has no train_dataset=: give it one")
    _refuse_others(trainer)
    with _as_it_is(trainer):
        loader = trainer.get_train_dataloader()
        data = made_of(loader, "get_train_dataloader", args.per_device_train_batch_size)
        optimizer, scheduler = _optimization(trainer, loader)
        evaluation = _evaluation(trainer)
    if args.gradient_checkpointing:
        trainer.model.gradient_checkpointing_enable(args.gradient_checkpointing_kwargs)
    return {
        "model": trainer.model,
        "forward": lambda model, batch: trainer.compute_loss(model, {**batch}),
        "optimizer": optimizer,
        "scheduler": scheduler,
        "clip_norm": args.max_grad_norm if args.max_grad_norm else None,
        "precision": "bf16" if args.bf16 else "fp16" if args.fp16 else "fp32",
        "accumulation": args.gradient_accumulation_steps,
        "compile": bool(args.torch_compile),
        "data_source": "the Trainer's own",
        **data,
        **({} if has_length(loader) else _length(trainer)),
        **evaluation,
    }


def _refuse_others(trainer: Any) -> None:
    name = type(trainer).__name__
    for method in _METHODS:
        if overridden(trainer, method, "transformers"):
            raise WorkloadError(f"{name} has a {method} of its own: {_BY_HAND}, with train_step=")
    for argument in _ARGUMENTS:
        value = getattr(trainer.args, argument, None)
        if value:
            raise WorkloadError(f"{argument}={value!r} cannot be taken over: {_BY_HAND}")
    if trainer.args.world_size > 1:
        raise WorkloadError(
            f"a Trainer of {trainer.args.world_size} processes cannot be taken over: make it in one"
        )
    optim = str(getattr(trainer.args.optim, "value", trainer.args.optim))
    if optim in _OPTIMIZERS or optim.endswith("layerwise"):
        raise WorkloadError(
            f"optim={optim} updates within the backward pass: {_BY_HAND}, with train_step="
        )


@contextmanager
def _as_it_is(trainer: Any) -> Iterator[None]:
    """Within it, loaders are torch's own; after it, the Trainer is as it was."""
    before = {name: getattr(trainer, name) for name in ("optimizer", "lr_scheduler")}
    trainer.accelerator.prepare = lambda loader: loader
    try:
        yield
    finally:
        del trainer.accelerator.prepare
        for name, value in before.items():
            setattr(trainer, name, value)


def _optimization(trainer: Any, loader: Any) -> tuple[Any, Any]:
    """The optimizer, and what schedules its rate after every update."""
    args = trainer.args
    steps = args.max_steps
    if steps <= 0:
        updates = len(loader) / args.gradient_accumulation_steps if has_length(loader) else 1
        steps = max(1, math.ceil(args.num_train_epochs * max(1, math.floor(updates))))
    trainer.create_optimizer_and_scheduler(num_training_steps=steps)
    scheduler = trainer.lr_scheduler
    with_metric = type(scheduler).__name__ in ("ReduceLROnPlateau", "GreedyLR")
    return trainer.optimizer, None if with_metric else scheduler


def _length(trainer: Any) -> dict[str, Any]:
    """Of data without one, an epoch is the whole run, as the Trainer has it."""
    args = trainer.args
    if args.max_steps <= 0:
        raise WorkloadError("train_dataset has no length: give the TrainingArguments max_steps=")
    return {"steps_per_epoch": args.max_steps * args.gradient_accumulation_steps}


def _evaluation(trainer: Any) -> dict[str, Any]:
    """What the Trainer evaluates during training: nothing where its strategy is ``"no"``."""
    strategy = getattr(trainer.args.eval_strategy, "value", trainer.args.eval_strategy)
    if strategy == "no" or trainer.eval_dataset is None:
        return {}
    if not isinstance(trainer.eval_dataset, dict):
        return evaluation_of(trainer.get_eval_dataloader(), "get_eval_dataloader")
    found = [
        evaluation_of(trainer.get_eval_dataloader(name), f"get_eval_dataloader of {name!r}")
        for name in trainer.eval_dataset
    ]
    return {**found[0], "eval_data": ConcatDataset([one["eval_data"] for one in found])}
