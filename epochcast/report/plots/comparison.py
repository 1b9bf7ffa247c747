"""Predicted beside measured: configurations that were probed, and runs that were followed.

    draw_against_measured   every configuration a point; the diagonal is a right prediction
    draw_by_batch_size      measured points over fitted curves with their P10–P90 bands
    draw_comparison         every followed run a point, by the epoch it had
    draw_followed           every epoch of followed runs in the band that was predicted for it

One colour, marker and kind of line is one model size. Axes are logarithmic: cost spans decades,
and equal distances are equal ratios. A bar is P10–P90 and should cross the diagonal in 8 cases of
10.
"""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from epochcast.costmodel.outcomes import Comparison, actual_seconds, comparison
from epochcast.errors import UsageError
from epochcast.records import Quantiles, RunConfig, RunOutcome, Summary
from epochcast.report.plots.pictures import (
    BLUE,
    DASHED,
    INK,
    ORANGE,
    PAGE,
    PALETTE,
    Picture,
    dress_axes,
    new_figure,
    round_numbers,
    set_title,
)
from epochcast.report.plots.probed import ProbedPrediction
from epochcast.units import format_bytes, format_number_of, format_percent, format_seconds

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

_T = TypeVar("_T")
Subject = Literal["time", "memory"]
WHAT: Mapping[Subject, str] = {"time": "time of one step", "memory": "peak of live tensors"}

READ_AGAINST: Mapping[Subject, str] = {
    "time": "On the diagonal the prediction is right.",
    "memory": "Above the diagonal is safe; below it a run may run out of memory.",
}
_MARKERS = "osD^vPX"  # coprime with the palette: 42 combinations before one repeats
_LINES = ("-", DASHED, "-.", ":")
_LEGEND_ROWS = 14  # of more model sizes than this the rest is counted, not named
_RUNS = 30  # of a picture: more are too narrow to tell apart
_RATIOS = (0.1, 0.2, 0.33, 0.5, 0.67, 0.8, 0.9, 1, 1.1, 1.25, 1.5, 2, 3, 5, 10)
_LADDER = (1, 2, 5, 10, 20, 50, 100, 200, 500)


@dataclass(frozen=True, slots=True)
class Point:
    """What was predicted beside what was measured; points of one label look alike."""

    label: str
    measured: float
    predicted: Quantiles


def probed_pictures(
    summaries: Sequence[Summary], predictions: Sequence[ProbedPrediction]
) -> list[Picture]:
    """All pictures of one workload on one device.

    Args:
        summaries: what was measured.
        predictions: of the same; empty where there is no cost model.
    """
    found = []
    names: Mapping[Subject, str] = {"time": "step time", "memory": "peak memory"}
    for subject, name in names.items():
        if any(_measured(s, subject) for s in summaries):
            words = "Points: measured. Lines and bands: predicted P50 and P10 to P90."
            draw = partial(draw_by_batch_size, summaries, predictions, subject)
            found.append(Picture(f"{name} by batch size", words, draw))
        if any(all(_pair(p, subject)) for p in predictions):
            words = f"Bars: P10 to P90. {READ_AGAINST[subject]}"
            draw = partial(draw_against_measured, predictions, subject)
            found.append(Picture(f"{name}, predicted against measured", words, draw))
    return found


def followed_pictures(outcomes: Sequence[RunOutcome]) -> list[Picture]:
    """All pictures of followed runs; none where no run had a whole steady epoch."""
    if not any(actual_seconds(o) and o.predicted.epoch.p10 > 0 for o in outcomes):
        return []
    columns = "A column is a run: its epochs as points, in the band that was predicted for it."
    points = "A point is a run. On the diagonal the prediction is right; bars: P10 to P90."
    runs = [comparison(outcome) for outcome in outcomes]
    return [
        Picture("followed runs", columns, partial(draw_followed, outcomes)),
        Picture("epochs, predicted against actual", points, partial(draw_comparison, runs)),
    ]


