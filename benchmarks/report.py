"""The accuracy benchmark's tables, text and figure, from its cases."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from scores import coverage, errors, under_estimates
from splits import SPLITS

from epochcast.records import Measurement, Quantiles
from epochcast.units import format_seconds

if TYPE_CHECKING:
    from evaluation import Case

WRITER = "benchmarks/accuracy.py"
OURS, NOISE = "epochcast", "measured again"
QUIET = 0.05  # median noise floor up to which errors of a few per cent can be told apart
LEVEL = 1e-5  # the figure's left edge: exact, or as good as
QUANTITIES = ("step seconds", "peak bytes", "device bytes")
TITLES = {
    "step seconds": "Time of a step",
    "peak bytes": "Peak of live tensors",
    "device bytes": "Memory of the process",
}

Row = dict[str, Any]


def tables(cases: Sequence[Case]) -> list[Row]:
    """For each quantity, split and method: errors, coverage, under-estimates, cost."""
    return [
        row
        for quantity in QUANTITIES
        for split in SPLITS
        for row in rows([c for c in cases if (c.quantity, c.split) == (quantity, split)])
    ]


def rows(cases: Sequence[Case]) -> list[Row]:
    """One row per method, of cases that are compared with each other; the best comes first."""
    answering = dict.fromkeys(method for case in cases for method in case.answers)
    methods = sorted(answering, key=lambda method: method != NOISE)
    found = [row for method in methods if (row := _row(cases, method))]
    floor = next((row["median"] for row in found if row["method"] == NOISE), 0.0)
    for row in found:
        row["over_noise"] = row["median"] / floor if floor else None
    return found


def _row(cases: Sequence[Case], method: str) -> Row | None:
    found = errors(e for case in cases if (e := case.error(method)) is not None)
    if found is None:
        return None
    pairs = [
        (answer, value)
        for case in cases
        if isinstance(answer := case.answers.get(method), Quantiles)
        for value in case.later
    ]
    probing = {(c.workload, c.config.sizes): c.probing_seconds for c in cases}
    return {
        "quantity": cases[0].quantity,
        "split": cases[0].split,
        "method": method,
        **asdict(found),
        "p10_p90": coverage(pairs, "p10", "p90"),
        "p05_p95": coverage(pairs, "p05", "p95"),
        "under_p95": under_estimates(pairs),
        "probing_seconds": fmean(probing.values()),
    }


def behind(table: Sequence[Row]) -> list[Row]:
    """Rows of methods with a smaller median, P90 or maximum than epochcast's own."""
    found = []
    for ours in (row for row in table if row["method"] == OURS):
        same = (ours["quantity"], ours["split"])
        rivals = [row for row in table if (row["quantity"], row["split"]) == same]
        for row in rivals:
            if row["method"].startswith(OURS) or row["method"] == NOISE:
                continue
            better = [m for m in ("median", "p90", "max") if row[m] < ours[m]]
            if better:
                found.append({**row, "better": better, "ours": ours})
    return found


# -- text -------------------------------------------------------------------------------------


def text(
    about: Row, measurements: Sequence[Measurement], cases: Sequence[Case], exact: tuple[int, int]
) -> str:
    """Everything that the document says in numbers, as Markdown."""
    table = tables(cases)
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    seconds = sum(m.probe_seconds for m in measurements)
    parts = [
        f"Measured on {about['date']}: {measurements[0].device.label}; {about['machine']}; "
        f"{versions}.\n`{about['command']}`: {len(measurements)} trials, "
        f"{format_seconds(seconds)} of measuring.",
    ]
    parts += [*_disturbed(table), "### In short", _in_short(table)]
    for quantity in QUANTITIES:
        parts.append(f"### {TITLES[quantity]}")
        if quantity == "peak bytes":
            parts.append(
                f"Dry run and real step agree to the byte in {exact[0]} of {exact[1]} "
                "configurations."
            )
        for split in SPLITS:
            chosen = [r for r in table if (r["quantity"], r["split"]) == (quantity, split)]
            if chosen:
                parts.append(markdown(split, chosen))
    parts += ["### By workload", _by_workload(cases), "### Where epochcast is not ahead"]
    parts.append(behind_text(table))
    return "\n\n".join(parts)


