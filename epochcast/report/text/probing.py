"""What a sweep found, what the store has, what an import brought."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from epochcast.costmodel.summary import step_seconds
from epochcast.records import Measurement, RunConfig, Summary
from epochcast.report.text.tables import columns, maybe, plain_table
from epochcast.units import format_bytes, format_count, format_percent, format_seconds

if TYPE_CHECKING:
    from epochcast.importers.columns import Column
    from epochcast.profiler.sweep import SweepResult

WIDE = 100  # columns of a terminal from which the table of a sweep is shown in full


def print_summaries(console: Console, summaries: Sequence[Summary]) -> None:
    """The table of time and memory per configuration, and what failed."""
    good = [s for s in summaries if s.status == "ok"]
    if good:
        fixed = {
            k: v for k, v in good[0].config.sizes if k not in _varying_knobs(s.config for s in good)
        }
        settings = "".join(f"  {name}={value}" for name, value in fixed.items())
        console.print(Text(f"{good[0].workload}{settings}", style="bold"))
        console.print(_summary_table(good, console.width))
    for s in summaries:
        if s.status != "ok":
            line = f"{s.config.label}: {s.status}: {s.message} (log: {s.log})"
            console.print(Text(line, style="red"), soft_wrap=True)


def _summary_table(summaries: Sequence[Summary], width: int) -> Table:
    knobs = _varying_knobs(s.config for s in summaries)
    cells = {
        "step": [maybe(format_seconds, s.step_seconds) for s in summaries],
        "±": [maybe(format_percent, s.step_spread) for s in summaries],
        "samples/s": [maybe(format_count, s.samples_per_second) for s in summaries],
        "data": [maybe(format_percent, s.data_wait_share) for s in summaries],
        "update": [maybe(format_percent, s.update_share) for s in summaries],
        "tensors": [maybe(format_bytes, s.peak_bytes) for s in summaries],
        "memory": [maybe(format_bytes, s.device_bytes) for s in summaries],
    }
    if width >= WIDE:
        cells["evaluation"] = [maybe(format_seconds, s.eval_seconds) for s in summaries]
        cells["save"] = [maybe(format_seconds, s.save_seconds) for s in summaries]
    return columns(
        {
            "batch": [str(s.config.batch_size) for s in summaries],
            **{k: [str(dict(s.config.sizes)[k]) for s in summaries] for k in knobs},
            **cells,
        }
    )


def _varying_knobs(configs: Iterable[RunConfig]) -> list[str]:
    """Knobs that take several values; the others would fill columns with one number."""
    rows = [dict(config.sizes) for config in configs]
    return [k for k in rows[0] if len({row.get(k) for row in rows}) > 1]


def print_probed(
    console: Console, trials: int, result: SweepResult, until: float | None = None
) -> None:
    """What the sweep cost, why it stopped, and what to do next."""
    console.print()
    if not trials and result.stopped not in ("complete", "sharp", "max-rounds"):
        line = "No trial was made: --max-seconds left no time for one; give more, or leave it out."
        console.print(Text(line))
        return
    took = f"{trials} trials took {format_seconds(result.seconds)}"
    why = _why_stopped(result, until)
    console.print(Text(f"{took if trials else 'Nothing was left to measure'}{why}."))
    if result.stopped != "nothing-succeeded":
        console.print(Text("Next: epochcast predict --epochs 90, and epochcast tensorboard"))


def _why_stopped(result: SweepResult, until: float | None) -> str:
    width = ""
    if result.half_width is not None:
        width = f": the 90 % interval of the answer is ±{format_percent(result.half_width)}"
    reasons = {
        "complete": "",
        "sharp": width + (f", under {format_percent(until)}" if until else ""),
        "max-rounds": f" and stopped after the last round{width}; more of the same would not help",
        "max-seconds": f" and stopped at --max-seconds{width}; the same command continues",
        "nothing-succeeded": " and stopped: every configuration failed",
    }
    return reasons[result.stopped]


def print_measurements(
    console: Console, measurements: Sequence[Measurement], used: Collection[str]
) -> None:
    """One line per measurement.

    Args:
        console: where to print.
        measurements: in the order to list them.
        used: the keys of those that predictions rest on; the others are of older code or data.
    """
    table = plain_table()
    headings = ("key", "workload", "round", "status", "used", "step", "configuration", "device")
    for heading in headings:
        table.add_column(heading, no_wrap=heading in ("key", "status"))
    for m in measurements:
        step = format_seconds(step_seconds(m)) if m.status == "ok" else "–"
        about = m.config.label, m.device.label
        is_used = "yes" if m.key in used else "no"
        table.add_row(m.key[:8], m.workload, str(m.round), m.status, is_used, step, *about)
    console.print(table)


def print_imported(
    console: Console, measurements: Sequence[Measurement], columns: Sequence[Column]
) -> None:
    """How many runs were imported, and what each column of the file was taken for."""
    read = ", ".join(f"{c.role} from {c.name!r}" for c in columns if c.role)
    knobs = ", ".join(c.knob for c in columns if not c.role) or "none"
    console.print(Text(f"read {read}; knobs: {knobs}"), soft_wrap=True)
    console.print(Text(f"imported {len(measurements)} measurements"), soft_wrap=True)
