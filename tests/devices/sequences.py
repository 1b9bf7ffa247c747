"""A training of four blocks, as allocations on a device: small enough to know everything of it.

build 8 MiB of parameters │ batch, activations of 1 MiB a sample, a workspace │ gradients
"""

from __future__ import annotations

from typing import Any

from epochcast.records import DeviceSequence, DeviceSpec, RunConfig, StepMark, UnknownBytes

MIB = 2**20
T4 = DeviceSpec(
    name="t4",
    memory_bytes=15_634_661_376,
    capability=(7, 5),
    multiprocessors=40,
    threads_per_multiprocessor=1024,
)
CONFIG = RunConfig(batch_size=16, sizes=(("width", 512),))
WORKSPACE = 8_519_680
PARAMETER, STATE = 8 * MIB, 16 * MIB


def training(batch_size: int = 16, unknown: bool = False, **changes: Any) -> DeviceSequence:
    """Two steps: the optimizer's state comes in the first, gradients go before the second.

    Args:
        batch_size: samples, of which each has a mebibyte in each of two activations.
        unknown: whether the backward pass takes a moment's 0 to 64 MiB that nobody saw.
        changes: of the record.
    """
    size = batch_size * MIB
    names = ["parameter", "workspace", "optimizer"]
    sizes = [PARAMETER, WORKSPACE, STATE]
    events, marks = [1], [StepMark(moment="build", step=0, position=0)]
    unseen = []
    gradient = 0
    for step in (1, 2):
        marks.append(StepMark(moment="batch", step=step, position=len(events)))
        first = len(sizes) + 1
        sizes += [4096, size, size, PARAMETER]
        names += ["input", "activation", "activation", "gradient"]
        events.append(first)
        marks.append(StepMark(moment="forward", step=step, position=len(events)))
        events += [first + 1, *([2] if step == 1 else []), first + 2]
        if gradient:
            events.append(-gradient)
        marks.append(StepMark(moment="backward", step=step, position=len(events)))
        gradient = first + 3
        if unknown:
            unseen.append(
                UnknownBytes(
                    position=len(events),
                    low_bytes=0,
                    high_bytes=64 * MIB,
                    operator="aten.convolution_backward",
                    reason="cuDNN chooses its workspace on the device",
                )
            )
        events += [gradient, -(first + 2), -(first + 1)]
        marks.append(StepMark(moment="update", step=step, position=len(events)))
        events += [*([3] if step == 1 else []), -first]
    values: dict[str, Any] = {
        "device": T4,
        "block_bytes": tuple(sizes),
        "block_kinds": tuple(names),
        "block_streams": (0,) * len(sizes),
        "block_operators": tuple(n % 2 for n in range(len(sizes))),
        "block_modules": tuple(-1 if n < 2 else 0 for n in range(len(sizes))),
        "block_lines": (-1,) * len(sizes),
        "operators": ("aten.mm.default", "aten.empty.memory_format"),
        "modules": ("blocks.0",),
        "lines": (),
        "events": tuple(events),
        "marks": tuple(marks),
        "unknown": tuple(unseen),
    }
    return DeviceSequence(**(values | changes))
