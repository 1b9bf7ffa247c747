"""What training steps cost when somebody last agreed to it: the file that ``check`` holds code to.

epochcast-baseline.json      entries: what was asked for │ what was counted │ what was timed
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from epochcast.records.configuration import RunConfig, Sizes
from epochcast.records.documents import SCHEMA
from epochcast.records.validation import require

Verdict = Literal["same", "better", "allowed", "worse", "unclear"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedStep:
    """Which training step is meant. What is left out is as the workload has it.

    Attributes:
        workload: its name.
        batch_size: micro-batch.
        sizes: model-size knobs.
        overrides: of the workload: accumulation, precision, …
    """

    workload: str
    batch_size: int | None = None
    sizes: Sizes = ()
    overrides: Sizes = ()

    @property
    def label(self) -> str:
        """``"train.py:workload batch_size=32 width=256"``."""
        batch = () if self.batch_size is None else (("batch_size", self.batch_size),)
        parts = [f"{name}={value}" for name, value in (*batch, *self.sizes, *self.overrides)]
        return " ".join([self.workload, *parts])


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedRounds:
    """A step as it was timed on one device, once in each of several processes.

    Attributes:
        device: by its key.
        label: of the device, for people.
        step_seconds: one of each process.
    """

    device: str
    label: str
    step_seconds: tuple[float, ...]

    def __post_init__(self) -> None:
        require(min(self.step_seconds, default=0.0) > 0.0, "step_seconds must be above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineEntry:
    """One training step.

    Attributes:
        config: that it runs in.
        torch: version that it was counted with; other releases may count otherwise.
        counts: by name, of the footprint; and ``samples``, of an epoch.
        peak_by_module: bytes alive at the peak, by the module that made them; what is there
            before a step begins by its kind, ``(parameter)``, ``(optimizer)``, …
        flops_by_module: of forward and backward.
        timed: on each device where that was asked for.
    """

    asked: AskedStep
    config: RunConfig
    torch: str
    counts: dict[str, int]
    peak_by_module: dict[str, int] = field(default_factory=dict)
    flops_by_module: dict[str, int] = field(default_factory=dict)
    timed: tuple[TimedRounds, ...] = ()

    def timed_on(self, device: str) -> TimedRounds | None:
        """What was timed on a device, by its key."""
        return next((timed for timed in self.timed if timed.device == device), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """All entries of a file."""

    schema: int = SCHEMA
    entries: tuple[BaselineEntry, ...] = ()

    def entry(self, asked: AskedStep) -> BaselineEntry | None:
        """The entry of a step, if it has one."""
        return next((entry for entry in self.entries if entry.asked == asked), None)

    def with_entry(self, entry: BaselineEntry) -> Baseline:
        """The same with this entry in the place of the one of its step, in a fixed order."""
        others = [other for other in self.entries if other.asked != entry.asked]
        entries = sorted([*others, entry], key=lambda e: e.asked.label)
        return Baseline(entries=tuple(entries))


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One number that is not what it was, or a time that was compared.

    Attributes:
        name: of the count, ``"step_seconds"``, or a setting of the configuration.
        before, after: numbers, or settings and what is unknown as text.
        verdict: ``"allowed"`` of a count that grew within its limit, ``"unclear"`` of a time where
            the rounds differ too much to tell.
        interval: of the ratio of two times, 90 %; None of a count, and where a single process
            on one of the sides bounds nothing.
        culprits: of the peak of training and of FLOPs, the modules whose share changed most.
    """

    name: str
    before: float | str
    after: float | str
    verdict: Verdict
    interval: tuple[float, float] | None = None
    culprits: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedStep:
    """A step beside its entry in the baseline.

    Attributes:
        before: None where the baseline had none.
        changes: nothing that is the same, but for times.
    """

    asked: AskedStep
    before: BaselineEntry | None
    after: BaselineEntry
    changes: tuple[Change, ...] = ()

    @property
    def untimed_before(self) -> tuple[TimedRounds, ...]:
        """What was timed now, and had nothing to be compared with."""
        if self.before is None:
            return ()
        return tuple(t for t in self.after.timed if self.before.timed_on(t.device) is None)

    @property
    def passed(self) -> bool:
        """Whether nothing became worse."""
        return not any(change.verdict == "worse" for change in self.changes)