def draw_against_measured(
    predictions: Sequence[ProbedPrediction], subject: Subject = "time"
) -> Figure:
    """Every measured configuration's prediction, with its P10–P90 bar, over its measurement.

    Args:
        predictions: of one workload on one device.
        subject: seconds of a step, or bytes of its peak memory.

    Raises:
        MissingDependency: matplotlib is not installed.
        UsageError: none of the predictions has a measured value above zero beside it.
    """
    points = [
        Point(size_label(p.config), measured, predicted)
        for p in predictions
        for measured, predicted in [_pair(p, subject)]
        if measured and predicted
    ]
    if not points:
        raise UsageError(f"no prediction of {subject} has a measurement beside it")
    what = WHAT[subject]
    error = median(abs(p.predicted.p50 / p.measured - 1) for p in points)
    count = format_number_of(len(points), "configuration")
    title = f"{predictions[0].workload}: median error {format_percent(error)} of {count}"
    return _against(points, subject, (f"measured {what}", f"predicted {what}"), title)


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


def draw_followed(outcomes: Sequence[RunOutcome]) -> Figure:
    """Epochs of followed runs over what was predicted for them, a column for each run.

    Raises:
        UsageError: no run has an epoch beside a prediction.
        MissingDependency: matplotlib is not installed.
    """
    judged = [o for o in outcomes if actual_seconds(o) and o.predicted.epoch.p10 > 0]
    shown = sorted(judged, key=lambda o: o.finished_at)[-_RUNS:]
    if not shown:
        raise UsageError("no followed run has a whole steady epoch to draw beside its prediction")
    figure = new_figure(6.8, 3.4)
    axes = figure.subplots()
    axes.set(yscale="log")
    dress_axes(axes)
    for at, outcome in enumerate(shown):
        _draw_outcome(axes, at, outcome, named=not at)
    axes.axhline(1.0, color=INK, linewidth=1, linestyle=DASHED, zorder=1)
    axes.minorticks_off()
    low, high = axes.get_ylim()
    ticks = sorted({1.0, *_RATIOS[bisect(_RATIOS, low) : bisect(_RATIOS, high)]})
    axes.set_yticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    ends = sorted({0, len(shown) - 1})
    dates = [
        f"{datetime.fromtimestamp(shown[at].finished_at, timezone.utc):%Y-%m-%d}" for at in ends
    ]
    axes.set_xticks(ends, labels=dates)
    axes.set(xlim=(-0.7, len(shown) - 0.3), ylabel="epoch, actual over predicted P50")
    last = f", the last {_RUNS}" if len(judged) > _RUNS else ""
    set_title(
        axes, f"{format_number_of(len(judged), 'followed run')}{last}, the newest on the right"
    )
    figure.legend(loc="outside lower left", ncols=3, frameon=False)
    return figure


def _draw_outcome(axes: Axes, at: int, outcome: RunOutcome, named: bool) -> None:
    """The predicted band of a run, each of its epochs, and their median."""
    q, share = outcome.predicted.epoch, outcome.epoch_share
    ends, labels = [at - 0.4, at + 0.4], ("predicted P10–P90", "epochs", "their median")
    band, points, middle = labels if named else (None, None, None)
    low, high = q.p10 / q.p50, q.p90 / q.p50
    axes.fill_between(ends, low, high, color=BLUE, alpha=0.26, linewidth=0, label=band)
    every = [seconds / share / q.p50 for seconds in outcome.epoch_seconds if seconds > 0]
    across = [at - 0.25 + 0.5 * (k + 0.5) / len(every) for k in range(len(every))]
    axes.plot(across, every, "o", color=INK, markersize=2.4, alpha=0.7, label=points)
    axes.plot(ends, [median(every)] * 2, color=ORANGE, linewidth=2, label=middle)


def _against(
    points: Sequence[Point], subject: Subject, names: tuple[str, str], title: str
) -> Figure:
    """Predicted over measured, both positive, and the diagonal on which they are equal."""
    figure, axes = _canvas(5.4, 5.2)
    low, high = _limits(v for p in points for v in (p.measured, p.predicted.p10, p.predicted.p90))
    axes.plot([low, high], [low, high], color=INK, linewidth=1, linestyle=DASHED, zorder=1)
    for position, (label, shown) in enumerate(_names({p.label for p in points}).items()):
        _draw_points(axes, [p for p in points if p.label == label], shown, position)
    axes.set(xlabel=names[0], ylabel=f"{names[1]} (P50; bar: P10–P90)")
    axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    for axis in (axes.xaxis, axes.yaxis):
        _set_ticks(axis, low, high, subject)
    set_title(axes, title)
    _add_legend(axes, loc="upper left")  # above the diagonal nothing is drawn
    return figure


