"""Runs that were timed elsewhere, e.g. in the logs of a team's real runs, to measurements of ours.

    batch  epoch  seconds
       64      1     12.0 ┐
       64      2      1.0 ├ repeat 0, its first epoch a start
       64      3      1.1 ┘
       64      1     11.8 ┐ the epoch does not go up: another run of the same configuration,
       64      2      1.1 ┘ repeat 1

Rows with the same name of a run and the same configuration are one run, in the file's order.
Without either column every row is a run.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from itertools import count
from typing import Any, TextIO, TypeVar

import msgspec

from epochcast.costmodel.epoch import divide
from epochcast.errors import StoreError, UsageError
from epochcast.importers.columns import (
    COUNTS,
    KNOB,
    LARGEST,
    Column,
    ImportOptions,
    parse_amount,
    parse_amounts,
    parse_count,
    parse_knob,
    parse_name,
    parse_precision,
    parse_truth,
    parse_whole,
    understand,
)
from epochcast.importers.table import Cell, Malformed, Row, is_empty, read_text
from epochcast.profiler.target import canonical
from epochcast.records import Device, Footprint, Measurement, RunConfig, Warning_, make_sizes
from epochcast.records.configuration import device_named

Count = Callable[[RunConfig], Footprint | None]
CONFIG: dict[str, Callable[[Cell], Any]] = {  # fields of a RunConfig beside its knobs
    "batch_size": parse_whole,
    "accumulation": parse_whole,
    "precision": parse_precision,
    "workers": parse_count,
    "compiled": parse_truth,
    "drop_last": parse_truth,
}

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What was read from a file, as which columns, and what to say about it."""

    measurements: tuple[Measurement, ...]
    columns: tuple[Column, ...]
    warnings: tuple[Warning_, ...] = ()


def text_of(stream: TextIO) -> str:
    """All of a file.

    Raises:
        StoreError: it is not text.
    """
    try:
        return stream.read()
    except UnicodeDecodeError as error:
        raise StoreError(f"not UTF-8 text ({error.reason}); nothing was imported") from error