COLUMNS: tuple[tuple[str, Callable[[Row], str]], ...] = (
    ("mean", lambda r: percent(r["mean"])),
    ("median", lambda r: percent(r["median"])),
    ("P90", lambda r: percent(r["p90"])),
    ("max", lambda r: percent(r["max"])),
    ("median / noise", lambda r: "–" if r["over_noise"] is None else f"{r['over_noise']:.1f}"),
    ("in P10–P90", lambda r: percent(r["p10_p90"], 0)),
    ("in P5–P95", lambda r: percent(r["p05_p95"], 0)),
    ("above P95", lambda r: percent(r["under_p95"], 0)),
)


def markdown(split: str, chosen: Sequence[Row]) -> str:
    """The rows of one split as a table."""
    ours = next(row for row in chosen if row["method"] == OURS)
    head = [f"{split} ({ours['count']})", *(name for name, _ in COLUMNS)]
    lines = [head, ["---", *["--:"] * len(COLUMNS)]]
    for row in chosen:
        lines.append([named(row, ours), *(show(row) for _, show in COLUMNS)])
    seconds = ours["probing_seconds"]  # nothing for what others measured
    return _lines(lines) + (
        f"\n\nProbing, on average: {format_seconds(seconds)}." if seconds else ""
    )


def named(row: Row, ours: Row) -> str:
    """A method, with in how many cases it answers where these are fewer than ours."""
    return row["method"] + ("" if row["count"] == ours["count"] else f" ({row['count']})")


def _disturbed(table: Sequence[Row]) -> list[str]:
    """A plain word where the machine was too busy for the times to say anything."""
    floors = [r for r in table if (r["quantity"], r["method"]) == ("step seconds", NOISE)]
    worst = max((row["median"] for row in floors), default=0.0)
    if worst <= QUIET:
        return []
    return [
        f"**The machine was not quiet.** The same configuration measured again differs by up to "
        f"{percent(worst)} in the median of a split. No method can be told from another by these "
        "times, and no accuracy of a quiet machine can be read from them. Measure again when "
        "nothing else runs. Tensor memory does not depend on it."
    ]


def _in_short(table: Sequence[Row]) -> str:
    """Of each quantity and split: epochcast, the noise floor, and the best other method."""
    head = ["median (P90) error", OURS, "in P5–P95", NOISE, "best other method"]
    lines = [head, ["---", "--:", "--:", "--:", "---"]]
    for ours in (row for row in table if row["method"] == OURS):
        same = [
            r for r in table if (r["quantity"], r["split"]) == (ours["quantity"], ours["split"])
        ]
        floor = next(row for row in same if row["method"] == NOISE)
        others = [row for row in same if not row["method"].startswith((OURS, NOISE))]
        best = min((r for r in others if r["count"] == ours["count"]), key=lambda r: r["median"])
        what = f"{TITLES[ours['quantity']]}, {ours['split']}"
        inside = percent(ours["p05_p95"], 0)
        lines.append([what, _both(ours), inside, _both(floor), f"{best['method']}: {_both(best)}"])
    return _lines(lines)


def _both(row: Row) -> str:
    return f"{percent(row['median'])} ({percent(row['p90'])})"


def _by_workload(cases: Sequence[Case]) -> str:
    head = ["step time: median (max) error; noise", *SPLITS]
    lines = [head, ["---", *["--:"] * len(SPLITS)]]
    for workload in dict.fromkeys(c.workload for c in cases):
        line = [workload]
        for split in SPLITS:
            key = (workload, split, "step seconds")
            chosen = [c for c in cases if (c.workload, c.split, c.quantity) == key]
            ours, floor = _row(chosen, OURS), _row(chosen, NOISE)
            line.append(
                f"{percent(ours['median'])} ({percent(ours['max'])}); {percent(floor['median'])}"
                if ours and floor
                else "–"
            )
        lines.append(line)
    return _lines(lines)


