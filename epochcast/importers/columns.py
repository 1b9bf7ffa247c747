"""What each column of someone else's table means, and what its cells hold.

    "bs"               batch_size
    "Epoch time (ms)"  epoch_seconds     × 0.001
    "epoch_2_s"        epoch_seconds     × 1        several epochs in one row, in order
    "peak_mib"         peak_bytes        × 1048576
    "width"            a knob

A column has a role and a unit, or else is a knob. Names are compared in lower case, with ``_`` for
anything that is no letter or digit.

A cell holds one value, or the error says what is allowed there. Numbers are written as programs
write them: ``1234.5``, ``1e-3``. A comma is refused, because ``1,234`` is a thousand to some and
one and a bit to others.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import get_args

from epochcast.errors import UsageError
from epochcast.importers.table import Cell, is_empty
from epochcast.records import DeviceKind, Precision, SizeValue, parse_size_value
from epochcast.records.validation import is_number, shown
from epochcast.units import size_unit, time_unit

KNOB = ""  # the role of a column that has no other

PLAIN = {  # role: other names
    "workload": "",
    "batch_size": "batch bs batchsize micro_batch micro_batch_size train_batch_size",
    "samples": "dataset_size num_samples n_samples train_samples training_samples "
    "samples_per_epoch",
    "eval_samples": "validation_samples val_samples",
    "accumulation": "grad_accumulation gradient_accumulation gradient_accumulation_steps "
    "accumulation_steps",
    "precision": "dtype",
    "workers": "num_workers",
    "compiled": "compile torch_compile",
    "drop_last": "",
    "device": "device_name gpu gpu_name accelerator hardware",
    "run": "run_id trial repeat repetition round",
    "epoch": "epoch_number epoch_index",
}
COUNTS = {
    "flops": "",
    "bytes_moved": "",
    "operators": "ops",
    "parameters": "params num_params num_parameters n_params",
    "trainable_parameters": "trainable_params",
    "update_operators": "",
    "static_bytes": "",
}
TIMES = {  # a name without "time" in it counts only with a unit: "epoch_ms"
    "epoch_seconds": "epoch epoch_time epoch_duration time_per_epoch",
    "first_epoch_seconds": "first_epoch first_epoch_time",
    "step_seconds": "step step_time step_duration time_per_step iteration iteration_time iter "
    "iter_time time_per_iteration batch batch_time time_per_batch",
    "eval_seconds": "eval eval_time evaluation evaluation_time val val_time validation "
    "validation_time",
    "save_seconds": "save save_time checkpoint checkpoint_time",
    "startup_seconds": "startup startup_time",
}
SIZES = {
    "peak_bytes": "peak peak_memory peak_mem memory_peak max_memory memory max_memory_allocated "
    "allocated allocated_memory",
    "device_bytes": "device device_memory gpu_memory reserved reserved_memory max_memory_reserved",
}


def _by_alias(roles: Mapping[str, str]) -> dict[str, str]:
    return {alias: role for role, text in roles.items() for alias in (role, *text.split())}


_PLAIN = _by_alias({**PLAIN, **COUNTS})
_TIMES, _SIZES = _by_alias(TIMES), _by_alias(SIZES)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOptions:
    """What the user says about a file; it goes before what the file says.

    Attributes:
        unit: of time columns whose names have none.
        memory_unit: of memory columns whose names have none; without it they are refused.
        renamed: what columns are to be taken for, by their names in the file.
        ignored: columns that are not read.
    """

    workload: str | None = None
    device: str | None = None
    device_kind: DeviceKind | None = None
    samples: int | None = None
    eval_samples: int | None = None
    unit: str = "s"
    memory_unit: str | None = None
    renamed: Mapping[str, str] = field(default_factory=dict)
    ignored: Collection[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """How to read one column.

    Attributes:
        name: in the file.
        role: what it means; ``KNOB`` for a knob.
        knob: what to call it if it is one.
        scale: seconds or bytes in its unit.
        order: of a column among several epochs of a row.
    """

    name: str
    role: str
    knob: str = ""
    scale: float = 1.0
    order: int = 0


def understand(names: Sequence[str], options: ImportOptions) -> list[Column]:
    """The columns of a table with these names, those to be ignored left out.

    Raises:
        UsageError: a column is missing, or two mean the same, or one has no unit.
    """
    for asked in (*options.renamed, *options.ignored):
        if asked not in names:
            raise UsageError(f"there is no column {asked!r}; there are: {', '.join(names)}")
    columns = [_column(name, options) for name in names if name not in options.ignored]
    _require_one_each(columns)
    _require_enough(columns, names)
    return columns


def _column(name: str, options: ImportOptions) -> Column:
    if not name:
        raise UsageError("a column has no name: name it, or leave it out with --ignore ''")
    meant = options.renamed.get(name, name)
    plain = "_".join(re.findall(r"[a-z0-9]+", meant.lower()))
    if plain in _PLAIN:
        return Column(name=name, role=_PLAIN[plain])
    stem, order, unit = _parts(plain)
    role = _TIMES.get(stem)
    is_time = unit is not None or "time" in stem or "duration" in stem or order > 0
    if role and is_time and (order == 0 or role == "epoch_seconds"):
        scale = _seconds(name, unit or options.unit)
        return Column(name=name, role=role, scale=scale, order=order)
    if (role := _SIZES.get(stem)) and order == 0:
        scale = _bytes(name, unit or options.memory_unit)
        return Column(name=name, role=role, scale=scale)
    return Column(name=name, role=KNOB, knob=meant)


def _parts(plain: str) -> tuple[str, int, str | None]:
    """``"epoch_2_ms"`` is ``("epoch", 2, "ms")``; the number may also come last."""
    unit: str | None = None
    words = re.findall(r"[a-z]+|\d+", plain)
    if len(words) > 2 and words[1] == "per" and _is_unit(words[0]):  # seconds_per_epoch
        words = ["time", *words[1:], words[0]]
    numbers = [word for word in words if word.isdigit()]
    words = [word for word in words if not word.isdigit()]
    if len(words) > 1 and _is_unit(words[-1]):
        unit = words.pop()
    order = int(numbers[0][:9]) + 1 if len(numbers) == 1 else 0
    return "_".join(words) if len(numbers) <= 1 else plain, order, unit


def _is_unit(word: str) -> bool:
    return time_unit(word) is not None or size_unit(word) is not None


def _seconds(name: str, unit: str) -> float:
    scale = time_unit(unit)
    if scale is None:
        raise UsageError(f"column {name!r}: {unit!r} is no unit of time, such as s, ms or min")
    return scale


def _bytes(name: str, unit: str | None) -> float:
    if unit is None:
        raise UsageError(
            f"column {name!r} has no unit; give --memory-unit, e.g. MiB, or name it {name}_mib"
        )
    scale = size_unit(unit)
    if scale is None:
        raise UsageError(f"column {name!r}: {unit!r} is no unit of memory, such as B, MiB or GB")
    return float(scale)


def _require_one_each(columns: Sequence[Column]) -> None:
    seen: dict[object, Column] = {}
    for column in columns:
        key = (column.role, column.knob, column.order)
        if key in seen:
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


def _require_enough(columns: Sequence[Column], names: Sequence[str]) -> None:
    roles = {column.role for column in columns}
    for wanted, others in (("batch_size", ()), ("epoch_seconds", ("step_seconds",))):
        if roles.isdisjoint({wanted, *others}):
            raise UsageError(
                f"no column is {' or '.join((wanted, *others))}; there are: {', '.join(names)}; "
                f"say which with --map {wanted}=COLUMN"
            )


# -- cells -----------------------------------------------------------------------------------------

LARGEST = 2**63 - 1  # what JSON and databases hold
TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
PRECISIONS = {
    "fp32": "32 float32 torch.float32 32-true",
    "bf16": "bfloat16 torch.bfloat16 bf16-mixed",
    "fp16": "16 float16 torch.float16 16-mixed half",
}
_PRECISION = _by_alias(PRECISIONS)


def parse_number(cell: Cell, expected: str = "a number") -> float:
    """A number, NaN and infinity included.

    Args:
        cell: as written.
        expected: what to ask for where it is none.

    Raises:
        ValueError: the cell holds none.
    """
    if isinstance(cell, str) and "," in cell:
        expected = "a number without commas, such as 1234.5"
    elif is_number(cell) or (isinstance(cell, str) and "_" not in cell):  # 1_000 is Python's own
        try:
            return float(cell)
        except (ValueError, OverflowError):
            pass
    raise _unexpected(expected, cell)


def parse_amount(cell: Cell) -> float:
    """A positive number.

    Raises:
        ValueError: the cell holds none.
    """
    value = parse_number(cell, "a positive number")
    if not (math.isfinite(value) and value > 0):
        raise _unexpected("a positive number", cell)
    return value


def parse_amounts(cell: Cell) -> tuple[float, ...]:
    """Positive numbers: a list in JSON, or divided by blanks, ``;`` or ``|`` in a cell of text.

    Raises:
        ValueError: one is no positive number, or there is none.
    """
    parts: Sequence[Cell] = cell if isinstance(cell, list) else (cell,)
    if isinstance(cell, str):
        parts = [part for part in re.split(r"[\s;|]+", cell.strip("[] \t\n")) if part]
    if not parts:
        raise _unexpected("positive numbers", cell)
    return tuple(parse_amount(part) for part in parts)


def parse_whole(cell: Cell, least: int = 1) -> int:
    """A whole number.

    Raises:
        ValueError: the cell holds none, or one below ``least``.
    """
    expected = f"a whole number of at least {least}"
    value = parse_number(cell, expected)
    if not (value.is_integer() and least <= value <= LARGEST):
        raise _unexpected(expected, cell)
    return int(value)


def parse_count(cell: Cell) -> int:
    """A whole number, perhaps 0.

    Raises:
        ValueError: the cell holds none.
    """
    return parse_whole(cell, 0)


def parse_truth(cell: Cell) -> bool:
    """Yes or no.

    Raises:
        ValueError: the cell says neither.
    """
    found = TRUTHS.get(str(cell).strip().lower())
    if found is None:
        raise _unexpected("true or false", cell)
    return found


def parse_precision(cell: Cell) -> str:
    """The precision of autocast.

    Raises:
        ValueError: the cell names none that is known.
    """
    found = _PRECISION.get(str(cell).strip().lower())
    if found is None:
        raise _unexpected(f"one of {', '.join(get_args(Precision))}", cell)
    return found


def parse_name(cell: Cell) -> str:
    """A text that is not empty.

    Raises:
        ValueError: the cell is not a text.
    """
    if isinstance(cell, list | dict) or is_empty(cell):
        raise _unexpected("a name", cell)
    return str(cell).strip()


def parse_knob(cell: Cell) -> SizeValue:
    """The value of a model-size knob; 256.0, as pandas writes whole numbers beside gaps, is 256.

    Raises:
        ValueError: the cell is a list or an object, or a number that is too large.
    """
    try:
        value = parse_size_value(cell) if isinstance(cell, str) else cell
    except UsageError as error:
        raise ValueError(str(error)) from error
    if not isinstance(value, SizeValue):
        raise _unexpected("a number or a text", cell)
    if is_number(value) and not abs(value) <= LARGEST:
        raise _unexpected("a smaller number", cell)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _unexpected(expected: str, cell: Cell) -> ValueError:
    return ValueError(f"expected {expected}, but got {shown(cell)}")
