"""``epochcast probes``: list, show, remove, export and push what the store has, get more.

An import is what export wrote, or a table of runs that were timed elsewhere.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from epochcast.cli.options import (
    POSITIVE,
    Command,
    Grouped,
    Parsed,
    console,
    json_option,
    print_json,
    reading,
    say,
    say_count,
    store_option,
    workload_argument,
)
from epochcast.errors import UsageError

if TYPE_CHECKING:
    from epochcast.importers.columns import ImportOptions
    from epochcast.importers.runs import Count
    from epochcast.records import Footprint, Measurement, RunConfig
    from epochcast.storage.store import Store

MAPPING_NAME = "MEANING=COLUMN[,…]"


@click.group()
def probes() -> None:
    """List, show, remove, export, import, push and pull measurements."""


@probes.command("list", short_help="List what was measured, a row for each configuration.")
@workload_argument(required=False)
@store_option
@json_option
def list_(workload: str | None, store: str | None, as_json: bool) -> None:
    """List what was measured, a row for each configuration; --json has every measurement.

    A key is that of the newest one. Predictions rest on those that are used; the others are of
    older code or data.
    """
    from epochcast.report.text.probing import print_measurements
    from epochcast.storage.query import selections

    with reading(store) as opened:
        found = _measured(opened, workload)
        if workload and not found:
            known = ", ".join(sorted({m.workload for m in opened.measurements()})) or "nothing"
            say(f"no measurements of {workload!r}; in the store: {known}", err=True)
    used = [m.key for selection in selections(found) for m in selection.measurements]
    if as_json:
        print_json(measurements=found, used=used)
    elif found:
        print_measurements(console(), found, used)


def _measured(store: Store, workload: str | None) -> list[Measurement]:
    """Of one name, of all names of a target, or all that there are."""
    names = store.names_of(workload) if workload else (None,)
    return [m for name in names for m in store.measurements(name)]


@probes.command()
@click.argument("key")
@store_option
@json_option
def show(key: str, store: str | None, as_json: bool) -> None:
    """Show the measurement whose key starts with KEY, as JSON.

    Its `memory` says, too, how often CUDA's allocator had to flush its cache to make room.
    """
    with reading(store) as opened:
        print_json(measurement=opened.get(key))


@probes.command()
@click.argument("keys", nargs=-1, required=True)
@store_option
@json_option
def remove(keys: tuple[str, ...], store: str | None, as_json: bool) -> None:
    """Remove the measurements whose keys start with KEYS."""
    with reading(store) as opened:
        count = opened.remove([opened.whole_key(key) for key in keys])
    say_count("removed", count, as_json)


class _NewFile(click.File):
    """A file that is written whole at the end, which would be late to find a folder there."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if isinstance(value, str) and Path(value).is_dir():
            self.fail(f"{value!r} is a folder", param, ctx)
        return super().convert(value, param, ctx)


@probes.command()
@click.argument("file", type=_NewFile("w", encoding="utf-8", atomic=True), default="-")
@store_option
@json_option
def export(file: Any, store: str | None, as_json: bool) -> None:
    """Write all measurements to FILE (default: stdout) as JSON Lines."""
    if as_json and file.name == "<stdout>":
        raise UsageError("--json says on stdout how many were exported: give a FILE for them")
    with reading(store) as opened:
        count = opened.export(file)
    say_count("exported", count, as_json)


def _move_options(command: Command) -> Command:
    command = click.option("--workload", help="Move this workload's alone. Default: all.")(command)
    command = click.option(
        "--device",
        help="Move what this device measured alone: an id (`epochcast devices`), kind or name. "
        "Default: all.",
    )(command)
    return json_option(store_option(command))


