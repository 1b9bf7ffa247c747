"""The options of ``epochcast plan``: to the budget, and to the arguments of ``ec.plan``."""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import datetime
from math import inf
from typing import TYPE_CHECKING, Any, Literal

from epochcast.cli.options import single_knobs
from epochcast.errors import UsageError

if TYPE_CHECKING:
    from epochcast.planning.stopping import Rule
    from epochcast.records import Budget
    from epochcast.records.plan import CountedFrom

STOP_SETTING = {  # the number that ``--stop RULE=NUMBER`` gives
    "patience": "checks",
    "gl": "percent",
    "pq": "quotient",
    "up": "rises",
    "target": "value",
    "divergence": "value",
    "futility": "probability",
}


def budget_of(options: dict[str, Any], now: datetime) -> Budget:
    """The limits given; durations and dates count from ``now``.

    Raises:
        UsageError: a limit is out of its range, the deadline lies before the allocation's start, or
            that start is not known.
    """
    from epochcast.records import Budget
    from epochcast.units import is_time, parse_deadline

    text, spent = options["deadline"], _spent(options["counted_from"], now)
    deadline = None if text is None else parse_deadline(text, now)
    moment = None
    if deadline is not None and is_time(text):
        moment = now.timestamp() + deadline
        deadline += spent  # a time is where it is, wherever durations count from
        if deadline <= 0:
            raise UsageError(f"the deadline {text!r} lies before the allocation's start")
    try:
        return Budget(
            deadline=deadline,
            deadline_at=moment,
            money=options["money"],
            energy=options["energy"],
            memory=options["memory"],
            disk=options["disk"],
            confidence=options["confidence"],
            price_per_hour=options["price_per_hour"],
            fixed_cost=options["fixed_cost"],
            watts=options["watts"],
            watts_spread=options["watts_spread"],
            carbon_per_kwh=options["carbon_per_kwh"],
            spent_seconds=max(0.0, spent),
            counted_from=options["counted_from"][0],
        )
    except ValueError as error:
        raise UsageError(str(error)) from error


def epochs_of(options: dict[str, Any]) -> int | None:
    """The epochs wanted; None for as many as the limits allow, or for steps.

    Raises:
        UsageError: nobody said how many, in epochs or in steps.
    """
    epochs: int | Literal["max"] | None = options["epochs"]
    others = [options[name] for name in ("max_epochs", "steps", "min_steps")]
    if epochs is None and all(other is None for other in others):
        raise UsageError(
            "how many epochs are wanted? give --epochs, e.g. --epochs 90; as many as the limits "
            "allow are --epochs max"
        )
    if not isinstance(epochs, str):
        return epochs
    if options["steps"] is not None:
        raise UsageError("a plan counts epochs or steps: leave --epochs out, or --steps")
    return None


def read_counting(text: str) -> tuple[CountedFrom, str | float | None]:
    """``"now"``, ``"start"``, ``"start=2026-12-01 08:00"``, ``"total"`` or ``"total=3h"``.

    Raises:
        UsageError: the text has none of these forms, or what follows ``total=`` is no duration.
    """
    from epochcast.units import parse_seconds

    kind, given, rest = text.partition("=")
    if kind == "start":
        return "start", rest.strip() if given else None
    if kind == "total":
        return "total", parse_seconds(rest) if given else 0.0
    if text == "now":
        return "now", None
    raise UsageError(
        "expected now, start, start=TIME, total or total=DURATION, like 'start=2026-12-01 08:00' "
        f"or total=3h, but got {text!r}"
    )


def _spent(counting: tuple[CountedFrom, str | float | None], now: datetime) -> float:
    """Seconds of the budget that are gone already; negative where it begins later."""
    kind, detail = counting
    if kind != "start":
        return float(detail or 0.0)
    if detail is not None:
        from epochcast.units import parse_time

        return -parse_time(str(detail), now)
    from epochcast.guard.limits import Allocation

    began = Allocation.from_environment(os.environ).start
    if began is None:
        raise UsageError(
            "--counted-from start needs the allocation's start: give it, --counted-from "
            "'start=2026-12-01 08:00', or run inside a job of SLURM or Cobalt"
        )
    return now.timestamp() - began


