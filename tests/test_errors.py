"""The tree of errors is complete, and each of them can be raised again from what a worker says."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

import epochcast
from epochcast import errors
from epochcast.errors import EpochcastError, named

PACKAGE = Path(epochcast.__file__).parent
TREE = {
    name: kind
    for name, kind in vars(errors).items()
    if inspect.isclass(kind) and issubclass(kind, EpochcastError)
}
# Raised and caught in one folder, or met outside as the error that they are kinds of.
INTERNAL = {"Damaged", "NothingSeen", "ScriptFailed"}


def test_every_error_that_is_one_of_ours_is_defined_here() -> None:
    elsewhere = {
        node.name
        for path in PACKAGE.rglob("*.py")
        if path.name != "errors.py"
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ClassDef) and {ast.unparse(b) for b in node.bases} & set(TREE)
    }
    assert elsewhere <= INTERNAL


@pytest.mark.parametrize("name", sorted(set(TREE) - {"DoesNotFit"}))
def test_an_error_is_found_by_its_name_anywhere_in_the_tree(name: str) -> None:
    error = named(name)("what happened")
    assert type(error) is TREE[name]
    assert str(error) == "what happened"


@pytest.mark.parametrize("name", ["ZeroDivisionError", "", "DoesNotFit"])
def test_what_cannot_be_made_of_a_message_is_the_root(name: str) -> None:
    assert named(name) is EpochcastError


def test_exit_codes_are_those_of_the_design() -> None:
    codes = {name: kind.exit_code for name, kind in TREE.items() if kind.exit_code != 1}
    assert codes == {"UsageError": 2, "PredictionError": 2, "DoesNotFit": 3}
    assert all(f"── {name} " in str(errors.__doc__) for name in set(TREE) - {"EpochcastError"})
