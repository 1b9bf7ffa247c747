"""The user's training loop: loaders, one micro-step, the optimizer's update.

    batch ──▶ to device ──▶ autocast(loss) / k ──▶ backward ──▶ every k-th: optimizer update

This is the loop that every measurement is a measurement of, so it does what a careful plain
PyTorch loop does and nothing else.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sized
from contextlib import AbstractContextManager, nullcontext
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

from epochcast.errors import WorkloadError
from epochcast.profiler.device import Clock
from epochcast.profiler.workload import Workload
from epochcast.records import RunConfig

_WORKER_OPTIONS = (
    "num_workers", "pin_memory", "persistent_workers", "prefetch_factor", "timeout",
    "worker_init_fn", "multiprocessing_context", "pin_memory_device",
)  # fmt: skip
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class TrainingLoop:
    """Steps a workload in one configuration on one device.

    Args:
        workload: its model is moved to the device.
        config: must be a configuration of this workload.
        device: ready for use.

    Attributes:
        splits_update: whether a step's update can be told from its forward and backward.

    Raises:
        WorkloadError: the optimizer cannot be stepped in this precision.
    """

    def __init__(self, workload: Workload, config: RunConfig, device: torch.device) -> None:
        self.workload = workload
        self.config = config
        self.device = device
        if not _is_on(workload.model, device):  # fake parameters in an optimizer cannot be moved
            workload.model.to(device)
        workload.model.train()
        self.model: nn.Module = (
            torch.compile(workload.model) if config.compiled else workload.model  # type: ignore[assignment]
        )
        self.optimizer = workload.optimizer
        self._scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
        self._micro_steps = 0
        self._needs_closure = needs_closure(self.optimizer)
        self._batches: list[Any] = []  # whose loss the optimizer will ask for
        self.splits_update = workload.train_step is None and not self._needs_closure
        if self._needs_closure and self._scaler.is_enabled():
            raise WorkloadError(
                f"{type(self.optimizer).__name__} evaluates the loss itself, which the gradient "
                "scaler of fp16 does not support; use bf16 or fp32"
            )

    def micro_step(self, batch: Any, clock: Clock) -> tuple[Any, Any] | None:
        """Train on one batch; the moments before and after the update, if one was due.

        An optimizer that evaluates the loss itself (LBFGS) does so in its update, for all batches
        since the last one; then there are no moments that part it from the rest.
        """
        batch = self.transfer(batch)
        if self.workload.train_step is not None:
            self.workload.train_step(batch)
            return None
        if self._needs_closure:
            self._batches.append(batch)
        else:
            self.backward(batch)
        self._micro_steps += 1
        if self._micro_steps % self.config.accumulation:
            return None
        start = clock.mark()
        self.update()
        return (start, clock.mark()) if self.splits_update else None

    def backward(self, batch: Any) -> Tensor:
        """Forward and backward of one batch that is on the device; its share of the loss."""
        loss = self.scaled_loss(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def scaled_loss(self, batch: Any) -> Tensor:
        """Forward: the loss of which the gradients are accumulated."""
        with self.autocast():
            loss = self.loss(batch)
        if self.config.accumulation > 1:
            loss = loss / self.config.accumulation
        return self._scaler.scale(loss)

    def update(self) -> None:
        """One optimizer step; gradients are freed, as ``zero_grad`` does by default."""
        if self._needs_closure:
            self.optimizer.step(self._evaluated)
            self._batches.clear()
        else:
            self._scaler.step(self.optimizer)
            self._scaler.update()
        self.optimizer.zero_grad(set_to_none=True)

    @torch.enable_grad()
    def _evaluated(self) -> Any:
        """The loss of the batches since the last update, and its gradient, computed afresh."""
        self.optimizer.zero_grad(set_to_none=True)
        return sum((self.backward(batch) for batch in self._batches), torch.zeros(()))

    def loss(self, batch: Any) -> Tensor:
        """The loss of one batch, a scalar tensor."""
        if self.workload.forward is not None:
            return self.workload.forward(self.model, batch)
        if self.workload.loss is None:
            raise WorkloadError("a workload with a train_step of its own has no separate loss")
        try:
            inputs, targets = batch
        except (TypeError, ValueError) as error:
            raise WorkloadError(
                f"a Workload with loss= needs batches (inputs, targets), but got "
                f"{type(batch).__name__}; use forward= for other batches"
            ) from error
        return self.workload.loss(self.model(inputs), targets)

    def transfer(self, batch: Any) -> Any:
        """The batch on the device; without waiting where its memory is pinned."""
        pinned = bool(self.workload.loader_options.get("pin_memory"))
        return move(batch, self.device, non_blocking=pinned)

    def autocast(self) -> AbstractContextManager[Any]:
        """The autocast context of this configuration's precision."""
        if self.config.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=_DTYPES[self.config.precision])

    def train_loader(self, *, in_process: bool = False) -> DataLoader[Any]:
        """Full batches only: the last partial batch is the cost model's business.

        Args:
            in_process: without worker processes and pinned memory, for a few batches.
        """
        options = dict(self.workload.loader_options)
        if in_process:
            options = {k: v for k, v in options.items() if k not in _WORKER_OPTIONS}
        if "sampler" not in options:
            options["shuffle"] = self.workload.shuffle
        return self._loader(self.workload.train_data, {**options, "drop_last": True})

    def eval_loader(self) -> DataLoader[Any] | None:
        """The evaluation data in order, all of it; None if the workload has none."""
        if self.workload.eval_data is None:
            return None
        options = dict(self.workload.loader_options)
        for of_training in ("sampler", "drop_last"):
            options.pop(of_training, None)
        return self._loader(self.workload.eval_data, options)

    def _loader(self, data: Dataset[Any], options: dict[str, Any]) -> DataLoader[Any]:
        return DataLoader(
            data, batch_size=self.config.batch_size, collate_fn=self.workload.collate, **options
        )

    def partial_batch(self) -> Any | None:
        """A batch of the size of an epoch's last one; None if that is a full one or dropped."""
        rest = samples_per_epoch(self.workload) % self.config.batch_size
        if self.config.drop_last or not rest:
            return None
        return self._first_samples(self.workload.train_data, rest)

    def eval_batches_of_each_size(self) -> list[Any]:
        """A full batch of the evaluation data, and one of the size of its partial batch."""
        data = self.workload.eval_data
        if data is None:
            return []
        full, rest = divmod(len(data), self.config.batch_size)  # type: ignore[arg-type]
        sizes = ([self.config.batch_size] if full else []) + ([rest] if rest else [])
        return [self._first_samples(data, size) for size in sizes]

    def _first_samples(self, data: Dataset[Any], count: int) -> Any:
        of = len(data)  # type: ignore[arg-type]
        first = Subset(data, [i % of for i in range(count)])  # a sampler may draw some twice
        return next(iter(DataLoader(first, batch_size=count, collate_fn=self.workload.collate)))

    def evaluate(self, batch: Any) -> None:
        """One evaluation step: forward only, without gradients."""
        with torch.no_grad(), self.autocast():
            batch = self.transfer(batch)
            if self.workload.eval_step is not None:
                self.workload.eval_step(batch)
            else:
                self.loss(batch)


