"""Whether a training trains: seen in its first steps and after its last, never in timed ones.

    parameters ──── bits and versions before │ after        changed?
    gradients ───── a hook on each leaf                     computed?
    optimizers ──── a hook on every step                    stepped, and on which parameters?
    losses ──────── first three │ last three                finite, and of one size?

An optimizer step at a learning rate of zero changes no bits, but versions; a step that a gradient
scaler skips was preceded by gradients; a model without trainable parameters needs none. So each
alarm is raised by what is missing from several of these, after as many steps as it takes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils._pytree import tree_leaves

from epochcast.errors import WorkloadError
from epochcast.profiler.batches import tensors_in
from epochcast.profiler.device import DeviceTimer
from epochcast.profiler.loop import TrainingLoop
from epochcast.profiler.timing import Stepper
from epochcast.profiler.updates import PATIENT_SECONDS, PATIENT_STEPS, optimized
from epochcast.records import Warning_

COMPARED = 3  # losses at each end: one batch may be an odd one
COMPARING_SECONDS = 5.0  # slow steps are compared by fewer losses
EXPLODED = 10.0  # times the loss at the start: random labels cost no more than guessing

_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def train_first_steps(
    loop: TrainingLoop, batches: Iterator[Any], timer: DeviceTimer
) -> tuple[Warning_, ...]:
    """Step a loop until it is seen to train; what is doubtful about it.

    Args:
        loop: that has not been stepped.
        batches: endless.
        timer: of the loop's device.

    Raises:
        WorkloadError: it trains nothing; says why, and what to do.
    """
    with watched(loop) as seen:
        begun, steps = time.perf_counter(), 0
        while not steps or not seen.trains:
            loop.micro_step(next(batches), timer)
            steps += 1
            if steps >= _most(loop) or time.perf_counter() - begun > PATIENT_SECONDS:
                break
        return tuple(seen.verdict(steps))


def _most(loop: TrainingLoop) -> int:
    """Micro-steps after which it must have been seen to train."""
    if loop.workload.train_step is not None:
        return PATIENT_STEPS
    return 1 if loop.splits_update else loop.config.accumulation


@dataclass
class Seen:
    """What was seen of some steps of a loop.

    Attributes:
        losses: of each micro-step, as far as there was one.
        has_graph: whether what the last step returned could still be differentiated.
        gradients: parameters that got one.
        steps, empty_steps: of optimizers; of those, the ones of which no parameter had a gradient.
        before: marks of the parameters by their id.
    """

    loop: TrainingLoop
    losses: list[Any] = field(default_factory=list)
    has_graph: bool = False
    gradients: set[int] = field(default_factory=set)
    steps: int = 0
    empty_steps: int = 0
    before: dict[int, tuple[int, int]] = field(default_factory=dict)

    def hear(self, result: Any) -> None:
        """Note the loss of a step, and whether it could still be differentiated."""
        tensors = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        self.has_graph = any(t.grad_fn is not None for t in tensors)
        self.losses += losses_in(result)

    @property
    def changed(self) -> bool:
        """Whether any parameter is another than it was."""
        return any(_mark(p) != self.before.get(id(p)) for p in parameters_of(self.loop))

    @property
    def trains(self) -> bool:
        """Whether what is to be updated has gradients, or was updated, even without any."""
        if self.loop.workload.train_step is None:
            return any(id(p) in self.gradients for p in optimized(self.loop.optimizers))
        return self.steps > self.empty_steps or self.changed

    def verdict(self, steps: int) -> Iterator[Warning_]:
        """What is doubtful after so many micro-steps.

        Raises:
            WorkloadError: nothing was trained.
        """
        own = self.loop.workload.train_step is not None
        if not self.trains and any(p.requires_grad for p in parameters_of(self.loop)):
            yield from self._idle_step(steps) if own else self._idle_optimizer()
        losses = [float(loss) for loss in self.losses]
        if not all(map(math.isfinite, losses)):
            yield Warning_.of("loss-not-finite", when="in the first steps")

    def _idle_optimizer(self) -> Iterator[Warning_]:
        """No parameter of the optimizer got a gradient."""
        raise WorkloadError(idle_optimizer(self.loop, bool(self.gradients)))
        yield

    def _idle_step(self, steps: int) -> Iterator[Warning_]:
        """A step of the workload's own after which all is as it was."""
        if not self.gradients and self.has_graph:
            raise WorkloadError(
                "train_step returned a loss and never called backward, so nothing was trained; "
                "give the Workload forward=lambda model, batch: the loss instead, or call "
                "loss.backward(), optimizer.step() and optimizer.zero_grad() in train_step"
            )
        if self.empty_steps:
            raise WorkloadError(
                "train_step made optimizer steps, but none of the parameters of that optimizer "
                "had a gradient; build it over the parameters of the model that is trained"
            )
        if self.gradients:
            yield Warning_.of("never-updated", steps=str(steps))
        else:
            yield Warning_.of("nothing-trained", steps=str(steps))


def idle_optimizer(loop: TrainingLoop, others: bool) -> str:
    """What is said where no parameter of the optimizer got a gradient.

    Args:
        others: whether other parameters got some.
    """
    name = " and ".join(type(o).__name__ for o in loop.optimizers)
    model = type(loop.workload.model).__name__
    got = "the model's parameters got gradients" if others else "nothing got any"
    return (
        f"none of the parameters of {name} got a gradient, so nothing is trained ({got}); "
        f"build the optimizer over the parameters of the {model} given as model="
    )


