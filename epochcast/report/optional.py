"""Packages of the ``tensorboard`` extra, asked for where they are needed."""

from __future__ import annotations

from importlib.util import find_spec

from epochcast.errors import MissingDependency


def require_packages(*packages: str) -> None:
    """Make sure that packages of the ``tensorboard`` extra are installed, without importing them.

    Raises:
        MissingDependency: one of them is not; the message says how to install it.
    """
    for package in packages:
        if find_spec(package) is None:
            raise MissingDependency(
                f"{package} is not installed; next: pip install 'epochcast[tensorboard]'"
            )
