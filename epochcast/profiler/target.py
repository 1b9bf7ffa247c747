"""From the name of a workload function, its target, to the function and what it makes.

"mnist-mlp"                      a built-in
"train.py:workload"              a file; imported as Python would run it, but not as __main__
"mypackage.training:workload"    a module on the path (the working directory included)

target ── load ──▶ function ── knobs_of ──▶ its knobs        user code is executed
       │                    └─ build ─────▶ a Workload
       └─ source_of ──▶ fingerprint of its code              nothing is executed
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import io
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path, PurePath
from types import ModuleType
from typing import Any, TextIO
from unicodedata import category

from epochcast.errors import UsageError, WorkloadError
from epochcast.profiler.protocol import WHAT_IFS, TrialSpec
from epochcast.profiler.workload import (
    DATA_ARGUMENT,
    Workload,
    WorkloadFunction,
    first_line,
    knobs_of,
)
from epochcast.records import SizeValue

# Options of a DataLoader that it refuses without worker processes.
_OF_LOADER_WORKERS = ("prefetch_factor", "persistent_workers", "multiprocessing_context", "timeout")

BUILTIN_NAMES = (  # their own module imports torch
    "mnist-mlp",
    "cifar10-cnn",
    "cifar10-resnet",
    "char-gpt",
    "digits-mlp",
)

SUFFIXES = (".py", ".pyz", ".ipynb", ".sh", ".bash", ".zsh")  # of what people call a script
LONGEST_NAME, MARKS = 100, "=._-"  # of what a person calls a workload; where no letters are

# -- the name of a workload function --------------------------------------------------------------


def target_of(workload: str | Callable[..., Any]) -> str:
    """The text that names a workload function, for worker processes to import it by.

    Raises:
        UsageError: the function cannot be imported by name.
    """
    if isinstance(workload, str):
        return canonical(workload)
    name = getattr(workload, "__qualname__", "")
    module = getattr(workload, "__module__", "")
    if not name.isidentifier():
        raise UsageError(
            f"worker processes import the workload by name, but {name or workload!r} is not "
            "defined at the top level of a file"
        )
    if module != "__main__":
        return f"{module}:{name}"
    file = getattr(sys.modules["__main__"], "__file__", None) or inspect.getsourcefile(workload)
    if file is None or not file.endswith(".py"):
        raise UsageError(f"{name} is not in a file that worker processes can import; save it first")
    return canonical(f"{file}:{name}")


def canonical(target: str) -> str:
    """The same target always written the same way, ``./train.py:workload`` without its dot.

    A file below the working directory is named from there, any other by its whole path.
    """
    is_script = target.endswith(SUFFIXES)
    where, colon, name = (target, "", "") if is_script else target.rpartition(":")
    return f"{_from_here(where)}{colon}{name}" if where.endswith(SUFFIXES) else target


def _from_here(file: str) -> str:
    folder, name = os.path.split(file)
    try:
        here, real = Path.cwd().resolve(), Path(os.path.realpath(folder))
    except (OSError, ValueError):  # no file can be there
        return os.path.normpath(file)
    return str((real.relative_to(here) if real.is_relative_to(here) else real) / name)


def workload_name(arguments: Sequence[str]) -> str:
    """``train.py`` of ``python ./train.py``, ``pkg.train`` of ``python -m pkg.train``.

    Of ``torchrun --nproc-per-node 2 train.py`` and other launchers likewise; else the program.
    """
    at = script_at(arguments)
    if at is None:
        return PurePath(arguments[0]).name
    return canonical(arguments[at])


def script_at(arguments: Sequence[str]) -> int | None:
    """Where the file of the script stands, or its module; None where neither is seen."""
    for i, (before, argument) in enumerate(pairwise(("", *arguments))):
        if argument.endswith(SUFFIXES) and not argument.startswith("-"):
            return i
        is_module = before in ("-m", "--module") and re.fullmatch(r"[\w.]+", argument)
        if is_module and not _is_launcher(argument):
            return i
    return None


def _is_launcher(module: str) -> bool:
    return module.split(".")[0] in ("torch", "accelerate", "deepspeed", "lightning", "fabric")


def called(name: str | None, target: str) -> str:
    """The name that measurements have: what a person called it, or its target."""
    return target if name is None else name.strip()


def is_target(name: str) -> bool:
    """Whether a name could be of a workload function, which a typing error is not."""
    return ":" in name or name in BUILTIN_NAMES


def is_of_file_name(character: str) -> bool:
    """Whether file names keep it: letters, their accents and vowel signs, digits and ``MARKS``."""
    return character.isalnum() or character in MARKS or category(character)[0] == "M"


def require_name(name: str | None, target: str) -> None:
    """Refuse what a person calls a workload where it could pass for something else.

    Args:
        name: None where nobody gave one.
        target: what it is to be the name of, which may bear its own.

    Raises:
        UsageError: it is no name, or names code as a target does.
    """
    if name is None or name == target:
        return
    text = name.strip()
    if not text:
        raise UsageError("the name of a workload must not be empty")
    if len(text) > LONGEST_NAME:
        raise UsageError(f"a name has at most {LONGEST_NAME} characters, but got {len(text):,}")
    if not all(map(is_of_file_name, text)) or text[0] in MARKS or text[-1] in MARKS:
        raise UsageError(
            f"a name is of letters and digits, and within it {' '.join(MARKS)}, but got {text!r}"
        )
    if text.endswith(SUFFIXES) or text in BUILTIN_NAMES:
        raise UsageError(f"{text!r} names code: give a name that is no file and no built-in")


def meant(target: str, known: Iterable[str]) -> tuple[str, ...]:
    """The known targets that one stands for: itself, or else all whose paths end so.

    Args:
        target: as people write it: ``train.py`` of ``/home/me/train.py``.
        known: targets, as they are stored.
    """
    name, ends = canonical(target), f"/{os.path.normpath(target)}"
    found = tuple(known)
    return (name,) if name in found else tuple(one for one in found if one.endswith(ends))


def source_of(target: str) -> str:
    """Fingerprint of the file that defines a workload; not of what that file imports.

    Empty where the file is not known: a module that this process has not imported.
    """
    where, _, _ = target.rpartition(":")
    if not where:
        files = [Path(__file__).with_name("builtin.py")]
    elif where.endswith(".py"):
        files = [Path(where)]
    else:
        files = module_files(where)
    if not files:
        return ""
    digest = hashlib.sha256()
    try:
        for file in files:
            digest.update(file.read_bytes())
    except OSError:
        return ""
    return digest.hexdigest()[:12]


def source_of_files(files: Iterable[str], folder: Path = Path()) -> str:
    """Fingerprint of files; empty where there are none, or one cannot be read.

    Args:
        files: paths as they were kept; relative ones count from ``folder``.
        folder: where the command is started.
    """
    digest = hashlib.sha256()
    names = sorted(set(files))
    try:
        for name in names:
            digest.update(name.encode() + b"\0" + (folder / name).read_bytes() + b"\0")
    except OSError:
        return ""
    return digest.hexdigest()[:12] if names else ""


def module_files(name: str) -> list[Path]:
    """The file of a module, imported or not: found by its path, so that nothing is executed."""
    loaded = getattr(sys.modules.get(name), "__file__", None)
    if loaded:
        return [Path(loaded)]
    parts = Path(*name.split("."))
    for folder in (".", *sys.path):
        where = Path(folder or ".")
        for way in (where / f"{parts}.py", where / parts / "__init__.py"):
            if way.is_file():
                return [way]
    return []


# -- from the name to the workload ----------------------------------------------------------------


@cache
def load(target: str) -> WorkloadFunction:
    """The workload function that a target names. Executes the user's file, once per process.

    Raises:
        UsageError: there is no such file, module or built-in.
        WorkloadError: importing the code failed, or it has no such function.
    """
    where, colon, name = target.rpartition(":")
    if not colon:
        return _builtin(target)
    sys.argv[:] = [where]  # as of a script that was started without arguments
    try:
        with exits_explained(f"importing {where}"):
            module = _import_file(Path(where)) if where.endswith(".py") else _import_module(where)
    except (UsageError, WorkloadError):
        raise
    except Exception as error:
        raise WorkloadError(f"importing {where} failed: {first_line(error)}") from error
    function = getattr(module, name, None)
    if not callable(function):
        known = [n for n, f in vars(module).items() if inspect.isfunction(f)]
        raise WorkloadError(
            f"{where} has no function {name!r}; it defines: {', '.join(known) or 'none'}"
        )
    return function  # type: ignore[no-any-return]


class _Overheard(io.TextIOBase):
    """Passes on what is written to a stream and keeps the last of it."""

    def __init__(self, stream: TextIO) -> None:
        self.stream, self.said = stream, ""

    def write(self, text: str) -> int:
        self.said = (self.said + text)[-1000:]
        return self.stream.write(text)

    def flush(self) -> None:
        self.stream.flush()


@contextmanager
def exits_explained(doing: str) -> Iterator[None]:
    """Within it, code that ends the process raises an error with what it said last.

    Raises:
        WorkloadError: it tried to, as argparse does where arguments are missing.
    """
    stream = _Overheard(sys.stderr)
    try:
        with redirect_stderr(stream):
            yield
    except SystemExit as error:
        said = stream.said.strip().splitlines() or [f"exit code {error.code or 0}"]
        last = error.code if isinstance(error.code, str) else said[-1]
        raise WorkloadError(
            f"{doing} ended the process: {' '.join(last.split())}; it is run without arguments: "
            "give them defaults, or read them under if __name__ == '__main__'"
        ) from error


def _builtin(name: str) -> WorkloadFunction:
    from epochcast.profiler.builtin import BUILTIN

    if name not in BUILTIN:
        if name.endswith(".py") and not Path(name).is_file():
            raise UsageError(f"there is no file {name}; to measure one: file.py:function")
        if name.endswith(".py"):
            raise UsageError(
                f"{name} is a file: name the function in it that returns a Workload, "
                f"{name}:workload; or probe it as a script: epochcast probe -- python {name}"
            )
        raise UsageError(
            f"no workload is called {name!r}; built in are {', '.join(BUILTIN)}; "
            "your own is 'file.py:function' or 'package.module:function', also where what was "
            "measured has a --name"
        )
    return BUILTIN[name]


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UsageError(f"there is no file {path} here, in {Path.cwd()}: check the path")
    sys.path.insert(0, str(path.resolve().parent))
    spec = importlib.util.spec_from_file_location(path.stem, path.resolve())
    if spec is None or spec.loader is None:
        raise WorkloadError(f"{path} cannot be imported as a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # loader workers that are spawned look it up by name
    spec.loader.exec_module(module)
    return module


def _import_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            raise UsageError(
                f"there is no module {name!r} on the path; for a file, write 'file.py:function'"
            ) from error
        raise


def build(spec: TrialSpec) -> Workload:
    """Call the workload function of a spec and apply the user's overrides.

    Raises:
        WorkloadError: it does not return a ``Workload``, or an override does not suit it.
    """
    function = load(spec.workload.target)
    _, takes_data = knobs_of(function)
    arguments: dict[str, Any] = dict(spec.sizes)
    if takes_data:
        arguments[DATA_ARGUMENT] = spec.workload.data
    with exits_explained(f"calling {spec.workload.target}"):
        workload = function(**arguments)
    if not isinstance(workload, Workload):
        raise WorkloadError(
            f"{spec.workload.target} must return an epochcast.Workload, "
            f"but got {type(workload).__name__}"
        )
    overrides = dict(spec.workload.overrides)
    if "workers" in overrides:
        options = _with_workers(workload.loader_options, overrides.pop("workers"))
        workload = replace(workload, loader_options=options)
    changes = {name: overrides.pop(name) for name in WHAT_IFS if name in overrides}
    workload = replace(workload, **overrides)  # type: ignore[arg-type]
    if not changes:
        return workload
    from epochcast.profiler.what_if import changed

    return changed(workload, changes)


def _with_workers(options: Mapping[str, Any], workers: SizeValue) -> dict[str, Any]:
    """Loader options with another number of workers; without any, those that are about them go."""
    dropped = () if workers else _OF_LOADER_WORKERS
    kept = {name: value for name, value in options.items() if name not in dropped}
    return {**kept, "num_workers": workers}
