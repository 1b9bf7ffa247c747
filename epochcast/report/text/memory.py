"""What a training needs on a device, for a terminal.

needs     12.3 GiB, 12.9 GiB with 90 %, 13.2 GiB with 95 %        and what of it is what
filled by, by module, by operator, the largest tensors            at the peak
batch     needs   with 95 %   free   fits                         a row for each configuration
what if   needs   saved   FLOPs   largest batch                   a row for each change
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Console
from rich.text import Text

from epochcast.records import Alternative, DeviceNeed, LargestValue, LiveTensor, Quantiles, Share
from epochcast.report.text.layout import fitting, maybe, print_columns, say
from epochcast.units import format_bytes, format_count, format_percent, format_seconds

LARGEST = 6  # modules and operators that are listed
TENSORS = 10  # of the largest
SAME = 0.0005  # FLOPs that differ by less are the same
NAMELESS = {"modules": "(outside the model)", "operators": "(made by no operator)"}


def print_needs(console: Console, workload: str, needs: Sequence[DeviceNeed]) -> None:
    """A row per configuration, or everything about a single one.

    Args:
        console: where to print.
        workload: the heading.
        needs: at least one, all of one device.
    """
    console.print(device_heading(workload, needs[0]), soft_wrap=True)
    if len(needs) == 1:
        _print_one(console, needs[0])
    else:
        for table in fitting(_cells(needs), console.width):
            console.print(table)
    _print_remarks(console, needs)


def device_heading(workload: str, need: DeviceNeed) -> Text:
    """What is answered here, and of which device."""
    return Text(f"{workload} on {device_text(need)}", style="bold")


def device_text(need: DeviceNeed) -> str:
    """``"t4, 14.6 GiB"``, and what others use of it."""
    device = need.device
    size = format_bytes(device.memory_bytes)
    text = device.name if device.name == size else f"{device.name}, {size} as CUDA reports it"
    if not need.used_bytes:
        return text
    return f"{text}, {format_bytes(need.used_bytes)} of it used by others"


def _cells(needs: Sequence[DeviceNeed]) -> dict[str, list[str]]:
    knobs = [name for name, _ in needs[0].config.sizes]
    confidence = format_percent(needs[0].confidence)
    values: dict[str, Callable[[DeviceNeed], str]] = {
        "allocated": lambda n: format_bytes(n.allocated_bytes.p50),
        "reserved": lambda n: format_bytes(n.reserved_bytes.p50),
        "needs": lambda n: format_bytes(n.device_bytes.p50),
        "with 90 %": lambda n: format_bytes(n.device_bytes.p90),
        f"with {confidence}": lambda n: format_bytes(n.needed_bytes),
        "fits": verdict,
    }
    return {
        "batch": [str(n.config.batch_size) for n in needs],
        **{name: [str(dict(n.config.sizes)[name]) for n in needs] for name in knobs},
        **{heading: [form(n) for n in needs] for heading, form in values.items()},
    }


def verdict(need: DeviceNeed) -> str:
    """Whether it fits, in a word or a few."""
    if need.fits:
        return "yes"
    if need.retries is None:
        return "no"
    return f"perhaps ({format_percent(need.probability)})"


def _print_one(console: Console, need: DeviceNeed) -> None:
    console.print(Text(need.config.label), soft_wrap=True)
    console.print()
    for label, text in _facts(need):
        say(console, f"{label:11}{text}")
    console.print()
    say(console, f"The peak comes in the {need.moment}:")
    console.print()
    _print_shares(console, "filled by", need.kinds, need.device_bytes.p50)
    in_use = need.allocated_bytes.p50
    for heading, shares in (("modules", need.modules), ("operators", need.operators)):
        named = [Share(name=s.name or NAMELESS[heading], bytes=s.bytes) for s in shares[:LARGEST]]
        if named:
            console.print()
            _print_shares(console, f"in use, by {heading[:-1]}", named, in_use)
    if need.tensors:
        console.print()
        console.print(Text("The largest tensors in use:"))
        for table in fitting(_tensor_cells(need.tensors[:TENSORS]), console.width, 2, _LEFT):
            console.print(table)


_LEFT = ("kind", "operator", "module", "line")


def _tensor_cells(tensors: Sequence[LiveTensor]) -> dict[str, list[str]]:
    cells = {
        "bytes": [format_bytes(t.bytes) for t in tensors],
        "×": [str(t.count) for t in tensors],
        "kind": [t.kind for t in tensors],
        "operator": [t.operator.removeprefix("aten.") for t in tensors],
        "module": [t.module for t in tensors],
        "line": [t.line for t in tensors],
    }
    return {name: column for name, column in cells.items() if any(column)}


def _facts(need: DeviceNeed) -> list[tuple[str, str]]:
    return [
        ("needs", _with_levels(need.device_bytes)),
        ("fits", _fits_text(need)),
        ("reserved", f"{_with_levels(need.reserved_bytes)}: by torch's allocator"),
        ("allocated", f"{_with_levels(need.allocated_bytes)}: by tensors and workspaces"),
        ("outside", f"{_range(need.outside_bytes)}: the CUDA context, kernels and libraries"),
        ("counted in", format_seconds(need.seconds)),
    ]


def _with_levels(quantiles: Quantiles) -> str:
    p50, p90, p95 = (format_bytes(q) for q in (quantiles.p50, quantiles.p90, quantiles.p95))
    return f"{p50} (90 %: {p90}, 95 %: {p95})"


def _range(quantiles: Quantiles) -> str:
    if quantiles.p05 == quantiles.p95:
        return format_bytes(quantiles.p50)
    low, high = format_bytes(quantiles.p05), format_bytes(quantiles.p95)
    return f"{format_bytes(quantiles.p50)} ({low} to {high})"


def _fits_text(need: DeviceNeed) -> str:
    free, needed = format_bytes(need.free_bytes), format_bytes(need.needed_bytes)
    sure = format_percent(need.confidence)
    if need.fits:
        return f"yes: of {free}, {needed} are needed with {sure}"
    text = f"not with {sure}: {needed} are needed then, and {free} are there"
    if need.retries is None:
        return f"{text}; torch's allocator runs out of memory in a replay"
    if need.retries:
        return f"{text}; in a replay it runs, but releases its cache {need.retries} times"
    return f"{text}; it fits with {format_percent(need.probability)}"


def _print_shares(console: Console, heading: str, shares: Sequence[Share], total: float) -> None:
    cells = {
        heading: [s.name for s in shares],
        "bytes": [format_bytes(s.bytes) for s in shares],
        "share": [format_percent(s.bytes / total) if total else "–" for s in shares],
    }
    print_columns(console, cells, left=(heading,))


def _print_remarks(console: Console, needs: Sequence[DeviceNeed]) -> None:
    for remark in dict.fromkeys(remark for need in needs for remark in need.remarks):
        say(console, f"note: {remark}", "yellow")
    for unseen in needs[0].unseen:
        low, high = format_bytes(unseen.low_bytes), format_bytes(unseen.high_bytes)
        times = f", {unseen.times:,} times" if unseen.times > 1 else ""
        say(console, f"note: {unseen.name} takes {low} to {high}{times}: {unseen.reason}", "yellow")


def print_shared(console: Console, need: DeviceNeed, devices: int, shares: Sequence[Share]) -> None:
    """What each of several devices needs, marked as what it is.

    Args:
        console: where to print.
        need: of one device.
        devices: that share.
        shares: by the way of sharing.
    """
    console.print()
    heading = f"each of {devices} devices, by formulas"
    cells = {
        heading: [s.name for s in shares],
        "needs": [format_bytes(s.bytes) for s in shares],
        "fits": ["yes" if s.bytes <= need.free_bytes else "no" for s in shares],
    }
    print_columns(console, cells, left=(heading,))
    say(console, "note: nothing of this was followed; NCCL's buffers come on top", "yellow")


# -- the largest that fits, and what would help ---------------------------------------------------


def print_largest(console: Console, found: Sequence[LargestValue]) -> None:
    """A sentence for each knob, the batch size among them."""
    for value in found:
        say(console, largest_text(value))


def largest_text(found: LargestValue) -> str:
    """``"largest batch_size: 112, which needs 1.96 GiB; 113 would need 2.02 GiB"``."""
    name = "batch size" if found.name == "batch_size" else found.name
    if found.value is None or found.need is None:
        return f"largest {name}: none fits{_above(found, 0)}"
    needed = f"{format_bytes(found.need.needed_bytes)} with {format_percent(found.need.confidence)}"
    return f"largest {name}: {found.value}, which needs {needed}{_above(found, found.value)}"


def _above(found: LargestValue, value: int) -> str:
    following = value + found.step
    if found.above is None:
        return f"; {following} was not followed: {found.why_ended}" if found.why_ended else ""
    return f"; {following} would need {format_bytes(found.above.needed_bytes)}"


def print_alternatives(console: Console, found: Sequence[Alternative]) -> None:
    """What is, and each what-if: a row each."""
    base = found[0].need
    rows = [a for a in found if a.need is not None]
    batches = any(a.largest_batch is not None for a in rows)
    assert base is not None, "what is was followed, or there were no alternatives"
    needs = [a.need for a in rows if a.need is not None]
    cells = {
        "what if": [changes_text(a) for a in rows],
        "batch": [_batch(n) for n in needs],
        "needs": [format_bytes(n.device_bytes.p50) for n in needs],
        f"with {format_percent(base.confidence)}": [format_bytes(n.needed_bytes) for n in needs],
        "saved": [_saved(base, n) for n in needs],
        "FLOPs": [_flops(base, n) for n in needs],
        "fits": [verdict(n) for n in needs],
    }
    if batches:
        cells["largest batch"] = [maybe(lambda b: f"{b:.0f}", a.largest_batch) for a in rows]
    print_columns(console, cells, left=("what if",))
    for alternative in found:
        if alternative.problem:
            line = f"note: {changes_text(alternative)} cannot be counted: {alternative.problem}"
            say(console, line, "yellow")
    _print_remarks(console, needs)


def changes_text(alternative: Alternative) -> str:
    """``"precision=bf16"``."""
    return " ".join(f"{name}={value}" for name, value in alternative.changes) or "as it is"


def _batch(need: DeviceNeed) -> str:
    parts = need.config.accumulation
    return f"{need.config.batch_size}" + (f" × {parts}" if parts > 1 else "")


def _saved(base: DeviceNeed, other: DeviceNeed) -> str:
    difference = base.device_bytes.p50 - other.device_bytes.p50
    if other is base:
        return "–"
    sign = "−" if difference < 0 else ""
    return f"{sign}{format_bytes(abs(difference))}"


def _flops(base: DeviceNeed, other: DeviceNeed) -> str:
    """Of a whole step, with what is added."""
    own, now = (n.flops * n.config.accumulation for n in (base, other))
    if other is base or not own:
        return format_count(now)
    if abs(now / own - 1) < SAME:
        return format_count(now)
    sign = "−" if now < own else "+"
    return f"{format_count(now)} ({sign}{format_percent(abs(now / own - 1))})"
