"""The public surface is ``__all__``, and nothing else is promised."""

import inspect
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import epochcast
from epochcast import errors
from epochcast.planning import stopping

PACKAGE = Path(epochcast.__file__).parent
REFERENCE = PACKAGE.parent / "docs" / "api.md"


def functions() -> Iterator[tuple[str, Callable[..., Any]]]:
    """All public functions, and the public methods that public classes define themselves."""
    for name in epochcast.__all__:
        value = getattr(epochcast, name)
        if inspect.isfunction(value):
            yield name, value
        elif inspect.isclass(value):
            for attribute, raw in vars(value).items():
                method = getattr(raw, "__func__", raw)  # of class methods and static ones
                if inspect.isfunction(method) and not attribute.startswith("_"):
                    yield f"{name}.{attribute}", method


def parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    found = inspect.signature(function).parameters.values()
    return [p for p in found if p.name not in {"self", "cls"}]


def test_every_public_name_exists_and_is_documented() -> None:
    for name in epochcast.__all__:
        assert inspect.getdoc(getattr(epochcast, name)), name
    assert sorted(epochcast.__all__) == list(epochcast.__all__)
    assert set(dir(epochcast)) == {*epochcast.__all__, "__version__"}


def test_every_public_name_is_in_the_reference() -> None:
    entries = re.findall(r"^::: epochcast\.(\w+)$", REFERENCE.read_text("utf-8"), re.MULTILINE)
    assert sorted(entries) == list(epochcast.__all__)


def test_all_errors_and_stop_rules_are_public() -> None:
    classes = {n for n, value in vars(errors).items() if inspect.isclass(value)}
    trees = {n for n in classes if issubclass(getattr(errors, n), errors.EpochcastError)}
    rules = {rule.__name__ for rule in stopping.RULES.values()}
    assert trees | rules <= set(epochcast.__all__)


def test_what_documentation_tells_people_to_write_is_importable() -> None:
    written = {
        found
        for file in [*PACKAGE.parent.glob("docs/*.md"), PACKAGE.parent / "README.md"]
        for found in re.findall(r"\bec\.(\w+)", file.read_text("utf-8"))
    }
    assert written <= set(epochcast.__all__)


def test_no_interface_hides_behind_keywords() -> None:
    keywords = {
        name: [p for p in parameters(function) if p.kind is p.VAR_KEYWORD]
        for name, function in functions()
    }
    found = {name for name, extra in keywords.items() if any(p.annotation == "Any" for p in extra)}
    assert not found


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'plan_b'"):
        _ = epochcast.plan_b  # type: ignore[attr-defined]


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, epochcast; print(sorted({m.partition('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout
    assert not any(f"'{name}'" in loaded for name in ("torch", "numpy", "sqlite3", "click"))
