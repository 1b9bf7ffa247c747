"""What is run and on what: data set, configuration, device."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal

from epochcast.errors import UsageError
from epochcast.records.validation import is_finite, require, shown
from epochcast.units import format_bytes

SizeValue = int | float | str | bool
Sizes = tuple[tuple[str, SizeValue], ...]  # model-size knobs, sorted by name
Precision = Literal["fp32", "bf16", "fp16"]
Sharding = Literal["ddp", "fsdp"]
DeviceKind = Literal["cpu", "cuda", "mps"]

SHORTEST_ID = 4  # characters of a device's key
_PATCH = re.compile(r"^(\d+\.\d+)\.\d+")  # "2.13.0+cpu" is of release "2.13+cpu"
UNKNOWN = "unknown"  # the version of torch, where nobody wrote it down
_SAID: dict[str, DeviceKind] = {"cpu": "cpu", "cuda": "cuda", "gpu": "cuda", "mps": "mps"}
_MAKERS: dict[DeviceKind, str] = {
    "cpu": r"xeon|epyc|ryzen|threadripper|opteron|intel|graviton\d*|i[3579]",
    "cuda": r"nvidia|geforce|quadro|tesla|titan|[rg]tx|radeon|instinct|"
    r"[rg]tx\d+|a\d{2,4}g?|[bh]\d{3}|g[bh]\d{3}|k80|l4|l40s?|p\d{1,3}|t4|v100|mi\d{2,3}x?",
    "mps": r"apple",
}


def make_sizes(values: Mapping[str, SizeValue]) -> Sizes:
    """The canonical form of a mapping of model-size knobs: pairs sorted by name."""
    return tuple(sorted(values.items()))


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSpec:
    """What of a data set decides cost: how many samples, of what shape and type.

    Attributes:
        samples: training samples.
        eval_samples: samples of the customary evaluation split; 0 if there is none.
        shape: of one stored sample, e.g. ``(28, 28)`` or ``(3, 32, 32)``; ``()`` where it varies.
        dtype: of one stored sample, by its torch name, e.g. ``"uint8"``.
        classes: number of classes, or the vocabulary size of a text data set; 0 if neither.
        unit: what a sample is: ``"image"``, ``"token"``, ``"row"``, …
        source: where the numbers come from.
    """

    name: str
    samples: int
    eval_samples: int = 0
    shape: tuple[int, ...]
    dtype: str
    classes: int = 0
    unit: str = "image"
    source: str

    def __post_init__(self) -> None:
        require(self.samples > 0, f"samples must be positive, but got {self.samples}")
        require(self.eval_samples >= 0, f"eval_samples must be >= 0, but got {self.eval_samples}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """One way to run a workload.

    Attributes:
        batch_size: samples that one forward pass sees on one device (the micro-batch).
        sizes: the workload's model-size knobs, all of them, defaults included.
        accumulation: micro-batches per optimizer step.
        precision: of autocast; ``"fp16"`` runs with a gradient scaler.
        compiled: whether the model runs under ``torch.compile``.
        workers: data-loader worker processes.
        world_size: devices that share the work.
        nodes: machines that these devices are spread over.
        sharding: what they share: gradients alone (DDP), or parameters and optimizer too (FSDP).
        drop_last: whether the loader drops the last partial batch.
        eval_batch_size: samples of an evaluation batch; None evaluates at the batch size.
    """

    batch_size: int
    sizes: Sizes = ()
    accumulation: int = 1
    precision: Precision = "fp32"
    compiled: bool = False
    workers: int = 0
    world_size: int = 1
    nodes: int = 1
    sharding: Sharding = "ddp"
    drop_last: bool = False
    eval_batch_size: int | None = None

    def __post_init__(self) -> None:
        for name in ("batch_size", "accumulation", "world_size", "nodes", "eval_batch_size"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"{name} must be at least 1, but got {value}")
        require(
            self.nodes <= self.world_size,
            f"{self.world_size} devices cannot be spread over {self.nodes} nodes",
        )
        require(self.workers >= 0, f"workers must be at least 0, but got {self.workers}")
        names = tuple(name for name, _ in self.sizes)
        require(names == tuple(sorted(set(names))), "sizes must be sorted by name: use make_sizes")
        for name, value in self.sizes:
            finite = isinstance(value, str) or is_finite(value)
            require(finite, f"a size must be finite, but got {name}={shown(value)}")

    @property
    def period(self) -> int:
        """Micro-steps after which the loop repeats: optimizer updates and loader bursts aligned."""
        return math.lcm(self.accumulation, max(1, self.workers))

    @property
    def evaluated_at_once(self) -> int:
        """Samples of an evaluation batch."""
        return self.eval_batch_size or self.batch_size

    def setting(self, name: str) -> SizeValue:
        """A field by its name, for a table; in words where it is left open."""
        value: SizeValue | None = getattr(self, name)
        return "as training" if value is None else value

    def samples_each(self, samples: int) -> int:
        """What each device sees of so many samples: ⌈N/D⌉, as a distributed sampler pads."""
        return -(-samples // self.world_size)

    @property
    def label(self) -> str:
        """A short name that tells this configuration from others: ``"batch_size=64 width=512"``."""
        parts = [f"batch_size={self.batch_size}"]
        parts += [f"{name}={value}" for name, value in self.sizes]
        for field in fields(self)[2:]:
            if getattr(self, field.name) != field.default:
                parts.append(f"{field.name}={getattr(self, field.name)}")
        return " ".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What a measurement was made on. Two devices with equal ``key`` are interchangeable.

    Patch releases of torch are taken for one; which ones were used is said where it matters.

    Attributes:
        memory_bytes: of the accelerator, or for a CPU the main memory this process may use; 0
            where it is not known.
        cuda: CUDA version that torch was built for; empty without one.
        threads: intra-operator CPU threads; 0 where they are not known.
        clock_mhz: the clock reported when probing began; informative, not part of the key.
    """

    kind: DeviceKind
    name: str
    memory_bytes: int
    torch: str
    cuda: str = ""
    threads: int
    clock_mhz: float | None = None

    @property
    def key(self) -> str:
        """A short hash of all that must be equal for measurements to be pooled."""
        release = _PATCH.sub(r"\1", self.torch)
        parts = (self.kind, self.name, self.memory_bytes, release, self.cuda, self.threads)
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]

    @property
    def id(self) -> str:
        """The beginning of the key, for people to type."""
        return self.key[:6]

    @property
    def machine(self) -> tuple[DeviceKind, str]:
        """What stays the same whatever threads and torch are used on it."""
        return self.kind, self.name

    def answers_to(self, text: str) -> bool:
        """Whether a user's text means this device.

        It is its kind, the beginning of its key, a part of its name, or whole words of what it is
        called: ``"cuda"``, ``"4f09ab"``, ``"A100"``, ``"2 threads"``, ``"torch 2.13.0"``.
        """
        wanted = text.strip().lower()
        if wanted.partition(":")[0] == self.kind or (wanted and wanted in self.name.lower()):
            return True
        words = rf"(?<![\w.]){re.escape(wanted)}(?![\w.])"
        is_key = len(wanted) >= SHORTEST_ID and self.key.startswith(wanted)
        return bool(wanted) and (is_key or re.search(words, self.label.lower()) is not None)

    def unlike(self, other: Device) -> str:
        """What tells this device from another: ``"1 thread"``, ``"torch 2.12.1"``; or its name."""
        if self.machine != other.machine:
            return self.label
        parts = {
            "threads": _threads(self.threads),
            "torch": f"torch {self.torch}",
            "cuda": f"CUDA {self.cuda}",
            "memory_bytes": f"memory {format_bytes(self.memory_bytes)}",
        }
        differ = (name for name in parts if getattr(self, name) != getattr(other, name))
        return ", ".join(parts[name] for name in differ)

    @property
    def label(self) -> str:
        """For people: ``"Intel Xeon (cpu, 2 threads, torch 2.13.0)"``."""
        threads = f", {_threads(self.threads)}" if self.kind == "cpu" and self.threads else ""
        return f"{self.name} ({self.kind}{threads}, torch {self.torch})"


