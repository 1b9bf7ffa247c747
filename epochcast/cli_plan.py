"""``epochcast plan``: options to a budget and a request, the plan to terminal, JSON, file, picture.

Loaded by ``cli`` when the command is asked for; imports nothing but click until it runs.
"""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from epochcast import cli as shared
from epochcast.errors import UsageError

if TYPE_CHECKING:
    from epochcast.costmodel.model import CostModel
    from epochcast.planning.cadence import Cadence
    from epochcast.planning.stopping import Rule
    from epochcast.records import Budget, Plan, Warning_

ADAPTIVE = ("adam", "adamw", "adaptive", "rmsprop", "adagrad", "lamb")
STOP_SETTING = {  # the number that ``--stop KIND=NUMBER`` gives
    "gl": "percent",
    "pq": "quotient",
    "up": "rises",
    "target": "value",
    "divergence": "value",
    "futility": "probability",
}


class _Parsed(click.ParamType):  # type: ignore[type-arg]
    """Text read by one of the functions in ``units``."""

    def __init__(self, name: str, function: str) -> None:
        self.name, self.function = name, function

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        from epochcast import units

        if not isinstance(value, str):
            return float(value)
        try:
            return float(getattr(units, self.function)(value))
        except UsageError as error:
            self.fail(str(error), param, ctx)


class _IntOr(click.ParamType):  # type: ignore[type-arg]
    """A whole number, or one of some words."""

    def __init__(self, *words: str, several: bool = False) -> None:
        self.words, self.several = words, several
        self.name = "|".join(("N,N,…" if several else "N", *words))

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if value in self.words or not isinstance(value, str):
            return value
        if self.several:
            return shared.INT_LIST.convert(value, param, ctx)
        if not value.isdecimal():
            self.fail(f"expected a whole number or {', '.join(self.words)}, but got {value!r}")
        return int(value)


class _Stop(click.ParamType):  # type: ignore[type-arg]
    """``"gl=5"``."""

    name = "KIND=NUMBER"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, float]:
        if isinstance(value, tuple):
            return value
        kind, _, number = value.partition("=")
        try:
            known = STOP_SETTING[kind.strip()], float(number)
        except (KeyError, ValueError):
            self.fail(
                f"expected KIND=NUMBER with one of {', '.join(STOP_SETTING)}, but got {value!r}",
                param, ctx,
            )  # fmt: skip
        return kind.strip(), known[1]


