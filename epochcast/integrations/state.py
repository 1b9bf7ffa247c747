"""The default checkpoint: model, optimizer and whatever else has a state, with every random state.

    {"objects": {name: state_dict}, "random": {…}, "epoch_random": {…}}      one process: a file
    objects.pt  random-0.pt  random-1.pt …                                   several: a folder

``random`` is of the moment of the save, ``epoch_random`` of the beginning of its epoch: with both,
an interrupted epoch draws the same shuffle again, skips what was done, and goes on as if nothing
had happened. Written by ``torch.save``; read with ``weights_only=True``, so nothing is unpickled
but tensors, numbers, text and containers of them. NumPy's numbers become Python's, and an array is
written as ``{"numpy.ndarray": tensor}``. The first checkpoint of a process is read back at once: a
state that cannot be read is found after one step, not after a week.
"""

from __future__ import annotations

import io
import random
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch

from epochcast.errors import StoreError, UsageError
from epochcast.profiler.ranks import Alone, Ranks

OBJECTS = "objects.pt"  # of several processes
ARRAY = "numpy.ndarray"
SAMPLED = 8  # numbers of each parameter: averaged weights differ from trained ones in nearly all


class TorchState:
    """Objects whose state makes up a run.

    Args:
        objects: by name; each has ``state_dict`` and ``load_state_dict`` as modules, optimizers,
            schedulers and scalers have, or is a ``torch.Generator``.
        ranks: the processes of the run: each keeps its own random states, the first one the rest.

    Raises:
        UsageError: an object has no state that could be saved.
    """

    def __init__(self, objects: Mapping[str, Any], ranks: Ranks | None = None) -> None:
        self._objects = dict(objects)
        self._ranks = ranks or Alone()
        self._epoch_random = self._random()
        self._later: dict[str, Any] | None = None
        self._proved = False
        self._sample: list[torch.Tensor] = []
        for name, thing in self._objects.items():
            stateful = hasattr(thing, "state_dict") and hasattr(thing, "load_state_dict")
            if not stateful and not isinstance(thing, torch.Generator):
                raise UsageError(
                    f"{name} has no state_dict and load_state_dict, so it cannot be saved: "
                    "leave it out, or give save= and load= instead of state="
                )

    def begin_epoch(self) -> None:
        """Remember the random states from which this epoch draws."""
        self._epoch_random = self._random()

    def write(self, path: Path) -> None:
        """Write all states; of several processes, all call this.

        Raises:
            UsageError: an object's state could not be read again.
        """
        states = {name: _plain(_state_of(thing)) for name, thing in self._objects.items()}
        chance = {"random": self._random(), "epoch_random": self._epoch_random}
        if self._ranks.size == 1:
            torch.save({"objects": states, **chance}, path)
            self._prove(path, states)
            return
        path.mkdir(parents=True, exist_ok=True)
        torch.save(chance, path / self._own)
        if self._ranks.rank == 0:
            torch.save({"objects": states}, path / OBJECTS)
            self._prove(path / OBJECTS, states)

    def _prove(self, path: Path, states: Mapping[str, Any]) -> None:
        """Read back what was written, once: mapped, so that its tensors take no memory."""
        if self._proved:
            return
        try:
            _load(path, mmap=True)
        except StoreError as error:
            for name, state in states.items():
                _require_readable(name, state)
            raise UsageError(str(error)) from error
        self._proved = True

    @property
    def _own(self) -> str:
        return f"random-{self._ranks.rank}.pt"

    def read(self, path: Path) -> None:
        """Take up all states; random states are left as they were at the epoch's begin.

        A process that did not write any keeps those that it has.

        Raises:
            StoreError: what is there is not what this run consists of.
        """
        states = _load(path / OBJECTS if path.is_dir() else path)
        if path.is_dir() and (path / self._own).exists():
            states |= _load(path / self._own)
        saved = states.get("objects", {})
        if set(saved) != set(self._objects):
            raise StoreError(
                f"the checkpoint {path} holds {', '.join(saved)}, but this run consists of "
                f"{', '.join(self._objects)}"
            )
        for name, thing in self._objects.items():
            _restore(thing, _with_arrays(saved[name]))
        if "random" in states:
            self._epoch_random, self._later = states["epoch_random"], states["random"]
            self._set_random(self._epoch_random)

    def go_on(self) -> None:
        """What was done of an interrupted epoch is skipped: random states as they were then."""
        if self._later is not None:
            self._set_random(self._later)

    @contextmanager
    def undone(self, generator: torch.Generator | None) -> Iterator[None]:
        """Random states, a loader's own one too, are afterwards as they were before."""
        before = self._random()
        own = None if generator is None else (generator, generator.get_state())
        try:
            yield
        finally:
            self._set_random(before)
            if own is not None:
                own[0].set_state(own[1])

    def begin_evaluation(self) -> None:
        """Remember a sample of the weights as training left them."""
        self._sample = self._sampled()

    @property
    def as_trained(self) -> bool:
        """Whether the weights are still those, and no averaged ones were swapped in."""
        before, now = self._sample, self._sampled()
        return len(before) == len(now) and all(map(torch.equal, before, now))

    def _sampled(self) -> list[torch.Tensor]:
        modules = (thing for thing in self._objects.values() if isinstance(thing, torch.nn.Module))
        return [_some_of(weight) for module in modules for weight in module.parameters()]

    def _random(self) -> dict[str, Any]:
        state = np.random.get_state()
        found: dict[str, Any] = {
            "torch": torch.get_rng_state(),
            "python": list(_as_lists(random.getstate())),
            "numpy": _as_lists(state),
            "generators": {
                name: thing.get_state()
                for name, thing in self._objects.items()
                if isinstance(thing, torch.Generator)
            },
        }
        if torch.cuda.is_available():
            found["cuda"] = torch.cuda.get_rng_state_all()
        if torch.backends.mps.is_available():
            found["mps"] = torch.mps.get_rng_state()
        return found

    def _set_random(self, states: Mapping[str, Any]) -> None:
        torch.set_rng_state(states["torch"])
        version, numbers, gauss = states["python"]
        random.setstate((version, tuple(numbers), gauss))
        name, keys, *rest = states["numpy"]
        np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
        for name, state in states["generators"].items():
            self._objects[name].set_state(state)
        if "cuda" in states and torch.cuda.device_count() == len(states["cuda"]):
            torch.cuda.set_rng_state_all(states["cuda"])
        if "mps" in states and torch.backends.mps.is_available():
            torch.mps.set_rng_state(states["mps"])


