"""``epochcast calibration``: predicted against actual over all runs that were followed."""

from __future__ import annotations

import click

from epochcast.cli.options import console, json_option, print_json, reading, store_option
from epochcast.errors import UsageError


@click.command()
@click.argument("workload", required=False)
@click.option("--device", help="Kind, or part of the name, of the device it ran on.")
@click.option("--plot", type=click.Path(dir_okay=False), help="A picture: .png or .svg.")
@click.option("--forget", metavar="RUN", help="Remove what a run took, e.g. of a broken one.")
@store_option
@json_option
def calibration(
    workload: str | None, device: str | None, plot: str | None, forget: str | None,
    store: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Show predicted against actual over the followed runs of WORKLOAD (default: of all)."""
    from epochcast.report.text.estimate import print_compared, print_how_to_follow
    from epochcast.storage.comparing import compare

    with reading(store) as archive:
        if forget is not None and not archive.remove_outcome(forget):
            raise UsageError(f"there is no run {forget!r} to forget; --json shows their names")
        compared = compare(archive, workload, device)
        known = [] if compared.runs else sorted({o.workload for o in archive.outcomes()})
    if plot and compared.judged:
        from epochcast.report.plots.comparison import draw_runs
        from epochcast.report.plots.pictures import save_picture

        save_picture(draw_runs(compared.judged), plot)
    if as_json:
        print_json(runs=compared.runs, corrections=compared.corrections)
    elif compared.runs:
        print_compared(console(), compared)
    else:
        asked = " on ".join(filter(None, (workload or (device and "anything"), device)))
        print_how_to_follow(console(), asked, known)
