"""What a cell of someone else's table holds, or an error that says what is allowed there.

    "1234.5"  1e-3  "45.1%"                       numbers; per cent are hundredths
    "10.5s"  "04:39"  "0:10:31"  "1-02:03:04"     times that say their unit themselves
    "512MiB"  "24G"  "25.6M"                      sizes and counts, likewise
    "31.2 2.61 2.60"                              several

Numbers are written as programs write them. A comma is refused, because ``1,234`` is a thousand to
some and one and a bit to others; ``table`` has replaced it where a file makes clear what it means.
``NA``, ``null`` and the like are nothing, wherever a number is expected.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from itertools import pairwise
from typing import get_args

from epochcast.errors import UsageError
from epochcast.importers.rows import Cell, Missing, is_empty
from epochcast.records import Precision, SizeValue, parse_size_value
from epochcast.records.validation import is_number, shown
from epochcast.units import parse_bytes, parse_seconds

LARGEST = 2**63 - 1  # what JSON and databases hold
NOTHING = frozenset(
    ("na", "n/a", "#n/a", "n.a.", "null", "none", "nil", "missing", "-", "--", "–", "—", "<na>")
)
TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
PRECISIONS = {
    "fp32": "32 float32 torch.float32 32-true no",
    "bf16": "bfloat16 torch.bfloat16 bf16-mixed amp_bf16",
    "fp16": "16 float16 torch.float16 16-mixed half amp_fp16",
}
SI = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9, "t": 1e12, "p": 1e15}
_CLOCK = re.compile(
    r"(?:(?P<days>\d{1,5})(?:-| days?,? ))?(?P<fields>\d{1,6}(?::\d\d){1,2})(?P<rest>\.\d+)?"
)
_WITH_UNIT = re.compile(r"[\d.]+(?:e[+-]?\d+)?[a-zµμ]+(?:[\d.]+[a-zµμ]+)*")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d([.,]\d+)?)?(Z|[+-]\d\d:?\d\d)?")
_COUNTED = re.compile(r"([\d.]+)\s*([kmgbtp])")


def by_alias(roles: Mapping[str, str]) -> dict[str, str]:
    """Each name and other name, to the name."""
    return {alias: role for role, text in roles.items() for alias in (role, *text.split())}


_PRECISION = by_alias(PRECISIONS)


def parse_number(cell: Cell, expected: str = "a number") -> float:
    """A number, NaN and infinity included.

    Args:
        cell: as written.
        expected: what to ask for where it is none.

    Raises:
        Missing: it says that there is none.
        ValueError: the cell holds none.
    """
    if isinstance(cell, str):
        text = cell.strip()
        if text.lower() in NOTHING:
            raise Missing(f"nothing: {text}")
        if "," in text:
            expected = "a number without commas, such as 1234.5"
        elif "_" not in text:  # 1_000 is Python's own
            number, scale = (text[:-1], 0.01) if text.endswith("%") else (text, 1.0)
            try:
                return float(number) * scale
            except ValueError:
                pass
    elif is_number(cell):
        try:
            return float(cell)
        except OverflowError:
            expected = f"a number of at most {LARGEST:.2g}"
    raise unexpected(expected, cell)


def parse_amount(cell: Cell) -> float:
    """A positive number.

    Raises:
        ValueError: the cell holds none.
    """
    return _positive(parse_number(cell, "a positive number"), cell)


def _positive(value: float, cell: Cell) -> float:
    if not (math.isfinite(value) and value > 0):
        raise unexpected("a positive number", cell)
    return value


def parts_of(cell: Cell) -> Sequence[Cell]:
    """The values of a cell: of a list in JSON, or divided by blanks, ``;`` or ``|`` in a text."""
    if isinstance(cell, list):
        return cell
    if not isinstance(cell, str):
        return (cell,)
    text = cell.strip("[] \t\n")
    if _CLOCK.fullmatch(text):
        return (text,)
    joined = re.sub(r"(?<=[\d.])[ \t]+(?=[a-zA-Zµμ])", "", text)  # "10 s" is one value
    return [part for part in re.split(r"[\s;|]+", joined) if part]


def parse_times(cell: Cell, scale: float) -> tuple[float, ...]:
    """Positive times, in seconds.

    Args:
        cell: as written.
        scale: seconds in the unit of numbers that have none themselves.

    Raises:
        ValueError: one is no time, or there is none.
    """
    parts = parts_of(cell)
    if not parts:
        raise unexpected("positive numbers", cell)
    if len(parts) > 1 and _is_one_duration(parts):
        return (_own_seconds(" ".join(map(str, parts)), cell),)
    return tuple(_seconds(part, scale) for part in parts)


def parse_elapsed(cell: Cell, scale: float) -> tuple[float, ...]:
    """Seconds since the start, which may be 0; of a moment, since 1970 (in UTC if it says none).

    Args:
        cell: as written.
        scale: seconds in the unit of numbers that have none themselves.

    Raises:
        ValueError: it is no time.
    """
    text = str(cell).strip()
    if _MOMENT.fullmatch(text):
        moment = datetime.fromisoformat(text.replace("Z", "+00:00").replace(",", "."))
        return ((moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp(),)
    return (0.0,) if re.fullmatch(r"[0:]+(\.0*)?s?", text) else parse_times(cell, scale)


def _is_one_duration(parts: Sequence[Cell]) -> bool:
    """Whether parts are those of ``1h 30m``, each with a smaller unit than the one before."""
    if not all(isinstance(part, str) and _WITH_UNIT.fullmatch(part.lower()) for part in parts):
        return False
    try:
        units = [parse_seconds(re.sub(r"^[\d.]+", "1", str(part))) for part in parts]
    except UsageError:
        return False
    return all(one > other for one, other in pairwise(units))


def _seconds(part: Cell, scale: float) -> float:
    if isinstance(part, str):
        text = part.strip().lower()
        if _CLOCK.fullmatch(text):
            return _positive(parse_clock(text), part)
        if _WITH_UNIT.fullmatch(text):
            return _own_seconds(text, part)
    return _positive(parse_amount(part) * scale, part)


def _own_seconds(text: str, cell: Cell) -> float:
    try:
        return _positive(parse_seconds(text), cell)
    except UsageError as error:
        raise unexpected("a positive time, such as 31.2, 10.5s or 0:10:31", cell) from error


def parse_clock(text: str) -> float:
    """Seconds in ``04:39``, ``0:10:31``, ``1-02:03:04`` (SLURM), ``1 day, 2:03:04`` (Python).

    Raises:
        ValueError: it is none of them.
    """
    found = _CLOCK.fullmatch(text)
    fields = [int(field) for field in found["fields"].split(":")] if found else []
    if found is None or any(field > 59 for field in fields[1:]):
        raise unexpected("a time such as 04:39 or 0:10:31", text)
    days = int(found["days"] or 0)
    if len(fields) == 2:  # SLURM: days-hours:minutes, but minutes:seconds
        fields = [*fields, 0] if found["days"] else [0, *fields]
    hours, minutes, seconds = fields
    return 86400.0 * days + 3600 * hours + 60 * minutes + seconds + float(found["rest"] or 0)


def says_its_unit(cell: Cell) -> bool:
    """Whether a value has a unit in its own cell: ``10.5s``, ``04:39``, ``512MiB``, a moment."""
    if _MOMENT.fullmatch(str(cell).strip()):
        return True
    parts = parts_of(cell)
    return bool(parts) and all(
        isinstance(part, str) and bool(_CLOCK.fullmatch(part) or _WITH_UNIT.fullmatch(part.lower()))
        for part in parts
    )


def parse_bytes_cell(cell: Cell, scale: float | None) -> float | None:
    """Bytes; None where neither the cell nor its column says in which unit.

    Args:
        cell: as written.
        scale: bytes in the unit of the column.

    Raises:
        ValueError: the cell holds no size.
    """
    if says_its_unit(cell):
        try:
            return float(parse_bytes(str(cell)))
        except UsageError as error:
            raise unexpected("a size, such as 512MiB", cell) from error
    size = parse_amount(cell)
    return None if scale is None else size * scale


def parse_counted(cell: Cell, scale: float) -> int:
    """A count of at least 1, whole once it is multiplied.

    Args:
        cell: as written; ``25.6M`` is 25,600,000.
        scale: units in one of the column, such as 1e9 for GFLOPs.

    Raises:
        ValueError: the cell holds none.
    """
    found = _COUNTED.fullmatch(str(cell).strip().lower()) if isinstance(cell, str) else None
    if found:
        cell, scale = found[1], SI[found[2]]
    expected = "a whole number of at least 1"
    value = parse_number(cell, expected) * scale
    near = round(value) if math.isfinite(value) else 0
    whole = scale != 1 or value == near
    if value > LARGEST:
        expected = f"a whole number of at most {LARGEST:.2g}"
    if not (whole and 1 <= near <= LARGEST):
        raise unexpected(expected, cell)
    return near


def parse_whole(cell: Cell, least: int = 1) -> int:
    """A whole number.

    Raises:
        ValueError: the cell holds none, or one below ``least``.
    """
    expected = f"a whole number of at least {least}"
    value = parse_number(cell, expected)
    if value > LARGEST:
        expected = f"a whole number of at most {LARGEST:.2g}"
    if not (value.is_integer() and least <= value <= LARGEST):
        raise unexpected(expected, cell)
    return int(value)


def parse_count(cell: Cell) -> int:
    """A whole number, perhaps 0.

    Raises:
        ValueError: the cell holds none.
    """
    return parse_whole(cell, 0)


def parse_passes(cell: Cell) -> float:
    """How many passes over the data were made: 3, or 2.97 as the Trainer writes it.

    Raises:
        ValueError: the cell holds no number of at least 0.
    """
    value = parse_number(cell, expected := "a number of at least 0")
    if not (math.isfinite(value) and 0 <= value <= LARGEST):
        raise unexpected(expected, cell)
    return int(value) if value.is_integer() else value


def parse_truth(cell: Cell) -> bool:
    """Yes or no.

    Raises:
        ValueError: the cell says neither.
    """
    found = TRUTHS.get(str(cell).strip().lower())
    if found is None:
        raise unexpected("true or false", cell)
    return found


def parse_precision(cell: Cell) -> str:
    """The precision of autocast.

    Raises:
        ValueError: the cell names none that is known.
    """
    found = _PRECISION.get(str(cell).strip().lower())
    if found is None:
        raise unexpected(f"one of {', '.join(get_args(Precision))}", cell)
    return found


def parse_name(cell: Cell) -> str:
    """A text that is not empty.

    Raises:
        ValueError: the cell is not a text, or one that no terminal should be shown.
    """
    text = "" if isinstance(cell, list | dict) else str(cell).strip()
    if not text or is_empty(cell):
        raise unexpected("a name", cell)
    if not text.isprintable():
        raise unexpected("a name without control characters", cell)
    return text


def parse_knob(cell: Cell) -> SizeValue:
    """The value of a model-size knob; 256.0, as pandas writes whole numbers beside gaps, is 256.

    Raises:
        Missing: it is NaN, which is how pandas writes a gap.
        ValueError: the cell is a list or an object, or a number that is too large.
    """
    if str(cell).strip().lower() in ("nan", "<na>"):
        raise Missing("nothing: NaN")
    try:
        value = parse_size_value(cell) if isinstance(cell, str) else cell
    except UsageError as error:
        raise ValueError(str(error)) from error
    if not isinstance(value, SizeValue):
        raise unexpected("a number or a text", cell)
    if isinstance(value, str):
        return parse_name(value)
    if is_number(value) and not abs(value) <= LARGEST:
        raise unexpected(f"a number of at most {LARGEST:.2g}", cell)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def is_gap(cell: Cell) -> bool:
    """Whether a cell says that nothing is there, as pandas does by NaN."""
    return str(cell).strip().lower() in ("nan", *NOTHING)


def unexpected(expected: str, cell: Cell) -> ValueError:
    """The one way to say that a cell holds something else."""
    return ValueError(f"expected {expected}, but got {shown(cell)}")
