"""What ``check`` found: one line for a step that is as it was, a table for one that is not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean

from rich.console import Console
from rich.text import Text

from epochcast.records import Change, CheckedStep
from epochcast.report.text.layout import columns, say
from epochcast.units import format_bytes, format_change, format_percent, format_seconds

NAMES = {
    "trainable_parameters": "trained parameters",
    "samples": "samples an epoch",
    "peak_bytes": "peak of training",
    "eval_peak_bytes": "peak of evaluation",
    "flops": "FLOPs",
    "bytes_moved": "bytes moved",
    "update_operators": "operators of the update",
    "step_seconds": "time of a step",
}
_OF_FLOPS = ("{:,.0f}".format, "FLOPs")
_OF_PEAK = (format_bytes, "At the peak of training")


def print_checked(
    console: Console, checked: Sequence[CheckedStep], baseline: str, updated: bool = False
) -> None:
    """Every step, and what became of it.

    Args:
        console: where to print.
        checked: in the order of the baseline.
        baseline: name of the file.
        updated: whether it has what was found already.
    """
    for step in checked:
        changes = step.changes
        state = "updated" if updated and changes else "passed" if step.passed else "FAILED"
        state = "new" if step.before is None else state
        what = "" if changes or step.before is None else ": as it was"
        untimed = () if updated else step.untimed_before
        style = "bold red" if state == "FAILED" else "bold"
        console.print(Text(f"{step.asked.label}  {state}{what}", style=style), soft_wrap=True)
        if changes:
            console.print(_table(changes))
        _print_culprits(console, changes)
        _print_torch(console, step)
        for timed in untimed:
            say(
                console,
                f"Its {format_seconds(fmean(timed.step_seconds))} on {timed.label} are compared "
                f"with nothing: {baseline} has no time of this device; "
                "--update beside --max-time writes it.",
            )
    if updated:
        return
    if not all(step.passed for step in checked):
        say(console, f"If this is meant: epochcast check --update, and commit {baseline}.")
    elif any(change.verdict == "better" for step in checked for change in step.changes):
        say(console, f"Less than before; epochcast check --update holds it to that in {baseline}.")


def _table(changes: Sequence[Change]) -> object:
    return columns(
        {
            "": [NAMES.get(c.name, c.name.replace("_", " ")) for c in changes],
            "before": [_shown(c.name, c.before) for c in changes],
            "now": [_shown(c.name, c.after) for c in changes],
            "change": [_relative(c) for c in changes],
            "verdict": [c.verdict for c in changes],
        },
        left=("", "verdict"),
    )


def _shown(name: str, value: float | str) -> str:
    if isinstance(value, str):
        return value
    if name == "step_seconds":
        return format_seconds(value)
    if name.endswith("_bytes") or name == "bytes_moved":
        return format_bytes(value)
    return f"{value:,.0f}"


def _relative(change: Change) -> str:
    before, after = change.before, change.after
    if isinstance(before, str) or isinstance(after, str) or not before:
        return "–"
    share = format_change(after / before - 1)
    if change.interval is None:
        return share
    low, high = (format_percent(bound - 1) for bound in change.interval)
    return f"{share} ({low} to {high})"


def _print_culprits(console: Console, changes: Sequence[Change]) -> None:
    for change in changes:
        if change.culprits:
            shown, where = _OF_FLOPS if change.name == "flops" else _OF_PEAK
            moved = (f"{name} {_signed(size, shown)}" for name, size in change.culprits)
            say(console, f"{where}: {', '.join(moved)}.")


def _signed(change: int, shown: Callable[[float], str]) -> str:
    return ("+" if change > 0 else "") + shown(change)


def _print_torch(console: Console, step: CheckedStep) -> None:
    """Another release of torch counts operators and temporaries of its own."""
    before, after = step.before, step.after
    if before is not None and step.changes and before.torch != after.torch:
        say(
            console,
            f"The baseline was counted with torch {before.torch}, this with {after.torch}: "
            "operators and peaks may differ by that alone.",
        )
