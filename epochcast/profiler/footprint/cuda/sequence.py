"""Two whole optimizer steps of a workload on a device that is not there, as a sequence of blocks.

    build, moved to the device │ batch forward backward │ update │ the same again │ evaluation
    └ fake tensors throughout    └ once for each micro-step

This process does nothing else: ``fake_device`` cannot be undone, and an error inside autograd ends
it. Where the device cannot be claimed, the CPU's operators are followed, with those replaced that
are known to keep other tensors on CUDA (attention, dropout, recurrent layers).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from itertools import repeat
from typing import Any

import torch

from epochcast.errors import DryRunError
from epochcast.profiler.batches import Drawn, tensors_in
from epochcast.profiler.footprint.allocations import ModuleScopes
from epochcast.profiler.footprint.cuda import attention, fake_device, kernels, recurrent
from epochcast.profiler.footprint.cuda.watcher import CudaWatcher
from epochcast.profiler.footprint.dry_run import (
    NEVER_UPDATED,
    NeedsRealValues,
    Simulation,
    eager,
    explaining,
    require_gradients,
)
from epochcast.profiler.footprint.tracker import no_garbage_collection, optimizer_tensors
from epochcast.profiler.loop import (
    TrainingLoop,
    config_of,
    draw_batches_of,
    evaluating,
    largest_eval_batch,
)
from epochcast.profiler.protocol import TrialSpec
from epochcast.profiler.trial import build_afresh, require_full_batch
from epochcast.profiler.updates import around_updates, until_all_updated
from epochcast.profiler.workload import Workload, first_line
from epochcast.records import DeviceSequence, DeviceSpec, Moment, RunConfig, UnknownBytes
from epochcast.records.device_memory import SequenceSource
from epochcast.records.footprint import BlockKind

STEPS = 2
_BENCHMARK = (  # Conv_v8.cpp, generate_and_filter_plans; benchmarks/results/h200, cnn-benchmark
    "torch.backends.cudnn.benchmark is on: for each new shape cuDNN tries algorithms in up to all "
    "free memory for a moment (an H200 took 1.4 GiB for a convolution of 49 MiB). Those for which "
    "there is too little are left out, so it is not needed and not in these numbers; peaks show it"
)
_WIDENED = 0.1  # of the peak: what a trace of the CPU's operators may be wrong by either way
_KINDS: dict[Moment, BlockKind] = {
    "build": "parameter",
    "batch": "input",
    "forward": "activation",
    "backward": "other",
    "update": "other",
    "evaluate": "activation",
}


def sequences(
    spec: TrialSpec,
    batch_sizes: Sequence[int | None],
    device: DeviceSpec,
    source: SequenceSource = "device",
) -> tuple[DeviceSequence, ...]:
    """Allocations of two steps of each batch size, the model built afresh for each.

    Args:
        spec: of which the workload and its sizes are used.
        batch_sizes: None is the workload's own. Those that the data set cannot fill are left out,
            where there is a smaller one.
        device: whose kernels are followed.
        source: ``"cpu"`` follows the CPU's operators and lets rules translate them.

    Raises:
        NoFakeDevice: this build of torch cannot claim a device.
        DryRunError: the workload cannot be traced.
        WorkloadError: it cannot be built.
    """
    build, made = partial(build_afresh, spec), dict[int | None, DeviceSequence]()
    for batch_size in sorted({*batch_sizes}, key=lambda asked: asked or 0):
        if all((batch_size or 0) <= known.samples for known in made.values()):
            found = sequence(build, batch_size, device, source)
            assert found.config is not None, "it was followed"
            made[batch_size] = replace(found, config=replace(found.config, sizes=spec.sizes))
    return tuple(made[batch_size] for batch_size in batch_sizes if batch_size in made)


def sequence(
    build: Callable[[], Workload],
    batch_size: int | None,
    device: DeviceSpec,
    source: SequenceSource = "device",
) -> DeviceSequence:
    """Allocations of two steps of what ``build`` makes, under a fake mode if it can be.

    Args:
        build: makes the workload, the same one every time.
        batch_size: None is the workload's own.
        device: whose kernels are followed.
        source: as of ``sequences``.

    Raises:
        NoFakeDevice: this build of torch cannot claim a device.
        DryRunError: the workload cannot be traced.
        WorkloadError: it cannot be built.
    """
    claim(device, source)
    try:
        return _Followed(build, True, device, source).steps(batch_size)
    except NeedsRealValues:
        return _Followed(build, False, device, source).steps(batch_size)


def claim(device: DeviceSpec, source: SequenceSource = "device") -> None:
    """Let this process follow a device from now on.

    Raises:
        NoFakeDevice: this build of torch cannot.
    """
    if source == "device":
        fake_device.install(device)
    else:
        fake_device.current[:] = [device]
    key = "CUDA" if source == "device" else "CPU"
    kernels.install(key)
    attention.install(f"Autograd{key}")
    recurrent.install(f"Autograd{key}")


class _Followed(Simulation):
    """A workload whose allocations on a device are written down from its first on."""

    def __init__(
        self,
        build: Callable[[], Workload],
        fake_build: bool,
        device: DeviceSpec,
        source: SequenceSource,
    ) -> None:
        self._device, self._source = device, source
        self._place = torch.device("cuda", 0) if source == "device" else torch.device("cpu")
        self._watcher: CudaWatcher | None = None
        self._remarks: list[str] = []
        self._scopes: ModuleScopes | None = None
        super().__init__(build, fake_build, as_on_cuda=source == "cpu")

    @property
    def watcher(self) -> CudaWatcher:
        """Of this workload; its fake mode must exist."""
        if self._watcher is None:
            self._watcher = CudaWatcher(self._device, self.mode, self._module, self._place.type)
            self._begin("build", 0)
        return self._watcher

    @contextmanager
    def building(self) -> Iterator[None]:
        """What is made on the device as the workload is built is written down, too.

        Not where the CPU stands for it: data and all else would be taken for the device's.
        """
        watched = self.fake_build and self._source == "device"
        with super().building(), self.watcher if watched else nullcontext():
            yield

    def steps(self, batch_size: int | None) -> DeviceSequence:
        """The sequence of two steps and an evaluation.

        Args:
            batch_size: None is the workload's own.
        """
        config = config_of(self.workload, batch_size, ())
        require_full_batch(config, self.workload.samples_per_epoch)
        if config.compiled:
            self._remarks.append(
                "torch.compile is asked for: its code fuses operators and plans its memory, so it "
                "allocates otherwise; the operators were followed one by one"
            )
        scopes = ModuleScopes(self.workload.model)
        with no_garbage_collection(), scopes.on(), explaining(), eager():
            loop = self._on_device(config)
            with self.needing_values():
                drawn = draw_batches_of(loop, sizes_alone=True)
                evaluated = largest_eval_batch(loop, sizes_alone=True)
            self._note(drawn)
            self._scopes = scopes
            with self.stand_ins.on(), self.watcher:
                for step in range(1, STEPS + 1):
                    self._step(loop, drawn.largest, step)
                if evaluated is not None:
                    self._evaluate(loop, evaluated)
                if torch.backends.cudnn.benchmark:
                    self._remarks.append(_BENCHMARK)
                made = self._made(config)
        return made if self._source == "device" else _widened(made)

    def _made(self, config: RunConfig) -> DeviceSequence:
        """All that was written down; FLOPs are those of a micro-step of the last step."""
        blocks, uncounted = self.watcher.blocks, self.watcher.uncounted
        if uncounted:
            names = ", ".join(f"{name} ({times} ×)" for name, times in sorted(uncounted.items()))
            self._remarks.append(f"FLOPs of operators without a formula are not counted: {names}")
        micro_steps = sum(m.moment == "batch" and m.step == STEPS for m in blocks.marks)
        return replace(
            blocks.sequence(self._device, source=self._source, remarks=tuple(self._remarks)),
            flops_by_module=tuple((n, f // micro_steps) for n, f in self.watcher.flops.items()),
            config=config,
            samples=self.workload.samples_per_epoch,
        )

    def _module(self) -> str | None:
        return None if self._scopes is None else self._scopes.current()

    def _begin(self, moment: Moment, step: int) -> None:
        self.watcher.blocks.mark(moment, step)
        self.watcher.kind = _KINDS[moment]
        self.watcher.counts = step == STEPS and moment in ("forward", "backward")

    def _on_device(self, config: RunConfig) -> TrainingLoop:
        """The loop, with its model moved; parameters and buffers get their names."""
        model, blocks = self.workload.model, self.watcher.blocks
        with self.stand_ins.on(), self.watcher:
            loop = TrainingLoop(self.workload, replace(config, compiled=False), self._place)
            blocks.watch(loop.parameters(), "parameter")
            blocks.watch(model.buffers(), "buffer")
            blocks.relabel(model.buffers(), "buffer")
        for path, module in model.named_modules():
            own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
            blocks.name(own, path or type(model).__name__)
        return loop

    def _note(self, drawn: Drawn) -> None:
        if drawn.varies:
            self._remarks.append(
                "batches differ in size: the largest of those that were drawn was followed, twice"
            )

    def _step(self, loop: TrainingLoop, batch: Any, step: int) -> None:
        """As ``TrainingLoop.micro_step`` does it: a batch lives until the step's end.

        Raises:
            WorkloadError: the optimizer has nothing to update.
        """
        if loop.workload.train_step is not None:
            self._own_step(loop, batch, step)
            return
        blocks, parameters = self.watcher.blocks, loop.parameters()
        for micro_step in range(loop.config.accumulation):
            self._begin("batch", step)
            given = loop.transfer(self.stand_ins.fresh(batch))
            blocks.watch(tensors_in(given), "input")
            self._begin("forward", step)
            loss = loop.scaled_loss(given)
            self._begin("backward", step)
            loss.backward()  # type: ignore[no-untyped-call]
            del loss
            blocks.relabel([p.grad for p in parameters if p.grad is not None], "gradient")
            if micro_step == loop.config.accumulation - 1:
                require_gradients(loop)
                self._begin("update", step)
                first = blocks.next_block
                loop.update()
                blocks.relabel(self._states(loop), "optimizer")
                blocks.relabel_kept(first)
            del given

    def _own_step(self, loop: TrainingLoop, batch: Any, step: int) -> None:
        """Calls of the workload's own step until each optimizer was stepped; what comes before and
        between updates, backward passes too, goes by the name of "forward"."""
        blocks, parameters = self.watcher.blocks, loop.parameters()
        first = blocks.next_block

        def begin_update(_: object) -> None:
            blocks.relabel([p.grad for p in parameters if p.grad is not None], "gradient")
            self._begin("update", step)

        def end_update(_: object) -> None:
            blocks.relabel(self._states(loop), "optimizer")
            self._begin("forward", step)

        def call(_: object) -> None:
            self._begin("batch", step)
            given = loop.transfer(self.stand_ins.fresh(batch))
            blocks.watch(tensors_in(given), "input")
            self._begin("forward", step)
            loop.workload.train_step(given)  # type: ignore[misc]

        with around_updates(loop.optimizers, begin_update, end_update):
            if not until_all_updated(loop.optimizers, repeat(None), call):
                raise DryRunError(NEVER_UPDATED)
        blocks.relabel([p.grad for p in parameters if p.grad is not None], "gradient")
        blocks.relabel_kept(first)

    def _states(self, loop: TrainingLoop) -> list[torch.Tensor]:
        states = optimizer_tensors(loop.optimizers)
        self.watcher.blocks.watch(states, "optimizer")
        return states

    def _evaluate(self, loop: TrainingLoop, batch: Any) -> None:
        self._begin("evaluate", STEPS)
        try:
            with evaluating(loop.workload.model):
                loop.evaluate(self.stand_ins.fresh(batch))
        except Exception as error:  # noqa: BLE001 - of the user's evaluation; the steps are known
            self._remarks.append(f"the evaluation could not be followed: {first_line(error)}")


def _widened(made: DeviceSequence) -> DeviceSequence:
    """The same with an interval at its peak: the CPU's operators are not the device's."""
    live = made.live_bytes()
    peak = max(live, default=0)
    unknown = UnknownBytes(
        position=live.index(peak) if live else 0,
        low_bytes=0,
        high_bytes=round(_WIDENED * peak),
        operator="a step",
        reason="the CPU's operators were followed in place of the device's",
    )
    return replace(made, unknown=(*made.unknown, unknown))
