"""Counts the operators of a training step and the tensors alive during it.

A dispatch mode sees every operator that reaches a kernel, after autograd and autocast; where torch
calls others because of the mode, they are turned back (branches.py). Each new
storage is counted when an operator returns it and forgotten when it is freed, so the sum of live
storages and its peak are exact for all tensors that operators make:

    live bytes    ▁▂▃▅▇█▇▅▃▂▁│▂▄▂        "step": forward and backward, "update": the optimizer
                  forward backward update

The same function tracks a real step (``measure_footprint``) and one of fake tensors (dry_run.py).
"""

from __future__ import annotations

import gc
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from itertools import chain, islice, repeat
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from epochcast.profiler.batches import (
    Drawn,
    copied,
    draw_batches,
    elements,
    tensors_in,
)
from epochcast.profiler.footprint import branches
from epochcast.profiler.footprint.allocations import (
    Allocations,
    ModuleScopes,
    Phase,
    dense_parts,
    operands,
)
from epochcast.profiler.footprint.flops import alignment, class_of, flops_of, is_uncounted
from epochcast.profiler.loop import (
    TrainingLoop,
    draw_batches_of,
    evaluating,
    largest_eval_batch,
)
from epochcast.profiler.updates import around_updates, until_all_updated
from epochcast.records import Footprint
from epochcast.records.footprint import BlockKind

_QUESTIONS = ("profiler", "prim")  # of a tensor's device; the beginning and end of a label


