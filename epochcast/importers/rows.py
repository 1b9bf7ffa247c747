"""A row of a table, whose every cell knows where it is written.

``table`` and ``documents`` make rows; whoever reads a cell says by a function what it should be.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

Cell = object  # text; from JSON also a number, a truth value or a list; None or "" where empty

MOST_LISTED = 30  # names in one error
_Value = TypeVar("_Value")


class Malformed(ValueError):
    """A file cannot be read as a table, or a cell not as what it should be; says where."""


class Missing(ValueError):
    """A cell says that nothing is there: ``NA``."""


@dataclass(frozen=True, slots=True)
class Row:
    """Cells by the name of their column; what is not there, or empty, was not written.

    Attributes:
        location: where it is written, for people.
        cells: by the names of the columns.
        part: how many times the header had been repeated before it.
    """

    location: str
    cells: Mapping[str, Cell]
    part: int = 0

    def get(self, column: str | None, parse: Callable[[Cell], _Value]) -> _Value | None:
        """What is written in a column; None if nothing is.

        Raises:
            Malformed: ``parse`` makes no sense of it.
        """
        cell = self.cells.get(column) if column else None
        if is_empty(cell):
            return None
        try:
            return parse(cell)
        except Missing:
            return None
        except ValueError as error:
            raise self.wrong(str(error), column) from error

    def wrong(self, problem: str, column: str | None = None) -> Malformed:
        """The one way to say what is wrong with a row, and where."""
        location = self.location if column is None else f"{self.location}, column {column!r}"
        return Malformed(f"{location}: {problem}")


def is_empty(cell: Cell) -> bool:
    """Whether nothing is written there."""
    return cell is None or (isinstance(cell, str) and not cell.strip())


def listed(names: Sequence[str]) -> str:
    """Names of columns for an error that says which there are."""
    more = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
    return (", ".join(name[:80] for name in names[:MOST_LISTED]) or "nothing") + more


def as_typed(name: str, *values: str) -> str:
    """An option as people paste it into a shell: ``--map 'world_size=GPUs used'``."""
    return f"{name} {shlex.quote('='.join(values))}"


def one_line(name: str) -> str:
    """A column's name as people type it: in one line, and nothing that steers a terminal."""
    return "".join(c for c in " ".join(name.split()) if c.isprintable())
