"""Which parts there are, what each consists of, and how much of the time it may use.

The order is that of value: where time runs out, what comes last is lost. What a part leaves of its
share goes to the parts after it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

EXPANDABLE = MappingProxyType(
    dict.fromkeys(("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"), "expandable_segments:True")
)
# addr2line, the default, may take minutes for one snapshot (pytorch/torchtitan#3628, #195800)
FRAMES = MappingProxyType({"TORCH_SYMBOLIZE_MODE": "dladdr", "TORCH_DISABLE_ADDR2LINE": "1"})
EAGER = MappingProxyType({"CUDA_MODULE_LOADING": "EAGER"})

TORCH = ("torch", "psutil")
PACKAGE = (*TORCH, "click", "msgspec", "numpy", "rich", "scipy", "sklearn")
TORCH_ALONE = "device"  # the part that runs without the package's dependencies


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """Something that runs in a process of its own.

    Attributes:
        seconds: after which it is ended.
        cuda_only: whether it makes no sense on a CPU.
        dry: whether the dry mode runs it.
        environment: variables of its process.
    """

    name: str
    seconds: float = 30.0
    cuda_only: bool = False
    dry: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Part:
    """Scenarios that are written to one file.

    Attributes:
        share: of the whole time, that it may use beside what earlier parts have left.
        module: whose ``run`` plays the scenarios.
        needs: packages that must be installed.
    """

    name: str
    share: float
    module: str
    needs: tuple[str, ...]
    scenarios: tuple[Scenario, ...]


PARTS = (
    Part(
        name="device",
        share=0.07,
        module="gpu_parts.device",
        needs=TORCH,
        scenarios=(
            Scenario(name="facts", dry=True),
            Scenario(name="context", cuda_only=True),
            Scenario(name="speed", dry=True),
            Scenario(name="context-eager", cuda_only=True, environment=EAGER, seconds=45.0),
        ),
    ),
    Part(
        name="probes",
        share=0.38,
        module="gpu_parts.probes",
        needs=PACKAGE,
        scenarios=(
            Scenario(name="mnist-mlp", seconds=60.0, dry=True),
            Scenario(name="char-gpt", seconds=70.0),
            Scenario(name="cifar10-resnet", seconds=70.0),
            Scenario(name="char-gpt-bf16", seconds=60.0),
            Scenario(name="char-gpt-fp16", seconds=60.0),
            Scenario(name="char-gpt-compiled", seconds=150.0),
            Scenario(name="cifar10-resnet-bf16", seconds=40.0),
        ),
    ),
    Part(
        name="snapshots",
        share=0.17,
        module="gpu_parts.snapshots",
        needs=PACKAGE,
        scenarios=(
            Scenario(name="mlp", dry=True),
            Scenario(name="cnn", dry=True),
            Scenario(name="gpt-bf16", dry=True),
            Scenario(name="cnn-benchmark"),
            Scenario(name="gpt-expandable", environment=EXPANDABLE),
            Scenario(name="out-of-memory", cuda_only=True),
            Scenario(name="record-stream", cuda_only=True),
            Scenario(name="gpt-fp32"),
            Scenario(name="gpt-fp16", dry=True),
            Scenario(name="dry-runs", seconds=60.0),
            Scenario(name="cnn-benchmark-frames", environment=FRAMES, seconds=40.0),
            Scenario(name="gpt-bf16-frames", environment=FRAMES, seconds=40.0),
        ),
    ),
    Part(
        name="scripts",
        share=0.20,
        module="gpu_parts.scripts",
        needs=PACKAGE,
        scenarios=(
            Scenario(name="amp", seconds=100.0, dry=True),
            Scenario(name="deadline", seconds=45.0, dry=True),
            Scenario(name="trainer", seconds=75.0),
            Scenario(name="lightning", seconds=75.0),
        ),
    ),
    Part(
        name="guard",
        share=0.08,
        module="gpu_parts.guard",
        needs=PACKAGE,
        scenarios=(
            Scenario(name="deadline", seconds=60.0, dry=True),
            Scenario(name="energy", seconds=30.0, dry=True),
        ),
    ),
    Part(
        name="accuracy",
        share=0.10,
        module="gpu_parts.grid",
        needs=PACKAGE,
        scenarios=(Scenario(name="grid", seconds=150.0, dry=True),),
    ),
)


def chosen(names: Sequence[str] | None) -> list[Part]:
    """The parts of some names, each with the scenarios asked for; shares add up to 1.

    Where names are given, a part's share is that of the seconds which its scenarios may take.

    Args:
        names: of parts, or ``PART/SCENARIO``; None for all.
    """
    if names is None:
        return list(PARTS)
    parts = [
        replace(part, scenarios=kept, share=sum(scenario.seconds for scenario in kept))
        for part in PARTS
        if (kept := tuple(s for s in part.scenarios if _is_asked(part, s, names)))
    ]
    total = sum(part.share for part in parts)
    return [replace(part, share=part.share / total) for part in parts]


def _is_asked(part: Part, scenario: Scenario, names: Sequence[str]) -> bool:
    return part.name in names or f"{part.name}/{scenario.name}" in names