class OperatorTracker(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operators, FLOPs, bytes moved and live tensor bytes on one type of device.

    Args:
        device_type: whose storages are counted.
        module_of: names the module at work.

    Attributes:
        memory: the storages alive and their history.
        operators: dispatched operators by phase, views excluded.
        flops: by phase and class of operator.
        flops_by_module: of forward and backward, where modules are named.
        aligned_flops: by phase, as kernels work through them.
        bytes_moved: read and written by operators, by phase.
        uncounted: names of matrix-like operators without a formula.
        on_operator: called before each operator, if set.
    """

    def __init__(self, device_type: str, module_of: Callable[[], str] = str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.on_operator: Callable[[], None] | None = None
        branches.references()  # cannot be found out while a mode is at work
        self.memory = Allocations(device_type)
        self.operators: Counter[Phase] = Counter()
        self.flops: Counter[tuple[Phase, str]] = Counter()
        self.flops_by_module: Counter[str] = Counter()
        self.aligned_flops: Counter[Phase] = Counter()
        self.bytes_moved: Counter[Phase] = Counter()
        self.uncounted: Counter[str] = Counter()
        self._module_of = module_of

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.namespace in _QUESTIONS:
            return func(*args, **kwargs)
        if self.on_operator is not None:
            self.on_operator()
        called, func = func, branches.real_branch(func, args, kwargs)
        out = func(*args, **kwargs)
        if func is not called:
            out = branches.as_result(out)
        arguments, results = [*operands(args), *operands((*kwargs.values(),))], [*operands(out)]
        self.memory.refresh(arguments)
        phase = self.memory.phase
        kind: BlockKind = "activation" if phase == "forward" else "other"
        self.memory.watch(results, kind, str(func), self._module_of())
        if func.namespace != "prims" and not _is_view(func):
            self.operators[phase] += 1
            self.bytes_moved[phase] += sum(_nbytes(t) for t in chain(arguments, results))
            self._count_flops(func, args, kwargs, out)
        return out

    def _count_flops(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        flops = flops_of(func, args, kwargs, out)
        if flops is not None:
            phase = self.memory.phase
            self.flops[phase, class_of(func)] += flops
            self.flops_by_module[self._module_of()] += 0 if phase == "update" else flops
            self.aligned_flops[phase] += round(flops * alignment(func, args))
        elif is_uncounted(func):
            self.uncounted[str(func)] += 1


def measure_footprint(loop: TrainingLoop, batches: Iterable[Any] | None = None) -> Footprint | None:
    """The footprint of one optimizer step, run for real; None if its optimizers never update.

    Must run after at least one update, when the optimizer's state exists. A batch is copied for
    each step, which may take out of it or free what it likes.

    Args:
        loop: a loop that has made an update.
        batches: by default the loop's own, those that a dry run draws too.
    """
    drawn = (
        draw_batches_of(loop)
        if batches is None
        else draw_batches(iter(batches), loop.config.batch_size)
    )
    own = loop.workload.train_step
    if own is not None and not until_all_updated(
        loop.optimizers, (loop.transfer(copied(batch)) for batch in repeat(drawn.typical)), own
    ):
        return None
    found = track_drawn(drawn, lambda batch: track_step(loop, map(copied, repeat(batch))))
    return with_evaluation(found, loop, largest_eval_batch(loop))


def with_evaluation(footprint: Footprint, loop: TrainingLoop, batch: Any | None) -> Footprint:
    """The same with the peak of evaluating a batch; unknown where that cannot be done.

    Args:
        footprint: of a training step of the loop.
        loop: whose model evaluates.
        batch: the largest of the evaluation data; None where there is none.
    """
    if batch is None:
        return footprint
    try:
        return replace(footprint, eval_peak_bytes=track_evaluation(loop, batch))
    except Exception:  # noqa: BLE001 - of the user's evaluation; the training step is known
        traceback.print_exc()  # into the worker's log
        return replace(footprint, unknown=(*footprint.unknown, "eval_peak_bytes"))


def track_evaluation(loop: TrainingLoop, batch: Any) -> int:
    """Evaluate one batch: the largest sum of live tensors, with all that is always there."""
    loop.zero_grad()
    tracker, model = OperatorTracker(loop.device.type), loop.workload.model
    memory = tracker.memory
    with no_garbage_collection(), evaluating(model):
        memory.watch(chain(loop.parameters(), model.buffers()), "parameter")
        memory.watch(optimizer_tensors(loop.optimizers), "optimizer")
        batch = loop.transfer(batch)
        memory.watch(tensors_in(batch), "input")
        with tracker:
            loop.evaluate(batch)
    return memory.peak_bytes["forward"]


def track_drawn(drawn: Drawn, track: Callable[[Any], Footprint]) -> Footprint:
    """The footprint of a typical batch, with the peak of the largest one."""
    typical = track(drawn.typical)
    if not drawn.varies:
        return typical
    largest = track(drawn.largest)
    return replace(
        typical,
        batch_elements=round(drawn.mean_elements),
        step_peak_bytes=max(typical.step_peak_bytes, largest.step_peak_bytes),
        reserve_bytes=max(typical.reserve_bytes, largest.reserve_bytes),
    )


def track_step(loop: TrainingLoop, batches: Iterable[Any], *, timeline: bool = False) -> Footprint:
    """Run one optimizer step and count it: for a step of the workload's own, as many calls as it
    takes until each of its optimizers was stepped.

    FLOPs, bytes and operators of forward and backward are means over the micro-steps of the
    accumulation. Each batch lives until the next one is drawn, the last one through the update.

    Args:
        loop: a loop that has made an update.
        batches: at least as many as the loop accumulates.
        timeline: keep every allocation and free.
    """
    tracked = _TrackedStep if loop.workload.train_step is None else _TrackedOwnStep
    scopes = ModuleScopes(loop.workload.model)
    with no_garbage_collection(), scopes.on() if timeline else nullcontext():
        step = tracked(loop, scopes.current if timeline else str)
        step.run(batches)
    return step.footprint(timeline)


class _TrackedStep:
    """One optimizer step of a loop while it is counted."""

    def __init__(self, loop: TrainingLoop, module_of: Callable[[], str]) -> None:
        self._forget_unfinished(loop)
        self.loop = loop
        self.tracker = OperatorTracker(loop.device.type, module_of)
        self.memory = self.tracker.memory
        model = loop.workload.model
        self.parameters = loop.parameters()
        self.parameter_bytes = self._watch_static(self.parameters, "parameter")
        self._watch_static(model.buffers(), "buffer")
        self.optimizer_bytes = self._watch_static(optimizer_tensors(loop.optimizers), "optimizer")
        self.static_bytes = self.memory.live_bytes
        self.forward_ends: list[int] = []
        self.activation_bytes: list[int] = []
        self.batch_elements: list[int] = []
        self.step_end = self.gradient_bytes = 0
        self.calls = 1  # over which the updates are spread

    def _forget_unfinished(self, loop: TrainingLoop) -> None:
        """Gradients that an accumulation has left."""
        loop.zero_grad()

    def run(self, batches: Iterable[Any]) -> None:
        """Forward and backward of each batch, then the update."""
        for batch in islice(batches, self.loop.config.accumulation):
            batch = self.loop.transfer(batch)
            self.micro_step(batch)
        self.update()

    def _watch_static(self, tensors: Iterable[Tensor], kind: BlockKind) -> int:
        before = self.memory.live_bytes
        self.memory.watch(tensors, kind)
        return self.memory.live_bytes - before

    def micro_step(self, batch: Any) -> None:
        self.memory.watch(tensors_in(batch), "input")
        self.batch_elements.append(elements(batch))
        self.memory.enter("forward")
        before = self.memory.live_bytes
        with self.tracker:
            loss = self.loop.scaled_loss(batch)
            self.activation_bytes.append(self.memory.live_bytes - before)
            self.forward_ends.append(len(self.memory.events))
            self.memory.enter("backward")
            loss.backward()  # type: ignore[no-untyped-call]

    def update(self) -> None:
        self.note_gradients()
        self.step_end = len(self.memory.events)
        self.memory.enter("update")
        with self.tracker:
            self.loop.update()

    def note_gradients(self) -> None:
        """What the backward pass has made of each parameter's gradient."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        self.memory.watch(gradients, "gradient")
        self.gradient_bytes = max(self.gradient_bytes, self.memory.relabel(gradients, "gradient"))

    def footprint(self, timeline: bool) -> Footprint:
        tracker, memory, micro_steps = self.tracker, self.memory, len(self.batch_elements)
        operators, moved, peaks = tracker.operators, tracker.bytes_moved, memory.peak_bytes
        aligned = tracker.aligned_flops
        flops: Counter[str] = Counter()
        for (phase, kind), count in tracker.flops.items():
            flops[kind] += 0 if phase == "update" else count
        by_class = {kind: count // micro_steps for kind, count in sorted(flops.items())}
        by_module = sorted(tracker.flops_by_module.items()) if timeline else []
        return Footprint(
            flops=sum(by_class.values()),
            flops_by_class=tuple(by_class.items()),
            flops_by_module=tuple((name, count // micro_steps) for name, count in by_module),
            aligned_flops=(aligned["forward"] + aligned["backward"]) // micro_steps,
            bytes_moved=(moved["forward"] + moved["backward"]) // micro_steps,
            operators=(operators["forward"] + operators["backward"]) // micro_steps,
            forward_operators=operators["forward"] // micro_steps,
            update_operators=operators["update"] // self.calls,
            parameters=sum(p.numel() for p in self.parameters),
            trainable_parameters=sum(p.numel() for p in self.parameters if p.requires_grad),
            parameter_bytes=self.parameter_bytes,
            gradient_bytes=self.gradient_bytes,
            optimizer_bytes=self.optimizer_bytes,
            activation_bytes=self.activation_bytes[0],
            static_bytes=self.static_bytes,
            step_peak_bytes=max(peaks["forward"], peaks["backward"]),
            update_peak_bytes=peaks["update"],
            reserve_bytes=memory.reserve_bytes(),
            batch_elements=sum(self.batch_elements) // micro_steps,
            uncounted_operators=tuple(sorted(tracker.uncounted.items())),
            timeline=memory.timeline(self.forward_ends[0], self.step_end) if timeline else None,
        )


class _TrackedOwnStep(_TrackedStep):
    """A step of the workload's own while it is counted, in as many calls as it takes."""

    def __init__(self, loop: TrainingLoop, module_of: Callable[[], str]) -> None:
        super().__init__(loop, module_of)
        self.tracker.on_operator = self._follow
        self._updating = False

    def _forget_unfinished(self, loop: TrainingLoop) -> None:
        """Nothing: whether gradients of the call before are kept is its own business."""

    def run(self, batches: Iterable[Any]) -> None:
        self.note_gradients()
        self.memory.enter("forward")
        with around_updates(self.loop.optimizers, self._begin_update, self._end_update):
            until_all_updated(self.loop.optimizers, batches, self._call)
        if not self.forward_ends:  # no backward pass
            self._end_forward()
        self.calls = len(self.batch_elements)
        self._take_peaks()

    def _call(self, batch: Any) -> None:
        batch = self.loop.transfer(batch)
        self.memory.watch(tensors_in(batch), "input")
        self.batch_elements.append(elements(batch))
        with self.tracker:
            self.loop.workload.train_step(batch)  # type: ignore[misc]
        if not self.loop.optimizers:
            self.step_end = len(self.memory.events)

    def _begin_update(self, _: object) -> None:
        self.note_gradients()
        self.step_end = len(self.memory.events)
        self.memory.enter("update")
        self._updating = True

    def _end_update(self, _: object) -> None:
        self._updating = False
        self.memory.enter("forward")

    def _follow(self) -> None:
        """Whether autograd is at work; the forward pass ends where it begins."""
        if self._updating:
            return
        phase: Phase = "forward" if torch._C._current_graph_task_id() < 0 else "backward"
        if phase == self.memory.phase:
            return
        if phase == "backward":
            self._end_forward()
        self.memory.enter(phase)

    def _end_forward(self) -> None:
        self.forward_ends.append(len(self.memory.events))
        self.activation_bytes.append(self.memory.alive_bytes("activation"))

    def _take_peaks(self) -> None:
        """Of all before the last update, and from it on."""
        self.activation_bytes = [max(self.activation_bytes)]
        live = self.memory.timeline(0, self.step_end).live_bytes()
        self.memory.peak_bytes.clear()
        self.memory.peak_bytes["forward"] = max(live[: self.step_end], default=0)
        self.memory.peak_bytes["update"] = max(live[max(0, self.step_end - 1) :], default=0)


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Within it, memory does not depend on when Python happens to look for cycles."""
    enabled = gc.isenabled()
    gc.collect(1)  # a whole one looks through all that torch has imported, for 0.2 s
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def optimizer_tensors(optimizers: Iterable[torch.optim.Optimizer]) -> list[Tensor]:
    """What optimizers keep from step to step."""
    return [leaf for o in optimizers for state in o.state.values() for leaf in tensors_in(state)]


def _nbytes(tensor: Tensor) -> int:
    return sum(part.numel() * part.element_size() for part in dense_parts(tensor))


def _is_view(func: Any) -> bool:
    returns = func._schema.returns
    return bool(returns) and all(
        r.alias_info is not None and not r.alias_info.is_write for r in returns
    )
