"""The page: the question, its answer, and what they rest on, in the order in which people ask.

answer ─ picture ─ why so, what to set ─ options, moments ─ what was measured
─ how right earlier predictions were ─ what is assumed ─ how to read it
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timezone
from html import escape
from pathlib import Path

from rich.table import Table

from epochcast import __version__
from epochcast.errors import UsageError
from epochcast.records import Estimate, Plan, Quantiles, Warning_
from epochcast.records.documents import write_atomic
from epochcast.records.moments import moments_of
from epochcast.report.html.contents import Contents
from epochcast.report.plots.comparison import followed_pictures, probed_pictures
from epochcast.report.plots.following import draw_run
from epochcast.report.plots.pictures import Picture, inline_svg, picture_colours
from epochcast.report.plots.plan import draw_plan
from epochcast.report.text.estimate import (
    compared_lines,
    epoch_line,
    estimate_table,
    estimates_cells,
    probing_line,
    runs_table,
)
from epochcast.report.text.layout import columns, plain_table
from epochcast.report.text.plan import (
    choice_line,
    limits_line,
    options_tables,
    reasons,
    stopping,
    timeline_tables,
    totals_table,
)
from epochcast.report.text.probing import summary_cells
from epochcast.report.text.terminal import printable
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

WIDE = 10_000  # columns: a page breaks no table
# Nothing is loaded and nothing runs, whatever a name holds.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
STATUS = {
    "oom": "out of memory",
    "timeout": "timed out",
    "crashed": "crashed",
    "too-large": "left out",
}
READING = (
    "P10, P50 and P90: of ten such runs one takes less than P10, five less than P50, nine less "
    "than P90. Eight of ten lie between P10 and P90.",
    "A time is that of the whole run, from the start of its process to its end: start-up, slow "
    "first steps, training, evaluation and checkpoints. Time in a queue before is not counted.",
    "A peak of live tensors is the most bytes that tensors take at one moment; memory needed is "
    "what the device must have for that.",
)


def write_report(contents: Contents, path: str | Path, now: datetime | None = None) -> int:
    """Write the page, whole or not at all; how many bytes it has.

    Args:
        contents: what it says.
        path: of the file.
        now: the time that it is of; default: that of the clock.

    Raises:
        MissingDependency: matplotlib is not installed.
        UsageError: the file cannot be written.
    """
    written = page(contents, now or datetime.now(timezone.utc)).encode()
    try:
        write_atomic(Path(path), written)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error
    return len(written)


def page(contents: Contents, now: datetime) -> str:
    """The whole page as HTML.

    Args:
        contents: what it says.
        now: the time that it is of.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    title = f"{contents.workload}: what training costs"
    made = f"{now.astimezone(timezone.utc):%Y-%m-%d %H:%M} UTC, epochcast {__version__}"
    body = element(
        "main",
        element(
            "header",
            element("h1", title),
            element("p", f"On {contents.device.label}. Written {made}.", class_="faint"),
        ),
        _answer(contents),
        _picture_of_the_plan(contents),
        _why(contents),
        _alternatives(contents),
        _measured(contents),
        _earlier(contents),
        _assumed(contents),
        section("How to read this", bullets(READING)),
    )
    head = [
        Markup('<meta charset="utf-8">'),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'),
        Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        Markup('<meta name="color-scheme" content="light dark">'),
        element("title", title),
        element("style", _style()),
    ]
    whole = element("html", element("head", *head), element("body", body), lang="en")
    return f"<!DOCTYPE html>\n{whole}\n"


def _style() -> Markup:
    rules = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
    dark = (
        f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {picture_colours(True)} }} }}"
    )
    return Markup(f":root {{ {picture_colours()} }}\n{dark}\n{rules}")


# -- the answer ------------------------------------------------------------------------------------


def _answer(contents: Contents) -> Markup:
    if contents.plan is not None:
        return _plan_answer(contents.plan)
    if len(contents.estimates) == 1:
        return _estimate_answer(contents.estimates[0], contents.is_example)
    if contents.estimates:
        lines = paragraphs([probing_line(contents.estimates[-1])])
        return section("The answer", table(columns(estimates_cells(contents.estimates))), lines)
    return section("The answer", paragraphs([f"There is none yet: {contents.missing}."]))


def _plan_answer(plan: Plan) -> Markup:
    chosen = plan.chosen
    tiles = [_tile("Total time", format_seconds, chosen.seconds)]
    if chosen.money is not None:
        tiles.append(_tile("Cost", format_money, chosen.money))
    if chosen.energy_joules is not None:
        tiles.append(_tile("Energy", format_energy, chosen.energy_joules))
    if chosen.device_bytes is not None:
        tiles.append(_tile("Memory needed", format_bytes, chosen.device_bytes))
    chance = format_percent(chosen.probability)
    tiles.append(
        _tile_of("All limits hold", chance, f"asked: {format_percent(plan.budget.confidence)}")
    )
    if chosen.epochs < (chosen.target_epochs or 0) and chosen.target_probability is not None:
        wanted = format_number_of(chosen.target_epochs or 0, plan.unit)
        tiles.append(_tile_of(f"All {wanted}", format_percent(chosen.target_probability), "chance"))
    return section(
        f"{choice_line(plan)}.",
        paragraphs([limits_line(plan.budget)]),
        element("div", *tiles, class_="tiles"),
    )


