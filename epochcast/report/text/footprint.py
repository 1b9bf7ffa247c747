"""Footprints as tables: a row per configuration, and where the memory goes for a single one.

batch  parameters  FLOPs  moved  operators  activations  …  peak
the peak: in which phase, what is alive then, by kind and by module
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from rich.console import Console
from rich.text import Text

from epochcast.records import Footprint, RunConfig, Timeline
from epochcast.report.text.layout import columns
from epochcast.units import format_bytes, format_count, format_percent

LARGEST = 6  # rows of the tables of what is alive at the peak

CountedRow = tuple[RunConfig, Footprint]


def print_footprints(console: Console, workload: str, rows: Sequence[CountedRow]) -> None:
    """A row per configuration, or everything about a single one.

    Args:
        console: where to print.
        workload: the heading.
        rows: at least one; a single one is shown with what is alive at its peak.
    """
    console.print(Text(workload, style="bold"))
    if len(rows) == 1:
        _print_one(console, *rows[0])
    else:
        console.print(columns(_cells(rows)))
    for name, count in _uncounted(footprint for _, footprint in rows):
        line = f"note: {name} ran {count:,} times; it has no FLOP formula and is not in the FLOPs"
        console.print(Text(line, style="yellow"), soft_wrap=True)


def _uncounted(footprints: Iterable[Footprint]) -> list[tuple[str, int]]:
    counts: Counter[str] = Counter()
    for footprint in footprints:
        counts.update(dict(footprint.uncounted_operators))
    return sorted(counts.items())


def _cells(rows: Sequence[CountedRow]) -> dict[str, list[str]]:
    knobs = [name for name, _ in rows[0][0].sizes]
    values: dict[str, Callable[[Footprint], str]] = {
        "parameters": lambda f: format_count(f.parameters),
        "FLOPs": lambda f: format_count(f.flops),
        "moved": lambda f: format_bytes(f.bytes_moved),
        "operators": lambda f: f"{f.operators:,} + {f.update_operators:,}",
        "gradients": lambda f: format_bytes(f.gradient_bytes),
        "optimizer": lambda f: format_bytes(f.optimizer_bytes),
        "activations": lambda f: format_bytes(f.activation_bytes),
        "peak": lambda f: format_bytes(f.peak_bytes),
    }
    return {
        "batch": [str(config.batch_size) for config, _ in rows],
        **{name: [str(dict(config.sizes)[name]) for config, _ in rows] for name in knobs},
        **{heading: [form(f) for _, f in rows] for heading, form in values.items()},
    }


def _print_one(console: Console, config: RunConfig, f: Footprint) -> None:
    console.print(Text(config.label), soft_wrap=True)
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
    ]


def _print_peak(console: Console, footprint: Footprint, timeline: Timeline) -> None:
    moment, alive = _peak(timeline)
    kinds: Counter[str] = Counter()
    modules: Counter[str] = Counter()
    for block in alive:
        kinds[timeline.block_kinds[block]] += timeline.block_bytes[block]
        modules[_module(timeline, block)] += timeline.block_bytes[block]
    console.print()
    line = f"The peak is {format_bytes(footprint.peak_bytes)}, {_phase(timeline, moment)}:"
    console.print(Text(line), soft_wrap=True)
    for heading, sizes in (("alive, by kind", kinds), ("alive, by module", modules)):
        console.print()
        largest = sizes.most_common(LARGEST)
        cells = {
            heading: [name for name, _ in largest],
            "bytes": [format_bytes(size) for _, size in largest],
            "share": [format_percent(size / footprint.peak_bytes) for _, size in largest],
        }
        console.print(columns(cells))


def _peak(timeline: Timeline) -> tuple[int, set[int]]:
    """The event at which most is alive, and the blocks that are."""
    live = timeline.live_bytes()
    moment = max(range(len(live)), key=live.__getitem__)
    alive: set[int] = set()
    for event in timeline.events[: moment + 1]:
        (alive.add if event > 0 else alive.discard)(abs(event) - 1)
    return moment, alive


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
        console.print(Text(config.label, style="bold"), soft_wrap=True)
        for event, live in zip(timeline.events, timeline.live_bytes(), strict=True):
            console.print(Text(_event_line(timeline, event, live)), soft_wrap=True)


def _event_line(timeline: Timeline, event: int, live: int) -> str:
    block = abs(event) - 1
    size = ("+" if event > 0 else "−") + format_bytes(timeline.block_bytes[block])
    operator = timeline.block_operators[block]
    made = "" if operator < 0 else f"{timeline.operators[operator]}  {_module(timeline, block)}"
    line = f"{format_bytes(live):>10} {size:>11}  {timeline.block_kinds[block]:10}  {made}"
    return line.rstrip()
