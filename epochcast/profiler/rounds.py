"""Rounds over configurations: every one once a round, every trial kept the moment it ends.

    round 0   config 3 │ config 1 │ config 4 │ config 2       in an order drawn for each round
    round 1   config 2 │ config 4 │ config 1 │ config 3
    …

What a configuration is, and how a trial of it is made, is for the kind of sweep to say: of a
workload in worker processes (``sweep.py``), of a script as it is (``scripts/sweep.py``). Trials
found in the store are not made again. No torch in here.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from epochcast.errors import UsageError
from epochcast.records import Device, Footprint, Measurement, RunConfig, Warning_
from epochcast.records.measurement import IMPORTED, named_target


class SweepStore(Protocol):
    """The part of the store that a sweep needs."""

    @property
    def folder(self) -> Path: ...
    @property
    def log_folder(self) -> Path: ...
    def add(self, measurement: Measurement) -> None: ...
    def remove(self, keys: Sequence[str]) -> int: ...
    def measurements(
        self, workload: str | None = None, *, source: str | None = None
    ) -> tuple[Measurement, ...]: ...
    def add_footprints(
        self,
        workload: str,
        source: str,
        footprints: Mapping[RunConfig, Footprint],
        data: str = "",
    ) -> None:
        """Save what dry runs counted.

        Args:
            workload: the target, for all its names.
            source: the fingerprint of its code.
            footprints: what one dry run of each configuration counted.
            data: where its batches came from, as in ``Measurement.data``.
        """


class Observer(Protocol):
    """Receives the progress of a sweep; ``report/text/`` has those that write to a terminal."""

    def begin(self, trials: int | None, done: int, device: Device | None, data: str) -> None:
        """The rounds begin.

        Args:
            trials: to be made; None where the sweep chooses.
            done: trials that the store has already.
            device: that is measured; None where that is not known yet.
            data: where the training data comes from.
        """
        return

    def phase(self, label: str, phase: str) -> None:
        """A phase of what is done with a configuration begins."""
        return

    def finished(self, measurement: Measurement) -> None:
        """A trial has ended, well or not."""
        return

    def warn(self, warning: Warning_) -> None:
        """Something happened that the sweep survives."""
        return


class SilentObserver(Observer):
    """Ignores everything."""


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A configuration that was asked for and not tried, because it will not fit the device.

    Attributes:
        needed_bytes: that the device would have to have at least, by a dry run.
        device_bytes: that it has.
    """

    config: RunConfig
    needed_bytes: float
    device_bytes: float


class SweepEnding(NamedTuple):
    """Why the rounds of a sweep ended; ``half_width`` as in ``SweepResult``."""

    why: str
    half_width: float | None = None


@dataclass(frozen=True, kw_only=True)
class SweepResult:
    """What a sweep found and why it stopped.

    Attributes:
        measurements: of the configurations asked for, stored earlier or now.
        seconds: wall-clock time of this sweep.
        stopped: ``"complete"``, ``"max-rounds"``, ``"max-seconds"`` or ``"nothing-succeeded"``; of
            a sweep that chooses also ``"sharp"``.
        half_width: half the relative width of the 90 % interval of the answer, when it stopped; of
            a sweep that did not choose that of the steps of a later run, by how rounds differ.
        left_out: configurations that were asked for and not tried.
    """

    measurements: tuple[Measurement, ...]
    seconds: float
    stopped: str
    half_width: float | None = None
    left_out: tuple[LeftOut, ...] = ()

    @property
    def rounds(self) -> int:
        """Rounds in which anything was measured, earlier ones included."""
        return len({m.round for m in self.measurements if m.status == "ok"})

    @property
    def succeeded(self) -> bool:
        """Whether any configuration was measured."""
        return any(m.status == "ok" for m in self.measurements)


class RoundsRequest(Protocol):
    """The part of a request that rounds are made by; as of ``SweepRequest``."""

    @property
    def first_rounds(self) -> int: ...
    @property
    def rounds(self) -> int | None: ...
    @property
    def max_seconds(self) -> float | None: ...
    @property
    def seed(self) -> int: ...
    @property
    def target(self) -> str:
        """What is measured."""

    @property
    def called(self) -> str:
        """What it is called: its target, unless a person gave it a name."""

    @property
    def note(self) -> str: ...


class Spec(Protocol):
    """A configuration to measure."""

    @property
    def request(self) -> str:
        """Fingerprint of what is asked for; measurements have it too."""


_Spec = TypeVar("_Spec", bound=Spec)
_Item = TypeVar("_Item")


