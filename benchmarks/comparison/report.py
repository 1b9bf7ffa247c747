"""The text and the figure of a benchmark of accuracy, from its cases and scores."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import floor, log10
from pathlib import Path
from typing import Any

import msgspec

from comparison.cases import DEVICE, EPOCHCAST, NOISE, PEAK, QUANTITIES, STEP, Case
from comparison.scoreboard import Score, ahead, all_scores, is_other, score_of
from comparison.splits import LARGEST, SPLITS
from epochcast.records import Measurement
from epochcast.units import format_seconds

WRITER = "benchmarks/accuracy.py"
QUIET = 0.05  # median noise floor up to which errors of a few per cent can be told apart
LEVEL = 1e-5  # the figure's left edge: exact, or as good as
TITLES = {
    STEP: "Time of a step",
    PEAK: "Peak of live tensors",
    DEVICE: "Memory of the process",
}

# -- text -------------------------------------------------------------------------------------


def text(
    about: Mapping[str, Any],
    measurements: Sequence[Measurement],
    cases: Sequence[Case],
    exact: tuple[int, int],
) -> str:
    """Everything that the document says in numbers, as Markdown.

    Args:
        about: where and when it was measured.
        measurements: all of them.
        cases: what is compared.
        exact: configurations of which the dry run is exact, and all that were counted.
    """
    scores = all_scores(cases)
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    seconds = sum(m.probe_seconds for m in measurements)
    parts = [
        f"Measured on {about['date']}: {measurements[0].device.label}; {about['machine']}; "
        f"{versions}.\n`{about['command']}`: {len(measurements)} trials, "
        f"{format_seconds(seconds)} of measuring.",
    ]
    parts += [*_disturbed(scores), "### In short", _in_short(scores)]
    for quantity in QUANTITIES:
        parts.append(f"### {TITLES[quantity]}")
        if quantity == PEAK:
            parts.append(
                f"Dry run and real step agree to the byte in {exact[0]} of {exact[1]} "
                "configurations."
            )
        for split in SPLITS:
            if chosen := [s for s in scores if s.where == (quantity, split)]:
                parts.append(markdown(chosen))
    parts += ["### By workload", _by_workload(cases), "### Where epochcast is not ahead"]
    parts.append(ahead_text(scores))
    return "\n\n".join(parts)


COLUMNS: tuple[tuple[str, Callable[[Score], str]], ...] = (
    ("mean", lambda s: percent(s.mean)),
    ("median", lambda s: percent(s.median)),
    ("P90", lambda s: percent(s.p90)),
    ("max", lambda s: percent(s.max)),
    ("median / noise", lambda s: "–" if s.over_noise is None else f"{s.over_noise:.1f}"),
    ("in P10–P90", lambda s: percent(s.p10_p90, 0)),
    ("in P5–P95", lambda s: percent(s.p05_p95, 0)),
    ("above P95", lambda s: percent(s.under_p95, 0)),
)


def markdown(chosen: Sequence[Score]) -> str:
    """The scores of one split as a table."""
    ours = next(score for score in chosen if score.method == EPOCHCAST)
    head = [f"{ours.split} ({ours.count})", *(name for name, _ in COLUMNS)]
    lines = [head, ["---", *["--:"] * len(COLUMNS)]]
    for score in chosen:
        lines.append([named(score, ours), *(show(score) for _, show in COLUMNS)])
    seconds = ours.probing_seconds  # nothing for what others measured
    return _lines(lines) + (
        f"\n\nProbing, on average: {format_seconds(seconds)}." if seconds else ""
    )


def named(score: Score, ours: Score) -> str:
    """A method, with in how many cases it answers where these are fewer than ours."""
    return score.method + ("" if score.count == ours.count else f" ({score.count})")


def _disturbed(scores: Sequence[Score]) -> list[str]:
    """A plain word where the machine was too busy for the times to say anything."""
    floors = [s.median for s in scores if (s.quantity, s.method) == (STEP, NOISE)]
    worst = max(floors, default=0.0)
    if worst <= QUIET:
        return []
    return [
        f"**The machine was not quiet.** The same configuration measured again differs by up to "
        f"{percent(worst)} in the median of a split. No method can be told from another by these "
        "times, and no accuracy of a quiet machine can be read from them. Measure again when "
        "nothing else runs. Tensor memory does not depend on it."
    ]


def _in_short(scores: Sequence[Score]) -> str:
    """Of each quantity and split: epochcast, the noise floor, and the best other method."""
    head = ["median (P90) error", EPOCHCAST, "in P5–P95", NOISE, "best other method"]
    lines = [head, ["---", "--:", "--:", "--:", "---"]]
    for ours in (score for score in scores if score.method == EPOCHCAST):
        same = [score for score in scores if score.where == ours.where]
        floor = next(score for score in same if score.method == NOISE)
        others = (score for score in same if is_other(score) and score.count == ours.count)
        best = min(others, key=lambda score: score.median)
        what = f"{TITLES[ours.quantity]}, {ours.split}"
        inside = percent(ours.p05_p95, 0)
        lines.append([what, _both(ours), inside, _both(floor), f"{best.method}: {_both(best)}"])
    return _lines(lines)


def _both(score: Score) -> str:
    return f"{percent(score.median)} ({percent(score.p90)})"


def _by_workload(cases: Sequence[Case]) -> str:
    head = ["step time: median (max) error; noise", *SPLITS]
    lines = [head, ["---", *["--:"] * len(SPLITS)]]
    for workload in dict.fromkeys(c.workload for c in cases):
        line = [workload]
        for split in SPLITS:
            key = (workload, split, STEP)
            chosen = [c for c in cases if (c.workload, c.split, c.quantity) == key]
            ours, floor = score_of(chosen, EPOCHCAST), score_of(chosen, NOISE)
            line.append(
                f"{percent(ours.median)} ({percent(ours.max)}); {percent(floor.median)}"
                if ours and floor
                else "–"
            )
        lines.append(line)
    return _lines(lines)


def ahead_text(scores: Sequence[Score]) -> str:
    """Who is ahead of epochcast in what, in words."""
    lines = []
    for found in ahead(scores):
        score, ours = found.score, found.ours
        what = ", ".join(
            f"{_title(name)} {percent(getattr(score, name))} against {percent(getattr(ours, name))}"
            for name in found.better
        )
        whole = score.count == ours.count
        part = "" if whole else f", in the {score.count} of {ours.count} cases that it answers"
        lines.append(f"* {TITLES[score.quantity]}, {score.split}: {score.method}: {what}{part}.")
    if not lines:
        return "Nowhere in these tables: no other method has a smaller median, P90 or maximum."
    return "\n".join(lines)


def _title(name: str) -> str:
    return "P90" if name == "p90" else name


def percent(share: float | None, digits: int | None = None) -> str:
    """A share for a table: two digits that count, and no more than one after the point."""
    if share is None:
        return "–"
    if digits is None:
        digits = 0 if share >= 0.1 else 1 if share >= 0.01 else 2
    if 0 < share < 5e-5 and digits:
        return "< 0.01 %"
    return f"{100 * share:.{digits}f} %" if share else "0 %"


def _lines(cells: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def insert(path: Path, written: str, writer: str = WRITER) -> None:
    """Put text between a script's markers in a document, which is made if there is none.

    Args:
        path: of the document.
        written: what goes between the markers.
        writer: the script that they name.
    """
    begin, end = f"<!-- written by {writer}: begin -->", "<!-- end -->"
    around = path.read_text() if path.is_file() else f"{begin}\n{end}\n"
    before, _, rest = around.partition(begin)
    _, _, after = rest.partition(end)
    path.write_text(f"{before}{begin}\n\n{written}\n\n{end}{after}")


# -- figure -----------------------------------------------------------------------------------

INK, GRID, OUR_COLOR, OTHER_COLOR, FLOOR = "#333333", "#E2E2E2", "#D55E00", "#0072B2", "#EDEDED"


PANELS = (
    *((STEP, split) for split in SPLITS),
    (PEAK, LARGEST),
    (DEVICE, LARGEST),
)


def figure(scores: Sequence[Score], panels: Sequence[tuple[str, str]] = PANELS) -> bytes:
    """A PNG: for each split the median error of every method, its P90, and the noise floor.

    Args:
        scores: of all methods.
        panels: quantity and split of each; two stand side by side.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made = Figure(figsize=(11, 8.2), dpi=120, layout="constrained", facecolor="white")
    FigureCanvasAgg(made)
    for axes, key in zip(made.subplots(len(panels) // 2, 2).flat, panels, strict=True):
        alike = [score for score in scores if score.where in panels and score.quantity == key[0]]
        _panel(axes, [score for score in alike if score.where == key], _ends(alike))
    made.suptitle(
        "Relative error of predictions. Marker: median; line: to P90; "
        "orange diamonds: epochcast.\nGrey: how far the same measured again is off, P50 to P90.",
        fontsize=11,
    )
    buffer = io.BytesIO()
    made.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def stored_scores(result: Path) -> list[Score]:
    """The scores that a benchmark has written."""
    return msgspec.convert(json.loads(result.read_text())["tables"], list[Score])


def _ends(scores: Sequence[Score]) -> tuple[float, float]:
    """A decade below the smallest median that can be told from none, and a round number above all.

    All panels of one quantity have the same ends, so that they can be compared.
    """
    least = min(s.median for s in scores if s.median > LEVEL)
    most = 1.05 * max(1.0, *(s.p90 for s in scores))
    decade = 10 ** floor(log10(most))
    return 10 ** floor(log10(least)), next(n * decade for n in (1, 2, 5, 10) if n * decade >= most)


def _panel(axes: Any, chosen: Sequence[Score], ends: tuple[float, float]) -> None:
    shown = [score for score in chosen if score.method != NOISE][::-1]
    noise = next((score for score in chosen if score.method == NOISE), None)
    first, last = ends
    if min(score.median for score in shown) < first:  # zero is a place of its own, left of the rest
        axes.set_xscale("symlog", linthresh=first, linscale=0.5)
        axes.set_xlim(0, last)
    else:
        axes.set_xscale("log")
        axes.set_xlim(first, last)
    if noise:
        axes.axvspan(noise.median, noise.p90, color=FLOOR, zorder=0)
    for height, score in enumerate(shown):
        ours = score.method.startswith(EPOCHCAST)
        color, marker = (OUR_COLOR, "D") if ours else (OTHER_COLOR, "o")
        axes.plot([score.median, score.p90], [height, height], color=color, linewidth=1.6)
        axes.plot([score.median], [height], marker, color=color, markersize=6, clip_on=False)
        if score.p90 <= LEVEL:
            axes.annotate("exact", (0, height), (8, -3), textcoords="offset points", color=INK)
    axes.set(ylim=(-0.6, len(shown) - 0.4), axisbelow=True)
    axes.set_yticks(range(len(shown)), [_row_name(score, shown[-1]) for score in shown])
    axes.xaxis.set_major_formatter(lambda x, _: f"{100 * x:,g} %" if x else "0")
    axes.minorticks_off()
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=INK, labelsize=8)
    title = f"{TITLES[chosen[0].quantity]}: {chosen[0].split}, {shown[-1].count:,} cases"
    axes.set_title(title, loc="left", fontsize=10, x=-0.3)


def _row_name(score: Score, ours: Score) -> str:
    fewer = "" if score.count == ours.count else f"\n(answers {score.count:,} of {ours.count:,})"
    return score.method + fewer
