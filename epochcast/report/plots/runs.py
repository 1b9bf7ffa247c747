"""A picture of followed runs: the epoch each was predicted, with P10–P90, over the one it had.

predicted ┤            ╱          above the diagonal: faster than predicted
  P50     │        ●  ╱  ┬
          │       ╱   ●  │        bar: P10–P90; it should cross the diagonal in 8 of 10 runs
          └───────────────── actual
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from epochcast.errors import UsageError
from epochcast.report.plots.probes import Point, against
from epochcast.units import format_percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from epochcast.storage.comparing import Comparison

FORMATS = (".png", ".svg")


def save_picture(runs: Sequence[Comparison], path: str | Path) -> None:
    """Draw runs into a file.

    Raises:
        UsageError: the name ends neither in .png nor in .svg, the file cannot be written, or there
            is nothing to draw.
        MissingDependency: matplotlib is not installed.
    """
    file = Path(path)
    if file.suffix.lower() not in FORMATS:
        raise UsageError(f"a picture is a file ending in .png or .svg, but got {path}")
    figure = draw(runs)
    try:
        figure.savefig(file, metadata={"Date": None} if file.suffix.lower() == ".svg" else None)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error}") from error


def draw(runs: Sequence[Comparison]) -> Figure:
    """The picture as a matplotlib figure.

    Raises:
        UsageError: no run has an epoch beside a prediction.
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
    return against(points, "time", ("actual epoch", "predicted epoch"), title)
