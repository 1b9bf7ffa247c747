"""Rows of a table of runs to entries: every cell read by its column's role.

    bs  num_gpus  step_ms  val_loss             Entry(config=RunConfig(batch_size=32, world_size=4),
    32         4     50.4      0.61      ──▶          step_seconds=(0.0504,), …)

One of several times is used, the first in the order of ``columns.SECONDS``. Rates become times:
a micro-step of B samples on each of D devices takes B·D / (samples per second of all of them).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from epochcast.errors import UsageError
from epochcast.importers.cells import (
    LARGEST,
    is_gap,
    parse_amount,
    parse_bytes_cell,
    parse_count,
    parse_counted,
    parse_elapsed,
    parse_knob,
    parse_name,
    parse_passes,
    parse_precision,
    parse_times,
    parse_truth,
    parse_whole,
    parts_of,
)
from epochcast.importers.columns import KNOB, SECONDS, Column, ImportOptions
from epochcast.importers.devices import DEVICE_ROLES, Said, counted_in, may_list_devices, world_size
from epochcast.importers.names import COUNTS, SEQUENCES
from epochcast.importers.roles import spelled
from epochcast.importers.rows import Cell, Row, is_empty
from epochcast.planning.direction import has_phrase
from epochcast.profiler.target import canonical
from epochcast.records import Device, Footprint, RunConfig, make_sizes
from epochcast.records.configuration import device_named

CONFIG: dict[str, Callable[[Cell], Any]] = {  # fields of a RunConfig beside its knobs and batches
    "precision": parse_precision,
    "workers": parse_count,
    "compiled": parse_truth,
    "drop_last": parse_truth,
    "eval_batch_size": parse_whole,
}
BATCHES = ("batch_size", "accumulation", "world_size")  # whose product is the global batch
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One row.

    Attributes:
        row: as it was written, to say what is wrong with it.
        run: which run it belongs to, as the file calls it; None if the file does not say.
        epoch, step: their numbers within the run, likewise; epochs perhaps with a part of one.
        first_epoch_seconds: where the others are given as a mean.
        epoch_seconds, step_seconds, elapsed_seconds: of these one has values.
        timed: the column that they are from.
    """

    row: Row
    workload: str
    device: Device
    config: RunConfig
    samples: int
    eval_samples: int
    run: str | None
    epoch: float | None
    step: int | None
    first_epoch_seconds: tuple[float, ...]
    epoch_seconds: tuple[float, ...]
    step_seconds: tuple[float, ...]
    elapsed_seconds: tuple[float, ...]
    timed: Column
    eval_seconds: float | None
    save_seconds: float | None
    startup_seconds: float | None
    peak_bytes: int | None
    device_bytes: int | None
    footprint: Footprint | None

    @property
    def place(self) -> tuple[float, int] | None:
        """Where in its run it is, by epochs and steps; None if the file does not say."""
        if self.epoch is None and self.step is None:
            return None
        return self.epoch or 0, self.step or 0


