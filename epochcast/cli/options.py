"""What the commands share: types of options, ``--store``, ``--json`` and ``--set``, and output.

    "32,64"  ──read_int_list──▶  (32, 64)             Parsed(name, reader) is the click type
    "width=256,512"  ──read_knob──▶  ("width", (256, 512))

A reader turns text into a value or raises ``UsageError``.
"""

from __future__ import annotations

import gc
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from epochcast import units
from epochcast.cli.completing import of_devices, of_knobs, of_workloads
from epochcast.errors import UsageError
from epochcast.report.text.terminal import printable

if TYPE_CHECKING:
    from rich.console import Console

    from epochcast.storage.store import Store

INTERRUPTED = 130  # 128 + SIGINT, as shells report it
MOST_DIGITS = 300  # of a number, which no count has
LONGEST_NOTE = 200
PIPE_WIDTH = 140  # columns of a table that goes to a file or another program
KNOB_NAME = "NAME=VALUE[,VALUE…]"
QUESTION_NAME = "epochs=N,batch-size=N,KNOB=VALUE…"
Command = Callable[..., Any]


class Grouped(click.Command):
    """A command whose help lists its options under headings.

    Args:
        arguments: of ``click.Command``.
        groups: headings, and the parameters below each by their names; ``"help"`` is --help.
        settings: of ``click.Command``.
    """

    def __init__(
        self, *arguments: Any, groups: Mapping[str, Sequence[str]] | None = None, **settings: Any
    ) -> None:
        super().__init__(*arguments, **settings)
        self.groups = groups or {}

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if not self.groups:
            super().format_options(ctx, formatter)
            return
        records = {
            "help" if "--help" in p.opts else p.name: p.get_help_record(ctx)
            for p in self.get_params(ctx)
        }
        for heading, names in self.groups.items():
            with formatter.section(heading):
                formatter.write_dl([record for name in names if (record := records.get(name))])


class WithCommand(Grouped):
    """A command whose arguments end at ``--``; what follows is another command, word for word."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        at = args.index("--") if "--" in args else len(args)
        ctx.meta["command"] = tuple(args[at + 1 :]) if "--" in args else None
        return super().parse_args(ctx, args[:at])

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "[-- COMMAND…]"]


class Parsed(click.ParamType):  # type: ignore[type-arg]  # for type checkers alone, from click 8.4
    """Text that a reader turns into a value; its error becomes click's, which names the option."""

    def __init__(self, name: str, read: Callable[[str], Any]) -> None:
        self.name, self.read = name, read

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self.read(value)
        except UsageError as error:
            self.fail(str(error), param, ctx)


def read_int_list(text: str) -> tuple[int, ...]:
    """``"32,64,128"``.

    Raises:
        UsageError: a part is no whole number, or is below 1.
    """
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            f"expected whole numbers separated by commas, but got {text[:60]!r}"
        ) from None
    if any(number < 1 for number in numbers):
        raise UsageError(f"every number must be at least 1, but got {text[:60]!r}")
    return numbers


def read_number_list(text: str) -> tuple[float, ...]:
    """``"10,50,2.5"``; whole numbers stay whole.

    Raises:
        UsageError: a part is no number above 0.
    """
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"expected numbers separated by commas, but got {text!r}") from None
    if not all(0 < number < math.inf for number in numbers):
        raise UsageError(f"every number must be above 0, and below 1e308, but got {text[:60]!r}")
    return tuple(int(number) if number.is_integer() else number for number in numbers)


def read_knob(text: str) -> tuple[str, Any]:
    """``"width=256,512"``.

    Raises:
        UsageError: the name, the equals sign or the values are missing.
    """
    from epochcast.records import parse_size_value

    name, equals, values = text.partition("=")
    if not name or not equals or not values:
        raise UsageError(f"expected {KNOB_NAME}, but got {text!r}")
    return name.strip(), tuple(parse_size_value(part) for part in values.split(","))


def read_knob_or_range(text: str) -> tuple[str, Any]:
    """``"width=256,512"`` or ``"width=128..2048"``.

    Raises:
        UsageError: it is neither, or a bound of the range is no number.
    """
    name, _, values = text.partition("=")
    low, dots, high = values.partition("..")
    if not (name and dots):
        return read_knob(text)
    from epochcast.profiler.request import Range
    from epochcast.records import parse_size_value
    from epochcast.records.validation import is_number

    bounds = [parse_size_value(low), parse_size_value(high)]
    if not all(is_number(bound) for bound in bounds):
        raise UsageError(f"a range needs two numbers, but got {text!r}")
    return name.strip(), Range(*bounds)  # type: ignore[arg-type]


