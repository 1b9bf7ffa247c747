"""Two runs side by side, for people."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from epochcast.report.text.layout import maybe, print_columns, say
from epochcast.report.text.warnings import print_warnings
from epochcast.units import format_bytes, format_money, format_percent, format_seconds

if TYPE_CHECKING:
    from rich.console import Console

    from epochcast.costmodel.side_by_side import Side
    from epochcast.records import Quantiles

EVEN = 0.55  # a probability that tells neither from the other


def print_sides(console: Console, a: Side, b: Side, faster: float) -> None:
    """The answer, what A and B are, and their numbers.

    Args:
        console: where to print.
        a, b: the runs.
        faster: the probability that A is.
    """
    say(console, _answer(a, b, faster), "bold")
    if a.length != b.length:
        say(console, f"A makes {a.length} and B {b.length}: their totals are not of equal runs.")
    for name, side in (("A", a), ("B", b)):
        run = f"{side.length} of {side.workload}  {side.label}  on {side.device}"
        say(console, f"{name}: {run}")
    console.print()
    rows = [
        ("one epoch P50", a.epoch_seconds, b.epoch_seconds, format_seconds, "p50"),
        *(
            (f"total {level.upper()}", a.seconds, b.seconds, format_seconds, level)
            for level in ("p10", "p50", "p90")
        ),
        ("memory P90", a.device_bytes, b.device_bytes, format_bytes, "p90"),
        ("cost P50", a.money, b.money, format_money, "p50"),
    ]
    shown = [_row(*row) for row in rows if row[1] is not None or row[2] is not None]
    headings = ("", "A", "B", "B / A")
    print_columns(
        console, dict(zip(headings, zip(*shown, strict=True), strict=True)), keys=1, left=("",)
    )
    print_warnings(console, {w: None for side in (a, b) for w in side.warnings})


def _row(
    name: str, a: Quantiles | None, b: Quantiles | None, form: Callable[[float], str], level: str
) -> tuple[str, str, str, str]:
    """One quantity of both, and how they compare."""
    x, y = (None if q is None else float(getattr(q, level)) for q in (a, b))
    ratio = "–" if not x or y is None else f"{y / x:.3g}"
    return name, maybe(form, x), maybe(form, y), ratio


def _answer(a: Side, b: Side, faster: float) -> str:
    """``"A is faster with a probability of 97 %, B takes 1.31 times as long (P50)"``."""
    (first, one), (second, other) = (("A", a), ("B", b)) if faster >= 0.5 else (("B", b), ("A", a))
    sure = format_percent(max(faster, 1 - faster))
    times = other.seconds.p50 / one.seconds.p50
    if max(faster, 1 - faster) < EVEN:
        return f"Neither is faster: A is with a probability of {format_percent(faster)}"
    return (
        f"{first} is faster with a probability of {sure}, as runs apart; "
        f"{second} takes {times:.2f} times as long (P50)"
    )
