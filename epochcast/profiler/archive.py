"""What a sweep needs of the store, and what the store has of a sweep already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from epochcast.profiler.prepare import Prepared
from epochcast.profiler.protocol import TrialSpec
from epochcast.records import Footprint, Measurement, RunConfig, Sizes


class Archive(Protocol):
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
    ) -> None: ...


def stored(
    archive: Archive, prepared: Prepared, specs: Sequence[TrialSpec]
) -> tuple[Measurement, ...]:
    """All trials of these configurations, by this sweep or an earlier one."""
    requests = {spec.request for spec in specs}
    found = archive.measurements(prepared.request.target, source=prepared.source)
    key = prepared.device.key
    return tuple(m for m in found if m.request in requests and m.device.key == key)


def trials_done(archive: Archive, prepared: Prepared) -> set[tuple[str, int]]:
    """Trials not to be made again, as request and round.

    Those that succeeded, and all of a request that ran out of memory. Crashes and timeouts are
    tried again.
    """
    rounds = prepared.request.rounds
    done: set[tuple[str, int]] = set()
    for m in stored(archive, prepared, prepared.specs):
        if m.status == "ok" and m.round < rounds:
            done.add((m.request, m.round))
        elif m.status == "oom":
            done |= {(m.request, round_) for round_ in range(rounds)}
    return done


def with_outer_timelines(counted: Mapping[RunConfig, Footprint]) -> dict[RunConfig, Footprint]:
    """What was counted, with the timelines of each model's smallest and largest batch alone: two
    give the peaks of all, and each takes a hundred times as much room as the counts."""
    batch_sizes: dict[Sizes, list[int]] = {}
    for config in counted:
        batch_sizes.setdefault(config.sizes, []).append(config.batch_size)
    outer = {sizes: (min(of_it), max(of_it)) for sizes, of_it in batch_sizes.items()}
    return {
        c: x if c.batch_size in outer[c.sizes] else replace(x, timeline=None)
        for c, x in counted.items()
    }
