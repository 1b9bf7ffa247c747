"""``epochcast follow-log`` and ``tensorboard``: what a run or a store looks like, now or later."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from epochcast.cli.options import (
    console,
    json_option,
    plot_option,
    print_json,
    reading,
    say,
    store_option,
)
from epochcast.errors import StoreError, UsageError

if TYPE_CHECKING:
    from epochcast.guard.log import LogReader
    from epochcast.records import RunEvent

POLL_SECONDS = 1.0  # an epoch is rarely shorter, and reading nothing costs nothing


@click.command(short_help="Show the log of a run that follows a plan.")
@click.argument("log", type=click.Path(exists=True))
@click.option("--watch", is_flag=True, help="Go on showing the run until it stops, or Ctrl-C.")
@plot_option
@json_option
def follow_log(log: str, watch: bool, plot: str | None, as_json: bool) -> None:
    """Show the log of a run that follows a plan: LOG is the run's folder, or the file in it.

    \b
    epochcast follow-log runs/a --watch
    epochcast follow-log runs/a/log.jsonl --plot run.png
    """
    from epochcast.guard.log import LogReader

    if watch and as_json:
        raise UsageError("--json is one document, and --watch goes on: give one of them")
    reader = LogReader(log)
    events = reader.news() if as_json else print_lines(reader, _pause if watch else None)
    _print_document(events) if as_json else _print_summary(events)
    if plot:
        from epochcast.report.plots.following import draw_run
        from epochcast.report.plots.pictures import save_picture

        save_picture(draw_run(events), plot)


def print_lines(reader: LogReader, pause: Callable[[], object] | None) -> list[RunEvent]:
    """Print every event, until there are no more or Ctrl-C; those that were printed."""
    from epochcast.report.text.following import TerminalWatcher

    watcher = TerminalWatcher(say)
    seen: list[RunEvent] = []
    with suppress(KeyboardInterrupt):
        for event in growing(reader, pause):
            watcher.see(event)
            seen.append(event)
    return seen


def growing(reader: LogReader, pause: Callable[[], object] | None) -> Iterator[RunEvent]:
    """What is in a log, then what is added to it, until the run stops.

    Args:
        reader: of the log.
        pause: what to do before looking again; None looks once.
    """
    from epochcast.guard.log import ending

    seen = reader.news()
    yield from seen
    while pause is not None and ending(seen) is None:
        pause()
        news = reader.news()
        yield from news
        seen = (*seen, *news)


def _pause() -> None:
    time.sleep(POLL_SECONDS)


def _print_summary(events: Sequence[RunEvent]) -> None:
    """The summary; the reason for an end has been printed as the last line."""
    from epochcast.guard.log import ending
    from epochcast.report.text import layout
    from epochcast.report.text.following import summary_lines

    lines = summary_lines(events)
    for line in lines if ending(events) is None else lines[1:]:
        layout.say(console(), line)


def _print_document(events: Sequence[RunEvent]) -> None:
    from epochcast.guard.log import ending, event_document
    from epochcast.report.text.following import summary_lines

    end = ending(events)
    print_json(
        ended=end is not None,
        reason=end.reason if end else None,
        summary=summary_lines(events),
        events=[event_document(event) for event in events],
    )


@click.command()
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="Listen on this port. Default: 6006 or the next free one.",
)
@click.option(
    "--host",
    default="localhost",
    show_default=True,
    help="Listen on this address; 0.0.0.0 lets every machine in that can reach this one.",
)
@click.option("--open", "open_browser", is_flag=True, help="Open a browser, too.")
@store_option
@json_option
def tensorboard(
    port: int | None, host: str, open_browser: bool, store: str | None, as_json: bool
) -> None:
    """Open TensorBoard on the store: traces, tables and figures. On localhost only, by default."""
    from epochcast.api import probe as api
    from epochcast.report.tensorboard import serve

    with reading(store) as opened:
        folder = opened.log_folder
        try:
            api.refresh_board(opened, required=True)
        except StoreError as error:
            if not folder.is_dir():
                raise
            say(f"note: showing what was written before: {error}", err=True)
    serve(
        folder,
        port=port,
        host=host,
        open_browser=open_browser,
        on_ready=_print_url_document if as_json else _print_url,
    )


def _print_url(url: str) -> None:
    say(f"TensorBoard is at {url} (Ctrl-C to end)", err=True)


def _print_url_document(url: str) -> None:
    print_json(url=url)
