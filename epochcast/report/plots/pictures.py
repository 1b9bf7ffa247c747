"""What all pictures share: size, colours, axes, and how they become a file. No pyplot.

    canvas ──▶ Figure ──┬──png──────────▶ bytes, for TensorBoard
                        └──save_picture─▶ a .png or .svg file, whole or not at all

matplotlib's global state is left alone, and the same figure always gives the same bytes.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epochcast.errors import UsageError
from epochcast.records.documents import write_atomic
from epochcast.report import require_packages

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito 2008, "Color universal design": told apart with any colour vision.
BLUE, ORANGE, GREEN, INK, GRID = "#0072B2", "#D55E00", "#009E73", "#333333", "#E2E2E2"
PALETTE = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9")
FORMATS = (".png", ".svg")
DPI = 130  # legible on a page, and where TensorBoard halves it
DASHED = (0, (5, 3))
TIME_UNITS = ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))


def new_figure(width: float, height: float) -> Figure:
    """An empty figure; its size in inches.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    require_packages("matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def dress_axes(axes: Axes) -> None:
    """A light grid and no box."""
    axes.set_axisbelow(True)
    axes.grid(color=GRID, linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.tick_params(colors=INK, which="both")


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


def _content(figure: Figure, kind: str) -> bytes:
    buffer = BytesIO()
    undated = {"Date": None} if kind == "svg" else {"Software": None}
    figure.savefig(buffer, format=kind, metadata=undated)
    return buffer.getvalue()
