"""``epochcast workloads`` and ``datasets``: what is built in."""

from __future__ import annotations

import click

from epochcast.cli.options import console, json_option, print_json


@click.command()
@json_option
def workloads(as_json: bool) -> None:
    """List the built-in workloads and their knobs."""
    from epochcast.profiler.builtin.workloads import descriptions
    from epochcast.report.text.probing import print_workloads

    found = descriptions()
    if as_json:
        print_json(workloads=found)
    else:
        print_workloads(console(), found)


@click.command()
@click.argument("name", required=False)
@json_option
def datasets(name: str | None, as_json: bool) -> None:
    """List the known data sets, or show the one called NAME."""
    from epochcast.datasets.catalogue import CATALOGUE, find
    from epochcast.report.text.probing import print_datasets

    found = [find(name)] if name else list(CATALOGUE.values())
    if as_json:
        print_json(datasets=found)
    else:
        print_datasets(console(), found)
