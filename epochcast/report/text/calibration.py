"""Predicted against actual, run by run, and what the runs have changed, for people."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from epochcast.report.text.tables import maybe, plain_table
from epochcast.units import format_seconds

if TYPE_CHECKING:
    from epochcast.storage.comparing import Compared, Comparison, Correction

WIDE = 130  # columns of a terminal from which every number has a column of its own
PARTS = {"epoch": "epochs", "startup": "start-up", "evaluation": "evaluation", "save": "saves"}
FOLLOW = """\
{nothing}: nothing to compare yet. Make a plan, and follow it where you train:

    epochcast plan --epochs 90 --deadline 8h --output plan.json

    with ec.follow("plan.json", state={{"model": model, "optimizer": optimizer}}) as run:
        for epoch in run.epochs():
            ...

When the run ends, what it took goes to the store, and corrects the next prediction."""

Cell = Callable[["Comparison"], str]


def print_compared(console: Console, compared: Compared) -> None:
    """Every run, the newest last; how many were inside; what the next prediction makes of them."""
    console.print(runs_table(compared.runs, console.width))
    console.print()
    for line in (_inside_line(compared), *map(_correction_line, compared.corrections)):
        console.print(Text(line), soft_wrap=True)


def print_how_to_follow(console: Console, asked: str, known: Sequence[str]) -> None:
    """What to do where there is no outcome yet.

    Args:
        asked: the workload and device asked for; empty for any.
        known: workloads of which there are outcomes.
    """
    nothing = f"no run of {asked} has been followed" if asked else "no run has been followed"
    others = f" (of {', '.join(known)} there are)" if known else ""
    text = FOLLOW.format(nothing=nothing.capitalize() if not asked else nothing + others)
    console.print(Text(text[0].upper() + text[1:]), soft_wrap=True)


def runs_table(runs: Sequence[Comparison], width: int) -> Table:
    """A row for each run; on a narrow terminal what belongs together is stacked."""
    table = plain_table()
    wide = width >= WIDE
    for i, group in enumerate(_columns(runs)):
        headings = [[name] for name in group] if wide else [list(group)]
        for names in headings:
            table.add_column("\n".join(names), justify="right" if i else "left", no_wrap=i > 0)
    for run in runs:
        cells = [[form(run) for form in group.values()] for group in _columns(runs)]
        row = [cell for group in cells for cell in (group if wide else ["\n".join(group)])]
        table.add_row(*row)
    return table


def _columns(runs: Sequence[Comparison]) -> list[dict[str, Cell]]:
    """Cells by heading, in groups; what is the same in all runs goes without saying."""
    who: dict[str, Cell] = {"workload": lambda r: r.workload, "configuration": _config}
    if len({r.device.key for r in runs}) > 1:
        who["device"] = lambda r: r.device.name
    return [
        who,
        {"epochs": lambda r: f"{r.epochs:,}", "ended": lambda r: r.reason or "error"},
        {
            "epoch P10": lambda r: format_seconds(r.predicted.p10),
            "P50": lambda r: format_seconds(r.predicted.p50),
            "P90": lambda r: format_seconds(r.predicted.p90),
        },
        {
            "actual": lambda r: maybe(format_seconds, r.actual),
            "ratio": lambda r: maybe("{:.2f}".format, r.ratio),
            "inside": _inside,
        },
        {
            "total P50": lambda r: maybe(format_seconds, _total(r)),
            "took": lambda r: format_seconds(r.total),
        },
    ]


def _config(run: Comparison) -> str:
    return run.config.label


def _inside(run: Comparison) -> str:
    """Between P10 and P90, just outside them, or beyond P5 and P95."""
    if run.inside_80 is None:
        return "–"
    return "yes" if run.inside_80 else "P5–P95" if run.inside_90 else "no"


def _total(run: Comparison) -> float | None:
    return run.total_predicted.p50 if run.total_predicted else None


def _inside_line(compared: Compared) -> str:
    judged = compared.judged
    if not judged:
        return "None of them had a whole steady epoch to compare."
    n = len(judged)
    inside = sum(bool(run.inside_80) for run in judged), sum(bool(run.inside_90) for run in judged)
    return (
        f"Epochs of {inside[0]} of {n} runs lie between P10 and P90 (expected: {0.8 * n:.3g}), "
        f"of {inside[1]} between P5 and P95 (expected: {0.9 * n:.3g})."
    )


def _correction_line(correction: Correction) -> str:
    """``"mnist-mlp on …: the next prediction is corrected by 10 runs: epochs × 1.14, …"``"""
    where = f"{correction.workload} on {correction.device.label}"
    found = correction.calibrations
    if found is None:
        return f"{where}: no prediction to correct: {correction.problem}"
    named = {name: getattr(found, part) for part, name in PARTS.items()}
    factors = [f"{name} × {part.factor:.3g}" for name, part in named.items() if part.runs]
    if not factors:
        return f"{where}: none of its runs says anything about what was probed last."
    runs = max(part.runs for part in named.values())
    plural = "" if runs == 1 else "s"
    line = f"{where}: the next prediction is corrected by {runs} run{plural}: {', '.join(factors)}"
    if correction.runs > runs:
        line += f"; the other {correction.runs - runs} ran other code or configurations"
    if found.epoch.runs and correction.width is not None:
        line += f". The interval of an epoch is {correction.width:.2f} times as wide as by probes"
    return f"{line}."
