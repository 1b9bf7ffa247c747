"""A plan for people: the answer first, then why, when to stop, what else could be run, and when.

Run 55 of 200 epochs: 30 % chance …  what to run, of which chance, time and money; within what
                P10  P50  P90        what it takes
The deadline binds; …                why not more, what is left, what to set
Stop at the 5th check …              when to end early, what the learning curve promises
Options                              a row each, the best first
Timeline                             when it evaluates, saves and decides
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

from rich.console import Console
from rich.table import Table

from epochcast.planning.request import LONGEST_STEPS, MAX_SEARCHED_EPOCHS
from epochcast.records import (
    Budget,
    Checkpoint,
    CountUnit,
    Device,
    Option,
    Outlook,
    Plan,
    Quantiles,
    RateRule,
    StopRule,
)
from epochcast.records.moments import actions_at, checkpoint_at, moments_of
from epochcast.report.text.layout import fitting, maybe, plain_table, say
from epochcast.report.text.warnings import warning_text
from epochcast.units import (
    format_bytes,
    format_count,
    format_energy,
    format_money,
    format_number_of,
    format_percent,
    format_seconds,
)

ROWS = 16  # of a timeline for people; the JSON document has the ranges of all
EXACT = 10_000  # epochs; more are rounded to three figures
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
    "futility": "when improving {metric} by {unit} {horizon:,.0f} is less likely than "
    "{probability}",
}
RATE_RULES: Mapping[RateRule, str] = {
    "linear": "linear rule, for SGD: Goyal et al. 2017",
    "square-root": "square-root rule, for adaptive optimizers: Malladi et al. 2022",
}
FITS = {
    "underfitting": "validation is still improving at {unit} {seen:g}: more {unit}s should help",
    "overfitting": "validation was best at {unit} {turning:g} and has become worse since: "
    "more {unit}s overfit",
    "diverging": "validation was best at {unit} {turning:g} and has become worse since, training "
    "too: the run diverges",
    "settled": "validation has settled by {unit} {seen:g}",
}


def print_plan(console: Console, plan: Plan) -> None:
    """The whole plan: the choice, its reasons, its alternatives, its timeline."""
    say(console, answer_line(plan), "bold")
    say(console, f"{plan.workload}  {plan.chosen.config.label}  on {plan.device.label}")
    say(console, limits_line(plan.budget))
    console.print()
    console.print(totals_table(plan))
    _print_sentences(console, reasons(plan))
    _print_sentences(console, stopping(plan))
    if len(plan.options) > 1:
        title = (
            f"Options; nothing beats those with * in speed, cost, memory and {plan.unit}s at once"
        )
        _print_tables(console, title, options_tables(plan, console.width))
    moments = timeline_tables(plan, console.width)
    _print_tables(console, _timeline_title(plan, moments[0].row_count), moments)
    notes = [f"note: {text}" for text in dict.fromkeys(map(warning_text, plan.warnings))]
    _print_sentences(console, notes, "yellow")


def plan_markdown(plan: Plan) -> str:
    """The answer as Markdown, for TensorBoard's text tab."""
    table = totals_table(plan)
    rows = zip(*(map(str, column.cells) for column in table.columns), strict=True)
    lines = ["| | P10 | P50 | P90 |", "|---|--:|--:|--:|", *(f"| {' | '.join(r)} |" for r in rows)]
    about = f"{plan.workload}  {plan.chosen.config.label}  on {plan.device.label}"
    named = f"**{about}: {answer_line(plan)}**"
    why = [f"* {line}" for line in (*reasons(plan), *stopping(plan))]
    return "\n".join([named, "", limits_line(plan.budget), "", *lines, "", *why])


def _print_sentences(console: Console, lines: Sequence[str], style: str = "") -> None:
    if lines:
        console.print()
    for line in lines:
        say(console, line, style)


def _print_tables(console: Console, title: str, tables: Sequence[Table]) -> None:
    console.print()
    say(console, title, "bold")
    for position, table in enumerate(tables):
        if position:
            console.print()
        console.print(table)


def _timeline_title(plan: Plan, shown: int) -> str:
    count = len(moments_of(plan))
    one = " of one fold" if plan.folds > 1 else ""
    some = f", {shown} of {count:,} moments; --json has all of them" if count > shown else ""
    return f"Timeline{one}{some}"


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


def answer_line(plan: Plan) -> str:
    """``"Run 55 of 200 epochs: 30 % chance of all 200; 26.8 s, at most 39.9 s, $0.019"``."""
    chosen = plan.chosen
    cost = "" if chosen.money is None else f", {format_money(chosen.money.p50)}"
    seconds = chosen.seconds
    taken = f"{format_seconds(seconds.p50)}, at most {format_seconds(seconds.p90)}{cost}"
    return f"{_run_line(plan)}: {_chance_text(chosen)}{taken}"


