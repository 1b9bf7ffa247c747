"""``epochcast probe`` and ``dry-run``: options to a sweep's request, what was found to tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from epochcast.cli.completing import of_knobs, of_words
from epochcast.cli.memory import answer, is_about_a_device, memory_options
from epochcast.cli.options import (
    DURATION,
    INT_LIST,
    KNOB_NAME,
    POSITIVE,
    QUESTION,
    SHARE,
    Grouped,
    Parsed,
    WithCommand,
    accumulation_option,
    compile_option,
    console,
    data_option,
    drop_last_option,
    eval_batch_option,
    json_option,
    knobs_by_name,
    note_option,
    precision_option,
    print_json,
    read_knob_or_range,
    reading,
    require_options,
    set_option,
    store_option,
    workers_option,
    workload_argument,
)
from epochcast.cli.sweeping import cluster_of, cluster_options, sweep_and_print
from epochcast.errors import StoreError, UsageError

if TYPE_CHECKING:
    from epochcast.profiler.protocol import Counted
    from epochcast.profiler.request import SweepRequest
    from epochcast.records import Measurement


def _read_variable(text: str) -> tuple[str, str]:
    """``"WIDTH={width}"``."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise UsageError(f"expected NAME=VALUE, but got {text!r}")
    return name, value


VARIABLE = Parsed("NAME=VALUE", _read_variable)
OF_SCRIPTS = ("variables", "epochs", "steps_per_epoch", "samples", "isolation")


def _check_knob(text: str) -> str:
    """The text itself: a command is given a value as it was typed."""
    read_knob_or_range(text)
    return text


KNOB_TEXT = Parsed(f"{KNOB_NAME}|LOW..HIGH", _check_knob)


GROUPS = {  # of the help of probe: heading, and the parameters below it
    "Configurations (default: as the workload has it)": (
        "batch_sizes",
        "knobs",
        "world_sizes",
        "sharding",
        "accumulation",
        "precision",
        "compile",
        "drop_last",
        "workers",
        "eval_batch_size",
        "data",
    ),
    "Measuring": (
        "device",
        "threads",
        "asked",
        "until",
        "rounds",
        "seconds",
        "max_seconds",
        "timeout",
        "noise_scale",
        "traces",
        "fresh",
        "try_all",
    ),
    "On a cluster (default: this machine)": ("on", "gpus", "cpus", "resources", "nodes"),
    "Of a command, which comes after --": (
        "variables",
        "epochs",
        "steps_per_epoch",
        "samples",
        "isolation",
    ),
    "Store and output": ("store", "name", "note", "as_json", "help"),
}
DRY_GROUPS = {  # of dry-run
    "Configurations (default: as the workload has it)": (
        "batch_sizes",
        "knobs",
        "accumulation",
        "precision",
        "eval_batch_size",
        "data",
    ),
    "Of a device, which need not be here (default: none)": (
        "device",
        "fit",
        "what_ifs",
        "confidence",
        "used",
        "world_size",
        "allocator",
        "plot",
    ),
    "Store and output": ("timeline", "store", "as_json", "help"),
}


