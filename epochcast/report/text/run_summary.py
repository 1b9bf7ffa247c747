"""A followed run in words: why it stopped, what was predicted and what it took.

Stopped after epoch 48 of 50: more might not have fitted the deadline.
Time 59m 08s of 1h 00m; money $2.46 of $3.00; planned for 57 epochs: 53.6–56.9 min.
An epoch took 56.1 s (median of 47); predicted: 53.4–56.7 s.
…
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from statistics import median

from epochcast.guard.log import (
    ending,
    first_start,
    last_run,
    lasting_epochs,
    steady_seconds,
)
from epochcast.records import (
    EpochDone,
    LimitName,
    Notice,
    Quantiles,
    RunEnded,
    RunEvent,
    RunStarted,
    StopReason,
)
from epochcast.report.text.plan import LIMIT_FORMS
from epochcast.units import format_seconds, format_span

REASONS = {
    StopReason.TARGET: "{metric} has reached the target",
    StopReason.NON_FINITE: "{metric} is not a finite number",
    StopReason.DIVERGED: "{metric} is worse than the plan tolerates",
    StopReason.PATIENCE: "{metric} has stopped improving",
    StopReason.FUTILE: "{metric} is unlikely to improve by the end of the plan",
    StopReason.BUDGET: "more might not have fitted {limit}",
    StopReason.PLAN_DONE: "all planned epochs are done",
    StopReason.SIGNAL: "it was told to{by}",
    None: "the training loop was left before the plan's end",
}
LIMITS = {
    "deadline": "the deadline",
    "money": "the money",
    "energy": "the energy",
    "disk": "the disk",
    "memory": "the memory",
    None: "the limits",
}
SPENT = {"deadline": "Time", "money": "money", "energy": "energy"}


def summary_lines(events: Sequence[RunEvent]) -> list[str]:
    """The last run of a log, finished or not, in a few sentences; a line each."""
    run = last_run(events)
    if not run:
        return ["Nothing has happened yet."]
    return [_state_line(run), _spent_line(run), *_part_lines(run), *_result_lines(run)]


def ended_line(event: RunEnded, metric: str = "the metric", signal: str = "") -> str:
    """Why a process stopped: ``"Stopped after epoch 48 of 50: …"``."""
    by = f" by {signal}" if signal else ""
    limit = LIMITS[event.limit]
    why = REASONS[event.reason].format(metric=metric, limit=limit, by=by)
    return f"Stopped after {place(event)}: {why}."


def place(event: EpochDone | RunEnded) -> str:
    """``"epoch 11 of 57 and 37 steps of the next"``."""
    steps = event.position.step
    more = f" and {steps:,} step{'s' * (steps != 1)} of the next" if steps else ""
    return f"epoch {event.position.epoch:,} of {event.end_epochs:,}{more}"


def _state_line(run: Sequence[RunEvent]) -> str:
    end, start = ending(run), first_start(run)
    if end is not None:
        return ended_line(end, start.metric if start else "the metric", _signal(run))
    epochs = lasting_epochs(run)
    at = f"after {place(epochs[-1])}" if epochs else "in its first epoch"
    heard = datetime.fromtimestamp(run[-1].wall_time).astimezone()
    return f"Running, or killed: {at}; last heard of at {heard:%Y-%m-%d %H:%M:%S %Z}."


def _signal(run: Sequence[RunEvent]) -> str:
    told = [e.notice for e in run if isinstance(e, Notice) and e.notice.code == "signal"]
    return dict(told[-1].details).get("name", "") if told else ""


def _spent_line(run: Sequence[RunEvent]) -> str:
    """What was used of each limit, and what was planned."""
    start, used = first_start(run), _used(run)
    limits = dict(start.limits) if start else {}
    texts = [
        f"{SPENT[name]} {LIMIT_FORMS[name](amount)}"
        + (f" of {LIMIT_FORMS[name](limits[name])}" if name in limits else "")
        for name, amount in used.items()
    ]
    if start and start.planned_seconds:
        planned = span(start.planned_seconds)
        texts.append(f"planned for {start.end_epochs:,} epochs: {planned}")
    return f"{'; '.join(texts)}."


def _used(run: Sequence[RunEvent]) -> dict[LimitName, float]:
    """What was spent by the last event that says, by limit."""
    used: dict[LimitName, float] = {}
    for event in run:
        if not isinstance(event, Notice):
            used["deadline"] = event.spent_seconds
        if isinstance(event, EpochDone | RunEnded):
            money, joules = event.spent_money, event.spent_joules
            used |= {} if money is None else {"money": money}
            used |= {} if joules is None else {"energy": joules}
    return used


def span(quantiles: Quantiles) -> str:
    """``"54.1–57.2 s"``: P10 to P90."""
    return format_span(quantiles.p10, quantiles.p90)


def _part_lines(run: Sequence[RunEvent]) -> Iterator[str]:
    """What the parts took, and what was predicted of them."""
    start = first_start(run)
    if start is None:
        return
    prices = start.predicted
    done = [e for e in run if isinstance(e, EpochDone)]
    evaluations = [e.evaluation_seconds for e in done if e.evaluation_seconds is not None]
    saves = [e.save_seconds for e in done if e.save_seconds is not None]
    yield from _part_line("An epoch", steady_seconds(run), prices.epoch)
    yield from _part_line("An evaluation", evaluations, prices.evaluation)
    yield from _part_line("A save", saves, prices.save)


def _part_line(name: str, seconds: Sequence[float], predicted: Quantiles) -> Iterator[str]:
    if not seconds:
        return
    middle = f" (median of {len(seconds):,})" if len(seconds) > 1 else ""
    said = f"; predicted: {span(predicted)}" if predicted.p90 else ""
    yield f"{name} took {format_seconds(median(seconds))}{middle}{said}."


def _result_lines(run: Sequence[RunEvent]) -> Iterator[str]:
    start, end = first_start(run), ending(run)
    yield _best_line(run, start.metric if start else "")
    if end is not None:
        named = {"last": end.last_checkpoint, "best": end.best_checkpoint}
        found = [f"{which} {name}" for which, name in named.items() if name]
        yield f"Checkpoints: {', '.join(found)}." if found else "No checkpoint was written."
    processes = max((e.process for e in run if isinstance(e, RunStarted)), default=1)
    lost = sum(isinstance(e, EpochDone) for e in run) - len(lasting_epochs(run))
    if processes > 1:
        again = f"; {lost:,} epoch{'s' * (lost != 1)} had to be trained again" if lost else ""
        yield f"It took {processes} processes{again}."


def _best_line(run: Sequence[RunEvent], metric: str) -> str:
    """The best value, as the end tells it, or as the epochs do."""
    end = ending(run)
    best = [e for e in lasting_epochs(run) if e.best]
    if end is not None and end.best_value is not None and end.best_epoch is not None:
        return f"Best {metric}: {end.best_value:.4g}, after epoch {end.best_epoch:,}."
    if best and metric in dict(best[-1].values):
        value = dict(best[-1].values)[metric]
        return f"Best {metric}: {value:.4g}, after epoch {best[-1].position.epoch:,}."
    return f"No value of {metric or 'the metric'} was reported."
