"""What ``check`` found: one line for a step that is as it was, a table for one that is not."""

from __future__ import annotations

from collections.abc import Sequence

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
STYLES = {"worse": "red", "better": "green", "unclear": "yellow", "same": ""}


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
        state = "passed" if step.passed else "updated" if updated else "FAILED"
        state = "new" if step.before is None else state
        what = "" if changes or step.before is None else ": as it was"
        style = "bold red" if state == "FAILED" else "bold"
        console.print(Text(f"{step.asked.label}  {state}{what}", style=style), soft_wrap=True)
        if changes:
            console.print(_table(changes))
        _print_culprits(console, changes)
        _print_torch(console, step)
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
            moved = (f"{name} {_signed_bytes(size)}" for name, size in change.culprits)
            say(console, f"At the peak of training: {', '.join(moved)}.")


def _signed_bytes(size: int) -> str:
    return ("+" if size > 0 else "") + format_bytes(size)


def _print_torch(console: Console, step: CheckedStep) -> None:
    """Another release of torch counts operators and temporaries of its own."""
    before, after = step.before, step.after
    if before is not None and step.changes and before.torch != after.torch:
        say(
            console,
            f"The baseline was counted with torch {before.torch}, this with {after.torch}: "
            "operators and peaks may differ by that alone.",
        )
