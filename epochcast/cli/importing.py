"""``epochcast probes import``: what export wrote, or a table of runs timed elsewhere."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from epochcast.cli.options import Parsed, console, json_option, say_count, store_option
from epochcast.errors import UsageError

if TYPE_CHECKING:
    from epochcast.importers.columns import Options
    from epochcast.importers.runs import Count
    from epochcast.records import Footprint, RunConfig

MAPPING_NAME = "MEANING=COLUMN[,…]"


def _read_mapping(text: str) -> dict[str, str]:
    """``"batch=bs,epoch_seconds=time"``."""
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(meaning.strip() and column.strip() for meaning, _, column in pairs):
        raise UsageError(f"expected {MAPPING_NAME}, but got {text!r}")
    return {column.strip(): meaning.strip() for meaning, _, column in pairs}


MAPPING = Parsed(MAPPING_NAME, _read_mapping)


@click.command("import")
@click.argument("file", type=click.File("r", encoding="utf-8"))
@click.option("--workload", help="What to call it, or whose knobs the columns are.")
@click.option("--device", help="Name of the device it was measured on.")
@click.option("--device-kind", type=click.Choice(["cpu", "cuda", "mps"]),
              help="If the name does not tell.")  # fmt: skip
@click.option("--samples", type=click.IntRange(min=1), help="Training samples of an epoch.")
@click.option("--eval-samples", type=click.IntRange(min=1), help="Samples of an evaluation.")
@click.option("--map", "maps", type=MAPPING, multiple=True, help="What a column means.")
@click.option("--ignore", multiple=True, metavar="COLUMN[,…]", help="Columns that are no knobs.")
@click.option("--unit", type=click.Choice(["us", "ms", "s", "min", "h"]),
              help="Of times whose column does not say; default: s.")  # fmt: skip
@click.option("--memory-unit", metavar="UNIT", help="Of memory, likewise: B, MiB, GB, …")
@click.option("--footprints", is_flag=True, help="Count FLOPs and bytes by dry runs of --workload.")
@store_option
@json_option
def import_(file: Any, store: str | None, footprints: bool, as_json: bool, **said: Any) -> None:
    """Read measurements from FILE (- is stdin), all or none.

    FILE is what `epochcast probes export` wrote; or a CSV, JSON or JSON Lines of runs timed
    elsewhere: a batch size, seconds per epoch or per step, and perhaps peak memory, a device, the
    number of samples, FLOPs, bytes, parameters. Every other column is a model-size knob.
    """
    from epochcast.importers import runs
    from epochcast.report.text.probing import print_imported
    from epochcast.report.text.warnings import print_warnings
    from epochcast.storage.store import Store

    text = runs.text_of(file)
    if runs.is_export(text):
        _import_export(text, store, footprints or any(said.values()), as_json)
        return
    options = _import_options(**said)
    result = runs.read(text, options, count=_dry_runs(options) if footprints else None)
    with Store.open(store) as archive:
        archive.add_all(runs.numbered(result.measurements, archive.measurements()))
    if as_json:
        say_count("imported", len(result.measurements), as_json)
    else:
        print_imported(console(stderr=True), result.measurements, result.columns)
    print_warnings(console(stderr=True), result.warnings)


def _import_export(text: str, store: str | None, has_options: bool, as_json: bool) -> None:
    from epochcast.storage.store import Store

    if has_options:
        raise UsageError("what export wrote says everything itself; leave the options out")
    with Store.open(store) as archive:
        count = archive.import_(io.StringIO(text))
    say_count("imported", count, as_json)


def _import_options(
    maps: Sequence[dict[str, str]], ignore: Sequence[str], unit: str | None, **said: Any
) -> Options:
    from epochcast.importers.columns import Options

    return Options(
        unit=unit or "s",
        renamed={column: meaning for pairs in maps for column, meaning in pairs.items()},
        ignored=frozenset(column.strip() for part in ignore for column in part.split(",")),
        **said,
    )


def _dry_runs(options: Options) -> Count:
    """Counts a configuration of the workload by a dry run of it."""
    workload = options.workload
    if workload is None:
        raise UsageError("--footprints needs --workload, e.g. --workload train.py:workload")
    from epochcast.api.probe import dry_run

    def count(config: RunConfig) -> Footprint | None:
        sizes: dict[str, Any] = dict(config.sizes)
        return dry_run(workload, batch_size=config.batch_size, **sizes)

    return count
