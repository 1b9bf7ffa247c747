"""What a run is predicted to cost, as quantiles."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from epochcast.records.configuration import Device, RunConfig

LEVELS = (0.05, 0.10, 0.50, 0.90, 0.95)  # of ``Quantiles``
ENDLESS = 10**9  # samples: a pass over them takes days at 10,000 a second


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantiles:
    """The 5th, 10th, 50th, 90th and 95th percentile of a quantity, whose unit is in its name."""

    p05: float
    p10: float
    p50: float
    p90: float
    p95: float

    def __post_init__(self) -> None:
        if not self.p05 <= self.p10 <= self.p50 <= self.p90 <= self.p95:
            raise ValueError(f"quantiles must be in order, but got {self}")

    @classmethod
    def of(cls, values: Iterable[float]) -> Quantiles:
        """From the quantity at each of the ``LEVELS``."""
        p05, p10, p50, p90, p95 = values
        return cls(p05=p05, p10=p10, p50=p50, p90=p90, p95=p95)

    @classmethod
    def exactly(cls, value: float) -> Quantiles:
        """A quantity without any uncertainty."""
        return cls.of([value] * len(LEVELS))

    @property
    def values(self) -> tuple[float, ...]:
        """The quantity at each of the ``LEVELS``."""
        return self.p05, self.p10, self.p50, self.p90, self.p95

    def __add__(self, other: Quantiles) -> Quantiles:
        """The sum of two comonotone quantities: their quantiles add up (Dhaene et al. 2002)."""
        return Quantiles.of(a + b for a, b in zip(self.values, other.values, strict=True))

    def scaled(self, factor: float) -> Quantiles:
        """All quantiles times a factor that is not negative."""
        return Quantiles.of(value * factor for value in self.values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Warning_:
    """Something the user should know; the text for each code lives in report/text/warnings.py."""

    code: str
    details: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, code: str, **details: str) -> Warning_:
        """The same, its details by name."""
        return cls(code=code, details=tuple(details.items()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """One term of a run's total time, e.g. all evaluations together.

    Attributes:
        count: how often it happens, e.g. 90 evaluations.
        seconds: all of them together.
        share: of the median total time, between 0 and 1.
    """

    name: str
    count: int
    seconds: Quantiles
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What one run is predicted to cost.

    Attributes:
        steps_per_epoch: optimizer steps of one epoch.
        steps: optimizer steps of the run, where it was asked for in those.
        step_seconds: one full micro-step.
        epoch_seconds: one steady epoch of training, evaluation and saves excluded.
        total_seconds: the run from process start to its end.
        peak_bytes: largest sum of live tensors on the device, in training or evaluation.
        allocated_bytes: what the framework's allocator hands out for that (accelerators only).
        reserved_bytes: what it takes from the device for that, fragmentation included.
        device_bytes: what the device must have for that: caches, context and libraries included.
        training_bytes, evaluation_bytes, saving_bytes: what each needs of ``device_bytes``, which
            is the most that any does; None where it was not measured, or the run has none.
        compute_seconds: a micro-step without update and without waiting for data, its median.
        loader_seconds: the loader alone, a batch, its median; None where it was not measured.
        cost: money, in the unit of the price; None without a price.
        energy_joules: of all devices together; None where their power is not known.
        probing_seconds: wall-clock time of all measurements behind this estimate.
        extrapolated: what lies outside the probed range, e.g. ``("batch_size",)``.
    """

    workload: str
    device: Device
    config: RunConfig
    samples: int
    epochs: float
    steps_per_epoch: int
    step_seconds: Quantiles
    epoch_seconds: Quantiles
    total_seconds: Quantiles
    terms: tuple[Term, ...]
    peak_bytes: Quantiles | None
    allocated_bytes: Quantiles | None
    reserved_bytes: Quantiles | None
    device_bytes: Quantiles | None
    training_bytes: Quantiles | None = None
    evaluation_bytes: Quantiles | None = None
    saving_bytes: Quantiles | None = None
    compute_seconds: float | None
    loader_seconds: float | None
    cost: Quantiles | None
    probing_seconds: float
    energy_joules: Quantiles | None = None
    steps: int | None = None
    extrapolated: tuple[str, ...] = ()
    warnings: tuple[Warning_, ...] = ()

    @property
    def has_epochs(self) -> bool:
        """Whether there are epochs to speak of: not where steps of an endless one are asked for."""
        return self.steps is None or self.samples < ENDLESS


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """The largest batch that fits a memory.

    Attributes:
        batch_size: the micro-batch.
        config: with that batch size.
        memory_bytes: that it fits.
        confidence: probability with which it fits.
        needed_bytes: that quantile of what it needs.
        device_bytes: all quantiles of it.
        limited_by: ``"memory"``, or ``"samples"`` where the whole data set fits into one batch.
        extrapolated: what lies outside the probed range.
    """

    batch_size: int
    config: RunConfig
    memory_bytes: int
    confidence: float
    needed_bytes: float
    device_bytes: Quantiles | None
    limited_by: Literal["memory", "samples"]
    extrapolated: tuple[str, ...] = ()
