"""The user's training loop: loaders, one micro-step, the optimizer's update.

    batch ──▶ to device ──▶ autocast(loss) / k ──▶ backward ──▶ every k-th: update

    update    clip ──▶ optimizer ──▶ scheduler ──▶ zero_grad ──▶ what the workload does after it

This is the loop that every measurement is a measurement of, so it does what a careful plain
PyTorch loop does and nothing else.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from itertools import chain, cycle, islice, repeat
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from epochcast.errors import WorkloadError
from epochcast.profiler.batches import Drawn, Passes, draw_batches, elements, move
from epochcast.profiler.device import DeviceTimer
from epochcast.profiler.ranks import Alone, Ranks
from epochcast.profiler.sharing import averaging, sampler_of, shared
from epochcast.profiler.updates import around_updates, needs_closure, optimized
from epochcast.profiler.workload import Workload, first_line
from epochcast.records import RunConfig, Sharding, Sizes

_TORCH = str(Path(torch.__file__).parent)
_WORKER_OPTIONS = (
    "num_workers",
    "pin_memory",
    "persistent_workers",
    "prefetch_factor",
    "timeout",
    "worker_init_fn",
    "multiprocessing_context",
    "pin_memory_device",
)
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class TrainingLoop:
    """Steps a workload in one configuration on one device.

    Args:
        workload: its model is moved to the device.
        config: must be a configuration of this workload.
        device: ready for use.
        ranks: that train together, of which this process is one; None is a plain training.

    Attributes:
        splits_update: whether a step's update can be told from its forward and backward.
        hear: is told the loss of each micro-step, or what the workload's own step returned; None
            while steps are timed.

    Raises:
        WorkloadError: the optimizer cannot be stepped in this precision.
    """

    def __init__(
        self,
        workload: Workload,
        config: RunConfig,
        device: torch.device,
        ranks: Ranks | None = None,
    ) -> None:
        self.workload = workload
        self.config = config
        self.device = device
        self.ranks: Ranks = ranks or Alone()
        self._shared = workload.model
        if ranks is not None:
            self._shared = shared(workload, device, config.sharding)
        elif not _is_on(workload.model, device):  # fake ones in an optimizer cannot be moved
            workload.model.to(device)
        workload.model.train()
        self.model: nn.Module = (
            torch.compile(self._shared)  # type: ignore[assignment]
            if config.compiled and workload.compile
            else self._shared
        )
        self.optimizers = workload.optimizers
        self._scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
        self._micro_steps = 0
        self._schedules = [deepcopy(s.state_dict()) for s in workload.schedulers]
        self._needs_closure = any(map(needs_closure, self.optimizers))
        self._batches: list[Any] = []  # whose loss the optimizer will ask for
        self.splits_update = not self._needs_closure
        self.hear: Callable[[Any], None] | None = None
        if self._needs_closure and workload.train_step is None:
            self._check_closure()

    def _check_closure(self) -> None:
        """What cannot be done beside an optimizer that evaluates the loss."""
        name = next(type(o).__name__ for o in self.optimizers if needs_closure(o))
        does = f"{name} evaluates the loss itself"
        if len(self.optimizers) > 1:
            raise WorkloadError(f"{does}, so it must be the only optimizer, or be in a train_step=")
        if self.workload.clip_norm or self.workload.clip_value:
            raise WorkloadError(
                f"{does}, as often as it likes: its gradients cannot be clipped before its step"
            )
        if self._scaler.is_enabled():
            raise WorkloadError(
                f"{does}, which the gradient scaler of fp16 does not support; use bf16 or fp32"
            )

    @property
    def samples(self) -> int:
        """Of an epoch, that this process draws."""
        return -(-self.workload.samples_per_epoch // self.ranks.size)

    def parameters(self) -> list[Tensor]:
        """Of the model and of the optimizers, each once."""
        both = chain(self.workload.model.parameters(), optimized(self.optimizers))
        return list({id(p): p for p in both}.values())

    def micro_step(self, batch: Any, timer: DeviceTimer) -> list[tuple[Any, Any]]:
        """Train on one batch; the moments before and after each update that was made.

        An optimizer that evaluates the loss itself (LBFGS) does so in its update, for all batches
        since the last one; then there are no moments that part it from the rest.
        """
        batch = self.transfer(batch)
        if self.workload.train_step is not None:
            return self._own_step(batch, timer)
        if self._needs_closure:
            self._batches.append(batch)
        else:
            last = (self._micro_steps + 1) % self.config.accumulation == 0
            with averaging(self._shared, last):
                self.backward(batch)
        self._micro_steps += 1
        if self._micro_steps % self.config.accumulation:
            return []
        start = timer.mark()
        self.update()
        return [(start, timer.mark())] if self.splits_update else []

    def _own_step(self, batch: Any, timer: DeviceTimer) -> list[tuple[Any, Any]]:
        starts: list[Any] = []
        ends: list[Any] = []
        with around_updates(
            self.optimizers,
            before=lambda _: starts.append(timer.mark()),
            after=lambda _: ends.append(timer.mark()),
        ):
            result = self.workload.train_step(batch)  # type: ignore[misc]
        if self.hear is not None:
            self.hear(result)
        return list(zip(starts, ends, strict=True))

    def backward(self, batch: Any) -> Tensor:
        """Forward and backward of one batch that is on the device; its share of the loss.

        Raises:
            WorkloadError: there is nothing to differentiate.
        """
        loss = self.scaled_loss(batch)
        if not loss.requires_grad:
            raise WorkloadError(
                "the loss depends on no parameter that is trained, so nothing would be: it was "
                "detached, computed under no_grad or from .item(), or every parameter is frozen"
            )
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def scaled_loss(self, batch: Any) -> Tensor:
        """Forward: the loss of which the gradients are accumulated.

        Raises:
            WorkloadError: what was returned is no loss.
        """
        with self.autocast():
            loss = self.loss(batch)
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            got = type(loss).__name__
            advice = ""
            if isinstance(loss, Tensor):
                got = f"a tensor of shape {tuple(loss.shape)}"
                advice = "; take its .mean()"
            elif isinstance(loss, Mapping) and "loss" in loss:
                advice = "; return its ['loss']"
            elif isinstance(loss, tuple | list | Mapping):
                advice = "; return the loss alone"
            elif hasattr(type(loss), "__float__"):
                got, advice = "a number", "; leave out .item() or float()"
            raise WorkloadError(
                f"{'loss' if self.workload.loss else 'forward'} must return the loss as a tensor "
                f"of one number, still attached to its graph, but returned {got}{advice}"
            )
        if self.hear is not None:
            self.hear(loss)
        if self.config.accumulation > 1:
            loss = loss / self.config.accumulation
        return self._scaler.scale(loss)

    def update(self) -> None:
        """One optimizer step; gradients are freed, as ``zero_grad`` does by default."""
        if self._needs_closure:
            self.optimizers[0].step(self._evaluated)
            self._batches.clear()
        else:
            self._clip()
            for optimizer in self.optimizers:
                self._scaler.step(optimizer)
            self._scaler.update()
        self._step_schedulers()
        self.zero_grad()
        if self.workload.after_update is not None:
            self.workload.after_update(self.workload.model)

    def zero_grad(self) -> None:
        """Free the gradients of every optimizer's parameters."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    def _clip(self) -> None:
        norm, value = self.workload.clip_norm, self.workload.clip_value
        if norm is None and value is None:
            return
        for optimizer in self.optimizers:
            self._scaler.unscale_(optimizer)
        parameters = [p for p in self.workload.model.parameters() if p.requires_grad]
        if norm is not None:
            nn.utils.clip_grad_norm_(parameters, norm)
        if value is not None:
            nn.utils.clip_grad_value_(parameters, value)

    def _step_schedulers(self) -> None:
        """A schedule that is over begins again: there may be more steps here than it was made for.

        Raises:
            ValueError: of a scheduler, at its first step.
        """
        for scheduler, beginning in zip(self.workload.schedulers, self._schedules, strict=True):
            try:
                scheduler.step()
            except ValueError:  # OneCycleLR, after its total_steps
                scheduler.load_state_dict(deepcopy(beginning))
                scheduler.step()

    @torch.enable_grad()
    def _evaluated(self) -> Any:
        """The loss of the batches since the last update, and its gradient, computed afresh."""
        self.zero_grad()
        return sum((self.backward(batch) for batch in self._batches), torch.zeros(()))

    def loss(self, batch: Any) -> Tensor:
        """The loss of one batch, a scalar tensor.

        Raises:
            WorkloadError: the workload has no separate loss, or its batches are not pairs.
        """
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
        outputs = self.model(inputs)
        try:
            return self.workload.loss(outputs, targets)
        except (TypeError, AttributeError) as error:
            if isinstance(outputs, Tensor):
                raise
            got = type(outputs).__name__
            calls = traceback.extract_tb(error.__traceback__)[1:]
            of_loss = [call for call in calls if not call.filename.startswith(_TORCH)]
            if of_loss:  # it may be a mistake of another kind
                place = f"{Path(of_loss[-1].filename).name}, line {of_loss[-1].lineno}"
                raise WorkloadError(
                    f"loss= fails at {place} ({first_line(error)}); it was given {got}: if the "
                    "loss is of a part of that, give forward=lambda model, batch: … instead"
                ) from error
            raise WorkloadError(
                f"the model returns {got}, of which loss= makes nothing "
                f"({first_line(error)}): give forward=lambda model, batch: … instead, which takes "
                "from it what the loss is of"
            ) from error

    def transfer(self, batch: Any) -> Any:
        """The batch on the device; without waiting where its memory is pinned."""
        pinned = bool(self.workload.loader_options.get("pin_memory"))
        return move(batch, self.device, non_blocking=pinned)

    def autocast(self) -> AbstractContextManager[Any]:
        """The autocast context of this configuration's precision."""
        if self.config.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=_DTYPES[self.config.precision])

    def train_loader(self, *, in_process: bool = False) -> Passes:
        """Full batches only: the last partial batch is the cost model's business.

        Args:
            in_process: without worker processes and pinned memory, for a few batches.
        """
        work, options = self.workload, dict(self.workload.loader_options)
        if in_process:
            options = {k: v for k, v in options.items() if k not in _WORKER_OPTIONS}
        if not {"sampler", "batch_sampler"} & set(options) and not isinstance(
            work.train_data, IterableDataset
        ):
            if self.ranks.size > 1:
                options["sampler"] = sampler_of(work.train_data, self.ranks, work.shuffle)
            else:
                options["shuffle"] = work.shuffle
        batch_size, samples = self.config.batch_size, self.samples
        if work.batch_from_data:
            options.pop("drop_last", None)
            loader = self._loader(work.train_data, None, options)
        else:
            loader = self._loader(work.train_data, batch_size, {**options, "drop_last": True})
        return Passes(loader, samples, samples // batch_size)

    def eval_loader(self, *, in_process: bool = False) -> Passes | None:
        """The evaluation data in order, all of it; None if the workload has none.

        Args:
            in_process: without worker processes and pinned memory, for a few batches.
        """
        work = self.workload
        if work.eval_data is None:
            return None
        options = dict(work.loader_options)
        for name in ("sampler", "batch_sampler", "drop_last"):
            options.pop(name, None)
        for name in _WORKER_OPTIONS if in_process else ():
            options.pop(name, None)
        at_once = self.config.evaluated_at_once
        loader = self._loader(work.eval_data, None if work.makes_eval_batches else at_once, options)
        samples = work.samples_per_evaluation
        return Passes(loader, samples, -(-samples // at_once))

    def _loader(
        self, data: Dataset[Any], batch_size: int | None, options: dict[str, Any]
    ) -> DataLoader[Any]:
        if "batch_sampler" in options:  # which a loader wants to be told nothing else beside
            return DataLoader(data, collate_fn=self.workload.collate, **options)
        return DataLoader(data, batch_size=batch_size, collate_fn=self.workload.collate, **options)

    def partial_batch(self) -> Any | None:
        """A batch of the size of an epoch's last one; None if that is a full one or dropped."""
        rest = self.samples % self.config.batch_size
        if self.config.drop_last or not rest or self.workload.batch_from_data:
            return None
        return self._first_samples(self.workload.train_data, rest)

    def eval_batches_of_each_size(self) -> list[Any]:
        """A full batch of the evaluation data, and one of the size of its partial batch."""
        data = self.workload.eval_data
        if data is None:
            return []
        if self.workload.makes_eval_batches:
            return [next(iter(self.eval_loader(in_process=True) or ()))]
        at_once = self.config.evaluated_at_once
        full, rest = divmod(self.workload.samples_per_evaluation, at_once)
        sizes = ([at_once] if full else []) + ([rest] if rest else [])
        return [self._first_samples(data, size) for size in sizes]

    def _first_samples(self, data: Dataset[Any], count: int) -> Any:
        again = _each_of(data)  # a sampler may draw some twice
        return (self.workload.collate or default_collate)(list(islice(again, count)))

    def evaluate(self, batch: Any) -> None:
        """One evaluation step: forward only, without gradients."""
        with torch.no_grad(), self.autocast():
            batch = self.transfer(batch)
            if self.workload.eval_step is not None:
                self.workload.eval_step(batch)
            else:
                self.loss(batch)


def _each_of(data: Dataset[Any]) -> Iterator[Any]:
    """The samples in order, again and again."""
    if isinstance(data, IterableDataset):
        return chain.from_iterable(repeat(data))
    return (data[i] for i in cycle(range(len(data))))  # type: ignore[arg-type]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within it, a model is in evaluation mode."""
    model.eval()
    try:
        yield
    finally:
        model.train()


def _is_on(model: nn.Module, device: torch.device) -> bool:
    return all(t.device == device for t in chain(model.parameters(), model.buffers()))


def config_of(
    workload: Workload,
    batch_size: int | None,
    sizes: Sizes,
    world_size: int = 1,
    sharding: Sharding = "ddp",
) -> RunConfig:
    """The configuration in which a built workload will run.

    Args:
        workload: built for these sizes.
        batch_size: None is the workload's own.
        sizes: its model-size knobs.
        world_size: devices that train it together.
        sharding: what they share.

    Raises:
        WorkloadError: another batch size than that of the batches which the data makes.
    """
    if workload.batch_from_data and batch_size not in (None, workload.batch_size):
        raise WorkloadError(
            f"the data makes its batches itself, of batch_size={workload.batch_size} samples, so "
            f"none of {batch_size} can be probed: leave the batch size out, or make it a knob of "
            "the workload function"
        )
    return RunConfig(
        batch_size=batch_size or workload.batch_size,
        sizes=sizes,
        accumulation=workload.accumulation,
        precision=workload.precision,
        compiled=workload.compile or workload.has_compiled_parts,
        workers=int(workload.loader_options.get("num_workers", 0)),
        world_size=world_size,
        sharding=sharding,
        drop_last=workload.drop_last or bool(workload.loader_options.get("drop_last")),
        eval_batch_size=workload.eval_batch_size,
    )


# -- batches that stand for an epoch ---------------------------------------------------------------


def draw_batches_of(loop: TrainingLoop, *, sizes_alone: bool = False) -> Drawn:
    """Draw a loop's batches in this process, the same whenever this is asked.

    Args:
        loop: of one configuration.
        sizes_alone: what the samples are does not matter; a large batch is then made of few.
    """
    return _drawn(loop.train_loader(in_process=True), loop.config.batch_size, sizes_alone)


def largest_eval_batch(loop: TrainingLoop, *, sizes_alone: bool = False) -> Any | None:
    """The largest of the first evaluation batches; None where nothing is evaluated.

    Args:
        loop: of one configuration.
        sizes_alone: as for ``draw_batches_of``.
    """
    loader = loop.eval_loader(in_process=True)
    if loader is None:
        return None
    return _drawn(loader, loop.config.evaluated_at_once, sizes_alone).largest


def _drawn(passes: Passes, batch_size: int, sizes_alone: bool) -> Drawn:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        filled = passes.filled() if sizes_alone else None
        if filled is None:
            return draw_batches(iter(passes), batch_size)
        return Drawn(filled, filled, elements(filled))
