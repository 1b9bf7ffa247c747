"""Records to people: terminal tables, progress, the text of each warning; and to programs: JSON.

Everything is written to a rich ``Console`` that the caller passes, so that a test can capture it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from epochcast.costmodel.summary import step_seconds
from epochcast.records import (
    SCHEMA,
    Capacity,
    DatasetSpec,
    Device,
    Estimate,
    Measurement,
    Quantiles,
    RunConfig,
    Summary,
    Warning_,
    to_builtins,
)
from epochcast.units import (
    format_bytes,
    format_count,
    format_money,
    format_percent,
    format_seconds,
)

if TYPE_CHECKING:
    from epochcast.costmodel.model import CostModel
    from epochcast.foreign.columns import Column
    from epochcast.profiler.sweep import SweepResult

WORTH_A_WORD = 0.1  # of the time to compute
WIDE = 100  # columns of a terminal from which the table of a sweep is shown in full

WARNINGS = {
    "extrapolation": "{name} lies outside the probed range, by a factor of {factor}: "
    "the interval is wider",
    "far-extrapolation": "{name} lies far outside the probed range, by a factor of {factor}: "
    "probe closer before you rely on this",
    "one-round": "only one round was probed: how much runs differ is assumed, not measured; "
    "probe with --rounds 3",
    "few-configurations": "only {count} configurations were probed: which form of model is right "
    "cannot be checked; probe more batch sizes",
    "chose-workload": "{workload} was probed most recently; also in the store: {others}",
    "chose-device": "using the most recent device, {device}; also probed: {others} (--device)",
    "code-changed": "the code of {workload} has changed since it was probed: probe it again",
    "no-noise-scale": "no gradient noise scale of {config}: {why}",
    "noise-of-synthetic-data": "the gradient noise scale was measured on synthetic data, whose "
    "labels are random: give --data",
    "no-trace": "no trace of {config}: {why}",
    "no-footprints": "the workload cannot be counted without running it ({why}): sizes never "
    "probed are priced from measurements alone",
    "no-such-size": "{sizes} is left out: {why}",
    "too-large": "{count} configurations are left out: their tensors alone are more than the "
    "device's memory",
    "assumed-devices": "{devices} devices were not probed ({probed} was): each is taken to be as "
    "fast as the one probed, and averaging gradients to cost nothing; give --bandwidth",
    "assumed-ring": "{devices} devices were not probed ({probed} was): each is taken to be as fast "
    "as the one probed, with gradients averaged in a ring after each step",
    "folds": "each of {folds} folds trains on {samples} samples in a run of its own, and all are "
    "taken to be equally slow or fast",
    "other-samples": "{samples} samples instead of the {probed} probed: each is taken to cost the "
    "same, and evaluation data to stay as it is",
    "equal-epochs": "batch sizes are compared at equal epochs, although larger ones make less "
    "progress in each: give --noise-scale",
    "futility-not-replayed": "the futility rule is left out of the stop probabilities: replaying "
    "it would fit curves for hours",
    "no-save": "no checkpoint could be timed: {why}",
    "not-measured": "not measured, so not in the total beyond what the epochs contained: {parts}",
    "one-time": "{count} of {runs} runs have a single time: a slow start that is in it cannot be "
    "told apart",
    "memory-tight": "at P90 the run needs {share} of the device's memory: it may run out",
}


def warning_text(warning: Warning_) -> str:
    """A warning in words."""
    return WARNINGS[warning.code].format(**dict(warning.details))


def print_warnings(console: Console, warnings: Iterable[Warning_]) -> None:
    """Each warning once, one line each."""
    for text in dict.fromkeys(warning_text(w) for w in warnings):
        console.print(Text(f"note: {text}", style="yellow"), soft_wrap=True)


# -- probing ------------------------------------------------------------------------------------


class PlainProgress:
    """One line per visit, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.total = self.count = 0

    def begin(self, visits: int | None, done: int, device: Device, data: str) -> None:
        self.total = visits or 0
        self.console.print(Text(_opening(visits, done, device, data)), soft_wrap=True)

    def phase(self, label: str, phase: str) -> None:
        return

    def visited(self, measurement: Measurement) -> None:
        self.count += 1
        of = f"/{self.total}" if self.total else ""
        line = f"[{self.count}{of}] {_visit_line(measurement)}"
        self.console.print(Text(line), soft_wrap=True)

    def warn(self, warning: Warning_) -> None:
        print_warnings(self.console, [warning])

    def close(self) -> None:
        return