def read_inner_share(text: str) -> float:
    """``"5%"`` or ``"0.05"``; neither nothing nor everything.

    Raises:
        UsageError: it is no share, or one of 0 % and less or of 100 % and more.
    """
    share = units.parse_share(text)
    if not 0 < share < 1:
        raise UsageError(f"expected more than 0% and less than 100%, but got {text!r}")
    return share


def read_question(text: str) -> dict[str, Any]:
    """``"epochs=90,batch-size=256,width=512"``.

    Raises:
        UsageError: one of the pairs has no name or no value.
    """
    from epochcast.records import parse_size_value

    pairs = [part.partition("=") for part in text.split(",")]
    if not all(name.strip() and equals and value.strip() for name, equals, value in pairs):
        raise UsageError(f"expected {QUESTION_NAME}, but got {text!r}")
    return {
        "batch_size" if name.strip() == "batch-size" else name.strip(): parse_size_value(value)
        for name, _, value in pairs
    }


def read_note(text: str) -> str:
    """A line of a table.

    Raises:
        UsageError: it has several lines, or is long.
    """
    if len(text) > LONGEST_NOTE or len(text.splitlines()) > 1:
        raise UsageError(
            f"a note is one line of at most {LONGEST_NOTE} characters, but got "
            f"{units.format_number_of(len(text.splitlines()), 'line')} of {len(text):,}"
        )
    return text.strip()


def read_picture(text: str) -> str:
    """The name of a file that a picture can be written to."""
    from epochcast.report.plots.pictures import require_format

    require_format(text)
    return text


def read_deadline(text: str) -> str:
    """The text, which counts from when it is used; a time must lie ahead.

    Raises:
        UsageError: it is neither a duration nor a time, or a time that has passed.
    """
    try:
        units.parse_deadline(text, datetime.now())
    except UsageError as error:
        if units.is_time(text):
            raise
        times = "'08:00', 'tomorrow 8:00' or '2026-12-01 08:00'"
        raise UsageError(f"{error}; or it is a time, like {times}") from None
    return text


EXISTING = click.Path(exists=True, dir_okay=False, readable=True)
DEADLINE = Parsed("DURATION|TIME", read_deadline)
NUMBER_LIST = Parsed("N,N,…", read_number_list)
INT_LIST, KNOB = Parsed("N,N,…", read_int_list), Parsed(KNOB_NAME, read_knob)
QUESTION = Parsed(QUESTION_NAME, read_question)
SHARE = Parsed("SHARE", read_inner_share)
BYTES = Parsed("SIZE", units.parse_bytes)
DURATION = Parsed("DURATION", units.parse_seconds)
PICTURE = Parsed("FILE", read_picture)


def whole_number(least: int) -> Parsed:
    """A type for counts of at least ``least``."""

    def read(text: str) -> int:
        with suppress(ValueError):
            if len(text) <= MOST_DIGITS and int(text) >= least:
                return int(text)
        raise UsageError(f"expected a whole number of at least {least}, but got {text[:60]!r}")

    return Parsed("N", read)


def number(above_zero: bool = False) -> Parsed:
    """A type for finite amounts, of 0 or more, or of more than 0."""

    def read(text: str) -> float:
        with suppress(ValueError):
            value = float(text)
            if value > 0 or (value == 0 and not above_zero):
                return value
        which = "above 0" if above_zero else "of at least 0"
        raise UsageError(f"expected a number {which}, but got {text[:60]!r}")

    return Parsed("X", read)


POSITIVE, COUNT = whole_number(1), whole_number(0)
AMOUNT, POSITIVE_AMOUNT = number(), number(above_zero=True)
PRICE_OF_ONE = Parsed("X", units.parse_price)  # of an hour of a device


def workload_argument(required: bool) -> Callable[[Command], Command]:
    return click.argument("workload", required=required, shell_complete=of_workloads)


store_option = click.option(
    "--store",
    metavar="URL",
    help="Use the store at this path or database URL. Default: .epochcast/ right here.",
)
device_option = click.option(
    "--device",
    shell_complete=of_devices,
    help="Use what was probed on this device: its id (`epochcast devices`), kind or name. "
    "Default: where it was probed last.",
)


def model_options(command: Command) -> Command:
    """Where the fitted model comes from: probes of a device, or a file."""
    command = click.option(
        "--model",
        "model_file",
        type=EXISTING,
        help="Use the model that `fit -o` wrote to this file. Default: that of the store.",
    )(command)
    return device_option(command)


