"""The command line. Every command reads its options, calls the library, writes the result.

Nothing but click is imported until a command runs: ``epochcast --help`` answers at once, and
``predict`` never loads torch.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from itertools import product
from typing import TYPE_CHECKING, Any

import click

from epochcast import __version__
from epochcast.errors import EpochcastError, StoreError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from epochcast import foreign
    from epochcast.costmodel.model import CostModel
    from epochcast.profiler.protocol import Counted
    from epochcast.records import Footprint, Measurement, RunConfig
    from epochcast.store import Store

PIPE_WIDTH = 140  # columns of a table that goes to a file or another program
INTERRUPTED = 130  # 128 + SIGINT, as shells report it


ELSEWHERE = {"plan": "epochcast.cli_plan"}  # commands in files of their own


class _Group(click.Group):
    """Turns the library's errors into one line and an exit code, unless --debug asks for more."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *ELSEWHERE])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in ELSEWHERE:
            return super().get_command(ctx, cmd_name)
        command: click.Command = getattr(import_module(ELSEWHERE[cmd_name]), cmd_name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except EpochcastError as error:
            if ctx.params.get("debug"):
                raise
            click.echo(f"epochcast: {error}", err=True)
            ctx.exit(error.exit_code)


def main() -> None:
    """The entry point of ``epochcast`` and of ``python cli.py``."""
    cli(prog_name="epochcast")


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show tracebacks of errors.")
@click.version_option(__version__)
def cli(debug: bool) -> None:
    """What a PyTorch training run will cost, before it starts.

    \b
    epochcast probe mnist-mlp --batch-sizes 32,64,128,256 --set width=256,512,1024
    epochcast predict --epochs 90 --batch-size 192 --set width=768
    epochcast plan --epochs 90 --deadline 8h --price-per-hour 2.50 --budget '$18'
    epochcast tensorboard
    """


# -- options ------------------------------------------------------------------------------------


class _IntList(click.ParamType):  # type: ignore[type-arg]
    """``"32,64,128"``."""

    name = "N,N,…"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(int(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"expected whole numbers separated by commas, but got {value!r}", param, ctx)
        if any(number < 1 for number in numbers):
            self.fail(f"every number must be at least 1, but got {value!r}", param, ctx)
        return numbers


class _Knob(click.ParamType):  # type: ignore[type-arg]
    """``"width=256,512"``."""

    name = "NAME=VALUE[,VALUE…]"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, Any]:
        from epochcast.records import parse_size_value

        if isinstance(value, tuple):
            return value
        name, equals, values = value.partition("=")
        if not name or not equals or not values:
            self.fail(f"expected {self.name}, but got {value!r}", param, ctx)
        return name.strip(), tuple(parse_size_value(part) for part in values.split(","))


class _KnobOrRange(_Knob):
    """``"width=256,512"`` or ``"width=128..2048"``."""

    name = "NAME=VALUE[,VALUE…]|LOW..HIGH"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, Any]:
        name, _, values = value.partition("=") if isinstance(value, str) else ("", "", "")
        low, dots, high = values.partition("..")
        if not (name and dots):
            return super().convert(value, param, ctx)
        from epochcast.profiler.request import Range
        from epochcast.records import parse_size_value

        bounds = [parse_size_value(low), parse_size_value(high)]
        if not all(isinstance(b, int | float) and not isinstance(b, bool) for b in bounds):
            self.fail(f"a range needs two numbers, but got {value!r}", param, ctx)
        return name.strip(), Range(*bounds)  # type: ignore[arg-type]


class _Share(click.ParamType):  # type: ignore[type-arg]
    """``"5%"`` or ``"0.05"``."""

    name = "PERCENT"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        if isinstance(value, float):
            return value
        from epochcast.units import parse_share

        try:
            share = parse_share(str(value))
        except UsageError as error:
            self.fail(str(error), param, ctx)
        if not 0 < share < 1:
            self.fail(f"expected more than 0% and less than 100%, but got {value!r}", param, ctx)
        return share


class _Bytes(click.ParamType):  # type: ignore[type-arg]
    """``"24GiB"``."""

    name = "SIZE"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        if isinstance(value, int):
            return value
        from epochcast.units import parse_bytes

        try:
            return parse_bytes(str(value))
        except UsageError as error:
            self.fail(str(error), param, ctx)


