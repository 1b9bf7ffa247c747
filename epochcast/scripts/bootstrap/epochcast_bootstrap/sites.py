"""Where in the script something happens, and whether a loader may end early there.

``next(iterator)`` outside a ``try`` that expects StopIteration breaks when a loader ends before its
length says so; a ``for`` does not mind. Which of both it is the source tells, once for each line.
"""

from __future__ import annotations

import ast
import functools
import inspect
import linecache
import os
import sys
import sysconfig

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LIBRARIES = tuple(
    sorted(
        {
            os.path.join(p, "")
            for p in map(sysconfig.get_paths().get, ("stdlib", "platstdlib", "purelib", "platlib"))
            if p
        }
        | {os.path.join(HERE, "")}
    )
)
SEVERAL = 3  # statements
ANY = {"Exception", "BaseException"}


@functools.cache
def is_library(file):
    """Whether a file of Python is of no script: installed, of Python itself, or ours."""
    if file.startswith("<"):
        return file != "<string>"  # of ``python -c``
    path = os.path.abspath(file)
    parts = path.split(os.sep)
    return "site-packages" in parts or "dist-packages" in parts or path.startswith(LIBRARIES)


def site_of(frame):
    """``file:line`` of the script's innermost line, and the library functions called from there.

    Args:
        frame: that is looked at, with those that called it.
    """
    through, outermost = [], None
    while frame is not None:
        code = frame.f_code
        if not is_library(code.co_filename):
            return f"{code.co_filename}:{frame.f_lineno}", tuple(reversed(through))
        if not _is_ours_or_torch(code.co_filename):
            through.append(code.co_name)
            outermost = outermost or f"{code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back
    return outermost or "", tuple(reversed(through))


@functools.cache
def _is_ours_or_torch(file):
    return file.startswith((HERE, "<")) or f"{os.sep}torch{os.sep}utils{os.sep}data" in file


def may_end_early(frame):
    """Whether a StopIteration raised to this frame is taken for the end of an iteration.

    Args:
        frame: that called ``__next__``.
    """
    passing = False  # whether a plain call is passed: there only a ``try`` helps
    while frame is not None:
        code = frame.f_code
        calls_next, expected, caught = _line(code.co_filename, frame.f_lineno)
        if expected or (caught and not passing) or not (calls_next or passing):
            return True
        if code.co_flags & (inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR):
            return False  # it becomes a RuntimeError, PEP 479
        if code.co_name == "<module>":
            return False
        passing = code.co_name != "__next__"
        frame = frame.f_back
    return False


@functools.cache
def _line(file, line):
    """Whether a line calls ``next``, is in a ``try`` for StopIteration, and in one for all errors.

    The latter counts around a few statements only: around many it is for errors of another kind.
    """
    nodes = [n for n in _nodes(file) if n.lineno <= line <= n.end_lineno]
    calls = any(isinstance(node, ast.Call) and _is_next(node) for node in nodes)
    tries = [n for n in nodes if isinstance(n, ast.Try) and line <= n.body[-1].end_lineno]
    expected = any("StopIteration" in _caught(node) for node in tries)
    short = (node for node in tries if len(node.body) <= SEVERAL)
    return calls, expected, any(_caught(node) & ANY for node in short)


@functools.lru_cache(maxsize=64)
def _nodes(file):
    try:
        tree = ast.parse("".join(linecache.getlines(file)))
    except (SyntaxError, ValueError):
        return ()
    return tuple(n for n in ast.walk(tree) if isinstance(n, (ast.Call, ast.Try)))


def _is_next(call):
    name = getattr(call.func, "id", None) or getattr(call.func, "attr", None)
    return (name == "next" and len(call.args) == 1) or name == "__next__"


def _caught(node):
    """Names of the errors that a ``try`` handles; a bare ``except`` is of BaseException."""
    kinds = [handler.type for handler in node.handlers]
    named = (inner for kind in kinds if kind is not None for inner in ast.walk(kind))
    names = {getattr(n, "id", getattr(n, "attr", "")) for n in named}
    return names | ({"BaseException"} if None in kinds else set())


def sources():
    """Files of the script, and of modules that are no library."""
    found = []
    for name, module in list(sys.modules.items()):
        if name in ("sitecustomize", "usercustomize"):
            continue
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and os.path.isfile(file) and not is_library(file):
            found.append(os.path.abspath(file))
    return sorted(set(found))
