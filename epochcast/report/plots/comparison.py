"""Predicted beside measured: configurations that were probed, and runs that were followed.

    predicted_against_measured   every configuration a point; the diagonal is a right prediction
    step_time_by_batch_size      measured points over fitted curves with their P10–P90 bands
    draw_comparison                    every followed run a point, by the epoch it had

One colour and marker is one model size. Axes are logarithmic: cost spans decades, and equal
distances are equal ratios. A bar is P10–P90 and should cross the diagonal in 8 cases of 10.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

from epochcast.errors import UsageError
from epochcast.records import Quantiles, RunConfig, Summary
from epochcast.report.plots.pictures import (
    DASHED,
    INK,
    PALETTE,
    dress_axes,
    new_figure,
    png,
    round_numbers,
)
from epochcast.units import format_bytes, format_percent, format_seconds

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

    from epochcast.costmodel.outcomes import Comparison

Curve = tuple[Sequence[float], Sequence[float], Sequence[float], Sequence[float]]
Subject = Literal["time", "memory"]

_MARKERS = "osD^vPX"  # coprime with the palette: 42 combinations before one repeats
_LEGEND_ROWS = 14  # of more model sizes than this the rest is counted, not named
_LADDER = (1, 2, 5, 10, 20, 50, 100, 200, 500)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbedPrediction:
    """What a cost model says about a configuration that was measured.

    Attributes:
        measured_step_seconds: one steady micro-step.
        predicted_step_seconds: the same, as predicted.
        measured_peak_bytes: largest sum of live tensors; None where it was not tracked.
        predicted_peak_bytes: the same, as predicted.
    """

    config: RunConfig
    workload: str
    measured_step_seconds: float
    predicted_step_seconds: Quantiles
    measured_peak_bytes: int | None = None
    predicted_peak_bytes: Quantiles | None = None


@dataclass(frozen=True, slots=True)
class Point:
    """What was predicted beside what was measured; points of one label look alike."""

    label: str
    measured: float
    predicted: Quantiles


def predicted_against_measured(
    predictions: Sequence[ProbedPrediction], subject: Subject = "time"
) -> bytes:
    """A PNG: every configuration's prediction, with its P10–P90 bar, over its measurement.

    Args:
        predictions: of one workload.
        subject: seconds of a step, or bytes of its peak memory.

    Raises:
        MissingDependency: matplotlib is not installed.
        ValueError: none of the predictions has a measured value above zero beside it.
    """
    points = [point for point in _points(predictions, subject) if point.measured > 0]
    if not points:
        raise ValueError(f"no prediction of {subject} has a measurement beside it")
    what = "step time" if subject == "time" else "peak tensor memory"
    error = median(abs(p.predicted.p50 / p.measured - 1) for p in points)
    title = f"{predictions[0].workload}: median error {format_percent(error)}"
    return png(_against(points, subject, (f"measured {what}", f"predicted {what}"), title))


def draw_comparison(runs: Sequence[Comparison]) -> Figure:
    """The epochs of followed runs, predicted over actual.

    Raises:
        UsageError: no run has an epoch beside a prediction.
        MissingDependency: matplotlib is not installed.
    """
    shown = [run for run in runs if run.actual and run.predicted.p10 > 0]
    if not shown:
        raise UsageError("no followed run has a whole steady epoch to draw beside its prediction")
    workloads = {run.workload for run in shown}
    points = [
        Point(run.workload if len(workloads) > 1 else run.config.label, run.actual, run.predicted)
        for run in shown
        if run.actual
    ]
    inside = sum(bool(run.inside_80) for run in shown) / len(shown)
    what = next(iter(workloads)) if len(workloads) == 1 else f"{len(workloads)} workloads"
    plural = "" if len(shown) == 1 else "s"
    title = f"{what}, {len(shown)} run{plural}: {format_percent(inside)} between P10 and P90"
    return _against(points, "time", ("actual epoch", "predicted epoch"), title)


def _against(
    points: Sequence[Point], subject: Subject, names: tuple[str, str], title: str
) -> Figure:
    """Predicted over measured, both positive, and the diagonal on which they are equal."""
    figure, axes = _canvas(5.4, 5.2)
    low, high = _limits(v for p in points for v in (p.measured, p.predicted.p10, p.predicted.p90))
    axes.plot([low, high], [low, high], color=INK, linewidth=1, linestyle=DASHED, zorder=1)
    for position, label in enumerate(sorted({p.label for p in points}, key=_natural)):
        _draw_points(axes, [p for p in points if p.label == label], label, position)
    axes.set(xlabel=names[0], ylabel=f"{names[1]} (P50; bar: P10–P90)")
    axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    for axis in (axes.xaxis, axes.yaxis):
        _set_ticks(axis, low, high, subject)
    axes.set_title(title, loc="left")
    _add_legend(axes, loc="upper left")  # above the diagonal nothing is drawn
    return figure


def step_time_by_batch_size(
    summaries: Sequence[Summary], curves: Mapping[str, Curve] | None = None
) -> bytes:
    """A PNG: the measured step time over the batch size, and what was predicted for it.

    Args:
        summaries: of one workload; those without a step time are left out.
        curves: batch sizes, P10, P50 and P90 in seconds, by model size (its ``size_label``).

    Raises:
        MissingDependency: matplotlib is not installed.
        ValueError: no summary has a step time.
    """
    measured = [s for s in summaries if s.step_seconds]
    if not measured:
        raise ValueError("no summary has a step time")
    curves = curves or {}
    figure, axes = _canvas(6.8, 4.2)
    labels = {size_label(s.config) for s in measured} | set(curves)
    for position, label in enumerate(sorted(labels, key=_natural)):
        if label in curves:
            _draw_curve(axes, curves[label], position)
        _draw_steps(axes, [s for s in measured if size_label(s.config) == label], label, position)
    sizes = [s.config.batch_size for s in measured] + [b for c in curves.values() for b in c[0]]
    times = [s.step_seconds or 0.0 for s in measured] + [
        second for curve in curves.values() for band in curve[1:] for second in band
    ]
    axes.set(xlabel="batch size (samples)", ylabel="time of one step")
    axes.set(xlim=_limits(sizes), ylim=_limits(times))
    _set_ticks(axes.yaxis, *_limits(times), "time")
    _set_batch_ticks(axes.xaxis, {s.config.batch_size for s in measured})
    note = "points: measured; lines: predicted P50, bands: P10–P90" if curves else "measured"
    axes.set_title(f"{measured[0].workload}: {note}", loc="left")
    _add_legend(axes, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return png(figure)


def size_label(config: RunConfig) -> str:
    """All of a configuration but its batch size: ``"width=512"``; empty if nothing else is set."""
    return replace(config, batch_size=1).label.removeprefix("batch_size=1").strip()


def _points(predictions: Sequence[ProbedPrediction], subject: Subject) -> Iterable[Point]:
    for p in predictions:
        label = size_label(p.config)
        if subject == "time":
            yield Point(label, p.measured_step_seconds, p.predicted_step_seconds)
        elif p.measured_peak_bytes is not None and p.predicted_peak_bytes is not None:
            yield Point(label, p.measured_peak_bytes, p.predicted_peak_bytes)


def _natural(label: str) -> list[tuple[float, str]]:
    """A sort key by which ``width=64`` comes before ``width=512``."""
    parts = re.split(r"(\d+(?:\.\d+)?)", label)
    return [
        (float(number), text) for text, number in zip(parts[::2], [*parts[1::2], "0"], strict=True)
    ]


def _limits(values: Iterable[float]) -> tuple[float, float]:
    """The range of positive values, widened by a few per cent of its length on a log axis."""
    positive = [value for value in values if value > 0]
    low, high = min(positive), max(positive)
    margin = max((high / low) ** 0.06, 1.08)
    return low / margin, high * margin


def _canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty figure of a size in inches, and its logarithmic axes."""
    figure = new_figure(width, height)
    axes = figure.add_subplot()
    axes.set(xscale="log", yscale="log")
    dress_axes(axes)
    axes.minorticks_off()
    return figure, axes


