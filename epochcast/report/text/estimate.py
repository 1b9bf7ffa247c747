"""What a cost model says: how it was chosen, estimates, the largest batch that fits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from epochcast.records import Capacity, Estimate, Quantiles
from epochcast.report.text.tables import columns, plain_table
from epochcast.report.text.warnings import print_warnings
from epochcast.units import format_bytes, format_money, format_percent, format_seconds

if TYPE_CHECKING:
    from epochcast.costmodel.model import CostModel

WORTH_A_WORD = 0.1  # of the time to compute


def print_model(console: Console, model: CostModel) -> None:
    """Which form each quantity took, and why."""
    console.print(Text(f"{model.workload} on {model.device.label}", style="bold"))
    table = Table(box=None, pad_edge=False)
    for name, chosen in model.explain():
        table.add_row(name, chosen)
    console.print(table)
    run = model.variants[0].run
    line = (
        f"From round to round, steps differ by {format_percent(run.sd)} "
        f"({run.dof:.0f} degrees of freedom)."
    )
    console.print(Text(line), soft_wrap=True)


def print_estimate(console: Console, estimate: Estimate) -> None:
    """One run in full: totals, every term, memory, money, and what it all rests on."""
    console.print(Text(_heading(estimate), style="bold"), soft_wrap=True)
    console.print(Text(_epoch_line(estimate)), soft_wrap=True)
    console.print()
    table = plain_table()
    table.add_column("")
    for heading in ("P10", "P50", "P90", "share"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_row("one epoch of training", *_seconds(estimate.epoch_seconds))
    total = f"total, {_number(estimate.epochs)} epochs"
    table.add_row(Text(total, style="bold"), *_seconds(estimate.total_seconds), "100 %")
    for term in estimate.terms:
        label = f"  {term.name}" + (f" ×{term.count:,}" if term.count > 1 else "")
        table.add_row(label, *_seconds(term.seconds), format_percent(term.share))
    for label, cells in _further_rows(estimate):
        table.add_row(label, *cells)
    console.print(table)
    console.print()
    console.print(Text(_probing_line(estimate)), soft_wrap=True)
    print_warnings(console, estimate.warnings)


def print_estimates(console: Console, estimates: Sequence[Estimate]) -> None:
    """Several runs, a row each."""
    first = estimates[0]
    console.print(Text(f"{first.workload} on {first.device.label}", style="bold"))
    totals = [e.total_seconds for e in estimates]
    cells = {
        "epochs": [_number(e.epochs) for e in estimates],
        "batch": [str(e.config.batch_size) for e in estimates],
        **{k: [str(dict(e.config.sizes)[k]) for e in estimates] for k, _ in first.config.sizes},
        "one epoch": [format_seconds(e.epoch_seconds.p50) for e in estimates],
        "total P10": [format_seconds(t.p10) for t in totals],
        "P50": [format_seconds(t.p50) for t in totals],
        "P90": [format_seconds(t.p90) for t in totals],
        "memory P90": [_memory_p90(e) for e in estimates],
    }
    costs = [e.cost for e in estimates if e.cost is not None]
    if costs:
        cells["cost P50"] = [format_money(c.p50) for c in costs]
        cells["cost P90"] = [format_money(c.p90) for c in costs]
    console.print(columns(cells))
    console.print(Text(_probing_line(estimates[-1])), soft_wrap=True)
    print_warnings(console, (w for e in estimates for w in e.warnings))


def print_capacities(console: Console, capacities: Iterable[Capacity]) -> None:
    """The largest batch that fits, a line each."""
    for found in capacities:
        sure = format_percent(found.confidence)
        line = (
            f"Largest batch that fits {format_bytes(found.memory_bytes)} with {sure} confidence: "
            f"{found.batch_size:,} (needs {format_bytes(found.needed_bytes)})"
        )
        if found.limited_by == "samples":
            line += ", the whole data set"
        console.print(Text(line, style="bold"), soft_wrap=True)
        console.print(Text(f"for {found.config.label}"), soft_wrap=True)
        if found.extrapolated:
            names = ", ".join(found.extrapolated)
            console.print(Text(f"note: outside the probed range: {names}", style="yellow"))
        console.print()


def estimate_markdown(estimate: Estimate) -> str:
    """One run as Markdown, for TensorBoard's text tab."""
    rows = [("one epoch of training", _seconds(estimate.epoch_seconds))]
    rows.append((f"total, {_number(estimate.epochs)} epochs", _seconds(estimate.total_seconds)))
    rows += [(term.name, _seconds(term.seconds)) for term in estimate.terms]
    rows += _further_rows(estimate)
    lines = [f"**{_heading(estimate)}**", "", "| | P10 | P50 | P90 |", "|---|--:|--:|--:|"]
    lines += [f"| {label} | {' | '.join(cells[:3])} |" for label, cells in rows]
    return "\n".join([*lines, "", _probing_line(estimate)])


