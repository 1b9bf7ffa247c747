"""``epochcast compare``: two runs side by side, and how likely one is to be the faster.

"batch-size=32,device=cpu"  ──▶  a prediction by the store     plan.json  ──▶  what it chose
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from epochcast.cli.options import (
    POSITIVE,
    POSITIVE_AMOUNT,
    PRICE_OF_ONE,
    console,
    json_option,
    print_json,
    reading,
    store_option,
    without_collecting,
)
from epochcast.errors import UsageError
from epochcast.units import format_number_of, parse_price

if TYPE_CHECKING:
    from epochcast.costmodel.side_by_side import Side
    from epochcast.records import Estimate, Plan

WORDS = ("workload", "device", "store", "precision")  # as they are; else numbers are numbers
COUNTS = (
    *("batch_size", "accumulation", "workers", "samples", "eval_batch_size"),
    *("world_size", "devices_per_node"),
)
EXPECTED = "a plan's file, or NAME=VALUE[,NAME=VALUE…] like batch-size=64,device=cuda"


@click.command(short_help="Show two runs side by side, and which is faster.")
@click.argument("a")
@click.argument("b")
@click.option(
    "--epochs",
    type=POSITIVE_AMOUNT,
    help="Price so many epochs of both. Default: those of the plan.",
)
@click.option(
    "--steps", type=POSITIVE, help="Price so many optimizer steps instead. Default: epochs."
)
@click.option(
    "--price-per-hour",
    type=PRICE_OF_ONE,
    help="One device costs this much an hour. Default: no cost is said.",
)
@store_option
@json_option
@without_collecting()
def compare(
    a: str,
    b: str,
    epochs: float | None,
    steps: int | None,
    price_per_hour: float | None,
    store: str | None,
    as_json: bool,
) -> None:
    """Show run A beside run B, with the probability that A is faster.

    \b
    epochcast compare batch-size=32 batch-size=128,precision=bf16 --epochs 90
    epochcast compare device=h100,price-per-hour=4.5 device=a100 --epochs 90
    epochcast compare store=old.sqlite store=new.sqlite --epochs 90
    epochcast compare slow.json fast.json

    A and B are plans, by their files, or what differs from what was probed last: workload, device,
    store, precision, workers, batch-size, accumulation, samples, eval-batch-size, world-size,
    gpus-per-node, or a knob; and price-per-hour, which devices may differ in.
    """
    from epochcast.costmodel.side_by_side import probability_below
    from epochcast.report.text.estimate import print_sides

    common = {"epochs": epochs, "steps": steps, "price_per_hour": price_per_hour}
    plans = {text: _loaded(text) for text in (a, b) if _is_plan(text)}
    if plans and (given := [name for name, value in common.items() if value is not None]):
        name, file = given[0].replace("_", "-"), next(iter(plans))
        raise UsageError(f"--{name} is for predictions; {file} is a plan, which has its own")
    if len({a, b} - plans.keys()) == len(plans) == 1:  # the prediction is as long as the plan
        (plan,) = plans.values()
        common["steps" if plan.unit == "step" else "epochs"] = plan.chosen.epochs
        common["price_per_hour"] = plan.budget.price_per_hour
    sides = [_side(text, common, store) for text in (a, b)]
    faster = probability_below(sides[0].seconds, sides[1].seconds)
    if as_json:
        print_json(sides=sides, probability_faster=faster)
    else:
        print_sides(console(), sides[0], sides[1], faster)


def _is_plan(text: str) -> bool:
    """A file may have an equals sign in its name."""
    return "=" not in text or Path(text).is_file()


def _side(text: str, common: Mapping[str, Any], store: str | None) -> Side:
    if _is_plan(text):
        return _planned(text)
    if (common["epochs"] is None) == (common["steps"] is None):
        raise UsageError("how long are the runs? give --epochs, e.g. --epochs 90, or --steps")
    return _predicted(text, common, store)


def _loaded(file: str) -> Plan:
    from epochcast.records import Plan

    if not Path(file).exists():
        raise UsageError(f"expected {EXPECTED}, but got {file!r}, and there is no such file")
    return Plan.load(file)


def _planned(file: str) -> Side:
    from epochcast.costmodel.side_by_side import side_of_plan

    plan = _loaded(file)
    return side_of_plan(file, plan, format_number_of(plan.chosen.epochs, plan.unit))


def _predicted(text: str, common: Mapping[str, Any], store: str | None) -> Side:
    from epochcast.costmodel.prediction import predict
    from epochcast.costmodel.question import Question
    from epochcast.costmodel.side_by_side import side_of_estimate
    from epochcast.storage.query import fitted_model

    named = _read(text)
    where = {name: named.pop(name, None) for name in ("workload", "device")}
    precision, counts = named.pop("precision", None), {n: named.pop(n, None) for n in COUNTS}
    own_price = named.pop("price_per_hour", None)
    for name, count in counts.items():
        least = 0 if name == "workers" else 1
        if count is not None and not (isinstance(count, int) and count >= least):
            shown = name.replace("_", "-")
            raise UsageError(f"{shown} is a whole number, at least {least}, but got {count!r}")
    with reading(named.pop("store", store)) as archive:
        model, notes = fitted_model(archive, **where)
    if own_price is not None:
        common = {**common, "price_per_hour": parse_price(str(own_price))}
    question = Question(sizes=named, precision=precision, **counts, **common)
    found = predict(model, question)
    side = side_of_estimate(text, found, length_of(found))
    said = (note for note in notes if note.code != "chose-device" or where["device"] is None)
    return replace(side, warnings=(*said, *side.warnings))


def length_of(found: Estimate) -> str:
    """Of the run that was priced: ``"90 epochs"``."""
    unit, number = ("epoch", found.epochs) if found.steps is None else ("step", found.steps)
    whole = number == round(number)
    return format_number_of(round(number), unit) if whole else f"{number:g} {unit}s"


def _read(text: str) -> dict[str, Any]:
    """``"batch-size=32,device=cpu"``."""
    from epochcast.records import parse_size_value

    found: dict[str, Any] = {}
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not (name and equals and value):
            raise UsageError(f"expected {EXPECTED}, but got {text[:60]!r}")
        name = name.replace("-", "_").replace("gpus_per_node", "devices_per_node")
        if name in found:
            raise UsageError(f"{part.strip()!r} says {name} a second time in {text[:60]!r}")
        found[name] = value if name in WORDS else parse_size_value(value)
    return found