def draw_by_batch_size(
    summaries: Sequence[Summary],
    predictions: Sequence[ProbedPrediction] = (),
    subject: Subject = "time",
) -> Figure:
    """What was measured over the batch size, and what was predicted for it.

    Args:
        summaries: of one workload on one device; those without a measurement are left out.
        predictions: of the same, for the curves and their bands.
        subject: seconds of a step, or bytes of its peak memory.

    Raises:
        MissingDependency: matplotlib is not installed.
        UsageError: nothing was measured.
    """
    points = _by_size((s.config, _measured(s, subject)) for s in summaries)
    curves = _by_size((p.config, _pair(p, subject)[1]) for p in predictions)
    if not points:
        raise UsageError(f"no configuration has a measured {WHAT[subject]}")
    figure, axes = _canvas(6.8, 4.2)
    for position, (label, shown) in enumerate(_names({*points, *curves}).items()):
        _draw_curve(axes, curves.get(label, []), position)
        measured = points.get(label, [])
        at = [size for size, _ in measured]
        axes.plot(at, [value for _, value in measured], **_look(shown, position))
    values = [value for line in points.values() for _, value in line]
    values += [v for line in curves.values() for _, q in line for v in (q.p10, q.p90)]
    probed = {size for line in points.values() for size, _ in line}
    sizes = [*probed, *(size for line in curves.values() for size, _ in line)]
    axes.set(xlabel="batch size (samples)", ylabel=WHAT[subject])
    axes.set(xlim=_limits(sizes), ylim=_limits(values))
    _set_ticks(axes.yaxis, *_limits(values), subject)
    _set_batch_ticks(axes.xaxis, probed)
    note = "points: measured; lines: predicted P50, bands: P10–P90" if curves else "measured"
    set_title(axes, f"{summaries[0].workload}: {note}")
    _add_legend(axes, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def _measured(summary: Summary, subject: Subject) -> float | None:
    return summary.step_seconds if subject == "time" else summary.peak_bytes


def _pair(p: ProbedPrediction, subject: Subject) -> tuple[float | None, Quantiles | None]:
    """What was measured, and what was predicted."""
    if subject == "time":
        return p.measured_step_seconds, p.predicted_step_seconds
    return p.measured_peak_bytes, p.predicted_peak_bytes


def _by_size(found: Iterable[tuple[RunConfig, _T | None]]) -> dict[str, list[tuple[int, _T]]]:
    """Batch sizes in their order and what belongs to them, by model size."""
    lines: dict[str, list[tuple[int, _T]]] = {}
    for config, value in sorted(found, key=lambda pair: pair[0].batch_size):
        if value:
            lines.setdefault(size_label(config), []).append((config.batch_size, value))
    return lines


def size_label(config: RunConfig) -> str:
    """All of a configuration but its batch size: ``"width=512"``; empty if nothing else is set."""
    return replace(config, batch_size=1).label.removeprefix("batch_size=1").strip()


def _names(labels: set[str]) -> dict[str, str]:
    """In the order in which to draw them, without what all of them have in common."""
    parts = {label: label.split() for label in sorted(labels, key=_natural)}
    common = set.intersection(*map(set, parts.values())) if len(parts) > 1 else set()
    return {label: " ".join(w for w in words if w not in common) for label, words in parts.items()}


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
        "markeredgecolor": PAGE,
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


def _draw_curve(axes: Axes, curve: Sequence[tuple[int, Quantiles]], position: int) -> None:
    sizes, shown = [size for size, _ in curve], [q for _, q in curve]
    color = PALETTE[position % len(PALETTE)]
    low, high = [q.p10 for q in shown], [q.p90 for q in shown]
    axes.fill_between(sizes, low, high, color=color, alpha=0.16, linewidth=0)
    style = _LINES[position % len(_LINES)]
    axes.plot(sizes, [q.p50 for q in shown], color=color, linewidth=1.6, linestyle=style)


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
