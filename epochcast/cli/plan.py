"""``epochcast plan``: options to a budget and a question; the plan to terminal, file, plot."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from epochcast import units
from epochcast.cli.by_device import (
    PRICE,
    Price,
    is_several,
    only_price,
    price_on,
    require_one_device,
    show_by_device,
)
from epochcast.cli.model_source import ModelSource
from epochcast.cli.options import (
    AMOUNT,
    COUNT,
    DEADLINE,
    DURATION,
    INT_LIST,
    MOST_DIGITS,
    POSITIVE,
    POSITIVE_AMOUNT,
    PRICE_OF_ONE,
    Grouped,
    Parsed,
    console,
    gpus_per_node_option,
    json_option,
    model_options,
    on_option,
    plot_option,
    print_json,
    read_int_list,
    reading,
    set_option,
    single_knobs,
    store_option,
    without_collecting,
    workload_argument,
)
from epochcast.cli.plan_request import (
    budget_of,
    epochs_of,
    plan_arguments,
    read_counting,
    read_mtbf,
    read_stop,
)
from epochcast.cli.power import power_asked, watts_option
from epochcast.errors import DoesNotFit, UsageError
from epochcast.planning.batch import OPTIMIZERS

if TYPE_CHECKING:
    from epochcast.costmodel.model import CostModel
    from epochcast.costmodel.side_by_side import Side
    from epochcast.records import Budget, Device, Plan, Warning_

GROUPS: Mapping[str, tuple[str, ...]] = {  # of the help: heading, and the parameters below it
    "Question": (
        "epochs",
        "min_epochs",
        "max_epochs",
        "steps",
        "min_steps",
        "samples",
        "folds",
        "knobs",
        "precision",
        "workers",
        "objective",
    ),
    "Limits (default: none)": (
        "deadline",
        "counted_from",
        "money",
        "price_per_hour",
        "fixed_cost",
        "energy",
        "watts",
        "carbon_per_kwh",
        "memory",
        "disk",
        "confidence",
    ),
    "Batch and devices": (
        "batch_sizes",
        "micro_batch",
        "devices",
        "devices_per_node",
        "bandwidth",
        "noise_scale",
        "reference_batch",
        "optimizer",
    ),
    "Evaluation and stopping": (
        "evaluate",
        "stops",
        "metric",
        "mode",
        "min_delta",
        "curves",
        "steps_per_epoch",
    ),
    "Saving and failures": (
        "save",
        "keep",
        "mtbf_seconds",
        "restart_seconds",
        "spot_price_per_hour",
        "spot_mtbf_seconds",
    ),
    "Cost model": ("store", "device", "model_file", "on", "seed"),
    "Output": ("output", "emit", "plot", "as_json", "help"),
}


def _int_or(*words: str, several: bool = False) -> Parsed:
    """A whole number, or one of some words."""

    def read(text: str) -> Any:
        if text in words:
            return text
        if several:
            return read_int_list(text)
        if not text.isdecimal() or len(text) > MOST_DIGITS:
            raise UsageError(
                f"expected a whole number or {', '.join(words)}, but got {text[:SHOWN]!r}"
            )
        return int(text)

    return Parsed("|".join(("N,N,…" if several else "N", *words)), read)


def _read_epochs(text: str) -> Any:
    if "." in text and text.replace(".", "", 1).isdecimal():
        raise UsageError(
            f"a plan has whole epochs, but got {text!r}: to end within one, count optimizer steps, "
            "--steps N"
        )
    return _int_or("max").read(text)


def _read_bytes(text: str) -> float:
    return float(units.parse_bytes(text))  # limits of a budget are floating-point numbers


SHOWN = 60  # of a text in an error
MONEY, BYTES = Parsed("AMOUNT", units.parse_money), Parsed("SIZE", _read_bytes)
ENERGY, SHARE = Parsed("ENERGY", units.parse_energy), Parsed("SHARE", units.parse_share)
STOP = Parsed("RULE=NUMBER", read_stop)
MTBF = Parsed("DURATION|RATE", read_mtbf)
COUNTING = Parsed("now|start[=TIME]|total[=DURATION]", read_counting)


@click.command(
    cls=Grouped,
    groups=GROUPS,
    short_help="Turn limits into what to run, and when what happens.",
)
@workload_argument(required=False)
@click.option(
    "--epochs",
    type=Parsed("N|max", _read_epochs),
    metavar="N|max",
    help="Train for so many epochs of the reference batch, or for as many as the limits allow.",
)
@click.option(
    "--min-epochs", type=POSITIVE, help="Do not run for fewer epochs. Default: one epoch."
)
@click.option(
    "--max-epochs",
    type=POSITIVE,
    help="Spend what the limits leave beyond --epochs on more, up to here. Default: --epochs.",
)
@click.option(
    "--steps",
    type=_int_or("max"),
    metavar="N|max",
    help="Train for so many optimizer steps instead of epochs, or for as many as the limits "
    "allow. All that the plan counts is then in steps.",
)
@click.option(
    "--min-steps", type=POSITIVE, help="Do not run for fewer optimizer steps. Default: one."
)
@click.option(
    "--samples",
    metavar="N|FACTOR",
    help="Train on so many samples, 60000, or on 10x as many as probed. Default: 1x.",
)
@click.option(
    "--folds",
    type=POSITIVE,
    default=1,
    show_default=True,
    help="Run so many folds of cross-validation.",
)
@set_option
@click.option(
    "--precision",
    type=click.Choice(["fp32", "bf16", "fp16"]),
    help="Train in a precision that was probed. Default: as probed last.",
)
@click.option(
    "--workers", type=COUNT, help="Load data with so many workers. Default: as probed last."
)
@click.option(
    "--objective",
    type=click.Choice(["time", "money", "memory"]),
    default="time",
    show_default=True,
    help="Save this among options with equal progress.",
)
@click.option(
    "--deadline",
    type=DEADLINE,
    help="End within '8h' or '1-12:00:00', or before '08:00', 'tomorrow 8:00' or "
    "'2026-12-01 08:00'.",
)
@click.option(
    "--counted-from",
    type=COUNTING,
    default="now",
    show_default=True,
    metavar="now|start[=TIME]|total[=DURATION]",
    help="Count the limits from now; from the allocation's start, which the scheduler "
    "says or you do; or in total over resumed runs that spent so much.",
)
@click.option(
    "--budget",
    "money",
    type=MONEY,
    help="Spend at most so much money: '18', with its sign or without.",
)
@click.option(
    "--price-per-hour",
    type=PRICE,
    help="An hour of one device costs so much money; of several devices each has its own.",
)
@click.option(
    "--fixed-cost", type=MONEY, default=0.0, help="So much money is spent whatever the run does."
)
@click.option("--energy", type=ENERGY, help="Use at most so much energy, '0.25kWh'.")
@watts_option
@click.option(
    "--carbon-per-kwh",
    type=POSITIVE_AMOUNT,
    help="A kWh emits so many grams of CO₂. Needs a power, as --energy does.",
)
@click.option(
    "--memory", type=BYTES, help="Fill at most so much memory of one device. Default: what it has."
)
@click.option("--disk", type=BYTES, help="Fill at most so much disk with checkpoints.")
@click.option(
    "--confidence",
    type=SHARE,
    default="90%",
    show_default=True,
    help="All limits hold together with this probability, '90%'.",
)
@click.option(
    "--batch-size",
    "--batch-sizes",
    "batch_sizes",
    type=_int_or("free", several=True),
    metavar="N,N,…|free",
    help="Take so many samples in an optimizer step, choose among several sizes, or "
    "choose any: 'free' needs --noise-scale. Default: choose among those probed.",
)
@click.option(
    "--micro-batch",
    type=POSITIVE,
    help="Take so many samples in a forward pass of one device. Default: any as large as probed.",
)
@click.option(
    "--devices",
    "--world-size",
    "--world-sizes",
    "devices",
    type=INT_LIST,
    help="Share the work among so many devices, one number or several. Default: as probed.",
)
@gpus_per_node_option
@click.option(
    "--bandwidth",
    type=BYTES,
    help="Devices exchange so many bytes a second, '25GB'. Default: it takes no time.",
)
@click.option(
    "--noise-scale",
    metavar="SAMPLES|measured",
    help="The gradient has this noise scale; 'measured' takes that of `probe --noise-scale`. "
    "Default: epochs of any batch are worth the same.",
)
@click.option(
    "--reference-batch",
    type=POSITIVE,
    help="Epochs and learning rate are known for this batch size. Default: --batch-size if it is "
    "one, else as probed last.",
)
@click.option(
    "--optimizer",
    type=click.Choice(list(OPTIMIZERS)),
    help="Scale the learning rate with the batch for this optimizer. Default: do not.",
)
@click.option(
    "--eval-every",
    "evaluate",
    type=_int_or("auto", "rungs"),
    metavar="N|auto|rungs",
    help="Evaluate every so many epochs (with --steps: steps), never (0), as often as stopping "
    "early pays for (auto), or at 1, 3, 9, 27, … (rungs; of steps from 100). Default: 1, auto "
    "with --steps, or as a script does.",
)
@click.option(
    "--stop",
    "stops",
    type=STOP,
    multiple=True,
    help="Stop early by a rule: patience=5, gl, pq, up, target, divergence or futility; "
    "repeatable. Default: none.",
)
@click.option(
    "--metric",
    metavar="NAME",
    default="val_loss",
    show_default=True,
    help="Rules watch this metric, and curves show it.",
)
@click.option(
    "--mode",
    type=click.Choice(["min", "max"]),
    help="The metric is better when it is smaller (min) or larger (max). Default: what "
    "its name says.",
)
@click.option(
    "--min-delta",
    type=AMOUNT,
    default=0.0,
    show_default=True,
    help="Count only improvements of the metric by more than this.",
)
@click.option(
    "--curve",
    "curves",
    type=click.Path(),
    multiple=True,
    help="Read the learning curve of a pilot from a CSV, JSON or event file; repeatable. "
    "Default: none.",
)
@click.option(
    "--steps-per-epoch",
    type=POSITIVE,
    help="Curves that count steps alone have so many in an epoch. Default: none do.",
)
@click.option(
    "--save-every",
    "save",
    type=_int_or("auto"),
    metavar="N|auto",
    help="Save every so many epochs (with --steps: steps), never (0), or as often as failures and "
    "the cost of saving ask for (auto). Default: auto, or as a script does.",
)
@click.option(
    "--keep",
    type=COUNT,
    default=2,
    show_default=True,
    help="Keep so many checkpoints on disk; 0 keeps all.",
)
@click.option(
    "--mtbf",
    "mtbf_seconds",
    type=MTBF,
    help="A failure or interruption comes every '12h' on average, or '0.5/h' times an "
    "hour. Default: never.",
)
@click.option(
    "--restart",
    "restart_seconds",
    type=DURATION,
    help="Training goes on so long after a failure. Default: the start-up and first steps.",
)
@click.option(
    "--spot-price-per-hour",
    type=PRICE_OF_ONE,
    help="Compare with devices that may be taken away, an hour of one of which costs so much. "
    "Default: no comparison.",
)
@click.option(
    "--spot-mtbf",
    "spot_mtbf_seconds",
    type=MTBF,
    help="They are taken away after '20h' on average, or '0.05/h' times an hour. Default: none.",
)
@click.option(
    "--seed",
    type=int,
    metavar="N",
    default=0,
    show_default=True,
    help="Begin the random draws with this number.",
)
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False),
    help="Write the plan to a JSON file. Default: none.",
)
@plot_option
@model_options
@on_option
@store_option
@click.option(
    "--emit",
    type=click.Choice(["slurm", "skypilot", "kubernetes", "json"]),
    help="Give what to ask this scheduler for, with the command that follows the plan. "
    "Default: the plan itself.",
)
@json_option
@without_collecting()
def plan(
    workload: str | None,
    device: str | None,
    model_file: str | None,
    on: str | None,
    store: str | None,
    as_json: bool,
    plot: str | None,
    output: str | None,
    emit: str | None,
    **options: Any,
) -> None:
    """Turn limits into what to run: configuration, epochs, and when to evaluate, save and stop.

    \b
    epochcast plan --epochs 90 --deadline 8h --price-per-hour 2.50 --budget '$18'
    epochcast plan --epochs max --deadline '2026-12-01 08:00' --mtbf 12h
    epochcast plan --epochs 200 --stop patience=5 --curve pilot.csv -o plan.json
    epochcast plan --epochs 90 --device each --price-per-hour h100=4.5,a100=1.8

    Exit code 3 when nothing fits, with the nearest thing that would.
    """
    if emit and as_json:
        raise UsageError("--emit and --json both say what to print; give one")
    if emit and not output:
        raise UsageError("--emit names the plan's file in its command: give it, -o plan.json")
    source = ModelSource(workload, device, model_file, store, on)
    require_one_device(source, options["watts"])
    if is_several(device):
        if model_file or output or plot:
            raise UsageError(f"--device {device} makes no file: plan one device for -o and --plot")
        _plan_by_device(source, options, as_json)
        return
    found, notes = _plan_on(source, options, as_json, only_price)
    if output:
        found.save(output)
    if source.is_probed:
        from epochcast.storage.asked import note_plan

        with reading(store) as archive:
            note_plan(archive, found)
    if plot:
        from epochcast.report.plots.pictures import save_picture
        from epochcast.report.plots.plan import draw_plan

        save_picture(draw_plan(found), plot)
    if emit:
        _emit(found, notes, emit, str(output))
    else:
        _show(found, notes, as_json)


def _plan_on(
    source: ModelSource,
    options: Mapping[str, Any],
    as_json: bool,
    priced: Callable[[Price, Device], float | None] = price_on,
) -> tuple[Plan, tuple[Warning_, ...]]:
    """The plan for one device, and notes on what it rests on.

    Args:
        source: of the cost model.
        options: as given.
        as_json: whether a shortfall is printed as a document.
        priced: what an hour of a device costs, by the prices given.
    """
    model, notes = source.model()
    source = source.with_names_of(model)
    asked = dict(options)
    asked["price_per_hour"] = priced(options["price_per_hour"], model.device)
    power, given = power_asked(options["watts"], source)
    watts, spread, powers, _ = power or (None, 0.0, (), "")
    asked |= {"watts": watts, "watts_spread": spread, "powers": powers}
    budget = budget_of(asked, datetime.now())
    asked["epochs"] = epochs_of(asked)
    asked["noise_scale"], more = _noise_scale(asked, source)
    found = _planned(model, budget, asked, as_json)
    return found, (*notes, *given, *more, *_unused(found, asked))


def _plan_by_device(source: ModelSource, options: Mapping[str, Any], as_json: bool) -> None:
    """What would be planned on each of several devices."""
    from epochcast.costmodel.side_by_side import side_of_plan

    def on(name: str) -> tuple[Side, Plan, tuple[Warning_, ...]]:
        found, notes = _plan_on(source._replace(device=name), options, False)
        length = units.format_number_of(found.chosen.epochs, found.unit)
        return side_of_plan(name, found, length), found, notes

    show_by_device(source, options["price_per_hour"], on, as_json)


def _emit(found: Plan, notes: Sequence[Warning_], emit: str, output: str) -> None:
    from epochcast.report.schedulers import EMITTED, job_of
    from epochcast.report.text.warnings import print_warnings

    print_warnings(console(stderr=True), [*notes, *found.warnings])
    click.echo(EMITTED[emit](job_of(found, output)), nl=False)


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


def _noise_scale(
    options: dict[str, Any], source: ModelSource
) -> tuple[float | None, tuple[Warning_, ...]]:
    """Samples, as given or as measured."""
    text = options["noise_scale"]
    if text != "measured":
        return _number("--noise-scale", text), ()
    from epochcast.planning.batch import noise_scale
    from epochcast.storage.query import gradient_noise

    with reading(source.store) as archive:
        found, notes = gradient_noise(
            archive, source.workload, source.device, single_knobs(options["knobs"])
        )
    return noise_scale(found), notes


def _number(option: str, text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        raise UsageError(f"{option} is a number or 'measured', but got {text!r}") from None
