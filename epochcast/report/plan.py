"""A plan for people: what to run, what else could be run, when what happens, when to stop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from rich.console import Console
from rich.text import Text

from epochcast.records import (
    Budget,
    Option,
    Outlook,
    Plan,
    StopRule,
)
from epochcast.report.plan_tables import ROWS, options_table, timeline_table, totals_table
from epochcast.report.warnings import print_warnings
from epochcast.units import (
    format_bytes,
    format_energy,
    format_money,
    format_percent,
    format_seconds,
)

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
        console.print(options_table(plan, console.width))
        console.print(Text("* nothing is better in time, cost, memory and epochs at once"))
        console.print()
    console.print(Text(_choice_line(plan), style="bold"), soft_wrap=True)
    console.print(totals_table(plan))
    for line in (*_reasons(plan, chosen), *_stop_lines(plan), *_outlook_lines(plan)):
        console.print(Text(line), soft_wrap=True)
    console.print()
    console.print(timeline_table(plan, console.width))
    if len(plan.timeline) > ROWS:
        count = len(plan.timeline)
        console.print(Text(f"A choice of the {count:,} moments; --json has all of them."))
    print_warnings(console, plan.warnings)


def limits_line(budget: Budget) -> str:
    """``"Within 8h 00m, $18.00 and 24 GiB of memory, with 90 % confidence."``"""
    limits = {name: getattr(budget, name) for name in LIMIT_FORMS}
    within = within_text({name: limit for name, limit in limits.items() if limit is not None})
    return f"{within}, with {format_percent(budget.confidence)} confidence{_spent(budget)}."


def within_text(limits: Mapping[str, float]) -> str:
    """``"Within 8h 00m, $18.00 and 24 GiB of memory"``."""
    texts = {name: form(limits[name]) for name, form in LIMIT_FORMS.items() if name in limits}
    named = [
        text if name in ("deadline", "money", "energy") else f"{text} of {name}"
        for name, text in texts.items()
    ]
    return f"Within {_listed(named)}" if named else "Without limits"


def _spent(budget: Budget) -> str:
    if not budget.spent_seconds:
        return ""
    since = {"start": "since the allocation began", "total": "in earlier runs"}
    words = since.get(budget.counted_from, "before")
    return f"; {format_seconds(budget.spent_seconds)} were spent {words}"


def _listed(parts: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))


def _choice_line(plan: Plan) -> str:
    chosen = plan.chosen
    folds = f" in each of {plan.folds} folds" if plan.folds > 1 else ""
    epochs = "1 epoch" if chosen.epochs == 1 else f"{chosen.epochs:,} epochs"
    return f"Run {epochs}{folds} with {chosen.config.label}"


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