def is_export(text: str) -> bool:
    """Whether a text is what ``epochcast probes export`` writes."""
    lines = (line.strip() for line in io.StringIO(text.removeprefix("\ufeff")))
    first = next((line for line in lines if line), "")
    try:
        found = msgspec.json.decode(first, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return False
    return isinstance(found.get("config"), dict)


def read(
    text: str, options: ImportOptions, *, count: Count | None = None, at: datetime | None = None
) -> Imported:
    """The measurements in a CSV, in JSON or in JSON Lines.

    Args:
        text: of the file.
        options: what the user says about the file.
        count: the footprint of a configuration, where the file has none; called once for each.
        at: when they count as made; default: now.

    Raises:
        UsageError: the columns are not clear.
        StoreError: a row makes no sense; the message has its line and column.
    """
    try:
        table = read_text(text, strict=True)
        if not table.rows:
            only = "a header" if table.names else "an empty file"
            raise Malformed(
                f"there are no measurements in it, only {only}; a row needs at least batch_size "
                "and epoch_seconds or step_seconds"
            )
        columns = understand(table.names, options)
        entries = [_Reader(row, columns, options).entry() for row in table.rows]
        _require_same_knobs_everywhere(entries, columns)
        found = _measurements(
            _counted(entries, count) if count else entries, at or datetime.now(timezone.utc)
        )
    except Malformed as error:
        raise StoreError(f"{error}; nothing was imported") from error
    return Imported(measurements=found, columns=tuple(columns), warnings=_notes(found))


def _counted(entries: Sequence[Entry], count: Count) -> list[Entry]:
    configs = dict.fromkeys(entry.config for entry in entries if entry.footprint is None)
    known = {config: count(config) for config in configs}
    return [replace(e, footprint=e.footprint or known[e.config]) for e in entries]


def _notes(found: Sequence[Measurement]) -> tuple[Warning_, ...]:
    single = sum(bool(m.message) for m in found)
    details = (("count", str(single)), ("runs", str(len(found))))
    return (Warning_(code="one-time", details=details),) if single else ()


# Rows to entries: every cell by its column's role


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One row.

    Attributes:
        row: as it was written, to say what is wrong with it.
        run: which run it belongs to, as the file calls it; None if the file does not say.
        epoch: its number within the run, likewise.
        epoch_seconds, step_seconds: of these one has values.
    """

    row: Row
    workload: str
    device: Device
    config: RunConfig
    samples: int
    eval_samples: int
    run: str | None
    epoch: int | None
    epoch_seconds: tuple[float, ...]
    step_seconds: tuple[float, ...]
    eval_seconds: float | None
    save_seconds: float | None
    startup_seconds: float | None
    peak_bytes: int | None
    device_bytes: int | None
    footprint: Footprint | None


class _Reader:
    """One row, read by role."""

    def __init__(self, row: Row, columns: Sequence[Column], options: ImportOptions) -> None:
        self.row = row
        self.columns = columns
        self.options = options

    def entry(self) -> Entry:
        """The row as a whole.

        Raises:
            Malformed: a cell makes no sense, or there are not just epochs or just steps.
            UsageError: something is in no column and was not said either.
        """
        epochs = (*self._times("first_epoch_seconds"), *self._times("epoch_seconds"))
        steps = self._times("step_seconds")
        if bool(epochs) == bool(steps):
            found = "both are" if epochs else "neither is"
            problem = f"epoch_seconds or step_seconds is needed, but {found} given"
            timed = (c for c in self.columns if c.role in ("epoch_seconds", "step_seconds"))
            raise self.row.wrong(problem, next(timed).name)
        return Entry(
            row=self.row,
            workload=canonical(self._said("workload", self.options.workload, parse_name)),
            device=self._device(),
            config=self._config(),
            samples=self._said("samples", self.options.samples, parse_whole),
            eval_samples=self._eval_samples(),
            run=self._value("run", parse_name),
            epoch=self._value("epoch", parse_count),
            epoch_seconds=epochs,
            step_seconds=steps,
            eval_seconds=self._amount("eval_seconds"),
            save_seconds=self._amount("save_seconds"),
            startup_seconds=self._amount("startup_seconds"),
            peak_bytes=self._bytes("peak_bytes"),
            device_bytes=self._bytes("device_bytes"),
            footprint=self._footprint(),
        )

    def _filled(self, role: str) -> list[Column]:
        """The columns with this role that have something in this row, in their own order."""
        mine = (c for c in self.columns if c.role == role)
        filled = (c for c in mine if not is_empty(self.row.cells.get(c.name)))
        return sorted(filled, key=lambda column: column.order)

    def _values(self, role: str, parse: Callable[[Cell], _Value]) -> list[tuple[Column, _Value]]:
        found = ((column, self.row.get(column.name, parse)) for column in self._filled(role))
        return [(column, value) for column, value in found if value is not None]

    def _value(self, role: str, parse: Callable[[Cell], _Value]) -> _Value | None:
        """What the one column of a role says; None if it says nothing."""
        return next((value for _, value in self._values(role, parse)), None)

    def _said(self, role: str, option: _Value | None, parse: Callable[[Cell], _Value]) -> _Value:
        """What the user says, or else the file."""
        value = self._value(role, parse) if option is None else option
        if value is not None:
            return value
        column = next((c.name for c in self.columns if c.role == role), None)
        if column is not None:
            raise self.row.wrong(f"{role} is needed, but the cell is empty", column)
        raise UsageError(f"no column is {role}; say it with --{role.replace('_', '-')}")

    def _times(self, role: str) -> tuple[float, ...]:
        found = self._values(role, parse_amounts)
        return tuple(value * column.scale for column, values in found for value in values)

    def _amount(self, role: str) -> float | None:
        found = self._values(role, parse_amount)
        return next((value * column.scale for column, value in found), None)

    def _bytes(self, role: str) -> int | None:
        size = self._amount(role)
        if size is not None and not 1 <= size <= LARGEST:
            raise self.row.wrong(f"no device has {size:g} bytes", self._filled(role)[0].name)
        return None if size is None else round(size)

    def _config(self) -> RunConfig:
        ran = {role: self._value(role, parse) for role, parse in CONFIG.items()}
        known = {role: value for role, value in ran.items() if value is not None}
        known["batch_size"] = self._said("batch_size", None, parse_whole)
        sizes = {column.knob: value for column, value in self._values(KNOB, parse_knob)}
        return RunConfig(sizes=make_sizes(sizes), **known)

    def _eval_samples(self) -> int:
        found = self._value("eval_samples", parse_count)
        samples = found if self.options.eval_samples is None else self.options.eval_samples
        timed = self._filled("eval_seconds")
        if timed and not samples:
            problem = "how many samples were evaluated? name a column eval_samples or say it with "
            raise self.row.wrong(f"{problem}--eval-samples", timed[0].name)
        return samples or 0

    def _device(self) -> Device:
        name = self._said("device", self.options.device, parse_name)
        try:
            return device_named(name, self.options.device_kind)
        except ValueError as error:
            raise UsageError(f"{self.row.location}: {error} with --device-kind") from error

    def _footprint(self) -> Footprint | None:
        counts = {role: self._value(role, parse_whole) for role in COUNTS}
        known = {role: count for role, count in counts.items() if count is not None}
        return Footprint.of_counts(**known) if known else None


def _require_same_knobs_everywhere(entries: Sequence[Entry], columns: Sequence[Column]) -> None:
    """A knob has a value in all rows of a workload or in none."""
    expected: dict[str, set[str]] = {}
    for entry in entries:
        knobs = {name for name, _ in entry.config.sizes}
        odd = min(knobs ^ expected.setdefault(entry.workload, knobs), default=None)
        if odd is not None:
            column = next(c.name for c in columns if c.knob == odd)
            problem = f"the knob {odd!r} needs a value in every row of {entry.workload}, or in none"
            raise entry.row.wrong(problem, column)


# Entries to runs, and runs to measurements

Run = list[Entry]


def _measurements(entries: Sequence[Entry], at: datetime) -> tuple[Measurement, ...]:
    """A measurement per run, in the order they begin; each made a microsecond after the other."""
    moments = ((at + timedelta(microseconds=i)).isoformat(timespec="microseconds") for i in count())
    return numbered(
        [_measurement(run, at) for run, at in zip(_runs(entries), moments, strict=False)]
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
        raise entry.row.wrong(problem)
    return entry.epoch > last.epoch


def _require_same_knobs(before: Entry | None, entry: Entry) -> None:
    """A column that changes from one epoch of a run to the next is a result, e.g. its accuracy."""
    if before is None or before.epoch is None or entry.epoch != before.epoch + 1:
        return
    changed = sorted(set(before.config.sizes) ^ set(entry.config.sizes), key=repr)
    if changed and before.workload == entry.workload:
        name = changed[0][0]
        problem = f"it changes from epoch {before.epoch} of a run to the next, so it is no knob"
        raise entry.row.wrong(f"{problem}: --ignore {name}", name)


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
            config={name: getattr(config, name) for name in CONFIG if name != "batch_size"},
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
        raise first.row.wrong(str(error)) from error


def numbered(
    found: Iterable[Measurement], stored: Iterable[Measurement] = ()
) -> tuple[Measurement, ...]:
    """The measurements found, with a number of its own for every run of a configuration.

    Args:
        found: to be numbered.
        stored: measurements beside which they will stand. A run that is among them already keeps
            its number, so that importing a file twice changes nothing.
    """
    numbers: dict[object, dict[object, int]] = {}
    for m, key, identity in _identified(stored):
        numbers.setdefault(key, {})[identity] = m.round
    result = []
    for m, key, identity in _identified(found):
        taken = numbers.setdefault(key, {})
        free = 1 + max(taken.values(), default=-1)
        result.append(replace(m, round=taken.setdefault(identity, free)))
    return tuple(result)


def _identified(
    measurements: Iterable[Measurement],
) -> Iterator[tuple[Measurement, object, object]]:
    """Each with what it measured, and which it is among equal ones of that."""
    seen: Counter[object] = Counter()
    for m in measurements:
        key = (m.workload, m.source, m.data, m.device.key, m.config)
        times = (m.warmup_seconds, m.step_seconds)
        yield m, key, (times, seen[key, times])
        seen[key, times] += 1
