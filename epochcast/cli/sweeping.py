"""A sweep, of a workload or of a script: run, and what it measured printed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from epochcast.cli.options import (
    INTERRUPTED,
    POSITIVE,
    Parsed,
    console,
    print_json,
    require_options,
)
from epochcast.errors import UsageError
from epochcast.units import format_number_of

if TYPE_CHECKING:
    from epochcast.profiler.cluster import ClusterRequest
    from epochcast.profiler.rounds import Observer, SweepResult
    from epochcast.records import Measurement
    from epochcast.storage.store import Store

_Command = TypeVar("_Command", bound=Callable[..., Any])

OF_CLUSTERS = ("gpus", "cpus", "resources", "nodes")


def _read_resource(text: str) -> tuple[str, float]:
    """``"accelerator_type:H100=0.001"``."""
    name, equals, amount = text.rpartition("=")
    try:
        number = float(amount)
    except ValueError:
        number = 0.0
    if not name or not equals or number <= 0:
        raise UsageError(f"expected NAME=NUMBER, above 0, but got {text!r}")
    return name, number


def cluster_options(command: _Command) -> _Command:
    """Where a sweep is made, and what each of its trials holds there."""
    for option in (
        click.option(
            "--on",
            metavar="RAY",
            help="Measure on a Ray cluster: on one that is started here (ray), or one that "
            "is there (ray://HOST:10001, HOST:PORT, auto). Default: without Ray.",
        ),
        click.option(
            "--gpus-per-probe",
            "gpus",
            type=click.IntRange(min=0),
            metavar="N",
            help="Give each trial so many GPUs of its own. Default: 1 where a node has any.",
        ),
        click.option(
            "--cpus-per-probe",
            "cpus",
            type=POSITIVE,
            help="Give each trial so many cores of its own. Default: 1.",
        ),
        click.option(
            "--resource",
            "resources",
            type=Parsed("NAME=NUMBER", _read_resource),
            multiple=True,
            help="Give each trial so much of a resource that nodes have, as "
            "accelerator_type:H100=0.001 for that GPU.",
        ),
        click.option(
            "--nodes",
            type=click.Choice(["one", "alike", "each"]),
            help="Use one node, all whose devices are like its own, or one of each kind of device. "
            "Default: one.",
        ),
    ):
        command = option(command)
    return command


def cluster_of(ctx: click.Context) -> ClusterRequest | None:
    """The cluster that was asked for, if any was.

    Raises:
        UsageError: an option of clusters without one.
    """
    from epochcast.profiler.cluster import ClusterRequest

    options: Mapping[str, Any] = ctx.params
    if options["on"] is None:
        require_options(ctx, OF_CLUSTERS, "is of a cluster: say which by --on")
        return None
    given = {name: options[name] for name in ("gpus", "cpus", "nodes")}
    return ClusterRequest(
        address=options["on"],
        resources=dict(options["resources"]),
        **{name: value for name, value in given.items() if value is not None},
    )


def sweep_and_print(
    store: str | None,
    as_json: bool,
    sweep: Callable[[Store, Observer], SweepResult],
    show: Callable[[Sequence[Measurement]], None],
    until: float | None = None,
) -> None:
    """Run a sweep, and print what was measured; Ctrl-C leaves what was.

    Args:
        store: path or URL.
        as_json: whether to write a JSON document.
        sweep: measures into a store, and tells of its progress.
        show: prints what is beside the table.
        until: half width of the interval that was to be reached.
    """
    from epochcast.costmodel.summary import summarise
    from epochcast.report.text.probing import print_probed, print_summaries
    from epochcast.report.text.progress import BarProgress, PlainProgress
    from epochcast.storage.store import Store

    stderr = console(stderr=True)
    progress = BarProgress(stderr) if stderr.is_terminal else PlainProgress(stderr)
    with Store.open(store, create="late") as archive:
        try:
            result = sweep(archive, progress)
        except KeyboardInterrupt:
            progress.close()
            stderr.print(
                f"stopped after {format_number_of(progress.count, 'trial')}; the same command "
                "continues"
            )
            sys.exit(INTERRUPTED)
        finally:
            progress.close()
        summaries = summarise(result.measurements)
        if as_json:
            print_json(
                stopped=result.stopped,
                seconds=result.seconds,
                half_width=result.half_width,
                rounds=result.rounds,
                summaries=summaries,
                measurements=result.measurements,
                left_out=result.left_out,
            )
        else:
            print_summaries(console(), summaries)
            show(result.measurements)
            print_probed(console(), progress.count, result, until, store)
    if not result.succeeded:
        sys.exit(1)
