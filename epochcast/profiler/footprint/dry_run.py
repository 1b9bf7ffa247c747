"""The dry run: what a training step asks of a device, counted without a step being computed.

    build the workload under a fake mode ──▶ draw one real batch, make it fake
    │ (or for real, then made fake)                                              for each batch size
    └▶ step once: the optimizer's state appears ──▶ step once more, tracked ──▶ Footprint

The model never has memory, whatever its size. The data set and its collation are the workload's own
and run for real.

It is always the CPU's operators that are traced here. On a CUDA device FLOPs, parameters, gradients
and most activations are the same; attention with dropout and recurrent layers are other kernels
there, which keep other tensors for the backward pass: ``cuda/`` follows those, in a process of its
own. Optimizers take the form that they would take there (``foreach``).
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException

from epochcast.errors import DryRunError, WorkloadError
from epochcast.profiler.footprint.deep_copies import cloning
from epochcast.profiler.footprint.fake_tensors import Building, StandIns, fake_mode, make_fake
from epochcast.profiler.footprint.tracker import track_drawn, track_step, with_evaluation
from epochcast.profiler.learning import idle_optimizer
from epochcast.profiler.loop import (
    TrainingLoop,
    config_of,
    draw_batches_of,
    largest_eval_batch,
)
from epochcast.profiler.protocol import Counted, TrialSpec
from epochcast.profiler.trial import build_afresh, require_full_batch
from epochcast.profiler.updates import (
    PATIENT_STEPS,
    needs_closure,
    optimized,
    until_all_updated,
)
from epochcast.profiler.workload import Workload, first_line
from epochcast.records import Footprint, RunConfig

NEVER_UPDATED = (
    f"in {PATIENT_STEPS} calls or two minutes train_step did not step every optimizer "
    "given as optimizer=; give those that it steps, several in a list, none if it updates by itself"
)
_CPU = torch.device("cpu")
# In errors of torch that come of fake tensors, and would not come of real ones.
_OF_FAKES = (
    "FakeTensor",
    "fake tensor",
    "Meta",
    "meta tensor",
    "data pointer",
    "storage",
    "numpy",
    "not known here",
    "UnknownNumber",
)
_OF_MASKS = ("index", "masked", "nonzero", "where")  # operators that pick by values
_NOT_THE_USERS = (str(Path(torch.__file__).parent), str(Path(__file__).parents[1]))


def dry_runs(
    spec: TrialSpec, batch_sizes: Sequence[int | None], *, timeline: bool = False
) -> tuple[Counted, ...]:
    """Footprints of several batch sizes of one model, which is built once.

    Args:
        spec: of which nothing but the workload and its sizes is used.
        batch_sizes: None is the workload's own.
        timeline: keep every allocation and free.

    Raises:
        DryRunError: the workload cannot be traced.
        WorkloadError: it cannot be built.
    """
    as_on_cuda = spec.workload.device.startswith("cuda")
    counted = simulate(
        partial(build_afresh, spec), batch_sizes, timeline=timeline, as_on_cuda=as_on_cuda
    )
    return tuple(replace(c, config=replace(c.config, sizes=spec.sizes)) for c in counted)


def simulate(
    build: Callable[[], Workload],
    batch_sizes: Sequence[int | None] = (None,),
    *,
    timeline: bool = False,
    as_on_cuda: bool = False,
) -> tuple[Counted, ...]:
    """Footprints of what ``build`` makes. It is called under a fake mode, and once more without
    if it, or its data, needs real values.

    Args:
        build: makes the workload, the same one every time.
        batch_sizes: None is the workload's own.
        timeline: keep every allocation and free.
        as_on_cuda: choose the implementation of the optimizer that torch chooses on CUDA.

    Raises:
        DryRunError: the workload cannot be traced.
        WorkloadError: it cannot be built.
    """
    try:
        return Simulation(build, True, as_on_cuda).count(batch_sizes, timeline)
    except NeedsRealValues:
        return Simulation(build, False, as_on_cuda).count(batch_sizes, timeline)


class NeedsRealValues(Exception):
    """Building the workload or drawing a batch failed under the fake mode."""


class Simulation:
    """A workload of fake tensors that can be stepped with any batch size.

    Args:
        build: makes the workload.
        fake_build: call it under the fake mode.
        as_on_cuda: choose the implementation of the optimizer that torch chooses on CUDA.
    """

    def __init__(self, build: Callable[[], Workload], fake_build: bool, as_on_cuda: bool) -> None:
        self.fake_build = fake_build
        self.mode = fake_mode()
        self.stand_ins = StandIns(self.mode)
        with self.needing_values(), self.building():
            workload = build()
        for optimizer in filter(needs_closure, workload.optimizers):
            name = type(optimizer).__name__
            raise DryRunError(
                f"{name} evaluates the loss as often as its values ask, which a dry run does not "
                "have: measure it, with epochcast probe"
            )
        self.workload = workload
        make_fake(self.workload, self.stand_ins.fake)
        if as_on_cuda:
            _prefer_foreach(workload.optimizers)

    def count(self, batch_sizes: Sequence[int | None], timeline: bool) -> tuple[Counted, ...]:
        """Footprints of one step of each batch size that the data set can fill."""
        configs = [config_of(self.workload, batch_size, ()) for batch_size in batch_sizes]
        samples = self.workload.samples_per_epoch
        filled = [config for config in configs if config.batch_size <= samples]
        return tuple(
            Counted(
                config=config,
                footprint=self._footprint(config, timeline),
                data=self.workload.data_source,
                samples=samples,
            )
            for config in filled or configs
        )

    def _footprint(self, config: RunConfig, timeline: bool) -> Footprint:
        require_full_batch(config, self.workload.samples_per_epoch)
        loop = TrainingLoop(self.workload, replace(config, compiled=False), _CPU)
        with self.needing_values():
            drawn = draw_batches_of(loop, sizes_alone=True)
            evaluated = largest_eval_batch(loop, sizes_alone=True)
        fresh = self.stand_ins.fresh
        with explaining(), eager(), self.stand_ins.on():
            _first_update(loop, map(fresh, repeat(drawn.typical)))

            def track(batch: Any) -> Footprint:
                return track_step(loop, map(fresh, repeat(batch)), timeline=timeline)

            batch = None if evaluated is None else fresh(evaluated)
            return with_evaluation(track_drawn(drawn, track), loop, batch)

    @contextmanager
    def building(self) -> Iterator[None]:
        """Within it, the workload is built: under the fake mode, if it can be."""
        if not self.fake_build:
            yield
            return
        with self.mode, Building(self.mode), cloning():
            yield

    @contextmanager
    def needing_values(self) -> Iterator[None]:
        """Within it, an error is the workload's own only where tensors are real.

        Raises:
            WorkloadError: it is.
        """
        try:
            yield
        except WorkloadError:
            raise
        except Exception as error:
            if self.fake_build:
                raise NeedsRealValues from error
            raise WorkloadError(first_line(error)) from error


def _first_update(loop: TrainingLoop, batches: Iterable[Any]) -> None:
    """One whole step, in which the optimizers' state appears.

    Raises:
        DryRunError: a step of the workload's own leaves an optimizer alone.
        WorkloadError: the optimizer has nothing to update.
    """
    own = loop.workload.train_step
    if own is not None:
        if not until_all_updated(loop.optimizers, batches, own):
            raise DryRunError(NEVER_UPDATED)
        return
    for batch in islice(batches, loop.config.accumulation):
        loop.backward(batch)
    require_gradients(loop)
    loop.update()


def require_gradients(loop: TrainingLoop) -> None:
    """Refuse an optimizer of other parameters than those that were trained.

    Raises:
        WorkloadError: none of its parameters has a gradient.
    """
    if all(p.grad is None for p in optimized(loop.optimizers)):
        others = any(p.grad is not None for p in loop.parameters())
        raise WorkloadError(idle_optimizer(loop, others))


def _prefer_foreach(optimizers: Iterable[torch.optim.Optimizer]) -> None:
    """As ``torch.optim.optimizer._default_to_fused_or_foreach`` does for CUDA parameters."""
    for group in chain.from_iterable(o.param_groups for o in optimizers):
        if group.get("foreach", False) is None and not group.get("fused"):
            group["foreach"] = True


def eager() -> AbstractContextManager[Any]:
    """Within it, what the user compiled runs eagerly. Importing dynamo takes seconds."""
    if "torch._dynamo" not in sys.modules:
        return nullcontext()
    stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance


@contextmanager
def explaining() -> Iterator[None]:
    """Within it, any error becomes one that names the user's line.

    Raises:
        DryRunError: there was one.
    """
    try:
        yield
    except WorkloadError:
        raise
    except Exception as error:
        raise DryRunError(_explained(error)) from error


def _explained(error: Exception) -> str:
    """Whether the step wants values or is wrong, where, and what to do."""
    said = f"{_where(error)}{first_line(error)}"
    if isinstance(error, DynamicOutputShapeException):
        if not any(name in str(error) for name in _OF_MASKS):
            return f"cannot be traced without values: {said}; its size depends on them: probe it"
        return (
            f"cannot be traced without values: {said}; a mask picks as many as its values say: "
            "multiply by it, use torch.where, let it come with the batch, or probe"
        )
    if isinstance(error, DataDependentOutputException):
        return f"cannot be traced without values: {said}; a number decides what is done: probe it"
    own = type(error).__module__ == "builtins" and not any(w in str(error) for w in _OF_FAKES)
    return f"the step fails: {said}" if own else f"cannot be traced without values: {said}"


def _where(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not f.filename.startswith(_NOT_THE_USERS)]
    return f"{Path(own[-1].filename).name}, line {own[-1].lineno}: " if own else ""
