"""The real import graph: imports go downwards only, in no circle, and torch stays in few files.

One class name means one thing in all of them.

Every import counts, those inside functions and those for type checkers alike: who names a module
knows it. ``docs/architecture.md`` draws this order.
"""

from __future__ import annotations

import ast
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import epochcast

PACKAGE = Path(epochcast.__file__).parent
BOOTSTRAP = PACKAGE / "scripts" / "bootstrap"  # for the process of somebody's script
FILES = sorted(path for path in PACKAGE.rglob("*.py") if BOOTSTRAP not in path.parents)
BOOTSTRAP_FILES = sorted(BOOTSTRAP.rglob("*.py"))

FLOORS = [  # from the top down; a folder imports only from floors below its own
    {"__init__", "__main__"},
    {"cli"},
    {"api"},
    {"integrations", "scripts"},
    {"report"},
    {"storage"},
    {"guard", "importers"},
    {"planning", "profiler"},
    {"costmodel", "datasets"},
    {"devices"},
    {"records"},
    {"units"},
    {"errors"},
]
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names}
CARRIED = {("errors", "records")}  # an error may carry a record, which only type checkers see
LOOSE = {"__init__", "__main__", "errors", "units"}
MEETS_THE_COST_MODEL = "profiler/adaptive.py"  # the one file of the profiler that asks it

TORCH_FOLDERS = {"profiler", "integrations"}
TORCH_FILES = {f"datasets/{name}.py" for name in ("samples", "transforms")}
TORCH_PACKAGES = {"torch", "torchvision", "lightning", "transformers", "accelerate", "keras"}

SAME_THING = {  # class names of several files, each of one thing
    "FollowPlan": "the same callback for each framework",
    "Refused": "an event, and what the bootstrap puts in its place when it reports it",
    "Steps": "an event, and the part of the bootstrap that reports it",
}


def relative(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def module_of(path: Path) -> str:
    """``epochcast.guard.guard``; a folder's ``__init__.py`` is the folder."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def folder_of(module: str) -> str:
    """The part of the package that a module belongs to; the package itself is ``__init__``."""
    return module.split(".")[1] if "." in module else "__init__"


MODULES = {module_of(path) for path in FILES}


@cache
def imported_names(path: Path) -> frozenset[str]:
    """Every dotted name that a file imports, wherever in the file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


def own_modules(path: Path) -> set[str]:
    """The modules of epochcast that a file imports; not the package for its version alone."""
    names = {n for n in imported_names(path) if n.split(".")[0] == "epochcast"}
    names -= {"epochcast.__version__"}
    modules = {name if name in MODULES else name.rpartition(".")[0] for name in names}
    here = folder_of(module_of(path))
    return {module for module in modules if (here, folder_of(module)) not in CARRIED}


def packages(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported_names(path)}


def circle_in(graph: dict[str, set[str]]) -> list[str]:
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        return list(error.args[1])
    return []


def test_every_folder_has_its_floor_and_no_module_is_loose() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    loose = {path.stem for path in PACKAGE.glob("*.py")}
    assert loose == LOOSE
    assert folders | loose == set(FLOOR)


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_imports_go_downwards(path: Path) -> None:
    here = folder_of(module_of(path))
    upwards = {
        module
        for module in own_modules(path)
        if folder_of(module) != here and FLOOR[folder_of(module)] <= FLOOR[here]
    }
    assert not upwards


@pytest.mark.parametrize("path", BOOTSTRAP_FILES, ids=lambda path: path.stem)
def test_the_bootstrap_stands_alone(path: Path) -> None:
    """At the top of its files: what it watches it imports once the script has done so."""
    tree = ast.parse(path.read_text("utf-8"), feature_version=(3, 9))
    above = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = {alias.name for node in above if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in above if isinstance(node, ast.ImportFrom)}
    allowed = {"epochcast_bootstrap", *sys.stdlib_module_names}
    assert {name.split(".")[0] for name in names} <= allowed
    assert "epochcast" not in packages(path)


def test_no_module_is_in_a_circle() -> None:
    graph = {module_of(path): own_modules(path) - {module_of(path)} for path in FILES}
    del graph["epochcast"]  # the table of contents names everything, lazily
    assert circle_in(graph) == []


def test_a_circle_would_be_seen() -> None:
    assert set(circle_in({"a": {"b"}, "b": {"c"}, "c": {"a"}})) == {"a", "b", "c"}


def test_the_profiler_and_the_cost_model_meet_in_records() -> None:
    asking = {
        relative(path)
        for path in FILES
        if folder_of(module_of(path)) == "profiler"
        and any(folder_of(module) == "costmodel" for module in own_modules(path))
    }
    assert asking == {MEETS_THE_COST_MODEL}


def test_a_class_name_means_one_thing() -> None:
    """No name is defined in two files, whatever the scope, but for what ``SAME_THING`` explains."""
    files: dict[str, set[str]] = {}
    for path in (*FILES, *BOOTSTRAP_FILES):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef):
                files.setdefault(node.name, set()).add(relative(path))
    shared = {name: found for name, found in files.items() if len(found) > 1}
    assert shared.keys() == SAME_THING.keys(), shared


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_torch_is_imported_in_few_places(path: Path) -> None:
    allowed = relative(path) in TORCH_FILES or folder_of(module_of(path)) in TORCH_FOLDERS
    assert allowed or not packages(path) & TORCH_PACKAGES


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_databases_are_opened_by_the_storage_alone(path: Path) -> None:
    drivers = {"sqlite3", "psycopg"} & packages(path)
    assert not drivers or folder_of(module_of(path)) == "storage"


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_the_library_does_not_print(path: Path) -> None:
    if folder_of(module_of(path)) in {"cli", "report"}:
        return
    calls = [
        node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)
    ]
    assert "print" not in {call.func.id for call in calls if isinstance(call.func, ast.Name)}
