"""A workload: everything about a user's training that decides what it costs.

    def workload(width: int = 512, depth: int = 1) -> Workload:      # keyword arguments are knobs
        model = MLP(width, depth)
        return Workload(
            model=model,
            train_data=MyDataset(),
            optimizer=torch.optim.Adam(model.parameters()),
            loss=torch.nn.functional.cross_entropy,
        )

How the function is found by its name: ``target.py``.

torch is not imported here; the user's code does that.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import TYPE_CHECKING, Any

from epochcast.errors import WorkloadError
from epochcast.profiler.lifting import has_length
from epochcast.records import Precision, Sizes, SizeValue, make_sizes

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from torch.optim.lr_scheduler import LRScheduler
    from torch.utils.data import Dataset

DATA_ARGUMENT = "data"  # receives --data; every other keyword argument is a knob

_COUNTS = (
    "batch_size",
    "accumulation",
    "eval_batch_size",
    "samples",
    "steps_per_epoch",
    "eval_samples",
)

_FUNCTIONS = ("loss", "forward", "train_step", "eval_step", "collate", "after_update")
_NOT_LOADER_OPTIONS = {  # they would be in conflict with an attribute; what to write instead
    "dataset": "train_data=",
    "batch_size": "batch_size= (and batch_from_data=True where the data set makes whole batches)",
    "shuffle": "shuffle=",
    "collate_fn": "collate=",
    "batch_sampler": "batch_from_data=True beside it, or batch_size= and a sampler",
}


@dataclass(kw_only=True)
class Workload:
    """What to train and how. Exactly one of ``loss``, ``forward`` and ``train_step`` says a step.

    Attributes:
        model: moved to the device and put into training mode by the profiler.
        train_data: a data set with a length, which is the number of samples of an epoch. One that
            can only be iterated comes in its own order; without a length it needs ``samples``.
        optimizer: built over the model's parameters; frozen parameters are simply left out. A list
            of several is stepped together after the backward pass, or one by one by a
            ``train_step``, which may also have none and update by itself.
        loss: ``loss(model(inputs), targets)`` for batches that are pairs ``(inputs, targets)``.
        forward: ``forward(model, batch)`` returns the loss, for any other kind of batch.
        train_step: ``train_step(batch)`` does a whole iteration by itself: forward, backward,
            update. Precision, accumulation and compilation are then its own business: a workload
            that has it and asks for them is refused, because nothing would apply them.
        eval_data: evaluated after an epoch; absent means that the run never evaluates.
        eval_step: ``eval_step(batch)`` evaluates one batch; needed only beside ``train_step``,
            otherwise the loss is computed without gradients.
        batch_size: the batch size the user trains with today.
        eval_batch_size: that of evaluation; by default the training batch size, whichever is
            probed.
        samples: of an epoch, where ``train_data`` or its sampler does not say, or says otherwise.
        steps_per_epoch: the same in batches of ``batch_size``, of data or a sampler without an end.
        eval_samples: of an evaluation, where ``eval_data`` has no length.
        batch_from_data: the data sets yield whole batches, of ``batch_size`` samples each, or a
            ``batch_sampler`` of the loader's makes them. No other batch size can then be probed,
            but for one that is a knob.
        collate: the loader's ``collate_fn``.
        loader_options: further arguments of ``torch.utils.data.DataLoader``, e.g. ``num_workers``,
            ``pin_memory``, ``persistent_workers``, ``sampler``, ``drop_last``.
        shuffle: whether the training loader shuffles (ignored when a sampler is given).
        drop_last: whether the training loader drops a last partial batch.
        precision: autocast in ``"bf16"`` or ``"fp16"`` (with a gradient scaler), or ``"fp32"``.
        accumulation: micro-batches per optimizer step.
        compile: run the model under ``torch.compile``; one that is compiled already runs as it is.
        clip_norm: before every update, ``clip_grad_norm_`` of the model's gradients to this norm.
        clip_value: likewise ``clip_grad_value_``.
        scheduler: of the learning rate, or a list, stepped after every update. One that is stepped
            after an epoch costs nothing worth measuring: leave it out.
        after_update: ``after_update(model)`` is called after every update, e.g. to keep an
            exponential moving average of the weights.
        data_source: shown to the user, e.g. ``"synthetic"``.

    Raises:
        WorkloadError: the parts contradict one another, or one has a value that is not possible.
    """

    model: nn.Module
    train_data: Dataset[Any]
    optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer] | None = None
    loss: Callable[[Any, Any], Tensor] | None = None
    forward: Callable[[nn.Module, Any], Tensor] | None = None
    train_step: Callable[[Any], object] | None = None
    eval_data: Dataset[Any] | None = None
    eval_step: Callable[[Any], object] | None = None
    batch_size: int = 32
    eval_batch_size: int | None = None
    samples: int | None = None
    steps_per_epoch: int | None = None
    eval_samples: int | None = None
    batch_from_data: bool = False
    collate: Callable[[list[Any]], Any] | None = None
    loader_options: Mapping[str, Any] = field(default_factory=dict)
    shuffle: bool = True
    drop_last: bool = False
    precision: Precision = "fp32"
    accumulation: int = 1
    compile: bool = False
    clip_norm: float | None = None
    clip_value: float | None = None
    scheduler: LRScheduler | Sequence[LRScheduler] | None = None
    after_update: Callable[[nn.Module], object] | None = None
    data_source: str = "the workload's own"

    @classmethod
    def from_trainer(cls, trainer: Any) -> Workload:
        """What a Trainer of transformers would train, which is not started.

        Model, loss, optimizer, scheduler, clipping, precision, accumulation, loaders and collator
        are taken over; callbacks, logging and metrics are not.

        Args:
            trainer: a ``transformers.Trainer``, or one that derives from it.

        Raises:
            WorkloadError: what it does cannot be taken over; says what.
        """
        from epochcast.profiler.lifting.transformers import taken_from

        return cls(**taken_from(trainer))

    @classmethod
    def from_lightning(
        cls, module: Any, datamodule: Any = None, trainer: Any = None, samples: int | None = None
    ) -> Workload:
        """What Lightning's automatic optimization would train of a module.

        Optimizer, scheduler, steps, loaders and collator are taken over, with a Trainer also
        precision, accumulation, clipping and limits; callbacks and logging are not.

        Args:
            module: a ``LightningModule``.
            datamodule: a ``LightningDataModule``, or the training loader; None takes the module's
                own loaders.
            trainer: the ``lightning.Trainer`` with its settings; it is not started.
            samples: of an epoch, where the data has no length.

        Raises:
            WorkloadError: what it does, as manual optimization, cannot be taken over; says what.
        """
        from epochcast.profiler.lifting.lightning import taken_from

        return cls(**taken_from(module, datamodule, trainer, samples))

    def __post_init__(self) -> None:
        steps = [name for name in ("loss", "forward", "train_step") if getattr(self, name)]
        if len(steps) != 1:
            given = ", ".join(steps) or "none"
            raise WorkloadError(
                f"a Workload needs exactly one of loss, forward and train_step, but got {given}"
            )
        if self.train_step and self.eval_data is not None and self.eval_step is None:
            raise WorkloadError("a Workload with train_step and eval_data also needs eval_step")
        self._check_kinds()
        self._check_own_step()
        self._check_loader_options()
        self._check_optimizers()
        self._check_schedulers()
        self._check_lengths()
        if self.precision not in ("fp32", "bf16", "fp16"):
            raise WorkloadError(f"precision must be fp32, bf16 or fp16, but got {self.precision!r}")
        for name in _COUNTS:
            value = getattr(self, name)
            if value is not None and not isinstance(value, Integral):
                raise WorkloadError(f"{name} must be a whole number, but got {value!r}")
            if value is not None and value < 1:
                raise WorkloadError(f"{name} must be at least 1, but got {value}")
        for name in ("clip_norm", "clip_value"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise WorkloadError(f"{name} must be above 0, but got {value}")

    def _check_kinds(self) -> None:
        """Each part is what it is said to be; otherwise a step would fail in the middle."""
        if not hasattr(self.model, "state_dict") or isinstance(self.model, type):
            raise WorkloadError(
                f"model must be a torch.nn.Module, several in an nn.ModuleList, but got "
                f"{_kind_of(self.model)}"
            )
        if isinstance(self.loss, type):
            name = self.loss.__name__
            raise WorkloadError(
                f"loss must be a function, but got the class {name}: write {name}()"
            )
        for name in _FUNCTIONS:
            value = getattr(self, name)
            if value is not None and not callable(value):
                raise WorkloadError(f"{name} must be a function, but got {_kind_of(value)}")
        if hasattr(self.after_update, "update_parameters"):
            raise WorkloadError(
                f"after_update is called with the model, which {_kind_of(self.after_update)} would "
                "take for a batch: give its method, after_update=average.update_parameters"
            )

    def _check_own_step(self) -> None:
        """What a train_step would have to do by itself cannot be asked for beside it."""
        plain = {"precision": "fp32", "accumulation": 1, "compile": False}
        plain |= dict.fromkeys(("clip_norm", "clip_value", "scheduler", "after_update"))
        changed = [name for name, value in plain.items() if getattr(self, name) != value]
        if self.train_step and changed:
            name = changed[0]
            value = getattr(self, name)
            written = repr(value) if isinstance(value, SizeValue) else "…"
            raise WorkloadError(
                f"{name}={written} would not be applied: train_step does the whole "
                f"step by itself; do it there, with a knob if it should vary, and leave {name} out"
            )

    @property
    def optimizers(self) -> tuple[torch.optim.Optimizer, ...]:
        """Those given, however many."""
        return _as_tuple(self.optimizer)

    @property
    def schedulers(self) -> tuple[LRScheduler, ...]:
        """Those given, however many."""
        return _as_tuple(self.scheduler)

    def _check_optimizers(self) -> None:
        """Every one is one; a step that is not the workload's own needs one."""
        if not self.optimizers and self.train_step is None:
            raise WorkloadError(
                "a Workload needs an optimizer= over the model's parameters, or several in a list; "
                "only a train_step= may update by itself"
            )
        for optimizer in self.optimizers:
            if not hasattr(optimizer, "param_groups"):
                raise WorkloadError(
                    "optimizer must be a torch.optim.Optimizer, or a list of them, but got "
                    f"{_kind_of(optimizer)}"
                )

    def _check_schedulers(self) -> None:
        """Each can be stepped after an update, with nothing to say."""
        for scheduler in self.schedulers:
            if not hasattr(scheduler, "state_dict"):
                raise WorkloadError(
                    "scheduler must be of torch.optim.lr_scheduler, or a list of them, but got "
                    f"{_kind_of(scheduler)}"
                )
            if "metrics" in inspect.signature(type(scheduler).step).parameters:
                raise WorkloadError(
                    f"{type(scheduler).__name__} is stepped with a metric after an evaluation, "
                    "which costs nothing worth measuring: leave scheduler= out"
                )

    def _check_loader_options(self) -> None:
        for name, instead in _NOT_LOADER_OPTIONS.items():
            if name in self.loader_options and not (
                name == "batch_sampler" and self.batch_from_data
            ):
                raise WorkloadError(
                    f"{name!r} in loader_options is in the way of what is probed; "
                    f"give the Workload {instead} instead"
                )

    def _check_lengths(self) -> None:
        """How many samples an epoch and an evaluation have is known, and once."""
        if self.samples and self.steps_per_epoch:
            raise WorkloadError("samples= and steps_per_epoch= say the same: give one of them")
        if self.train_data is None:
            raise WorkloadError("train_data must be a data set, but got None")
        _check_data("train_data", self.train_data)
        _check_data("eval_data", self.eval_data)
        given = self.samples or self.steps_per_epoch
        source = self._drawn_from
        if not given and not has_length(source):
            what = type(source).__name__
            raise WorkloadError(
                f"train_data needs a length, the number of its samples, but {what} has none: give "
                "samples=, those of an epoch, or steps_per_epoch=, its batches"
            )
        if self.eval_data is not None and not self.eval_samples and not has_length(self.eval_data):
            raise WorkloadError(
                f"eval_data needs a length, but got {type(self.eval_data).__name__} without "
                "__len__: give eval_samples="
            )

    @property
    def has_compiled_parts(self) -> bool:
        """Whether the model, or a part of it, was compiled by whoever built it."""
        return any(
            "_orig_mod" in part._modules or part._compiled_call_impl is not None
            for part in self.model.modules()
        )

    @property
    def _drawn_from(self) -> Any:
        """What says how long an epoch is: a sampler, or the data."""
        options = self.loader_options
        return options.get("batch_sampler") or options.get("sampler") or self.train_data

    @property
    def samples_per_epoch(self) -> int:
        """Samples that one pass over the training loader draws."""
        if self.samples:
            return self.samples
        if self.steps_per_epoch:
            return self.steps_per_epoch * self.batch_size
        length = len(self._drawn_from)
        return length * self.batch_size if self.batch_from_data else length

    @property
    def samples_per_evaluation(self) -> int:
        """Samples of the evaluation data; 0 without any."""
        if self.eval_data is None:
            return 0
        if self.eval_samples:
            return self.eval_samples
        length = len(self.eval_data)  # type: ignore[arg-type]
        return length * self.batch_size if self.makes_eval_batches else length

    @property
    def makes_eval_batches(self) -> bool:
        """Whether the evaluation data yields whole batches."""
        return self.batch_from_data and "batch_sampler" not in self.loader_options


