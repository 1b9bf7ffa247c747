"""From the text a user typed to a workload: import the code, read its knobs, call it.

"mnist-mlp"                      a built-in
"train.py:workload"              a file; imported as Python would run it, but not as __main__
"mypackage.training:workload"    a module on the path (the working directory included)
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from epochcast.errors import UsageError, WorkloadError
from epochcast.profiler.protocol import TrialSpec
from epochcast.profiler.workload import Workload
from epochcast.records import Sizes, SizeValue, make_sizes

DATA_ARGUMENT = "data"  # receives --data; every other keyword argument is a knob

# Options of a DataLoader that it refuses without worker processes.
_OF_LOADER_WORKERS = ("prefetch_factor", "persistent_workers", "multiprocessing_context", "timeout")

WorkloadFunction = Callable[..., Workload]


@cache
def load(target: str) -> WorkloadFunction:
    """The workload function that a target names. Executes the user's file, once per process.

    Raises:
        UsageError: there is no such file, module or built-in.
        WorkloadError: importing the code failed, or it has no such function.
    """
    place, colon, name = target.rpartition(":")
    if not colon:
        return _builtin(target)
    try:
        module = _import_file(Path(place)) if place.endswith(".py") else _import_module(place)
    except (UsageError, WorkloadError):
        raise
    except (Exception, SystemExit) as error:
        raise WorkloadError(f"importing {place} failed: {first_line(error)}") from error
    function = getattr(module, name, None)
    if not callable(function):
        known = [n for n, f in vars(module).items() if inspect.isfunction(f)]
        raise WorkloadError(
            f"{place} has no function {name!r}; it defines: {', '.join(known) or 'none'}"
        )
    return function  # type: ignore[no-any-return]


def _builtin(name: str) -> WorkloadFunction:
    from epochcast.profiler.builtin.workloads import BUILTIN

    if name not in BUILTIN:
        raise UsageError(
            f"no workload is called {name!r}; built in are {', '.join(BUILTIN)}; "
            "your own is 'file.py:function' or 'package.module:function'"
        )
    return BUILTIN[name]


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
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


def knobs_of(function: WorkloadFunction) -> tuple[Sizes, bool]:
    """The model-size knobs of a workload function with their defaults, and whether it takes data.

    Raises:
        WorkloadError: an argument has no default, or a default that is not int, float, str or bool.
    """
    knobs: dict[str, Any] = {}
    takes_data = False
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if name == DATA_ARGUMENT:
            takes_data = True
        elif not isinstance(parameter.default, int | float | str | bool):
            raise WorkloadError(
                f"argument {name!r} of the workload needs a default that is a number, "
                "a text or a bool: defaults are the values that --set changes"
            )
        else:
            knobs[name] = parameter.default
    return make_sizes(knobs), takes_data


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
    return replace(workload, **overrides)  # type: ignore[arg-type]


def _with_workers(options: Mapping[str, Any], workers: SizeValue) -> dict[str, Any]:
    """Loader options with another number of workers; without any, those that are about them go."""
    dropped = () if workers else _OF_LOADER_WORKERS
    kept = {name: value for name, value in options.items() if name not in dropped}
    return {**kept, "num_workers": workers}


def first_line(error: BaseException) -> str:
    """``"ValueError: what it says"``, on one line.

    An error of a data-loader worker carries its whole traceback as text, the point of it last.
    """
    lines = str(error).strip().splitlines()
    if lines and lines[0].startswith("Caught ") and "DataLoader" in lines[0]:
        return lines[-1].strip()
    return f"{type(error).__name__}: {lines[0].strip()}" if lines else type(error).__name__