class _Question(click.ParamType):  # type: ignore[type-arg]
    """``"epochs=90,batch-size=256,width=512"``."""

    name = "epochs=N,batch-size=N,KNOB=VALUE…"

    def convert(self, value: Any, param: Any, ctx: Any) -> dict[str, Any]:
        from epochcast.records import parse_size_value

        if isinstance(value, dict):
            return value
        pairs = [part.partition("=") for part in value.split(",")]
        if not all(name.strip() and equals and text.strip() for name, equals, text in pairs):
            self.fail(f"expected {self.name}, but got {value!r}", param, ctx)
        return {
            "batch_size" if name.strip() == "batch-size" else name.strip(): parse_size_value(text)
            for name, _, text in pairs
        }


class _Duration(click.ParamType):  # type: ignore[type-arg]
    """``"90"``, ``"5m"``, ``"1h 30m"``."""

    name = "DURATION"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        from epochcast.units import parse_seconds

        if isinstance(value, float):
            return value
        try:
            return parse_seconds(str(value))
        except UsageError as error:
            self.fail(str(error), param, ctx)


# ParamType takes a type argument from click 8.4 on, for type checkers alone.
INT_LIST, KNOB, DURATION = _IntList(), _Knob(), _Duration()
KNOB_OR_RANGE, SHARE, BYTES, QUESTION = _KnobOrRange(), _Share(), _Bytes(), _Question()
Command = Callable[..., Any]


def _store_option(command: Command) -> Command:
    return click.option(
        "--store", metavar="URL", help="Path or database URL; default: .epochcast/ right here."
    )(command)


def _json_option(command: Command) -> Command:
    return click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")(
        command
    )


def _set_option(command: Command) -> Command:
    return click.option(
        "--set", "knobs", type=KNOB, multiple=True, help="Values of a model-size knob; repeatable."
    )(command)


def _knobs(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    repeated = {name for name in names if names.count(name) > 1}
    if repeated:
        raise UsageError(f"--set {repeated.pop()} is given twice; write its values in one list")
    return dict(pairs)


def _console(stderr: bool = False) -> Console:
    from rich.console import Console

    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, PIPE_WIDTH)
    return console


def _print_json(**contents: Any) -> None:
    from epochcast.report import document

    click.echo(json.dumps(document(**contents), indent=2, allow_nan=False))


# -- probe --------------------------------------------------------------------------------------


@cli.command()
@click.argument("workload")
@click.option("--batch-sizes", type=INT_LIST, help="Micro-batches to visit.")
@click.option("--set", "knobs", type=KNOB_OR_RANGE, multiple=True,
              help="Values of a model-size knob, or a range to choose from.")  # fmt: skip
@click.option("--for", "asked", type=QUESTION,
              help="What will be asked; chooses what sharpens the answer.")  # fmt: skip
@click.option("--until", type=SHARE, help="Choose until the answer is this sharp; default 5%.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1 or mps.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads of torch.")
@click.option("--rounds", type=click.IntRange(min=1), help="Fresh processes per configuration.")
@click.option("--seconds", type=DURATION, help="Steady timing per visit.")
@click.option("--max-seconds", type=DURATION, help="Budget of the whole sweep.")
@click.option("--timeout", type=DURATION, help="Limit of one visit.")
@click.option("--data", type=click.Path(exists=True), help="Local data instead of synthetic.")
@click.option("--accumulation", type=click.IntRange(min=1), help="Micro-batches per update.")
@click.option("--precision", type=click.Choice(["fp32", "bf16", "fp16"]), help="Autocast.")
@click.option("--compile/--no-compile", "compiled", default=None, help="Use torch.compile.")
@click.option("--workers", type=click.IntRange(min=0), help="Data-loader processes.")
@click.option("--drop-last/--keep-last", default=None, help="The last partial batch.")
@click.option("--noise-scale", is_flag=True, help="Gradient noise, for `plan --batch-size free`.")
@click.option("--traces/--no-traces", default=True, help="torch.profiler traces at the end.")
@click.option("--fresh", is_flag=True, help="Forget what is stored of these configurations.")
@_store_option
@_json_option
def probe(workload: str, as_json: bool, store: str | None, **options: Any) -> None:
    """Measure WORKLOAD in short real training steps.

    WORKLOAD is a built-in (see `epochcast workloads`), file.py:function or package.module:function.
    What is in the store already is not measured again; after Ctrl-C the same command continues.
    """
    from epochcast import api, report
    from epochcast.costmodel.summary import summarise
    from epochcast.store import Store

    request = _request(workload, options)
    stderr = _console(stderr=True)
    progress = report.BarProgress(stderr) if stderr.is_terminal else report.PlainProgress(stderr)
    with Store.open(store) as archive:
        try:
            result = api.run_sweep(request, archive, progress)
        except KeyboardInterrupt:
            progress.close()
            stderr.print(f"stopped after {progress.count} visits; the same command continues")
            sys.exit(INTERRUPTED)
        finally:
            progress.close()
        summaries = summarise(result.measurements)
        if as_json:
            _print_json(
                stopped=result.stopped,
                seconds=result.seconds,
                half_width=result.half_width,
                summaries=summaries,
                measurements=result.measurements,
            )
        else:
            report.print_summaries(_console(), summaries)
            _print_noise(result.measurements)
            report.print_probed(_console(), progress.count, result, request.until)
    if not result.succeeded:
        sys.exit(1)