class BarProgress(PlainProgress):
    """A bar with the time left, for terminals."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._bar = Progress(
            TextColumn("probing"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task("starting", total=None)

    def begin(self, visits: int | None, done: int, device: Device, data: str) -> None:
        super().begin(visits, done, device, data)
        self._bar.update(self._task, total=visits)  # None: a bar that only moves
        self._bar.start()

    def phase(self, label: str, phase: str) -> None:
        self._bar.update(self._task, description=f"{label}: {phase}")

    def visited(self, measurement: Measurement) -> None:
        self._bar.advance(self._task)
        self.count += 1
        if measurement.status != "ok":
            self.console.print(Text(_visit_line(measurement), style="red"), soft_wrap=True)

    def close(self) -> None:
        self._bar.stop()


def _opening(visits: int | None, done: int, device: Device, data: str) -> str:
    todo = "Choosing what to visit" if visits is None else f"{visits} visits to make"
    continued = f" ({done} more are in the store already)" if done else ""
    source = f", {data} data" if data else ""
    return f"{todo}{continued}; on {device.label}{source}"


def _visit_line(m: Measurement) -> str:
    if m.status != "ok":
        return f"{m.config.label}: {m.status}: {m.message} (log: {m.log})"
    return f"{m.config.label}: {format_seconds(step_seconds(m))} a step"


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
        "step": [_maybe(format_seconds, s.step_seconds) for s in summaries],
        "±": [_maybe(format_percent, s.step_spread) for s in summaries],
        "samples/s": [_maybe(format_count, s.samples_per_second) for s in summaries],
        "data": [_maybe(format_percent, s.data_wait_share) for s in summaries],
        "update": [_maybe(format_percent, s.update_share) for s in summaries],
        "tensors": [_maybe(format_bytes, s.peak_bytes) for s in summaries],
        "memory": [_maybe(format_bytes, s.device_bytes) for s in summaries],
    }
    if width >= WIDE:
        cells["evaluation"] = [_maybe(format_seconds, s.eval_seconds) for s in summaries]
        cells["save"] = [_maybe(format_seconds, s.save_seconds) for s in summaries]
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


def columns(cells: Mapping[str, Sequence[str]]) -> Table:
    """A plain table of right-aligned columns by heading."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in cells:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in zip(*cells.values(), strict=True):
        table.add_row(*row)
    return table


def _maybe(form: Any, value: float | None) -> str:
    return "–" if value is None else str(form(value))


def print_probed(
    console: Console, visits: int, result: SweepResult, until: float | None = None
) -> None:
    """What the sweep cost, why it stopped, and what to do next."""
    console.print()
    if not visits and result.stopped not in ("complete", "sharp", "max-rounds"):
        line = "No visit was made: --max-seconds left no time for one; give more, or leave it out."
        console.print(Text(line))
        return
    took = f"{visits} visits took {format_seconds(result.seconds)}"
    why = _why_stopped(result, until)
    console.print(Text(f"{took if visits else 'Nothing was left to measure'}{why}."))
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


