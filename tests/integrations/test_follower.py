"""Adapters are reached as attributes, and say what is missing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from frameworks import needed

import epochcast as ec
from epochcast.errors import MissingDependency
from epochcast.integrations.follower import missing


@pytest.mark.parametrize("name", ["lightning", "keras", "transformers"])
def test_a_framework_that_is_not_installed_is_named(name: str) -> None:
    code = (
        f"import sys; sys.modules[{name!r}] = None\n"
        "import epochcast as ec\n"
        f"try: ec.integrations.{name}\n"
        "except ec.EpochcastError as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    pip = f"pip install 'epochcast[{name}]'"
    assert done.stdout == f"MissingDependency {name} is not installed; next: {pip}\n"


def test_keras_without_its_backend_says_how_to_choose_one(tmp_path: Path) -> None:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    needed("keras")
    code = (
        "import sys; sys.modules['tensorflow'] = None\n"
        "import epochcast as ec\n"
        "try: ec.integrations.keras\n"
        "except ec.EpochcastError as error: print(error)"
    )
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "KERAS_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert "set KERAS_BACKEND=torch" in done.stdout


def test_a_broken_framework_is_not_called_missing() -> None:
    broken = ModuleNotFoundError("No module named 'part'", name="part")
    assert missing("keras", broken) is broken
    gone = ModuleNotFoundError("No module named 'keras'", name="keras")
    assert isinstance(missing("keras", gone), MissingDependency)
    gone = ModuleNotFoundError("No module named 'accelerate'", name="accelerate")
    assert "epochcast[transformers]" in str(missing("transformers", gone, "accelerate"))


def test_the_adapters_are_loaded_when_they_are_used() -> None:
    code = "import sys, epochcast as ec; ec.integrations; print('lightning' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    with pytest.raises(AttributeError, match="no attribute 'jax'"):
        _ = ec.integrations.jax
