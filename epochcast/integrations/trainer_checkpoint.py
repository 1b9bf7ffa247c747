"""A checkpoint as Trainer writes its own, so that ``train(resume_from_checkpoint=…)`` reads it.

    model.safetensors  config.json …   model, and tokenizer or processor, as ``save_pretrained``
    optimizer.pt  scheduler.pt  scaler.pt
    trainer_state.json                 how far training is: Trainer skips what was done
    rng_state.pth                      of one process; rng_state_<rank>.pth of several

A callback is not given the Trainer, but all that the Trainer saves. Its arguments are left out:
they are a pickle, and resuming does not read them.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_model
from transformers import TrainerState

from epochcast.guard.ranks import Ranks

WEIGHTS, OPTIMIZER, SCHEDULER, SCALER, STATE = (
    "model.safetensors", "optimizer.pt", "scheduler.pt", "scaler.pt", "trainer_state.json",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerParts:
    """What a Trainer's checkpoint is made of, as callbacks are given it."""

    state: TrainerState
    model: Any
    optimizer: Any
    scheduler: Any
    processing: Any

    @classmethod
    def of(cls, state: TrainerState, given: Mapping[str, Any]) -> TrainerParts:
        """From the arguments of a callback."""
        return cls(
            state=state,
            model=given["model"],
            optimizer=given["optimizer"],
            scheduler=given["lr_scheduler"],
            processing=given.get("processing_class"),
        )


def write_checkpoint(folder: Path, parts: TrainerParts, ranks: Ranks) -> None:
    """Write a checkpoint; all processes call this, and the first one writes what they share."""
    folder.mkdir(parents=True, exist_ok=True)
    name = "rng_state.pth" if ranks.size == 1 else f"rng_state_{ranks.rank}.pth"
    torch.save(_random_states(ranks.size), folder / name)
    if ranks.rank > 0:
        return
    _write_model(folder, parts.model)
    if parts.processing is not None:
        parts.processing.save_pretrained(folder)
    torch.save(parts.optimizer.state_dict(), folder / OPTIMIZER)
    with warnings.catch_warnings():  # torch reminds of saving the optimizer too
        warnings.simplefilter("ignore", UserWarning)
        torch.save(parts.scheduler.state_dict(), folder / SCHEDULER)
    if getattr(parts.optimizer, "scaler", None) is not None:  # accelerate keeps it there
        torch.save(parts.optimizer.scaler.state_dict(), folder / SCALER)
    parts.state.save_to_json(str(folder / STATE))


def _write_model(folder: Path, model: Any) -> None:
    """Under the names that the model has now: Trainer reads no others (transformers#48805)."""
    if not hasattr(model, "save_pretrained"):
        save_model(model, str(folder / WEIGHTS))
    elif "save_original_format" in signature(model.save_pretrained).parameters:
        model.save_pretrained(folder, save_original_format=False)
    else:
        model.save_pretrained(folder)


def _random_states(processes: int) -> dict[str, Any]:
    """As Trainer reads them."""
    states: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "cpu": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        of_all = processes > 1
        states["cuda"] = torch.cuda.get_rng_state_all() if of_all else torch.cuda.get_rng_state()
    return states