def behind_text(table: Sequence[Row]) -> str:
    """The same in words."""
    found = behind(table)
    if not found:
        return "Nowhere in these tables: no other method has a smaller median, P90 or maximum."
    lines = []
    for row in found:
        what = ", ".join(_against(row, name) for name in row["better"])
        count, ours = row["count"], row["ours"]["count"]
        part = "" if count == ours else f", in the {count} of {ours} cases that it answers"
        lines.append(f"* {TITLES[row['quantity']]}, {row['split']}: {row['method']}: {what}{part}.")
    return "\n".join(lines)


def _against(row: Row, name: str) -> str:
    title = "P90" if name == "p90" else name
    return f"{title} {percent(row[name])} against {percent(row['ours'][name])}"


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
    """Put text between a script's markers in a document, which is made if there is none."""
    begin, end = f"<!-- written by {writer}: begin -->", "<!-- end -->"
    around = path.read_text() if path.is_file() else f"{begin}\n{end}\n"
    before, _, rest = around.partition(begin)
    _, _, after = rest.partition(end)
    path.write_text(f"{before}{begin}\n\n{written}\n\n{end}{after}")


# -- figure -----------------------------------------------------------------------------------

INK, GRID, OUR_COLOR, OTHER_COLOR, FLOOR = "#333333", "#E2E2E2", "#D55E00", "#0072B2", "#EDEDED"


PANELS = (
    *(("step seconds", split) for split in SPLITS),
    ("peak bytes", SPLITS[1]),
    ("device bytes", SPLITS[1]),
)


def figure(table: Sequence[Row], panels: Sequence[tuple[str, str]] = PANELS) -> bytes:
    """A PNG: for each split the median error of every method, its P90, and the noise floor.

    Args:
        panels: quantity and split of each; two stand side by side.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made = Figure(figsize=(11, 7.6), dpi=120, layout="constrained", facecolor="white")
    FigureCanvasAgg(made)
    for axes, key in zip(made.subplots(len(panels) // 2, 2).flat, panels, strict=True):
        _panel(axes, key, [r for r in table if (r["quantity"], r["split"]) == key])
    made.suptitle(
        "Relative error: dot median, line to P90; grey: the same measured again (P50–P90)"
    )
    buffer = io.BytesIO()
    made.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _panel(axes: Any, key: tuple[str, str], chosen: Sequence[Row]) -> None:
    shown = [row for row in chosen if row["method"] != NOISE][::-1]
    floor = next((row for row in chosen if row["method"] == NOISE), None)
    left = 1e-3 if key[0] == "step seconds" else LEVEL
    if floor:
        axes.axvspan(max(left, floor["median"]), max(left, floor["p90"]), color=FLOOR, zorder=0)
    for place, row in enumerate(shown):
        color = OUR_COLOR if row["method"].startswith(OURS) else OTHER_COLOR
        middle, high = max(left, row["median"]), max(left, row["p90"])
        axes.plot([middle, high], [place, place], color=color, linewidth=1.6)
        axes.plot([middle], [place], "o", color=color, markersize=6, clip_on=False)
        if high == left:
            axes.annotate("exact", (left, place), (8, -3), textcoords="offset points", color=INK)
    axes.set(xscale="log", ylim=(-0.6, len(shown) - 0.4), axisbelow=True)
    axes.set_xlim(left, max([1.0, *(2 * row["p90"] for row in shown)]))
    axes.set_yticks(range(len(shown)), [named(row, shown[-1]) for row in shown])
    axes.xaxis.set_major_formatter(lambda x, _: f"{100 * x:g} %")
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=INK, labelsize=8)
    axes.set_title(f"{TITLES[key[0]]}: {key[1]}", loc="left", fontsize=10)
