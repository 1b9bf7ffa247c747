"""Measurements for people: what a sweep found, what is stored, counted, built in.

batch  width     step      ±  samples/s  …                 a row for each configuration
width=512: gradient noise scale 1,024 samples, from 32 …   where gradients were taken
batch  parameters  FLOPs  moved  operators  …  peak        a row for each dry run
the peak: in which phase, what is alive then               of a single one, by kind and by module
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from epochcast.costmodel.summary import group_by_config, noisy, summarise
from epochcast.errors import UsageError
from epochcast.planning.batch import noise_scale
from epochcast.records import (
    DatasetSpec,
    Footprint,
    GradientNoise,
    Measurement,
    RunConfig,
    Summary,
    Timeline,
    Warning_,
)
from epochcast.report.text.layout import maybe, print_columns, say, varying_knobs
from epochcast.report.text.warnings import print_warnings
from epochcast.units import (
    format_bytes,
    format_count,
    format_half_width,
    format_number_of,
    format_percent,
    format_seconds,
)

if TYPE_CHECKING:
    from epochcast.importers.runs import ReadColumn
    from epochcast.profiler.rounds import SweepResult
    from epochcast.storage.query import ProbedDevice

LARGEST = 6  # rows of the tables of what is alive at the peak

CountedRow = tuple[RunConfig, Footprint]
SETTINGS = {  # columns where configurations differ in them
    "accumulation": "accumulation",
    "precision": "precision",
    "workers": "workers",
    "devices": "world_size",
}


def print_summaries(console: Console, summaries: Sequence[Summary]) -> None:
    """The table of time and memory per configuration, and what failed."""
    good = [s for s in summaries if s.status == "ok"]
    if good:
        fixed = _fixed(s.config for s in good)
        console.print(Text("  ".join([good[0].workload, *fixed]), style="bold"))
        cells = summary_cells(good)
        print_columns(console, cells, keys=list(cells).index("step"))
        print_warnings(console, noisy(good))
    for s in summaries:
        if s.status != "ok":
            log = f" (log: {s.log})" if s.log else ""
            say(console, f"{s.config.label}: {s.status}: {s.message}{log}", "red")


def summary_cells(summaries: Sequence[Summary]) -> dict[str, list[str]]:
    """Columns of a row for each configuration: its time, its memory, and what takes them."""
    knobs = varying_knobs(s.config for s in summaries)
    notes = {"note": [s.note for s in summaries]} if any(s.note for s in summaries) else {}
    settings = {
        title: [str(s.config.setting(name)) for s in summaries] for title, name in SETTINGS.items()
    }
    return {
        "batch": [str(s.config.batch_size) for s in summaries],
        **{k: [str(dict(s.config.sizes).get(k, "–")) for s in summaries] for k in knobs},
        **{title: cells for title, cells in settings.items() if len(set(cells)) > 1},
        "step": [maybe(format_seconds, s.step_seconds) for s in summaries],
        "±": [maybe(format_percent, s.step_spread) for s in summaries],
        "samples/s": [maybe(format_count, s.samples_per_second) for s in summaries],
        "data": [maybe(format_percent, s.data_wait_share) for s in summaries],
        "update": [maybe(format_percent, s.update_share) for s in summaries],
        "tensors": [maybe(format_bytes, s.peak_bytes) for s in summaries],
        "memory": [maybe(format_bytes, s.device_bytes) for s in summaries],
        "evaluation": [maybe(format_seconds, s.eval_seconds) for s in summaries],
        "save": [maybe(format_seconds, s.save_seconds) for s in summaries],
        **notes,
    }


def print_probed(
    console: Console,
    trials: int,
    result: SweepResult,
    until: float | None = None,
    store: str | None = None,
) -> None:
    """What the sweep cost, why it stopped, and what to do next.

    Args:
        console: where to print.
        trials: made by this sweep; what the store had before does not count.
        result: of the sweep.
        until: the half-width of the interval that was asked for, as a share; None where none was.
        store: that was named; a URL, which may hold a password, is not repeated.
    """
    console.print()
    if result.left_out and not result.measurements:
        console.print(Text("No trial was made: nothing that was asked for fits the device."))
        return
    if not trials and result.stopped not in ("complete", "sharp", "max-rounds"):
        line = "No trial was made: --max-seconds left no time for one; give more, or leave it out."
        console.print(Text(line))
        return
    took = f"{format_number_of(trials, 'trial')} took {format_seconds(result.seconds)}"
    why = _why_stopped(result, until)
    line = f"{took if trials else 'Nothing was left to measure'}{why}."
    say(console, line)
    if result.stopped != "nothing-succeeded":
        place = "" if store is None or "://" in store else f" --store {shlex.quote(store)}"
        again = ", with the same --store" if store and not place else ""
        next_ = f"epochcast predict --epochs 90{place}, and epochcast tensorboard{place}{again}"
        console.print(Text(f"Next: {next_}"))


def _why_stopped(result: SweepResult, until: float | None) -> str:
    width = ""
    if result.half_width is not None:
        width = f": the 90 % interval is {format_half_width(result.half_width)}"
    reasons = {
        "complete": "",
        "sharp": width + (f", under {format_percent(until)}" if until else ""),
        "max-rounds": f" and stopped after the last round{width}; a quieter machine narrows it",
        "max-seconds": f" and stopped at --max-seconds{width}; the same command continues",
        "nothing-succeeded": " and stopped: every configuration failed",
    }
    return reasons[result.stopped]


def print_measurements(
    console: Console, measurements: Sequence[Measurement], used: Collection[str]
) -> None:
    """A row for each configuration, below its workload and device.

    Args:
        console: where to print.
        measurements: in any order.
        used: the keys of those that predictions rest on; the others are of older code or data.
    """
    groups: dict[tuple[str, str], list[Measurement]] = {}
    for m in measurements:
        name = m.workload if m.workload == m.target else f"{m.workload} ({m.target})"
        groups.setdefault((name, m.device.label), []).append(m)
    for position, ((workload, device), group) in enumerate(groups.items()):
        if position:
            console.print()
        rows = _stored_rows(group, used)
        fixed = _fixed(m.config for m in group)
        say(console, "  ".join([workload, *fixed, f"on {device}"]), "bold")
        cells = {
            "key": [newest.key[:8] for newest, _, _ in rows],
            "configuration": [_label_without(s.config, fixed) for _, s, _ in rows],
            "trials": [_trials(s, of) for _, s, of in rows],
            "used": ["yes" if newest.key in used else "no" for newest, _, _ in rows],
            "step": [maybe(format_seconds, s.step_seconds) for _, s, _ in rows],
            "±": [maybe(format_percent, s.step_spread) for _, s, _ in rows],
        }
        if any(s.note for _, s, _ in rows):
            cells["note"] = [s.note for _, s, _ in rows]
        print_columns(console, cells, keys=2, left=("key", "configuration", "note"))


def _stored_rows(
    group: Sequence[Measurement], used: Collection[str]
) -> list[tuple[Measurement, Summary, int]]:
    """Of each configuration the newest trial, their summary, and how many there are."""
    rows = []
    for is_used in (True, False):
        some = [m for m in group if (m.key in used) == is_used]
        for trials in group_by_config(some).values():
            newest = max(trials, key=lambda m: (m.status == "ok", m.created_at))
            rows.append((newest, summarise(trials)[0], len(trials)))
    return rows


def _label_without(config: RunConfig, fixed: Collection[str]) -> str:
    return " ".join(word for word in config.label.split(" ") if word not in fixed)


def _trials(summary: Summary, trials: int) -> str:
    """How many succeeded, and how the others ended."""
    if summary.trials == trials:
        return str(trials)
    if summary.status == "too-large":
        return "0, too large"
    last = "" if summary.status == "ok" else f", {summary.status}"
    return f"{summary.trials} of {trials}{last}"


def print_devices(console: Console, found: Sequence[ProbedDevice]) -> None:
    """A row for each device that was probed."""
    cells = {
        "id": [d.id for d in found],
        "device": [d.device.label for d in found],
        "trials": [f"{d.trials:,}" for d in found],
        "memory": [maybe(format_bytes, d.device.memory_bytes or None) for d in found],
        "last": [d.last[:16].replace("T", " ") for d in found],
        "workloads": [", ".join(d.workloads) for d in found],
    }
    print_columns(console, cells, left=("id", "last", "device", "workloads"))


def print_imported(
    console: Console, measurements: Sequence[Measurement], columns: Sequence[ReadColumn]
) -> None:
    """What each column of the file was taken for, with its first value; how many runs there were.

    Args:
        console: where to print.
        measurements: one for each run of the file.
        columns: of the file.
    """
    for read in columns:
        console.print(Text(column_line(read)), soft_wrap=True)
    say(console, f"imported {format_number_of(len(measurements), 'measurement')}")


def column_line(read: ReadColumn) -> str:
    """``"train_step_time → step time, ms: 50.4 ms"``."""
    column, value = read.column, read.first or "empty"
    unit = column.unit_text
    is_own = bool(unit) and read.says_its_unit
    if unit and read.first and not is_own:
        value = f"{value} {unit}"
    used = not is_own or read.is_mixed
    assumed = " (assumed; --unit says otherwise)" if column.is_assumed and unit and used else ""
    if is_own or (unit and read.is_mixed):
        unit = f"as written, else {unit}" if read.is_mixed else "as written"
    return f"{column.name} → {column.label}{f', {unit}' if unit else ''}{assumed}: {value}"


def print_noise(console: Console, measurements: Sequence[Measurement]) -> None:
    """The gradient noise scale of each model size where gradients were taken."""
    for m in measurements:
        if m.gradient_noise is not None:
            say(console, f"{_size(m)}: {noise_text(m.gradient_noise)}")
    if any(m.data == "synthetic" for m in measurements if m.gradient_noise is not None):
        print_warnings(console, [Warning_(code="noise-of-synthetic-data")])


def print_worlds(console: Console, measurements: Sequence[Measurement]) -> None:
    """How the ranks of each configuration shared it, where there were several."""
    good = [m for m in measurements if m.status == "ok"]
    latest = {m.config: m for m in good if m.communication is not None}
    alone = {s.config: s for s in summarise(good)}
    for config, m in latest.items():
        one = alone.get(replace(config, world_size=1))
        say(console, f"{config.label}: {_sharing(m, alone[config], one)}")


def _sharing(m: Measurement, world: Summary, one: Summary | None) -> str:
    """What is shared in how much time, and how far several devices are worth so many of one."""
    told, parts = m.communication, []
    if told is None or m.config.world_size == 1:
        return "one rank, which shares with nobody"
    what = f"{format_bytes(told.gradient_bytes)} of gradients by {told.backend}"
    if told.seconds is not None:
        hidden = (told.overlapped_seconds or 0.0) / told.seconds if told.seconds else 0.0
        parts.append(
            f"{what} in {format_seconds(told.seconds)} of an update, {format_percent(hidden)} of "
            "that behind computing"
        )
    else:
        parts.append(what)
    if one is not None and one.samples_per_second and world.samples_per_second:
        worth = world.samples_per_second / one.samples_per_second
        parts.append(f"each device is worth {format_percent(worth)} of a single one")
    return "; ".join(parts)


def _size(m: Measurement) -> str:
    return " ".join(f"{k}={v}" for k, v in m.config.sizes) or m.workload


def noise_text(gradients: GradientNoise) -> str:
    """A gradient noise scale and what it rests on, or why there is none."""
    basis = (
        f"from {len(gradients.large_norms)} gradients at batch sizes {gradients.small_batch} and "
        f"{gradients.large_batch}, after {gradients.trained_steps:,} optimizer steps"
    )
    try:
        return f"gradient noise scale {noise_scale(gradients):,.0f} samples, {basis}"
    except UsageError as error:
        return f"no gradient noise scale: {error}"


def print_workloads(console: Console, workloads: Iterable[Mapping[str, Any]]) -> None:
    """The built-in workloads with their knobs."""
    for workload in workloads:
        knobs = " ".join(f"{k}={v}" for k, v in workload["knobs"].items())
        say(console, f"{workload['name']}  {knobs}", "bold")
        say(console, f"  {workload['description'].replace('``', '')}")


def print_datasets(console: Console, datasets: Iterable[DatasetSpec]) -> None:
    """The catalogue of data sets."""
    found = list(datasets)
    cells = {
        "name": [d.name for d in found],
        "samples": [f"{d.samples:,}" for d in found],
        "evaluation": [f"{d.eval_samples:,}" for d in found],
        "shape": ["×".join(map(str, d.shape)) or "varies" for d in found],
        "type": [d.dtype for d in found],
        "classes": [f"{d.classes:,}" if d.classes else "–" for d in found],
        "source": [d.source for d in found],
    }
    print_columns(console, cells, left=("name", "source"))


# -- dry runs -------------------------------------------------------------------------------------


def print_footprints(console: Console, workload: str, rows: Sequence[CountedRow]) -> None:
    """A row per configuration, or everything about a single one.

    Args:
        console: where to print.
        workload: the heading.
        rows: at least one; a single one is shown with what is alive at its peak.
    """
    fixed = [] if len(rows) == 1 else _fixed(config for config, _ in rows)
    console.print(Text("  ".join([workload, *fixed]), style="bold"))
    if len(rows) == 1:
        _print_one(console, *rows[0])
    else:
        knobs = varying_knobs(config for config, _ in rows)
        print_columns(console, _cells(rows, knobs), keys=1 + len(knobs))
    for name, count in _uncounted(footprint for _, footprint in rows):
        line = f"note: {name} ran {count:,} times; it has no FLOP formula and is not in the FLOPs"
        say(console, line, "yellow")


def _uncounted(footprints: Iterable[Footprint]) -> list[tuple[str, int]]:
    counts: Counter[str] = Counter()
    for footprint in footprints:
        counts.update(dict(footprint.uncounted_operators))
    return sorted(counts.items())


def _fixed(configs: Iterable[RunConfig]) -> list[str]:
    """``"depth=2"``: the knobs that have one value."""
    found = list(configs)
    varying = varying_knobs(found)
    return [f"{name}={value}" for name, value in found[0].sizes if name not in varying]


def _cells(rows: Sequence[CountedRow], knobs: Sequence[str]) -> dict[str, list[str]]:
    values: dict[str, Callable[[Footprint], str]] = {
        "parameters": lambda f: format_count(f.parameters),
        "FLOPs": lambda f: format_count(f.flops),
        "moved": lambda f: format_bytes(f.bytes_moved),
        "operators": lambda f: f"{f.operators:,} + {f.update_operators:,}",
        "gradients": lambda f: format_bytes(f.gradient_bytes),
        "optimizer": lambda f: format_bytes(f.optimizer_bytes),
        "activations": lambda f: format_bytes(f.activation_bytes),
        "peak": lambda f: format_bytes(f.run_peak_bytes),
    }
    return {
        "batch": [str(config.batch_size) for config, _ in rows],
        **{name: [str(dict(config.sizes)[name]) for config, _ in rows] for name in knobs},
        **{heading: [form(f) for _, f in rows] for heading, form in values.items()},
    }


def _print_one(console: Console, config: RunConfig, f: Footprint) -> None:
    say(console, config.label)
    console.print()
    for label, text in _facts(f):
        console.print(Text(f"{label:24} {text}"), soft_wrap=True)
    if f.timeline is not None:
        _print_peak(console, f, f.timeline)


def _facts(f: Footprint) -> list[tuple[str, str]]:
    by_class = ", ".join(f"{kind} {format_count(flops)}" for kind, flops in f.flops_by_class)
    backward = f.operators - f.forward_operators
    update = f"{f.update_operators:,} update"
    trainable = f", {f.trainable_parameters:,} of them trained"
    return [
        ("parameters", f"{f.parameters:,}" + trainable * (f.parameters > f.trainable_parameters)),
        ("FLOPs", f"{format_count(f.flops)}" + f" ({by_class})" * bool(by_class)),
        ("bytes moved", format_bytes(f.bytes_moved)),
        ("operators", f"{f.forward_operators:,} forward, {backward:,} backward, {update}"),
        ("parameter bytes", format_bytes(f.parameter_bytes)),
        ("gradient bytes", format_bytes(f.gradient_bytes)),
        ("optimizer bytes", format_bytes(f.optimizer_bytes)),
        ("activation bytes", f"{format_bytes(f.activation_bytes)} when the forward pass ends"),
        ("peak, forward–backward", format_bytes(f.step_peak_bytes)),
        ("peak, update", format_bytes(f.update_peak_bytes)),
        *_evaluation_fact(f),
    ]


def _evaluation_fact(f: Footprint) -> list[tuple[str, str]]:
    """The peak of evaluation, where anything is evaluated."""
    counted = f.count("eval_peak_bytes")
    text = "cannot be counted without running it" if counted is None else format_bytes(counted)
    return [] if counted == 0 else [("peak, evaluation", text)]


def _print_peak(console: Console, footprint: Footprint, timeline: Timeline) -> None:
    moment, alive = _peak(timeline)
    kinds: Counter[str] = Counter()
    modules: Counter[str] = Counter()
    for block in alive:
        kinds[timeline.block_kinds[block]] += timeline.block_bytes[block]
        modules[_module(timeline, block)] += timeline.block_bytes[block]
    console.print()
    line = f"{_whose_peak(footprint)} {format_bytes(footprint.peak_bytes)}"
    line += f", {_phase(timeline, moment)}:"
    say(console, line)
    for heading, sizes in (("alive, by kind", kinds), ("alive, by module", modules)):
        console.print()
        largest = sizes.most_common(LARGEST)
        cells = {
            heading: [name for name, _ in largest],
            "bytes": [format_bytes(size) for _, size in largest],
            "share": [format_percent(size / footprint.peak_bytes) for _, size in largest],
        }
        print_columns(console, cells)


def _peak(timeline: Timeline) -> tuple[int, set[int]]:
    """The event at which most is alive, and the blocks that are."""
    live = timeline.live_bytes()
    moment = max(range(len(live)), key=live.__getitem__)
    alive: set[int] = set()
    for event in timeline.events[: moment + 1]:
        (alive.add if event > 0 else alive.discard)(abs(event) - 1)
    return moment, alive


def _whose_peak(f: Footprint) -> str:
    """The beginning of a sentence on the peak of a training step, which may not be the run's."""
    if f.run_peak_bytes == f.peak_bytes:
        return "The peak is"
    run = format_bytes(f.run_peak_bytes)
    return f"The peak is {run}, in evaluation; that of a training step is"