def _chance_text(chosen: Option) -> str:
    """Of all that was wanted, where a limit may keep a run from it."""
    if not chosen.slack or chosen.target_epochs is None or chosen.target_probability is None:
        return ""
    chance = format_percent(chosen.target_probability)
    return f"{chance} chance of all {chosen.target_epochs:,}; "


def choice_line(plan: Plan) -> str:
    """``"Run 55 of 200 epochs with batch_size=32"``."""
    return f"{_run_line(plan)} with {plan.chosen.config.label}"


def _run_line(plan: Plan) -> str:
    chosen = plan.chosen
    folds = f" in each of {plan.folds} folds" if plan.folds > 1 else ""
    wanted = max(chosen.epochs, chosen.target_epochs or 0)
    epochs = format_number_of(wanted, plan.unit)
    some = f"{chosen.epochs:,} of " if chosen.epochs < wanted else ""
    return f"Run {some}{epochs}{folds}"


def reasons(plan: Plan) -> list[str]:
    """Why it is as many epochs, what is left, what more would take, what to set."""
    chosen = plan.chosen
    lines = _beside_target(chosen)
    if chosen.binding is not None:
        lines.append(f"{BINDING[chosen.binding]} binds.")
    elif chosen.slack and chosen.epochs != chosen.target_epochs:
        lines.append(f"All limits hold with a probability of {format_percent(chosen.probability)}.")
    if chosen.slack:
        left = _listed([f"{LIMIT_FORMS[name](left)} of {name}" for name, left in chosen.slack])
        lines.append(f"Left at {format_percent(plan.budget.confidence)} confidence: {left}.")
    more = format_seconds(chosen.next_epoch_seconds)
    if chosen.next_epoch_money is not None:
        more += f" and {format_money(chosen.next_epoch_money)}"
    lines += [f"One more {plan.unit} would take {more}.", _parts_line(plan)]
    rate = ""
    if (chosen.learning_rate_factor or 1.0) != 1.0:
        rate = f"Multiply the learning rate by {chosen.learning_rate_factor:.3g}{_rule(chosen)}. "
    lines.append(
        f"{rate}A learning-rate schedule spans {chosen.horizon_steps:,} optimizer steps"
        + (f", {chosen.steps_per_epoch:,} an epoch." if plan.unit == "epoch" else ".")
    )
    return lines + _save_lines(plan) + _spot_lines(plan)


def _rule(option: Option) -> str:
    rule = option.learning_rate_rule
    return f" ({RATE_RULES[rule]})" if rule else ""


def _beside_target(chosen: Option) -> list[str]:
    """Where a maximum, and not the target, is what ends the run."""
    target, maximum = chosen.target_epochs, chosen.max_epochs
    if target is None or maximum is None or target == maximum:
        return []
    if maximum < target:
        return [f"The maximum of {maximum:,} epochs ends the run before the target of {target:,}."]
    if chosen.epochs <= target:
        return []
    return [f"Beyond the target of {target:,}, what is left goes into up to {maximum:,} epochs."]


def _parts_line(plan: Plan) -> str:
    """What an epoch, an evaluation and a save take, P50."""
    many = plan.segment_steps
    whole = "An epoch" if many is None else _capital(format_number_of(many, "step"))
    parts = {whole: plan.prices.epoch.p50}
    if plan.evaluations:
        parts["an evaluation"] = plan.prices.evaluation.p50
    if plan.saves:
        parts["a save"] = plan.prices.save.p50
    listed = [f"{name} {format_seconds(seconds)}" for name, seconds in parts.items()]
    return f"{_listed(listed)}, after a start of {format_seconds(plan.prices.startup.p50)} (P50)."


def _capital(text: str) -> str:
    return "A step" if text == "1 step" else text


def _save_lines(plan: Plan) -> list[str]:
    saves = plan.epochs_of("save")
    if not saves:
        return []
    line = "1 checkpoint" if len(saves) == 1 else f"{len(saves):,} checkpoints"
    if plan.save_interval_seconds is not None and plan.mtbf_seconds is None:
        interval = format_seconds(plan.save_interval_seconds)
        line += f", at most one in {interval}, so that saving takes 3.5 % of the time at most"
    elif plan.save_interval_seconds is not None and plan.mtbf_seconds is not None:
        failures = format_seconds(plan.mtbf_seconds)
        line += f", {_spacing(saves, plan.unit)}: with a failure every {failures}, that costs least"
    if plan.budget.deadline is not None:
        lead = format_seconds(plan.final_save_seconds)
        line += f"; the last one must begin {lead} before the deadline"
    return [f"{line}."]


