"""``epochcast probe -- COMMAND``: options to a request, what was seen to tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from epochcast.cli.options import (
    console,
    knobs_by_name,
    read_knob_or_range,
    require_options,
)
from epochcast.cli.sweeping import cluster_of, sweep_and_print
from epochcast.errors import UsageError
from epochcast.profiler.request import Range

if TYPE_CHECKING:
    from epochcast.scripts.request import ScriptRequest

OF_WORKLOADS = (
    "asked",
    "until",
    "world_sizes",
    "sharding",
    "device",
    "threads",
    "data",
    "accumulation",
    "precision",
    "compile",
    "eval_batch_size",
    "workers",
    "drop_last",
    "noise_scale",
    "try_all",
)


def probe_script(
    ctx: click.Context,
    command: tuple[str, ...],
    workload: str | None,
    as_json: bool,
    store: str | None,
) -> None:
    """Measure a command.

    Args:
        ctx: with the options.
        command: what comes after ``--``.
        workload: what comes before it; nothing may.
        as_json: whether to write a JSON document.
        store: path or URL.

    Raises:
        UsageError: an option that is not of a command.
        ScriptFailed: the command does not train.
    """
    from epochcast.api.probe import run_script_sweep
    from epochcast.report.text.scripts import print_seen
    from epochcast.scripts.trial import ScriptFailed

    if workload is not None:
        raise UsageError(
            f"{workload!r} comes before --: measure a workload, or the command after it; options "
            "of epochcast go before --, those of the script after it"
        )
    require_options(ctx, OF_WORKLOADS, "is of a workload: a command says that by its arguments")
    require_options(
        ctx, ("batch_sizes",), "is of a workload: write --set batch_size=16,32 and {batch_size}"
    )
    request, on = _request(command, ctx.params), cluster_of(ctx)
    try:
        sweep_and_print(
            store,
            as_json,
            lambda archive, progress: run_script_sweep(request, archive, progress, on),
            lambda measurements: print_seen(console(), measurements),
        )
    except ScriptFailed as error:
        for line in error.lines:
            console(stderr=True).print(f"  {line}", soft_wrap=True)
        raise


def _request(command: tuple[str, ...], options: Mapping[str, Any]) -> ScriptRequest:
    from epochcast.scripts.command import Template
    from epochcast.scripts.request import ScriptRequest

    named = {
        "pass_seconds": options["seconds"],
        "rounds": options["rounds"],
        "timeout_seconds": options["timeout"],
        "epochs": options["epochs"],
        "isolation": options["isolation"],
    }
    return ScriptRequest(
        template=Template(arguments=command, environment=options["variables"]),
        choices=_choices(options["knobs"]),
        folder=Path.cwd(),
        name=options["name"],
        max_seconds=options["max_seconds"],
        steps_per_epoch=options["steps_per_epoch"],
        samples=options["samples"],
        traces=bool(options["traces"]),
        fresh=options["fresh"],
        note=options["note"],
        **{name: value for name, value in named.items() if value is not None},
    )


def _choices(texts: Sequence[str]) -> dict[str, Sequence[str]]:
    """The values of each name, as they were typed; of a range those that a sweep would try."""
    pairs = [(text, *read_knob_or_range(text)) for text in texts]
    knobs_by_name([(name, values) for _, name, values in pairs])
    return {
        name: [str(value) for value in values.values()]
        if isinstance(values, Range)
        else text.partition("=")[2].split(",")
        for text, name, values in pairs
    }
