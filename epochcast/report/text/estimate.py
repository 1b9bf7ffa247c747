"""What a cost model says, for people: how it was chosen, what it predicts, how right it has been.

print_model      the form that each quantity took        print_capacities  the largest batch
print_estimate   one run in full, or several in a table  print_compared    predicted against actual
print_sides      two runs side by side
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from epochcast.records import Capacity, Estimate, Quantiles
from epochcast.report.text.layout import (
    maybe,
    plain_table,
    print_columns,
    print_table,
    say,
    varying_knobs,
)
from epochcast.report.text.warnings import print_warnings
from epochcast.units import (
    format_bytes,
    format_energy,
    format_money,
    format_number_of,
    format_percent,
    format_seconds,
)

if TYPE_CHECKING:
    from epochcast.costmodel.model import CostModel
    from epochcast.costmodel.outcomes import Comparison
    from epochcast.costmodel.side_by_side import Side
    from epochcast.storage.query import Compared, Correction

WORTH_A_WORD = 0.1  # of the time to compute
LEAST_SHOWN = 0.1  # with two decimals; less has two figures
WIDE = 130  # columns of a terminal from which every number has a column of its own
PARTS = {"epoch": "epochs", "startup": "start-up", "evaluation": "evaluation", "save": "saves"}
FOLLOW = """\
{nothing}: nothing to compare yet. Make a plan, and follow it where you train:

    epochcast plan --epochs 90 --deadline 8h --output plan.json

    with ec.follow("plan.json", state={{"model": model, "optimizer": optimizer}}) as run:
        for epoch in run.epochs():
            ...

When the run ends, what it took goes to the store, and corrects the next prediction."""

CellText = Callable[["Comparison"], str]


def print_model(console: Console, model: CostModel) -> None:
    """Which form each quantity took, and why."""
    console.print(Text(f"{model.workload} on {model.device.label}", style="bold"))
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, chosen in model.explain():
        table.add_row(name, chosen)
    console.print(table)
    run = model.variants[0].run
    line = (
        f"From round to round, steps differ by {format_percent(run.sd)} "
        f"({run.dof:.0f} degrees of freedom)."
    )
    say(console, line)


def print_estimate(console: Console, estimate: Estimate) -> None:
    """One run in full: totals, every term, memory, money, and what it all rests on."""
    say(console, _heading(estimate), "bold")
    say(console, epoch_line(estimate))
    console.print()
    print_table(console, estimate_table(estimate))
    console.print()
    say(console, probing_line(estimate))
    print_warnings(console, estimate.warnings)


def estimate_table(estimate: Estimate) -> Table:
    """Every term of a run, its memory and money, as quantiles and shares."""
    table = plain_table()
    table.add_column("")
    for heading in ("P10", "P50", "P90", "share"):
        table.add_column(heading, justify="right", no_wrap=True)
    if estimate.has_epochs:
        table.add_row("one epoch of training", *_seconds(estimate.epoch_seconds))
    table.add_row(
        Text(_total_label(estimate), style="bold"), *_seconds(estimate.total_seconds), "100 %"
    )
    for term in estimate.terms:
        label = f"  {term.name}" + (f" ×{term.count:,}" if term.count > 1 else "")
        table.add_row(label, *_seconds(term.seconds), format_percent(term.share))
    for label, cells in _further_rows(estimate):
        table.add_row(label, *cells)
    return table


def print_estimates(console: Console, estimates: Sequence[Estimate]) -> None:
    """Several runs, a row each."""
    first = estimates[0]
    knobs = varying_knobs(e.config for e in estimates)
    fixed = "".join(f"  {k}={v}" for k, v in first.config.sizes if k not in knobs)
    console.print(Text(f"{first.workload}{fixed}  on {first.device.label}", style="bold"))
    print_columns(console, estimates_cells(estimates), keys=2 + len(knobs))
    say(console, probing_line(estimates[-1]))
    print_warnings(console, (w for e in estimates for w in e.warnings))


def estimates_cells(estimates: Sequence[Estimate]) -> dict[str, list[str]]:
    """Columns of several runs, a row each."""
    first = estimates[0]
    totals = [e.total_seconds for e in estimates]
    cells = {
        "epochs" if first.steps is None else "steps": [
            _number(e.epochs if e.steps is None else e.steps) for e in estimates
        ],
        "batch": [str(e.config.batch_size) for e in estimates],
        **{
            k: [str(dict(e.config.sizes).get(k, "–")) for e in estimates]
            for k in varying_knobs(e.config for e in estimates)
        },
        "devices": [str(e.config.world_size) for e in estimates],
        "one epoch": [format_seconds(e.epoch_seconds.p50) for e in estimates],
        "total P10": [format_seconds(t.p10) for t in totals],
        "P50": [format_seconds(t.p50) for t in totals],
        "P90": [format_seconds(t.p90) for t in totals],
        "memory P90": [_memory_p90(e) for e in estimates],
    }
    if not all(e.has_epochs for e in estimates):
        del cells["one epoch"]
    if len({e.config.world_size for e in estimates}) == 1:
        del cells["devices"]
    costs = [e.cost for e in estimates if e.cost is not None]
    if costs:
        cells["cost P50"] = [format_money(c.p50) for c in costs]
        cells["cost P90"] = [format_money(c.p90) for c in costs]
    energies = [e.energy_joules for e in estimates if e.energy_joules is not None]
    if energies:
        cells["energy P50"] = [format_energy(joules.p50) for joules in energies]
    return cells


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
        say(console, line, "bold")
        say(console, f"for {found.config.label}")
        if found.extrapolated:
            names = ", ".join(found.extrapolated)
            console.print(Text(f"note: outside the probed range: {names}", style="yellow"))
        console.print()


def estimate_markdown(estimate: Estimate) -> str:
    """One run as Markdown, for TensorBoard's text tab."""
    rows = [("one epoch of training", _seconds(estimate.epoch_seconds))]
    rows = rows if estimate.has_epochs else []
    rows.append((_total_label(estimate), _seconds(estimate.total_seconds)))
    rows += [(term.name, _seconds(term.seconds)) for term in estimate.terms]
    rows += _further_rows(estimate)
    lines = [f"**{_heading(estimate)}**", "", "| | P10 | P50 | P90 |", "|---|--:|--:|--:|"]
    lines += [f"| {label} | {' | '.join(cells[:3])} |" for label, cells in rows]
    return "\n".join([*lines, "", probing_line(estimate)])


