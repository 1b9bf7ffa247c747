"""The command line. Every command reads its options, calls the library, writes the result.

    probing.py     probe, dry-run, and what is built in: workloads, datasets
    probes.py      probes list, show, export, import, …; devices
    predicting.py  fit, predict, calibration
    comparing.py   compare
    plan.py        plan; plan_request.py reads its options
    running.py     run
    watching.py    follow-log, tensorboard
    reporting.py   report
    checking.py    check
    options.py     what the commands share
    completing.py  what a shell completes after a Tab
    settings.py    what a project says once, in a file

Nothing but click is imported until a command runs: ``epochcast --help`` answers at once, and
``predict`` never loads torch.
"""

from __future__ import annotations

import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from epochcast import __version__
from epochcast.errors import EpochcastError, UsageError
from epochcast.report.text.terminal import printable, tolerate
from epochcast.units import use_currency

HOMES = {  # the file of each command, which is loaded when it is asked for; in the order of work
    "probe": "probing",
    "predict": "predicting",
    "compare": "comparing",
    "plan": "plan",
    "run": "running",
    "report": "reporting",
    "tensorboard": "watching",
    "follow-log": "watching",
    "calibration": "predicting",
    "dry-run": "probing",
    "check": "checking",
    "fit": "predicting",
    "probes": "probes",
    "devices": "probes",
    "workloads": "probing",
    "datasets": "probing",
}


ELSEWHERE = {  # what the library calls an option
    "steady_seconds": "seconds",
    "pass_seconds": "seconds",
    "timeout_seconds": "timeout",
}


_NAME = re.compile(
    r"(?<![\w.'{])(?<!--set )(?<!--for )[a-z]+(?:_[a-z]+)+(?![\w=.(])|^[a-z]+(?= must )"
)


class _Group(click.Group):
    """Turns the library's errors into one line and an exit code, unless --debug asks for more."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(HOMES)

    def get_command(self, ctx: click.Context | None, cmd_name: str) -> click.Command | None:
        if cmd_name not in HOMES:
            return None
        home = import_module(f"epochcast.cli.{HOMES[cmd_name]}")
        command: click.Command = getattr(home, cmd_name.replace("-", "_"))
        for one in (command, *getattr(command, "commands", {}).values()):
            sentence, _, _ = str(one.help).split("\n")[0].rstrip(".").partition(". ")
            one.short_help = one.short_help or f"{sentence}."  # click would cut it
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """With a word on what a mistyped command may have meant."""
        if ctx.resilient_parsing:  # a shell completes
            return super().resolve_command(ctx, args)
        if args and args[0] not in HOMES and not args[0].startswith("-"):
            from difflib import get_close_matches

            meant = " or ".join(map(repr, get_close_matches(args[0], HOMES)))
            hint = f"did you mean {meant}?" if meant else f"there are: {', '.join(HOMES)}"
            ctx.fail(f"no such command {args[0]!r}; {hint}")
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None:
            self._tell_settings(ctx, command, rest)
        return name, command, rest

    def _tell_settings(self, ctx: click.Context, command: click.Command, rest: list[str]) -> None:
        """Options that a file gives are defaults of every command; those in use are said."""
        from epochcast.cli.settings import find_settings

        settings = find_settings(Path.cwd())
        try:
            use_currency(settings.currency)
        except UsageError as error:
            raise UsageError(f"currency in {settings.file}: {error}") from error
        path = [str(command.name)]
        if isinstance(command, click.Group) and rest and rest[0] in command.commands:
            path, command = [*path, rest[0]], command.commands[rest[0]]
        defaults: dict[str, Any] = settings.defaults(command)
        for name in reversed(path):
            defaults = {name: defaults}
        ctx.default_map = defaults
        used = settings.used_by(command, rest)
        if used and not {"--help", "-h"} & set(rest):
            click.echo(printable(used), err=True)

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """Errors in what comes before the command are one line, too."""
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.exceptions.NoArgsIsHelpError:
            raise
        except click.UsageError as error:
            hint = ""
            if isinstance(error, click.NoSuchOption) and _is_of_a_command(error.option_name):
                hint = "; it is an option of commands, and goes after the command"
            _say_error(_one_line(error, hint))
            raise click.exceptions.Exit(error.exit_code) from error

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except EpochcastError as error:
            if ctx.params.get("debug"):
                raise
            command = self.get_command(ctx, ctx.invoked_subcommand or "")
            said = str(error) if command is None else in_option_names(str(error), command)
            _say_error(said)
            ctx.exit(error.exit_code)
        except click.exceptions.NoArgsIsHelpError:
            raise
        except click.UsageError as error:  # it may quote an argument
            _say_error(_one_line(error))
            ctx.exit(error.exit_code)


def _say_error(said: str) -> None:
    """On stderr: one line, which a terminal shows without breaking words."""
    from epochcast.report.text.layout import PlainConsole, say

    console = PlainConsole(stderr=True, highlight=False)
    say(console, f"epochcast: {said}")


def _one_line(error: click.UsageError, hint: str = "") -> str:
    """What click says of an argument, with the option's name first and where to read on last."""
    said = error.format_message()
    if isinstance(error, click.NoSuchOption) and not re.fullmatch(r"[\w-]+", error.option_name):
        shown = re.match(r"[\w-]*", error.option_name)  # what follows may be a password
        said = f"no such option '{shown and shown[0]}…'"
    if type(error) is click.BadParameter and error.param is not None:
        said = f"{error.param.opts[0]}: {error.message}"
    said = said[0].lower() + said[1:].rstrip(".").replace("\n", " ")
    path = error.ctx.command_path if error.ctx else "epochcast"
    return f"{said}{hint} ({path} --help)"


def _is_of_a_command(option: str) -> bool:
    """Whether any command has an option of that name."""
    commands = [command for name in HOMES if (command := cli.get_command(None, name))]
    for group in [command for command in commands if isinstance(command, click.Group)]:
        commands += group.commands.values()
    return any(option in parameter.opts for command in commands for parameter in command.params)


def in_option_names(message: str, command: click.Command) -> str:
    """A message of the library with the arguments that it names called as they are typed here.

    Args:
        message: ``"min_delta must be finite"``; a name without an underscore is one where it begins
            the message, and else a word. A name in quotes or after --set was written by the user.
        command: whose options have those names.
    """
    options = {o.name: o.opts[0] for o in command.params if isinstance(o, click.Option)}
    options |= {long: options[short] for long, short in ELSEWHERE.items() if short in options}

    def option(match: re.Match[str]) -> str:
        name = match[0]
        return options.get(name) or options.get(f"{name}s") or name

    names = re.search(
        r"; it has: |--for knows ", message
    )  # as they are typed after --set and --for
    end = names.end() if names else len(message)
    return _NAME.sub(option, message[:end]) + message[end:]


def main() -> None:
    """The entry point of ``epochcast`` and of ``python cli.py``."""
    tolerate(sys.stdout, sys.stderr)
    cli(prog_name="epochcast")


@click.group(
    cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.option("--debug", is_flag=True, help="Show tracebacks of errors.")
@click.version_option(__version__)
def cli(debug: bool) -> None:
    """What a PyTorch training run will cost, before it starts.

    \b
    epochcast probe --set batch_size=16,32,64 -- python train.py -b {batch_size}
    epochcast predict --epochs 90 --batch-size 48
    epochcast plan --epochs 90 --deadline 8h --json > plan.json
    epochcast run plan.json -- python train.py -b 48
    """
