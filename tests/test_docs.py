"""What the documentation names is there: files, folders, and the floors of the picture."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from test_layers import FLOORS, LOOSE

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("docs/*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
TREES = ("epochcast", "tests", "benchmarks", "examples", "docs")
FILES = {path.relative_to(ROOT).as_posix() for tree in TREES for path in (ROOT / tree).rglob("*")}
EXAMPLES_OF_USERS = {"train.py", "w.py"}  # a person's own files


def is_there(name: str) -> bool:
    """A path from the root or from within the package, or the name of a file somewhere."""
    name = name.rstrip("/")
    return (ROOT / name).exists() or any(f == name or f.endswith(f"/{name}") for f in FILES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    named = re.findall(r"`((?:[\w.]+/)*(?:\w+\.py|\w+/))`|\b(\w+/[\w/]*\w+\.py)\b", text)
    paths = {first or second for first, second in named} - EXAMPLES_OF_USERS
    assert {path for path in paths if not is_there(path)} == set()


def test_the_picture_has_the_floors_of_the_import_graph() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    picture = text.partition("## One picture")[2].partition("## ")[0]
    rows = [
        re.findall(r"[│ ](\w+)(?:/|\.py)", line) for line in picture.splitlines() if "│" in line
    ]
    drawn = [found for row in rows if (found := {n for n in row if n in set().union(*FLOORS)})]
    assert drawn == [floor for floor in FLOORS if not floor <= {"__init__", "__main__"} | LOOSE] + [
        {"units", "errors"}
    ]
