"""TensorBoard: what is written for it, and a tab of our own with the traces. No torch in here.

a store      ──publish.py──▶ index.py, contents.py ──▶ files in the log folder
a run        ──following.py──▶ an event file for each process        events.py: their format
TensorBoard  ──plugin.py──▶ our tab, its pictures (drawings.py)      serve(): starts it
                            and traces, two on one scale (spans.py)
"""

from __future__ import annotations

import threading
import webbrowser
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epochcast.errors import EpochcastError, UsageError
from epochcast.report import require_packages
from epochcast.report.tensorboard.index import find_indexes

if TYPE_CHECKING:
    from epochcast.report.tensorboard.following import BoardWatcher

# TensorBoard smooths curves by default, which moves measured points; the tab is our own.
_VIEW = "?smoothing=0#epochcast"
_RELOAD_SECONDS = 5.0
LOCAL = ("localhost", "127.0.0.1", "::1")

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]  # of WSGI (PEP 3333)


def board_watcher(folder: str | Path) -> BoardWatcher | None:
    """A watcher that writes a run's events to a folder; None where TensorBoard is missing."""
    if find_spec("tensorboard") is None:
        return None
    from epochcast.report.tensorboard.following import BoardWatcher

    return BoardWatcher(folder)


def serve(
    folder: Path,
    *,
    port: int | None = None,
    host: str = "localhost",
    open_browser: bool = False,
    on_ready: Callable[[str], None] = lambda url: None,
) -> None:
    """Run TensorBoard on a log folder until Ctrl-C.

    Args:
        folder: TensorBoard's log folder, written by ``publish``.
        port: TCP port; 0 for any that is free; None for 6006 or, if taken, the next free one.
        host: the address to listen on; other machines, and other names of this one, reach it only
            if this is changed.
        open_browser: show the page in the user's browser.
        on_ready: called once with the page's URL, when it answers.

    Raises:
        MissingDependency: TensorBoard is not installed.
        UsageError: the port is no port.
        EpochcastError: there is nothing to show, or the port is taken.
    """
    require_packages("tensorboard")
    if port is not None and not 0 <= port <= 65535:
        raise UsageError(f"a port is between 0 and 65535, but got {port}")
    if next(find_indexes(folder), None) is None:
        raise EpochcastError(
            f"nothing to show: no probed configuration in {folder}; "
            "next: epochcast probe mnist-mlp --batch-sizes 32,64,128"
        )
    server, url = _start(folder, host, port)
    try:
        on_ready(url + _VIEW)
        if open_browser:
            webbrowser.open(url + _VIEW)
        threading.Event().wait()
    except KeyboardInterrupt:
        return
    finally:
        server.shutdown()
        server.server_close()


def for_local_names(application: Application) -> Application:
    """The same application, for requests that name this machine as a browser on it does.

    A page of somebody else's whose name is made to lead here (DNS rebinding) would be of the same
    origin to the browser, and could read everything.
    """

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if _name_of(environ.get("HTTP_HOST", "")) in LOCAL:
            return application(environ, start_response)
        start_response("403 Forbidden", [("Content-Type", "text/plain; charset=utf-8")])
        return [b"Only localhost is answered here; for other names: epochcast tensorboard --host"]

    return answer


def _name_of(host: str) -> str:
    """The name in a Host header, without its port: ``[::1]:6006`` is ``::1``."""
    name, colon, port = host.rpartition(":")
    bare = name if colon and port.isdigit() and (name.startswith("[") or ":" not in name) else host
    return bare.removeprefix("[").removesuffix("]").removesuffix(".").lower()


def _start(folder: Path, host: str, port: int | None) -> tuple[Any, str]:
    """TensorBoard's server, answering in a thread of its own, and its URL.

    Only TensorBoard's own plugins and ours are loaded: somebody else's may import torch, or load
    scripts from the network. Files are read in this process (``load_fast=false``), not by a
    helper process that could outlive it.
    """
    from tensorboard import default, program
    from tensorboard.util import tb_logging

    from epochcast.report.tensorboard.plugin import EpochcastPlugin

    servers: list[Any] = []

    def make_server(application: Any, flags: Any) -> Any:
        guarded = application if host not in LOCAL else for_local_names(application)
        servers.append(program.create_port_scanning_werkzeug_server(guarded, flags))
        return servers[0]

    tb_logging.get_logger().setLevel("ERROR")  # it warns whenever a probe replaces values
    board = program.TensorBoard(
        plugins=[*default.get_static_plugins(), EpochcastPlugin], server_class=make_server
    )
    board.configure(
        logdir=str(folder),
        host=host,
        port=port,
        load_fast="false",
        reload_interval=_RELOAD_SECONDS,
    )
    try:
        url = board.launch()
    except program.TensorBoardServerException as error:
        raise EpochcastError(f"{error.msg}; next: choose another port, or none") from error
    return servers[0], str(url)
