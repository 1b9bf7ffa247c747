"""What pictures in files share: colours, round axes, and how they are written. No pyplot."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from epochcast.errors import UsageError
from epochcast.report.tensorboard.optional import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito 2008, "Color universal design": told apart with any colour vision.
BLUE, ORANGE, GREEN, INK, GRID = "#0072B2", "#D55E00", "#009E73", "#333333", "#E2E2E2"
FORMATS = (".png", ".svg")
DPI = 130
DASHED = (0, (5, 3))
TIME_UNITS = ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))


def require_format(path: str | Path) -> None:
    """Make sure that a picture of that name can be written.

    Raises:
        UsageError: the name ends neither in .png nor in .svg.
    """
    if Path(path).suffix.lower() not in FORMATS:
        raise UsageError(f"a picture is a file ending in .png or .svg, but got {path}")


def write(figure: Figure, path: str | Path) -> None:
    """Write a figure; the same figure gives the same file.

    Raises:
        UsageError: the file cannot be written.
    """
    undated = {"Date": None} if Path(path).suffix.lower() == ".svg" else None
    try:
        figure.savefig(path, metadata=undated)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error}") from error


def new_figure(width: float, height: float) -> Figure:
    """An empty figure; its size in inches.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    require("matplotlib")
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")


def time_unit(seconds: float) -> tuple[float, str]:
    """The unit in which so many seconds are a number to read: its seconds, its name."""
    return next(((s, name) for s, name in TIME_UNITS if seconds >= 1.5 * s), TIME_UNITS[-1])


def dress_axes(axes: Axes) -> None:
    """A light grid, no box, whole numbers of epochs."""
    axes.set_axisbelow(True)
    axes.grid(color=GRID, linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.tick_params(colors=INK)
    axes.xaxis.set_major_locator(_whole_numbers())


def _whole_numbers() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(integer=True, steps=[1, 2, 2.5, 5, 10])
