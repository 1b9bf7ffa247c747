"""``epochcast check``: training steps held to a committed baseline."""

from __future__ import annotations

import sys
from typing import Any

import click

from epochcast.cli.options import (
    POSITIVE,
    Grouped,
    Parsed,
    accumulation_option,
    compile_option,
    console,
    drop_last_option,
    eval_batch_option,
    json_option,
    precision_option,
    print_json,
    set_option,
    single_knobs,
    workers_option,
    workload_argument,
)
from epochcast.errors import UsageError
from epochcast.units import parse_share

WORSE = 3  # the exit code of a plan that does not fit, too


def _parse_growth(text: str) -> float:
    """``"+2%"``, ``"0.02"`` or ``"2"``; of 1 alone nobody knows whether it is of percent.

    Raises:
        UsageError: the text is no share.
    """
    share = parse_share(text)
    if share == 1 and not text.strip().endswith("%"):
        raise UsageError(f"say 1% or 100%, but got {text!r}")
    return share


LIMIT = Parsed("+SHARE", _parse_growth)


GROUPS = {  # of the help: heading, and the parameters below it
    "Configuration (default: as the workload has it)": (
        "batch_size",
        "knobs",
        "accumulation",
        "precision",
        "compile",
        "drop_last",
        "workers",
        "eval_batch_size",
    ),
    "Baseline": ("baseline", "update", "memory", "work", "time"),
    "Output": ("as_json", "help"),
}


@click.command(
    cls=Grouped, groups=GROUPS, short_help="Hold training steps to a committed baseline, in CI."
)
@workload_argument(required=False)
@click.option("--batch-size", type=POSITIVE, help="Count this micro-batch.")
@set_option
@accumulation_option
@precision_option
@compile_option
@drop_last_option
@eval_batch_option
@workers_option
@click.option(
    "--baseline",
    default="epochcast-baseline.json",
    show_default=True,
    type=click.Path(dir_okay=False),
    help="Compare with this file.",
)
@click.option("--update", is_flag=True, help="Write what is found into the baseline.")
@click.option(
    "--max-memory",
    "memory",
    type=LIMIT,
    default="+0%",
    show_default=True,
    help="Let peaks of live tensors grow by so much.",
)
@click.option(
    "--max-work",
    "work",
    type=LIMIT,
    default="+0%",
    show_default=True,
    help="Let FLOPs, bytes moved and operators grow by so much.",
)
@click.option(
    "--max-time",
    "time",
    type=LIMIT,
    help="Time the step, too, and let it become so much slower, '+5%'. Default: it is not timed.",
)
@json_option
def check(
    workload: str | None,
    batch_size: int | None,
    knobs: Any,
    baseline: str,
    update: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Compare the training step of WORKLOAD (default: every one in the baseline) with a baseline.

    Parameters, samples, FLOPs, bytes, operators and peaks are counted, exactly and without a
    device; with --max-time the step is timed, too, and compared with what was timed on this device.
    What became worse ends with exit code 3.

    \b
    epochcast check train.py:workload --batch-size 32 --set width=256 --update
    epochcast check --max-memory +2%
    """
    from epochcast.api.check import Limits
    from epochcast.api.check import check as run_check
    from epochcast.profiler.request import OVERRIDES
    from epochcast.report.text.checking import print_checked

    limits = {name: options[name] for name in ("memory", "work", "time")}
    checked = run_check(
        workload,
        batch_size,
        sizes=single_knobs(knobs),
        overrides={name: options[name] for name in OVERRIDES if options[name] is not None},
        baseline=baseline,
        update=update,
        limits=Limits(**{name: limit for name, limit in limits.items() if limit is not None}),
        timed=options["time"] is not None,
    )
    if as_json:
        print_json(steps=checked, passed=all(step.passed for step in checked))
    else:
        print_checked(console(), checked, baseline, updated=update)
    if not update and not all(step.passed for step in checked):
        sys.exit(WORSE)
