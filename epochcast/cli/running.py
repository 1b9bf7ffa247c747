"""``epochcast run``: a training script as it is, watched from outside."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import click

from epochcast.cli.options import (
    DEADLINE,
    DURATION,
    EXISTING,
    POSITIVE,
    WithCommand,
    console,
    document,
    note_option,
    say,
    store_option,
)
from epochcast.cli.probing import VARIABLE
from epochcast.errors import EpochcastError, StoreError, UsageError

if TYPE_CHECKING:
    from epochcast.guard.events import Watcher
    from epochcast.records import Budget, Plan, RunEvent
    from epochcast.scripts.running import Finished, Run

SIGNALS = ("TERM", "USR1", "USR2", "INT")


@click.command(cls=WithCommand)
@click.argument("plan", required=False, type=EXISTING)
@click.option(
    "--deadline",
    type=DEADLINE,
    help="End within '8h', or before '08:00': the script is asked to save and leave in time. "
    "Default: the plan's limits.",
)
@click.option(
    "--signal",
    "signal_name",
    type=click.Choice(SIGNALS),
    help="Use this signal to ask. Default: the stop of Lightning or Trainer where they are seen, "
    "else SIGTERM or SIGUSR1, whichever the script handles.",
)
@click.option(
    "--lead",
    type=DURATION,
    help="Do that so long before the deadline. Default: what a save, a step and leaving take.",
)
@click.option(
    "--end-at-deadline",
    is_flag=True,
    help="End the command at the deadline, should it still run; otherwise it is left to itself.",
)
@click.option(
    "--epochs",
    type=POSITIVE,
    help="Take the run to have so many epochs. Default: the plan's, or what the script says.",
)
@click.option(
    "--steps-per-epoch",
    type=POSITIVE,
    help="Count so many optimizer steps as an epoch. Default: as its data loader says.",
)
@click.option(
    "--name", help="Give the script this name. Default: the plan's, or its file or module."
)
@click.option(
    "--env",
    "variables",
    type=VARIABLE,
    multiple=True,
    help="Give the command's environment this variable; repeatable.",
)
@click.option(
    "--folder",
    type=click.Path(file_okay=False),
    default="epochcast-run",
    show_default=True,
    help="Keep the log and what TensorBoard shows in this folder.",
)
@note_option
@store_option
@click.option("--no-store", is_flag=True, help="Let later predictions learn nothing from this run.")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Write one JSON document to stderr when the command has ended, and no lines.",
)
def run(**options: Any) -> None:
    """Run a training script as it is, and watch it beside its plan.

    \b
    epochcast run plan.json -- python train.py --batch-size 48 --epochs 100
    epochcast run --deadline 8h -- torchrun --nproc-per-node 2 train.py
    epochcast run -- bash run.sh

    The script is not changed and knows nothing of it. What is said goes to stderr; stdout, input
    and exit code are the command's.
    """
    from epochcast.scripts.running import run_command

    asked = _run_of(click.get_current_context().meta["command"], options)
    if (options["name"] or asked.plan) and not options["no_store"]:
        _require_own_name(asked, options["store"])
    if not options["no_store"]:  # as the command ends there may be no time to load it
        Thread(target=import_module, args=("epochcast.scripts.feedback",), daemon=True).start()
    collected = _Collected()
    finished = run_command(asked, [collected, *_watchers(asked.folder, options["as_json"])])
    if not options["no_store"]:
        _teach(asked, finished, options["store"])
    if options["as_json"]:
        _print_document(collected.events, finished.exit_code)
    else:
        _summarise(collected.events)
    sys.exit(finished.exit_code)


def _run_of(command: tuple[str, ...] | None, options: dict[str, Any]) -> Run:
    """What is to be run.

    Raises:
        UsageError: there is no command, or an option makes no sense.
    """
    from epochcast.guard.segments import in_segments
    from epochcast.profiler.machine import process_age
    from epochcast.profiler.target import called, is_target, require_name, workload_name
    from epochcast.records import Plan
    from epochcast.scripts.command import Filled, require_program
    from epochcast.scripts.running import Run

    environment = dict(options["variables"])
    if not command:
        raise UsageError("give the command that starts your script after --: -- python train.py")
    if options["plan"] and options["plan"].endswith((".py", ".sh")):
        raise UsageError(f"{options['plan']} is no plan, but comes before --: put it after --")
    filled = Filled(arguments=command, environment=tuple(environment.items()))
    require_program(filled, Path.cwd())
    plan = None if options["plan"] is None else in_segments(Plan.load(options["plan"]))
    target, name = workload_name(command), options["name"]
    follows = plan is not None and (plan.target == target or is_target(plan.target))
    if plan is not None and follows and name in (None, plan.workload):
        name = plan.workload  # a workload function is followed by whatever script
    else:
        require_name(name, target)
        if plan is not None and name == plan.workload != plan.target:
            raise UsageError(f"{name!r} is the name of {plan.target} in the plan, not of {target}")
    budget = _budget(plan, options["deadline"])
    return Run(
        arguments=command,
        workload=called(name, target),
        folder=Path(options["folder"]),
        environment=environment,
        note=options["note"],
        plan=None if plan is None else replace(plan, budget=budget),
        budget=budget,
        epochs=options["epochs"],
        steps_per_epoch=options["steps_per_epoch"],
        lead=options["lead"],
        signal=options["signal_name"] and f"SIG{options['signal_name']}",
        ends_at_limit=options["end_at_deadline"],
        before=process_age(),
    )


def _budget(plan: Plan | None, deadline: str | None) -> Budget:
    """The plan's, with the deadline that was given now."""
    from epochcast.records import Budget
    from epochcast.units import is_time, parse_deadline

    budget = Budget() if plan is None else plan.budget
    if deadline is None:
        return budget
    now = datetime.now()
    seconds = parse_deadline(deadline, now)
    moment = now.timestamp() + seconds if is_time(deadline) else None
    return replace(
        budget, deadline=seconds, deadline_at=moment, spent_seconds=0.0, counted_from="now"
    )


