"""A picture of a plan: time over epochs as a fan, the limits as lines, what happens underneath.

    time ┤- - - - - - - - - - - - - - -  deadline, 60 s
         │                    ▒▒▓▓━━▓▓▒▒ P90 53.1 s     bands: P05–P95, P10–P90; line: P50
         │          ▒▒▓▓━━▓▓▒▒           P50 36.7 s
    evaluate │││││││││││││││││││││││││││ every epoch    a bar where marks would touch
    save     ││  │  │  │  │  │  │  │  ││ 9 times
    stop       ▂▅█▂▁                     92 %           how likely a stop rule ends it there
         └──────────────────────────────
                      epochs
A limit of money or energy is drawn at the time at which it is used up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from epochcast.errors import StoreError
from epochcast.planning.limits import meter_of
from epochcast.records import Action, Checkpoint, Plan, Quantiles
from epochcast.report.plots.pictures import (
    BLUE,
    DASHED,
    GREEN,
    INK,
    ORANGE,
    count_epochs,
    dress_axes,
    new_figure,
    set_title,
    time_unit,
)
from epochcast.report.text.plan import LIMIT_FORMS, choice_line, limits_line
from epochcast.units import format_percent, format_seconds

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE = (7.6, 4.8)
HEADROOM = 1.06  # above the end of the fan, and above the limits near it
NEAR = 1.6  # times the P90 of the end: limits and tails further away are not drawn
LINE = 0.052  # height of a line of text, as a share of the axes
COLUMN = 0.34  # width of the name of a limit, as a share of the axes
QUANTILES = ("p05", "p10", "p50", "p90", "p95")
MARKS = 150  # of one kind that can be told apart
POINTS = 400  # of the fan's outline
LIMIT_LABELS = {"deadline": "deadline", "money": "budget", "energy": "energy"}


def draw_plan(plan: Plan) -> Figure:
    """The picture as a matplotlib figure.

    Raises:
        MissingDependency: matplotlib is not installed.
        StoreError: the plan says nothing of when what happens, as no plan of ours does.
    """
    if not plan.timeline:
        raise StoreError("the plan has no timeline, of which the picture is made: plan again")
    scale, unit = time_unit(plan.timeline[-1].seconds.p90)
    rows = _rows(plan)
    figure = new_figure(*SIZE)
    heights = [12, max(1, len(rows))]
    fan, strip = figure.subplots(2, sharex=True, gridspec_kw={"height_ratios": heights})
    _draw_fan(fan, plan, scale)
    _label_end(fan, plan.timeline[-1].seconds, _draw_limits(fan, plan, scale))
    _draw_strip(strip, rows)
    _dress(fan, strip, plan, unit)
    return figure


def _draw_fan(axes: Axes, plan: Plan, scale: float) -> None:
    shown = _thinned(plan.timeline, POINTS)
    epochs = [0, *(c.epoch for c in shown)]
    quantiles = [plan.prices.startup, *(c.seconds for c in shown)]

    def band(name: str) -> list[float]:
        return [getattr(q, name) / scale for q in quantiles]

    for low, high, alpha in (("p05", "p95", 0.14), ("p10", "p90", 0.26)):
        axes.fill_between(epochs, band(low), band(high), color=BLUE, alpha=alpha, linewidth=0)
    axes.plot(epochs, band("p50"), color=BLUE, linewidth=1.8)


def _thinned(timeline: Sequence[Checkpoint], points: int) -> list[Checkpoint]:
    """Some in between, and the last one."""
    step = -(-len(timeline) // points)
    return [*timeline[:-1:step], timeline[-1]]


@dataclass(frozen=True, slots=True)
class MarkRow:
    """What happens at which epochs, how high each mark is, and what is said at its end."""

    label: str
    color: str
    epochs: Sequence[int]
    heights: Sequence[float]
    total: str


def _rows(plan: Plan) -> list[MarkRow]:
    rows = []
    marks: dict[Action, str] = {"evaluate": INK, "save": ORANGE}
    for action, color in marks.items():
        epochs = plan.epochs_of(action)
        count = "once" if len(epochs) == 1 else f"{len(epochs):,} times"
        rows.append(MarkRow(action, color, epochs, [1.0] * len(epochs), count))
    stops = {c.epoch: c.stop_probability for c in plan.timeline[:-1] if c.stop_probability}
    if stops:
        highest, total = max(stops.values()), format_percent(sum(stops.values()))
        heights = [p / highest for p in stops.values()]
        rows.append(MarkRow("stop early", GREEN, list(stops), heights, total))
    return [row for row in rows if row.epochs]


def _draw_strip(axes: Axes, rows: Sequence[MarkRow]) -> None:
    """A line of marks for each row, the first one on top."""
    for position, row in enumerate(reversed(rows)):
        if len(row.epochs) > MARKS and set(row.heights) == {1.0}:
            ends = [row.epochs[0], row.epochs[-1]]
            axes.fill_between(
                ends, position, position + 0.7, color=row.color, alpha=0.5, linewidth=0
            )
        else:
            tops = [position + 0.7 * height for height in row.heights]
            axes.vlines(tuple(row.epochs), position, tops, color=row.color, linewidth=1.2)
        axes.annotate(
            row.total,
            (1.01, position + 0.35),
            xycoords=("axes fraction", "data"),
            va="center",
            color=row.color,
            fontsize=9,
        )
    axes.set_yticks(
        [n + 0.35 for n in range(len(rows))], labels=[row.label for row in reversed(rows)]
    )
    axes.set_ylim(-0.2, max(1, len(rows)))


def limit_times(plan: Plan) -> dict[str, float]:
    """When each limit is used up by one fold, in seconds since the run began, with its text."""
    times = meter_of(plan).binding_seconds()
    folds = f" in {plan.folds} folds" if plan.folds > 1 else ""
    return {
        f"{LIMIT_LABELS[name]}, {LIMIT_FORMS[name](getattr(plan.budget, name))}{folds}": seconds
        for name, seconds in times.items()
    }


def _draw_limits(axes: Axes, plan: Plan, scale: float) -> float:
    """The limits that the run comes near, each with its name on its line; seconds up to the top."""
    end = plan.timeline[-1].seconds
    highest = NEAR * end.p90
    near = {text: t for text, t in limit_times(plan).items() if t <= highest}
    top = HEADROOM * max(min(end.p95, highest), *near.values(), 0.0)
    axes.set_ylim(0, top / scale)
    columns: list[float] = []  # the height of the last name in each, from the left
    for text, seconds in sorted(near.items(), key=lambda pair: pair[1]):
        axes.axhline(seconds / scale, color=INK, linewidth=1.2, linestyle=DASHED, zorder=2)
        height = seconds / top
        column = next((c for c, below in enumerate(columns) if height - below > LINE), len(columns))
        columns[column : column + 1] = [height]
        axes.text(  # stands on its line, where it hides nothing
            0.015 + COLUMN * column,
            height,
            text,
            transform=axes.transAxes,
            va="bottom",
            color=INK,
            fontsize=9,
            zorder=4,
        )
    return top


def _label_end(axes: Axes, end: Quantiles, top: float) -> None:
    """The quantiles of the run's end beside the axes, each led to where it lies."""
    heights = [getattr(end, name) / top for name in QUANTILES]
    for name, at, moved in zip(QUANTILES, heights, _apart(heights), strict=True):
        axes.annotate(
            f"{name.upper()} {format_seconds(getattr(end, name))}",
            (1.0, at),
            xytext=(1.045, moved),
            xycoords="axes fraction",
            va="center",
            color=BLUE,
            fontsize=9,
            arrowprops={
                "relpos": (0, 0.5),
                "arrowstyle": "-",
                "color": BLUE,
                "linewidth": 0.7,
                "shrinkA": 1,
                "shrinkB": 0,
            },
        )