def _total_label(estimate: Estimate) -> str:
    """``"total, 90 epochs"``, or what was asked for in optimizer steps."""
    epochs = f"{_number(estimate.epochs)} epochs"
    if estimate.steps is None:
        return f"total, {epochs}"
    steps = "1 step" if estimate.steps == 1 else f"{estimate.steps:,} steps"
    return f"total, {steps} ({epochs})" if estimate.has_epochs else f"total, {steps}"


def _heading(estimate: Estimate) -> str:
    return f"{estimate.workload}  {estimate.config.label}  on {estimate.device.label}"


def epoch_line(estimate: Estimate) -> str:
    """Samples and steps of an epoch, and what a step takes."""
    step = f"{format_seconds(estimate.step_seconds.p50)} a step{_what_rules(estimate)}"
    if not estimate.has_epochs:
        return step
    steps = f"{format_number_of(estimate.steps_per_epoch, 'optimizer step')} an epoch"
    return f"{estimate.samples:,} samples, {steps}, {step}"


def _what_rules(estimate: Estimate) -> str:
    """Whether a step waits for data, in words; only where loading takes a share worth a word."""
    compute, loader = estimate.compute_seconds, estimate.loader_seconds
    if compute is None or loader is None or loader < WORTH_A_WORD * compute:
        return ""
    parts = f"of it computing {format_seconds(compute)}, loading {format_seconds(loader)}"
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
        rows += _phase_rows(estimate)
    if estimate.cost is not None:
        rows.append(("cost", _cells(format_money, estimate.cost)))
    if estimate.energy_joules is not None:
        rows.append(("energy", _cells(format_energy, estimate.energy_joules)))
    return rows


def _device_memory_row(needed: Quantiles, capacity: int) -> tuple[str, list[str]]:
    cells = _cells(format_bytes, needed)
    if not capacity:
        return "memory needed", cells
    share = format_percent(needed.p50 / capacity)
    return f"memory needed, of {format_bytes(capacity)}", [*cells, share]


def _phase_rows(estimate: Estimate) -> list[tuple[str, list[str]]]:
    """Which part of a run needs how much memory; nothing where only one is known."""
    known = {
        "  in training": estimate.training_bytes,
        "  in evaluation": estimate.evaluation_bytes,
        "  in saving": estimate.saving_bytes,
    }
    rows = [(name, _cells(format_bytes, q)) for name, q in known.items() if q is not None]
    return rows if len(rows) > 1 else []


