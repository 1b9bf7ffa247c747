"""Frameworks that a user may lack."""

import os
from importlib.util import find_spec

import pytest


def need(package: str) -> None:
    """Skip a file of tests where its framework is not installed; in CI all of them are."""
    if find_spec(package) is not None:
        return
    text = f"{package} is not installed: pip install 'epochcast[{package}]'"
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must test every framework, but {text}", pytrace=False)
    pytest.skip(text, allow_module_level=True)