class Rounds(ABC, Generic[_Spec]):
    """Rounds over configurations, of whatever kind: what is done, kept, told, and when it ends.

    Args:
        asked: for.
        specs: every configuration.
        store: takes each trial the moment it ends.
        observer: receives the progress of the sweep.
        clock: seconds since the sweep began.

    Attributes:
        began_at: when it did, ISO 8601 in UTC.
        failed: requests that gave no measurement in this sweep.
        left_out: configurations that were asked for and are not among ``specs`` any more.
        late: whether there was something that there was no time for.
    """

    def __init__(
        self,
        *,
        asked: RoundsRequest,
        specs: Sequence[_Spec],
        store: SweepStore,
        observer: Observer,
        clock: Callable[[], float],
    ) -> None:
        self.asked = asked
        self.specs = specs
        self.store = store
        self.observer = observer
        self.clock = clock
        self.began_at = datetime.now(timezone.utc).isoformat(timespec="microseconds")
        self.failed: set[str] = set()
        self.left_out: list[LeftOut] = []
        self.late = False
        self._longest_trial = 0.0
        self._warned: set[str] = set()

    @abstractmethod
    def begin(self, trials: int | None, done: int) -> None:
        """Tell the observer that the rounds begin; ``None`` trials where the sweep chooses."""

    @abstractmethod
    def stored(self, specs: Iterable[_Spec] | None = None) -> tuple[Measurement, ...]:
        """All trials of these configurations, or of all, by this sweep or an earlier one."""

    @abstractmethod
    def make_trials(self, order: Iterable[_Spec], round_: int) -> bool:
        """Make the trials of a round; whether there was time for all."""

    def note(self, code: str, **details: str) -> None:
        """Warn of something that the sweep survives."""
        self.observer.warn(Warning_.of(code, **details))

    @property
    def out_of_time(self) -> bool:
        """Whether another trial, as long as the longest so far, would end too late."""
        limit = self.asked.max_seconds
        return limit is not None and self.clock() + self._longest_trial > limit

    def in_time(self, items: Iterable[_Item]) -> Iterator[_Item]:
        """Those of them that there is time for when they are taken."""
        for item in items:
            if self.out_of_time:
                self.late = True
                return
            yield item

    def done(self, rounds: range) -> set[tuple[str, int]]:
        """Trials of these rounds not to be made again, as request and round.

        Those that succeeded, and all of a request that ran out of memory. Crashes and timeouts are
        tried again.
        """
        done: set[tuple[str, int]] = set()
        for m in self.stored():
            if m.status == "ok" and m.round in rounds:
                done.add((m.request, m.round))
            elif m.status == "oom":
                done |= {(m.request, round_) for round_ in rounds}
        return done

    def keep(self, measurement: Measurement, seconds: float) -> Measurement:
        """Store the result of a trial that took so long, and tell of it."""
        self._longest_trial = max(self._longest_trial, seconds)
        asked = self.asked
        measurement = replace(
            measurement, workload=asked.called, note=asked.note, sweep=self.began_at
        )
        if measurement.status != "ok":
            self.failed.add(measurement.request)
            measurement = replace(measurement, probe_seconds=seconds)
        self.store.add(measurement)
        self.observer.finished(measurement)
        if measurement.status == "ok" and measurement.message:
            self.warn_once(Warning_.of("no-save", why=measurement.message))
        for warning in measurement.warnings:
            self.warn_once(warning)
        return measurement

    def warn_once(self, warning: Warning_) -> None:
        """What is true of one trial is mostly true of all."""
        if warning.code not in self._warned:
            self._warned.add(warning.code)
            self.observer.warn(warning)


def require_own_name(name: str, target: str, stored: Iterable[Measurement]) -> None:
    """Refuse to measure one target under the name of another: they would pass for the same.

    Args:
        name: that measurements are to have.
        target: what is measured.
        stored: under that name; runs that were timed elsewhere may be of any code.

    Raises:
        UsageError: some are of another target.
    """
    for m in stored:
        if m.target != target and m.data != IMPORTED:
            another = f"not of {target}: give another --name"
            itself = f"so measure it by epochcast probe {named_target(name, m.target)}"
            raise UsageError(
                f"{name!r} is the name of {m.target} in this store, "
                f"{itself if name == target and m.script is None else another}"
            )


def every_round(sweep: Rounds[Any]) -> SweepEnding:
    """Every configuration in every round asked for."""
    rounds = range(sweep.asked.first_rounds)
    done = sweep.done(rounds)
    sweep.begin(len(sweep.specs) * len(rounds) - len(done), len(done))
    return make_rounds(sweep, rounds)


def make_rounds(sweep: Rounds[Any], rounds: range) -> SweepEnding:
    """Every configuration in some rounds, in an order drawn for each."""
    request, done = sweep.asked, sweep.done(rounds)
    for round_ in rounds:
        order = [
            spec
            for spec in sweep.specs
            if (spec.request, round_) not in done and spec.request not in sweep.failed
        ]
        random.Random(f"{request.seed}/{round_}").shuffle(order)
        if not sweep.make_trials(order, round_):
            return SweepEnding("max-seconds")
        if order and not any(m.status == "ok" for m in sweep.stored()):
            return SweepEnding("nothing-succeeded")
    return SweepEnding("complete")