def _phase(timeline: Timeline, moment: int) -> str:
    block = abs(timeline.events[moment]) - 1
    if timeline.block_operators[block] < 0:
        return "before the step"
    where = _module(timeline, block)
    operator = timeline.operators[timeline.block_operators[block]]
    if moment >= timeline.step_end:
        return f"in the update, at {operator}"
    phase = "forward pass" if moment < timeline.forward_end else "backward pass"
    return f"in the {phase}, at {operator} of {where}"


def _module(timeline: Timeline, block: int) -> str:
    position = timeline.block_modules[block]
    if position < 0:
        return "(there before the step)"
    return timeline.modules[position] or "(outside the model)"


def print_timeline(console: Console, rows: Sequence[CountedRow]) -> None:
    """Every allocation and free, a line each."""
    for config, footprint in rows:
        timeline = footprint.timeline
        if timeline is None:
            continue
        console.print()
        say(console, config.label, "bold")
        for event, live in zip(timeline.events, timeline.live_bytes(), strict=True):
            console.print(Text(_event_line(timeline, event, live)), soft_wrap=True)


def _event_line(timeline: Timeline, event: int, live: int) -> str:
    block = abs(event) - 1
    size = ("+" if event > 0 else "−") + format_bytes(timeline.block_bytes[block])
    operator = timeline.block_operators[block]
    made = "" if operator < 0 else f"{timeline.operators[operator]}  {_module(timeline, block)}"
    line = f"{format_bytes(live):>10} {size:>11}  {timeline.block_kinds[block]:10}  {made}"
    return line.rstrip()
