"""``epochcast probes``: list, show, remove and export what the store has; import is a file."""

from __future__ import annotations

from typing import Any

import click

from epochcast.cli.importing import import_
from epochcast.cli.options import (
    console,
    json_option,
    print_json,
    reading,
    say_count,
    store_option,
)


@click.group()
def probes() -> None:
    """List, show, remove, export and import measurements."""


@probes.command("list")
@click.argument("workload", required=False)
@store_option
@json_option
def list_(workload: str | None, store: str | None, as_json: bool) -> None:
    """List the stored measurements, one line each, and which of them predictions rest on."""
    from epochcast.profiler.workload import canonical
    from epochcast.report.text.probing import print_measurements
    from epochcast.storage.query import selections

    with reading(store) as archive:
        found = archive.measurements(canonical(workload) if workload else None)
        if workload and not found:
            known = ", ".join(sorted({m.workload for m in archive.measurements()})) or "nothing"
            click.echo(f"no measurements of {workload!r}; in the store: {known}", err=True)
    used = [m.key for selection in selections(found) for m in selection.measurements]
    if as_json:
        print_json(measurements=found, used=used)
    elif found:
        print_measurements(console(), found, used)


@probes.command()
@click.argument("key")
@store_option
@json_option
def show(key: str, store: str | None, as_json: bool) -> None:
    """Show the measurement whose key starts with KEY, as JSON."""
    with reading(store) as archive:
        print_json(measurement=archive.get(key))


@probes.command()
@click.argument("keys", nargs=-1, required=True)
@store_option
@json_option
def remove(keys: tuple[str, ...], store: str | None, as_json: bool) -> None:
    """Remove the measurements whose keys start with KEYS."""
    with reading(store) as archive:
        count = archive.remove([archive.whole_key(key) for key in keys])
    say_count("removed", count, as_json)


@probes.command()
@click.argument("file", type=click.File("w", encoding="utf-8", atomic=True), default="-")
@store_option
def export(file: Any, store: str | None) -> None:
    """Write all measurements to FILE (default: stdout) as JSON Lines."""
    with reading(store) as archive:
        count = archive.export(file)
    click.echo(f"exported {count} measurements", err=True)


probes.add_command(import_)