on_option = click.option(
    "--on",
    metavar="CARD",
    help="Say what it would take on another GPU, e.g. h100, by its data sheet. Default: none.",
)
note_option = click.option(
    "--note",
    type=Parsed("TEXT", read_note),
    default="",
    help="Keep this note with what is measured; `probes list` and `report` show it. Default: none.",
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Write one JSON document to stdout."
)
accumulation_option = click.option(
    "--accumulation",
    type=POSITIVE,
    help="Accumulate so many micro-batches in each optimizer step.",
)
precision_option = click.option(
    "--precision",
    type=click.Choice(["fp32", "bf16", "fp16"]),
    help="Compute in this precision, by autocast.",
)
compile_option = click.option(
    "--compile/--no-compile",
    default=None,
    help="Run the model under torch.compile or not.",
)
drop_last_option = click.option(
    "--drop-last/--keep-last",
    default=None,
    help="Drop or keep the last partial batch of an epoch.",
)
workers_option = click.option("--workers", type=COUNT, help="Load data with so many processes.")
eval_batch_option = click.option(
    "--eval-batch-size",
    type=POSITIVE,
    help="Evaluate batches of so many samples.",
)
gpus_per_node_option = click.option(
    "--gpus-per-node",
    "devices_per_node",
    type=POSITIVE,
    help="A machine has so many devices. Default: as many as any that was measured has; all "
    "are in one where no two machines were.",
)
data_option = click.option(
    "--data",
    type=click.Path(exists=True),
    help="Read data from this folder. Default: make synthetic data.",
)
plot_option = click.option(
    "--plot", type=PICTURE, help="Draw a picture into this file, a .png or .svg. Default: none."
)
set_option = click.option(
    "--set",
    "knobs",
    type=KNOB,
    multiple=True,
    shell_complete=of_knobs,
    help="Give a model-size knob these values; repeatable.",
)


def knobs_by_name(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """The values that ``--set`` gave each knob.

    Raises:
        UsageError: a knob is given twice.
    """
    names = [name for name, _ in pairs]
    repeated = {name for name in names if names.count(name) > 1}
    if repeated:
        raise UsageError(f"--set {repeated.pop()} is given twice; write its values in one list")
    return dict(pairs)


def require_options(ctx: click.Context, names: Sequence[str], why: str) -> None:
    """Refuse options that do not belong to what is probed.

    Args:
        ctx: of the command.
        names: of parameters that were not to be given.
        why: to be said of one that was.

    Raises:
        UsageError: one was.
    """
    for parameter in ctx.command.params:
        source = ctx.get_parameter_source(parameter.name or "")
        if parameter.name in names and source is click.core.ParameterSource.COMMANDLINE:
            raise UsageError(f"{parameter.opts[0]} {why}")


def reading(store: str | None) -> Store:
    """A store that is there already."""
    from epochcast.storage.store import Store

    return Store.open(store, create=False)


def single_knobs(pairs: Sequence[tuple[str, tuple[Any, ...]]]) -> dict[str, Any]:
    """The value that ``--set`` gave each knob.

    Raises:
        UsageError: a knob has several values, or is given twice.
    """
    knobs = knobs_by_name(pairs)
    for name, values in knobs.items():
        if len(values) > 1:
            raise UsageError(f"this is for one model: give one value of {name}, not {values}")
    return {name: values[0] for name, values in knobs.items()}


def console(stderr: bool = False) -> Console:
    """Stdout or stderr; wide where nobody's window limits it."""
    from epochcast.report.text.layout import PlainConsole

    console = PlainConsole(stderr=stderr, highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, PIPE_WIDTH)
    return console


def say(text: str, err: bool = False) -> None:
    """A line on stdout or stderr; nothing in it moves the cursor of a terminal."""
    click.echo(printable(text), err=err)


def print_json(**contents: Any) -> None:
    """One JSON document on stdout."""
    click.echo(json.dumps(document(**contents), indent=2, allow_nan=False))


def document(**contents: Any) -> dict[str, Any]:
    """A JSON document: records as objects, knobs as an object by name, a schema number."""
    from epochcast.records import SCHEMA, to_builtins

    plain = {name: _with_named_pairs(to_builtins(value)) for name, value in contents.items()}
    return {"schema": SCHEMA, **plain}


def _with_named_pairs(value: Any) -> Any:
    if isinstance(value, dict):
        named = {k: _with_named_pairs(v) for k, v in value.items()}
        for pairs in ("sizes", "overrides", "details"):
            if isinstance(named.get(pairs), list | tuple):
                named[pairs] = dict(named[pairs])
        return named
    if isinstance(value, list | tuple):
        return [_with_named_pairs(item) for item in value]
    return value


def say_count(done: str, count: int, as_json: bool) -> None:
    """How many measurements something was done to.

    Args:
        done: the past participle, ``"removed"``; in JSON it is the name of the number.
        count: of the measurements.
        as_json: whether to write a JSON document to stdout, instead of a line to stderr.
    """
    if as_json:
        print_json(**{done: count})
    else:
        say(f"{done} {units.format_number_of(count, 'measurement')}", err=True)


@contextmanager
def without_collecting() -> Iterator[None]:
    """What imports make lives until the end; looking for garbage in it is a fifth of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()  # not at exit either
        if enabled:
            gc.enable()
