"""What is asked of a probe of a script, as a library or an option says it.

template, choices ──▶ specs: one command for each combination of values
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from epochcast.errors import UsageError
from epochcast.profiler.request import DEFAULT_ROUNDS, DEFAULT_TIMEOUT_SECONDS
from epochcast.profiler.target import called, require_name
from epochcast.records import RunConfig, make_sizes
from epochcast.scripts.command import EPOCHS, Filled, Template, combinations, require_program

DEFAULT_EPOCHS = 3  # in miniature: the first, and two that are steady
DEFAULT_PASS_SECONDS = 4.0  # of training in each of them
EVALUATION_SHARE = 0.5  # of that, for each pass that evaluates
WORD_SECONDS = 10.0  # from torch being there to a word of the bootstrap
HEARD_SECONDS = (
    300.0  # likewise where the process had said that it began: torch may load for minutes
)
DECIDING = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "KERAS_BACKEND")
Isolation = Literal["auto", "overlay", "journal", "none"]


@dataclass(frozen=True, kw_only=True)
class ScriptSpec:
    """One configuration of a script.

    Attributes:
        values: of each name in the command, as they are to be written.
        template: the command without them.
        filled: with them.
        told: what else decides what is measured.
    """

    values: tuple[tuple[str, str], ...]
    template: Template
    filled: Filled
    told: tuple[object, ...] = ()

    @property
    def request(self) -> str:
        """Fingerprint of what is started."""
        environment = [(name, os.environ.get(name)) for name in DECIDING]
        text = repr((self.filled.request, self.told, environment))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def label(self) -> str:
        """For people: ``"batch_size=16 width=256"``."""
        return " ".join(f"{name}={value}" for name, value in self.values) or "as it is"

    @property
    def config(self) -> RunConfig:
        """As far as the values say, of a trial that did not get to say more."""
        values = dict(self.values)
        known: dict[str, Any] = {"batch_size": 1} | self.template.settings(values)
        return RunConfig(**known, sizes=make_sizes(self.template.knobs(values)))


@dataclass(frozen=True, kw_only=True)
class ScriptRequest:
    """What to probe.

    Attributes:
        template: the command.
        choices: values of each name in it, as they are to be written.
        folder: where to start it.
        name: what to call the workload; default: as the script is called.
        epochs: of a miniature run.
        pass_seconds: of training in each of them.
        rounds: passes over all configurations; None is the default, and more where they differ.
        max_seconds: begin no trial that would end later than this.
        timeout_seconds: for one trial; then all its processes are ended.
        steps_per_epoch: optimizer steps of an epoch, for scripts whose loader does not tell.
        samples: of an epoch, likewise.
        traces: whether to write a torch.profiler trace of each configuration.
        fresh: forget stored measurements of the same configurations first.
        note: what a person says of these measurements.
        isolation: how what it writes is undone: by an overlay of the folder where the system
            allows it, by a journal alone, or not at all.
        seed: of the order of trials.

    Raises:
        UsageError: a value is not possible, or does not fit the command.
    """

    template: Template
    choices: Mapping[str, Sequence[str]] = field(default_factory=dict)
    folder: Path = field(default_factory=Path.cwd)
    name: str | None = None
    epochs: int = DEFAULT_EPOCHS
    pass_seconds: float = DEFAULT_PASS_SECONDS
    rounds: int | None = None
    max_seconds: float | None = None
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    steps_per_epoch: int | None = None
    samples: int | None = None
    traces: bool = False
    fresh: bool = False
    note: str = ""
    isolation: Isolation = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        lowest = {"epochs": 1, "rounds": 1, "steps_per_epoch": 1, "samples": 1}
        for name, least in (lowest | {"pass_seconds": 0.1, "timeout_seconds": 1}).items():
            value = getattr(self, name)
            if value is not None and not value >= least:
                raise UsageError(f"{name} must be at least {least}, but got {value}")
        if self.steps_per_epoch is not None and self.samples is not None:
            raise UsageError("an epoch is so many steps or so many samples: leave one of them out")
        batches = set(self.choices.get("batch_size", ()))
        if self.steps_per_epoch is not None and len(batches) > 1:
            raise UsageError(
                "with several batch sizes an epoch is not the same number of steps: give --samples "
                "instead of --steps-per-epoch"
            )
        require_name(self.name, self.target)
        require_program(self.specs[0].filled, self.folder)

    @property
    def first_rounds(self) -> int:
        """Rounds that are made in any case."""
        return DEFAULT_ROUNDS if self.rounds is None else self.rounds

    @property
    def target(self) -> str:
        """The script itself: its file as it was written, or its module."""
        return self.template.workload

    @property
    def called(self) -> str:
        """The name that measurements have."""
        return called(self.name, self.target)

    @cached_property
    def specs(self) -> list[ScriptSpec]:
        """Every configuration once, in the order given."""
        told = (self.steps_per_epoch, self.samples)
        return [
            ScriptSpec(
                values=tuple(values.items()),
                template=self.template,
                filled=self.template.filled({**values, EPOCHS: str(self.epochs)}),
                told=told,
            )
            for values in combinations(self.template, self.choices)
        ]
