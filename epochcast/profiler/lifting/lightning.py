"""A workload out of a LightningModule, as Lightning's automatic optimization trains it.

    configure_optimizers       optimizer, and a scheduler whose interval is a step
    training_step              forward; the batch passes the hooks around its transfer
    validation_step            evaluation
    datamodule, or the module  loaders: data, sampler, collator, workers
    Trainer, if given          precision, accumulation, clipping, limits of an epoch

What logging, callbacks and metrics of the Trainer cost is not in it: ``self.log`` does nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from epochcast.errors import WorkloadError
from epochcast.profiler.lifting import has_length
from epochcast.profiler.lifting.loaders import evaluation_of, made_of, overridden

PACKAGES = ("lightning", "pytorch_lightning")
_HOOKS = {  # of a module: what it says of a step, and where that goes in a Workload
    "backward": "train_step=",
    "optimizer_step": "train_step=",
    "optimizer_zero_grad": "train_step=",
    "lr_scheduler_step": "train_step=",
    "configure_gradient_clipping": "clip_norm=, clip_value= or train_step=",
    "on_before_backward": "forward=",
    "on_after_backward": "train_step=",
    "on_train_batch_start": "forward=",
    "on_train_batch_end": "after_update=",
    "transfer_batch_to_device": "collate=",
}
_BEGINNINGS = {  # hooks before the first of a step
    "training_step": ("on_fit_start", "on_train_start", "on_train_epoch_start"),
    "validation_step": ("on_validation_start", "on_validation_epoch_start"),
}
_CALLBACKS = ("GradientAccumulationScheduler", "StochasticWeightAveraging", "WeightAveraging")
_PRECISIONS = {"32-true": "fp32", "bf16-mixed": "bf16", "16-mixed": "fp16"}


def taken_from(
    module: Any, datamodule: Any = None, trainer: Any = None, samples: int | None = None
) -> dict[str, Any]:
    """The attributes of the Workload that a LightningModule is trained as.

    Args:
        module: a ``LightningModule`` with automatic optimization.
        datamodule: a ``LightningDataModule``, or the training loader; None takes the module's own.
        trainer: whose settings are taken over; it is not started.
        samples: of an epoch, where the data has no length.

    Raises:
        WorkloadError: what it does cannot be taken over; says what.
    """
    _refuse_others(module, trainer)
    settings = {} if trainer is None else _settings(trainer)
    source = module if datamodule is None else datamodule
    stand_in = _Trainer(trainer, source)
    for part in (source, module):
        _set_up(part, stand_in)
    train, validation = _loaders(source)
    data = made_of(train, "train_dataloader") | settings | _length(train, trainer, samples)
    stand_in.num_training_batches = _batches(train, data)
    optimizer, scheduler = _optimization(module)
    _silence(module)
    batches = _Batches(module, source)
    return {
        "model": module,
        "forward": lambda _, batch: batches.loss(batch),
        "optimizer": optimizer,
        "scheduler": scheduler,
        "after_update": _after_update(module, optimizer),
        "data_source": "the LightningModule's own",
        **data,
        **_evaluation(module, validation, trainer, batches),
    }


def _silence(module: Any) -> None:
    """What a module and those in it log goes nowhere."""
    for part in module.modules():
        for name in ("log", "log_dict"):
            if hasattr(part, name):
                setattr(part, name, lambda *_, **__: None)


def _refuse_others(module: Any, trainer: Any) -> None:
    name = type(module).__name__
    if not hasattr(module, "training_step"):
        raise WorkloadError(f"from_lightning needs a LightningModule, but got {name}")
    if not getattr(module, "automatic_optimization", True):
        raise WorkloadError(
            f"{name} has automatic_optimization=False: its manual optimization cannot be taken "
            "over; write the Workload by hand, with what training_step does as train_step= and "
            "its optimizers as optimizer=[…]"
        )
    for hook, instead in _HOOKS.items():
        if overridden(module, hook, *PACKAGES):
            raise WorkloadError(
                f"{name} has a {hook} of its own, which cannot be taken over: write the Workload "
                f"by hand, with what it does in {instead}"
            )
    if "dataloader_iter" in inspect.signature(module.training_step).parameters:
        raise WorkloadError(f"training_step of {name} takes dataloader_iter, not a batch")
    if trainer is None:
        return
    if trainer.limit_train_batches == 0:
        raise WorkloadError("a Trainer with limit_train_batches=0 trains nothing: leave it out")
    if trainer.world_size > 1:
        raise WorkloadError(
            f"a Trainer of {trainer.world_size} processes cannot be taken over: give it devices=1"
        )
    for callback in trainer.callbacks:
        kinds = {kind.__name__ for kind in type(callback).__mro__}
        for known in kinds.intersection(_CALLBACKS):
            raise WorkloadError(
                f"the callback {known} makes another step of it, which cannot be taken over: leave "
                "it out, or write the Workload by hand with accumulation= or after_update="
            )


def _settings(trainer: Any) -> dict[str, Any]:
    """Precision, accumulation and clipping."""
    if trainer.precision not in _PRECISIONS:
        raise WorkloadError(
            f"precision={trainer.precision!r} cannot be taken over, "
            f"but {', '.join(_PRECISIONS)} can"
        )
    clip = "clip_value" if trainer.gradient_clip_algorithm == "value" else "clip_norm"
    return {
        "precision": _PRECISIONS[trainer.precision],
        "accumulation": trainer.accumulate_grad_batches,
        clip: trainer.gradient_clip_val or None,
    }


class _Trainer:
    """Stands for the Trainer where a module asks for it before, or in, a step.

    Args:
        trainer: whose settings are known; None knows no more than the loader.
        source: of the data.
    """

    current_epoch = global_step = local_rank = global_rank = 0
    world_size = num_devices = num_nodes = 1
    training = is_global_zero = True
    sanity_checking = validating = testing = predicting = evaluating = is_last_batch = False
    logger = None

    def __init__(self, trainer: Any, source: Any) -> None:
        self.datamodule = source
        self.num_training_batches: int | float = float("inf")  # of an epoch
        self.loggers: list[Any] = []
        self.max_epochs = getattr(trainer, "max_epochs", None) or 1
        self.max_steps = getattr(trainer, "max_steps", -1)
        self.accumulate_grad_batches = getattr(trainer, "accumulate_grad_batches", 1)

    @property
    def estimated_stepping_batches(self) -> int | float:
        """Updates of the whole run."""
        if self.max_steps > 0:
            return self.max_steps
        return max(self.max_epochs, 1) * -(
            -self.num_training_batches // self.accumulate_grad_batches
        )

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"trainer.{name} is not known before a Trainer runs, and cannot be taken over"
        )


def _set_up(part: Any, stand_in: _Trainer) -> None:
    """As a Trainer does before it fits."""
    if not hasattr(type(part), "trainer") and not hasattr(part, "prepare_data"):
        return  # a loader
    part.trainer = stand_in
    part.prepare_data()
    part.setup("fit")
    if hasattr(part, "configure_model"):
        part.configure_model()


def _loaders(source: Any) -> tuple[Any, Any]:
    """To train on, and to validate on; None where there is none."""
    if hasattr(source, "callbacks"):
        raise WorkloadError("a Trainer is no data: from_lightning(module, trainer=…)")
    if not hasattr(source, "train_dataloader"):
        return source, None
    if not overridden(source, "train_dataloader", *PACKAGES):
        raise WorkloadError(f"{type(source).__name__} has no train_dataloader: give a datamodule")
    validates = overridden(source, "val_dataloader", *PACKAGES)
    return source.train_dataloader(), source.val_dataloader() if validates else None


def _length(loader: Any, trainer: Any, samples: int | None) -> dict[str, Any]:
    """Of an epoch, where it is not that of the data."""
    limit = getattr(trainer, "limit_train_batches", None)
    if samples is not None:
        return {"samples": samples}
    if isinstance(limit, int) and limit > 0:
        within = not has_length(loader) or limit < len(loader)
        return {"steps_per_epoch": limit} if within else {}
    if isinstance(limit, float) and limit < 1 and has_length(loader):
        return {"steps_per_epoch": max(1, int(limit * len(loader)))}
    if not has_length(loader) and not has_length(getattr(loader, "dataset", loader)):
        raise WorkloadError(
            "the training data has no length: give from_lightning samples=, those of an epoch, or "
            "its Trainer limit_train_batches="
        )
    return {}


def _batches(loader: Any, data: Mapping[str, Any]) -> int | float:
    """Of an epoch."""
    if "steps_per_epoch" in data:
        return int(data["steps_per_epoch"])
    if "samples" in data:
        return max(1, int(data["samples"] // data["batch_size"]))
    return len(loader) if has_length(loader) else float("inf")


def _optimization(module: Any) -> tuple[Any, Any]:
    """The optimizer, and the scheduler that is stepped after every update."""
    found = module.configure_optimizers()
    if found is None:
        name = type(module).__name__
        raise WorkloadError(f"configure_optimizers of {name} returns None: nothing is trained")
    schedulers: Any = []
    pair = isinstance(found, tuple | list) and len(found) == 2
    if pair and all(isinstance(part, list | tuple) for part in found):
        found, schedulers = found
    if isinstance(found, list | tuple):
        if len(found) != 1:
            raise WorkloadError(
                f"configure_optimizers of {type(module).__name__} returns {len(found)} optimizers, "
                "which automatic optimization does not step: write the Workload by hand, with "
                "train_step= and optimizer=[…]"
            )
        found = found[0]
    if isinstance(found, Mapping):
        schedulers = [found["lr_scheduler"]] if found.get("lr_scheduler") else schedulers
        found = found["optimizer"]
    return found, [s for s in map(_each_step, schedulers) if s is not None]


def _each_step(scheduler: Any) -> Any:
    """The scheduler, if it is stepped after every update; otherwise it costs nothing."""
    settings = scheduler if isinstance(scheduler, Mapping) else {"scheduler": scheduler}
    return settings["scheduler"] if settings.get("interval") == "step" else None


def _after_update(module: Any, optimizer: Any) -> Any:
    """The hooks around an update: one before it, hung on the optimizer, and one after it."""
    if overridden(module, "on_before_optimizer_step", *PACKAGES):
        optimizer.register_step_pre_hook(lambda o, *_: module.on_before_optimizer_step(o))
    if overridden(module, "on_before_zero_grad", *PACKAGES):
        return lambda _: module.on_before_zero_grad(optimizer)
    return None


class _Batches:
    """What a module makes of a batch.

    Args:
        module: has the steps.
        source: of the data, whose hooks go before the module's.
    """

    def __init__(self, module: Any, source: Any) -> None:
        self._module = module
        self._hooks = []
        for name in ("on_before_batch_transfer", "on_after_batch_transfer"):
            owners = [part for part in (source, module) if overridden(part, name, *PACKAGES)]
            self._hooks += [getattr(part, name) for part in owners[:1]]
        self._takes_index = {
            name: len(inspect.signature(getattr(module, name)).parameters) > 1
            for name in _BEGINNINGS
        }
        self._not_begun = dict(_BEGINNINGS)

    def loss(self, batch: Any) -> Any:
        """Of a training step."""
        result = self._step("training_step", batch)
        return result.get("loss") if isinstance(result, Mapping) else result

    def validate(self, batch: Any) -> Any:
        """A validation step."""
        return self._step("validation_step", batch)

    def _step(self, name: str, batch: Any) -> Any:
        for beginning in self._not_begun.pop(name, ()):  # now that the module is on its device
            getattr(self._module, beginning)()
        for hook in self._hooks:
            batch = hook(batch, 0)
        step = getattr(self._module, name)
        return step(batch, 0) if self._takes_index[name] else step(batch)


def _evaluation(module: Any, loader: Any, trainer: Any, batches: _Batches) -> dict[str, Any]:
    """The validation, where there is one."""
    limit = getattr(trainer, "limit_val_batches", 1.0)
    if loader is None or not overridden(module, "validation_step", *PACKAGES) or not limit:
        return {}
    if isinstance(loader, list | tuple):
        if not loader:
            return {}
        if len(loader) != 1:
            raise WorkloadError(
                f"val_dataloader returns {len(loader)} loaders, of which one can be taken over: "
                "return one, or write the Workload by hand with eval_data= and eval_step="
            )
        loader = loader[0]
    found = evaluation_of(loader, "val_dataloader") | {"eval_step": batches.validate}
    count = len(loader) if has_length(loader) else float("inf")
    kept = limit if isinstance(limit, int) else count * limit
    if kept < count:
        found["eval_samples"] = max(1, int(kept)) * found["eval_batch_size"]
    return found
