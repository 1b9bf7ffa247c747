"""What a user asks a sweep for, checked against the workload, and the grid of trials it means."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

from epochcast.errors import UsageError
from epochcast.profiler.protocol import Description, TrialSpec, WorkloadSpec
from epochcast.records import SizeValue, make_sizes

DEFAULT_ROUNDS = (
    3  # the fewest that give a between-process variance with a degree of freedom to spare
)
DEFAULT_TIMEOUT_SECONDS = 600.0
DEFAULT_STEADY_SECONDS = 1.0
DEFAULT_BATCH_FACTORS = (0.25, 0.5, 1, 2)  # of the workload's own batch size, if none are given
MAX_THREADS = 8192  # the most CPUs that Linux knows (NR_CPUS on x86-64)
CANDIDATE_BATCH_FACTORS = (0.25, 0.5, 1, 2, 4)  # that a sweep chooses among
MAX_CANDIDATES = 6  # values of one knob: more would be dry runs for little
QUESTION = ("epochs", "steps", "batch_size")
OVERRIDES = ("accumulation", "compile", "drop_last", "precision", "workers")


@dataclass(frozen=True)
class Range:
    """``128..2048``: values of a knob between two bounds, of which a sweep chooses some."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high < math.inf:
            raise UsageError(f"a range needs 0 < low < high, but got {self.low}..{self.high}")

    def values(self) -> tuple[SizeValue, ...]:
        """Candidates in it: all whole numbers of a short range, else doublings, both ends too."""
        whole = isinstance(self.low, int) and isinstance(self.high, int)
        if whole and self.high - self.low < MAX_CANDIDATES:
            return tuple(range(int(self.low), int(self.high) + 1))
        doublings = math.floor(math.log2(self.high / self.low) + 1e-9)
        step = max(1, math.ceil(doublings / (MAX_CANDIDATES - 1)))
        inner = [self.low * 2**k for k in range(0, doublings + 1, step)]
        found = [*inner, self.high] if inner[-1] < self.high else inner
        return tuple(round(value) for value in found) if whole else tuple(found)


@dataclass(frozen=True, kw_only=True)
class SweepRequest:
    """What to probe.

    Attributes:
        batch_sizes: empty for a few around the workload's own.
        sizes: values to measure of each model-size knob, or a range of which some are chosen; knobs
            left out keep their defaults.
        overrides: attributes of the workload to change, among ``OVERRIDES``.
        device: as torch names it.
        threads: intra-operator CPU threads; None leaves torch's choice.
        rounds: passes over all configurations, each in a fresh process.
        steady_seconds: how long each trial times steady steps.
        max_seconds: begin no trial that would end later than this.
        timeout_seconds: for one trial; then its process is ended.
        data: folder of local data.
        fresh: forget stored measurements of the same configurations first.
        noise_scale: whether to take gradients at two batch sizes, once for each model size.
        traces: whether to write a torch.profiler trace of each configuration.
        seed: of the order of trials.
        asked: a question to choose configurations for: ``epochs``, ``batch_size`` and knobs.
        until: half the relative width of the answer's 90 % interval at which to stop.
    """

    target: str
    batch_sizes: Sequence[int] = ()
    sizes: Mapping[str, Sequence[SizeValue] | Range] = field(default_factory=dict)
    overrides: Mapping[str, SizeValue] = field(default_factory=dict)
    device: str = "auto"
    threads: int | None = None
    rounds: int = DEFAULT_ROUNDS
    steady_seconds: float = DEFAULT_STEADY_SECONDS
    max_seconds: float | None = None
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    data: str | None = None
    fresh: bool = False
    noise_scale: bool = False
    traces: bool = True
    seed: int = 0
    asked: Mapping[str, SizeValue] = field(default_factory=dict)
    until: float | None = None

    def __post_init__(self) -> None:
        for name, least in (("rounds", 1), ("steady_seconds", 0.01), ("timeout_seconds", 1)):
            if getattr(self, name) < least:
                raise UsageError(f"{name} must be at least {least}, but got {getattr(self, name)}")
        if self.threads is not None and not 1 <= self.threads <= MAX_THREADS:
            raise UsageError(f"threads must be 1 to {MAX_THREADS}, but got {self.threads}")
        if any(size < 1 for size in self.batch_sizes):
            raise UsageError(f"batch sizes must be at least 1, but got {list(self.batch_sizes)}")
        unknown = set(self.overrides) - set(OVERRIDES)
        if unknown:
            raise UsageError(f"overrides are {', '.join(OVERRIDES)}, but got {', '.join(unknown)}")

    @property
    def chooses(self) -> bool:
        """Whether the sweep chooses among its configurations instead of measuring all."""
        ranges = any(isinstance(values, Range) for values in self.sizes.values())
        return ranges or bool(self.asked) or self.until is not None

    @property
    def workload(self) -> WorkloadSpec:
        """The part that all trials share."""
        return WorkloadSpec(
            target=self.target,
            data=self.data,
            overrides=make_sizes(self.overrides),
            device=self.device,
            threads=self.threads,
        )


