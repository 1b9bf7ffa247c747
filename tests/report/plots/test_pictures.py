"""Pictures for a page: in its colours, with its letters, and with nothing that acts."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from epochcast.report.plots import pictures

NAME = "a <script>alert(1)</script> for $5 & $x_1$ \x1b[31m 日本"


def drawn(*lines: str, width: float = 6.0) -> str:
    figure = pictures.new_figure(width, 2)
    axes = figure.subplots()
    pictures.dress_axes(axes)
    pictures.set_title(axes, *lines)
    return pictures.inline_svg(figure, "what it <shows>")


def test_a_name_is_text_and_nothing_else() -> None:
    svg = drawn(NAME)
    tree = ElementTree.fromstring(svg)
    texts = ["".join(node.itertext()) for node in tree.iter("{http://www.w3.org/2000/svg}text")]
    assert "a <script>alert(1)</script> for $5 & $x_1$ ?[31m 日本" in texts
    assert tree.attrib["aria-label"] == "what it <shows>"
    assert not {"script", "style", "metadata"} & {node.tag.split("}")[-1] for node in tree.iter()}


def test_colours_are_those_of_the_page() -> None:
    svg = drawn("title")
    assert not re.search("#[0-9a-f]{6}", svg, re.IGNORECASE)
    used = set(re.findall(r"var\((--c-\w+)\)", svg))
    for dark in (False, True):
        assert used <= set(re.findall(r"(--c-\w+): #", pictures.picture_colours(dark)))


def luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.2."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(weight * p for weight, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("colour", [pictures.INK, *pictures.PALETTE])
def test_lines_stand_out_from_a_dark_page(colour: str) -> None:
    """At least 3:1, WCAG 2.2, success criterion 1.4.11."""
    line, page = (luminance(pictures.ON_DARK[c]) for c in (colour, pictures.PAGE))
    assert (line + 0.05) / (page + 0.05) >= 3


def test_pictures_of_one_page_have_no_names_in_common() -> None:
    one, two = (set(re.findall(r'\sid="([^"]*)"', drawn(text))) for text in ("one", "two"))
    assert one
    assert two
    assert not one & two


def test_a_title_stays_inside() -> None:
    figure = pictures.new_figure(4, 2)
    axes = figure.subplots()
    pictures.set_title(axes, "a_very_long_name_of_a_workload." * 5 + " and some words", "second")
    pictures.png(figure)
    title = axes.get_title("left")
    assert title.endswith("second")
    edge = max(t.get_window_extent().x1 for t in axes.get_children() if hasattr(t, "get_text"))
    assert edge <= figure.bbox.x1