@probes.command()
@click.argument("url")
@_move_options
def push(
    url: str, workload: str | None, device: str | None, store: str | None, as_json: bool
) -> None:
    """Copy measurements into the store at URL, each once.

    What is there already stays; of what was measured again the newer counts. What dry runs counted
    and followed runs took goes along; logs, traces and fitted models do not. Interrupted, the same
    command goes on.
    """
    from epochcast.storage.store import Store

    with reading(store) as mine, Store.open(url) as other:
        _move("pushed", mine, other, workload, device, as_json)


@probes.command()
@click.argument("url")
@_move_options
def pull(
    url: str, workload: str | None, device: str | None, store: str | None, as_json: bool
) -> None:
    """Copy measurements from the store at URL, each once.

    What is here already stays; of what was measured again the newer counts. What dry runs counted
    and followed runs took goes along; logs, traces and fitted models do not. Interrupted, the same
    command goes on.
    """
    from epochcast.storage.store import Store

    with reading(url) as other, Store.open(store, create="late") as mine:
        _move("pulled", other, mine, workload, device, as_json)


def _move(
    done: str, source: Store, target: Store, workload: str | None, device: str | None, as_json: bool
) -> None:
    """Copy from one store to another, and say what was moved and what was not.

    Args:
        done: the past participle.
        source: the store that it comes from.
        target: the one that it goes to.
        workload: whose measurements alone; default: all.
        device: of which alone; default: all.
        as_json: whether to write a JSON document to stdout, instead of lines to stderr.
    """
    from epochcast.storage.transfer import transfer
    from epochcast.units import format_number_of

    moved = transfer(source, target, workload, device)
    if as_json:
        print_json(source=source.label, target=target.label, moved=moved)
        return
    measured = format_number_of(moved.measurements, "measurement")
    counted = format_number_of(moved.footprints, "dry run")
    ran = format_number_of(moved.outcomes, "followed run")
    say(f"{done} {measured}, {counted} and {ran} from {source.label} to {target.label}", err=True)
    notes = (
        (moved.present, "were there already"),
        (moved.renewed, "were in place of older ones"),
        (moved.older, "stay behind: there are newer ones"),
        (moved.damaged, "stay behind: they are damaged"),
    )
    said = [f"{count:,} {words}" for count, words in notes if count]
    if said:
        say("; ".join(said), err=True)
    if moved.measurements:
        say("logs and traces stay where they are", err=True)


@click.command(short_help="List the devices that were probed, and their ids.")
@workload_argument(required=False)
@store_option
@json_option
def devices(workload: str | None, store: str | None, as_json: bool) -> None:
    """List the devices that WORKLOAD (default: any) was probed on, and their ids for --device."""
    from epochcast.report.text.probing import print_devices
    from epochcast.storage.query import probed_devices

    with reading(store) as opened:
        found = probed_devices(_measured(opened, workload))
    if as_json:
        print_json(devices=found)
    elif found:
        print_devices(console(), found)
    else:
        say(f"no measurements of {workload!r}" if workload else "no measurements yet", err=True)


def _read_mapping(text: str) -> dict[str, str]:
    """``"batch=bs,epoch_seconds=time"``."""
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(meaning.strip() and column.strip() for meaning, _, column in pairs):
        raise UsageError(f"expected {MAPPING_NAME}, but got {text!r}")
    return {column.strip(): meaning.strip() for meaning, _, column in pairs}


MAPPING = Parsed(MAPPING_NAME, _read_mapping)


IMPORT_GROUPS = {  # of the help of import: heading, and the parameters below it
    "What the file does not say (default: its columns do)": (
        "workload",
        "device",
        "device_kind",
        "samples",
        "eval_samples",
        "batch_size",
        "devices",
        "maps",
        "ignore",
        "unit",
        "memory_unit",
        "footprints",
    ),
    "Store and output": ("store", "as_json", "help"),
}


