"""``epochcast fit``, ``predict`` and ``calibration``: a cost model and its answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any

import click

from epochcast.cli.by_device import (
    PRICE,
    is_several,
    only_price,
    price_on,
    require_one_device,
    show_by_device,
)
from epochcast.cli.comparing import length_of
from epochcast.cli.completing import of_devices
from epochcast.cli.model_source import ModelSource
from epochcast.cli.options import (
    AMOUNT,
    BYTES,
    INT_LIST,
    NUMBER_LIST,
    POSITIVE,
    SHARE,
    Grouped,
    accumulation_option,
    compile_option,
    console,
    device_option,
    drop_last_option,
    eval_batch_option,
    gpus_per_node_option,
    json_option,
    knobs_by_name,
    model_options,
    on_option,
    plot_option,
    precision_option,
    print_json,
    reading,
    set_option,
    store_option,
    without_collecting,
    workers_option,
    workload_argument,
)
from epochcast.cli.power import power_asked, watts_option
from epochcast.errors import UsageError

if TYPE_CHECKING:
    from epochcast.costmodel.question import Question
    from epochcast.costmodel.side_by_side import Side
    from epochcast.records import Estimate, Warning_


GROUPS = {  # of the help of predict: heading, and the parameters below it
    "Question": ("epochs", "steps", "memory", "confidence", "price_per_hour", "watts"),
    "Configuration (default: as probed last)": (
        "batch_sizes",
        "knobs",
        "samples",
        "accumulation",
        "precision",
        "compile",
        "drop_last",
        "workers",
        "world_sizes",
        "devices_per_node",
        "eval_batch_size",
        "eval_every",
        "save_every",
    ),
    "Cost model": ("store", "device", "model_file", "on"),
    "Output": ("as_json", "help"),
}


@click.command(short_help="Fit the cost model and explain it; `predict` fits, too.")
@workload_argument(required=False)
@device_option
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False),
    help="Write the model to this file, as JSON. Default: none.",
)
@store_option
@json_option
def fit(
    workload: str | None, device: str | None, output: str | None, store: str | None, as_json: bool
) -> None:
    """Fit the cost model of WORKLOAD and explain it; `predict` does so by itself."""
    from epochcast.report.text.estimate import print_model
    from epochcast.report.text.warnings import print_warnings
    from epochcast.storage.query import fitted_model

    with reading(store) as opened:
        model, notes = fitted_model(opened, workload, device)
    if output:
        model.save(output)
    print_warnings(console(stderr=True), notes)
    if as_json:
        print_json(model=model)
    else:
        print_model(console(), model)


@click.command(cls=Grouped, groups=GROUPS, short_help="Price a training run: time, memory, money.")
@workload_argument(required=False)
@click.option(
    "--epochs",
    type=NUMBER_LIST,
    help="Price this many passes over the data; several numbers give a row each.",
)
@click.option("--steps", type=INT_LIST, help="Price optimizer steps instead of epochs.")
@click.option(
    "--batch-size",
    "--batch-sizes",
    "batch_sizes",
    type=INT_LIST,
    help="Take micro-batches of this many samples; several numbers give a row each.",
)
@set_option
@click.option("--samples", type=POSITIVE, help="An epoch has this many samples.")
@accumulation_option
@precision_option
@compile_option
@drop_last_option
@workers_option
@eval_batch_option
@click.option(
    "--world-size",
    "--world-sizes",
    "world_sizes",
    type=INT_LIST,
    help="Share the work among so many devices; several numbers give a row each.",
)
@gpus_per_node_option
@click.option(
    "--eval-every",
    type=AMOUNT,
    help="Evaluate after so many epochs; 0 never does. Default: 1, or as the script does.",
)
@click.option(
    "--save-every",
    type=AMOUNT,
    help="Save after so many epochs; 0 never does. Default: 1, or as the script does.",
)
@click.option(
    "--memory", type=BYTES, help="Find the largest batch that fits into this much, e.g. 24GiB."
)
@click.option(
    "--confidence",
    type=SHARE,
    default="95%",
    show_default=True,
    help="The largest batch must fit with this probability.",
)
@click.option(
    "--price-per-hour",
    type=PRICE,
    help="One device costs this much an hour; of several devices each has its own. Default: no "
    "cost is said.",
)
@watts_option
@model_options
@on_option
@store_option
@json_option
@without_collecting()
def predict(
    workload: str | None,
    device: str | None,
    model_file: str | None,
    on: str | None,
    store: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Price a training run of WORKLOAD (default: the one probed last).

    What no option says is as it was probed. --device each, or h100,a100, puts devices side by side.
    """
    from epochcast.costmodel.prediction import largest_batch
    from epochcast.costmodel.prediction import predict as answer
    from epochcast.report.text.estimate import print_capacities, print_estimate, print_estimates
    from epochcast.report.text.warnings import print_warnings
    from epochcast.storage.asked import note_questions
    from epochcast.storage.power import with_energy

    questions = _questions(options)
    source = ModelSource(workload, device, model_file, store, on)
    require_one_device(source, options["watts"])
    if is_several(device):
        _predict_by_device(source, as_json, questions, options)
        return
    model, notes = source.model()
    price = only_price(options["price_per_hour"], model.device)
    questions = [replace(question, price_per_hour=price) for question in questions]
    memory, confidence = options["memory"], options["confidence"]
    capacities = [largest_batch(model, q, memory, confidence) for q in questions if memory]
    if memory:
        pairs = zip(questions, capacities, strict=True)
        priced = options["epochs"] or options["steps"]
        questions = [replace(q, batch_size=c.batch_size) for q, c in pairs if priced]
    estimates = [answer(model, question) for question in questions]
    power, given = power_asked(options["watts"], source.with_names_of(model))
    if power is not None:
        estimates = [with_energy(estimate, power) for estimate in estimates]
    notes = (*notes, *given)
    if source.is_probed and estimates:
        with reading(store) as archive:
            note_questions(archive, model, questions)
    print_warnings(console(stderr=True), notes)
    if as_json:
        found = {"estimates": estimates, **({"capacities": capacities} if memory else {})}
        print_json(**found, notes=notes, chosen=model.explain())
        return
    print_capacities(console(), capacities)
    if len(estimates) == 1:
        print_estimate(console(), estimates[0])
    elif estimates:
        print_estimates(console(), estimates)


