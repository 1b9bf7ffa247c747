"""The history of torch's caching allocator, from its first allocation, beside the peaks.

    init │ history on │ model to device │ step 0 │ step 1 │ … │ evaluation │ peaks │ snapshot

Snapshots are packed to plain lists, in the form {allocator_settings, events, segments}:

    events     [action, address, size, stream, time_us, frame?]   size as requested; of "oom" the
                                                                  second is what was free
    segments   address, total_size, stream, type, pool, expandable, blocks
               blocks: [address, size, requested_size, state]

``marks`` say at which ``time_us`` a stage had ended. Frames are recorded in scenarios of their own,
because their names take long to look up and nothing else should wait for them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from epochcast.devices.cards import device_like
from gpu_parts.child import Situation
from gpu_parts.sensors import Sensors, known
from gpu_parts.training import Setting, Training

STEPS = 4  # the optimizer's state is there in the second; two more show whether it is steady
MOST_EVENTS = 200_000  # of a history; what comes later is cut and counted
HISTORY = 10**7  # entries of the ring buffer, which must not come round
LIMITED_BYTES = 3 * 2**30  # that the scenario which runs out of memory may have
MOST_BATCH = 2**16  # at which it gives up running out of memory
STATS = (
    "allocated_bytes.all",
    "reserved_bytes.all",
    "active_bytes.all",
    "requested_bytes.all",
    "inactive_split_bytes.all",
    "segment.all",
)
LIBRARIES = re.compile(r"getNewWorkspace|cudnn|cublas", re.IGNORECASE)
OPERATORS = re.compile(r"at::native|2at6native")


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What a scenario trains.

    Attributes:
        tuned: with ``cudnn.benchmark``.
        side_stream: whether batches are copied on a stream of their own (``record_stream``).
    """

    setting: Setting
    tuned: bool = False
    side_stream: bool = False


MLP = Setting(workload="mnist-mlp", sizes={"width": 4096, "depth": 3}, batch_size=1024)
CNN = Setting(workload="cifar10-resnet", sizes={"depth": 20, "width": 64}, batch_size=256)


def _gpt(precision: str) -> Setting:
    sizes = {"layers": 6, "width": 384, "heads": 6, "context": 256}
    return Setting(workload="char-gpt", sizes=sizes, batch_size=64, precision=precision)


SCENARIOS = {
    "mlp": Recorded(setting=MLP),
    "cnn": Recorded(setting=CNN),
    "cnn-benchmark": Recorded(setting=CNN, tuned=True),
    "gpt-fp32": Recorded(setting=_gpt("fp32")),
    "gpt-bf16": Recorded(setting=_gpt("bf16")),
    "gpt-fp16": Recorded(setting=_gpt("fp16")),
    "gpt-expandable": Recorded(setting=_gpt("bf16")),
    "record-stream": Recorded(setting=MLP, side_stream=True),
    "out-of-memory": Recorded(setting=_gpt("bf16")),
}
DRY_SIZES: Mapping[str, Mapping[str, Any]] = {
    "mnist-mlp": {"width": 16, "depth": 1},
    "cifar10-resnet": {"depth": 8, "width": 4},
    "char-gpt": {"layers": 1, "width": 16, "heads": 2, "context": 16},
}


FORETOLD = ("mlp", "cnn", "gpt-bf16")  # whose dry runs are made on the device's machine
DRY_DEVICE = "8GiB"  # that is asked about where there is none


def run(here: Situation) -> None:
    """Play a scenario."""
    if here.scenario == "dry-runs":
        foretell(here)
        return
    recorded = SCENARIOS[here.scenario.removesuffix("-frames")]
    setting = recorded.setting
    if here.dry:
        setting = Setting(
            workload=setting.workload,
            sizes=DRY_SIZES[setting.workload],
            batch_size=4,
            precision=setting.precision,
        )
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = recorded.tuned
    stages = Stages(here.on_cuda)
    here.emit("setting", tuned=recorded.tuned, side_stream=recorded.side_stream, **asdict(setting))
    if here.on_cuda:
        start_history(frames=here.scenario.endswith("-frames"))
    if here.scenario == "out-of-memory":
        here.emit("attempts", attempts=until_out_of_memory(setting, here.device, stages))
    else:
        train(setting, here.device, stages, copier() if recorded.side_stream else tuple)
    if not here.on_cuda:
        here.skip("history of the allocator, peaks", "needs CUDA")
        return
    here.emit("peaks", stages=stages.found, sensors=Sensors().read())
    here.emit("snapshot", **packed(torch.cuda.memory._snapshot()))


def foretell(here: Situation) -> None:
    """Dry runs of what is recorded, for the card that is there."""
    from gpu_parts.dry_runs import dry_run

    device = DRY_DEVICE
    if here.on_cuda:
        total = torch.cuda.get_device_properties(0).total_memory
        device = device_like(torch.cuda.get_device_name(0), total).name
    for name in FORETOLD[:1] if here.dry else FORETOLD:
        dry_run(name, SCENARIOS[name].setting, here, device)


class Stages:
    """Peaks of each stage and the moment at which it ended."""

    def __init__(self, on_cuda: bool) -> None:
        self.on_cuda = on_cuda
        self.found: list[dict[str, Any]] = []

    def done(self, name: str) -> None:
        """A stage has ended."""
        moment = time.time_ns() // 1000
        peaks = known(cuda_peaks) if self.on_cuda else {}
        self.found.append({"stage": name, "time_us": moment, **peaks})


