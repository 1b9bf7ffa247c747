"""What all reports share on a terminal: tables that fit it, and sentences that break between words.

    At epoch 55 expect val_loss of 0.09356 (0.08193 to 0.1052); it beats the best so
      far, 0.09357, with a probability of 50 %.

A number stays beside its unit. In a file or a pipe sentences are not broken.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from rich.cells import cell_len
from rich.console import Console
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from epochcast.report.text.terminal import printable
from epochcast.units import with_singulars

if TYPE_CHECKING:
    from epochcast.records import RunConfig

GAP = 2  # columns of a terminal between those of a table
NO_BREAK = "\N{NO-BREAK SPACE}"
_INSIDE_QUANTITY = re.compile(r"(?<=\d) (?=\S{1,4}(?:\s|$))|(?<=\d[dhm]) (?=\d\d[hms])")


class PlainConsole(Console):
    """A console that writes what it is given: no markup, no escape sequences but its own.

    Args:
        options: of ``rich.console.Console``.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """A string as it will be shown, so that columns are as wide as they must be."""
        return super().render_str(printable(text), **options)

    def render(self, renderable: Any, options: Any = None) -> Iterator[Segment]:
        """Segments of a renderable, those of text without control characters."""
        for segment in super().render(renderable, options):
            text, style, control = segment
            yield segment if control else Segment(printable(text), style)


def plain_table() -> Table:
    """No lines, bold headings."""
    return Table(box=None, pad_edge=False, header_style="bold")


def columns(
    cells: Mapping[str, Sequence[str]], left: Collection[str] = (), folded: str = ""
) -> Table:
    """A plain table of columns by heading.

    Args:
        cells: the columns by heading, all of one length.
        left: headings of the columns that are aligned to the left, and not to the right.
        folded: the heading of one whose text is broken where it is too wide, between words if it
            can be.
    """
    table = plain_table()
    for heading in cells:
        side: Literal["left", "right"] = "left" if heading in left else "right"
        table.add_column(
            heading,
            justify=side,
            no_wrap=heading != folded,
            overflow="fold" if heading == folded else "ellipsis",
        )
    for row in zip(*cells.values(), strict=True):
        table.add_row(*row)
    return table


def fitting(
    cells: Mapping[str, Sequence[str]], width: int, keys: int = 1, left: Collection[str] = ()
) -> list[Table]:
    """As many tables as it takes for none to be wider than ``width``; nothing is left out.

    The first ``keys`` columns say what a row is, and are repeated in each; fewer where they leave
    no room beside them.

    Args:
        cells: the columns by heading, all of one length.
        width: columns of the terminal.
        keys: how many of the first columns say what a row is; each table repeats them.
        left: headings of the columns that are aligned to the left.
    """
    names = list(cells)
    if keys > 1 and max(_width(cells, [*names[:keys], name]) for name in names[keys:]) > width:
        return fitting(cells, width, keys - 1, left)
    groups: list[list[str]] = [[]]
    for name in names[keys:]:
        if groups[-1] and _width(cells, [*names[:keys], *groups[-1], name]) > width:
            groups.append([])
        groups[-1].append(name)
    return [
        columns(
            {n: cells[n] for n in (*names[:keys], *group)},
            left,
            folded=group[0] if len(group) == 1 and group[0] in left else "",
        )
        for group in groups
    ]


def print_columns(
    console: Console, cells: Mapping[str, Sequence[str]], keys: int = 1, left: Collection[str] = ()
) -> None:
    """Print columns by heading, below each other what is too wide for the terminal.

    Args:
        console: where to print.
        cells, keys, left: as of ``fitting``.
    """
    for position, table in enumerate(fitting(cells, console.width, keys, left)):
        if position:
            console.print()
        console.print(table)


def print_table(console: Console, table: Table) -> None:
    """Print a table whose first column may wrap, in parts where that has no room for its words."""
    cells = {str(column.header): [*map(str, column.cells)] for column in table.columns}
    first, *others = cells
    words = [cell_len(word) for cell in cells[first] for word in cell.split()]
    if max(words, default=0) + GAP + _width(cells, others) <= console.width:
        console.print(table)
    else:
        print_columns(console, cells, left=(first,))


def _width(cells: Mapping[str, Sequence[str]], names: Sequence[str]) -> int:
    widest = [max(map(cell_len, (name, *cells[name]))) for name in names]
    return sum(widest) + GAP * (len(names) - 1)


def varying_knobs(configs: Iterable[RunConfig]) -> list[str]:
    """Knobs that take several values; the others would fill columns with one number."""
    rows = [dict(config.sizes) for config in configs]
    return [k for k in rows[0] if len({row.get(k) for row in rows}) > 1]


def maybe(form: Callable[[float], str], value: float | None) -> str:
    """A cell, or a dash where nothing is known."""
    return "–" if value is None else form(value)


def say(console: Console, text: str, style: str = "") -> None:
    """Print a sentence or two; further lines of them are indented.

    Args:
        console: where to print.
        text: its words stay whole, and a number stays beside its unit.
        style: of rich, ``"yellow"``; empty for the terminal's own.
    """
    text = with_singulars(text)
    lines = filled(text, console.width) if console.is_terminal else text
    console.print(Text(lines, style=style), soft_wrap=True)


def filled(text: str, width: int) -> str:
    """A text in lines of at most so many columns, where its words allow it."""
    glued = _INSIDE_QUANTITY.sub(NO_BREAK, text)
    lines = textwrap.fill(
        glued, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
    return lines.replace(NO_BREAK, " ")