def read_mtbf(text: str) -> float:
    """Seconds between failures: ``"12h"``, or ``"0.5/h"`` of them an hour.

    Raises:
        UsageError: the rate is no number, not above 0 or infinite, or the duration is none.
    """
    from epochcast.units import parse_seconds

    number, rate, _ = text.replace(" ", "").partition("/h")
    if not rate:
        return parse_seconds(text)
    with suppress(ValueError):
        if 0 < float(number) < inf:
            return 3600 / float(number)
    raise UsageError(
        f"a rate of interruptions is above 0 and finite, like '0.5/h', but got {text!r}; leave it "
        "out for a run that never fails"
    )


def read_stop(text: str) -> tuple[str, float]:
    """``"patience=5"``.

    Raises:
        UsageError: there is no such rule, or no number follows it.
    """
    kind, _, number = text.partition("=")
    if kind.strip() in STOP_SETTING:
        with suppress(ValueError):
            return kind.strip(), float(number)
    raise UsageError(
        f"expected RULE=NUMBER with one of {', '.join(STOP_SETTING)}, but got {text!r}"
    )


NAMED_ALIKE = (  # options that ``ec.plan`` takes as they are
    "epochs",
    "min_epochs",
    "max_epochs",
    "steps",
    "min_steps",
    "micro_batch",
    "bandwidth",
    "folds",
    "precision",
    "workers",
    "keep",
    "metric",
    "mode",
    "min_delta",
    "noise_scale",
    "reference_batch",
    "seed",
    "batch_sizes",
    "devices",
    "devices_per_node",
    "optimizer",
    "objective",
    "evaluate",
    "save",
    "mtbf_seconds",
    "restart_seconds",
    "spot_price_per_hour",
    "spot_mtbf_seconds",
    "powers",
)


def plan_arguments(options: dict[str, Any], probed: int) -> dict[str, Any]:
    """What to plan for; ``probed`` is the number of samples that the cost model knows."""
    return {name: options[name] for name in NAMED_ALIKE} | {
        "samples": _samples(options["samples"], probed),
        "sizes": single_knobs(options["knobs"]),
        "rules": _rules(options),
        "curves": _curves(options),
    }


def _samples(text: str | None, probed: int) -> int | None:
    """``"600000"``, or ``"10x"``: so many times what was probed."""
    if text is None:
        return None
    number, factor, rest = text.strip().lower().partition("x")
    try:
        samples = round(float(number) * (probed if factor else 1))
    except (ValueError, OverflowError):  # no number, or an infinite one
        samples = 0
    if samples < 1 or rest:
        raise UsageError(f"--samples is a number of samples or like '10x', but got {text!r}")
    return samples


def _rules(options: dict[str, Any]) -> tuple[Rule, ...]:
    from epochcast.planning.direction import mode_of
    from epochcast.planning.stopping import RULES, Futility, Patience

    mode, delta = options["mode"] or mode_of(options["metric"]), options["min_delta"]
    rules = []
    for kind, number in options["stops"]:
        settings: dict[str, Any] = {STOP_SETTING[kind]: number, "mode": mode}
        if RULES[kind] in (Patience, Futility):
            settings["min_delta"] = delta
        rules.append(RULES[kind](**settings))
    return tuple(rules)


def _curves(options: dict[str, Any]) -> tuple[Any, ...]:
    if not options["curves"]:
        if options["steps_per_epoch"]:
            raise UsageError(
                "--steps-per-epoch reads learning curves that count steps: add --curve"
            )
        return ()
    from epochcast.importers.curves import counts_steps, read_curve

    steps, metric = options["steps_per_epoch"], options["metric"]
    if options["steps"] is not None or options["min_steps"] is not None:
        return tuple(read_curve(path, metric, steps, "step") for path in options["curves"])
    found = tuple(read_curve(path, metric, steps) for path in options["curves"])
    if steps is not None and not any(counts_steps(path, metric) for path in options["curves"]):
        raise UsageError(
            "--steps-per-epoch reads learning curves that count steps alone, and "
            f"{', '.join(options['curves'])} has epochs, or a line for each: leave it out"
        )
    return found