def _require_own_name(asked: Run, store: str | None) -> None:
    """Refuse a name before hours of training, not after; whether it can be stored shows then.

    Raises:
        UsageError: it is another's in the store.
    """
    from epochcast.scripts.feedback import earlier_of
    from epochcast.storage.store import Store

    with suppress(StoreError), Store.open(store, create="late") as opened:
        earlier_of(asked, opened)


def _teach(asked: Run, finished: Finished, store: str | None) -> None:
    """Let later predictions learn from the run; it has done its work, whatever becomes of that."""
    from epochcast.scripts.feedback import teach
    from epochcast.storage.store import Store

    try:
        with Store.open(store, create="late") as opened:
            teach(asked, finished, opened)
    except EpochcastError as error:
        say(f"epochcast: what the run showed could not be stored: {error}", err=True)


class _Collected:
    """Keeps what is said, for the summary."""

    def __init__(self) -> None:
        self.events: list[RunEvent] = []

    def see(self, event: RunEvent) -> None:
        """One more."""
        self.events.append(event)

    def close(self) -> None:
        """Nothing is left to do."""


def _watchers(folder: Path, as_json: bool) -> list[Watcher]:
    """Terminal, log, and TensorBoard where it is installed."""
    from epochcast.guard.log import LOG_NAME, LogWriter
    from epochcast.report.tensorboard import board_watcher
    from epochcast.report.text.following import TerminalWatcher

    folder.mkdir(parents=True, exist_ok=True)
    board = board_watcher(folder / "tensorboard")
    terminal = [] if as_json else [TerminalWatcher()]
    return [*terminal, LogWriter(folder / LOG_NAME), *([board] if board else [])]


def _summarise(events: list[RunEvent]) -> None:
    """Predicted and actual, in the words of ``follow-log``; how it ended has been said."""
    from epochcast.guard.log import ending
    from epochcast.report.text import layout
    from epochcast.report.text.following import summary_lines

    if ending(events) is None:
        say("epochcast: the command has ended, and no optimizer step was seen in it", err=True)
        return
    for line in summary_lines(events)[1:]:
        layout.say(console(stderr=True), line)


def _print_document(events: list[RunEvent], exit_code: int) -> None:
    import json

    from epochcast.guard.log import event_document
    from epochcast.report.text.following import summary_lines

    found = document(
        exit_code=exit_code,
        summary=summary_lines(events),
        events=[event_document(event) for event in events],
    )
    click.echo(json.dumps(found, indent=2, allow_nan=False), err=True)
