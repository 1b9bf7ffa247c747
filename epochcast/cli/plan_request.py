"""The options of ``epochcast plan`` to records: the budget, and what to plan for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from epochcast.cli.options import knobs_by_name
from epochcast.errors import UsageError

if TYPE_CHECKING:
    from epochcast.planning.stopping import Rule
    from epochcast.records import Budget

STOP_SETTING = {  # the number that ``--stop KIND=NUMBER`` gives
    "gl": "percent",
    "pq": "quotient",
    "up": "rises",
    "target": "value",
    "divergence": "value",
    "futility": "probability",
}


def budget_of(options: dict[str, Any], now: datetime) -> Budget:
    """The limits given; durations and dates count from ``now``."""
    from epochcast.records import Budget
    from epochcast.units import is_time, parse_deadline

    text, spent = options["deadline"], _spent(options, now)
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
            carbon_per_kwh=options["carbon"],
            spent_seconds=max(0.0, spent),
            counted_from=options["counted_from"],
        )
    except ValueError as error:
        raise UsageError(str(error)) from error


def _spent(options: dict[str, Any], now: datetime) -> float:
    """Seconds of the budget that are gone already; negative where it begins later."""
    if options["started"] and options["counted_from"] != "start":
        raise UsageError("--started is the allocation's start: add --counted-from start")
    if options["counted_from"] == "total":
        return options["spent"] or 0.0
    if options["spent"]:
        raise UsageError("--spent counts in total over resumed runs: add --counted-from total")
    if options["counted_from"] == "now":
        return 0.0
    return _since_start(options["started"], now)


def _since_start(started: str | None, now: datetime) -> float:
    from epochcast.guard.limits import Allocation
    from epochcast.units import parse_time

    if started is not None:
        return -parse_time(started, now)
    began = Allocation.from_environment(os.environ).start
    if began is None:
        raise UsageError(
            "--counted-from start needs the allocation's start: give --started '2026-12-01 08:00', "
            "or run inside a SLURM job"
        )
    return now.timestamp() - began


def plan_arguments(options: dict[str, Any], probed: int) -> dict[str, Any]:
    """What to plan for; ``probed`` is the number of samples that the cost model knows."""
    names = (
        "epochs", "min_epochs", "max_epochs", "micro_batch", "bandwidth", "folds", "precision",
        "workers", "keep", "metric", "mode", "min_delta", "noise_scale", "reference_batch", "seed",
        "batch_sizes", "devices", "optimizer", "objective",
    )  # fmt: skip
    return dict(
        samples=_samples(options["samples"], probed),
        sizes=single_knobs(options["knobs"]),
        evaluate=options["eval_every"],
        save=options["save_every"],
        mtbf_seconds=_mtbf(options),
        restart_seconds=options["restart"],
        rules=_rules(options),
        curves=_curves(options),
        **{name: options[name] for name in names},
    )


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


def single_knobs(pairs: Sequence[tuple[str, tuple[Any, ...]]]) -> dict[str, Any]:
    """The value that ``--set`` gave each knob."""
    knobs = knobs_by_name(pairs)
    for name, values in knobs.items():
        if len(values) > 1:
            raise UsageError(f"a plan is for one model: give one value of {name}, not {values}")
    return {name: values[0] for name, values in knobs.items()}


def _mtbf(options: dict[str, Any]) -> float | None:
    rate = options["interruptions_per_hour"]
    if rate is not None and options["mtbf"] is not None:
        raise UsageError("give --mtbf or --interruptions-per-hour, not both")
    mtbf: float | None = options["mtbf"]
    if rate is None:
        return mtbf
    from epochcast.planning.request import SHORTEST_MTBF
    from epochcast.units import LONGEST_SECONDS

    if not 3600 / LONGEST_SECONDS <= rate <= 3600 / SHORTEST_MTBF:  # nor NaN
        raise UsageError(
            "--interruptions-per-hour must be above 0, and the time from one to the next must lie "
            f"between 1 ms and 3,000 years, but got {rate:g}; leave it out for a run that never "
            "fails"
        )
    return float(3600 / rate)


def _rules(options: dict[str, Any]) -> tuple[Rule, ...]:
    from epochcast.planning.request import mode_of
    from epochcast.planning.stopping import RULES, Patience

    mode, delta = options["mode"] or mode_of(options["metric"]), options["min_delta"]
    rules: list[Any] = []
    if options["patience"]:
        rules.append(Patience(checks=options["patience"], min_delta=delta, mode=mode))
    for kind, number in options["stops"]:
        settings: dict[str, Any] = {STOP_SETTING[kind]: number}
        if kind == "futility":
            settings["min_delta"] = delta
        rules.append(RULES[kind](mode=mode, **settings))
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
    found = tuple(read_curve(path, metric, steps) for path in options["curves"])
    if steps is not None and not any(counts_steps(path, metric) for path in options["curves"]):
        raise UsageError(
            "--steps-per-epoch reads learning curves that count steps alone, and "
            f"{', '.join(options['curves'])} has epochs, or a line for each: leave it out"
        )
    return found