def _spot_lines(plan: Plan) -> list[str]:
    """What the same costs on devices that may be taken away, which is cheaper, and how surely."""
    offer, chosen = plan.spot, plan.chosen
    if offer is None or chosen.money is None:
        return []
    terms = (
        f"{format_money(offer.price_per_hour)} an hour with an interruption every "
        f"{format_seconds(offer.mtbf_seconds)}"
    )
    there = offer.option
    if there is None or there.money is None or offer.cheaper_probability is None:
        return [f"Spot, {terms}: {offer.why_not}."]
    same = there.epochs == chosen.epochs
    of = "" if same else f" for {format_number_of(there.epochs, plan.unit)}"
    costs = (
        f"{format_money(there.money.p50)}, at most {format_money(there.money.p90)}, and "
        f"{format_seconds(there.seconds.p50)}, at most {format_seconds(there.seconds.p90)}{of}"
    )
    chance, word = offer.cheaper_probability, "cheaper"
    if chance < 0.5:
        chance, word = 1 - chance, "dearer"
    each = "" if same else f" {plan.unit} by {plan.unit}"
    more = f", with --price-per-hour {offer.price_per_hour:g} --mtbf {offer.mtbf_seconds:.0f}s"
    return [
        f"Spot, {terms}: {costs}; {word}{each} with a probability of {format_percent(chance)}"
        f"{more if word == 'cheaper' else ''}."
    ]


def _spacing(saves: Sequence[int], unit: CountUnit) -> str:
    """How far apart saves are, in epochs or steps."""
    if len(saves) == 1:
        return "at the end"
    gaps = sorted(b - a for a, b in pairwise((0, *saves)))
    usual = gaps[len(gaps) // 2]
    about = "" if gaps[0] == gaps[-1] else "about "
    return f"one after every {unit}" if gaps[-1] == 1 else f"one {about}every {usual:,} {unit}s"


def stopping(plan: Plan) -> list[str]:
    """When to end early, how likely that is, and what the learning curve promises."""
    never = any(warning.code == "no-checks" for warning in plan.warnings)
    but = ", which is never: nothing is evaluated" if never else ""
    lines = [f"Stop {rule_text(rule, plan.metric, plan.unit)}{but}." for rule in plan.stop_rules]
    return [*lines, *_early_end_lines(plan), *_outlook_lines(plan)]


def _early_end_lines(plan: Plan) -> list[str]:
    """How likely the rules end the run before its last epoch, and when."""
    before = plan.timeline[:-1]
    sums = list(accumulate(c.stop_probability or 0.0 for c in before))
    if not sums or all(c.stop_probability is None for c in before):
        return []
    line = f"That ends the run early with a probability of {format_percent(sums[-1])}"
    half = next((c for c, ended in zip(before, sums, strict=True) if ended >= 0.5), None)
    if half is not None:
        line += (
            f", half of all runs by {plan.unit} {half.epoch:,} after "
            f"{format_seconds(half.seconds.p50)}"
        )
    return [f"{line}."]


def rule_text(rule: StopRule, metric: str, unit: CountUnit = "epoch") -> str:
    """A stop rule in words.

    Args:
        rule: with its settings.
        metric: that it watches.
        unit: of the plan that it belongs to.
    """
    settings: dict[str, Any] = dict(rule.settings)
    delta = settings.get("min_delta", 0.0)
    if "probability" in settings:
        settings["probability"] = format_percent(settings["probability"])
    words = {"metric": metric, "unit": unit, "delta": f" by {delta:g}" if delta else ""}
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
        f"Learning curve: {fit_text(o, plan.unit)}.",
        f"At {plan.unit} {plan.chosen.epochs:,} expect {plan.metric} of {o.final_value.p50:.4g} "
        f"({o.final_value.p10:.4g} to {o.final_value.p90:.4g}); it beats the best so far, "
        f"{o.best_value:.4g}{_by(o.min_delta)}, with a probability of "
        f"{format_percent(o.improve_probability)}.",
    ]


def fit_text(outlook: Outlook, unit: CountUnit = "epoch") -> str:
    """Under- or overfitting in words, with the epoch or step where it turns."""
    seen, turning = outlook.seen_epochs, outlook.turning_epoch or 0
    return FITS[outlook.fit].format(seen=seen, turning=turning, unit=unit)


def _by(delta: float) -> str:
    return f", by {delta:g}" if delta else ""