def _threads(count: int) -> str:
    return f"{count} thread{'' if count == 1 else 's'}"


def device_named(name: str, kind: DeviceKind | None = None) -> Device:
    """A device of which only the name is known; its memory is 0, which means unknown.

    Args:
        name: as its maker or its owner calls it, e.g. ``"NVIDIA A100"``.
        kind: guessed from the name if not given.

    Raises:
        ValueError: the name does not say of which kind the device is.
    """
    kind = kind or _kind_of(name)
    return Device(kind=kind, name=name, memory_bytes=0, torch=UNKNOWN, threads=0)


def _kind_of(name: str) -> DeviceKind:
    words = re.findall(r"[a-z0-9]+", name.lower())
    said = {_SAID[word] for word in words if word in _SAID}
    made = {k for k, p in _MAKERS.items() if any(re.fullmatch(p, word) for word in words)}
    for kinds in (said, made):
        if len(kinds) == 1:
            return kinds.pop()
    raise ValueError(f"the kind of device is not clear from {name!r}; give it: cpu, cuda or mps")


def parse_size_value(text: str) -> SizeValue:
    """The value of a model-size knob as typed by a user: int, float, bool or else text.

    Raises:
        UsageError: a number that is not finite.
    """
    lowered = text.strip().lower()
    if lowered in ("true", "false"):
        return lowered == "true"
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        if not is_finite(value):
            raise UsageError(f"a knob's value must be finite, but got {shown(text)}")
        return value
    return text.strip()