def cuda_peaks() -> dict[str, int]:
    """Since the last call; with what is there now, and what the driver has given away."""
    torch.cuda.synchronize()
    free, total = torch.cuda.mem_get_info()
    stats = torch.cuda.memory_stats()
    names = [f"{name}.{which}" for name in STATS for which in ("peak", "current")]
    names += ["num_alloc_retries", "num_ooms"]
    torch.cuda.reset_peak_memory_stats()
    return {**{name: stats.get(name, 0) for name in names}, "driver_bytes": total - free}


def train(
    setting: Setting, device: str, stages: Stages, prepare: Callable[[Any], Any] = tuple
) -> None:
    """A few steps and an evaluation.

    Args:
        setting: what is trained.
        device: of torch.
        stages: is told what has ended.
        prepare: done to each batch before its step.
    """
    training = Training(setting, device)
    stages.done("model")
    *batches, last = training.batches(STEPS + 1)
    for number, batch in enumerate(batches):
        training.step(prepare(batch))
        stages.done(f"step {number}")
    training.evaluate(last)
    stages.done("evaluation")


def copier() -> Callable[[Any], Any]:
    """Copies batches on a second stream to be used on the first, as prefetching loaders do."""
    side = torch.cuda.Stream()

    def copied(batch: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        main = torch.cuda.current_stream()
        with torch.cuda.stream(side):
            copies = tuple(part.pin_memory().to("cuda", non_blocking=True) for part in batch)
        main.wait_stream(side)
        for copy in copies:
            copy.record_stream(main)
        return copies

    return copied


def until_out_of_memory(setting: Setting, device: str, stages: Stages) -> list[dict[str, Any]]:
    """Double the batch until memory that is limited runs out, then go on with half of it.

    Args:
        setting: what is trained; it begins with a quarter of its batch size.
        device: of torch.
        stages: is told what has ended.
    """
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, LIMITED_BYTES / total))
    training = Training(setting, device)
    stages.done("model")
    (sample,) = training.batches(1)
    attempts: list[dict[str, Any]] = []
    batch_size = setting.batch_size // 4
    while batch_size <= MOST_BATCH and (not attempts or not attempts[-1]["message"]):
        attempts.append(_attempt(training, sample, batch_size, stages))
        batch_size *= 2
    attempts.append(_attempt(training, sample, batch_size // 4, stages))
    return attempts


def _attempt(training: Training, sample: Any, batch_size: int, stages: Stages) -> dict[str, Any]:
    message = ""
    repeats = -(-batch_size // len(sample[0]))
    batch = [torch.cat([part] * repeats)[:batch_size] for part in sample]
    try:
        for _ in range(2):
            training.step(batch)
    except torch.OutOfMemoryError as error:
        message = str(error)
    training.work.optimizer.zero_grad(set_to_none=True)
    stages.done(f"batch size {batch_size}")
    return {"batch_size": batch_size, "message": message}


# -- history ------------------------------------------------------------------------------------


def start_history(*, frames: bool) -> None:
    """From the first allocation on; the context is made before."""
    torch.cuda.init()
    torch.cuda.memory._record_memory_history(
        "all",
        context="alloc" if frames else None,
        stacks="all" if frames else "python",
        max_entries=HISTORY,
    )


def packed(snapshot: Mapping[str, Any], most_events: int = MOST_EVENTS) -> dict[str, Any]:
    """A snapshot as plain lists; of a history that is too long, the beginning.

    Args:
        snapshot: as ``torch.cuda.memory._snapshot`` gives it.
        most_events: that are kept.
    """
    traces = [trace for trace in snapshot.get("device_traces", ()) if trace]
    events = traces[0] if traces else []  # of the one device that was used
    return {
        "allocator_settings": snapshot.get("allocator_settings", {}),
        "events": [packed_event(event) for event in events[:most_events]],
        "events_cut": max(0, len(events) - most_events),
        "segments": [packed_segment(segment) for segment in snapshot["segments"]],
    }


def packed_event(event: Mapping[str, Any]) -> list[Any]:
    """[action, address, size, stream, time_us, frame?]"""
    address = event.get("addr", event.get("device_free"))
    row = [event["action"], address, event["size"], event["stream"], event.get("time_us")]
    frame = telling_frame(event.get("frames") or ())
    return [*row, frame] if frame else row


def telling_frame(frames: Sequence[Mapping[str, Any]]) -> str:
    """The frame that says most of why memory was asked for: a library's, else an operator's."""
    names = [str(frame.get("name", "")) for frame in frames]
    for pattern in (LIBRARIES, OPERATORS):
        if found := next((name for name in names if pattern.search(name)), ""):
            return found
    return ""


def packed_segment(segment: Mapping[str, Any]) -> dict[str, Any]:
    """With its blocks as lists; older torch leaves the blocks' addresses out."""
    blocks, address = [], segment["address"]
    for block in segment["blocks"]:
        at = block.get("address", address)
        blocks.append([at, block["size"], block.get("requested_size"), block["state"]])
        address = at + block["size"]
    return {
        "address": segment["address"],
        "total_size": segment["total_size"],
        "stream": segment["stream"],
        "type": segment.get("segment_type"),
        "pool": list(segment.get("segment_pool_id", (0, 0))),
        "expandable": bool(segment.get("is_expandable", False)),
        "blocks": blocks,
    }
