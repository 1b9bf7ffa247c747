"""What all pictures share: size, colours, axes, and how they become a file. No pyplot.

    canvas ──▶ Figure ──┬──png──────────▶ bytes, for TensorBoard
                        ├──inline_svg───▶ an element of a page, in the page's colours
                        └──save_picture─▶ a .png or .svg file, whole or not at all

matplotlib's global state is left alone, and the same figure always gives the same bytes. Text is
drawn as it is: dollars are money, no formulas, and what a name may hold does nothing.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from io import BytesIO
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any
from warnings import catch_warnings, filterwarnings

from epochcast.errors import UsageError
from epochcast.records.documents import write_atomic
from epochcast.report import require_packages
from epochcast.report.text.layout import filled
from epochcast.report.text.terminal import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito 2008, "Color universal design": told apart with any colour vision.
BLUE, ORANGE, GREEN, INK, GRID = "#0072B2", "#D55E00", "#009E73", "#333333", "#E2E2E2"
PALETTE = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9")
# The same in front of a dark page: lighter, in the same order of lightness; WCAG 1.4.11 asks 3:1.
PAGE = "#FFFFFF"
ON_DARK = {
    PAGE: "#1F2124",
    INK: "#D9D9D9",
    GRID: "#44474B",
    BLUE: "#4EA8E0",
    ORANGE: "#F08A4B",
    GREEN: "#2FC79A",
    "#CC79A7": "#DE97BF",
    "#E69F00": "#F2B632",
    "#56B4E9": "#9AD3F5",
}
FONTS = "'DejaVu Sans', Verdana, sans-serif"  # as wide as what the layout was made with
FORMATS = (".png", ".svg")
DPI = 130  # legible on a page, and where TensorBoard halves it
TITLE_SIZE, LEFT_OF_AXES = 10, 0.9  # points; inches, of ticks and their label
CHARACTERS = 12  # of a title in an inch
DASHED = (0, (5, 3))
TIME_UNITS = ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure that is drawn when somebody looks at it.

    Attributes:
        name: what it shows.
        caption: how to read it.
    """

    name: str
    caption: str
    draw: Callable[[], Figure]


def new_figure(width: float, height: float) -> Figure:
    """An empty figure; its size in inches.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    require_packages("matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor=PAGE)
    FigureCanvasAgg(figure)
    return figure


def dress_axes(axes: Axes) -> None:
    """A light grid and no box."""
    axes.set_axisbelow(True)
    axes.grid(color=GRID, linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.tick_params(colors=INK, which="both")


def set_title(axes: Axes, *lines: str) -> None:
    """Lines above the axes, from their left; broken where the picture ends, long names too."""
    inches = axes.figure.bbox.width / axes.figure.dpi
    width = int((inches - LEFT_OF_AXES) * CHARACTERS)
    short = [part for line in lines for part in filled(line, width).splitlines()]
    broken = [piece for part in short for piece in wrap(part, width)]
    axes.set_title("\n".join(broken), loc="left", fontsize=TITLE_SIZE, color=INK)


def count_epochs(axes: Axes) -> None:
    """Ticks at whole numbers of epochs."""
    axes.xaxis.set_major_locator(round_numbers(integer=True))


def round_numbers(**options: Any) -> Any:
    """A matplotlib locator of round numbers."""
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(steps=[1, 2, 2.5, 5, 10], **options)


def time_unit(seconds: float) -> tuple[float, str]:
    """The unit in which so many seconds are a number to read: its seconds, its name."""
    return next(((s, name) for s, name in TIME_UNITS if seconds >= 1.5 * s), TIME_UNITS[-1])


def png(figure: Figure) -> bytes:
    """A figure as the content of a PNG file."""
    return _content(figure, "png")


def save_picture(figure: Figure, path: str | Path) -> None:
    """Write a figure to a file, whole or not at all.

    Raises:
        UsageError: the name ends neither in .png nor in .svg, or the file cannot be written.
    """
    require_format(path)
    file = Path(path)
    try:
        write_atomic(file, _content(figure, file.suffix.lower().removeprefix(".")))
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error


def require_format(path: str | Path) -> None:
    """Make sure, before anything is drawn, that a picture of that name can be written.

    Raises:
        UsageError: the name ends neither in .png nor in .svg.
    """
    if Path(path).suffix.lower() not in FORMATS:
        raise UsageError(f"a picture is a file ending in .png or .svg, but got {path}")


def inline_svg(figure: Figure, label: str, dark: bool | None = None) -> str:
    """A figure as an ``svg`` element, for a page or by itself.

    Args:
        figure: what is drawn.
        label: what it shows, for those who do not see it.
        dark: whether it stands in front of a dark page; None leaves that to the page, whose style
            sheet has ``picture_colours``.
    """
    drawn = _content(figure, "svg").decode()
    drawn = drawn[drawn.index("<svg") :]
    style = f"fill: {INK.lower()}; stroke-linejoin: round; stroke-linecap: butt"
    drawn = drawn.replace("<svg", f'<svg class="picture" role="img" style="{style}"', 1)
    for colour, shade in ON_DARK.items():
        shown = f"var({_variable(colour)})" if dark is None else shade if dark else colour
        drawn = drawn.replace(colour.lower(), shown)
    # rules would hold on the whole page; groups have the same names in every picture of it
    drawn = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", drawn, count=1, flags=re.DOTALL)
    drawn = re.sub(r'<g id="[^"]*"', "<g", drawn)
    drawn = re.sub(r"font-family: [^\"]*?sans-serif", f"font-family: {FONTS}", drawn)
    return drawn.replace("<svg", f'<svg aria-label="{escape(printable(label))}"', 1)


def picture_colours(dark: bool = False) -> str:
    """What ``inline_svg`` draws with, as CSS properties."""
    chosen = {light: shade if dark else light for light, shade in ON_DARK.items()}
    return " ".join(f"{_variable(light)}: {shade};" for light, shade in chosen.items())


def _variable(colour: str) -> str:
    return f"--c-{colour[1:].lower()}"


def _content(figure: Figure, kind: str) -> bytes:
    from matplotlib import rc_context
    from matplotlib.text import Text

    texts = [text for text in figure.findobj(Text) if isinstance(text, Text)]
    for text in texts:
        text.set_parse_math(False)
        text.set_text(printable(text.get_text()))
    buffer = BytesIO()
    told = ("Date", "Creator", "Format", "Type") if kind == "svg" else ("Software",)
    salt = hashlib.sha256("\n".join(t.get_text() for t in texts).encode()).hexdigest()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}), catch_warnings():
        filterwarnings("ignore", "Glyph .* missing")  # a name may have letters that the font lacks
        figure.savefig(buffer, format=kind, metadata=dict.fromkeys(told))
    return buffer.getvalue()
