"""Imports go one way, torch stays in few files, the library prints nothing (design.md, 3)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import epochcast

PACKAGE = Path(epochcast.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
TORCH_FOLDERS = ("profiler", "integrations")
TORCH_FILES = {
    f"datasets/{name}.py" for name in ("synthetic", "local", "transforms", "embedded", "stored")
}
TORCH_PACKAGES = {"torch", "torchvision", "lightning", "transformers", "accelerate", "keras"}
FOUNDATIONS = {
    "errors": set(),
    "units": {"errors"},
    "records": {"errors", "records"},
}
FORBIDDEN = {
    "costmodel": {"planning", "profiler", "integrations", "storage", "report", "cli", "api"},
    "planning": {"profiler", "integrations", "storage", "report", "cli", "api"},
    "profiler": {"planning", "integrations", "report", "cli", "api"},
    "datasets": {"costmodel", "profiler", "integrations", "storage", "report", "cli", "api"},
    "report": {"profiler", "integrations", "cli"},
    "board": {"profiler", "integrations", "cli"},
    "integrations": {"cli"},
}


def relative(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def layer(path: Path) -> str:
    return relative(path).split("/")[0].removesuffix(".py")


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imported_modules(node: ast.AST) -> set[str]:
    """All modules that are imported when the code runs, those inside functions included."""
    found: set[str] = set()
    if isinstance(node, ast.Import):
        found |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute"
        found |= {f"{node.module}.{alias.name}" for alias in node.names}
    for child in ast.iter_child_nodes(node):
        if not is_type_checking(child):
            found |= imported_modules(child)
    return found


def own_layers(path: Path) -> set[str]:
    """The parts of epochcast that a file imports."""
    names = [name.split(".") for name in imported_modules(ast.parse(path.read_text("utf-8")))]
    return {parts[1] for parts in names if parts[0] == "epochcast" and len(parts) > 1}


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_imports_go_one_way(path):
    assert not own_layers(path) & FORBIDDEN.get(layer(path), set())
    if layer(path) in FOUNDATIONS:
        assert own_layers(path) <= FOUNDATIONS[layer(path)]


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_torch_is_imported_in_few_places(path):
    tops = {name.split(".")[0] for name in imported_modules(ast.parse(path.read_text("utf-8")))}
    if relative(path) not in TORCH_FILES and layer(path) not in TORCH_FOLDERS:
        assert not tops & TORCH_PACKAGES


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_sqlalchemy_is_imported_by_the_store_alone(path):
    tops = {name.split(".")[0] for name in imported_modules(ast.parse(path.read_text("utf-8")))}
    assert "sqlalchemy" not in tops or layer(path) in {"storage"}


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_the_library_does_not_print(path):
    if layer(path) in {"cli", "report"}:
        return
    calls = [
        node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)
    ]
    assert "print" not in {call.func.id for call in calls if isinstance(call.func, ast.Name)}