@contextmanager
def watched(loop: TrainingLoop) -> Iterator[Seen]:
    """Within it, what the steps of a loop do is seen."""
    seen = Seen(loop)
    parameters = parameters_of(loop)
    seen.before = {id(p): _mark(p) for p in parameters}
    handles: list[Any] = [
        p.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
            lambda leaf: seen.gradients.add(id(leaf))
        )
        for p in parameters
        if p.requires_grad and p.is_leaf
    ]

    def stepped(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        seen.steps += 1
        seen.empty_steps += all(p.grad is None for p in optimized([optimizer]))

    handles.append(register_optimizer_step_pre_hook(stepped))
    try:
        with heard(loop, seen.hear):
            yield seen
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def heard(loop: TrainingLoop, hear: Callable[[Any], None]) -> Iterator[None]:
    """Within it, a function is told the loss of each step, or what the workload's own returned."""
    loop.hear = hear
    try:
        yield
    finally:
        loop.hear = None


def losses_in(result: Any) -> list[Any]:
    """The loss among what a step returned, as one scalar; none where there is none."""
    scalars = [x.detach() if isinstance(x, Tensor) else x for x in tree_leaves(result)]
    return [x for x in scalars if _is_scalar(x)][:1]


def _is_scalar(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.numel() == 1 and value.is_floating_point()
    return isinstance(value, float)


def parameters_of(loop: TrainingLoop) -> list[nn.Parameter | Tensor]:
    """Of the model and of the optimizers, each once; those of subclasses keep their bits apart."""
    return [p for p in loop.parameters() if type(p) in (nn.Parameter, Tensor)]


def _mark(tensor: Tensor) -> tuple[int, int]:
    """Changes with any write to a tensor: the sum of its bits, and the count of its writes."""
    flat = tensor.detach()
    if flat.layout != torch.strided or flat.is_quantized or not flat.numel():
        return tensor._version, 0
    flat = torch.view_as_real(flat) if flat.is_complex() else flat
    bits = flat.contiguous().view(_BITS[flat.element_size()])
    return tensor._version, int(bits.sum(dtype=torch.int64))


# -- beside the timed steps -----------------------------------------------------------------------


class Losses:
    """Those of the first micro-steps, to be compared with those after the timed ones."""

    def __init__(self) -> None:
        self.first: list[Any] = []

    def hear(self, result: Any) -> None:
        """Note the loss of a step, as long as there are few."""
        if len(self.first) < COMPARED:
            self.first += losses_in(result)

    def after(self, stepper: Stepper) -> tuple[Warning_, ...]:
        """What is doubtful about a training that was timed; makes a few more steps."""
        last: list[Any] = []
        begun, loop = time.perf_counter(), stepper.loop
        with heard(loop, lambda result: last.extend(losses_in(result))):
            while len(last) < COMPARED:
                stepper.step()
                late = not last or time.perf_counter() - begun > COMPARING_SECONDS
                if loop.ranks.all_reduce_max([int(late)])[0]:
                    break
        if loop.workload.train_step is None:
            loop.zero_grad()  # of an accumulation that is not finished
        found = what_became([*map(float, self.first)], [*map(float, last)])
        if not found and not are_finite(parameters_of(loop)):
            found = (Warning_.of("loss-not-finite", when="after the timed steps"),)
        if loop.workload.train_step is None:
            return found  # its own losses, such as a critic's, may grow as they please
        return tuple(w for w in found if w.code != "loss-explodes")


def what_became(first: Sequence[float], last: Sequence[float]) -> tuple[Warning_, ...]:
    """What is doubtful about losses at the start and after the timed steps."""
    if not all(map(math.isfinite, (*first, *last))):
        at_once = not all(map(math.isfinite, first))
        when = "in the first steps" if at_once else "after the timed steps"
        return (Warning_.of("loss-not-finite", when=when),)
    if not first or not last:
        return ()
    start, end = median(first), median(last)
    if start > 0 and end > EXPLODED * start:
        return (Warning_.of("loss-explodes", first=f"{start:.3g}", last=f"{end:.3g}"),)
    return ()


def are_alike(loop: TrainingLoop) -> bool:
    """Whether all ranks have the same weights, as they must where gradients are averaged."""
    bits = sum(_mark(p)[1] for p in parameters_of(loop)) % (1 << 62)
    most, least = loop.ranks.all_reduce_max([bits, -bits])
    return most == -least


# -- what a batch holds ----------------------------------------------------------------------------


def whole_batches(loop: TrainingLoop) -> tuple[Warning_, ...]:
    """That the data set seems to yield whole batches, of which the batch size counts several.

    All tensors of two batches begin with the same dimension, a multiple of the batch size; none has
    the batch size in its second one, as sequences with their time first have.
    """
    asked = loop.config.batch_size
    if loop.workload.batch_from_data:
        return ()
    with torch.random.fork_rng(devices=()):
        batches = list(islice(iter(loop.train_loader(in_process=True)), 2))
    shapes = [tensor.shape for tensor in tensors_in(batches)]
    rows = {shape[0] for shape in shapes if shape}
    tables = [shape for shape in shapes if len(shape) > 1]
    if len(rows) != 1 or not tables or any(shape[1] == asked for shape in tables):
        return ()
    seen = rows.pop()
    if seen <= asked or seen % asked:
        return ()
    return (Warning_.of("whole-batches", asked=f"{asked:,}", seen=f"{seen:,}"),)


def are_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether no number of any of them is infinite or none."""
    dense = (t for t in tensors if t.is_floating_point() and t.layout == torch.strided)
    return all(bool(torch.isfinite(t).all()) for t in dense)