class RowReader:
    """One row, read by role."""

    def __init__(self, row: Row, columns: Sequence[Column], options: ImportOptions) -> None:
        self.row = row
        self.columns = columns
        self.options = options

    def entry(self) -> Entry:
        """The row as a whole.

        Raises:
            Malformed: a cell makes no sense, or there is no time.
            UsageError: something is in no column and was not said either.
        """
        config = self._config()
        self._require_counted(config)
        timed = self._timed()
        role = timed.role if timed.role in ("epoch_seconds", "elapsed_seconds") else "step_seconds"
        found = self._seconds(timed, config)
        return Entry(
            row=self.row,
            workload=canonical(self._said("workload", self.options.workload, parse_name)),
            device=self._device(),
            config=config,
            samples=self._said("samples", self.options.samples, parse_whole),
            eval_samples=self._eval_samples(),
            run=self._value("run", parse_name),
            epoch=self._value("epoch", parse_count if role == "epoch_seconds" else parse_passes),
            step=self._value("step", parse_count),
            first_epoch_seconds=self._times("first_epoch_seconds"),
            epoch_seconds=found if role == "epoch_seconds" else (),
            step_seconds=found if role == "step_seconds" else (),
            elapsed_seconds=found if role == "elapsed_seconds" else (),
            timed=timed,
            eval_seconds=self._amount("eval_seconds"),
            save_seconds=self._amount("save_seconds"),
            startup_seconds=self._amount("startup_seconds"),
            peak_bytes=self._bytes("peak_bytes"),
            device_bytes=self._bytes("device_bytes"),
            footprint=self._footprint(config),
        )

    # By role

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

    # Times

    def _timed(self) -> Column:
        """The column whose time of the training is used."""
        found = next((c for role in SECONDS for c in self._filled(role)), None)
        if found is None:
            column = next(c.name for c in self.columns if c.role in SECONDS)
            problem = "epoch_seconds or step_seconds is needed, but neither is given"
            raise self.row.wrong(problem, column)
        return found

    def _seconds(self, timed: Column, config: RunConfig) -> tuple[float, ...]:
        """Of the epochs, or of micro-steps, or since the start; in the column's order."""
        found = self._times(timed.role)
        devices = 1 if timed.each == "device" else config.world_size
        samples = config.batch_size * devices
        factor = {
            "update_seconds": 1 / config.accumulation,
            "sample_seconds": samples,
            "token_seconds": samples * self._tokens(timed),
        }.get(timed.role, 1)
        return tuple(seconds * factor for seconds in found)

    def _times(self, role: str) -> tuple[float, ...]:
        found: list[float] = []
        times = parse_elapsed if role == "elapsed_seconds" else parse_times
        for column in self._filled(role):
            read = partial(_rates if column.inverse else times, scale=column.scale or 1.0)
            found += self.row.get(column.name, read) or ()
        return tuple(found)

    def _tokens(self, timed: Column) -> int:
        """In a sample, as a knob says it."""
        if timed.role != "token_seconds":
            return 1
        phrases = SEQUENCES.split("|")
        known = [c for c in self.columns if c.role == KNOB and has_phrase(spelled(c.name), phrases)]
        if len(known) != 1:
            problem = "tokens by time need a column that says how many tokens a sample has, such as"
            raise self.row.wrong(f"{problem} seq_len; or give samples by time", timed.name)
        tokens = self.row.get(known[0].name, parse_whole)
        if tokens is None:
            raise self.row.wrong("the tokens of a sample are needed, but the cell is empty")
        return tokens

    def _amount(self, role: str) -> float | None:
        return next(iter(self._times(role) if self._not_gaps(role) else ()), None)

    def _not_gaps(self, role: str) -> list[Column]:
        """Those that are filled, of what need not be in every row."""
        return [c for c in self._filled(role) if not is_gap(self.row.cells[c.name])]

    # The rest

    def _bytes(self, role: str) -> int | None:
        for column in self._not_gaps(role):
            size = self.row.get(column.name, partial(parse_bytes_cell, scale=column.scale))
            if size is None:
                raise UsageError(
                    f"column {column.name!r} has no unit; give --memory-unit, e.g. MiB, or name "
                    f"it {column.name}_mib"
                )
            if not 1 <= size <= LARGEST:
                raise self.row.wrong(f"no device has {size:g} bytes", column.name)
            return round(size)
        return None

    def _config(self) -> RunConfig:
        ran = {role: self._value(role, parse) for role, parse in CONFIG.items()}
        known: dict[str, Any] = {role: value for role, value in ran.items() if value is not None}
        sizes = {column.knob: value for column, value in self._values(KNOB, parse_knob)}
        batches = self._batches()
        nodes = self._nodes(batches.get("world_size", 1))
        return RunConfig(sizes=make_sizes(sizes), nodes=nodes, **(known | batches))

    def _nodes(self, devices: int) -> int:
        """Machines that the devices of a row are on; one where it does not say."""
        each = self._value("devices_per_node", parse_whole)
        nodes = self._value("nodes", parse_whole) or (-(-devices // each) if each else 1)
        return min(nodes, devices)

    def _batches(self) -> dict[str, int]:
        """The batch of a micro-step, accumulation and devices; two of them give the third."""
        said = {"batch_size": self.options.batch_size, "world_size": self.options.devices}
        known = {
            role: self._value(role, parse_whole) if said.get(role) is None else said[role]
            for role in ("batch_size", "accumulation")
        }
        known["world_size"] = said["world_size"] or self._world_size()
        whole = self._value("global_batch", parse_whole)
        if whole is None:
            found = {role: value for role, value in known.items() if value is not None}
            return {
                **found,
                "batch_size": self._said("batch_size", said["batch_size"], parse_whole),
            }
        try:
            return shared_out(whole, known)
        except ValueError as error:
            column = next(c.name for c in self.columns if c.role == "global_batch")
            raise self.row.wrong(str(error), column) from error

    def _world_size(self) -> int | None:
        found = {
            role: [Said(*pair) for pair in self._values(role, parse_whole)] for role in DEVICE_ROLES
        }
        try:
            return world_size(found)
        except ValueError as error:
            column = next(said[0].column.name for said in found.values() if said)
            raise self.row.wrong(str(error), column) from error

    def _eval_samples(self) -> int:
        found = self._value("eval_samples", parse_count)
        samples = found if self.options.eval_samples is None else self.options.eval_samples
        timed = self._not_gaps("eval_seconds")
        if timed and not samples:
            problem = "how many samples were evaluated? name a column eval_samples or say it with "
            raise self.row.wrong(f"{problem}--eval-samples", timed[0].name)
        return samples or 0

    def _require_counted(self, config: RunConfig) -> None:
        """Refuse devices that only a name or a list counts: ``8x A100``, ``gres/gpu=8``."""
        for column in self.columns if self.options.devices is None else ():
            if column.role != "device" and not may_list_devices(column):
                continue
            name = self.row.get(column.name, str) or ""
            count = counted_in(name)
            if count not in (None, config.world_size):
                raise self.row.wrong(
                    f"{name} are {count} devices, but world_size is {config.world_size}: name a "
                    "column num_gpus, or say how many shared the samples with --devices",
                    column.name,
                )

    def _device(self) -> Device:
        name = self._said("device", self.options.device, parse_name)
        try:
            return device_named(name, self.options.device_kind)
        except ValueError as error:
            raise UsageError(f"{self.row.location}: {error} with --device-kind") from error

    def _footprint(self, config: RunConfig) -> Footprint | None:
        known: dict[str, int] = {}
        for role in COUNTS:
            for column in self._not_gaps(role):
                read = partial(parse_counted, scale=column.scale or 1.0)
                if count := self.row.get(column.name, read):
                    known[role] = count * (config.batch_size if column.each == "sample" else 1)
        return Footprint.of_counts(**known) if known else None


def _rates(cell: Cell, scale: float) -> tuple[float, ...]:
    return tuple(scale / parse_amount(part) for part in parts_of(cell))


def shared_out(whole: int, known: dict[str, int | None]) -> dict[str, int]:
    """A global batch = micro-batch × accumulation × devices, as DeepSpeed has it.

    Args:
        whole: the global batch.
        known: of the three, by role.

    Raises:
        ValueError: they do not multiply to it, or more than one is missing.
    """
    found = {role: value for role, value in known.items() if value is not None}
    product = 1
    for value in found.values():
        product *= value
    rest, left = divmod(whole, product)
    missing = [role for role in BATCHES if role not in found]
    if missing == ["batch_size", "accumulation"]:  # nothing is accumulated unless somebody says so
        missing = ["batch_size"]
    words = " × ".join(f"{role} {value}" for role, value in found.items())
    if left or (rest != 1 and not missing):
        raise ValueError(
            f"a global batch is batch_size × accumulation × world_size, but {whole} is not {words}"
        )
    if rest != 1 and len(missing) > 1 and found:
        raise ValueError(
            f"{whole} is {words} × {rest}: is {rest} the {' or the '.join(missing)}? name a column "
            "of one of them, or say --devices"
        )
    return {"batch_size": 1, "accumulation": 1, "world_size": 1, **found} | (
        {missing[0]: rest} if missing else {}
    )
