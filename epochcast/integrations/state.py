"""The default checkpoint: model, optimizer and whatever else has a state, with every random state.

    {"objects": {name: state_dict}, "random": {…}, "epoch_random": {…}}

``random`` is of the moment of the save, ``epoch_random`` of the beginning of its epoch: with both,
an interrupted epoch draws the same shuffle again, skips what was done, and goes on as if nothing
had happened. Written by ``torch.save``; read with ``weights_only=True``, so nothing is unpickled
but tensors, numbers, text and containers of them.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from epochcast.errors import StoreError, UsageError


class TorchState:
    """Objects whose state makes up a run.

    Args:
        objects: by name; each has ``state_dict`` and ``load_state_dict`` as modules, optimizers,
            schedulers and scalers have, or is a ``torch.Generator``.

    Raises:
        UsageError: an object has no state that could be saved.
    """

    def __init__(self, objects: Mapping[str, Any]) -> None:
        self._objects = dict(objects)
        self._epoch_random = self._random()
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
        """Write all states to a file."""
        states = {
            "objects": {name: _state_of(thing) for name, thing in self._objects.items()},
            "random": self._random(),
            "epoch_random": self._epoch_random,
        }
        torch.save(states, path)

    def read(self, path: Path) -> None:
        """Take up all states of a file; random states are left as they were at its epoch's begin.

        Raises:
            StoreError: the file does not hold what this run consists of.
        """
        try:
            states = torch.load(path, map_location="cpu", weights_only=True)
            saved = states["objects"]
        except Exception as error:
            raise StoreError(f"cannot read the checkpoint {path}: {error}") from error
        if set(saved) != set(self._objects):
            raise StoreError(
                f"the checkpoint {path} holds {', '.join(saved)}, but this run consists of "
                f"{', '.join(self._objects)}"
            )
        for name, thing in self._objects.items():
            _restore(thing, saved[name])
        self._epoch_random, self._later = states["epoch_random"], states["random"]
        self._set_random(self._epoch_random)

    def go_on(self) -> None:
        """What was done of an interrupted epoch is skipped: random states as they were then."""
        self._set_random(self._later)

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


def _as_lists(state: Any) -> list[Any]:
    """Tuples and arrays as lists of plain numbers, which need no unpickling."""
    return [
        _as_lists(part) if isinstance(part, tuple | np.ndarray) else _plain(part) for part in state
    ]


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _state_of(thing: Any) -> Any:
    return thing.get_state() if isinstance(thing, torch.Generator) else thing.state_dict()


def _restore(thing: Any, state: Any) -> None:
    if isinstance(thing, torch.Generator):
        thing.set_state(state)
    else:
        thing.load_state_dict(state)
