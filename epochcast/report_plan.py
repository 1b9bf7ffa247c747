"""A plan for people: what to run, what else could be run, when what happens, when to stop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from epochcast.errors import UsageError
from epochcast.planning.batch import noise_scale
from epochcast.records import (
    Budget,
    Checkpoint,
    GradientNoise,
    Measurement,
    Option,
    Outlook,
    Plan,
    Quantiles,
    StopRule,
    Warning_,
)
from epochcast.report import print_warnings
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
LIMIT_FORMS: Mapping[str, Callable[[float], str]] = {
    "deadline": format_seconds,
    "money": format_money,
    "energy": format_energy,
    "memory": format_bytes,
    "disk": format_bytes,
}
BINDING = {"deadline": "The deadline", "money": "Money", "energy": "Energy", "disk": "Disk space"}
RULES = {
    "patience": "at the {checks:.0f}{th} check in a row that does not improve {metric}{delta}",
    "gl": "when {metric} is {percent:g} % worse than its best (GL)",
    "pq": "when {metric} is worse than its best by {quotient:g} times the training progress (PQ)",
    "up": "when {metric} has risen over {rises:.0f} strips of {strip:.0f} checks in a row (UP)",
    "target": "when {metric} reaches {value:g}",
    "divergence": "when {metric} is worse than {value:g}",
    "futility": "when improving {metric} by epoch {horizon:.0f} is less likely than "
    "{probability:.0%}",
}
FITS = {
    "underfitting": "validation is still improving at epoch {seen:g}: more epochs should help",
    "overfitting": "validation was best at epoch {turning:g} and has become worse since: "
    "more epochs overfit",
    "settled": "validation has settled by epoch {seen:g}",
}


def print_plan(console: Console, plan: Plan) -> None:
    """The whole plan: the choice, its alternatives, its timeline."""
    chosen = plan.chosen
    console.print(Text(f"{plan.workload}  on {plan.device.label}", style="bold"), soft_wrap=True)
    console.print(Text(limits_line(plan.budget)), soft_wrap=True)
    console.print()
    if len(plan.options) > 1:
        console.print(_options_table(plan, console.width))
        console.print(Text("* nothing is better in time, cost, memory and epochs at once"))
        console.print()
    console.print(Text(_choice_line(plan), style="bold"), soft_wrap=True)
    console.print(_totals_table(plan))
    for line in (*_reasons(plan, chosen), *_stop_lines(plan), *_outlook_lines(plan)):
        console.print(Text(line), soft_wrap=True)
    console.print()
    console.print(_timeline_table(plan, console.width))
    if len(plan.timeline) > ROWS:
        count = len(plan.timeline)
        console.print(Text(f"A choice of the {count:,} moments; --json has all of them."))
    print_warnings(console, plan.warnings)


def limits_line(budget: Budget) -> str:
    """``"Within 8h 00m, $18.00 and 24 GiB of memory, with 90 % confidence."``"""
    texts = {
        name: form(limit)
        for name, form in LIMIT_FORMS.items()
        if (limit := getattr(budget, name)) is not None
    }
    named = [
        text if name in ("deadline", "money", "energy") else f"{text} of {name}"
        for name, text in texts.items()
    ]
    within = f"Within {_listed(named)}" if named else "Without limits"
    return f"{within}, with {format_percent(budget.confidence)} confidence{_spent(budget)}."


def _spent(budget: Budget) -> str:
    if not budget.spent_seconds:
        return ""
    since = {"start": "since the allocation began", "total": "in earlier runs"}
    words = since.get(budget.counted_from, "before")
    return f"; {format_seconds(budget.spent_seconds)} were spent {words}"


def _listed(parts: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))


# -- options ------------------------------------------------------------------------------------


def _options_table(plan: Plan, width: int) -> Table:
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
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in cells:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in zip(*cells.values(), strict=True):
        table.add_row(*row)
    return table


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


# -- the chosen one -----------------------------------------------------------------------------


def _choice_line(plan: Plan) -> str:
    chosen = plan.chosen
    folds = f" in each of {plan.folds} folds" if plan.folds > 1 else ""
    epochs = "1 epoch" if chosen.epochs == 1 else f"{chosen.epochs:,} epochs"
    return f"Run {epochs}{folds} with {chosen.config.label}"


def _totals_table(plan: Plan) -> Table:
    chosen, table = plan.chosen, Table(box=None, pad_edge=False, header_style="bold")
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


def _reasons(plan: Plan, chosen: Option) -> list[str]:
    """Why it is as many epochs, what is left, what more would take, what to set."""
    lines = []
    if chosen.binding is not None:
        lines.append(f"{BINDING[chosen.binding]} binds{_missed_target(chosen)}.")
    elif chosen.slack:
        lines.append(f"All limits hold with a probability of {format_percent(chosen.probability)}.")
    if chosen.slack:
        left = _listed([f"{LIMIT_FORMS[name](left)} of {name}" for name, left in chosen.slack])
        lines.append(f"Left at {format_percent(plan.budget.confidence)} confidence: {left}.")
    lines.append(_parts_line(plan))
    more = format_seconds(chosen.next_epoch_seconds)
    if chosen.next_epoch_money is not None:
        more += f" and {format_money(chosen.next_epoch_money)}"
    lines.append(f"One more epoch would take {more}.")
    rate = ""
    if (chosen.learning_rate_factor or 1.0) != 1.0:
        rate = f"Multiply the learning rate by {chosen.learning_rate_factor:.3g}. "
    lines.append(
        f"{rate}A learning-rate schedule spans {chosen.horizon_steps:,} optimizer steps, "
        f"{chosen.steps_per_epoch:,} an epoch."
    )
    return lines + _save_lines(plan)


def _parts_line(plan: Plan) -> str:
    """What an epoch, an evaluation and a save take, P50."""
    parts = {"An epoch": plan.prices.epoch.p50}
    for name, action in (("an evaluation", "evaluate"), ("a save", "save")):
        price = plan.prices.evaluation if action == "evaluate" else plan.prices.save
        if any(action in c.actions for c in plan.timeline):
            parts[name] = price.p50
    listed = [f"{name} {format_seconds(seconds)}" for name, seconds in parts.items()]
    return f"{_listed(listed)}, after a start of {format_seconds(plan.prices.startup.p50)} (P50)."


def _missed_target(chosen: Option) -> str:
    if chosen.target_epochs is None or chosen.target_probability is None:
        return ""
    chance = format_percent(chosen.target_probability)
    return f"; all {chosen.target_epochs:,} epochs would fit with a probability of {chance}"


def _save_lines(plan: Plan) -> list[str]:
    if not plan.epochs_of("save"):
        return []
    count = len(plan.epochs_of("save"))
    line = "1 checkpoint" if count == 1 else f"{count:,} checkpoints"
    if plan.save_interval_seconds is not None:
        interval = format_seconds(plan.save_interval_seconds)
        if plan.mtbf_seconds is None:
            line += f", at most one in {interval}, so that saving takes 3.5 % of the time at most"
        else:
            failures = format_seconds(plan.mtbf_seconds)
            line += f": with a failure every {failures}, one about every {interval} costs least"
    if plan.budget.deadline is not None:
        lead = format_seconds(plan.final_save_seconds)
        line += f"; the last one must begin {lead} before the deadline"
    return [f"{line}."]


def _stop_lines(plan: Plan) -> list[str]:
    return [f"Stop {rule_text(rule, plan.metric)}." for rule in plan.stop_rules]


def rule_text(rule: StopRule, metric: str) -> str:
    """A stop rule in words."""
    settings = dict(rule.settings)
    delta = settings.get("min_delta", 0.0)
    words = {"metric": metric, "delta": f" by {delta:g}" if delta else ""}
    return RULES[rule.kind].format(**settings, **words, th=_ordinal(settings.get("checks", 0)))


def _ordinal(count: float) -> str:
    whole = int(count)
    if whole % 100 in (11, 12, 13):
        return "th"
    return {1: "st", 2: "nd", 3: "rd"}.get(whole % 10, "th")


def _outlook_lines(plan: Plan) -> list[str]:
    if plan.outlook is None:
        return []
    o = plan.outlook
    return [
        f"Learning curve: {fit_text(o)}.",
        f"At epoch {plan.chosen.epochs} expect {plan.metric} of {o.final_value.p50:.4g} "
        f"({o.final_value.p10:.4g} to {o.final_value.p90:.4g}); it beats the best so far, "
        f"{o.best_value:.4g}{_by(o.min_delta)}, with a probability of "
        f"{format_percent(o.improve_probability)}.",
    ]


def fit_text(outlook: Outlook) -> str:
    """Under- or overfitting in words, with the epoch where it turns."""
    return FITS[outlook.fit].format(seen=outlook.seen_epochs, turning=outlook.turning_epoch or 0)


def _by(delta: float) -> str:
    return f", by {delta:g}" if delta else ""


# -- the timeline -------------------------------------------------------------------------------


def _timeline_table(plan: Plan, width: int) -> Table:
    shown = _worth_showing(plan.timeline)
    table = Table(box=None, pad_edge=False, header_style="bold")
    columns = _timeline_columns(plan, wide=width >= WIDE)
    for heading in columns:
        left = heading == "what happens"
        table.add_column(heading, justify="left" if left else "right", no_wrap=True)
    for position in shown:
        table.add_row(*(form(plan.timeline[position]) for form in columns.values()))
    return table


def _timeline_columns(plan: Plan, wide: bool) -> dict[str, Callable[[Checkpoint], str]]:
    """Cells by heading; a narrow terminal gets the most important ones."""
    forecast = any(c.stop_probability is not None for c in plan.timeline)
    priced = plan.budget.price_per_hour is not None
    columns: dict[str, Callable[[Checkpoint], str]] = {
        "epoch": lambda c: f"{c.epoch:,}",
        "time P50": lambda c: format_seconds(c.seconds.p50),
        "P90": lambda c: format_seconds(c.seconds.p90),
    }
    if priced and (wide or not forecast):
        columns["cost"] = lambda c: _maybe(format_money, c.money)
    columns["what happens"] = lambda c: ", ".join(c.actions)
    if not forecast:
        return columns
    if wide:
        columns["gets here"] = lambda c: _maybe(format_percent, c.reach_probability)
    columns["stops"] = lambda c: _maybe(format_percent, c.stop_probability)
    columns["time saved"] = lambda c: _maybe(format_seconds, c.saved_seconds)
    if priced and wide:
        columns["money saved"] = lambda c: _maybe(format_money, c.saved_money)
    columns["regret"] = lambda c: _maybe("{:.2g}".format, c.regret)
    return columns


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


def _maybe(form: Callable[[float], str], value: float | None) -> str:
    return "–" if value is None else form(value)


# -- gradient noise -----------------------------------------------------------------------------


def print_noise(console: Console, measurements: Sequence[Measurement]) -> None:
    """The gradient noise scale of each model size where gradients were taken."""
    for m in measurements:
        if m.gradient_noise is not None:
            console.print(Text(f"{_size(m)}: {noise_text(m.gradient_noise)}"), soft_wrap=True)
    if any(m.data == "synthetic" for m in measurements if m.gradient_noise is not None):
        print_warnings(console, [Warning_(code="noise-of-synthetic-data")])


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
