"""Elements of a page. Text is escaped; only what was made here, or drawn by us, is markup."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape

from rich.table import Table

from epochcast.report.text.terminal import printable


class Markup(str):
    """HTML, ready to be part of a page."""

    __slots__ = ()


def element(name: str, *children: str, class_: str = "", **attributes: str) -> Markup:
    """An element; children that are no markup are text.

    Args:
        name: of the element.
        children: its content.
        class_: of the style sheet; empty for none.
        attributes: others.
    """
    given = {**({"class": class_} if class_ else {}), **attributes}
    written = "".join(f' {key}="{escape(printable(value))}"' for key, value in given.items())
    return Markup(f"<{name}{written}>{''.join(map(_as_markup, children))}</{name}>")


def section(title: str, *children: str) -> Markup:
    """A part of the page under a heading; nothing where there is nothing in it."""
    filled = [child for child in children if child]
    return element("section", element("h2", title), *filled) if filled else Markup()


def paragraphs(lines: Iterable[str]) -> Markup:
    """A paragraph for each line."""
    return Markup("".join(element("p", line) for line in lines))


def bullets(lines: Iterable[str], class_: str = "") -> Markup:
    """A list; nothing of no lines."""
    items = [element("li", line) for line in lines]
    return element("ul", *items, class_=class_) if items else Markup()


def table(found: Table, caption: str = "") -> Markup:
    """A table of the terminal's, on a page; it scrolls by itself where the window is narrow."""
    sides = ["number" if column.justify == "right" else "" for column in found.columns]
    head = [
        element("th", str(column.header), class_=side, scope="col")
        for column, side in zip(found.columns, sides, strict=True)
    ]
    body = [
        element(
            "tr", *(element("td", cell, class_=side) for cell, side in zip(row, sides, strict=True))
        )
        for row in _rows(found)
    ]
    parts = [element("thead", element("tr", *head)), element("tbody", *body)]
    title = [element("caption", caption)] if caption else []
    return element("div", element("table", *title, *parts), class_="wide", tabindex="0")


def _rows(found: Table) -> Iterator[tuple[str, ...]]:
    yield from zip(
        *([_text(cell) for cell in column.cells] for column in found.columns), strict=True
    )


def _text(cell: object) -> str:
    """What a terminal would show: of an enumeration's member, which is a string, its value."""
    return cell[:] if isinstance(cell, str) else str(cell)


def _as_markup(child: str) -> str:
    return child if isinstance(child, Markup) else escape(printable(child))
