"""``epochcast fit`` and ``predict``: a model from the store or a file, its answers to a table."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any

import click

from epochcast.cli.options import (
    BYTES,
    INT_LIST,
    SHARE,
    console,
    json_option,
    knobs_by_name,
    model_options,
    print_json,
    reading,
    require_same,
    set_option,
    store_option,
    without_collecting,
)
from epochcast.errors import UsageError

if TYPE_CHECKING:
    from epochcast.costmodel.prediction import Question


@click.command()
@click.argument("workload", required=False)
@click.option("--device", help="Kind, or part of the name, of the device probed.")
@click.option("--output", "-o", type=click.Path(dir_okay=False), help="Write the model as JSON.")
@store_option
@json_option
def fit(
    workload: str | None, device: str | None, output: str | None, store: str | None, as_json: bool
) -> None:
    """Fit the cost model of WORKLOAD and explain it; `predict` does so by itself."""
    from epochcast.report.text.estimate import print_model
    from epochcast.report.text.warnings import print_warnings
    from epochcast.storage.query import fitted_model

    with reading(store) as archive:
        model, notes = fitted_model(archive, workload, device)
    if output:
        model.save(output)
    print_warnings(console(stderr=True), notes)
    if as_json:
        print_json(model=model)
    else:
        print_model(console(), model)


@click.command()
@click.argument("workload", required=False)
@click.option("--epochs", type=INT_LIST, help="Passes over the data; several give a row each.")
@click.option("--steps", type=INT_LIST, help="Optimizer steps, instead of epochs.")
@click.option("--batch-size", "batch_sizes", type=INT_LIST, help="Micro-batch; or several.")
@set_option
@click.option("--samples", type=click.IntRange(min=1), help="Training samples, if not as probed.")
@click.option("--accumulation", type=click.IntRange(min=1), help="Micro-batches per update.")
@click.option("--precision", type=click.Choice(["fp32", "bf16", "fp16"]), help="As probed.")
@click.option("--compile/--no-compile", "compiled", default=None, help="As probed.")
@click.option("--drop-last/--keep-last", default=None, help="As probed.")
@click.option("--workers", type=click.IntRange(min=0), help="Data-loader processes.")
@click.option("--eval-every", type=click.FloatRange(min=0), default=1.0, show_default=True,
              help="Epochs between evaluations; 0: never.")  # fmt: skip
@click.option("--save-every", type=click.FloatRange(min=0), default=1.0, show_default=True,
              help="Epochs between checkpoints; 0: none.")  # fmt: skip
@click.option("--memory", type=BYTES, help="Find the largest batch that fits, e.g. 24GiB.")
@click.option("--confidence", type=SHARE, default=0.95, show_default=True,
              help="Probability with which it must fit.")  # fmt: skip
@click.option("--price-per-hour", type=click.FloatRange(min=0), help="Of the device.")
@model_options
@store_option
@json_option
@without_collecting()
def predict(
    workload: str | None, device: str | None, model_file: str | None, store: str | None,
    as_json: bool, **options: Any,
) -> None:  # fmt: skip
    """Price a training run of WORKLOAD (default: the one probed last)."""
    from epochcast.costmodel.capacity import largest_batch
    from epochcast.costmodel.model import CostModel
    from epochcast.costmodel.prediction import predict as answer
    from epochcast.records import Warning_
    from epochcast.report.text.estimate import print_capacities, print_estimate, print_estimates
    from epochcast.report.text.warnings import print_warnings
    from epochcast.storage.query import fitted_model

    questions = _questions(options)
    if model_file:
        model, notes = CostModel.load(model_file), tuple[Warning_, ...]()
        require_same(model, model_file, workload, device)
    else:
        with reading(store) as archive:
            model, notes = fitted_model(archive, workload, device)
    memory, confidence = options["memory"], options["confidence"]
    capacities = [largest_batch(model, q, memory, confidence) for q in questions if memory]
    if memory:
        pairs = zip(questions, capacities, strict=True)
        priced = options["epochs"] or options["steps"]
        questions = [replace(q, batch_size=c.batch_size) for q, c in pairs if priced]
    estimates = [answer(model, question) for question in questions]
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


def _questions(options: dict[str, Any]) -> list[Question]:
    """Every combination of the values given; epochs vary fastest."""
    from epochcast.costmodel.prediction import Question

    if options["memory"] and options["batch_sizes"]:
        raise UsageError("--memory asks for the largest batch; leave --batch-size out")
    given = bool(options["epochs"]), bool(options["steps"])
    if all(given) or not (any(given) or options["memory"]):
        raise UsageError("give --epochs, e.g. --epochs 90, or --steps")
    counted = "steps" if options["steps"] else "epochs"
    knobs = knobs_by_name(options["knobs"])
    ways = ("accumulation", "precision", "compiled", "drop_last", "workers")
    shared = ("samples", *ways, "eval_every", "save_every")
    return [
        Question(
            batch_size=batch_size,
            sizes=dict(zip(knobs, values, strict=True)),
            price_per_hour=options["price_per_hour"],
            **{counted: count},
            **{name: options[name] for name in shared},
        )
        for *values, batch_size, count in product(
            *knobs.values(), options["batch_sizes"] or (None,), options[counted] or (1,)
        )
    ]