@probes.command("import", cls=Grouped, groups=IMPORT_GROUPS)
@click.argument("file", type=click.File("rb"))
@click.option(
    "--workload", help="The runs are of this workload; if it can be probed, columns are its knobs."
)
@click.option("--device", help="The runs were timed on the device of this name.")
@click.option(
    "--device-kind",
    type=click.Choice(["cpu", "cuda", "mps"]),
    help="The device is of this kind; needed if its name does not tell.",
)
@click.option("--samples", type=POSITIVE, help="An epoch has this many training samples.")
@click.option("--eval-samples", type=POSITIVE, help="An evaluation has this many samples.")
@click.option(
    "--batch-size",
    type=POSITIVE,
    help="Take this as the batch size of every run, that of one forward pass on one device.",
)
@click.option("--devices", type=POSITIVE, help="Take this as the number of devices of every run.")
@click.option(
    "--map", "maps", type=MAPPING, multiple=True, help="Say what a column means; repeatable."
)
@click.option(
    "--ignore",
    multiple=True,
    metavar="COLUMN[,…]",
    help="Leave these columns out; they are no knobs.",
)
@click.option(
    "--unit",
    type=click.Choice(["us", "ms", "s", "min", "h"]),
    help="Times are in this unit where their column does not say. Default: s.",
)
@click.option(
    "--memory-unit",
    metavar="UNIT",
    help="Memory is in this unit where its column does not say: B, MiB, …",
)
@click.option("--footprints", is_flag=True, help="Count FLOPs and bytes by dry runs of --workload.")
@store_option
@json_option
def import_(file: Any, store: str | None, footprints: bool, as_json: bool, **said: Any) -> None:
    """Read measurements from FILE (- is stdin), all or none.

    FILE is what `epochcast probes export` wrote; or a CSV, JSON or JSON Lines of runs timed
    elsewhere: a batch size, the time of an epoch or a step, or a throughput, and perhaps peak
    memory, devices, the number of samples, FLOPs, bytes, parameters. What looks like a result is
    left out; every other column is a model-size knob. What each column was read as is printed.
    """
    from epochcast.importers import runs
    from epochcast.report.text.probing import column_line, print_imported
    from epochcast.report.text.warnings import print_warnings
    from epochcast.storage.store import Store

    text = runs.text_of(file.read())
    if runs.is_export(text):
        _import_export(text, store, footprints or any(said.values()), as_json)
        return
    options = _import_options(**said)
    result = runs.read(text, options, count=_dry_runs(options) if footprints else None)
    with Store.open(store) as opened:
        opened.add_all(runs.numbered(result.measurements, opened.measurements()))
    if as_json:
        lines = [column_line(read) for read in result.columns]
        print_json(imported=len(result.measurements), columns=lines)
    else:
        print_imported(console(stderr=True), result.measurements, result.columns)
    print_warnings(console(stderr=True), result.warnings)


def _import_export(text: str, store: str | None, has_options: bool, as_json: bool) -> None:
    from epochcast.storage.store import Store

    if has_options:
        raise UsageError("what export wrote says everything itself; leave the options out")
    with Store.open(store) as opened:
        count = opened.import_(io.StringIO(text))
    say_count("imported", count, as_json)


def _import_options(
    maps: Sequence[dict[str, str]], ignore: Sequence[str], **said: Any
) -> ImportOptions:
    from epochcast.importers.columns import ImportOptions

    return ImportOptions(
        renamed={column: meaning for pairs in maps for column, meaning in pairs.items()},
        ignored=frozenset(column.strip() for part in ignore for column in part.split(",")),
        **said,
    )


def _dry_runs(options: ImportOptions) -> Count:
    """Counts a configuration of the workload by a dry run of it."""
    workload = options.workload
    if workload is None:
        raise UsageError("--footprints needs --workload, e.g. --workload train.py:workload")
    from epochcast.api.probe import dry_run

    def count(config: RunConfig) -> Footprint | None:
        sizes: dict[str, Any] = dict(config.sizes)
        return dry_run(workload, batch_size=config.batch_size, **sizes)

    return count