def _predict_by_device(
    source: ModelSource,
    as_json: bool,
    questions: Sequence[Question],
    options: Mapping[str, Any],
) -> None:
    """The same prediction for several devices.

    Args:
        source: of the models; its device is several.
        as_json, options: as of ``predict``.
        questions: one.

    Raises:
        UsageError: several questions, or a model's file, which is of one device.
    """
    from epochcast.costmodel.prediction import predict as answer
    from epochcast.costmodel.side_by_side import side_of_estimate
    from epochcast.storage.power import with_energy

    if source.model_file or options["memory"] or len(questions) != 1:
        raise UsageError(
            f"--device {source.device} prices one run on each of them: give one value of each "
            "option, and neither --model nor --memory"
        )

    def on(name: str) -> tuple[Side, Estimate, tuple[Warning_, ...]]:
        there = source._replace(device=name)
        model, notes = there.model()
        price = price_on(options["price_per_hour"], model.device)
        found = answer(model, replace(questions[0], price_per_hour=price))
        power, given = power_asked(options["watts"], there)
        found = found if power is None else with_energy(found, power)
        return side_of_estimate(name, found, length_of(found)), found, (*notes, *given)

    show_by_device(source, options["price_per_hour"], on, as_json)


def _questions(options: dict[str, Any]) -> list[Question]:
    """Every combination of the values given; epochs vary fastest."""
    from epochcast.costmodel.question import Question

    if options["memory"] and options["batch_sizes"]:
        raise UsageError("--memory asks for the largest batch; leave --batch-size out")
    given = bool(options["epochs"]), bool(options["steps"])
    if all(given):
        raise UsageError("--epochs and --steps both say how long the run is: give one of them")
    if not (any(given) or options["memory"]):
        raise UsageError("give --epochs, e.g. --epochs 90, or --steps")
    counted = "steps" if options["steps"] else "epochs"
    knobs = knobs_by_name(options["knobs"])
    ways = ("accumulation", "precision", "drop_last", "workers", "eval_batch_size")
    shared = ("samples", *ways, "eval_every", "save_every")
    return [
        Question(
            batch_size=batch_size,
            sizes=dict(zip(knobs, values, strict=True)),
            compiled=options["compile"],
            world_size=world_size,
            devices_per_node=options["devices_per_node"],
            **{counted: count},
            **{name: options[name] for name in shared},
        )
        for *values, batch_size, world_size, count in product(
            *knobs.values(),
            options["batch_sizes"] or (None,),
            options["world_sizes"] or (None,),
            options[counted] or (1,),
        )
    ]


@click.command(short_help="Show predicted against actual over followed runs.")
@workload_argument(required=False)
@click.option(
    "--device",
    shell_complete=of_devices,
    help="Show the runs on this device: its id (`epochcast devices`), kind or name. Default: all.",
)
@plot_option
@click.option(
    "--forget", metavar="RUN", help="Remove what this run took; it was a broken one. Default: none."
)
@store_option
@json_option
def calibration(
    workload: str | None,
    device: str | None,
    plot: str | None,
    forget: str | None,
    store: str | None,
    as_json: bool,
) -> None:
    """Show predicted against actual over the followed runs of WORKLOAD (default: of all)."""
    from epochcast.report.text.estimate import print_compared, print_how_to_follow
    from epochcast.storage.query import compare

    with reading(store) as opened:
        if forget is not None and not opened.remove_outcome(forget):
            raise UsageError(f"there is no run {forget!r} to forget; --json shows their names")
        compared = compare(opened, workload, device)
        known = [] if compared.runs else sorted({o.workload for o in opened.outcomes()})
    if plot and compared.judged:
        from epochcast.report.plots.comparison import draw_comparison
        from epochcast.report.plots.pictures import save_picture

        save_picture(draw_comparison(compared.judged), plot)
    if as_json:
        print_json(runs=compared.runs, corrections=compared.corrections)
    elif compared.runs:
        print_compared(console(), compared)
    else:
        asked = " on ".join(filter(None, (workload or (device and "anything"), device)))
        print_how_to_follow(console(), asked, known)
