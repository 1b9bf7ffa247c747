"""A picture of a device's memory along a training step: what fills it, what is held, what there is.

GiB ┤- - - - - - - - - - - - - - - - - - - - - -  t4, 14.6 GiB
    │  ─────────────────────────────────────────  needed with 95 %
    │      ┌────────────────────────────────────  reserved
    │   ▒▒▒▒▒▓▓▓▓▓▒▒                              in use, by kind: a layer each
    │ ▒▒▒▒▓▓▓▓▓▓▓▓▓▓▒▒▒
    └──────┴───────────┴─────────
      forward  backward   update
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from epochcast.errors import UsageError
from epochcast.records import DeviceNeed, MemoryCurve
from epochcast.report.plots.pictures import (
    DASHED,
    GRID,
    INK,
    PAGE,
    PALETTE,
    dress_axes,
    new_figure,
    set_title,
)
from epochcast.units import format_bytes, format_percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE = (8.2, 4.8)
ORDER = (  # from below: what is always there first
    "parameters",
    "buffers",
    "optimizer states",
    "kept between steps",
    "gradients",
    "inputs",
    "activations",
    "temporaries",
    "workspaces",
)
COLOURS = dict(
    zip(
        ORDER,
        (PALETTE[0], "#999999", PALETTE[5], "#666666", PALETTE[2], "#F0E442", *PALETTE[4:5]),
        strict=False,
    )
) | {"temporaries": PALETTE[1], "workspaces": PALETTE[3]}
ROOM = 1.12  # of the axis above the highest line
NEAR = 2.5  # times what is drawn below: a line higher than that is named, not drawn
LEAST_SHARE = 0.004  # of the peak: less is no layer to see
UNITS = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


def draw_memory(need: DeviceNeed, title: str) -> Figure:
    """The picture as a matplotlib figure.

    Args:
        need: with its curve.
        title: of the picture.

    Raises:
        MissingDependency: matplotlib is not installed.
        UsageError: there is no curve.
    """
    curve = need.curve
    if curve is None or not curve.live:
        raise UsageError("there is no curve to draw: the step was not followed event by event")
    top = max(curve.reserved)
    scale, unit = next(((s, n) for s, n in UNITS if top >= 1.5 * s), UNITS[-1])
    figure = new_figure(*SIZE)
    axes = figure.subplots()
    dress_axes(axes)
    _draw_layers(axes, curve, scale)
    _draw_lines(axes, need, curve, scale, top)
    _draw_moments(axes, curve)
    axes.set_ylabel(unit)
    set_title(axes, title)
    axes.legend(  # from top to bottom, as it is drawn: grey tones are told apart by their place
        loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=8.5, reverse=True
    )
    return figure


def _draw_layers(axes: Axes, curve: MemoryCurve, scale: float) -> None:
    points = range(len(curve.live))
    peak = max(sum(row) for row in curve.live)
    below = [0.0] * len(points)
    ordered = sorted(curve.kinds, key=lambda k: ORDER.index(k) if k in ORDER else len(ORDER))
    for kind in ordered:
        column = curve.kinds.index(kind)
        most = max(row[column] for row in curve.live)
        if most < LEAST_SHARE * peak:
            continue
        above = [b + row[column] / scale for b, row in zip(below, curve.live, strict=True)]
        label = f"{kind}, {format_bytes(most)}"
        colour = COLOURS.get(kind, GRID)
        layer = axes.fill_between(points, below, above, step="mid", color=colour, label=label)
        layer.set(edgecolor=PAGE, linewidth=0.4)  # those of the same lightness stay apart in grey
        below = above
    axes.set_xlim(0, max(1, len(points) - 1))


def _draw_lines(axes: Axes, need: DeviceNeed, curve: MemoryCurve, scale: float, top: float) -> None:
    points = range(len(curve.live))
    reserved = [r / scale for r in curve.reserved]
    label = f"reserved, {format_bytes(max(curve.reserved))}"
    axes.step(points, reserved, where="mid", color=INK, linewidth=1.4, label=label)
    needed = f"needed with {format_percent(need.confidence)}, {format_bytes(need.needed_bytes)}"
    free = f"{need.device.name}: {format_bytes(need.free_bytes)} free"
    lines = [(need.needed_bytes, needed, INK, ":"), (need.free_bytes, free, INK, DASHED)]
    if not need.fits:
        lines[1] = (need.free_bytes, free, "#B00020", DASHED)
    for height, label, colour, style in sorted(lines, key=lambda line: line[0]):
        if height <= NEAR * top:
            axes.axhline(height / scale, color=colour, linewidth=1.2, linestyle=style, label=label)
            top = max(top, height)
        else:
            axes.plot([], [], linestyle="none", label=f"{label}, far above")
    axes.set_ylim(0, ROOM * top / scale)


def _draw_moments(axes: Axes, curve: MemoryCurve) -> None:
    """A line where a part of the step begins, and its name in the middle of it."""
    last = len(curve.live) - 1
    # parts of no length have no room for a name; of many micro-steps only the first are named
    starts = [(name, at) for name, at in curve.moments if name != "batch"]
    ends = [at for _, at in starts[1:]] + [last]
    named: set[int] = set()
    ticks: list[float] = []
    labels: list[str] = []
    for (name, start), end in zip(starts, ends, strict=True):
        axes.axvline(start, color=INK, linewidth=0.7, alpha=0.5)
        if end - start >= 0.06 * max(1, last) and start not in named:
            named.add(start)
            ticks.append((start + end) / 2)
            labels.append(name)
    axes.set_xticks(ticks, labels)
    axes.tick_params(axis="x", length=0)
    axes.grid(visible=False, axis="x")
