"""``epochcast tensorboard``."""

from __future__ import annotations

import click

from epochcast.cli.options import reading, store_option
from epochcast.errors import StoreError


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), help="Default: 6006 or the next free one.")
@click.option("--open", "open_browser", is_flag=True, help="Open a browser.")
@store_option
def tensorboard(port: int | None, open_browser: bool, store: str | None) -> None:
    """Open TensorBoard on the store: traces, tables and figures. On localhost only."""
    from epochcast.api import probe as api
    from epochcast.report.tensorboard.server import serve

    with reading(store) as archive:
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
