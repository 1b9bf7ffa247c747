"""What is public is explained: each parameter of a function of three and more, and what it raises.

The files are read, not imported, so that no framework is needed. A function is public when neither
its name nor its class's begins with an underscore. Nobody calls the bodies and callbacks of click's
commands by hand, nor the hooks of a framework: what they are handed is explained in the options'
help and in the framework's documentation.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import epochcast
from epochcast import errors

PACKAGE = Path(epochcast.__file__).parent
BOOTSTRAP = PACKAGE / "scripts" / "bootstrap"  # runs elsewhere; nobody calls it
FILES = sorted(
    str(path.relative_to(PACKAGE))
    for path in PACKAGE.rglob("*.py")
    if BOOTSTRAP not in path.parents
)
EXPLAINED = 3  # parameters; of fewer, the names and the first line tell enough
OF_FRAMEWORKS = ({"ctx", "param"}, {"trainer", "pl_module"})  # what click and Lightning hand over

Function = ast.FunctionDef | ast.AsyncFunctionDef


def tree(file: str) -> ast.Module:
    return ast.parse((PACKAGE / file).read_text("utf-8"))


def error_names() -> dict[str, str]:
    """The package's errors by the names that ``raise`` them: their own, and of what makes them."""
    own = {
        name: name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.EpochcastError)
    }
    makers = {
        node.name: node.returns.id
        for file in FILES
        for node in ast.walk(tree(file))
        if isinstance(node, Function)
        and isinstance(node.returns, ast.Name)
        and node.returns.id in own
    }
    return own | makers


ERRORS = error_names()


def public_functions(file: str) -> list[tuple[str, Function]]:
    return [f for f in _public(tree(file).body) if not is_called_by_a_framework(f[1])]


def _public(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, Function]]:
    """Of a module or of a public class; what is defined inside a function is its own."""
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from _public(node.body, f"{prefix}{node.name}.")
        elif isinstance(node, Function) and not node.name.startswith("_"):
            yield f"{prefix}{node.name}", node
        elif isinstance(node, ast.If | ast.Try):
            yield from _public(node.body, prefix)


def is_called_by_a_framework(function: Function) -> bool:
    decorators = [ast.unparse(decorator) for decorator in function.decorator_list]
    return (
        any(re.search(r"\.(command|group)\(", text) for text in decorators)
        or any(names <= {*parameters(function)} for names in OF_FRAMEWORKS)
        or function.name.startswith("on_")
    )


def parameters(function: Function) -> list[str]:
    given = function.args
    every = [*given.posonlyargs, *given.args, given.vararg, *given.kwonlyargs, given.kwarg]
    return [p.arg for p in every if p is not None and p.arg not in {"self", "cls"}]


def own_nodes(function: Function) -> Iterator[ast.AST]:
    """The nodes of a function without those of the functions defined inside it."""
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, Function | ast.Lambda | ast.ClassDef):
            waiting += ast.iter_child_nodes(node)


def raised_errors(function: Function) -> set[str]:
    """Names of the package's errors that a function raises itself."""
    raised = [n.exc for n in own_nodes(function) if isinstance(n, ast.Raise)]
    calls = [exc.func if isinstance(exc, ast.Call) else exc for exc in raised]
    names = {c.attr if isinstance(c, ast.Attribute) else getattr(c, "id", "") for c in calls}
    return {ERRORS[name] for name in names if name in ERRORS}


def entries(function: Function, title: str) -> set[str]:
    """The names that a section of the docstring explains; ``low, high: their range`` is two."""
    text = f"{ast.get_docstring(function) or ''}\n"
    section = re.search(rf"^{title}:\n((?: +.*\n|\n)+)", text, re.MULTILINE)
    heads = re.findall(r"^ {4}([\w*, ]+): ", section[1], re.MULTILINE) if section else []
    return {name.strip(" *") for head in heads for name in head.split(",")}


@pytest.mark.parametrize("file", FILES)
def test_functions_of_three_parameters_explain_each(file: str) -> None:
    unexplained = {
        name: [p for p in parameters(f) if p not in entries(f, "Args")]
        for name, f in public_functions(file)
        if len(parameters(f)) >= EXPLAINED
    }
    assert not {name: missing for name, missing in unexplained.items() if missing}


@pytest.mark.parametrize("file", FILES)
def test_functions_that_raise_say_what(file: str) -> None:
    unsaid = {name: raised_errors(f) - entries(f, "Raises") for name, f in public_functions(file)}
    assert not {name: missing for name, missing in unsaid.items() if missing}
