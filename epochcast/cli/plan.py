"""``epochcast plan``: options to a budget and a request; the plan to terminal, JSON, file, plot."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from epochcast import units
from epochcast.cli.options import (
    DURATION,
    INT_LIST,
    Parsed,
    console,
    json_option,
    model_options,
    print_json,
    read_int_list,
    reading,
    require_same,
    set_option,
    store_option,
    without_collecting,
)
from epochcast.cli.plan_request import (
    STOP_SETTING,
    budget_of,
    plan_arguments,
    single_knobs,
)
from epochcast.errors import DoesNotFit, UsageError
from epochcast.planning.batch import OPTIMIZERS

if TYPE_CHECKING:
    from epochcast.costmodel.model import CostModel
    from epochcast.records import Budget, Plan, Warning_


def _int_or(*words: str, several: bool = False) -> Parsed:
    """A whole number, or one of some words."""

    def read(text: str) -> Any:
        if text in words:
            return text
        if several:
            return read_int_list(text)
        if not text.isdecimal():
            raise UsageError(f"expected a whole number or {', '.join(words)}, but got {text!r}")
        return int(text)

    return Parsed("|".join(("N,N,…" if several else "N", *words)), read)


def _read_stop(text: str) -> tuple[str, float]:
    """``"gl=5"``."""
    kind, _, number = text.partition("=")
    if kind.strip() in STOP_SETTING:
        with suppress(ValueError):
            return kind.strip(), float(number)
    raise UsageError(
        f"expected KIND=NUMBER with one of {', '.join(STOP_SETTING)}, but got {text!r}"
    )


def _read_bytes(text: str) -> float:
    return float(units.parse_bytes(text))  # limits of a budget are floating-point numbers


MONEY, BYTES = Parsed("AMOUNT", units.parse_money), Parsed("SIZE", _read_bytes)
ENERGY, SHARE = Parsed("ENERGY", units.parse_energy), Parsed("SHARE", units.parse_share)
STOP = Parsed("KIND=NUMBER", _read_stop)
POSITIVE = click.IntRange(min=1)
MEASURED = click.FloatRange(min=0, min_open=True)


@click.command()
@click.argument("workload", required=False)
@click.option("--epochs", type=POSITIVE,
              help="Wanted at the reference batch; the run ends there.")  # fmt: skip
@click.option("--min-epochs", type=POSITIVE,
              help="Fewer are not worth running; default: one of any batch.")  # fmt: skip
@click.option("--max-epochs", type=POSITIVE,
              help="Never more; above --epochs, what limits leave is used.")  # fmt: skip
@click.option("--deadline", metavar="DURATION|TIME", help="'8h', or '2026-12-01 08:00'.")
@click.option("--counted-from", type=click.Choice(["now", "start", "total"]), default="now",
              help="Now, the allocation's start, or in total over resumed runs.")  # fmt: skip
@click.option("--started", metavar="TIME",
              help="Of the allocation, past or to come; default: what SLURM says.")  # fmt: skip
@click.option("--spent", type=DURATION, help="By earlier runs, with --counted-from total.")
@click.option("--budget", "money", type=MONEY, help="Money, '$18'.")
@click.option("--price-per-hour", type=click.FloatRange(min=0), help="Of one device.")
@click.option("--fixed-cost", type=MONEY, default=0.0, help="Spent whatever the run does.")
@click.option("--energy", type=ENERGY, help="'0.25kWh'.")
@click.option("--watts", metavar="WATTS|measured", help="Of one device; measured: by probes.")
@click.option("--carbon", type=MEASURED, help="Grams of CO₂ per kWh; needs --watts.")
@click.option("--memory", type=BYTES, help="Of one device; default: what it has.")
@click.option("--disk", type=BYTES, help="For checkpoints.")
@click.option("--keep", type=click.IntRange(min=0), default=2, help="Checkpoints; 0: all.")
@click.option("--confidence", type=SHARE, default=0.9, help="That all limits hold; '90%'.")
@click.option("--batch-size", "batch_sizes", type=_int_or("free", several=True),
              help="Samples of an optimizer step; several to choose from, or free.")  # fmt: skip
@click.option("--micro-batch", type=POSITIVE, help="Samples of one forward pass.")
@click.option("--devices", type=INT_LIST, help="That share the work.")
@click.option("--bandwidth", type=BYTES, help="Between devices, a second.")
@click.option("--samples", metavar="N|FACTOR", help="60000, or 10x as many as probed.")
@click.option("--folds", type=POSITIVE, default=1, help="Of cross-validation.")
@set_option
@click.option("--precision", type=click.Choice(["fp32", "bf16", "fp16"]), help="As probed.")
@click.option("--workers", type=click.IntRange(min=0), help="As probed.")
@click.option("--eval-every", type=_int_or("auto", "rungs"), default=1, help="Epochs; 0: never.")
@click.option("--save-every", type=_int_or("auto"), default="auto", help="Epochs; 0: none.")
@click.option("--mtbf", type=DURATION, help="Mean time between failures.")
@click.option("--interruptions-per-hour", type=float, help="Of a spot instance.")
@click.option("--restart", type=DURATION, help="After a failure; default: the start-up.")
@click.option("--patience", type=POSITIVE, help="Checks without improvement, then stop.")
@click.option("--min-delta", type=click.FloatRange(min=0), default=0.0, help="Improvement.")
@click.option("--metric", default="val_loss", show_default=True, help="That is watched.")
@click.option("--mode", type=click.Choice(["min", "max"]),
              help="Better is …; default: what the metric's name tells.")  # fmt: skip
@click.option("--stop", "stops", type=STOP, multiple=True,
              help="gl, pq, up, target, divergence, futility; repeatable.")  # fmt: skip
@click.option("--curve", "curves", type=click.Path(), multiple=True,
              help="Learning curve of a pilot: CSV, JSON, event file.")  # fmt: skip
@click.option("--steps-per-epoch", type=POSITIVE, help="Of curves that count steps alone.")
@click.option("--noise-scale", metavar="SAMPLES|measured",
              help="Of the gradient; measured: by `probe --noise-scale`.")  # fmt: skip
@click.option("--reference-batch", type=POSITIVE, help="At which epochs and rate are known.")
@click.option("--optimizer", type=click.Choice(list(OPTIMIZERS)), help="For the rate.")
@click.option("--objective", type=click.Choice(["time", "money", "memory"]), default="time",
              help="What to save, at equal progress.")  # fmt: skip
@click.option("--seed", type=int, default=0, help="Of the draws.")
@click.option("--plot", type=click.Path(dir_okay=False), help="A picture: .png or .svg.")
@click.option("--output", "-o", type=click.Path(dir_okay=False), help="Write the plan as JSON.")
@model_options
@store_option
@json_option
@without_collecting()
def plan(
    workload: str | None, device: str | None, model_file: str | None, store: str | None,
    as_json: bool, plot: str | None, output: str | None, **options: Any,
) -> None:  # fmt: skip
    """Turn limits into what to run: configuration, epochs, and when to evaluate, save and stop.

    \b
    epochcast plan --epochs 90 --deadline 8h --price-per-hour 2.50 --budget '$18'
    epochcast plan --deadline '2026-12-01 08:00' --batch-size 256 --mtbf 12h --eval-every auto
    epochcast plan --epochs 200 --patience 5 --curve runs/pilot.csv --json > plan.json

    Exit code 3 when nothing fits, with the nearest thing that would.
    """
    now = datetime.now()
    options["watts"] = _watts(options["watts"], workload, device, store)
    budget = budget_of(options, now)
    model, notes = _model(workload, device, model_file, store)
    options["noise_scale"], more = _noise_scale(options, workload, device, store)
    notes += more
    found = _planned(model, budget, options, as_json)
    notes += _unused(found, options)
    if output:
        found.save(output)
    if plot:
        from epochcast.report.plots.pictures import save_picture
        from epochcast.report.plots.plan import draw

        save_picture(draw(found), plot)
    _show(found, notes, as_json)


def _planned(model: CostModel, budget: Budget, options: dict[str, Any], as_json: bool) -> Plan:
    from epochcast.planning.planner import plan

    try:
        return plan(model, budget, **plan_arguments(options, model.samples))
    except DoesNotFit as error:
        if as_json:
            print_json(shortfall=error.shortfall)
        raise


def _show(found: Plan, notes: Sequence[Warning_], as_json: bool) -> None:
    from epochcast.report.text.warnings import print_warnings

    print_warnings(console(stderr=True), notes)
    if as_json:
        from epochcast.records import to_json

        click.echo(to_json(found, indent=2).encode())
        return
    from epochcast.report.text.plan import print_plan

    print_plan(console(), found)


def _unused(found: Plan, options: dict[str, Any]) -> tuple[Warning_, ...]:
    """That no curve reaches far enough for --min-delta to matter, and no rule waits for it."""
    from epochcast.records import Warning_

    waiting = any("min_delta" in dict(rule.settings) for rule in found.stop_rules)
    if not options["min_delta"] or waiting or found.outlook is not None:
        return ()
    return (Warning_(code="unused-min-delta"),)


def _model(
    workload: str | None, device: str | None, model_file: str | None, store: str | None
) -> tuple[CostModel, tuple[Warning_, ...]]:
    if model_file:
        from epochcast.costmodel.model import CostModel

        model = CostModel.load(model_file)
        require_same(model, model_file, workload, device)
        return model, ()
    from epochcast.storage.query import fitted_model

    with reading(store) as archive:
        return fitted_model(archive, workload, device)


def _noise_scale(
    options: dict[str, Any], workload: str | None, device: str | None, store: str | None
) -> tuple[float | None, tuple[Warning_, ...]]:
    """Samples, as given or as measured."""
    text = options["noise_scale"]
    if text != "measured":
        return _number("--noise-scale", text), ()
    from epochcast.planning.batch import noise_scale
    from epochcast.storage.query import gradient_noise

    with reading(store) as archive:
        found, notes = gradient_noise(archive, workload, device, single_knobs(options["knobs"]))
    return noise_scale(found), notes


def _watts(
    text: str | None, workload: str | None, device: str | None, store: str | None
) -> float | None:
    """Of one device, as given or as measured."""
    if text != "measured":
        return _number("--watts", text)
    from epochcast.storage.query import measured_watts

    with reading(store) as archive:
        return measured_watts(archive, workload, device)


def _number(option: str, text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        raise UsageError(f"{option} is a number or 'measured', but got {text!r}") from None