def probing_line(estimate: Estimate) -> str:
    """What measuring took beside what the run takes."""
    if not estimate.probing_seconds:
        return f"No probe was needed; the run takes {format_seconds(estimate.total_seconds.p50)}."
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
    if value < LEAST_SHOWN:
        return f"{value:.2g}"
    return f"{value:,.0f}" if value == round(value) else f"{value:,.2f}"


def print_compared(console: Console, compared: Compared) -> None:
    """Every run, the newest last; how many were inside; what the next prediction makes of them."""
    console.print(runs_table(compared.runs, console.width))
    console.print()
    for line in compared_lines(compared):
        say(console, line)


def compared_lines(compared: Compared) -> list[str]:
    """How many runs were inside their intervals, and what the next prediction makes of them."""
    return [_inside_line(compared), *map(_correction_line, compared.corrections)]


def print_how_to_follow(console: Console, asked: str, known: Sequence[str]) -> None:
    """What to do where there is no outcome yet.

    Args:
        console: where to print.
        asked: the workload and device asked for; empty for any.
        known: workloads of which there are outcomes.
    """
    nothing = f"no run of {asked} has been followed" if asked else "no run has been followed"
    others = f" (of {', '.join(known)} there are)" if known else ""
    text = FOLLOW.format(nothing=nothing.capitalize() if not asked else nothing + others)
    console.print(Text(text[0].upper() + text[1:]), soft_wrap=True)


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
        ("energy P50", a.energy_joules, b.energy_joules, format_energy, "p50"),
    ]
    shown = [_row(*row) for row in rows if row[1] is not None or row[2] is not None]
    headings = ("", "A", "B", "B / A")
    print_columns(
        console, dict(zip(headings, zip(*shown, strict=True), strict=True)), keys=1, left=("",)
    )
    both = set(a.warnings) & set(b.warnings)
    print_warnings(console, [w for w in a.warnings if w in both])
    for name, side in (("A", a), ("B", b)):
        print_warnings(console, [w for w in side.warnings if w not in both], f"note: {name}")


def print_by_device(
    console: Console, sides: Sequence[Side], unfit: Sequence[tuple[str, str]] = ()
) -> None:
    """The same run on several devices: one line that says it, and a row for each, the best first.

    Args:
        console: where to print.
        sides: of each device.
        unfit: devices on which nothing fits, each with why.
    """
    ordered = sorted(sides, key=lambda side: (-side.count, side.seconds.p50))
    names = [side.device.partition(" (")[0] for side in ordered]
    if len(set(names)) < len(names):
        names = [side.device for side in ordered]
    is_one_length = len({side.length for side in ordered}) == 1
    answers = [
        f"{'' if is_one_length else f'{side.length} in '}{_time_and_money(side)} on {name}"
        for side, name in zip(ordered, names, strict=True)
    ]
    say(console, "; ".join(answers) + " (P50)", "bold")
    labels = {f"{side.length} of {side.workload}  {side.label}" for side in ordered}
    if len(labels) == 1:
        say(console, labels.pop())
    console.print()
    cells = {
        "device": names,
        **({} if not labels else {"run": [f"{s.length}, {s.label}" for s in ordered]}),
        "total P10": [format_seconds(side.seconds.p10) for side in ordered],
        "P50": [format_seconds(side.seconds.p50) for side in ordered],
        "P90": [format_seconds(side.seconds.p90) for side in ordered],
        "memory P90": [maybe(format_bytes, _level(s.device_bytes, "p90")) for s in ordered],
        "cost P50": [maybe(format_money, _level(s.money, "p50")) for s in ordered],
        "energy P50": [maybe(format_energy, _level(s.energy_joules, "p50")) for s in ordered],
    }
    if not any(side.energy_joules for side in ordered):
        del cells["energy P50"]
    print_columns(console, cells, keys=1, left=("device", "run"))
    for name, why in unfit:
        say(console, f"{name}: {why}")
    print_warnings(console, {w: None for side in ordered for w in side.warnings})


def _time_and_money(side: Side) -> str:
    money = f" and {format_money(side.money.p50)}" if side.money is not None else ""
    return f"{format_seconds(side.seconds.p50)}{money}"


