"""A picture of a plan: time over epochs as a fan, the limits as lines, what happens as marks.

    time ┤- - - - - - - - - - - - - - deadline
         │                    ▒▒▓▓━━▓▓▒▒        bands: P05–P95, P10–P90; line: P50
         │          ▒▒▓▓━━▓▓▒▒   ●               ● save   │ evaluate   ▲ likely stop
         └──────────────────────────── epochs

A limit of money or energy is drawn at the time at which it is used up.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from epochcast.pictures import (
    BLUE,
    DASHED,
    GREEN,
    INK,
    ORANGE,
    dress_axes,
    new_figure,
    require_format,
    time_unit,
    write,
)
from epochcast.records import Checkpoint, Plan
from epochcast.report.plan import limits_line
from epochcast.units import format_energy, format_money, format_seconds

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LIKELY = 0.05  # probability from which a stop is marked
SIZE = (7.6, 4.4)
HEADROOM = 1.12  # above the P90 of the end, and above the limits near it
NEAR = 1.6  # times the end of the run: limits further away are not drawn
MARKS = 80  # evaluations drawn one by one; more would be a stripe


def save_picture(plan: Plan, path: str | Path) -> None:
    """Draw a plan into a file.

    Raises:
        UsageError: the name ends neither in .png nor in .svg.
        MissingDependency: matplotlib is not installed.
        StoreError: the file cannot be written.
    """
    require_format(path)
    write(draw(plan), path)


def draw(plan: Plan) -> Figure:
    """The picture as a matplotlib figure."""
    figure = new_figure(*SIZE)
    scale, unit = time_unit(plan.timeline[-1].seconds.p90)
    axes = figure.add_subplot()
    _draw_fan(axes, plan, scale)
    _draw_marks(axes, plan.timeline, scale)
    _draw_limits(axes, plan, scale)
    _dress(axes, plan, unit)
    return figure


def _draw_fan(axes: Axes, plan: Plan, scale: float) -> None:
    epochs = [0, *(c.epoch for c in plan.timeline)]
    quantiles = [plan.prices.startup, *(c.seconds for c in plan.timeline)]

    def band(name: str) -> list[float]:
        return [getattr(q, name) / scale for q in quantiles]

    for low, high, alpha in (("p05", "p95", 0.14), ("p10", "p90", 0.26)):
        label = f"{low}–{high}".upper()
        axes.fill_between(
            epochs, band(low), band(high), color=BLUE, alpha=alpha, linewidth=0, label=label
        )
    axes.plot(epochs, band("p50"), color=BLUE, linewidth=1.8, label="P50")


def _draw_marks(axes: Axes, timeline: Sequence[Checkpoint], scale: float) -> None:
    saves = [c for c in timeline if "save" in c.actions]
    evaluations = [c for c in timeline if "evaluate" in c.actions]
    stops = [c for c in timeline if (c.stop_probability or 0.0) >= LIKELY]
    _mark(axes, evaluations, scale, f"evaluate ({len(evaluations)})", "|", INK, 5)
    _mark(axes, saves, scale, f"save ({len(saves)})", "o", ORANGE, 5.5)
    _mark(axes, stops, scale, f"stops here with ≥ {LIKELY:.0%}", "^", GREEN, 9)


def _mark(
    axes: Axes, shown: Sequence[Checkpoint], scale: float, label: str, marker: str, color: str,
    size: float,
) -> None:  # fmt: skip
    if not shown:
        return
    some = shown[:: -(-len(shown) // MARKS)]
    edge = color if marker == "|" else "white"
    axes.plot(
        [c.epoch for c in some], [c.seconds.p50 / scale for c in some], label=label,
        linestyle="none", marker=marker, color=color, markersize=size, markeredgecolor=edge,
        markeredgewidth=0.8, zorder=3,
    )  # fmt: skip


def limit_times(plan: Plan) -> dict[str, float]:
    """When each limit is used up by one fold, in seconds since the run began, with its text."""
    budget, devices = plan.budget, plan.chosen.config.world_size
    found: dict[str, float] = {}
    if budget.deadline is not None:
        found[f"deadline, {format_seconds(budget.deadline)}"] = budget.deadline
    if budget.money is not None and budget.price_per_hour:
        left = budget.money - budget.fixed_cost
        found[f"budget, {format_money(budget.money)}"] = (
            left / (budget.price_per_hour * devices) * 3600
        )
    if budget.energy is not None and budget.watts:
        found[f"energy, {format_energy(budget.energy)}"] = budget.energy / (budget.watts * devices)
    return {text: (t - budget.spent_seconds) / plan.folds for text, t in found.items()}


def _draw_limits(axes: Axes, plan: Plan, scale: float) -> None:
    """Those that the run comes near; others, and a long tail, would only shrink the picture."""
    top = plan.timeline[-1].seconds.p90 / scale
    near = {text: t / scale for text, t in limit_times(plan).items() if t / scale <= NEAR * top}
    for position, (text, height) in enumerate(near.items()):
        top = max(top, height)
        axes.axhline(height, color=INK, linewidth=1.2, linestyle=DASHED, zorder=2)
        axes.annotate(
            text, (0.02 + 0.24 * position, height), xycoords=("axes fraction", "data"),
            va="center", color=INK, fontsize=9, bbox={"color": "white", "pad": 1.5}, zorder=4,
        )  # fmt: skip
    axes.set_ylim(0, top * HEADROOM)


def _dress(axes: Axes, plan: Plan, unit: str) -> None:
    chosen = plan.chosen
    axes.set_xlim(0, chosen.epochs * 1.02)
    fold = ", one fold" if plan.folds > 1 else ""
    axes.set(xlabel="epochs", ylabel=f"{unit} since the run began{fold}")
    epochs = "1 epoch" if chosen.epochs == 1 else f"{chosen.epochs:,} epochs"
    axes.set_title(
        f"{plan.workload}: {epochs} with {chosen.config.label}\n{limits_line(plan.budget)}",
        loc="left", fontsize=10,
    )  # fmt: skip
    dress_axes(axes)
    axes.legend(loc="lower right", fontsize=9, framealpha=0.85, edgecolor="none")
