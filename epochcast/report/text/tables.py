"""What the tables of all reports share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from rich.cells import cell_len
from rich.table import Table

GAP = 2  # columns of a terminal between those of a table


def plain_table() -> Table:
    """No lines, bold headings."""
    return Table(box=None, pad_edge=False, header_style="bold")


def columns(cells: Mapping[str, Sequence[str]], left: Collection[str] = ()) -> Table:
    """A plain table of columns by heading; right-aligned, but for those in ``left``."""
    table = plain_table()
    for heading in cells:
        table.add_column(heading, justify="left" if heading in left else "right", no_wrap=True)
    for row in zip(*cells.values(), strict=True):
        table.add_row(*row)
    return table


def fitting(
    cells: Mapping[str, Sequence[str]], width: int, keys: int = 1, left: Collection[str] = ()
) -> list[Table]:
    """As many tables as it takes for none to be wider than ``width``; nothing is left out.

    The first ``keys`` columns say what a row is, and are repeated in each.
    """
    names = list(cells)
    groups: list[list[str]] = [[]]
    for name in names[keys:]:
        if groups[-1] and _width(cells, [*names[:keys], *groups[-1], name]) > width:
            groups.append([])
        groups[-1].append(name)
    return [columns({n: cells[n] for n in (*names[:keys], *group)}, left) for group in groups]


def _width(cells: Mapping[str, Sequence[str]], names: Sequence[str]) -> int:
    widest = [max(map(cell_len, (name, *cells[name]))) for name in names]
    return sum(widest) + GAP * (len(names) - 1)


def maybe(form: Callable[[float], str], value: float | None) -> str:
    """A cell, or a dash where nothing is known."""
    return "–" if value is None else form(value)
