"""What each column of someone else's table is read as, and in which unit.

    "bs"               batch_size
    "Epoch time (ms)"  epoch_seconds     × 0.001
    "epoch_2_s"        epoch_seconds     × 1        several epochs in one row, in order
    "peak_mib"         peak_bytes        × 1048576
    "samples/s"        sample_seconds    1 / …
    "val_loss"         left out: a result
    "width"            a knob

Names are read by ``roles``; here they are put together with what the user says and with each
other: ``train_batch_size`` is the batch of all devices beside one of a micro-batch. Options rule
over names, and a column's own unit over that of its role. What is left of the columns are knobs,
which are known before a run: results are left out, and named.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from epochcast.errors import UsageError
from epochcast.importers.names import ROLES, TIME, Kind
from epochcast.importers.roles import (
    Meaning,
    count_scale,
    meaning_of,
    spelled,
    unit_in,
    without_group,
)
from epochcast.importers.rows import as_typed, listed
from epochcast.records import DeviceKind
from epochcast.units import size_unit, spelled_unit, time_unit

KNOB = ""  # the role of a column that has no other
LEFT_OUT = "-"  # of one that is not read
SECONDS = (  # the times of training that a row may have, the first that is there is used
    "epoch_seconds",
    "step_seconds",
    "update_seconds",
    "sample_seconds",
    "token_seconds",
    "elapsed_seconds",
)
SEVERAL = (LEFT_OUT, "step", "world_size", "model_parallel")  # roles that two columns may have
DEVICES = ("world_size", "data_parallel", "nodes", "devices_per_node")
COUNTED_IN = {
    "k": "thousands",
    "m": "millions",
    "b": "billions",
    "gflops": "GFLOPs",
    "gmacs": "GMACs",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOptions:
    """What the user says about a file; it goes before what the file says.

    Attributes:
        batch_size: of every run, where no column is; of one forward pass on one device.
        devices: that every run had, where no column says it.
        unit: of time columns whose names have none; None takes seconds, and says so.
        memory_unit: of memory columns whose names have none; without it they are refused.
        renamed: what columns are to be taken for, by their names in the file.
        ignored: columns that are not read.
    """

    workload: str | None = None
    device: str | None = None
    device_kind: DeviceKind | None = None
    samples: int | None = None
    eval_samples: int | None = None
    batch_size: int | None = None
    devices: int | None = None
    unit: str | None = None
    memory_unit: str | None = None
    renamed: Mapping[str, str] = field(default_factory=dict)
    ignored: Collection[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """How to read one column.

    Attributes:
        name: in the file.
        role: what it means; ``KNOB`` for a knob, ``LEFT_OUT`` for one that is not read.
        knob: what to call it if it is one.
        unit: of its numbers; ``""`` if they have none.
        scale: seconds, bytes or ones in its unit; None where it has no unit and needs one.
        is_assumed: whether nobody said the unit.
        inverse: whether it is a rate: things by time.
        each: what its values are of where that is not the usual: ``"device"`` or ``"sample"``.
        order: of a column among several epochs of a row.
        why: it was left out, or taken for its role.
        said: whether ``--map`` said its role.
    """

    name: str
    role: str
    knob: str = ""
    unit: str = ""
    scale: float | None = 1.0
    is_assumed: bool = False
    inverse: bool = False
    each: str = ""
    order: int = 0
    why: str = ""
    said: bool = False

    @property
    def unit_text(self) -> str:
        """The unit of its numbers, for people: ``"ms"``, ``"samples/s"``."""
        if self.role == LEFT_OUT or not self.unit:
            return ""
        if self.inverse:
            return f"{self.role.removesuffix('_seconds')}s/{spelled_unit(self.unit)}"
        if ROLES[self.role].kind == "count":
            return COUNTED_IN.get(self.unit, self.unit)
        return "min" if self.unit == "m" else spelled_unit(self.unit)

    @property
    def label(self) -> str:
        """What it was read as, for people."""
        if self.role == LEFT_OUT:
            return f"left out ({self.why})"
        if self.role == KNOB:
            return "knob" if self.knob == self.name else f"knob {self.knob}"
        label = ROLES[self.role].label
        if self.inverse:
            label = "throughput"
        if self.each:
            label = f"{label} of one {self.each}"
        return f"{label} ({self.why})" if self.why else label


def understand(names: Sequence[str], options: ImportOptions) -> list[Column]:
    """The columns of a table with these names, those that are left out with the reason.

    Raises:
        UsageError: a column is missing, or two mean the same, or a unit does not fit.
    """
    for asked in (*options.renamed, *options.ignored):
        if asked not in names:
            raise UsageError(f"there is no column {asked!r}; there are: {listed(names)}")
    columns = [_column(name, options) for name in names]
    columns = _without_said(_without_least(columns), options)
    _require_clear_batch(columns)
    columns = _with_micro("batch_size", "global_batch", columns)
    columns = _with_micro("step_seconds", "update_seconds", columns)
    columns = _with_peak(_with_best_time(_with_bare_time(columns)))
    _require_one_each(columns)
    _require_enough(columns, names, options)
    _require_unit_used(columns, options)
    return columns


def _column(name: str, options: ImportOptions) -> Column:
    if name in options.ignored:
        return Column(name=name, role=LEFT_OUT, why="as --ignore says")
    if not name:
        raise UsageError("a column has no name: name it, or leave it out with --ignore ''")
    own = meaning_of(name)
    said = options.renamed.get(name)
    if said is None:
        return _of_meaning(name, own, None, options)
    meaning = meaning_of(said)
    if not meaning.role:
        return Column(name=name, role=KNOB, knob=said, said=True)
    if own.inverse and own.role != meaning.role:
        raise UsageError(
            f"column {name!r} is a rate by its name, and --map says {said}: map it to a rate, "
            "e.g. samples_per_second, or rename it"
        )
    meaning = replace(meaning, inverse=own.inverse or meaning.inverse)
    return replace(_of_meaning(name, meaning, own, options), said=True)


def _of_meaning(name: str, meaning: Meaning, own: Meaning | None, options: ImportOptions) -> Column:
    """A column with its unit; ``own`` is what its name says where an option says the meaning."""
    if meaning.left_out:
        return Column(name=name, role=LEFT_OUT, why=meaning.left_out)
    if not meaning.role:
        return Column(name=name, role=KNOB, knob=without_group(name))
    kind: Kind = "time" if meaning.role == TIME else ROLES[meaning.role].kind
    column = Column(
        name=name,
        role=meaning.role,
        inverse=meaning.inverse,
        each=meaning.each,
        order=meaning.order,
    )
    if kind == "plain":
        return column
    units = (meaning.unit, own and (own.unit if own.inverse else unit_in(name, kind)))
    scales = {_scale(kind, unit, name) for unit in units if unit}
    if len(scales) > 1:
        raise UsageError(
            f"column {name!r} is in {units[1]} by its name, and in {units[0]} by --map: map it to "
            f"{meaning.role}, or rename it"
        )
    return _with_unit(column, kind, units[1] or units[0], options)


def _with_unit(column: Column, kind: Kind, unit: str | None, options: ImportOptions) -> Column:
    if kind == "count":
        return replace(column, unit=unit or "", scale=_scale(kind, unit, column.name))
    asked = options.unit if kind == "time" else options.memory_unit
    if unit is None and asked is None and kind == "size":
        return replace(column, scale=None)
    used = unit or asked or "s"
    is_assumed = unit is None and asked is None
    return replace(column, unit=used, scale=_scale(kind, used, column.name), is_assumed=is_assumed)


def _scale(kind: Kind, unit: str | None, name: str) -> float:
    if kind == "count":
        scale, allowed = count_scale(unit), "a count, such as M, GFLOPs or GMACs"
    elif kind == "time":
        scale, allowed = time_unit(unit or ""), "time, such as s, ms or min"
    else:
        scale, allowed = size_unit(unit or ""), "memory, such as B, MiB or GB"
    if scale is None:
        raise UsageError(f"column {name!r}: {unit!r} is no unit of {allowed}")
    return float(scale)


# Columns beside each other


def _without_least(columns: Sequence[Column]) -> list[Column]:
    """``step_time_min`` is in minutes, but beside ``step_time_mean`` it is the least."""
    names = {c.name.lower() for c in columns}

    def is_least(column: Column) -> bool:
        stem = column.name.lower().removesuffix("min")
        beside = any(stem + other in names for other in ("max", "mean", "avg", "std", "median"))
        return column.unit == "min" and not column.said and beside

    why = "not the usual time"
    return [replace(c, role=LEFT_OUT, why=why) if is_least(c) else c for c in columns]


def _require_clear_batch(columns: Sequence[Column]) -> None:
    """Refuse a train_batch_size that may be of a micro-batch or of all (DeepSpeed) of them."""
    batches = [c for c in columns if c.role in ("batch_size", "global_batch")]
    shared = [c.name for c in columns if c.role in ("accumulation", *DEVICES)]
    if len(batches) == 1 and shared and not batches[0].said:
        name = batches[0].name
        if spelled(name) == ["train", "batch", "size"]:
            raise UsageError(
                f"beside {', '.join(shared)}, {name!r} may be the batch of one forward pass, "
                f"{as_typed('--map', 'batch_size', name)}, or of all of them together, "
                f"{as_typed('--map', 'global_batch', name)}"
            )


def _without_said(columns: Sequence[Column], options: ImportOptions) -> list[Column]:
    """What an option says is read from no column."""
    said = {"batch_size"} if options.batch_size is not None else set()
    said |= set(DEVICES) if options.devices is not None else set()
    why = "an option says it"
    others = {
        name
        for name in ("workload", "device", "samples", "eval_samples")
        if getattr(options, name) is not None
    }
    read = [replace(c, why=why) if c.role in others else c for c in columns]
    return [replace(c, role=LEFT_OUT, why=why) if c.role in said else c for c in read]


def _with_micro(role: str, whole: str, columns: Sequence[Column]) -> list[Column]:
    """Beside a column of one micro-batch, another of the same role is of all of them together.

    DeepSpeed: train_batch_size is train_micro_batch_size_per_gpu × gradient_accumulation_steps ×
    the number of devices (deepspeed.ai/docs/config-json, "Batch Size Related Parameters").
    """
    mine = [c for c in columns if c.role == role]
    micro = [c for c in mine if is_of_micro_batch(c.name)]
    if len(mine) != 2 or len(micro) != 1:
        return list(columns)
    return [replace(c, role=whole) if c in mine and c not in micro else c for c in columns]


def is_of_micro_batch(name: str) -> bool:
    """Whether a name says that something is of one micro-batch on one device."""
    lowered = name.lower()
    return any(part in lowered for part in ("micro", "device", "gpu", "mbs", "local"))


def _with_bare_time(columns: Sequence[Column]) -> list[Column]:
    """Just ``time`` is that of an epoch in a table of epochs alone; else nobody knows."""
    roles = {c.role for c in columns}
    alone = roles.isdisjoint(SECONDS) and sum(c.role == TIME for c in columns) == 1
    if alone and "epoch" in roles and "step" not in roles:
        why = "a time beside the epoch"
        return [replace(c, role="epoch_seconds", why=why) if c.role == TIME else c for c in columns]
    why = "a time, but of what?"
    return [replace(c, role=LEFT_OUT, why=why) if c.role == TIME else c for c in columns]


def _with_best_time(columns: Sequence[Column]) -> list[Column]:
    """Two times since the start (Runtime, _runtime) are not needed beside those of epochs."""
    whole = [c for c in columns if c.role == "elapsed_seconds"]
    if len(whole) < 2 or {c.role for c in columns}.isdisjoint(SECONDS[:-1]):
        return list(columns)
    why = "there are times of epochs or steps"
    return [replace(c, role=LEFT_OUT, why=why) if c in whole else c for c in columns]


def _with_peak(columns: Sequence[Column]) -> list[Column]:
    """Beside the largest (MaxMemAllocated) another of the same memory (MemAllocated) is not it."""
    found = list(columns)
    for role in ("peak_bytes", "device_bytes"):
        mine = [c for c in found if c.role == role]
        peak = [c for c in mine if not {"max", "maximum", "peak"}.isdisjoint(spelled(c.name))]
        if len(peak) == 1 and not any(c.said for c in mine):
            others = [c for c in mine if c not in peak]
            why = "not the peak"
            found = [replace(c, role=LEFT_OUT, why=why) if c in others else c for c in found]
    return found


def _require_one_each(columns: Sequence[Column]) -> None:
    seen: dict[object, Column] = {}
    for column in columns:
        key = (column.role, column.knob, column.order)
        if key in seen and column.role not in SEVERAL:
            raise UsageError(
                f"columns {seen[key].name!r} and {column.name!r} both mean "
                f"{column.role or column.knob}; leave one out with --ignore"
            )
        seen[key] = column
    numbered = next((c for c in columns if c.order), None)
    single = next((c for c in columns if c.role == "epoch_seconds" and not c.order), None)
    if numbered and single:
        raise UsageError(
            f"columns {numbered.name!r} and {single.name!r} both have epochs; "
            "leave one out with --ignore"
        )


def _require_enough(
    columns: Sequence[Column], names: Sequence[str], options: ImportOptions
) -> None:
    roles = {column.role for column in columns}
    there = listed(names)
    if roles.isdisjoint({"batch_size", "global_batch"}) and options.batch_size is None:
        raise UsageError(
            f"no column is batch_size; there are: {there}; say which with --map "
            "batch_size=COLUMN, or how large it was with --batch-size"
        )
    if roles.isdisjoint(SECONDS):
        times = [c.name for c in columns if c.why == "a time, but of what?"]
        time = min(times, key=len, default="COLUMN")
        raise UsageError(
            f"no column is epoch_seconds or step_seconds; there are: {there}; say which with "
            f"{as_typed('--map', 'epoch_seconds', time)}, or step_seconds, or elapsed_seconds "
            "(since the start), or --map samples_per_second=COLUMN"
        )


def _require_unit_used(columns: Sequence[Column], options: ImportOptions) -> None:
    """Refuse a unit that nothing is in: it was meant for something."""
    for option, unit, kind in (
        ("--unit", options.unit, "time"),
        ("--memory-unit", options.memory_unit, "size"),
    ):
        mine = [c for c in columns if c.role in ROLES and ROLES[c.role].kind == kind]
        if unit is not None and mine and all(c.unit != unit for c in mine):
            said = ", ".join(f"{c.name!r} ({c.unit})" for c in mine)
            raise UsageError(
                f"{option} {unit} is for columns that do not say their unit, and all do: {said}; "
                "leave it out, or rename the columns"
            )
