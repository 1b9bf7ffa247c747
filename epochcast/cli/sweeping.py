"""A sweep, of a workload or of a script: run, and what it measured printed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from epochcast.cli.options import INTERRUPTED, console, print_json

if TYPE_CHECKING:
    from epochcast.profiler.rounds import Observer, SweepResult
    from epochcast.records import Measurement
    from epochcast.storage.store import Store


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
            stderr.print(f"stopped after {progress.count} trials; the same command continues")
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
            )
        else:
            print_summaries(console(), summaries)
            show(result.measurements)
            print_probed(console(), progress.count, result, until, store)
    if not result.succeeded:
        sys.exit(1)