@click.command(cls=WithCommand, groups=GROUPS)
@workload_argument(required=False)
@click.option(
    "--batch-size",
    "--batch-sizes",
    "batch_sizes",
    type=INT_LIST,
    help="Measure these micro-batches. Default: a few around the workload's own.",
)
@click.option(
    "--set",
    "knobs",
    type=KNOB_TEXT,
    multiple=True,
    shell_complete=of_knobs,
    help="Give a model-size knob these values, or a range to choose some from. Of a command: put "
    "each of them where it has {NAME}.",
)
@click.option(
    "--world-size",
    "--world-sizes",
    "world_sizes",
    type=INT_LIST,
    help="Train on so many devices of this machine at once, a process each. Default: 1.",
)
@click.option(
    "--sharding",
    type=click.Choice(["ddp", "fsdp"]),
    help="Let several devices share gradients (ddp), or parameters and optimizer too (fsdp). "
    "Default: ddp.",
)
@click.option(
    "--for",
    "asked",
    type=QUESTION,
    help="Choose what to measure so that the answer to this question is sharp. Default: measure "
    "every combination.",
)
@click.option("--until", type=SHARE, help="Measure until the answer is this sharp. Default: 5%.")
@click.option(
    "--device",
    default="auto",
    show_default=True,
    shell_complete=of_words("auto", "cpu", "cuda", "mps"),
    help="Measure on this device: cpu, cuda, cuda:1 or mps.",
)
@click.option(
    "--threads", type=POSITIVE, help="Let torch use this many CPU threads. Default: its own choice."
)
@click.option(
    "--rounds",
    type=POSITIVE,
    help="Measure each configuration so many times, each in a fresh process. Default: 3, and up to "
    "6 where those differ much.",
)
@click.option(
    "--seconds",
    type=DURATION,
    help="Time steady steps of each trial for so long. Default: 1s; each epoch of a command 4s.",
)
@click.option(
    "--max-seconds",
    type=DURATION,
    help="End the whole sweep within this time. Default: when all is measured.",
)
@click.option(
    "--timeout", type=DURATION, help="Give up a trial that takes longer than this. Default: 10m."
)
@data_option
@accumulation_option
@precision_option
@compile_option
@eval_batch_option
@workers_option
@drop_last_option
@click.option(
    "--noise-scale",
    is_flag=True,
    help="Measure the gradient noise too, for `plan --batch-size free`.",
)
@click.option(
    "--trace/--no-trace",
    "--traces/--no-traces",
    "traces",
    default=None,
    help="Record a torch.profiler trace of each configuration at the end, or none. Default: of a "
    "workload, not of a command.",
)
@click.option(
    "--env",
    "variables",
    type=VARIABLE,
    multiple=True,
    help="Give the command's environment a variable; {NAME} stands for a value there, too.",
)
@click.option(
    "--epochs",
    type=POSITIVE,
    help="Let the command run so many miniature epochs; {epochs} in it is that. Default: 3.",
)
@click.option(
    "--steps-per-epoch",
    type=POSITIVE,
    help="An epoch of the command has so many optimizer steps. Default: as its loader tells.",
)
@click.option(
    "--samples",
    type=POSITIVE,
    help="An epoch of the command has so many samples. Default: as its loader tells.",
)
@click.option(
    "--isolation",
    type=click.Choice(["auto", "overlay", "journal", "none"]),
    help="Take back what the command writes by an overlay of its folder, where the system has it "
    "(auto), by a journal of files, or not at all. Default: auto.",
)
@cluster_options
@click.option(
    "--try-all",
    is_flag=True,
    help="Measure also what will not fit the GPU. Default: what by a dry run surely will not is "
    "left out.",
)
@click.option("--fresh", is_flag=True, help="Forget what is stored of these configurations first.")
@click.option(
    "--name",
    help="Keep what is measured under this name, apart from other names of the same code; "
    "`predict NAME` asks for it. Default: WORKLOAD as it is written, or the script's file or "
    "module.",
)
@note_option
@store_option
@json_option
def probe(workload: str | None, as_json: bool, store: str | None, **options: Any) -> None:
    """Measure WORKLOAD, or a script as it is, in short training.

    \b
    epochcast probe mnist-mlp --batch-sizes 32,64
    epochcast probe -- python train.py --epochs 100
    epochcast probe --set batch_size=16,32 -- python train.py -b {batch_size}

    WORKLOAD is a built-in (see `epochcast workloads`), file.py:function or package.module:function;
    after -- comes the command that starts your script. What no option says is as it has it. What is
    in the store already is not measured again; after Ctrl-C the same command continues.
    """
    ctx = click.get_current_context()
    command = ctx.meta["command"]
    if command is not None:
        from epochcast.cli.probing_script import probe_script

        probe_script(ctx, command, workload, as_json, store)
        return
    if workload is None:
        raise UsageError(
            "give a workload to measure (epochcast workloads lists those built in), or a command "
            "after --, like -- python train.py"
        )
    require_options(ctx, OF_SCRIPTS, "is of a command, which comes after --")
    from epochcast.api import probe as api

    request, on = _request(workload, options), cluster_of(ctx)
    sweep_and_print(
        store,
        as_json,
        lambda archive, progress: api.run_sweep(request, archive, progress, on),
        _print_more,
        request.until,
    )