def _as_tuple(given: Any) -> tuple[Any, ...]:
    """What was given as one or as several."""
    if given is None:
        return ()
    return tuple(given) if isinstance(given, list | tuple) else (given,)


def _kind_of(value: object) -> str:
    """What a value is, in an error."""
    if value is None:
        return "None"
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__


def _check_data(name: str, data: object) -> None:
    """A data set, and no loader: batches of other sizes are to be made of it.

    Raises:
        WorkloadError: it is something else.
    """
    if data is None:
        return
    if hasattr(data, "dataset") and hasattr(data, "batch_size"):
        raise WorkloadError(
            f"{name} must be a data set, but got a {type(data).__name__}, whose batch size cannot "
            f"be varied; give {name}=loader.dataset, its batch_size= and collate=, and its other "
            "arguments in loader_options="
        )
    if isinstance(data, Mapping) and data and all(isinstance(key, str) for key in data):
        one = next(iter(data))
        raise WorkloadError(
            f"{name} must be one data set, but got a {type(data).__name__} of "
            f"{', '.join(data)}: give one of them, as in {name}=data[{one!r}]"
        )
    if isinstance(data, str) or (
        not hasattr(data, "__getitem__") and not hasattr(data, "__iter__")
    ):
        raise WorkloadError(
            f"{name} must be a data set, with __getitem__ and __len__ or with __iter__, "
            f"but got {type(data).__name__}"
        )


WorkloadFunction = Callable[..., Workload]


def knobs_of(function: WorkloadFunction) -> tuple[Sizes, bool]:
    """The model-size knobs of a workload function with their defaults, and whether it takes data.

    Raises:
        WorkloadError: an argument has no default, or a default that is not int, float, str or bool.
    """
    knobs: dict[str, Any] = {}
    takes_data = False
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if name == DATA_ARGUMENT:
            takes_data = True
        elif not isinstance(parameter.default, SizeValue):
            raise WorkloadError(
                f"argument {name!r} of the workload needs a default that is a number, "
                "a text or a bool: defaults are the values that --set changes"
            )
        else:
            knobs[name] = parameter.default
    return make_sizes(knobs), takes_data


def first_line(error: BaseException) -> str:
    """``"ValueError: what it says"``, on one line.

    An error of a data-loader worker carries its whole traceback as text, the point of it last.
    """
    lines = str(error).strip().splitlines()
    if lines and lines[0].startswith("Caught ") and "DataLoader" in lines[0]:
        return lines[-1].strip()
    return f"{type(error).__name__}: {lines[0].strip()}" if lines else type(error).__name__
