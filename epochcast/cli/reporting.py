"""``epochcast report``: one page to hand on."""

from __future__ import annotations

from pathlib import Path

import click

from epochcast.cli.options import device_option, json_option, print_json, reading, say, store_option
from epochcast.units import format_bytes


@click.command(short_help="Write one page to hand on: the answer, and what it rests on.")
@click.argument("plan", required=False, type=click.Path(dir_okay=False))
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False),
    default="report.html",
    show_default=True,
    help="Write the page to this file.",
)
@click.option("--workload", help="Write about this workload. Default: the one asked about last.")
@click.option(
    "--log",
    type=click.Path(dir_okay=False),
    help="Show the run that wrote this log beside its prediction, 'epochcast-run/log.jsonl'. "
    "Default: none.",
)
@device_option
@store_option
@json_option
def report(
    plan: str | None,
    output: str,
    workload: str | None,
    log: str | None,
    device: str | None,
    store: str | None,
    as_json: bool,
) -> None:
    """Write one page for whoever pays or reviews, about PLAN or about what was asked last.

    \b
    epochcast plan --epochs 90 --deadline 8h --output plan.json
    epochcast report plan.json -o report.html

    The page is one file: it loads nothing, has no scripts, and prints.
    """
    from epochcast.errors import UsageError
    from epochcast.guard.log import read_log
    from epochcast.records import Plan, RunStarted
    from epochcast.report.html.contents import contents_of_plan, contents_of_store
    from epochcast.report.html.page import write_report
    from epochcast.storage.store import Store

    if plan and (workload or device):
        raise UsageError("a plan says which workload and device it is of; leave them out")
    events = read_log(log) if log else ()
    if plan:
        with Store.open(store, create="late") as opened:
            contents = contents_of_plan(Plan.load(plan), opened, events)
    else:
        with reading(store) as opened:
            contents = contents_of_store(opened, workload, device, events)
    ran = {event.workload for event in events if isinstance(event, RunStarted)}
    if ran - {contents.workload}:
        raise UsageError(f"{log} is of {ran.pop()}, but the page is about {contents.workload}")
    size = write_report(contents, output)
    if as_json:
        print_json(file=str(Path(output)), bytes=size, workload=contents.workload)
    else:
        say(f"wrote {output}, {format_bytes(size)}")
