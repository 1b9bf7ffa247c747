"""What a user asks a sweep for, checked against the workload, and the grid of visits it means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

from epochcast.errors import UsageError
from epochcast.profiler.protocol import Description, VisitSpec, WorkloadSpec
from epochcast.records import SizeValue, make_sizes

DEFAULT_ROUNDS = (
    3  # the fewest that give a between-process variance with a degree of freedom to spare
)
DEFAULT_TIMEOUT_SECONDS = 600.0
DEFAULT_STEADY_SECONDS = 1.0
DEFAULT_BATCH_FACTORS = (0.25, 0.5, 1, 2)  # of the workload's own batch size, if none are given
MAX_THREADS = 8192  # the most CPUs that Linux knows (NR_CPUS on x86-64)
OVERRIDES = ("accumulation", "compile", "drop_last", "precision", "workers")


@dataclass(frozen=True, kw_only=True)
class SweepRequest:
    """What to probe.

    Attributes:
        batch_sizes: empty for a few around the workload's own.
        sizes: values to visit for each model-size knob; knobs left out keep their defaults.
        overrides: attributes of the workload to change, among ``OVERRIDES``.
        device: as torch names it.
        threads: intra-operator CPU threads; None leaves torch's choice.
        rounds: passes over all configurations, each in a fresh process.
        steady_seconds: how long each visit times steady steps.
        max_seconds: begin no visit that would end later than this.
        timeout_seconds: for one visit; then its process is ended.
        data: folder of local data.
        fresh: forget stored measurements of the same configurations first.
        noise_scale: whether to take gradients at two batch sizes, once for each model size.
        traces: whether to write a torch.profiler trace of each configuration.
        seed: of the order of visits.
    """

    target: str
    batch_sizes: Sequence[int] = ()
    sizes: Mapping[str, Sequence[SizeValue]] = field(default_factory=dict)
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
    def workload(self) -> WorkloadSpec:
        """The part that all visits share."""
        return WorkloadSpec(
            target=self.target,
            data=self.data,
            overrides=make_sizes(self.overrides),
            device=self.device,
            threads=self.threads,
        )


def grid(request: SweepRequest, known: Description, batch_sizes: Sequence[int]) -> list[VisitSpec]:
    """Every configuration once, in the order given; ``check_knobs`` has passed."""
    knobs = dict(known.knobs)
    values = [dict.fromkeys(request.sizes.get(name, (default,))) for name, default in known.knobs]
    return [
        VisitSpec(
            workload=request.workload,
            sizes=make_sizes(dict(zip(knobs, combination, strict=True))),
            batch_size=batch_size,
            steady_seconds=request.steady_seconds,
        )
        for combination in product(*values)
        for batch_size in dict.fromkeys(batch_sizes)
    ]


def default_batch_sizes(own: int, samples: int) -> tuple[int, ...]:
    """A few around the workload's own, none larger than its data set."""
    sizes = (max(1, round(own * factor)) for factor in DEFAULT_BATCH_FACTORS)
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
        for value in values:
            _check_knob_type(name, value, knobs[name])
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