def grid(request: SweepRequest, known: Description, batch_sizes: Sequence[int]) -> list[TrialSpec]:
    """Every configuration once, in the order given; ``check_knobs`` has passed."""
    knobs = dict(known.knobs)
    values = [_values(request, name, default) for name, default in known.knobs]
    return [
        TrialSpec(
            workload=request.workload,
            sizes=make_sizes(dict(zip(knobs, combination, strict=True))),
            batch_size=batch_size,
            steady_seconds=request.steady_seconds,
        )
        for combination in product(*values)
        for batch_size in dict.fromkeys(batch_sizes)
    ]


def _values(request: SweepRequest, name: str, default: SizeValue) -> list[SizeValue]:
    """Of one knob: as asked for, and what the question is about."""
    wanted = request.sizes.get(name, (default,))
    values = list(wanted.values() if isinstance(wanted, Range) else wanted)
    return list(dict.fromkeys([*values, *([request.asked[name]] if name in request.asked else [])]))


def default_batch_sizes(own: int, samples: int) -> tuple[int, ...]:
    """A few around the workload's own, none larger than its data set."""
    return _multiples(own, samples, DEFAULT_BATCH_FACTORS)


def candidate_batch_sizes(request: SweepRequest, own: int, samples: int) -> tuple[int, ...]:
    """Those a sweep chooses among: as asked for, or around the own; and the question's."""
    sizes = request.batch_sizes or _multiples(own, samples, CANDIDATE_BATCH_FACTORS)
    asked = request.asked.get("batch_size")
    return tuple(sorted({*sizes, *([asked] if isinstance(asked, int) else [])}))


def _multiples(own: int, samples: int, factors: Sequence[float]) -> tuple[int, ...]:
    sizes = (max(1, round(own * factor)) for factor in factors)
    return tuple(dict.fromkeys(size for size in sizes if size <= samples))


def check_knobs(request: SweepRequest, known: Description) -> None:
    """Compare what is asked for with what the workload function takes.

    Raises:
        UsageError: an unknown knob, a value of another type, local data that it cannot use.
    """
    knobs = dict(known.knobs)
    for name, values in request.sizes.items():
        if name not in knobs:
            raise UsageError(
                f"{request.target} has no knob {name!r}; it has: {', '.join(knobs) or 'none'}"
            )
        if not values:
            raise UsageError(f"--set {name}= needs at least one value")
        for value in values.values() if isinstance(values, Range) else values:
            _check_knob_type(name, value, knobs[name])
    for name, value in request.asked.items():
        if name in knobs:
            _check_knob_type(name, value, knobs[name])
        elif name not in QUESTION:
            raise UsageError(f"--for knows {', '.join((*QUESTION, *knobs))}, but got {name!r}")
    if request.data is not None and not known.takes_data:
        raise UsageError(f"{request.target} has no 'data' argument, so it cannot use --data")


def _check_knob_type(name: str, value: SizeValue, default: SizeValue) -> None:
    numeric = isinstance(default, int | float) and not isinstance(default, bool)
    same = type(value) is type(default) or (
        numeric and isinstance(value, int | float) and not isinstance(value, bool)
    )
    if not same or (isinstance(default, int) and isinstance(value, float)):
        raise UsageError(
            f"knob {name!r} takes values like {default!r} ({type(default).__name__}), "
            f"but got {value!r}"
        )
