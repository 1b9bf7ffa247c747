"""An epoch as one line that fits a terminal, and the heading over it.

    epoch  took (predicted)      ratio  time → total       money → total    on plan  val_loss  then
    12/57  55.3 s (54.1–57.2 s)  ×1.02  11m 20s → 52m 30s  $0.47 → $2.18    97 %     0.412*    go on

Predicted is P10 to P90, by what was known before the epoch. The ratio is that of the whole run,
actual over planned. After the arrow: what the whole run will take, P50. On plan: how likely it is
that all limits hold. A star: the best value so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich.cells import cell_len, set_cell_size

from epochcast.records import EpochDone, StopReason
from epochcast.report.text.run_summary import span
from epochcast.units import format_money, format_percent, format_seconds

NAME_WIDTH = 12  # of a metric in the heading; longer names are cut
GAP = "  "
STOPS = {
    StopReason.TARGET: "target reached",
    StopReason.NON_FINITE: "not finite",
    StopReason.DIVERGED: "too bad",
    StopReason.PATIENCE: "no progress",
    StopReason.FUTILE: "little hope",
    StopReason.BUDGET: "limit",
    StopReason.PLAN_DONE: "all done",
    StopReason.SIGNAL: "signal",
}


@dataclass(frozen=True, slots=True)
class Cell:
    """What stands under a heading; of cells without room the highest ``rank`` is left out first."""

    heading: str
    text: str
    width: int
    rank: int = 0

    @property
    def space(self) -> int:
        """Columns of the terminal, the gap to the next one included."""
        return max(self.width, cell_len(self.heading)) + len(GAP)


def epoch_cells(event: EpochDone, metric: str) -> list[Cell]:
    """An epoch, column by column; without money where nothing is paid."""
    count = len(f"{event.end_epochs:,}")
    name = set_cell_size(metric, min(cell_len(metric), NAME_WIDTH))
    cells = [
        Cell("epoch", _epoch(event), 2 * count + 1),
        Cell("took (predicted)", _took(event), 20),
        Cell("ratio", f"×{event.ratio:.2f}", 5, rank=4),
        Cell("time → total", _time(event), 17),
        Cell("money → total", _money(event), 15, rank=3),
        Cell("on plan", format_percent(event.on_plan_probability), 7, rank=1),
        Cell(name, _value(event, metric), 8, rank=2),
        Cell("then", _decision(event), 5),
    ]
    named = [replace(c, heading=printable(c.heading), text=printable(c.text)) for c in cells]
    return [cell for cell in named if cell.heading and cell.text]


def _epoch(event: EpochDone) -> str:
    at = event.position
    return f"{at.epoch + 1:,} cut" if at.step else f"{at.epoch:,}/{event.end_epochs:,}"


def _took(event: EpochDone) -> str:
    return f"{format_seconds(event.seconds)} ({span(event.predicted)})"


def _time(event: EpochDone) -> str:
    spent = format_seconds(event.spent_seconds)
    return spent if event.reason else f"{spent} → {format_seconds(event.projected_seconds.p50)}"


def _money(event: EpochDone) -> str:
    if event.spent_money is None:
        return ""
    spent, total = format_money(event.spent_money), event.projected_money
    return spent if event.reason or total is None else f"{spent} → {format_money(total)}"


def _value(event: EpochDone, metric: str) -> str:
    values = dict(event.values)
    return f"{values[metric]:.4g}{'*' * event.best}" if metric in values else "–"


def _decision(event: EpochDone) -> str:
    if event.reason:
        return f"stop: {STOPS[event.reason]}"
    return "go on" if event.save_seconds is None else "saved"


def fitted(cells: Sequence[Cell], width: int) -> str:
    """Cells as a line: in their columns, else side by side, else without the least important."""
    least = max(cells, key=lambda cell: cell.rank)
    fewer = [cell for cell in cells if cell is not least] if least.rank else []
    if fewer and sum(cell.space for cell in cells) - len(GAP) > width:
        return fitted(fewer, width)
    for line in (_in_columns(cells), GAP.join(cell.text for cell in cells)):
        if cell_len(line) <= width:
            return line
    return fitted(fewer, width) if fewer else set_cell_size(line, width - 1) + "…"


def _in_columns(cells: Sequence[Cell]) -> str:
    """Each where its column begins, or after its neighbour where that is wide."""
    line, start = "", 0
    for cell in cells:
        gap = len(GAP) if line else 0
        line += " " * max(gap, start - cell_len(line)) + cell.text
        start += cell.space
    return line


def printable(text: str) -> str:
    """A text without control characters, which would move a terminal's cursor."""
    return "".join(c if c.isprintable() else "?" for c in text)