def _print_more(measurements: Sequence[Measurement]) -> None:
    from epochcast.report.text.probing import print_noise, print_worlds

    print_worlds(console(), measurements)
    print_noise(console(), measurements)


def _request(workload: str, options: dict[str, Any]) -> SweepRequest:
    from epochcast.profiler.request import OVERRIDES, SweepRequest
    from epochcast.profiler.target import target_of

    limits = {
        "rounds": options["rounds"],
        "steady_seconds": options["seconds"],
        "timeout_seconds": options["timeout"],
        "world_sizes": options["world_sizes"],
        "sharding": options["sharding"],
    }
    return SweepRequest(
        target=target_of(workload),
        batch_sizes=options["batch_sizes"],
        sizes=knobs_by_name([read_knob_or_range(text) for text in options["knobs"]]),
        overrides=_given({name: options[name] for name in OVERRIDES}),
        device=options["device"],
        threads=options["threads"],
        max_seconds=options["max_seconds"],
        asked=options["asked"] or {},
        until=options["until"],
        data=options["data"],
        fresh=options["fresh"],
        try_all=options["try_all"],
        name=options["name"],
        note=options["note"],
        noise_scale=options["noise_scale"],
        traces=options["traces"] is not False,
        **_given(limits),
    )


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """The options that were given; what is left out keeps its default."""
    return {name: value for name, value in options.items() if value is not None}


@click.command(
    "dry-run",
    cls=Grouped,
    groups=DRY_GROUPS,
    short_help="Count a training step without running it.",
)
@workload_argument(required=True)
@click.option(
    "--batch-size",
    "--batch-sizes",
    "batch_sizes",
    type=INT_LIST,
    help="Count these micro-batches.",
)
@set_option
@memory_options
@accumulation_option
@precision_option
@eval_batch_option
@data_option
@click.option("--timeline", is_flag=True, help="Show every allocation and free of the step.")
@store_option
@json_option
def dry_run(
    workload: str,
    batch_sizes: tuple[int, ...] | None,
    knobs: Any,
    accumulation: int | None,
    precision: str | None,
    eval_batch_size: int | None,
    data: str | None,
    timeline: bool,
    store: str | None,
    as_json: bool,
    **of_device: Any,
) -> None:
    """Count what a training step of WORKLOAD asks of a device, without running it.

    With --device it says whether the step fits there, and what fills the memory: no GPU is needed.
    Where there is a store, counts are kept: `predict` prices these configurations by them.
    """
    from epochcast.profiler.request import SweepRequest, count_footprints
    from epochcast.profiler.target import target_of
    from epochcast.report.text.probing import print_footprints, print_timeline

    request = SweepRequest(
        target=target_of(workload),
        batch_sizes=batch_sizes,
        sizes=knobs_by_name(knobs),
        overrides=_given(
            {
                "accumulation": accumulation,
                "precision": precision,
                "eval_batch_size": eval_batch_size,
            }
        ),
        device="cpu",
        data=data,
    )
    if is_about_a_device(of_device):
        answer(workload, request, of_device, as_json)
        return
    counted = count_footprints(request, timeline=timeline or not as_json)
    _keep_footprints(request.target, counted, store)
    if as_json:
        print_json(counted=counted)
        return
    rows = [(c.config, c.footprint) for c in counted]
    print_footprints(console(), workload, rows)
    if timeline:
        print_timeline(console(), rows)


def _keep_footprints(target: str, counted: Sequence[Counted], store: str | None) -> None:
    from epochcast.profiler.request import with_outer_timelines
    from epochcast.profiler.target import source_of
    from epochcast.storage.store import Store

    try:
        archive = reading(None) if store is None else Store.open(store)
    except StoreError:
        if store is not None:
            raise
        return  # nothing was probed here, and no store was named
    with archive:
        for data in {c.data for c in counted}:
            found = {c.config: c.footprint for c in counted if c.data == data}
            archive.add_footprints(target, source_of(target), with_outer_timelines(found), data)


@click.command()
@json_option
def workloads(as_json: bool) -> None:
    """List the built-in workloads and their knobs."""
    from epochcast.profiler.builtin import descriptions
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
