"""``epochcast report``: one page to hand on."""

from __future__ import annotations

import click

from epochcast.cli.options import (
    EXISTING,
    device_option,
    json_option,
    print_json,
    say,
    store_option,
)
from epochcast.units import format_bytes


@click.command(short_help="Write one page to hand on: the answer, and what it rests on.")
@click.argument("plan", required=False, type=EXISTING)
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
    type=click.Path(exists=True),
    help="Show the run of this folder, or of the log in it, beside its prediction, "
    "'epochcast-run'. Default: none.",
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
    from epochcast.api.reporting import read_contents
    from epochcast.report.html.page import write_report

    contents = read_contents(plan, workload, device, log, store)
    size = write_report(contents, output)
    if as_json:
        print_json(
            file=output, bytes=size, workload=contents.workload, device=contents.device.label
        )
    else:
        say(f"wrote {output}, {format_bytes(size)}")