def _print_noise(measurements: Sequence[Measurement]) -> None:
    if any(m.gradient_noise is not None for m in measurements):
        from epochcast.report_plan import print_noise

        print_noise(_console(), measurements)


def _request(workload: str, options: dict[str, Any]) -> Any:
    from epochcast.api import target_of
    from epochcast.profiler.request import SweepRequest

    overrides = {
        "accumulation": options["accumulation"],
        "compile": options["compiled"],
        "drop_last": options["drop_last"],
        "precision": options["precision"],
        "workers": options["workers"],
    }
    optional = {
        "rounds": options["rounds"],
        "steady_seconds": options["seconds"],
        "timeout_seconds": options["timeout"],
    }
    return SweepRequest(
        target=target_of(workload),
        batch_sizes=options["batch_sizes"] or (),
        sizes=_knobs(options["knobs"]),
        overrides={name: value for name, value in overrides.items() if value is not None},
        device=options["device"],
        threads=options["threads"],
        max_seconds=options["max_seconds"],
        asked=options["asked"] or {},
        until=options["until"],
        data=options["data"],
        fresh=options["fresh"],
        noise_scale=options["noise_scale"],
        traces=options["traces"],
        **{name: value for name, value in optional.items() if value is not None},
    )


# -- dry run ------------------------------------------------------------------------------------


