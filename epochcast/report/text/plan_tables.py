"""The tables of a plan: its options, what the chosen one takes, its timeline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rich.table import Table

from epochcast.records import Checkpoint, Option, Plan, Quantiles
from epochcast.report.text.tables import fitting, maybe, plain_table
from epochcast.units import (
    format_bytes,
    format_count,
    format_energy,
    format_money,
    format_percent,
    format_seconds,
)

ROWS = 16  # of a timeline for people; all are in the JSON document
EXACT = 10_000  # epochs; more are rounded to three figures


def options_tables(plan: Plan, width: int) -> list[Table]:
    """A row for each option: the chosen one, those that nothing beats, the others; by rank."""
    ranked = sorted(enumerate(plan.options, start=1), key=lambda r: r[0] > 1 and not r[1].pareto)
    options = [option for _, option in ranked]
    cells: dict[str, list[str]] = {
        "": [f"{rank}{'*' if option.pareto else ' '}" for rank, option in ranked],
        "batch": [_batch(o) for o in options],
        "epochs": [f"{o.epochs:,}" for o in options],
        "time P50": [format_seconds(o.seconds.p50) for o in options],
        "time P90": [format_seconds(o.seconds.p90) for o in options],
    }
    if options[0].money is not None:
        cells["cost P90"] = [format_money(o.money.p90) for o in options if o.money]
    cells["memory"] = [maybe(format_percent, o.memory_share) for o in options]
    cells |= _fits(options)
    if plan.target_epochs is not None:
        cells["target"] = [_target(o) for o in options]
    if any((o.learning_rate_factor or 1.0) != 1.0 for o in options):
        cells["rate ×"] = [f"{o.learning_rate_factor:.3g}" for o in options]
    if any(o.binding for o in options):
        cells["binds"] = [o.binding or "–" for o in options]
    if any(o.extrapolated for o in options):
        cells["extrapolated"] = [", ".join(o.extrapolated) or "–" for o in options]
    return fitting(cells, width, keys=2)


def _fits(options: Sequence[Option]) -> dict[str, list[str]]:
    """How many epochs fit, where a limit says so."""
    if not options[0].slack:
        return {}
    return {"fit P10–P90": [_range(o.affordable_epochs) for o in options]}


def _batch(option: Option) -> str:
    """``"256 = 64×4"``: micro-batch, accumulation, and devices where there are several."""
    config = option.config
    parts = [config.batch_size, config.accumulation, config.world_size]
    while len(parts) > 1 and parts[-1] == 1:
        parts.pop()
    if len(parts) == 1:
        return str(option.global_batch)
    return f"{option.global_batch} = {'×'.join(map(str, parts))}"


def _range(epochs: Quantiles) -> str:
    return f"{_epochs(epochs.p10)}–{_epochs(epochs.p90)}"


def _epochs(count: float) -> str:
    return f"{count:,.0f}" if count < EXACT else format_count(count)


def _target(option: Option) -> str:
    if option.target_epochs is None or option.target_probability is None:
        return "–"
    return f"{option.target_epochs:,}: {format_percent(option.target_probability)}"


def totals_table(plan: Plan) -> Table:
    """What the chosen option takes in all."""
    chosen, table = plan.chosen, plain_table()
    table.add_column("")
    for heading in ("P10", "P50", "P90"):
        table.add_column(heading, justify="right", no_wrap=True)
    rows: list[tuple[str, Any, Quantiles | None]] = [
        ("total time", format_seconds, chosen.seconds),
        ("cost", format_money, chosen.money),
        ("energy", format_energy, chosen.energy_joules),
        ("carbon", _carbon, chosen.carbon_grams),
        (f"memory, of {format_bytes(plan.device.memory_bytes)}", format_bytes, chosen.device_bytes),
        ("epochs that fit", _epochs, chosen.affordable_epochs if chosen.slack else None),
    ]
    for label, form, q in rows:
        if q is not None:
            table.add_row(label, form(q.p10), form(q.p50), form(q.p90))
    return table


def _carbon(grams: float) -> str:
    return f"{format_count(grams, 'g')} CO₂e"


def timeline_tables(plan: Plan, width: int) -> list[Table]:
    """When what happens; ``ROWS`` moments of many."""
    shown = [plan.timeline[position] for position in _worth_showing(plan.timeline)]
    cells = {name: [form(c) for c in shown] for name, form in _timeline_columns(plan).items()}
    return fitting(cells, width, left=("what happens",))


def _timeline_columns(plan: Plan) -> dict[str, Callable[[Checkpoint], str]]:
    """Cells by heading."""
    priced = plan.budget.price_per_hour is not None
    forms: dict[str, Callable[[Checkpoint], str]] = {
        "epoch": lambda c: f"{c.epoch:,}",
        "time P50": lambda c: format_seconds(c.seconds.p50),
        "time P90": lambda c: format_seconds(c.seconds.p90),
    }
    if priced:
        forms["cost P50"] = lambda c: maybe(format_money, c.money)
    forms["what happens"] = lambda c: ", ".join(c.actions)
    if all(c.stop_probability is None for c in plan.timeline):
        return forms
    forms["gets here"] = lambda c: maybe(format_percent, c.reach_probability)
    forms["stops"] = lambda c: maybe(format_percent, c.stop_probability)
    forms["time saved"] = lambda c: maybe(format_seconds, c.saved_seconds)
    if priced:
        forms["money saved"] = lambda c: maybe(format_money, c.saved_money)
    forms["regret"] = lambda c: maybe("{:.2g}".format, c.regret)
    return forms


def _worth_showing(timeline: Sequence[Checkpoint]) -> list[int]:
    """Positions of at most ``ROWS`` moments: both ends, likely stops, and some in between."""
    last = len(timeline) - 1
    if last < ROWS:
        return list(range(last + 1))
    chosen = {0, 1, last}
    likely = sorted(range(last), key=lambda i: -(timeline[i].stop_probability or 0.0))
    chosen |= {i for i in likely[: ROWS // 2] if timeline[i].stop_probability}
    steps = ROWS - len(chosen)
    chosen |= {round(last * (k + 1) / (steps + 1)) for k in range(steps)}
    return sorted(chosen)
