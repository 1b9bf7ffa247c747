"""Updates by their optimizers: who makes them, when, and of what."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from typing import Any

import torch
from torch import Tensor

PATIENT_STEPS = 64  # a step of its own may accumulate for so long before it updates
PATIENT_SECONDS = 20.0  # that steps may take to show something
UPDATE_SECONDS = 120.0  # until an own step updates: a dry run on a machine that others use, too


def optimized(optimizers: Iterable[torch.optim.Optimizer]) -> list[Tensor]:
    """The parameters of optimizers."""
    return [p for o in optimizers for group in o.param_groups for p in group["params"]]


def needs_closure(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the optimizer's step must be given a function that evaluates the loss."""
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    return closure is not None and closure.default is closure.empty


def hooks_around(
    before: Callable[[torch.optim.Optimizer], object],
    after: Callable[[torch.optim.Optimizer], object],
) -> tuple[Callable[..., Any], Callable[..., None]]:
    """Hooks before and after an optimizer's step that call two functions around the update in it.

    A step that is given a closure evaluates the loss first; its update begins when it has, and is
    in two parts where it evaluates once more (sharpness-aware minimisation). One that must be given
    one (LBFGS) is more than an update, and neither is called.

    Args:
        before: called with the optimizer that is about to change its parameters.
        after: called with it when it has.
    """
    evaluating: set[int] = set()
    updating: set[int] = set()

    def begin(optimizer: torch.optim.Optimizer) -> None:
        evaluating.discard(id(optimizer))
        if id(optimizer) not in updating:  # else a step within its step: super().step()
            updating.add(id(optimizer))
            before(optimizer)

    def end(optimizer: torch.optim.Optimizer) -> None:
        if id(optimizer) in updating:
            updating.remove(id(optimizer))
            after(optimizer)

    def step_begins(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> Any:
        if needs_closure(optimizer):
            return None
        named = "closure" in kwargs
        closure = kwargs.get("closure") if named else args[1] if len(args) > 1 else None
        if not callable(closure):
            begin(optimizer)
            return None
        evaluating.add(id(optimizer))

        def evaluated() -> Any:
            end(optimizer)
            loss = closure()
            begin(optimizer)
            return loss

        if named:
            return args, {**kwargs, "closure": evaluated}
        return (args[0], evaluated, *args[2:]), kwargs

    def step_ends(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if needs_closure(optimizer):
            return
        if id(optimizer) in evaluating:  # it has not asked
            begin(optimizer)
        end(optimizer)

    return step_begins, step_ends


@contextmanager
def around_updates(
    optimizers: Iterable[torch.optim.Optimizer],
    before: Callable[[torch.optim.Optimizer], object],
    after: Callable[[torch.optim.Optimizer], object],
) -> Iterator[None]:
    """Within it, two functions are called around each update of some optimizers.

    Args:
        optimizers: those that are no optimizer of torch's are left alone.
        before, after: as of ``hooks_around``.
    """
    step_begins, step_ends = hooks_around(before, after)
    of_torch = [o for o in optimizers if isinstance(o, torch.optim.Optimizer)]
    with ExitStack() as stack:
        for optimizer in of_torch:
            stack.callback(optimizer.register_step_pre_hook(step_begins).remove)
            stack.callback(optimizer.register_step_post_hook(step_ends).remove)
        yield


def until_all_updated(
    optimizers: Sequence[torch.optim.Optimizer],
    batches: Iterable[Any],
    step: Callable[[Any], object],
) -> bool:
    """Make steps of a workload's own until each of its optimizers was stepped; whether it was.

    Args:
        optimizers: of the workload.
        batches: endless.
        step: makes a step of a batch.
    """
    waiting = {id(optimizer) for optimizer in optimizers}
    begun = time.perf_counter()
    with around_updates(optimizers, before=lambda _: None, after=lambda o: waiting.discard(id(o))):
        for batch in islice(batches, PATIENT_STEPS):
            step(batch)
            if not waiting or time.perf_counter() - begun > UPDATE_SECONDS:
                break
    return not waiting