def move(batch: Any, device: torch.device, non_blocking: bool = False) -> Any:
    """A batch of nested tuples, lists, mappings and tensors with every tensor on the device."""
    if hasattr(batch, "to"):
        return batch.to(device, non_blocking=non_blocking)
    if isinstance(batch, Mapping):
        return {key: move(value, device, non_blocking) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(move(value, device, non_blocking) for value in batch))
    if isinstance(batch, tuple | list):
        return type(batch)(move(value, device, non_blocking) for value in batch)
    return batch


def needs_closure(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the optimizer's step must be given a function that evaluates the loss."""
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    return closure is not None and closure.default is closure.empty


def _is_on(model: nn.Module, device: torch.device) -> bool:
    return all(t.device == device for t in chain(model.parameters(), model.buffers()))


def samples_per_epoch(workload: Workload) -> int:
    """Samples that one pass over the training loader draws."""
    source: Sized = workload.loader_options.get("sampler") or workload.train_data  # type: ignore[assignment]
    return len(source)


def config_of(workload: Workload, batch_size: int | None, sizes: Any) -> RunConfig:
    """The configuration in which a built workload will run."""
    return RunConfig(
        batch_size=batch_size or workload.batch_size,
        sizes=sizes,
        accumulation=workload.accumulation,
        precision=workload.precision,
        compiled=workload.compile,
        workers=int(workload.loader_options.get("num_workers", 0)),
        drop_last=workload.drop_last or bool(workload.loader_options.get("drop_last")),
    )
