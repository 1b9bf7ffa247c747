"""Packages that a user may not have: their tests skip and name them; in CI they must be there."""

import os
from importlib import import_module
from types import ModuleType

import pytest


def needed(name: str) -> ModuleType:
    """The package; its tests are skipped where it is not installed, and fail with ``CI=true``."""
    try:
        return import_module(name)
    except ImportError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"{name} is not installed: {error}", allow_module_level=True)
