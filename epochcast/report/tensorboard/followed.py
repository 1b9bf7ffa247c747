"""A followed run as TensorBoard has it: which scalars at which step, and the charts over them.

step    the epoch; for an epoch that was cut, the one that it would have been
charts  Custom Scalars ─┬─ an epoch: actual seconds within the predicted P10–P90
                        ├─ the whole run: expected P10–P90, spent, and the deadline
                        └─ money; reported values
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from epochcast.records import EpochDone, LimitName, Notice, Quantiles, RunStarted
from epochcast.report.tensorboard import events
from epochcast.report.tensorboard.events import Entry
from epochcast.report.text.following import notice_text

# Groups of cards, with the unit.
ACTUAL, PREDICTED = "epoch seconds/actual", "epoch seconds/predicted"
EXPECTED, SPENT, DEADLINE = "run seconds/expected", "run seconds/spent", "run seconds/deadline"
MONEY, ENERGY, PLAN, VALUES = "run money", "run joules", "plan", "reported"
Limits = Mapping[LimitName, float]


def layout_entry(start: RunStarted) -> Entry:
    """The charts of the Custom Scalars tab."""
    limits = dict(start.limits)
    run = [_band(EXPECTED), (SPENT, SPENT, SPENT)]
    run += [(DEADLINE, DEADLINE, DEADLINE)] if "deadline" in limits else []
    epoch = (ACTUAL, *_band(PREDICTED)[1:])
    charts = [
        events.margin_chart("an epoch: actual seconds, and predicted P10–P90", [epoch]),
        events.margin_chart("the whole run: seconds expected, spent and allowed", run),
        events.line_chart("reported values", f"{VALUES}/.*"),
    ]
    if "money" in limits:
        charts.append(events.line_chart("the whole run: money", f"{MONEY}/.*"))
    return events.layout("predicted and actual", charts)


def _band(tag: str) -> tuple[str, str, str]:
    """Tags of the middle, the lower and the upper end."""
    return f"{tag} P50", f"{tag} P10", f"{tag} P90"


def epoch_entries(event: EpochDone, limits: Limits) -> Iterator[Entry]:
    """The points of one epoch."""
    step = step_of(event)
    for tag, (value, description) in _scalars(event, limits).items():
        if value is not None:
            yield events.scalar(tag, value, step, description)


def step_of(event: EpochDone | Notice) -> int:
    """The epoch that was going on, or has just ended."""
    return event.position.epoch + (event.position.step > 0)


def _scalars(event: EpochDone, limits: Limits) -> dict[str, tuple[float | None, str]]:
    """Values and descriptions by tag; of an epoch that was cut no time of a whole one."""
    whole: dict[str, tuple[float | None, str]] = {}
    if not event.position.step:
        whole[ACTUAL] = (event.seconds, "What the epoch took, without evaluation and save.")
        whole |= _quantiles(PREDICTED, event.predicted, "What it was to take.")
    return {
        **whole,
        **_quantiles(EXPECTED, event.projected_seconds, "What the whole run will take."),
        SPENT: (event.spent_seconds, "Since the run began."),
        DEADLINE: (limits.get("deadline"), "What the run may take."),
        f"{MONEY}/spent": (event.spent_money, "Since the run began."),
        f"{MONEY}/expected": (event.projected_money, "Of the whole run, P50."),
        f"{MONEY}/limit": (limits.get("money"), "What the run may cost."),
        f"{ENERGY}/spent": (event.spent_joules, "Since the run began."),
        f"{ENERGY}/limit": (limits.get("energy"), "What the run may use."),
        f"{PLAN}/ratio": (event.ratio, "Of the run's epochs, actual over planned."),
        f"{PLAN}/on plan (%)": (100 * event.on_plan_probability, "That all limits hold."),
        f"{PLAN}/end (epoch)": (event.end_epochs, "After which the run is to end."),
        **{f"{VALUES}/{name}": (value, "As reported.") for name, value in event.values},
    }


def _quantiles(tag: str, q: Quantiles, text: str) -> dict[str, tuple[float | None, str]]:
    return {
        name: (value, text) for name, value in zip(_band(tag), (q.p50, q.p10, q.p90), strict=True)
    }


def notice_entry(event: Notice) -> Entry:
    """What happened, in words."""
    return events.text("notes", notice_text(event), step_of(event))