def _heading(estimate: Estimate) -> str:
    return f"{estimate.workload}  {estimate.config.label}  on {estimate.device.label}"


def _epoch_line(estimate: Estimate) -> str:
    return (
        f"{estimate.samples:,} samples, {estimate.steps_per_epoch:,} optimizer steps an epoch, "
        f"{format_seconds(estimate.step_seconds.p50)} a step{_what_rules(estimate)}"
    )


def _what_rules(estimate: Estimate) -> str:
    """Whether a step waits for data, in words; only where loading takes a share worth a word."""
    compute, loader = estimate.compute_seconds, estimate.loader_seconds
    if compute is None or loader is None or loader < WORTH_A_WORD * compute:
        return ""
    parts = f"computing {format_seconds(compute)}, loading {format_seconds(loader)}"
    if estimate.config.workers == 0:
        return f" ({parts}, one after the other: --workers would overlap them)"
    return f" ({parts}: {'loading' if loader > compute else 'computing'} rules)"


def _further_rows(estimate: Estimate) -> list[tuple[str, list[str]]]:
    rows = []
    if estimate.peak_bytes is not None:
        rows.append(("peak of live tensors", _cells(format_bytes, estimate.peak_bytes)))
    if estimate.allocated_bytes is not None:
        rows.append(("allocated", _cells(format_bytes, estimate.allocated_bytes)))
    if estimate.reserved_bytes is not None:
        rows.append(("reserved", _cells(format_bytes, estimate.reserved_bytes)))
    if estimate.device_bytes is not None:
        rows.append(_device_memory_row(estimate.device_bytes, estimate.device.memory_bytes))
    if estimate.cost is not None:
        rows.append(("cost", _cells(format_money, estimate.cost)))
    return rows


def _device_memory_row(needed: Quantiles, capacity: int) -> tuple[str, list[str]]:
    cells = _cells(format_bytes, needed)
    if not capacity:
        return "memory needed", cells
    share = format_percent(needed.p50 / capacity)
    return f"memory needed, of {format_bytes(capacity)}", [*cells, share]


def _probing_line(estimate: Estimate) -> str:
    if not estimate.probing_seconds:
        return f"Measured elsewhere; the run takes {format_seconds(estimate.total_seconds.p50)}."
    share = estimate.probing_seconds / estimate.total_seconds.p50
    line = (
        f"Measuring took {format_seconds(estimate.probing_seconds)}; "
        f"the run takes {format_seconds(estimate.total_seconds.p50)}"
    )
    return line + (f" ({format_percent(share)})." if share < 1 else ": cheaper to run than to ask.")


def _memory_p90(e: Estimate) -> str:
    memory = e.device_bytes or e.peak_bytes
    return format_bytes(memory.p90) if memory else "–"


def _cells(form: Callable[[float], str], q: Quantiles) -> list[str]:
    return [form(q.p10), form(q.p50), form(q.p90)]


def _seconds(q: Quantiles) -> list[str]:
    return _cells(format_seconds, q)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) else f"{value:,.2f}"
