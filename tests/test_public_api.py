"""The public surface is ``__all__``, and nothing else is promised."""

import inspect
import subprocess
import sys

import pytest

import epochcast


def test_every_public_name_exists_and_is_documented() -> None:
    for name in epochcast.__all__:
        assert inspect.getdoc(getattr(epochcast, name)), name
    assert sorted(epochcast.__all__) == list(epochcast.__all__)
    assert set(dir(epochcast)) == {*epochcast.__all__, "__version__"}


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'plan_b'"):
        _ = epochcast.plan_b  # type: ignore[attr-defined]


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, epochcast; print(sorted({m.partition('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout
    assert not any(f"'{name}'" in loaded for name in ("torch", "numpy", "sqlalchemy", "click"))
