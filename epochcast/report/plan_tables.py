"""The tables of a plan: its options, what the chosen one takes, its timeline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rich.table import Table

from epochcast.records import Checkpoint, Option, Plan, Quantiles
from epochcast.report.tables import columns, maybe, plain_table
from epochcast.units import (
    format_bytes,
    format_count,
    format_energy,
    format_money,
    format_percent,
    format_seconds,
)

WIDE = 112  # columns of a terminal from which all columns of a table are shown
ROWS = 16  # of a timeline on a terminal; all are in the JSON document


def options_table(plan: Plan, width: int) -> Table:
    """A row for each option, the best first."""
    options = plan.options
    cells: dict[str, list[str]] = {
        "": [f"{i}{'*' if o.pareto else ' '}" for i, o in enumerate(options, start=1)],
        "batch": [_batch(o) for o in options],
        "epochs": [f"{o.epochs:,}" for o in options],
        **_fits(options),
        "time P50": [format_seconds(o.seconds.p50) for o in options],
        "P90": [format_seconds(o.seconds.p90) for o in options],
    }
    if plan.target_epochs is not None and width >= WIDE:
        cells["target"] = [_target(o) for o in options]
    if options[0].money is not None:
        cells["cost P90"] = [format_money(o.money.p90) for o in options if o.money]
    cells["memory"] = [_share(o.memory_share) for o in options]
    if any((o.learning_rate_factor or 1.0) != 1.0 for o in options):
        cells["rate ×"] = [f"{o.learning_rate_factor:.3g}" for o in options]
    if width >= WIDE:
        cells["binds"] = [o.binding or "–" for o in options]
        cells["extrapolated"] = [", ".join(o.extrapolated) or "–" for o in options]
    return columns(cells)


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
    return f"{count:,.0f}" if count < 100_000 else format_count(count)


def _target(option: Option) -> str:
    if option.target_epochs is None or option.target_probability is None:
        return "–"
    return f"{option.target_epochs:,}: {format_percent(option.target_probability)}"


def _share(share: float | None) -> str:
    return "–" if share is None else format_percent(share)


def totals_table(plan: Plan) -> Table:
    """What the chosen option takes in all."""
    chosen, table = plan.chosen, plain_table()
    table.add_column("")
    for heading in ("P10", "P50", "P90"):
        table.add_column(heading, justify="right", no_wrap=True)
    rows: list[tuple[str, Any, Quantiles | None]] = [
        ("epochs that fit", _epochs, chosen.affordable_epochs),
        ("total time", format_seconds, chosen.seconds),
        ("cost", format_money, chosen.money),
        ("energy", format_energy, chosen.energy_joules),
        ("carbon", _carbon, chosen.carbon_grams),
        (f"memory, of {format_bytes(plan.device.memory_bytes)}", format_bytes, chosen.device_bytes),
    ]
    for label, form, q in rows:
        if q is not None and (label != "epochs that fit" or plan.chosen.slack):
            table.add_row(label, form(q.p10), form(q.p50), form(q.p90))
    return table


def _carbon(grams: float) -> str:
    return f"{format_count(grams, 'g')} CO₂e"


def timeline_table(plan: Plan, width: int) -> Table:
    """When what happens; ``ROWS`` moments of many."""
    shown = _worth_showing(plan.timeline)
    table = plain_table()
    forms = _timeline_columns(plan, wide=width >= WIDE)
    for heading in forms:
        left = heading == "what happens"
        table.add_column(heading, justify="left" if left else "right", no_wrap=True)
    for position in shown:
        table.add_row(*(form(plan.timeline[position]) for form in forms.values()))
    return table


def _timeline_columns(plan: Plan, wide: bool) -> dict[str, Callable[[Checkpoint], str]]:
    """Cells by heading; a narrow terminal gets the most important ones."""
    forecast = any(c.stop_probability is not None for c in plan.timeline)
    priced = plan.budget.price_per_hour is not None
    forms: dict[str, Callable[[Checkpoint], str]] = {
        "epoch": lambda c: f"{c.epoch:,}",
        "time P50": lambda c: format_seconds(c.seconds.p50),
        "P90": lambda c: format_seconds(c.seconds.p90),
    }
    if priced and (wide or not forecast):
        forms["cost"] = lambda c: maybe(format_money, c.money)
    forms["what happens"] = lambda c: ", ".join(c.actions)
    if not forecast:
        return forms
    if wide:
        forms["gets here"] = lambda c: maybe(format_percent, c.reach_probability)
    forms["stops"] = lambda c: maybe(format_percent, c.stop_probability)
    forms["time saved"] = lambda c: maybe(format_seconds, c.saved_seconds)
    if priced and wide:
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