@cli.command("dry-run")
@click.argument("workload")
@click.option("--batch-size", "batch_sizes", type=INT_LIST, help="Micro-batch; or several.")
@_set_option
@click.option("--accumulation", type=click.IntRange(min=1), help="Micro-batches per update.")
@click.option("--precision", type=click.Choice(["fp32", "bf16", "fp16"]), help="Autocast.")
@click.option("--data", type=click.Path(exists=True), help="Local data instead of synthetic.")
@click.option("--timeline", is_flag=True, help="Every allocation and free of the step.")
@_store_option
@_json_option
def dry_run(
    workload: str, batch_sizes: tuple[int, ...] | None, knobs: Any, accumulation: int | None,
    precision: str | None, data: str | None, timeline: bool, store: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Count what a training step of WORKLOAD asks of any device, without running it.

    Where there is a store, the counts are kept: `predict` prices these configurations by them.
    """
    from epochcast.api import target_of
    from epochcast.profiler.counting import count
    from epochcast.profiler.request import SweepRequest
    from epochcast.report_footprint import print_footprints, print_timeline

    overrides = {"accumulation": accumulation, "precision": precision}
    request = SweepRequest(
        target=target_of(workload),
        batch_sizes=batch_sizes or (),
        sizes=_knobs(knobs),
        overrides={name: value for name, value in overrides.items() if value is not None},
        device="cpu",
        data=data,
    )
    counted = count(request, timeline=timeline or not as_json)
    _keep_footprints(request.target, counted, store)
    if as_json:
        _print_json(counted=counted)
        return
    rows = [(c.config, c.footprint) for c in counted]
    print_footprints(_console(), workload, rows)
    if timeline:
        print_timeline(_console(), rows)


def _keep_footprints(target: str, counted: Sequence[Counted], store: str | None) -> None:
    from epochcast.errors import StoreError
    from epochcast.profiler.source import source_of

    try:
        archive = _reading(store)
    except StoreError:
        if store is not None:
            raise
        return  # nothing was probed here: no store is made for counts alone
    with archive:
        found = {c.config: c.footprint for c in counted}
        archive.add_footprints(target, source_of(target), found)


# -- fit and predict ----------------------------------------------------------------------------


@cli.command()
@click.argument("workload", required=False)
@click.option("--device", help="Kind, or part of the name, of the device probed.")
@click.option("--output", "-o", type=click.Path(dir_okay=False), help="Write the model as JSON.")
@_store_option
@_json_option
def fit(
    workload: str | None, device: str | None, output: str | None, store: str | None, as_json: bool
) -> None:
    """Fit the cost model of WORKLOAD and explain it; `predict` does so by itself."""
    from epochcast import report
    from epochcast.lookup import fitted_model

    with _reading(store) as archive:
        model, notes = fitted_model(archive, workload, device)
    if output:
        model.save(output)
    report.print_warnings(_console(stderr=True), notes)
    if as_json:
        _print_json(model=model)
    else:
        report.print_model(_console(), model)


@cli.command()
@click.argument("workload", required=False)
@click.option("--epochs", type=INT_LIST, help="Passes over the data; several give a row each.")
@click.option("--steps", type=INT_LIST, help="Optimizer steps, instead of epochs.")
@click.option("--batch-size", "batch_sizes", type=INT_LIST, help="Micro-batch; or several.")
@_set_option
@click.option("--samples", type=click.IntRange(min=1), help="Training samples, if not as probed.")
@click.option("--accumulation", type=click.IntRange(min=1), help="Micro-batches per update.")
@click.option("--precision", type=click.Choice(["fp32", "bf16", "fp16"]), help="As probed.")
@click.option("--compile/--no-compile", "compiled", default=None, help="As probed.")
@click.option("--drop-last/--keep-last", default=None, help="As probed.")
@click.option("--workers", type=click.IntRange(min=0), help="Data-loader processes.")
@click.option("--eval-every", type=click.FloatRange(min=0), default=1.0, show_default=True,
              help="Epochs between evaluations; 0: never.")  # fmt: skip
@click.option("--save-every", type=click.FloatRange(min=0), default=1.0, show_default=True,
              help="Epochs between checkpoints; 0: none.")  # fmt: skip
@click.option("--memory", type=BYTES, help="Find the largest batch that fits, e.g. 24GiB.")
@click.option("--confidence", type=SHARE, default=0.95, show_default=True,
              help="Probability with which it must fit.")  # fmt: skip
@click.option("--price-per-hour", type=click.FloatRange(min=0), help="Of the device.")
@click.option("--device", help="Kind, or part of the name, of the device probed.")
@click.option("--model", "model_file", type=click.Path(), help="A model written by `fit -o`.")
@_store_option
@_json_option
def predict(
    workload: str | None, device: str | None, model_file: str | None, store: str | None,
    as_json: bool, **options: Any,
) -> None:  # fmt: skip
    """Price a training run of WORKLOAD (default: the one probed last)."""
    from epochcast import report
    from epochcast.costmodel.capacity import largest_batch
    from epochcast.costmodel.model import CostModel
    from epochcast.costmodel.prediction import predict as answer
    from epochcast.lookup import fitted_model
    from epochcast.records import Warning_

    questions = _questions(options)
    if model_file:
        model, notes = CostModel.load(model_file), tuple[Warning_, ...]()
        _require_same(model, model_file, workload, device)
    else:
        with _reading(store) as archive:
            model, notes = fitted_model(archive, workload, device)
    memory, confidence = options["memory"], options["confidence"]
    capacities = [largest_batch(model, q, memory, confidence) for q in questions if memory]
    if memory:
        pairs = zip(questions, capacities, strict=True)
        priced = options["epochs"] or options["steps"]
        questions = [replace(q, batch_size=c.batch_size) for q, c in pairs if priced]
    estimates = [answer(model, question) for question in questions]
    report.print_warnings(_console(stderr=True), notes)
    if as_json:
        found = {"estimates": estimates, **({"capacities": capacities} if memory else {})}
        _print_json(**found, notes=notes, chosen=model.explain())
        return
    report.print_capacities(_console(), capacities)
    if len(estimates) == 1:
        report.print_estimate(_console(), estimates[0])
    elif estimates:
        report.print_estimates(_console(), estimates)


def _require_same(
    model: CostModel, model_file: str, workload: str | None, device: str | None
) -> None:
    """Refuse a model of another workload or device than was asked for."""
    from epochcast.profiler.source import canonical

    if workload and canonical(workload) != model.workload:
        raise UsageError(f"{model_file} is a model of {model.workload}, but got {workload}")
    if device and not model.device.answers_to(device):
        raise UsageError(
            f"{model_file} is a model for {model.device.label}, but got --device {device}"
        )


def _questions(options: dict[str, Any]) -> list[Any]:
    """Every combination of the values given; epochs vary fastest."""
    from epochcast.costmodel.prediction import Question

    if options["memory"] and options["batch_sizes"]:
        raise UsageError("--memory asks for the largest batch; leave --batch-size out")
    given = bool(options["epochs"]), bool(options["steps"])
    if all(given) or not (any(given) or options["memory"]):
        raise UsageError("give --epochs, e.g. --epochs 90, or --steps")
    counted = "steps" if options["steps"] else "epochs"
    knobs = _knobs(options["knobs"])
    ways = ("accumulation", "precision", "compiled", "drop_last", "workers")
    shared = ("samples", *ways, "eval_every", "save_every")
    return [
        Question(
            batch_size=batch_size,
            sizes=dict(zip(knobs, values, strict=True)),
            price_per_hour=options["price_per_hour"],
            **{counted: count},
            **{name: options[name] for name in shared},
        )
        for *values, batch_size, count in product(
            *knobs.values(), options["batch_sizes"] or (None,), options[counted] or (1,)
        )
    ]


def _reading(store: str | None) -> Store:
    from epochcast.store import Store

    return Store.open(store, create=False)


# -- tensorboard --------------------------------------------------------------------------------


@cli.command()
@click.option("--port", type=click.IntRange(0, 65535), help="Default: 6006 or the next free one.")
@click.option("--open", "open_browser", is_flag=True, help="Open a browser.")
@_store_option
def tensorboard(port: int | None, open_browser: bool, store: str | None) -> None:
    """Open TensorBoard on the store: traces, tables and figures. On localhost only."""
    from epochcast import api
    from epochcast.board.server import serve

    with _reading(store) as archive:
        folder = archive.log_folder
        try:
            api.refresh_board(archive, required=True)
        except StoreError as error:
            if not folder.is_dir():
                raise
            click.echo(f"note: showing what was written before: {error}", err=True)
    serve(
        folder,
        port=port,
        open_browser=open_browser,
        on_ready=lambda url: click.echo(f"TensorBoard is at {url} (Ctrl-C to end)", err=True),
    )


# -- probes -------------------------------------------------------------------------------------


@cli.group()
def probes() -> None:
    """List, show, remove, export and import measurements."""


@probes.command("list")
@click.argument("workload", required=False)
@_store_option
@_json_option
def list_(workload: str | None, store: str | None, as_json: bool) -> None:
    """List the stored measurements, one line each."""
    from epochcast import report
    from epochcast.profiler.source import canonical

    with _reading(store) as archive:
        found = archive.measurements(canonical(workload) if workload else None)
        if workload and not found:
            known = ", ".join(sorted({m.workload for m in archive.measurements()})) or "nothing"
            click.echo(f"no measurements of {workload!r}; in the store: {known}", err=True)
    if as_json:
        _print_json(measurements=found)
    elif found:
        report.print_measurements(_console(), found)


@probes.command()
@click.argument("key")
@_store_option
@_json_option
def show(key: str, store: str | None, as_json: bool) -> None:
    """Show the measurement whose key starts with KEY, as JSON."""
    with _reading(store) as archive:
        _print_json(measurement=archive.get(key))


@probes.command()
@click.argument("keys", nargs=-1, required=True)
@_store_option
@_json_option
def remove(keys: tuple[str, ...], store: str | None, as_json: bool) -> None:
    """Remove the measurements whose keys start with KEYS."""
    with _reading(store) as archive:
        count = archive.remove([archive.whole_key(key) for key in keys])
    _say_count("removed", count, as_json)


def _say_count(done: str, count: int, as_json: bool) -> None:
    if as_json:
        _print_json(**{done: count})
    else:
        click.echo(f"{done} {count} measurements", err=True)


@probes.command()
@click.argument("file", type=click.File("w", encoding="utf-8", atomic=True), default="-")
@_store_option
def export(file: Any, store: str | None) -> None:
    """Write all measurements to FILE (default: stdout) as JSON Lines."""
    with _reading(store) as archive:
        count = archive.export(file)
    click.echo(f"exported {count} measurements", err=True)


class _Mapping(click.ParamType):  # type: ignore[type-arg]
    """``"batch=bs,epoch_seconds=time"``."""

    name = "MEANING=COLUMN[,…]"

    def convert(self, value: Any, param: Any, ctx: Any) -> dict[str, str]:
        if isinstance(value, dict):
            return value
        pairs = [part.partition("=") for part in value.split(",")]
        if not all(meaning.strip() and column.strip() for meaning, _, column in pairs):
            self.fail(f"expected {self.name}, but got {value!r}", param, ctx)
        return {column.strip(): meaning.strip() for meaning, _, column in pairs}


@probes.command("import")
@click.argument("file", type=click.File("r", encoding="utf-8"))
@click.option("--workload", help="What to call it, or whose knobs the columns are.")
@click.option("--device", help="Name of the device it was measured on.")
@click.option("--device-kind", type=click.Choice(["cpu", "cuda", "mps"]),
              help="If the name does not tell.")  # fmt: skip
@click.option("--samples", type=click.IntRange(min=1), help="Training samples of an epoch.")
@click.option("--eval-samples", type=click.IntRange(min=1), help="Samples of an evaluation.")
@click.option("--map", "maps", type=_Mapping(), multiple=True, help="What a column means.")
@click.option("--ignore", multiple=True, metavar="COLUMN[,…]", help="Columns that are no knobs.")
@click.option("--unit", type=click.Choice(["us", "ms", "s", "min", "h"]),
              help="Of times whose column does not say; default: s.")  # fmt: skip
@click.option("--memory-unit", metavar="UNIT", help="Of memory, likewise: B, MiB, GB, …")
@click.option("--footprints", is_flag=True, help="Count FLOPs and bytes by dry runs of --workload.")
@_store_option
@_json_option
def import_(file: Any, store: str | None, footprints: bool, as_json: bool, **said: Any) -> None:
    """Read measurements from FILE (- is stdin), all or none.

    FILE is what `epochcast probes export` wrote; or a CSV, or JSON Lines, of runs timed elsewhere:
    a batch size, seconds per epoch or per step, and perhaps peak memory, a device, the number of
    samples, FLOPs, bytes, parameters. Every other column is a model-size knob.
    """
    from epochcast import foreign, report
    from epochcast.store import Store

    text = foreign.text_of(file)
    if foreign.is_export(text):
        _import_export(text, store, footprints or any(said.values()), as_json)
        return
    options = _import_options(**said)
    result = foreign.read(text, options, count=_dry_runs(options) if footprints else None)
    with Store.open(store) as archive:
        archive.add_all(foreign.numbered(result.measurements, archive.measurements()))
    if as_json:
        _say_count("imported", len(result.measurements), as_json)
    else:
        report.print_imported(_console(stderr=True), result.measurements, result.columns)
    report.print_warnings(_console(stderr=True), result.warnings)


def _import_export(text: str, store: str | None, has_options: bool, as_json: bool) -> None:
    from epochcast.store import Store

    if has_options:
        raise UsageError("what export wrote says everything itself; leave the options out")
    with Store.open(store) as archive:
        count = archive.import_(io.StringIO(text))
    _say_count("imported", count, as_json)


def _import_options(
    maps: Sequence[dict[str, str]], ignore: Sequence[str], unit: str | None, **said: Any
) -> foreign.Options:
    from epochcast import foreign

    return foreign.Options(
        unit=unit or "s",
        renamed={column: meaning for pairs in maps for column, meaning in pairs.items()},
        ignored=frozenset(column.strip() for part in ignore for column in part.split(",")),
        **said,
    )


def _dry_runs(options: foreign.Options) -> foreign.Count:
    """Counts a configuration of the workload by a dry run of it."""
    workload = options.workload
    if workload is None:
        raise UsageError("--footprints needs --workload, e.g. --workload train.py:workload")
    from epochcast.api import dry_run

    def count(config: RunConfig) -> Footprint | None:
        sizes: dict[str, Any] = dict(config.sizes)
        return dry_run(workload, batch_size=config.batch_size, **sizes)

    return count


# -- catalogues ---------------------------------------------------------------------------------


@cli.command()
@_json_option
def workloads(as_json: bool) -> None:
    """List the built-in workloads and their knobs."""
    from epochcast import report
    from epochcast.api import builtin_workloads

    found = builtin_workloads()
    if as_json:
        _print_json(workloads=found)
    else:
        report.print_workloads(_console(), found)


@cli.command()
@click.argument("name", required=False)
@_json_option
def datasets(name: str | None, as_json: bool) -> None:
    """List the known data sets, or show the one called NAME."""
    from epochcast import report
    from epochcast.datasets.catalogue import CATALOGUE, find

    found = [find(name)] if name else list(CATALOGUE.values())
    if as_json:
        _print_json(datasets=found)
    else:
        report.print_datasets(_console(), found)