def _row(
    name: str, a: Quantiles | None, b: Quantiles | None, form: Callable[[float], str], level: str
) -> tuple[str, str, str, str]:
    """One quantity of both, and how they compare."""
    x, y = _level(a, level), _level(b, level)
    ratio = "–" if not x or y is None else f"{y / x:.3g}"
    return name, maybe(form, x), maybe(form, y), ratio


def _level(q: Quantiles | None, level: str) -> float | None:
    return None if q is None else float(getattr(q, level))


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


def runs_table(runs: Sequence[Comparison], width: int) -> Table:
    """A row for each run; on a narrow terminal what belongs together is stacked."""
    table = plain_table()
    wide = width >= WIDE
    for i, group in enumerate(_columns(runs)):
        headings = [[name] for name in group] if wide else [list(group)]
        for names in headings:
            table.add_column("\n".join(names), justify="right" if i else "left", no_wrap=i > 0)
    for run in runs:
        cells = [[form(run) for form in group.values()] for group in _columns(runs)]
        row = [cell for group in cells for cell in (group if wide else ["\n".join(group)])]
        table.add_row(*row)
    return table


def _epochs(run: Comparison) -> str:
    """Whole ones, or segments of so many steps."""
    of = "" if run.segment_steps is None else f" of {format_number_of(run.segment_steps, 'step')}"
    return f"{run.epochs:,}{of}"


def _columns(runs: Sequence[Comparison]) -> list[dict[str, CellText]]:
    """Cells by heading, in groups; what is the same in all runs goes without saying."""
    who: dict[str, CellText] = {"workload": lambda r: r.workload, "configuration": _config}
    if len({r.device.key for r in runs}) > 1:
        who["device"] = lambda r: r.device.name
    return [
        who,
        {"epochs": _epochs, "ended": lambda r: r.reason or "error"},
        {
            "epoch P10": lambda r: format_seconds(r.predicted.p10),
            "P50": lambda r: format_seconds(r.predicted.p50),
            "P90": lambda r: format_seconds(r.predicted.p90),
        },
        {
            "actual": lambda r: maybe(format_seconds, r.actual),
            "ratio": lambda r: maybe("{:.2f}".format, r.ratio),
            "inside": _inside,
        },
        {
            "total P50": lambda r: maybe(format_seconds, _total(r)),
            "took": lambda r: format_seconds(r.total),
        },
    ]


def _config(run: Comparison) -> str:
    return run.config.label


def _inside(run: Comparison) -> str:
    """Between P10 and P90, just outside them, or beyond P5 and P95."""
    if run.inside_80 is None:
        return "–"
    return "yes" if run.inside_80 else "P5–P95" if run.inside_90 else "no"


def _total(run: Comparison) -> float | None:
    return run.total_predicted.p50 if run.total_predicted else None


def _inside_line(compared: Compared) -> str:
    judged = compared.judged
    if not judged:
        return "None of them had a whole steady epoch to compare."
    n = len(judged)
    inside = sum(bool(run.inside_80) for run in judged), sum(bool(run.inside_90) for run in judged)
    return (
        f"Epochs of {inside[0]} of {n} runs lie between P10 and P90 (expected: {0.8 * n:.3g}), "
        f"of {inside[1]} between P5 and P95 (expected: {0.9 * n:.3g})."
    )


def _correction_line(correction: Correction) -> str:
    """``"mnist-mlp on …: the next prediction is corrected by 10 runs: epochs × 1.14, …"``"""
    where = f"{correction.workload} on {correction.device.label}"
    found = correction.calibrations
    if found is None:
        return f"{where}: no prediction to correct: {correction.problem}"
    named = {name: getattr(found, part) for part, name in PARTS.items()}
    factors = [f"{name} × {part.factor:.3g}" for name, part in named.items() if part.runs]
    if not factors:
        return f"{where}: none of its runs says anything about what was probed last."
    runs = max(part.runs for part in named.values())
    plural = "" if runs == 1 else "s"
    line = f"{where}: the next prediction is corrected by {runs} run{plural}: {', '.join(factors)}"
    if correction.runs > runs:
        line += f"; the other {correction.runs - runs} ran other code or configurations"
    if found.epoch.runs and correction.width is not None:
        line += f". The interval of an epoch is {correction.width:.2f} times as wide as by probes"
    return f"{line}."