@contextmanager
def _without_collecting() -> Iterator[None]:
    """What imports make lives until the end; looking for garbage in it is a tenth of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


MONEY, BYTES = _Parsed("AMOUNT", "parse_money"), _Parsed("SIZE", "parse_bytes")
ENERGY, SHARE = _Parsed("ENERGY", "parse_energy"), _Parsed("SHARE", "parse_share")
POSITIVE = click.IntRange(min=1)
MEASURED = click.FloatRange(min=0, min_open=True)


@click.command()
@click.argument("workload", required=False)
@click.option("--epochs", type=POSITIVE, help="Wanted, at the reference batch.")
@click.option("--min-epochs", type=POSITIVE, default=1, help="Fewer are not worth running.")
@click.option("--max-epochs", type=POSITIVE, help="Never more.")
@click.option("--deadline", metavar="DURATION|TIME", help="'8h', or '2026-12-01 08:00'.")
@click.option("--counted-from", type=click.Choice(["now", "start", "total"]), default="now",
              help="Now, the allocation's start, or in total over resumed runs.")  # fmt: skip
@click.option("--started", metavar="TIME", help="Of the allocation; default: what SLURM says.")
@click.option("--spent", type=shared.DURATION, help="By earlier runs, with --counted-from total.")
@click.option("--budget", "money", type=MONEY, help="Money, '$18'.")
@click.option("--price-per-hour", type=click.FloatRange(min=0), help="Of one device.")
@click.option("--fixed-cost", type=MONEY, default=0.0, help="Spent whatever the run does.")
@click.option("--energy", type=ENERGY, help="'0.25kWh'.")
@click.option("--watts", metavar="WATTS|measured", help="Of one device; measured: by probes.")
@click.option("--carbon", type=MEASURED, help="Grams of CO₂ equivalent per kWh.")
@click.option("--memory", type=BYTES, help="Of one device; default: what it has.")
@click.option("--disk", type=BYTES, help="For checkpoints.")
@click.option("--keep", type=click.IntRange(min=0), default=2, help="Checkpoints; 0: all.")
@click.option("--confidence", type=SHARE, default=0.9, help="That all limits hold; '90%'.")
@click.option("--batch-size", "batch_sizes", type=_IntOr("free", several=True),
              help="Samples of an optimizer step; several to choose from, or free.")  # fmt: skip
@click.option("--micro-batch", type=POSITIVE, help="Samples of one forward pass.")
@click.option("--devices", type=shared.INT_LIST, help="That share the work.")
@click.option("--bandwidth", type=BYTES, help="Between devices, a second.")
@click.option("--samples", metavar="N|FACTOR", help="60000, or 10x as many as probed.")
@click.option("--folds", type=POSITIVE, default=1, help="Of cross-validation.")
@shared._set_option
@click.option("--precision", type=click.Choice(["fp32", "bf16", "fp16"]), help="As probed.")
@click.option("--workers", type=click.IntRange(min=0), help="As probed.")
@click.option("--eval-every", type=_IntOr("auto", "rungs"), default=1, help="Epochs; 0: never.")
@click.option("--save-every", type=_IntOr("auto"), default="auto", help="Epochs; 0: none.")
@click.option("--mtbf", type=shared.DURATION, help="Mean time between failures.")
@click.option("--interruptions-per-hour", type=MEASURED, help="Of a spot instance.")
@click.option("--restart", type=shared.DURATION, help="After a failure; default: the start-up.")
@click.option("--patience", type=POSITIVE, help="Checks without improvement, then stop.")
@click.option("--min-delta", type=click.FloatRange(min=0), default=0.0, help="Improvement.")
@click.option("--metric", default="val_loss", show_default=True, help="That is watched.")
@click.option("--mode", type=click.Choice(["min", "max"]), default="min", help="Better is …")
@click.option("--stop", "stops", type=_Stop(), multiple=True,
              help="gl, pq, up, target, divergence, futility; repeatable.")  # fmt: skip
@click.option("--curve", "curves", type=click.Path(), multiple=True,
              help="Learning curve of a pilot: CSV, JSON Lines, event file.")  # fmt: skip
@click.option("--noise-scale", metavar="SAMPLES|measured",
              help="Of the gradient; measured: by `probe --noise-scale`.")  # fmt: skip
@click.option("--reference-batch", type=POSITIVE, help="At which epochs and rate are known.")
@click.option("--optimizer", type=click.Choice(["sgd", *ADAPTIVE]), help="For the rate.")
@click.option("--objective", type=click.Choice(["time", "money", "memory"]), default="time",
              help="What to save, at equal progress.")  # fmt: skip
@click.option("--seed", type=int, default=0, help="Of the draws.")
@click.option("--plot", type=click.Path(dir_okay=False), help="A picture: .png or .svg.")
@click.option("--output", "-o", type=click.Path(dir_okay=False), help="Write the plan as JSON.")
@click.option("--device", help="Kind, or part of the name, of the device probed.")
@click.option("--model", "model_file", type=click.Path(), help="A model written by `fit -o`.")
@shared._store_option
@shared._json_option
@_without_collecting()
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
    budget = _budget(options, now)
    model, notes = _model(workload, device, model_file, store)
    options["noise_scale"], more = _noise_scale(options, workload, device, store)
    notes += more
    found = _plan(model, budget, options, as_json)
    if output:
        found.save(output)
    if plot:
        from epochcast.plot_plan import save_picture

        save_picture(found, plot)
    _show(found, notes, as_json)


def _plan(model: CostModel, budget: Budget, options: dict[str, Any], as_json: bool) -> Plan:
    from epochcast.planning.planner import make_plan
    from epochcast.planning.request import OBJECTIVES, PlanRequest
    from epochcast.planning.shortfall import DoesNotFit

    names = (
        "epochs", "min_epochs", "max_epochs", "micro_batch", "bandwidth", "folds", "precision",
        "workers", "keep", "metric", "mode", "min_delta", "noise_scale", "reference_batch", "seed",
    )  # fmt: skip
    request = PlanRequest(
        batch_sizes=options["batch_sizes"] or (),
        devices=options["devices"] or (),
        samples=_samples(options["samples"], model.samples),
        sizes=_single_knobs(options["knobs"]),
        evaluate=_cadence(options["eval_every"]),
        save=options["save_every"],
        mtbf_seconds=_mtbf(options),
        restart_seconds=options["restart"],
        rules=_rules(options),
        curves=_curves(options),
        optimizer=_optimizer(options["optimizer"]),
        objective=OBJECTIVES[options["objective"]],
        **{name: options[name] for name in names},
    )
    try:
        return make_plan(model, budget, request)
    except DoesNotFit as error:
        if as_json:
            shared._print_json(shortfall=error.shortfall)
        raise


def _show(found: Plan, notes: Sequence[Warning_], as_json: bool) -> None:
    from epochcast import report

    report.print_warnings(shared._console(stderr=True), notes)
    if as_json:
        from epochcast.records import to_builtins

        click.echo(json.dumps(to_builtins(found), indent=2, allow_nan=False))
        return
    from epochcast.report_plan import print_plan

    print_plan(shared._console(), found)


def _model(
    workload: str | None, device: str | None, model_file: str | None, store: str | None
) -> tuple[CostModel, tuple[Warning_, ...]]:
    if model_file:
        from epochcast.costmodel.model import CostModel

        return CostModel.load(model_file), ()
    from epochcast.lookup import fitted_model

    with shared._reading(store) as archive:
        return fitted_model(archive, workload, device)


def _noise_scale(
    options: dict[str, Any], workload: str | None, device: str | None, store: str | None
) -> tuple[float | None, tuple[Warning_, ...]]:
    """Samples, as given or as measured."""
    text = options["noise_scale"]
    if text != "measured":
        return _number("--noise-scale", text), ()
    from epochcast.lookup import gradient_noise
    from epochcast.planning.batch import noise_scale

    with shared._reading(store) as archive:
        found, notes = gradient_noise(archive, workload, device, _single_knobs(options["knobs"]))
    return noise_scale(found), notes


def _watts(
    text: str | None, workload: str | None, device: str | None, store: str | None
) -> float | None:
    """Of one device, as given or as measured."""
    if text != "measured":
        return _number("--watts", text)
    from epochcast.lookup import measured_watts

    with shared._reading(store) as archive:
        return measured_watts(archive, workload, device)


def _number(option: str, text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        raise UsageError(f"{option} is a number or 'measured', but got {text!r}") from None


# -- options to records -------------------------------------------------------------------------


def _budget(options: dict[str, Any], now: datetime) -> Budget:
    from epochcast.records import Budget
    from epochcast.units import is_time, parse_deadline

    text, spent = options["deadline"], _spent(options, now)
    deadline = None if text is None else parse_deadline(text, now)
    if deadline is not None and is_time(text):
        deadline += spent  # a time is where it is, wherever durations count from
    try:
        return Budget(
            deadline=deadline,
            money=options["money"],
            energy=options["energy"],
            memory=options["memory"],
            disk=options["disk"],
            confidence=options["confidence"],
            price_per_hour=options["price_per_hour"],
            fixed_cost=options["fixed_cost"],
            watts=options["watts"],
            carbon_per_kwh=options["carbon"],
            spent_seconds=spent,
            counted_from=options["counted_from"],
        )
    except ValueError as error:
        raise UsageError(str(error)) from error


def _spent(options: dict[str, Any], now: datetime) -> float:
    """Seconds of the budget that are gone already."""
    if options["counted_from"] == "total":
        return options["spent"] or 0.0
    if options["spent"]:
        raise UsageError("--spent counts in total over resumed runs: add --counted-from total")
    if options["counted_from"] == "now":
        return 0.0
    return max(0.0, _since_start(options["started"], now))


def _since_start(started: str | None, now: datetime) -> float:
    from epochcast.units import parse_time

    if started is not None:
        return -parse_time(started, now)
    from_slurm = os.environ.get("SLURM_JOB_START_TIME", "")  # seconds since 1970
    if not from_slurm.isdecimal():
        raise UsageError(
            "--counted-from start needs the allocation's start: give --started '2026-12-01 08:00', "
            "or run inside a SLURM job"
        )
    return now.timestamp() - float(from_slurm)


def _samples(text: str | None, probed: int) -> int | None:
    """``"600000"``, or ``"10x"``: so many times what was probed."""
    if text is None:
        return None
    number, factor, rest = text.strip().lower().partition("x")
    try:
        samples = round(float(number) * (probed if factor else 1))
    except ValueError:
        samples = 0
    if samples < 1 or rest:
        raise UsageError(f"--samples is a number of samples or like '10x', but got {text!r}")
    return samples


def _single_knobs(pairs: Sequence[tuple[str, tuple[Any, ...]]]) -> dict[str, Any]:
    knobs = shared._knobs(pairs)
    for name, values in knobs.items():
        if len(values) > 1:
            raise UsageError(f"a plan is for one model: give one value of {name}, not {values}")
    return {name: values[0] for name, values in knobs.items()}


def _cadence(asked: Any) -> int | Cadence | Any:
    from epochcast.planning.cadence import Rungs

    return Rungs() if asked == "rungs" else asked


def _mtbf(options: dict[str, Any]) -> float | None:
    rate = options["interruptions_per_hour"]
    if rate is not None and options["mtbf"] is not None:
        raise UsageError("give --mtbf or --interruptions-per-hour, not both")
    mtbf: float | None = options["mtbf"]
    return mtbf if rate is None else 3600 / rate


def _rules(options: dict[str, Any]) -> tuple[Rule, ...]:
    from epochcast.planning.stopping import RULES, Patience

    mode, delta = options["mode"], options["min_delta"]
    rules: list[Any] = []
    if options["patience"]:
        rules.append(Patience(checks=options["patience"], min_delta=delta, mode=mode))
    for kind, number in options["stops"]:
        settings: dict[str, Any] = {STOP_SETTING[kind]: number}
        if kind == "futility":
            settings |= {"horizon": _horizon(options), "min_delta": delta}
        rules.append(RULES[kind](mode=mode, **settings))
    return tuple(rules)


def _horizon(options: dict[str, Any]) -> int:
    horizon = options["max_epochs"] or options["epochs"]
    if horizon is None:
        raise UsageError("--stop futility looks ahead to the run's last epoch: give --epochs")
    return int(horizon)


def _curves(options: dict[str, Any]) -> tuple[Any, ...]:
    if not options["curves"]:
        return ()
    from epochcast.curve_files import read_curve

    return tuple(read_curve(path, options["metric"]) for path in options["curves"])


def _optimizer(name: str | None) -> Any:
    return "adaptive" if name in ADAPTIVE else name