def _apart(heights: Sequence[float]) -> list[float]:
    """Ascending heights, moved until there is a line of text between each two, within the axes."""
    moved: list[float] = []
    for height in heights:
        moved.append(max(height, moved[-1] + LINE) if moved else height)
    pushed = moved[-1] - heights[-1]
    lowest = [LINE * position for position in range(len(moved))]
    highest = [1.0 - height for height in reversed(lowest)]
    return [
        min(max(at - pushed / 2, low), high)
        for at, low, high in zip(moved, lowest, highest, strict=True)
    ]


def _dress(fan: Axes, strip: Axes, plan: Plan, unit: str) -> None:
    fold = ", one fold" if plan.folds > 1 else ""
    fan.set(ylabel=f"{unit} since the run began{fold}")
    choice = choice_line(plan)
    title = (f"{plan.workload}: {choice[0].lower()}{choice[1:]}", limits_line(plan.budget))
    set_title(fan, *title)
    strip.set(xlabel=f"{plan.unit}s", xlim=(0, plan.chosen.epochs * 1.02))
    for axes in (fan, strip):
        dress_axes(axes)
        count_epochs(axes)
    strip.grid(visible=False)
    strip.xaxis.set_major_formatter("{x:,.0f}")
    strip.tick_params(axis="y", length=0)
    strip.spines[["left"]].set_visible(False)
