"""A workload: everything about a user's training that decides what it costs.

    def workload(width: int = 512, depth: int = 1) -> Workload:      # keyword arguments are knobs
        model = MLP(width, depth)
        return Workload(
            model=model,
            train_data=MyDataset(),
            optimizer=torch.optim.Adam(model.parameters()),
            loss=torch.nn.functional.cross_entropy,
        )

The function is found by its name, the target, in a worker process:

    "mnist-mlp"                      a built-in
    "train.py:workload"              a file; imported as Python would run it, but not as __main__
    "mypackage.training:workload"    a module on the path (the working directory included)

    target ── load ──▶ function ── knobs_of ──▶ its knobs        user code is executed
           │                    └─ build ─────▶ a Workload
           └─ source_of ──▶ fingerprint of its code              nothing is executed

torch is not imported here; the user's code does that.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from epochcast.errors import UsageError, WorkloadError
from epochcast.profiler.protocol import TrialSpec
from epochcast.records import Precision, Sizes, SizeValue, make_sizes

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from torch.utils.data import Dataset

DATA_ARGUMENT = "data"  # receives --data; every other keyword argument is a knob

_NOT_LOADER_OPTIONS = {  # they would be in conflict with an attribute; what to write instead
    "dataset": "train_data=",
    "batch_size": "batch_size=",
    "shuffle": "shuffle=",
    "collate_fn": "collate=",
    "batch_sampler": "batch_size= and a sampler",
}
# Options of a DataLoader that it refuses without worker processes.
_OF_LOADER_WORKERS = ("prefetch_factor", "persistent_workers", "multiprocessing_context", "timeout")


@dataclass(kw_only=True)
class Workload:
    """What to train and how. Exactly one of ``loss``, ``forward`` and ``train_step`` says a step.

    Attributes:
        model: moved to the device and put into training mode by the profiler.
        train_data: a map-style data set; its length is the number of samples of an epoch.
        optimizer: built over the model's parameters; frozen parameters are simply left out.
        loss: ``loss(model(inputs), targets)`` for batches that are pairs ``(inputs, targets)``.
        forward: ``forward(model, batch)`` returns the loss, for any other kind of batch.
        train_step: ``train_step(batch)`` does a whole iteration by itself: forward, backward,
            update. Precision, accumulation and compilation are then its own business: a workload
            that has it and asks for them is refused, because nothing would apply them.
        eval_data: evaluated after an epoch; absent means that the run never evaluates.
        eval_step: ``eval_step(batch)`` evaluates one batch; needed only beside ``train_step``,
            otherwise the loss is computed without gradients.
        batch_size: the batch size the user trains with today.
        collate: the loader's ``collate_fn``.
        loader_options: further arguments of ``torch.utils.data.DataLoader``, e.g. ``num_workers``,
            ``pin_memory``, ``persistent_workers``, ``sampler``, ``drop_last``.
        shuffle: whether the training loader shuffles (ignored when a sampler is given).
        drop_last: whether the training loader drops a last partial batch.
        precision: autocast in ``"bf16"`` or ``"fp16"`` (with a gradient scaler), or ``"fp32"``.
        accumulation: micro-batches per optimizer step.
        compile: run the model under ``torch.compile``.
        data_source: shown to the user, e.g. ``"synthetic"``.

    Raises:
        WorkloadError: the parts contradict one another, or one has a value that is not possible.
    """

    model: nn.Module
    train_data: Dataset[Any]
    optimizer: torch.optim.Optimizer
    loss: Callable[[Any, Any], Tensor] | None = None
    forward: Callable[[nn.Module, Any], Tensor] | None = None
    train_step: Callable[[Any], object] | None = None
    eval_data: Dataset[Any] | None = None
    eval_step: Callable[[Any], object] | None = None
    batch_size: int = 32
    collate: Callable[[list[Any]], Any] | None = None
    loader_options: Mapping[str, Any] = field(default_factory=dict)
    shuffle: bool = True
    drop_last: bool = False
    precision: Precision = "fp32"
    accumulation: int = 1
    compile: bool = False
    data_source: str = "the workload's own"

    def __post_init__(self) -> None:
        steps = [name for name in ("loss", "forward", "train_step") if getattr(self, name)]
        if len(steps) != 1:
            given = ", ".join(steps) or "none"
            raise WorkloadError(
                f"a Workload needs exactly one of loss, forward and train_step, but got {given}"
            )
        if self.train_step and self.eval_data is not None and self.eval_step is None:
            raise WorkloadError("a Workload with train_step and eval_data also needs eval_step")
        self._check_own_step()
        self._check_loader_options()
        for name in ("train_data", "eval_data"):
            data = getattr(self, name)
            if data is not None and not hasattr(data, "__len__"):
                raise WorkloadError(
                    f"{name} needs a length (a map-style data set), "
                    f"but got {type(data).__name__} without __len__"
                )
        if self.precision not in ("fp32", "bf16", "fp16"):
            raise WorkloadError(f"precision must be fp32, bf16 or fp16, but got {self.precision!r}")
        for name in ("batch_size", "accumulation"):
            if getattr(self, name) < 1:
                raise WorkloadError(f"{name} must be at least 1, but got {getattr(self, name)}")

    def _check_own_step(self) -> None:
        """What a train_step would have to do by itself cannot be asked for beside it."""
        plain = {"precision": "fp32", "accumulation": 1, "compile": False}
        changed = [name for name, value in plain.items() if getattr(self, name) != value]
        if self.train_step and changed:
            name = changed[0]
            raise WorkloadError(
                f"{name}={getattr(self, name)!r} would not be applied: train_step does the whole "
                f"step by itself; do it there, with a knob if it should vary, and leave {name} out"
            )

    def _check_loader_options(self) -> None:
        for name, instead in _NOT_LOADER_OPTIONS.items():
            if name in self.loader_options:
                raise WorkloadError(
                    f"{name!r} in loader_options is in the way of what is probed; "
                    f"give the Workload {instead} instead"
                )


WorkloadFunction = Callable[..., Workload]

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
    """The same target always written the same way: ``./train.py:workload`` without its dot."""
    where, _, name = target.rpartition(":")
    return f"{os.path.normpath(where)}:{name}" if where.endswith(".py") else target


def source_of(target: str) -> str:
    """Fingerprint of the file that defines a workload; not of what that file imports.

    Empty where the file is not known: a module that this process has not imported.
    """
    where, _, _ = target.rpartition(":")
    if not where:
        files = sorted(Path(__file__).with_name("builtin").glob("*.py"))
    elif where.endswith(".py"):
        files = [Path(where)]
    else:
        files = _files_of_module(where)
    if not files:
        return ""
    digest = hashlib.sha256()
    try:
        for file in files:
            digest.update(file.read_bytes())
    except OSError:
        return ""
    return digest.hexdigest()[:12]


def _files_of_module(name: str) -> list[Path]:
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
    try:
        module = _import_file(Path(where)) if where.endswith(".py") else _import_module(where)
    except (UsageError, WorkloadError):
        raise
    except (Exception, SystemExit) as error:
        raise WorkloadError(f"importing {where} failed: {first_line(error)}") from error
    function = getattr(module, name, None)
    if not callable(function):
        known = [n for n, f in vars(module).items() if inspect.isfunction(f)]
        raise WorkloadError(
            f"{where} has no function {name!r}; it defines: {', '.join(known) or 'none'}"
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