def _look(label: str, position: int) -> dict[str, Any]:
    """How the points of one model size are drawn."""
    return {
        "label": label or "measured",
        "color": PALETTE[position % len(PALETTE)],
        "marker": _MARKERS[position % len(_MARKERS)],
        "markersize": 6,
        "markeredgecolor": "white",
        "markeredgewidth": 0.6,
        "linestyle": "none",
    }


def _draw_points(axes: Axes, points: Sequence[Point], label: str, position: int) -> None:
    predicted = [point.predicted for point in points]
    bars = ([q.p50 - q.p10 for q in predicted], [q.p90 - q.p50 for q in predicted])
    measured, middle = [point.measured for point in points], [q.p50 for q in predicted]
    axes.errorbar(
        measured, middle, yerr=bars, elinewidth=1.4, capsize=2.5, **_look(label, position)
    )


def _draw_curve(axes: Axes, curve: Curve, position: int) -> None:
    batch_sizes, p10, p50, p90 = curve
    color = PALETTE[position % len(PALETTE)]
    axes.fill_between(batch_sizes, p10, p90, color=color, alpha=0.16, linewidth=0)
    axes.plot(batch_sizes, p50, color=color, linewidth=1.6)


def _draw_steps(axes: Axes, summaries: Sequence[Summary], label: str, position: int) -> None:
    sizes = [s.config.batch_size for s in summaries]
    axes.plot(sizes, [s.step_seconds or 0.0 for s in summaries], **_look(label, position))


def _set_ticks(axis: Axis, low: float, high: float, subject: Subject) -> None:
    """Round numbers of milliseconds or mebibytes, a handful of them, on a logarithmic axis."""
    text: Callable[[float], str] = format_seconds if subject == "time" else format_bytes
    ticks = _ticks(low, high, 1000.0 if subject == "time" else 1024.0)
    axis.set_ticks(ticks, labels=[text(tick) for tick in ticks])


def _ticks(low: float, high: float, base: float) -> list[float]:
    units = [base**power for power in range(-4, 7)]
    ticks = [step * unit for unit in units for step in _LADDER if low <= step * unit <= high]
    if len(ticks) >= 3:
        return ticks[:: -(-len(ticks) // 9)]
    unit = max(unit for unit in units if unit <= high)
    even = round_numbers(nbins=5).tick_values(low / unit, high / unit)
    return [tick * unit for tick in even if low <= tick * unit <= high]


def _set_batch_ticks(axis: Axis, batch_sizes: set[int]) -> None:
    """The measured batch sizes themselves; every other one where they would be crowded."""
    ticks = sorted(batch_sizes)
    axis.set_ticks(ticks[:: -(-len(ticks) // 10)], labels=None)
    axis.set_major_formatter("{x:.0f}")


def _add_legend(axes: Axes, **where: Any) -> None:
    """Name the model sizes; one alone needs no legend."""
    handles, labels = axes.get_legend_handles_labels()
    if len(handles) < 2:
        return
    title = None
    if len(handles) > _LEGEND_ROWS:
        title = f"first {_LEGEND_ROWS} of {len(handles)} sizes"
        handles, labels = handles[:_LEGEND_ROWS], labels[:_LEGEND_ROWS]
    axes.legend(handles, labels, title=title, frameon=False, alignment="left", **where)