def print_measurements(console: Console, measurements: Sequence[Measurement]) -> None:
    """One line per measurement."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("key", "workload", "round", "status", "step", "configuration", "device"):
        table.add_column(heading, no_wrap=heading in ("key", "status"))
    for m in measurements:
        step = format_seconds(step_seconds(m)) if m.status == "ok" else "–"
        table.add_row(
            m.key[:8], m.workload, str(m.round), m.status, step, m.config.label, m.device.label
        )
    console.print(table)


def print_imported(
    console: Console, measurements: Sequence[Measurement], columns: Sequence[Column]
) -> None:
    """How many runs were imported, and what each column of the file was taken for."""
    read = ", ".join(f"{c.role} from {c.name!r}" for c in columns if c.role)
    knobs = ", ".join(c.knob for c in columns if not c.role) or "none"
    console.print(Text(f"read {read}; knobs: {knobs}"), soft_wrap=True)
    console.print(Text(f"imported {len(measurements)} measurements"), soft_wrap=True)


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


def print_workloads(console: Console, workloads: Iterable[Mapping[str, Any]]) -> None:
    """The built-in workloads with their knobs."""
    for workload in workloads:
        knobs = " ".join(f"{k}={v}" for k, v in workload["knobs"].items())
        console.print(Text(f"{workload['name']:16} {knobs}", style="bold"))
        console.print(Text(f"{'':16} {workload['description']}"))


def print_datasets(console: Console, datasets: Iterable[DatasetSpec]) -> None:
    """The catalogue of data sets."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("name", "samples", "evaluation", "shape", "type", "classes", "source"):
        table.add_column(heading)
    for d in datasets:
        shape = "×".join(map(str, d.shape)) or "varies"
        evaluation, classes = f"{d.eval_samples:,}", f"{d.classes:,}" if d.classes else "–"
        table.add_row(d.name, f"{d.samples:,}", evaluation, shape, d.dtype, classes, d.source)
    console.print(table)


# -- prediction ---------------------------------------------------------------------------------


def print_estimate(console: Console, estimate: Estimate) -> None:
    """One run in full: totals, every term, memory, money, and what it all rests on."""
    console.print(Text(_heading(estimate), style="bold"), soft_wrap=True)
    console.print(Text(_epoch_line(estimate)), soft_wrap=True)
    console.print()
    table = Table(box=None, pad_edge=False, header_style="bold")
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


def _probing_line(estimate: Estimate) -> str:
    if not estimate.probing_seconds:
        return f"Measured elsewhere; the run takes {format_seconds(estimate.total_seconds.p50)}."
    share = estimate.probing_seconds / estimate.total_seconds.p50
    line = (
        f"Measuring took {format_seconds(estimate.probing_seconds)}; "
        f"the run takes {format_seconds(estimate.total_seconds.p50)}"
    )
    return line + (f" ({format_percent(share)})." if share < 1 else ": cheaper to run than to ask.")


def estimate_markdown(estimate: Estimate) -> str:
    """One run as Markdown, for TensorBoard's text tab."""
    rows = [("one epoch of training", _seconds(estimate.epoch_seconds))]
    rows.append((f"total, {_number(estimate.epochs)} epochs", _seconds(estimate.total_seconds)))
    rows += [(term.name, _seconds(term.seconds)) for term in estimate.terms]
    rows += _further_rows(estimate)
    lines = [f"**{_heading(estimate)}**", "", "| | P10 | P50 | P90 |", "|---|--:|--:|--:|"]
    lines += [f"| {label} | {' | '.join(cells[:3])} |" for label, cells in rows]
    return "\n".join([*lines, "", _probing_line(estimate)])


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


def _memory_p90(e: Estimate) -> str:
    memory = e.device_bytes or e.peak_bytes
    return format_bytes(memory.p90) if memory else "–"


def _cells(form: Any, q: Quantiles) -> list[str]:
    return [form(q.p10), form(q.p50), form(q.p90)]


def _seconds(q: Quantiles) -> list[str]:
    return _cells(format_seconds, q)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) else f"{value:,.2f}"


# -- documents ----------------------------------------------------------------------------------


def document(**contents: Any) -> dict[str, Any]:
    """A JSON document: records as objects, knobs as an object by name, a schema number."""
    return {"schema": SCHEMA, **{name: _plain(value) for name, value in contents.items()}}


def _plain(value: Any) -> Any:
    plain = to_builtins(value)
    return _with_named_sizes(plain)


def _with_named_sizes(value: Any) -> Any:
    if isinstance(value, dict):
        named = {k: _with_named_sizes(v) for k, v in value.items()}
        for pairs in ("sizes", "details"):
            if isinstance(named.get(pairs), list | tuple):
                named[pairs] = dict(named[pairs])
        return named
    if isinstance(value, list | tuple):
        return [_with_named_sizes(item) for item in value]
    return value
