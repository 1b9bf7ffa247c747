"""Rows to entries: every cell by its column's role, every problem by its line and column."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from epochcast.errors import UsageError
from epochcast.importers import cells
from epochcast.importers.columns import COUNTS, KNOB, Column, Options
from epochcast.importers.table import Cell, Row, is_empty, malformed
from epochcast.profiler.source import canonical
from epochcast.records import Device, Footprint, RunConfig, Sizes, make_sizes
from epochcast.records.elsewhere import device_named

Value = TypeVar("Value")

CONFIG: dict[str, Callable[[Cell], Any]] = {
    "batch_size": cells.whole,
    "accumulation": cells.whole,
    "precision": cells.precision,
    "workers": lambda cell: cells.whole(cell, 0),
    "compiled": cells.truth,
    "drop_last": cells.truth,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One row.

    Attributes:
        run: which run it belongs to, as the file calls it; None if the file does not say.
        epoch: its number within the run, likewise.
        epoch_seconds, step_seconds: of these one has values.
    """

    line: int
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


def read_entries(rows: Sequence[Row], columns: Sequence[Column], options: Options) -> list[Entry]:
    """The entries of a table.

    Raises:
        StoreError: a cell makes no sense; the message has its line and column.
        UsageError: something is in no column and was not said either.
    """
    entries: list[Entry] = []
    knobs: dict[str, tuple[str, ...]] = {}  # by workload: a knob has a value in all rows or none
    for row in rows:
        entry = _Reader(row, columns, options).entry()
        names = tuple(name for name, _ in entry.config.sizes)
        expected = knobs.setdefault(entry.workload, names)
        if names != expected:
            odd = min(set(names) ^ set(expected))
            problem = f"the knob {odd!r} needs a value in every row of {entry.workload}, or in none"
            raise malformed(row.line, problem, _column_of(odd, columns))
        entries.append(entry)
    return entries


def _column_of(knob: str, columns: Sequence[Column]) -> str:
    return next(column.name for column in columns if column.knob == knob)


class _Reader:
    """One row, read by role."""

    def __init__(self, row: Row, columns: Sequence[Column], options: Options) -> None:
        self.row = row
        self.columns = columns
        self.options = options

    def entry(self) -> Entry:
        """The row as a whole."""
        epochs, steps = self._epochs(), self._times("step_seconds")
        if bool(epochs) == bool(steps):
            found = "both are" if epochs else "neither is"
            problem = f"epoch_seconds or step_seconds is needed, but {found} given"
            raise malformed(self.row.line, problem, self._timed().name)
        return Entry(
            line=self.row.line,
            workload=canonical(self._said("workload", self.options.workload, cells.name)),
            device=self._device(),
            config=self._config(),
            samples=self._said("samples", self.options.samples, cells.whole),
            eval_samples=self._eval_samples(),
            run=self._value("run", cells.name),
            epoch=self._value("epoch", lambda cell: cells.whole(cell, 0)),
            epoch_seconds=epochs,
            step_seconds=steps,
            eval_seconds=self._time("eval_seconds"),
            save_seconds=self._time("save_seconds"),
            startup_seconds=self._time("startup_seconds"),
            peak_bytes=self._bytes("peak_bytes"),
            device_bytes=self._bytes("device_bytes"),
            footprint=self._footprint(),
        )

    def _timed(self) -> Column:
        return next(c for c in self.columns if c.role in ("epoch_seconds", "step_seconds"))

    def _cell(self, column: Column) -> Cell:
        return self.row.cells[column.index]

    def _columns(self, role: str) -> list[Column]:
        """Those with this role that have something in this row, in their own order."""
        mine = (c for c in self.columns if c.role == role and not is_empty(self._cell(c)))
        return sorted(mine, key=lambda column: column.order)

    def _parse(self, column: Column, parse: Callable[[Cell], Value]) -> Value:
        try:
            return parse(self._cell(column))
        except ValueError as error:
            raise malformed(self.row.line, str(error), column.name) from error

    def _value(self, role: str, parse: Callable[[Cell], Value]) -> Value | None:
        """What the one column of a role says; None if it says nothing."""
        return next((self._parse(column, parse) for column in self._columns(role)), None)

    def _said(self, role: str, option: Value | None, parse: Callable[[Cell], Value]) -> Value:
        """What the user says, or else the file."""
        value = self._value(role, parse) if option is None else option
        if value is not None:
            return value
        column = next((c.name for c in self.columns if c.role == role), None)
        if column is not None:
            raise malformed(self.row.line, f"{role} is needed, but the cell is empty", column)
        raise UsageError(f"no column is {role}; say it with --{role.replace('_', '-')}")

    def _times(self, role: str) -> tuple[float, ...]:
        return tuple(
            value * column.scale
            for column in self._columns(role)
            for value in self._parse(column, cells.amounts)
        )

    def _epochs(self) -> tuple[float, ...]:
        return (*self._times("first_epoch_seconds"), *self._times("epoch_seconds"))

    def _time(self, role: str) -> float | None:
        return next((self._scaled(column) for column in self._columns(role)), None)

    def _scaled(self, column: Column) -> float:
        return self._parse(column, cells.amount) * column.scale

    def _bytes(self, role: str) -> int | None:
        size = self._time(role)
        column = next(iter(self._columns(role)), None)
        if column is None or size is None:
            return None
        if not 1 <= size <= cells.LARGEST:
            raise malformed(self.row.line, f"no device has {size:g} bytes", column.name)
        return round(size)

    def _config(self) -> RunConfig:
        ran = {role: self._value(role, parse) for role, parse in CONFIG.items()}
        known = {role: value for role, value in ran.items() if value is not None}
        known["batch_size"] = self._said("batch_size", None, cells.whole)
        return RunConfig(sizes=self._sizes(), **known)

    def _sizes(self) -> Sizes:
        found = {column.knob: self._parse(column, cells.knob) for column in self._columns(KNOB)}
        return make_sizes(found)

    def _eval_samples(self) -> int:
        found = self._value("eval_samples", lambda cell: cells.whole(cell, 0))
        samples = found if self.options.eval_samples is None else self.options.eval_samples
        column = next(iter(self._columns("eval_seconds")), None)
        if column is not None and not samples:
            problem = "how many samples were evaluated? name a column eval_samples or say it with "
            raise malformed(self.row.line, f"{problem}--eval-samples", column.name)
        return samples or 0

    def _device(self) -> Device:
        name = self._said("device", self.options.device, cells.name)
        try:
            return device_named(name, self.options.device_kind)
        except ValueError as error:
            raise UsageError(f"line {self.row.line}: {error} with --device-kind") from error

    def _footprint(self) -> Footprint | None:
        counts = {role: self._value(role, cells.whole) for role in COUNTS}
        known = {role: count for role, count in counts.items() if count is not None}
        return Footprint.of_counts(**known) if known else None
