"""What ranks that train together share: the process group, the model, the data, and what it costs.

ranks meet in a file ──▶ a process group      gloo for CPUs, NCCL for CUDA devices; no port
model ──▶ DistributedDataParallel             gradients are averaged in the last micro-step
      ──▶ fully_shard, block by block         parameters and optimizer are shared, too
data  ──▶ DistributedSampler                  ⌈N/p⌉ samples each
trace ──▶ seconds of collective operations, and how many of them the device computed in
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from functools import cache
from typing import Any

import torch
from torch import distributed, nn
from torch.autograd.profiler_util import FunctionEvent
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Dataset, DistributedSampler

from epochcast.errors import WorkloadError
from epochcast.profiler import device as devices
from epochcast.profiler.protocol import Task
from epochcast.profiler.ranks import Ranks, TorchRanks
from epochcast.profiler.updates import needs_closure, optimized
from epochcast.profiler.workload import Workload
from epochcast.records import Communication, Sharding

FOREVER = timedelta(days=30)  # the sweep's own limit ends ranks that wait for each other
LOOPBACK = {"linux": "lo", "darwin": "lo0"}  # all ranks are here, whatever this host is called
BLOCKS = (nn.ModuleList, nn.Sequential)  # whose parts are sharded one by one

Interval = tuple[float, float]


# -- the process group ----------------------------------------------------------------------------


def opened(task: Task) -> torch.device:
    """The device of a task's rank, made ready, and its process group joined where it has one.

    Raises:
        UsageError: torch has no such device here.
    """
    workload, ranks = task.spec.workload, task.spec.ranks
    name = f"cuda:{task.rank}" if ranks and workload.device == "cuda" else workload.device
    device = devices.open_device(name, workload.threads)
    if ranks and not distributed.is_initialized():
        _join(task, device)
    return device


def _join(task: Task, device: torch.device) -> None:
    told = {"RANK": task.rank, "LOCAL_RANK": task.rank}  # as torchrun tells user code
    told |= {"WORLD_SIZE": task.spec.ranks, "LOCAL_WORLD_SIZE": task.spec.ranks}
    os.environ.update({name: str(value) for name, value in told.items()})
    if sys.platform in LOOPBACK:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", LOOPBACK[sys.platform])
    distributed.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        init_method=f"file://{task.meeting}",
        rank=task.rank,
        world_size=task.spec.ranks,
        timeout=FOREVER,
        device_id=device if device.type == "cuda" else None,
    )


@cache
def ranks_of_process() -> Ranks:
    """The process group that this process has joined."""
    return TorchRanks(distributed)


# -- the model ------------------------------------------------------------------------------------


def shared(workload: Workload, device: torch.device, sharding: Sharding) -> nn.Module:
    """A workload's model on a rank's device, as ranks train it; one that is shared already stays.

    Args:
        workload: its optimizers get the parameters that there are afterwards.
        device: of this rank.
        sharding: what is shared.

    Raises:
        WorkloadError: what the workload does cannot be shared.
    """
    for optimizer in filter(needs_closure, workload.optimizers):
        raise WorkloadError(
            f"{type(optimizer).__name__} evaluates the loss as often as each rank's own loss asks, "
            "so ranks would wait for each other for ever: probe it on one device"
        )
    model = workload.model
    if sharding == "fsdp":
        return _fully_sharded(workload, device)
    model.to(device)
    if isinstance(model, DistributedDataParallel):
        return model
    if workload.train_step is not None:
        raise WorkloadError(
            "train_step does the whole step by itself, so DistributedDataParallel cannot be put "
            "around its model: give forward= or loss= instead; or wrap the model in the workload "
            "function (its ranks are joined by then) and give it as model=; or probe the script: "
            "epochcast probe -- torchrun …"
        )
    return DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)


def _fully_sharded(workload: Workload, device: torch.device) -> nn.Module:
    """The model in place, with parameters that each rank holds a part of (FSDP2)."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard

    model = workload.model
    if isinstance(model, FSDPModule):
        return model
    names = {id(p): name for name, p in model.named_parameters()}
    mesh = init_device_mesh(device.type, (distributed.get_world_size(),))
    blocks = [part for m in model.modules() if isinstance(m, BLOCKS) for part in m]
    for block in reversed([b for b in blocks if any(True for _ in b.parameters())]):
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    model.to(device)  # buffers that no block has moved
    parts = dict(model.named_parameters())
    for group in (g for optimizer in workload.optimizers for g in optimizer.param_groups):
        group["params"] = [parts[names[id(p)]] if id(p) in names else p for p in group["params"]]
    return model


def averaging(model: nn.Module, last: bool) -> AbstractContextManager[Any]:
    """Within it, the backward pass averages gradients if it is the last one before an update."""
    if isinstance(model, DistributedDataParallel):
        return nullcontext() if last else model.no_sync()
    set_sync = getattr(model, "set_requires_gradient_sync", None)
    if set_sync is not None:
        set_sync(last)
    return nullcontext()


def local(state: Any) -> Any:
    """A state dictionary with the part of each tensor that this rank holds."""
    from torch.utils._pytree import tree_map

    return tree_map(lambda x: x.to_local() if hasattr(x, "to_local") else x, state)


def communication_of(workload: Workload) -> Communication:
    """What is known of how a workload's ranks share it before a trace is taken."""
    parameters = [*workload.model.parameters(), *optimized(workload.optimizers)]
    trained = {id(p): p for p in parameters if p.requires_grad}.values()
    return Communication(
        backend=str(distributed.get_backend()),
        gradient_bytes=sum(p.numel() * p.element_size() for p in trained),
    )


# -- the data -------------------------------------------------------------------------------------


def sampler_of(data: Dataset[Any], ranks: Ranks, shuffle: bool) -> DistributedSampler[Any]:
    """Draws a rank's share of the samples, padded to ⌈N/p⌉.

    Args:
        data: has a length.
        ranks: that share it.
        shuffle: whether it is shuffled.
    """
    return DistributedSampler(data, ranks.size, ranks.rank, shuffle=shuffle)


# -- what a trace tells ---------------------------------------------------------------------------


def seconds_by(events: Iterable[FunctionEvent], on_cuda: bool) -> tuple[float, float] | None:
    """Seconds of an update in collective operations, and of these while the device computed.

    None where no update was traced.

    Args:
        events: of whole micro-steps of one rank.
        on_cuda: whether kernels tell, or what the host does.
    """
    found = list(events)
    of_host = [e.name for e in found if e.device_type.name != "CUDA"]
    steps = [name for name in of_host if name.startswith("Optimizer.step#")]
    if not steps:
        return None
    updates = steps.count(min(steps))  # several optimizers step once each
    sending, computing = [], []
    for e in found:
        if on_cuda != (e.device_type.name == "CUDA"):
            continue
        interval = (e.time_range.start / 1e6, e.time_range.end / 1e6)
        if e.name.startswith("nccl" if on_cuda else "gloo:"):
            if not on_cuda or ":" not in e.name:  # of kernels, not of the annotation above them
                sending.append(interval)
        elif e.name.startswith("aten::") or (on_cuda and not e.is_user_annotation):
            computing.append(interval)
    sent = union(sending)
    both = sum(b - a for a, b in sent) + sum(b - a for a, b in union(computing))
    either = sum(b - a for a, b in union([*sending, *computing]))
    return sum(b - a for a, b in sent) / updates, max(0.0, both - either) / updates


def union(intervals: Sequence[Interval]) -> list[Interval]:
    """The same moments as intervals that do not touch, in order."""
    found: list[Interval] = []
    for start, end in sorted(intervals):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return found
