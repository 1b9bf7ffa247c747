"""A picture of a run beside its prediction: epoch by epoch, what it spends, its metric.

seconds ┤   ▒▒▒▒▒▒▒▒▒▒╎▒▒▒▒▒     band: predicted P10–P90, by what was known before the epoch
        │  ○━━━━━━━━━━╎━━━━━     line: what it took; ○ first of a process
        ├─────────────╎──────    ╎ drift, or planned again
minutes ┤- - - - - - -╎- - - deadline
        │ ▒▒▒▒▒▒▒▒▒▒▒▒╎▒▒▒  ┬    band: what the whole run is expected to take
        │━━━━━━━━━━━━━╎━━   ┴    line: spent; ┬ the end as it was planned
        ├─────────────╎──────
metric  ┤ •  •  •  ★
        └──────────────────── epochs
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from statistics import median
from typing import TYPE_CHECKING

from epochcast.errors import UsageError
from epochcast.guard.log import ending, first_start, last_run, lasting_epochs
from epochcast.records import EpochDone, Notice, RunEvent, RunStarted
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
from epochcast.report.text.following import of_segments, summary_lines
from epochcast.report.text.plan import LIMIT_FORMS
from epochcast.units import format_number_of, format_seconds

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHTS = 7.6, (2.7, 2.7, 1.8)  # inches, of each panel
HEADROOM = 1.12  # above what is drawn
NEAR = 1.6  # times what is drawn: limits and first epochs further away are not drawn to scale
FAR = 2  # times the epochs that were run: the end as it was planned is said, not drawn, beyond it
MARKED = {  # notices, by their code: what they are called, and their line
    "replanned": ("planned again", ":"),
    "drift": ("drift", (0, (7, 2, 1, 2))),
}
MARKERS = 80  # epochs that are drawn as points; more are a line alone


def draw_run(events: Sequence[RunEvent]) -> Figure:
    """The last run of a log as a matplotlib figure: two panels, or three with a metric.

    Raises:
        UsageError: no epoch is done.
        MissingDependency: matplotlib is not installed.
    """
    run = last_run(events)
    epochs, start = lasting_epochs(run), first_start(run)
    if not epochs:
        raise UsageError("there is nothing to draw yet: no epoch is done")
    segment = start.segment_steps if start else None
    values = _values(epochs, start.metric if start else "")
    heights = HEIGHTS if values else HEIGHTS[:2]
    figure = new_figure(WIDTH, sum(heights))
    panels = figure.subplots(len(heights), sharex=True, height_ratios=heights)
    _draw_epochs(panels[0], epochs)
    _draw_total(panels[1], epochs, start)
    if values and start:
        _draw_metric(panels[2], values, start.metric)
    for axes in panels:
        dress_axes(axes)
        count_epochs(axes)
        _draw_marks(axes, run, named=axes is panels[0])
        if segment:
            _name_segments(axes)
        if axes.get_legend_handles_labels()[1]:
            axes.legend(loc="best", fontsize=8, framealpha=0.85, edgecolor="none")
    ends = [max(e.end_epochs, e.position.epoch) for e in epochs]
    last = max([*ends, start.end_epochs if start else 0])
    if ending(run) is not None and last > FAR * epochs[-1].position.epoch:
        last = epochs[-1].position.epoch
    counted = f"segments of {format_number_of(segment, 'step')}" if segment else "epochs"
    panels[-1].set(xlabel=counted, xlim=(0, max(1, last) * 1.02))
    set_title(panels[0], *_title(run, start))
    return figure


def _name_segments(axes: Axes) -> None:
    """Of a plan of steps: what is called an epoch is a segment."""
    axes.set_ylabel(of_segments(axes.get_ylabel()))
    for line in axes.get_lines():
        line.set_label(of_segments(str(line.get_label())))


def _title(run: Sequence[RunEvent], start: RunStarted | None) -> list[str]:
    name = [f"{start.workload}: {start.config.label}"] if start else []
    return [*name, summary_lines(run)[0]]


def _draw_epochs(axes: Axes, epochs: Sequence[EpochDone]) -> None:
    """What each whole epoch took, in the band that was predicted for it."""
    whole = [e for e in epochs if not e.position.step] or list(epochs)
    usual = [e for e in whole if not e.first] or whole
    top = max(max(e.seconds, e.predicted.p90) for e in usual)
    scale, unit = time_unit(median(e.seconds for e in usual))
    at = [e.position.epoch for e in whole]
    known = [e for e in whole if e.predicted.p50]
    foretold = [e.position.epoch for e in known]
    axes.fill_between(
        foretold,
        [e.predicted.p10 / scale for e in known],
        [e.predicted.p90 / scale for e in known],
        color=BLUE,
        alpha=0.26,
        linewidth=0,
        label="predicted, P10–P90",
    )
    middle = [e.predicted.p50 / scale for e in known]
    axes.plot(foretold, middle, color=BLUE, linewidth=1, alpha=0.6)
    axes.plot(
        at,
        [e.seconds / scale for e in whole],
        color=INK,
        linewidth=1.5,
        label="took",
        marker="o" if len(whole) <= MARKERS else None,
        markersize=3.2,
    )
    firsts = [e for e in whole if e.first]
    _draw_firsts(axes, firsts, scale, NEAR * top)
    top = max([top, *(e.seconds for e in firsts if e.seconds <= NEAR * top)])
    low = min(min(e.seconds, e.predicted.p10 or e.seconds) for e in usual)
    axes.set_ylim(max(0, 2 * low - top) / scale, (top or 1) / scale * HEADROOM)
    axes.set_ylabel(f"{unit} an epoch")


def _draw_firsts(axes: Axes, firsts: Sequence[EpochDone], scale: float, highest: float) -> None:
    """The first epochs of processes; those above ``highest`` seconds in words."""
    near = [e for e in firsts if e.seconds <= highest]
    axes.plot(
        [e.position.epoch for e in near],
        [e.seconds / scale for e in near],
        linestyle="none",
        marker="o",
        markersize=6,
        markerfacecolor="white",
        markeredgecolor=INK,
        zorder=4,
        label="first of a process" if near else None,
    )
    for event in firsts:
        if event.seconds > highest:
            axes.annotate(
                f"↑ {format_seconds(event.seconds)}",
                (event.position.epoch, 0.97),
                xycoords=("data", "axes fraction"),
                xytext=(20, 0),
                textcoords="offset points",
                va="top",
                fontsize=8,
                color=INK,
            )


def _draw_total(axes: Axes, epochs: Sequence[EpochDone], start: RunStarted | None) -> None:
    """What was spent, and what the whole run was expected to take, epoch by epoch."""
    last = epochs[-1]
    ends = (last.spent_seconds, last.projected_seconds.p90, _planned(start))
    highest = NEAR * max(filter(isfinite, ends), default=1.0)
    scale, unit = time_unit(highest / NEAR)
    at = [e.position.epoch for e in epochs]
    totals = [e.projected_seconds for e in epochs]
    axes.fill_between(
        at,
        [q.p10 / scale for q in totals],
        [q.p90 / scale for q in totals],
        color=ORANGE,
        alpha=0.22,
        linewidth=0,
        label="whole run expected, P10–P90",
    )
    axes.plot(at, [q.p50 / scale for q in totals], color=ORANGE, linewidth=1.4)
    spent = [(e.position.epoch, e.spent_seconds / scale) for e in epochs]
    if start:
        spent.insert(0, (start.position.epoch, start.spent_seconds / scale))
    axes.plot(*zip(*spent, strict=True), color=INK, linewidth=1.8, label="spent")
    if last.reason is None and last.end_epochs:
        ahead = (last.spent_seconds / scale, last.projected_seconds.p50 / scale)
        axes.plot((at[-1], last.end_epochs), ahead, color=INK, linewidth=1.2, linestyle=":")
    if start:
        _draw_planned(axes, start, scale)
    limits = {text: t for text, t in _limit_times(start).items() if t <= highest}
    _draw_limits(axes, limits, scale)
    top = max([highest / NEAR, *limits.values(), *(min(q.p90, highest) for q in totals)])
    axes.set_ylim(0, (top or 1) / scale * HEADROOM)
    axes.set_ylabel(f"{unit} since the run began")


def _planned(start: RunStarted | None) -> float:
    return start.planned_seconds.p90 if start and start.planned_seconds else 0.0


def _draw_planned(axes: Axes, start: RunStarted, scale: float) -> None:
    """The end as it was planned: after which epoch, and when."""
    if start.planned_seconds is None:
        return
    q, what = start.planned_seconds, "segment" if start.segment_steps else "epoch"
    axes.errorbar(
        [start.end_epochs],
        [q.p50 / scale],
        yerr=[[(q.p50 - q.p10) / scale], [(q.p90 - q.p50) / scale]],
        color=BLUE,
        marker="D",
        markersize=5,
        capsize=4,
        linestyle="none",
        label=f"planned end: {what} {start.end_epochs:,}, {format_seconds(q.p50)}",
        zorder=4,
    )


def _limit_times(start: RunStarted | None) -> dict[str, float]:
    """When each limit is used up, in seconds since the run began, with its text."""
    limits = dict(start.limits) if start else {}
    times = dict(start.binding_seconds) if start else {}
    return {f"{n}, {LIMIT_FORMS[n](limits[n])}": t for n, t in times.items() if n in limits}


def _draw_limits(axes: Axes, limits: dict[str, float], scale: float) -> None:
    for position, (text, seconds) in enumerate(limits.items()):
        axes.axhline(seconds / scale, color=INK, linewidth=1.2, linestyle=DASHED, zorder=2)
        axes.text(  # stands on its line, where it hides nothing
            0.02 + 0.24 * position,
            seconds / scale,
            text,
            transform=axes.get_yaxis_transform(),
            va="bottom",
            color=INK,
            fontsize=9,
            zorder=4,
        )


def _values(epochs: Sequence[EpochDone], metric: str) -> list[tuple[int, float, bool]]:
    """Epoch, finite value of the metric, and whether it was the best so far."""
    found = [(e.position.epoch, dict(e.values).get(metric), e.best) for e in epochs]
    return [(at, v, best) for at, v, best in found if v is not None and isfinite(v)]


def _draw_metric(axes: Axes, values: Sequence[tuple[int, float, bool]], metric: str) -> None:
    at, shown, _ = zip(*values, strict=True)
    marker = "o" if len(values) <= MARKERS else None
    axes.plot(at, shown, color=INK, linewidth=1.2, marker=marker, markersize=3.2)
    best = [(epoch, value) for epoch, value, is_best in values if is_best]
    if best:
        epoch, value = best[-1]
        axes.plot(
            [epoch],
            [value],
            color=GREEN,
            marker="*",
            markersize=12,
            linestyle="none",
            label=f"best: {value:.4g}, epoch {epoch:,}",
            zorder=4,
        )
    axes.set_ylabel(metric)


def _draw_marks(axes: Axes, run: Sequence[RunEvent], named: bool) -> None:
    """A line through the panel where the run drifted or was planned again."""
    notices = [event for event in run if isinstance(event, Notice)]
    for code, (name, style) in MARKED.items():
        found = sorted({e.position.epoch for e in notices if e.notice.code == code})
        for position, epoch in enumerate(found):
            label = name if named and not position else None
            axes.axvline(epoch, color=GREEN, lw=1.3, linestyle=style, zorder=1, label=label)
