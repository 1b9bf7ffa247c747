"""Entries to measurements: which rows are one run, and which runs repeat a configuration.

    batch  epoch  seconds
       64      1     12.0 ┐
       64      2      1.0 ├ run 0, its first epoch a start
       64      3      1.1 ┘
       64      1     11.8 ┐ the epoch does not go up: another run of the same configuration,
       64      2      1.1 ┘ round 1

Rows with the same name of a run and the same configuration are one run, in the file's order.
Without either column every row is a run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import count

from epochcast.costmodel.epoch import divide
from epochcast.importers.entries import Entry
from epochcast.importers.table import malformed
from epochcast.records import Measurement

Run = list[Entry]


def measurements_of(entries: Sequence[Entry], at: datetime) -> tuple[Measurement, ...]:
    """A measurement per run, in the order the runs begin.

    Args:
        at: when the first counts as made; the others follow by a microsecond each, so that the
            last of the file is the most recent one.

    Raises:
        StoreError: epochs of a run are out of order, or a run is not possible.
    """
    moments = (at + timedelta(microseconds=i) for i in count())
    return numbered(
        [
            _measurement(run, moment.isoformat(timespec="microseconds"))
            for run, moment in zip(_runs(entries), moments, strict=False)
        ]
    )


def _runs(entries: Iterable[Entry]) -> list[Run]:
    runs: list[Run] = []
    open_: dict[object, Run] = {}
    latest: dict[str | None, Entry] = {}  # of each named run, or of all
    for entry in entries:
        key = (entry.run, entry.workload, entry.device, entry.config, entry.samples)
        run = open_.get(key)
        if run is None or not _continues(run, entry):
            _require_same_knobs(latest.get(entry.run), entry)
            run = open_[key] = []
            runs.append(run)
        run.append(entry)
        latest[entry.run] = entry
    return runs


def _continues(run: Run, entry: Entry) -> bool:
    last = run[-1]
    if entry.epoch is None or last.epoch is None:
        return entry.run is not None
    if entry.run is not None and entry.epoch <= last.epoch:
        problem = f"run {entry.run} is at epoch {last.epoch} already, but this is {entry.epoch}"
        raise malformed(entry.line, problem)
    return entry.epoch > last.epoch


def _require_same_knobs(before: Entry | None, entry: Entry) -> None:
    """A column that changes from one epoch of a run to the next is a result, e.g. its accuracy."""
    if before is None or before.epoch is None or entry.epoch != before.epoch + 1:
        return
    if before.workload != entry.workload:
        return
    changed = sorted(set(before.config.sizes) ^ set(entry.config.sizes), key=repr)
    if changed:
        name = changed[0][0]
        problem = f"it changes from epoch {before.epoch} of a run to the next, so it is no knob"
        raise malformed(entry.line, f"{problem}: --ignore {name}", name)


def _measurement(run: Run, created_at: str) -> Measurement:
    first, config = run[0], run[0].config
    evaluated = [e.eval_seconds for e in run if e.eval_seconds is not None]
    batches = divide(first.eval_samples, config.batch_size, 1, 1).micro_batches
    try:
        return Measurement.from_epochs(
            first.workload,
            config.batch_size,
            [seconds for e in run for seconds in e.epoch_seconds],
            step_seconds=[seconds for e in run for seconds in e.step_seconds],
            samples=first.samples,
            device=first.device,
            sizes=dict(config.sizes),
            config=_way(first),
            includes_first=first.epoch is None or first.epoch <= 1,
            peak_bytes=max((e.peak_bytes for e in run if e.peak_bytes), default=None),
            device_bytes=max((e.device_bytes for e in run if e.device_bytes), default=None),
            created_at=created_at,
            footprint=next((e.footprint for e in run if e.footprint), None),
            eval_samples=first.eval_samples,
            eval_batch_seconds=tuple(seconds / batches for seconds in evaluated),
            save_seconds=tuple(e.save_seconds for e in run if e.save_seconds),
            import_seconds=next((e.startup_seconds for e in run if e.startup_seconds), 0.0),
        )
    except ValueError as error:
        raise malformed(first.line, str(error)) from error


def _way(entry: Entry) -> dict[str, object]:
    """How the configuration ran, beyond its batch size and knobs."""
    names = ("accumulation", "precision", "workers", "compiled", "drop_last")
    return {name: getattr(entry.config, name) for name in names}


def numbered(
    found: Iterable[Measurement], stored: Iterable[Measurement] = ()
) -> tuple[Measurement, ...]:
    """The measurements found, with a round of its own for every run of a configuration.

    Args:
        stored: measurements beside which they will stand. A run that is among them already keeps
            its round, so that importing a file twice changes nothing.
    """
    rounds: dict[object, dict[object, int]] = {}
    for m, place, identity in _identified(stored):
        rounds.setdefault(place, {})[identity] = m.round
    result = []
    for m, place, identity in _identified(found):
        taken = rounds.setdefault(place, {})
        free = 1 + max(taken.values(), default=-1)
        result.append(replace(m, round=taken.setdefault(identity, free)))
    return tuple(result)


def _identified(
    measurements: Iterable[Measurement],
) -> Iterator[tuple[Measurement, object, object]]:
    """Each with what it measured, and which it is among equal ones of that."""
    seen: Counter[object] = Counter()
    for m in measurements:
        place = (m.workload, m.source, m.data, m.device.key, m.config)
        times = (m.warmup_seconds, m.step_seconds)
        yield m, place, (times, seen[place, times])
        seen[place, times] += 1
