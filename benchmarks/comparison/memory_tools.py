"""What a training step needs in memory, according to a dry run and to other people's tools.

dry run      epochcast, of the configuration asked for; nothing is computed
MemTracker   torch.distributed._tools.mem_tracker (private), on real steps of it
accelerate   ``accelerate estimate-memory``: 4 × the model in fp32, "Training using Adam"
DeepSpeed    (2 + 18) bytes × parameters on one device: deepspeed/runtime/zero/stage_1_and_2.py,
             ``estimate_zero2_model_states_mem_needs``; written out, the package is not needed
torchinfo    its "Estimated Total Size": input, outputs forward and backward, parameters
"""

from __future__ import annotations

from typing import Any

import torch
from torch.distributed._tools.mem_tracker import MemTracker

from comparison.grids import Grid
from epochcast.profiler.loop import TrainingLoop, config_of
from epochcast.profiler.protocol import TrialSpec, WorkloadSpec
from epochcast.profiler.request import SweepRequest, count_footprints
from epochcast.profiler.trial import build_afresh
from epochcast.records import RunConfig
from epochcast.records.documents import to_builtins

DEEPSPEED_BYTES_PER_PARAMETER = 2 + 18
STEPS = 2  # the optimizer's state is there in the second


def count(grid: Grid) -> list[dict[str, Any]]:
    """One row per configuration of a grid."""
    request = SweepRequest(
        target=grid.target, batch_sizes=grid.batch_sizes, sizes=grid.sizes, device="cpu"
    )
    rows = []
    for counted in count_footprints(request):
        loop = _loop(grid.target, counted.config)
        parameters = counted.footprint.parameters
        rows.append(
            {
                "workload": grid.target,
                "config": to_builtins(counted.config),
                "footprint": to_builtins(counted.footprint),
                "accelerate_bytes": accelerate_bytes(loop.workload.model),
                "deepspeed_bytes": DEEPSPEED_BYTES_PER_PARAMETER * parameters,
                "torchinfo_bytes": torchinfo_bytes(loop),
                "mem_tracker_bytes": mem_tracker_bytes(loop),
            }
        )
        print(f"counted {grid.name} {counted.config.label}", flush=True)
    return rows


def _loop(target: str, config: RunConfig) -> TrainingLoop:
    spec = TrialSpec(
        workload=WorkloadSpec(target=target), sizes=config.sizes, batch_size=config.batch_size
    )
    workload = build_afresh(spec)
    made = config_of(workload, config.batch_size, config.sizes)
    return TrainingLoop(workload, made, torch.device("cpu"))


def mem_tracker_bytes(loop: TrainingLoop) -> int:
    """The peak of real steps."""
    tracker = MemTracker()
    batch = next(iter(loop.train_loader()))  # outside: the data set is not on the device
    tracker.track_external(loop.workload.model, loop.workload.optimizer, *batch)
    with tracker:
        for _ in range(STEPS):
            loop.backward(batch)
            loop.update()
            tracker.reset_mod_stats()
    snapshot = tracker.get_tracker_snapshot("peak")
    return int(snapshot[torch.device("cpu")]["Total"])


def accelerate_bytes(model: torch.nn.Module) -> int:
    """The largest number in the row "float32" of ``accelerate estimate-memory``."""
    from accelerate.commands.estimate import estimate_training_usage
    from accelerate.utils import calculate_maximum_sizes

    total, _ = calculate_maximum_sizes(model)
    return int(max(estimate_training_usage(total, "float32").values()))


def torchinfo_bytes(loop: TrainingLoop) -> int:
    """What ``torchinfo.summary`` adds up for this batch."""
    from torchinfo import summary

    inputs, _ = next(iter(loop.train_loader()))
    found = summary(loop.workload.model, input_data=inputs, device="cpu", verbose=0, mode="train")
    return int(found.total_input + found.total_output_bytes + found.total_param_bytes)
