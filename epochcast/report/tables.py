"""What the tables of all reports share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from rich.table import Table


def plain_table() -> Table:
    """No lines, bold headings."""
    return Table(box=None, pad_edge=False, header_style="bold")


def columns(cells: Mapping[str, Sequence[str]]) -> Table:
    """A plain table of right-aligned columns by heading."""
    table = plain_table()
    for heading in cells:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in zip(*cells.values(), strict=True):
        table.add_row(*row)
    return table


def maybe(form: Callable[[float], str], value: float | None) -> str:
    """A cell, or a dash where nothing is known."""
    return "–" if value is None else form(value)
