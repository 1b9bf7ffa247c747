"""What the documentation names is there: files, commands, names, the floors of the picture."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import click
import pytest
from test_layers import FLOORS, LOOSE

import epochcast
from epochcast.cli import cli

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("docs/*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
REPOSITORY = "https://github.com/epochcast/epochcast"
TREES = ("epochcast", "tests", "benchmarks", "examples", "docs")
FILES = {path.relative_to(ROOT).as_posix() for tree in TREES for path in (ROOT / tree).rglob("*")}
EXAMPLES_OF_USERS = {"train.py", "w.py"}  # a person's own files


def is_there(name: str) -> bool:
    """A path from the root or from within the package, or the name of a file somewhere."""
    name = name.rstrip("/")
    return (ROOT / name).exists() or any(f == name or f.endswith(f"/{name}") for f in FILES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_exist(page: Path) -> None:
    text = page.read_text("utf-8").replace(f"{REPOSITORY}/blob/main/", "")
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


def test_links_of_the_readme_work_wherever_it_is_read() -> None:
    """On PyPI nothing is beside it; what a link names is in the repository."""
    links = re.findall(r"\]\((?!#)([^)#]+)", (ROOT / "README.md").read_text("utf-8"))
    assert links
    for link in links:
        found = re.fullmatch(rf"{REPOSITORY}/(?:blob|tree)/main/(.+)", link)
        assert found, f"not absolute: {link}"
        assert (ROOT / found[1]).exists(), link


def _commands(text: str) -> Iterator[list[str]]:
    """Every command line of ours that a page shows, as a shell would take it apart."""
    for line in re.findall(r"^(?:    |\$ )(epochcast (?:.*\\\n)*.*)", text, re.MULTILINE):
        words = shlex.split(line.replace("\\\n", " "), comments=True)[1:]
        yield list(takewhile(lambda word: word not in ("|", ">"), words))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_that_are_shown_are_understood(
    page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is taken apart as when it is called, options and values, and is not run."""
    for kind in (click.File, click.Path):  # a reader's own files
        monkeypatch.setattr(kind, "convert", lambda self, value, *_: value)
    for arguments in _commands(page.read_text("utf-8")):
        _understand(cli, "epochcast", arguments)


def _understand(
    command: click.Command, name: str, arguments: list[str], parent: click.Context | None = None
) -> None:
    context = command.make_context(name, arguments, parent)
    if isinstance(command, click.Group) and context._protected_args:
        rest = [*context._protected_args, *context.args]
        called, found, rest = command.resolve_command(context, rest)
        assert found is not None
        _understand(found, str(called), rest, context)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_of_the_library_that_are_shown_are_there(page: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    names = {name for block in blocks for name in re.findall(r"\bec\.(\w+)", block)}
    assert {name for name in names if not hasattr(epochcast, name)} == set()