def options_tables(plan: Plan, width: int) -> list[Table]:
    """A row for each option: the chosen one, those that nothing beats, the others; by rank."""
    ranked = sorted(enumerate(plan.options, start=1), key=lambda r: r[0] > 1 and not r[1].pareto)
    options = [option for _, option in ranked]
    cells: dict[str, list[str]] = {
        "": [f"{rank}{'*' if option.pareto else ' '}" for rank, option in ranked],
        "batch": [_batch(o) for o in options],
        f"{plan.unit}s": [f"{o.epochs:,}" for o in options],
        "time P50": [format_seconds(o.seconds.p50) for o in options],
        "P90": [format_seconds(o.seconds.p90) for o in options],
    }
    if options[0].money is not None:
        cells["cost P90"] = [format_money(o.money.p90) for o in options if o.money]
    cells["memory"] = [maybe(format_percent, o.memory_share) for o in options]
    cells |= _fits(options)
    cells |= _targets(options)
    if any((o.learning_rate_factor or 1.0) != 1.0 for o in options):
        cells["rate ×"] = [f"{o.learning_rate_factor:.3g}" for o in options]
    if len({o.binding for o in options}) > 1:
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


def _targets(options: Sequence[Option]) -> dict[str, list[str]]:
    """How likely all that was wanted fits; epochs of other batches may be worth another number."""
    wanted = {o.target_epochs for o in options}
    chances = [maybe(format_percent, o.target_probability) for o in options]
    if not options[0].slack or wanted == {None}:
        return {}
    if len(wanted) == 1:
        return {f"all {options[0].target_epochs:,}": chances}
    return {"all": [f"{o.target_epochs:,}: {c}" for o, c in zip(options, chances, strict=True)]}


def totals_table(plan: Plan) -> Table:
    """What the chosen option takes in all."""
    chosen, table = plan.chosen, plain_table()
    table.add_column("")
    for heading in ("P10", "P50", "P90"):
        table.add_column(heading, justify="right", no_wrap=True)
    searched = MAX_SEARCHED_EPOCHS if plan.unit == "epoch" else LONGEST_STEPS

    def counted(number: float) -> str:  # where the search ends, more may fit
        return ("≥ " if number >= searched else "") + _epochs(number)

    rows: list[tuple[str, Any, Quantiles | None]] = [
        ("total time", format_seconds, chosen.seconds),
        ("cost", format_money, chosen.money),
        ("energy", format_energy, chosen.energy_joules),
        ("carbon", _carbon, chosen.carbon_grams),
        (f"memory{_of_all(plan.device)}", format_bytes, chosen.device_bytes),
        (f"{plan.unit}s that fit", counted, chosen.affordable_epochs if chosen.slack else None),
    ]
    for label, form, q in rows:
        if q is not None:
            table.add_row(label, form(q.p10), form(q.p50), form(q.p90))
    return table


def _of_all(device: Device) -> str:
    """What the device has, where that is known: not of one whose runs were imported."""
    return f", of {format_bytes(device.memory_bytes)}" if device.memory_bytes else ""


def _carbon(grams: float) -> str:
    return f"{format_count(grams, 'g')} CO₂e"


def timeline_tables(plan: Plan, width: int) -> list[Table]:
    """When what happens; ``ROWS`` moments of many."""
    shown = [checkpoint_at(plan, epoch) for epoch in _worth_showing(plan)]
    cells = {name: [form(c) for c in shown] for name, form in _timeline_columns(plan).items()}
    return fitting(cells, width, left=("what happens",))


def _timeline_columns(plan: Plan) -> dict[str, Callable[[Checkpoint], str]]:
    """Cells by heading."""
    priced = plan.budget.price_per_hour is not None
    forms: dict[str, Callable[[Checkpoint], str]] = {
        plan.unit: lambda c: f"{c.epoch:,}",
        "time P50": lambda c: format_seconds(c.seconds.p50),
        "P90": lambda c: format_seconds(c.seconds.p90),
    }
    if priced:
        forms["cost P50"] = lambda c: maybe(format_money, c.money)
    forms["what happens"] = lambda c: ", ".join(actions_at(plan, c.epoch))
    if all(c.stop_probability is None for c in plan.timeline):
        return forms
    forms["gets here"] = lambda c: maybe(format_percent, c.reach_probability)
    forms["stops"] = lambda c: maybe(format_percent, c.stop_probability)
    forms["time saved"] = lambda c: maybe(format_seconds, c.saved_seconds)
    if priced:
        forms["money saved"] = lambda c: maybe(format_money, c.saved_money)
    forms["regret"] = lambda c: maybe("{:.2g}".format, c.regret)
    return forms


def _worth_showing(plan: Plan) -> list[int]:
    """At most ``ROWS`` moments: both ends, likely stops, and some in between."""
    moments = moments_of(plan)
    last = len(moments) - 1
    if last < ROWS:
        return moments
    chosen = {0, 1, last}
    likely = sorted(plan.timeline[:-1], key=lambda c: -(c.stop_probability or 0.0))[: ROWS // 2]
    chosen |= {bisect_left(moments, c.epoch) for c in likely if c.stop_probability}
    steps = ROWS - len(chosen)
    chosen |= {round(last * (k + 1) / (steps + 1)) for k in range(steps)}
    return [moments[position] for position in sorted(chosen)]