def _some_of(weight: torch.Tensor) -> torch.Tensor:
    flat = weight.detach().reshape(-1)
    return flat[:: max(1, len(flat) // SAMPLED)].clone()


def _load(path: Path, mmap: bool = False) -> dict[str, Any]:
    try:
        return dict(torch.load(path, map_location="cpu", weights_only=True, mmap=mmap))
    except Exception as error:
        raise StoreError(f"cannot read the checkpoint {path}: {error}") from error


def _require_readable(name: str, state: Any) -> None:
    written = io.BytesIO()
    torch.save(state, written)
    written.seek(0)
    try:
        torch.load(written, weights_only=True)
    except Exception as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        what = found[1] if found else str(error).partition("\n")[0]
        raise UsageError(
            f"{name} has {what} in its state, which could not be read again: checkpoints hold "
            "tensors, numbers, text and containers of them; leave it out of state=, or give "
            "save= and load="
        ) from error


def _plain(value: Any) -> Any:
    """The same without NumPy, of which ``weights_only`` reads nothing."""
    if isinstance(value, np.ndarray):
        plain = value.dtype.kind in "biufc"
        return {ARRAY: torch.from_numpy(value.copy())} if plain else _plain(value.tolist())
    return value.item() if isinstance(value, np.generic) else _mapped(value, _plain)


def _with_arrays(value: Any) -> Any:
    """What ``_plain`` was given, but for the types of numbers."""
    if isinstance(value, dict) and value.keys() == {ARRAY}:
        return value[ARRAY].numpy()
    return _mapped(value, _with_arrays)


def _mapped(value: Any, function: Callable[[Any], Any]) -> Any:
    """A container with the function of its parts; itself where they stay as they are."""
    if isinstance(value, dict):
        parts = {function(key): function(part) for key, part in value.items()}
        then, before = (*parts, *parts.values()), (*value, *value.values())
        if all(a is b for a, b in zip(then, before, strict=True)):
            return value
        changed = copy(value)  # keeps what is attached to it: a module's versions
        changed.clear()
        changed.update(parts)
        return changed
    if type(value) in (list, tuple):
        mapped = [function(part) for part in value]
        same = all(a is b for a, b in zip(mapped, value, strict=True))
        return value if same else type(value)(mapped)
    return value


def _as_lists(state: Any) -> list[Any]:
    """Tuples and arrays as lists of plain numbers, which need no unpickling."""
    return [
        _as_lists(part) if isinstance(part, tuple | np.ndarray) else _plain(part) for part in state
    ]


def _state_of(thing: Any) -> Any:
    return thing.get_state() if isinstance(thing, torch.Generator) else thing.state_dict()


def _restore(thing: Any, state: Any) -> None:
    if isinstance(thing, torch.Generator):
        thing.set_state(state)
    else:
        thing.load_state_dict(state)