def _estimate_answer(estimate: Estimate, is_example: bool) -> Markup:
    tiles = [_tile("Total time", format_seconds, estimate.total_seconds)]
    if estimate.cost is not None:
        tiles.append(_tile("Cost", format_money, estimate.cost))
    if estimate.device_bytes is not None:
        tiles.append(_tile("Memory needed", format_bytes, estimate.device_bytes))
    counted = (
        f"{estimate.epochs:,g} epochs"
        if estimate.steps is None
        else format_number_of(estimate.steps, "step")
    )
    example = ["Nobody has asked for a run yet: this is an example."] if is_example else []
    return section(
        f"{counted} with {estimate.config.label}.",
        paragraphs([*example, f"{epoch_line(estimate)}."]),
        element("div", *tiles, class_="tiles"),
        table(estimate_table(estimate), "What it is made of"),
        paragraphs([probing_line(estimate)]),
    )


def _tile(name: str, form: Callable[[float], str], q: Quantiles) -> Markup:
    low, high = form(q.p10), form(q.p90)
    within = f"{low} to {high} in eight cases of ten" if low != high else "as good as known"
    return _tile_of(name, form(q.p50), within)


def _tile_of(name: str, figure: str, below: str) -> Markup:
    parts = (("name", name), ("figure", figure), ("faint", below))
    return element(
        "div", *(element("div", text, class_=kind) for kind, text in parts), class_="tile"
    )


def _picture_of_the_plan(contents: Contents) -> Markup:
    plan, drawn = contents.plan, list[Markup]()
    if plan is not None:
        stops = any(moment.stop_probability for moment in plan.timeline[:-1])
        below = (
            f"Time over {plan.unit}s. The line is P50; the dark band holds eight runs of ten, the "
            "light one nine. Below it, when the model is evaluated and saved"
            f"{', and how likely a stop rule ends the run' if stops else ''}."
        )
        label = f"time over {plan.unit}s: {choice_line(plan)}"
        drawn.append(_figure(inline_svg(draw_plan(plan), label), below))
    if contents.events:
        svg = inline_svg(draw_run(contents.events), "the run beside its prediction")
        drawn.append(_figure(svg, "The run that follows it, beside what was predicted."))
    return section("The picture", *drawn)


def _figure(svg: str, caption: str) -> Markup:
    return element("figure", Markup(svg), element("figcaption", caption))


def _drawn(pictures: Iterable[Picture]) -> list[Markup]:
    return [
        _figure(inline_svg(p.draw(), p.name), f"{p.name[0].upper()}{p.name[1:]}. {p.caption}")
        for p in pictures
    ]


def _why(contents: Contents) -> Markup:
    plan = contents.plan
    if plan is None:
        return Markup()
    return section("Why so, and what to set", bullets([*reasons(plan), *stopping(plan)]))


def _alternatives(contents: Contents) -> Markup:
    plan = contents.plan
    if plan is None:
        return Markup()
    [moments] = timeline_tables(plan, WIDE)
    shown = moments.row_count
    options = (
        table(options_tables(plan, WIDE)[0], "Options; nothing beats those with * in all at once")
        if len(plan.options) > 1
        else ""
    )
    return section(
        "In numbers",
        table(totals_table(plan), "What the run takes"),
        options,
        table(moments, f"When what happens: {shown} of {len(moments_of(plan)):,} moments"),
    )


# -- what it rests on ------------------------------------------------------------------------------


def _measured(contents: Contents) -> Markup:
    if not contents.measurements:
        missing = f"Not in the store that this page was made with: {contents.missing}."
        return section("What was measured", paragraphs([missing]))
    drawn = _drawn(probed_pictures(contents.summaries, contents.predictions))
    good = [s for s in contents.summaries if s.status == "ok"]
    failures = [
        f"{s.config.label}: {STATUS[s.status]}: {s.message}"
        for s in contents.summaries
        if s.status != "ok"
    ]
    return section(
        "What was measured",
        paragraphs(_measured_lines(contents)),
        element("div", *drawn, class_="pictures"),
        table(columns(summary_cells(good)), "Configurations that were probed") if good else "",
        bullets(failures, class_="notes"),
    )


def _measured_lines(contents: Contents) -> Iterator[str]:
    trials = contents.measurements
    left_out = sum(m.status == "too-large" for m in trials)
    failed = sum(m.status != "ok" for m in trials) - left_out
    days = sorted({m.created_at[:10] for m in trials})
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    yield (
        f"{format_number_of(len(trials) - left_out, 'trial')} of "
        f"{format_number_of(len(contents.summaries) - left_out, 'configuration')} on "
        f"{contents.device.label}, {when}. {failed or 'None'} of them failed."
    )
    if left_out:
        what = format_number_of(left_out, "configuration")
        yield f"Left out, because the device has too little memory: {what}."
    if trials[0].target != contents.workload:
        yield f"What is called {contents.workload} is {trials[0].target}."
    if contents.plan is not None:
        yield f"Measuring took {format_seconds(contents.plan.probing_seconds)}."
    if contents.missing:
        yield f"No cost model: {contents.missing}."


def _earlier(contents: Contents) -> Markup:
    compared = contents.compared
    if not compared.runs:
        line = "No run has been followed yet: how right predictions are here was never seen."
        return section("How right earlier predictions were", paragraphs([line]))
    drawn = _drawn(followed_pictures(contents.outcomes))
    return section(
        "How right earlier predictions were",
        paragraphs(compared_lines(compared)),
        element("div", *drawn, class_="pictures"),
        table(runs_table(compared.runs, WIDE), "Runs that were followed"),
    )


def _assumed(contents: Contents) -> Markup:
    lines = [
        f"The run has the device to itself, and that runs as it did when it was probed: "
        f"{contents.device.label}.",
        *_assumed_of_plan(contents.plan),
    ]
    forms = plain_table()
    for heading in ("quantity", "chosen by what it foretold of measurements that were left out"):
        forms.add_column(heading)
    for row in contents.forms:
        forms.add_row(*row)
    chosen = table(forms, "The cost model") if contents.forms else ""
    notes = bullets(_notes(contents), class_="notes")
    return section("What is assumed", bullets(lines), notes, chosen)


def _assumed_of_plan(plan: Plan | None) -> Iterator[str]:
    if plan is None:
        return
    budget, prices = plan.budget, plan.prices
    yield f"An epoch has {plan.samples:,} samples, as probed or as asked for."
    if budget.price_per_hour is not None:
        yield f"An hour of one device costs {format_money(budget.price_per_hour)}."
    if budget.fixed_cost:
        yield f"{format_money(budget.fixed_cost)} is spent whatever the run does."
    if budget.watts is not None:
        yield f"One device draws {format_count(budget.watts, 'W')} while it trains."
    if budget.carbon_per_kwh is not None:
        yield f"A kWh emits {format_count(budget.carbon_per_kwh, 'g')} of CO₂."
    if plan.mtbf_seconds is not None:
        yield f"A failure comes every {format_seconds(plan.mtbf_seconds)} on average."
    else:
        yield "Nothing fails or is interrupted."
    yield (
        f"Single epochs scatter by {format_percent(prices.epoch_noise)} around the run's own mean."
    )
    if prices.calibration != 1.0:
        yield f"Followed runs have put a factor of {prices.calibration:.3g} into an epoch."


def _notes(contents: Contents) -> list[str]:
    given: list[Warning_] = list(contents.notes)
    given += contents.plan.warnings if contents.plan else ()
    given += (w for e in contents.estimates for w in e.warnings)
    return list(dict.fromkeys(f"{warning_text(w)}." for w in given))


# Elements; text is escaped: only what was made here, or drawn by us, is markup


class Markup(str):
    """HTML, ready to be part of a page."""

    __slots__ = ()


def element(name: str, *children: str, class_: str = "", **attributes: str) -> Markup:
    """An element; children that are no markup are text.

    Args:
        name: of the element.
        children: its content.
        class_: of the style sheet; empty for none.
        attributes: others.
    """
    given = {**({"class": class_} if class_ else {}), **attributes}
    written = "".join(f' {key}="{escape(printable(value))}"' for key, value in given.items())
    return Markup(f"<{name}{written}>{''.join(map(_as_markup, children))}</{name}>")


def section(title: str, *children: str) -> Markup:
    """A part of the page under a heading; nothing where there is nothing in it."""
    filled = [child for child in children if child]
    return element("section", element("h2", title), *filled) if filled else Markup()


def paragraphs(lines: Iterable[str]) -> Markup:
    """A paragraph for each line."""
    return Markup("".join(element("p", line) for line in lines))


def bullets(lines: Iterable[str], class_: str = "") -> Markup:
    """A list; nothing of no lines."""
    items = [element("li", line) for line in lines]
    return element("ul", *items, class_=class_) if items else Markup()


def table(found: Table, caption: str = "") -> Markup:
    """A table of the terminal's, on a page; it scrolls by itself where the window is narrow."""
    sides = ["number" if column.justify == "right" else "" for column in found.columns]
    head = [
        element("th", str(column.header), class_=side, scope="col")
        for column, side in zip(found.columns, sides, strict=True)
    ]
    body = [
        element(
            "tr", *(element("td", cell, class_=side) for cell, side in zip(row, sides, strict=True))
        )
        for row in _rows(found)
    ]
    parts = [element("thead", element("tr", *head)), element("tbody", *body)]
    title = [element("caption", caption)] if caption else []
    return element("div", element("table", *title, *parts), class_="wide", tabindex="0")


def _rows(found: Table) -> Iterator[tuple[str, ...]]:
    yield from zip(
        *([_text(cell) for cell in column.cells] for column in found.columns), strict=True
    )


def _text(cell: object) -> str:
    """What a terminal would show: of an enumeration's member, which is a string, its value."""
    return cell[:] if isinstance(cell, str) else str(cell)


def _as_markup(child: str) -> str:
    return child if isinstance(child, Markup) else escape(printable(child))
